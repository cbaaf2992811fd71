"""Gait: walks as chips, and the mean silhouette as the template that networks are measured against.

A walk is a set of silhouettes and a chip is one picture, so the silhouettes of a walk stand side by side in one chip,
as on a strip of film. Galleries, training and export then take walks as they take faces: `ipse.world.walks` renders
strips, the backbone ``gaitset`` reads the frames of a strip as a set, and `GaitEnergy` averages them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from ipse.encoders.contract import ChipSpec, Encoder, fingerprint_of
from ipse.errors import ImageError

HEIGHT, WIDTH = 64, 44
"""Of a silhouette in pixels, as gait recognition has it since GaitSet (Chao et al., 2019)."""

FRAMES = 12
"""Of a strip."""


def silhouette(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Align a silhouette: the person fills the height, and half of it lies on either side of the middle.

    So neither how far nor how tall somebody was is left. Rows and center as in GaitSet's published preprocessing.

    Parameters
    ----------
    mask
        (H, W) where the person is.

    Returns
    -------
    (`HEIGHT`, `WIDTH`) uint8, 255 where the person is; what reaches beyond the width is cut off

    Raises
    ------
    ImageError
        If nobody is there.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        raise ImageError("There is nobody in the mask.", "Leave frames without a person out.", reason="empty")
    cut = Image.fromarray(np.where(mask[rows[0] : rows[-1] + 1], 255, 0).astype(np.uint8))
    width = max(1, round(cut.width * HEIGHT / cut.height))
    scaled = np.asarray(cut.resize((width, HEIGHT), Image.Resampling.BICUBIC))
    mass = scaled.sum(axis=0, dtype=np.int64).cumsum()
    middle = int(np.searchsorted(mass, mass[-1] / 2, side="right"))
    # Room on both sides, wherever the person stands.
    return np.pad(scaled, ((0, 0), (WIDTH, WIDTH)))[:, middle + WIDTH - WIDTH // 2 :][:, :WIDTH]


def strip(silhouettes: Sequence[npt.NDArray[np.uint8]], frames: int = FRAMES) -> npt.NDArray[np.uint8]:
    """Put the silhouettes of a walk side by side.

    Parameters
    ----------
    silhouettes
        One or more as `silhouette` gives, in order of time.
    frames
        Of the strip: as many are taken at even distances, some twice where there are fewer.

    Returns
    -------
    (`HEIGHT`, frames x `WIDTH`, 3) uint8

    Raises
    ------
    ImageError
        If there is none, or one is of another size.
    """
    if not len(silhouettes) or any(one.shape != (HEIGHT, WIDTH) for one in silhouettes):
        raise ImageError(
            f"A strip is made of silhouettes of {HEIGHT} x {WIDTH} pixels, one at least.",
            "Align each mask with `silhouette`.",
            reason="bad-array",
        )
    chosen = np.arange(frames) * len(silhouettes) // frames
    row = np.concatenate([silhouettes[i] for i in chosen], axis=1)
    return np.repeat(row[..., None], 3, axis=2)


def strip_spec(frames: int = FRAMES) -> ChipSpec:
    """The chip that a strip is; networks see silhouettes as 0 to 1."""
    return ChipSpec(HEIGHT, frames * WIDTH, None, std=(255.0,) * 3)


class GaitEnergy(Encoder):
    """The gait energy image: the mean silhouette of a walk (Han & Bhanu, 2006), without weights.

    Parameters
    ----------
    frames
        Of a strip.
    """

    def __init__(self, frames: int = FRAMES) -> None:
        self.name, self.modality, self.metric, self.license = "gait-energy", "gait", "cosine", "Apache-2.0"
        self.dim, self.chip = HEIGHT * WIDTH, strip_spec(frames)
        self.fingerprint = fingerprint_of(self.name, self.chip)

    def _encode(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        frames = batch[..., 0].reshape(len(batch), HEIGHT, -1, WIDTH)
        return frames.mean(axis=2, dtype=np.float32).reshape(len(batch), -1) / 255
