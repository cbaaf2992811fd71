"""Alignment: one batched similarity transform from landmarks to any chip template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ipse.errors import ImageError
from ipse.faces.contract import Face, LandmarkScheme


@dataclass(frozen=True, eq=False)
class Template:
    """Where landmarks lie in a chip.

    Attributes
    ----------
    name
        What encoders call the template.
    size
        Side of the square chip in pixels.
    points
        For each landmark scheme, the (5, 2) places of its points in the chip, in pixels.
    origin
        Place of the middle of the chip's first pixel: 0 where whole numbers are centers of pixels, 0.5 where they are
        edges.
    """

    name: str
    size: int
    points: dict[LandmarkScheme, np.ndarray]
    origin: float


def fit_similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares similarity transforms (rotation, uniform scale, shift; no reflection) between sets of points.

    In the plane a similarity is the complex map w = a·z + b, which has a closed form.

    Parameters
    ----------
    source, target
        (..., P, 2) arrays that broadcast against each other, P at least 2.

    Returns
    -------
    (..., 2, 3) float64 array
        Matrices M with target ≈ M @ (x, y, 1). Where all source points coincide, everything maps to the middle of
        target.
    """
    z = source[..., 0] + 1j * source[..., 1]
    w = target[..., 0] + 1j * target[..., 1]
    z_mean, w_mean = z.mean(-1, keepdims=True), w.mean(-1, keepdims=True)
    spread = (np.abs(z - z_mean) ** 2).sum(-1)
    a = ((z - z_mean).conj() * (w - w_mean)).sum(-1) / np.where(spread > 0, spread, 1)
    b = w_mean[..., 0] - a * z_mean[..., 0]
    return np.stack([np.stack([a.real, -a.imag, b.real], -1), np.stack([a.imag, a.real, b.imag], -1)], -2)


# The mean face that dlib's chips are fitted to (dlib, get_face_chip_details; Boost license), as fractions of a
# square, and the places of five points in the 112 px chips of ArcFace (Deng et al. 2019).
_DLIB_MEAN_FACE = np.array(
    [(0.8595674595992, 0.2134981538014), (0.6460604764104, 0.2289674387677), (0.1205750620789, 0.2137274526848),
     (0.3340850613712, 0.2290642403242), (0.4901123135679, 0.6277975316475)]
)  # fmt: skip
_DLIB_PADDING = 0.25
_DLIB_POINTS = (_DLIB_MEAN_FACE + _DLIB_PADDING) / (2 * _DLIB_PADDING + 1) * 150
_ARCFACE_POINTS = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)


def _between_schemes() -> np.ndarray:
    """The map from dlib's chip to ArcFace's that brings the two mean faces' eyes together.

    The schemes share no point but the middles of the eyes, which two points of dlib's give.
    """
    dlib_eyes = np.stack([_DLIB_POINTS[2:4].mean(0), _DLIB_POINTS[0:2].mean(0)])
    return fit_similarity(dlib_eyes, _ARCFACE_POINTS[:2])


def _apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


_TO_ARCFACE = _between_schemes()
_TO_DLIB = np.linalg.inv(np.vstack([_TO_ARCFACE, [0, 0, 1]]))[:2]

TEMPLATES: dict[str, Template] = {
    template.name: template
    for template in (
        Template("dlib150", 150, {"dlib5": _DLIB_POINTS, "arcface5": _apply(_TO_DLIB, _ARCFACE_POINTS)}, 0.5),
        Template("arcface112", 112, {"dlib5": _apply(_TO_ARCFACE, _DLIB_POINTS), "arcface5": _ARCFACE_POINTS}, 0.0),
    )
}


def align(image: np.ndarray, faces: Sequence[Face], template: str | Template = "dlib150") -> np.ndarray:
    """Cut the faces of an image out as upright chips of one size.

    Pixels are interpolated linearly from the image, halved as often as the face is larger than the chip; what lies
    outside the image is black.

    Parameters
    ----------
    image
        (H, W, 3) uint8 RGB array.
    faces
        N faces of that image.
    template
        A template or the name of one in `TEMPLATES`; an encoder's is ``encoder.chip.template``.

    Returns
    -------
    (N, size, size, 3) uint8 array

    Raises
    ------
    ImageError
        The array is not an image of that form.
    """
    check_image(image)
    layout = TEMPLATES[template] if isinstance(template, str) else template
    chips = np.zeros((len(faces), layout.size, layout.size, 3), np.uint8)
    if not faces:
        return chips
    landmarks = np.stack([face.landmarks for face in faces]).astype(np.float64)
    targets = np.stack([layout.points[face.scheme] for face in faces])
    matrices = fit_similarity(targets, landmarks)  # from the chip to the image
    scale = np.hypot(matrices[:, 0, 0], matrices[:, 1, 0])  # image pixels per chip pixel
    levels = np.floor(np.log2(np.maximum(scale, 1))).astype(int)
    for level in range(levels.max() + 1):
        if level:
            image = np.asarray(Image.fromarray(image).reduce(2))
        if (chosen := levels == level).any():
            chips[chosen] = _sample(image, matrices[chosen], layout, 2**level)
    return chips


def _sample(image: np.ndarray, matrices: np.ndarray, layout: Template, shrink: int) -> np.ndarray:
    """Read n chips out of an image that was shrunk by a whole factor; (n, size, size, 3) uint8."""
    steps = np.arange(layout.size) + layout.origin
    x, y = np.meshgrid(steps, steps)
    grid = np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
    # A pixel of the shrunk image covers a whole square of pixels, so its center lies between theirs.
    places = ((matrices @ grid + 0.5) / shrink - 0.5).astype(np.float32)
    corner = np.floor(places)
    fraction = places - corner
    x0, y0 = corner.astype(np.int64).transpose(1, 0, 2)
    height, width = image.shape[:2]
    flat = image.reshape(-1, 3)
    out = np.zeros((*x0.shape, 3), np.float32)
    for dy in (0, 1):
        for dx in (0, 1):
            column, row = x0 + dx, y0 + dy
            weight = np.abs(1 - dx - fraction[:, 0]) * np.abs(1 - dy - fraction[:, 1])
            weight *= (column >= 0) & (column < width) & (row >= 0) & (row < height)
            pixel = row.clip(0, height - 1) * width + column.clip(0, width - 1)
            out += weight[..., None] * flat.take(pixel, axis=0)
    return (out + 0.5).astype(np.uint8).reshape(len(matrices), layout.size, layout.size, 3)


def check_image(image: np.ndarray) -> None:
    """Raise `ImageError` unless ``image`` is an (H, W, 3) uint8 array with pixels."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageError(f"An image is a uint8 RGB array of shape (H, W, 3); this is {found}.", reason="bad-array")
    if not image.size:
        raise ImageError("The image has no pixels.", reason="no-pixels")
