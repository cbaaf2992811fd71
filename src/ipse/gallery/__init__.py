"""The gallery: people remembered, found again, and forgotten for good."""

from ipse.gallery.calibrate import Calibration
from ipse.gallery.fuse import Fused, fuse
from ipse.gallery.gallery import Gallery, UncalibratedWarning
from ipse.gallery.values import (
    UNKNOWN,
    Answer,
    EncoderSpec,
    Grouping,
    Match,
    Migration,
    PersonInfo,
    Threshold,
)

__all__ = [
    "UNKNOWN",
    "Answer",
    "Calibration",
    "EncoderSpec",
    "Fused",
    "Gallery",
    "Grouping",
    "Match",
    "Migration",
    "PersonInfo",
    "Threshold",
    "UncalibratedWarning",
    "fuse",
]
