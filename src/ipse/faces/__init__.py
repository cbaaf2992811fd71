"""Faces: find them, align them, judge whether they are good enough."""

from ipse.faces.align import TEMPLATES, Template, align, fit_similarity
from ipse.faces.contract import Detector, Face
from ipse.faces.hog import HogDetector

__all__ = ["TEMPLATES", "Detector", "Face", "HogDetector", "Template", "align", "fit_similarity"]
