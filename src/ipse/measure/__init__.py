"""Measuring: what is known, how surely, and how it was found out."""

from ipse.measure.evidence import Evidence, bootstrap_ci

__all__ = ["Evidence", "bootstrap_ci"]
