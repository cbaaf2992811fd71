"""Faces: find them, align them, judge whether they are good enough."""

from ipse.faces.align import TEMPLATES, Template, align, fit_similarity
from ipse.faces.contract import Detector, Face
from ipse.faces.hog import HogDetector
from ipse.faces.landmarks import LandmarkDetector, LandmarkPredictor, Landmarks
from ipse.faces.onnx_detector import OnnxDetector
from ipse.faces.quality import Quality, assess

__all__ = [
    "TEMPLATES",
    "Detector",
    "Face",
    "HogDetector",
    "LandmarkDetector",
    "LandmarkPredictor",
    "Landmarks",
    "OnnxDetector",
    "Quality",
    "Template",
    "align",
    "assess",
    "fit_similarity",
]
