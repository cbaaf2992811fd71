"""How good a face is for recognition, and in plain words why it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ipse.faces.align import TEMPLATES, align, check_image
from ipse.faces.contract import Face

# For each measure the value at which a face is useless (0) and at which it is as good as any (1).
_EYE_DISTANCE = (4.0, 24.0)
_SHARPNESS = (0.0, 0.25)
_CONTRAST = (20.0, 80.0)
_SCORE = (-0.5, 0.7)
_YAW = (60.0, 20.0)
# A measure below this is named as a reason.
_POOR = 0.5
# How far the base and the tip of the nose stand out from the plane of the eyes, as a fraction of the distance between
# the middles of the eyes (about 62 mm in adults); it turns the shift of the nose into an angle.
_NOSE_DEPTH = {"dlib5": 0.44, "arcface5": 0.68}
_NOSE_POINT = {"dlib5": 4, "arcface5": 2}
# Rows and columns of the dlib chip that hold the face without its surroundings.
_INNER = slice(25, 125)
# Length in pixels of the blur that sharpness is measured by.
_BLUR = 9


@dataclass(frozen=True)
class Quality:
    """What was measured on a face.

    Attributes
    ----------
    overall
        0 (useless) to 1: the product of what each measure is worth, usable as a weight.
    eye_distance
        Between the middles of the eyes, in pixels of the image; the size that counts for recognition, whatever box a
        detector draws.
    sharpness
        0 (all blur) to 1: how much of the change between neighboring pixels a further blur takes away.
    brightness
        Median lightness of the face, 0–255.
    contrast
        Between the dark and the light parts of the face (5th and 95th percentile of lightness), 0–255.
    yaw, roll
        Degrees, estimated from five landmarks: yaw to some 5°, positive where the nose points to the right of the
        image; roll positive where the face is turned clockwise. Nodding is not measured: five points cannot tell it
        from a long or a short nose.
    score
        The detector's.
    reasons
        Plain sentences about what makes the face poor; empty for a good one.
    """

    overall: float
    eye_distance: float
    sharpness: float
    brightness: float
    contrast: float
    yaw: float
    roll: float
    score: float
    reasons: tuple[str, ...]


def assess(image: np.ndarray, faces: Sequence[Face], chips: np.ndarray | None = None) -> list[Quality]:
    """Measure how good faces are.

    Parameters
    ----------
    image
        (H, W, 3) uint8 RGB array.
    faces
        Faces of that image.
    chips
        What ``align(image, faces, "dlib150")`` gives, where it is at hand already.

    Returns
    -------
    list of Quality
        One for each face, in the same order.

    Raises
    ------
    ImageError
        If the array is not an image of that form.
    """
    check_image(image)
    if chips is None:
        chips = align(image, faces, "dlib150")
    return [_assess(chip[_INNER, _INNER], face, image.shape) for chip, face in zip(chips, faces, strict=True)]


def _assess(skin: np.ndarray, face: Face, shape: tuple[int, ...]) -> Quality:
    gray = skin @ np.array([0.299, 0.587, 0.114], np.float32)
    dark, brightness, light = np.percentile(gray, (5, 50, 95)).tolist()
    eye_distance, yaw, roll = _pose(face)
    sharpness = _sharpness(gray)
    worth = {
        "size": _ramp(eye_distance, _EYE_DISTANCE),
        "sharpness": _ramp(sharpness, _SHARPNESS),
        "exposure": _ramp(light - dark, _CONTRAST),
        "yaw": _ramp(abs(yaw), _YAW),
        "score": _ramp(face.score, _SCORE),
        "whole": 1.0 if _is_within(face.landmarks, shape) else 0.3,
    }
    if brightness < 70:
        exposure = "The face is too dark."
    elif brightness > 200:
        exposure = "The face is overexposed."
    else:
        exposure = "The face has too little contrast: haze, glare or flat light."
    texts = {
        "size": f"The face is small: {eye_distance:.0f} of {_needed(_EYE_DISTANCE):.0f} pixels needed between eyes.",
        "sharpness": "The face is blurred or has been enlarged.",
        "exposure": exposure,
        "yaw": f"The head is turned aside by about {abs(yaw):.0f} degrees.",
        "score": "The detector is not sure that this is a face.",
        "whole": "The face is cut off by the edge of the image.",
    }
    reasons = tuple(texts[key] for key, value in worth.items() if value < _POOR)
    overall = float(np.prod(list(worth.values())))
    return Quality(overall, eye_distance, sharpness, brightness, light - dark, yaw, roll, face.score, reasons)


def _ramp(value: float, ends: tuple[float, float]) -> float:
    useless, good = ends
    return min(1.0, max(0.0, (value - useless) / (good - useless)))


def _needed(ends: tuple[float, float]) -> float:
    return ends[0] + _POOR * (ends[1] - ends[0])


def _is_within(landmarks: np.ndarray, shape: tuple[int, ...]) -> bool:
    return bool((landmarks >= 0).all() and (landmarks <= [shape[1] - 1, shape[0] - 1]).all())


def _sharpness(gray: np.ndarray) -> float:
    """The share of the differences between neighbors that blurring removes (Crété-Roffet et al. 2007), 0–1."""
    shares = []
    for lines in (gray, gray.T):
        sums = np.cumsum(np.pad(lines, ((0, 0), (1, 0))), axis=1)
        blurred = (sums[:, _BLUR:] - sums[:, :-_BLUR]) / _BLUR
        reach = _BLUR // 2
        # One step of brightness is rounding: in a smooth picture it would pass for detail.
        before = (np.abs(np.diff(lines[:, reach:-reach], axis=1)) - 1).clip(0)
        lost = (before - np.abs(np.diff(blurred, axis=1))).clip(0)
        shares.append(lost.sum() / max(before.sum(), 1e-6))
    return float(min(shares))


def _pose(face: Face) -> tuple[float, float, float]:
    """Eye distance in pixels and yaw and roll in degrees.

    A head that turns carries the nose, which stands out from the plane of the eyes, to the side by depth · sin(yaw) and
    narrows the distance of the eyes by cos(yaw).
    """
    landmarks = face.landmarks.astype(np.float64)
    left, right = _eyes(landmarks, face.scheme)
    yaw = np.arctan((_nose_shift(landmarks, face.scheme) - _FRONTAL[face.scheme]) / _NOSE_DEPTH[face.scheme])
    roll = np.arctan2(right[1] - left[1], right[0] - left[0])
    return float(np.hypot(*(right - left))), float(np.degrees(yaw)), float(np.degrees(roll))


def _eyes(landmarks: np.ndarray, scheme: str) -> tuple[np.ndarray, np.ndarray]:
    """Middles of the left and the right eye as the viewer sees them."""
    if scheme == "dlib5":
        return landmarks[2:4].mean(0), landmarks[0:2].mean(0)
    return landmarks[0], landmarks[1]


def _nose_shift(landmarks: np.ndarray, scheme: str) -> float:
    """Place of the nose along the line of the eyes, from their middle, in eye distances."""
    left, right = _eyes(landmarks, scheme)
    line = complex(*(right - left)) or 1.0
    return (complex(*(landmarks[_NOSE_POINT[scheme]] - (left + right) / 2)) / line).real


_FRONTAL = {scheme: _nose_shift(points, scheme) for scheme, points in TEMPLATES["dlib150"].points.items()}
