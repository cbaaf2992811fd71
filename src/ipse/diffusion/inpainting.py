"""Painting a part of a picture anew, by a base that was trained to make whole ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ipse.diffusion.base import Base, Encoded, Generated, enough_memory
from ipse.diffusion.inversion import picture_digest
from ipse.diffusion.trajectory import Inpaint, sample
from ipse.errors import IpseError
from ipse.images import ImageSource, read_image, resize, to_float

_MASK_HINT = "White is painted, black is kept."


def inpaint(
    base: Base,
    image: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.floating[Any]],
    prompt: str,
    n: int = 1,
    seed: int = 0,
    steps: int = 20,
    guidance: float | None = None,
    encoded: Encoded | None = None,
) -> Iterator[Generated]:
    """Paint what a mask covers anew (blended latent diffusion, Avrahami et al., 2022), one picture after another.

    Parameters
    ----------
    base
        Any.
    image
        (H, W, 3) uint8; of the shape of the base's pictures, at any size. What is painted has the base's sharpness.
    mask
        (H, W) of 0 to 1: where to paint. Where it is 0 each pixel stays as it is, to the bit; between 0 and 1 old and
        new are mixed.
    prompt, n, seed, steps, guidance, encoded
        As in `Base.generate`; the prompt tells of the whole picture.

    Raises
    ------
    IpseError
        If mask and picture do not fit, nothing is to be painted, or as `Base.generate`.
    """
    base.check(n, seed, steps)
    _check_mask(mask, image)
    pixels = base.fit(image)
    height, width = image.shape[:2]
    share = mask[..., None].astype(np.float32)
    denoiser, clean = base.denoiser(prompt, guidance, encoded), base.encode(pixels)
    more = {
        "scheduler": type(denoiser.scheduler).__name__,
        "inpaint": {"picture": picture_digest(image), "mask": picture_digest(np.rint(255 * mask).astype(np.uint8))},
    }
    for number in range(seed, seed + n):
        noise = base.noise(number).to(clean)
        hook = Inpaint(clean, torch.from_numpy(share[..., 0]), noise)
        with torch.no_grad(), enough_memory():
            latent = sample(denoiser, noise, steps, hooks=[hook])
        painted = base.decode(latent)
        if painted.shape != image.shape:
            painted = resize(painted, width, height)
        # Where nothing is painted this is exact: 0 · new + 1 · old.
        mixed = np.rint(share * painted + (1 - share) * image).astype(np.uint8)
        origin = "Partly made by a generative network; what it painted does not show a real scene."
        yield Generated(mixed, prompt, number, steps, denoiser.guidance, more, origin)


def read_mask(source: ImageSource) -> npt.NDArray[np.float32]:
    """A mask (H, W) of 0 to 1 from a picture: white is 1, black and what is transparent are 0.

    Raises
    ------
    ImageError
        As `ipse.images.read_image`.
    """
    return to_float(read_image(source, background=(0, 0, 0))).mean(2)


def region_mask(
    image: npt.NDArray[np.uint8], parts: Sequence[str], network: str = "landmarks-world"
) -> npt.NDArray[np.float32]:
    """A mask (H, W) of 0 and 1: where the faces of a picture have some parts.

    Parameters
    ----------
    image
        (H, W, 3) uint8.
    parts
        Of `ipse.faces.parts.LABELS`, such as ``["hair", "hat"]``.
    network
        Of `ipse.faces.LandmarkPredictor`.

    Raises
    ------
    IpseError
        If there are no such parts, or no face is found, or no face shows them.
    WeightsError
        If there is no such network.
    """
    from ipse.faces import HogDetector, LandmarkPredictor
    from ipse.faces.parts import LABELS

    for part in parts:
        if part not in LABELS:
            raise IpseError(f"There is no part of a picture called {part!r}.", f"There are {', '.join(LABELS)}.")
    predictor = LandmarkPredictor(network)
    height, width = image.shape[:2]
    faces = HogDetector().detect(image)
    if not faces:
        raise IpseError("No face was found in the picture.", "Say where to paint by --mask.")
    wanted = [LABELS.index(part) for part in parts]
    seen = np.zeros((height, width), np.uint8)
    for found in predictor.predict(image, faces):
        # What is background for one face may be a part of another.
        seen = np.where(seen, seen, found.parts_in(height, width))
    mask = np.isin(seen, wanted).astype(np.float32)
    if not mask.any():
        raise IpseError(f"The picture shows no {' or '.join(parts)}.", "Say where to paint by --mask.")
    return mask


def _check_mask(mask: npt.NDArray[np.floating[Any]], image: npt.NDArray[np.uint8]) -> None:
    if mask.shape != image.shape[:2]:
        high, wide = mask.shape[:2]
        raise IpseError(
            f"The mask has {wide}×{high} pixels, and the picture {image.shape[1]}×{image.shape[0]}.",
            "Give a mask of the picture's size.",
        )
    if not (mask.min() >= 0 and mask.max() <= 1):
        raise IpseError("A mask goes from 0 to 1.", _MASK_HINT)
    if not mask.any():
        raise IpseError("The mask is empty: there is nothing to paint.", _MASK_HINT)
