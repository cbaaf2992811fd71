"""Weights: where they come from, how they are checked, converted and run."""

from ipse.zoo.cache import cache_dir, cached
from ipse.zoo.runtime import Network
from ipse.zoo.shipped_files import ShippedFiles, shipped_files, shipped_names
from ipse.zoo.weights import DLIB_FACE_NETWORK, DLIB_FIVE_POINTS, Weights

__all__ = [
    "DLIB_FACE_NETWORK",
    "DLIB_FIVE_POINTS",
    "Network",
    "ShippedFiles",
    "Weights",
    "cache_dir",
    "cached",
    "shipped_files",
    "shipped_names",
]
