"""What a face is, and the contract of every face detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

LandmarkScheme = Literal["dlib5", "arcface5"]


@dataclass(frozen=True, eq=False)
class Face:
    """A face found in an image.

    Coordinates are in pixels of that image, x to the right and y down, with whole numbers at the centers of pixels.

    Attributes
    ----------
    box
        (x0, y0, x1, y1), within the image.
    score
        The detector's confidence. Its scale is the detector's own, but 0 is the least that counts as a face and from
        1 on false alarms are rare.
    landmarks
        (5, 2) float32 array of points.
    scheme
        Which points they are, named by where they lie in an upright face as the viewer sees it. ``"dlib5"``: outer
        and inner corner of the right eye, outer and inner corner of the left eye, base of the nose. ``"arcface5"``:
        left eye, right eye, tip of the nose, left and right corner of the mouth.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray
    scheme: LandmarkScheme = "dlib5"


@runtime_checkable
class Detector(Protocol):
    """Finds faces."""

    name: str

    def detect(self, image: np.ndarray) -> list[Face]:
        """Find the faces of an image.

        Parameters
        ----------
        image
            (H, W, 3) uint8 RGB array.

        Returns
        -------
        list of Face
            Surest first; empty where there is no face, however small or plain the image.

        Raises
        ------
        ImageError
            The array is not an image of that form.
        """
        ...
