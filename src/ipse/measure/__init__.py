"""Measuring: what is known, how surely, and how it was found out."""

from ipse.measure.distances import Features, Matrix
from ipse.measure.evidence import Evidence, bootstrap_ci, bootstrap_means
from ipse.measure.protocols import PROTOCOLS, Ignore, Protocol
from ipse.measure.rankme import rankme
from ipse.measure.retrieval import Retrieval, compare, evaluate

__all__ = [
    "PROTOCOLS",
    "Evidence",
    "Features",
    "Ignore",
    "Matrix",
    "Protocol",
    "Retrieval",
    "bootstrap_ci",
    "bootstrap_means",
    "compare",
    "evaluate",
    "rankme",
]
