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


# Where the five points lie, as shares of a square: the one around a face's 70 dense landmarks, and the portrait of
# `ipse.world`. Means over the heads turned by less than 25° among 199 busts of the world's people 300 to 520 that
# `HogDetector` found; "dlib5" are the points it gave there, "arcface5" the true ones; left and right are made equal.
# Cut by them, the middle of the landmarks' square is off by 10 % of its side in the median, and its side by 11 % in one
# standard deviation (arcface5: 8 %); a portrait by 3 % and 9 % (5 %). The detector's box in place of its points (0.947
# times as large, its middle 0.083 sides further down) does no better, and differs from detector to detector.
_DENSE_SQUARE: dict[LandmarkScheme, np.ndarray] = {
    "dlib5": np.array([(0.7859, 0.2156), (0.6178, 0.2264), (0.2141, 0.2156), (0.3822, 0.2264), (0.5, 0.5425)]),
    "arcface5": np.array([(0.3, 0.2162), (0.7, 0.2162), (0.5, 0.4753), (0.3377, 0.6547), (0.6623, 0.6547)]),
}
_PORTRAIT: dict[LandmarkScheme, np.ndarray] = {
    "dlib5": np.array([(0.6478, 0.4791), (0.5609, 0.4847), (0.3522, 0.4791), (0.4391, 0.4847), (0.5, 0.6482)]),
    "arcface5": np.array([(0.3966, 0.4794), (0.6034, 0.4794), (0.5, 0.6135), (0.4158, 0.7062), (0.5842, 0.7062)]),
}


def face_box_template(side: int, margin: float) -> Template:
    """The template that cuts as training's ``face_box`` does, which knows the landmarks that are yet to be found.

    Parameters
    ----------
    side
        Of the chip in pixels.
    margin
        What is added to the square around the 70 dense landmarks on each side, as a share of it.
    """
    return _in_shares("face_box", side, {k: (v + margin) / (1 + 2 * margin) for k, v in _DENSE_SQUARE.items()})


def portrait_template(side: int) -> Template:
    """The template that cuts a face as `ipse.world` frames a portrait, in a chip of `side` pixels."""
    return _in_shares("portrait", side, _PORTRAIT)


def _in_shares(name: str, side: int, shares: dict[LandmarkScheme, np.ndarray]) -> Template:
    return Template(f"{name}{side}", side, {scheme: points * side - 0.5 for scheme, points in shares.items()}, 0.0)


def align(image: np.ndarray, faces: Sequence[Face], template: str | Template = "dlib150") -> np.ndarray:
    """Cut the faces of an image out as upright chips of one size; see `cut_chips`. Outside the image they are black.

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
    layout = TEMPLATES[template] if isinstance(template, str) else template
    return cut_chips(image, chip_maps(faces, layout), layout.size, layout.origin)


def chip_maps(faces: Sequence[Face], template: Template) -> np.ndarray:
    """(N, 2, 3) maps from places in the chips of N faces to places in their image."""
    if not faces:
        return np.empty((0, 2, 3))
    landmarks = np.stack([face.landmarks for face in faces]).astype(np.float64)
    return fit_similarity(np.stack([template.points[face.scheme] for face in faces]), landmarks)


def cut_chips(
    image: np.ndarray, maps: np.ndarray, side: int, origin: float = 0.0, *, repeat_edges: bool = False
) -> np.ndarray:
    """Cut square chips out of an image.

    Pixels are interpolated linearly from the image, halved as often as what is cut is larger than the chip.

    Parameters
    ----------
    image
        (H, W, 3) uint8 RGB array.
    maps
        (N, 2, 3) similarities from places in the chip to places in the image.
    side
        Of a chip in pixels.
    origin
        Place in the chip of the middle of its first pixel; see `Template`.
    repeat_edges
        What lies outside the image looks like its nearest pixel; otherwise it is black.

    Returns
    -------
    (N, side, side, 3) uint8 array

    Raises
    ------
    ImageError
        The array is not an image of that form.
    """
    check_image(image)
    chips = np.zeros((len(maps), side, side, 3), np.uint8)
    if not len(maps):
        return chips
    scale = np.hypot(maps[:, 0, 0], maps[:, 1, 0])  # image pixels per chip pixel
    levels = np.floor(np.log2(np.maximum(scale, 1))).astype(int)
    for level in range(levels.max() + 1):
        if level:
            image = np.asarray(Image.fromarray(image).reduce(2))
        if (chosen := levels == level).any():
            chips[chosen] = _sample(image, maps[chosen], side, origin, 2**level, repeat_edges)
    return chips


def _sample(
    image: np.ndarray, matrices: np.ndarray, side: int, origin: float, shrink: int, repeat_edges: bool
) -> np.ndarray:
    """Read n chips out of an image that was shrunk by a whole factor; (n, side, side, 3) uint8."""
    steps = np.arange(side) + origin
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
            if not repeat_edges:
                weight *= (column >= 0) & (column < width) & (row >= 0) & (row < height)
            pixel = row.clip(0, height - 1) * width + column.clip(0, width - 1)
            out += weight[..., None] * flat.take(pixel, axis=0)
    return (out + 0.5).astype(np.uint8).reshape(len(matrices), side, side, 3)


def check_image(image: np.ndarray) -> None:
    """Raise `ImageError` unless ``image`` is an (H, W, 3) uint8 array with pixels."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ImageError(f"An image is a uint8 RGB array of shape (H, W, 3); this is {found}.", reason="bad-array")
    if not image.size:
        raise ImageError("The image has no pixels.", reason="no-pixels")
