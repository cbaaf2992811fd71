"""Embeddings averaged over small changes of the chip."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ipse.encoders.contract import Encoder
from ipse.errors import IpseError

if TYPE_CHECKING:
    import torch

# How far jittered chips differ: turned by up to 3°, scaled by up to 4 %, shifted by up to 2 % of the side.
_TURN, _SCALE, _SHIFT = np.deg2rad(3.0), 0.04, 0.02


class AveragedEncoder(Encoder):
    """Another encoder, averaged over the chip, its mirror image and slightly moved copies of it.

    Steadier than one look and as many times as slow. The embeddings lie in the space of the encoder inside and carry
    its fingerprint: they can be compared with its own.

    Parameters
    ----------
    encoder
        The encoder to average.
    flip
        Also look at the mirror image.
    jitter
        Number of moved copies to look at besides, each mirrored too where `flip` is set.
    seed
        Chooses the moves; they are the same for every chip.
    """

    def __init__(self, encoder: Encoder, flip: bool = True, jitter: int = 0, seed: int = 0) -> None:
        if jitter < 0:
            raise ValueError(f"jitter is a number of copies, 0 or more, not {jitter}")
        self._encoder = encoder
        self._flip = flip
        self.name, self.dim, self.modality = encoder.name, encoder.dim, encoder.modality
        self.metric, self.chip, self.license = encoder.metric, encoder.chip, encoder.license
        self.fingerprint = encoder.fingerprint
        self.batch_size = encoder.batch_size
        moves = np.random.default_rng(seed).uniform(-1, 1, (jitter, 4))
        self._moves = [self._affine(move) for move in moves]

    def _affine(self, move: np.ndarray) -> tuple[float, ...]:
        """Coefficients that map a moved chip's pixels to the chip's, in Pillow's order."""
        turn, scale, right, down = move * (_TURN, _SCALE, _SHIFT, _SHIFT)
        a, b = (1 + scale) * np.cos(turn), (1 + scale) * np.sin(turn)
        middle = np.array([self.chip.width, self.chip.height]) / 2
        x, y = middle * (1 + 2 * np.array([right, down])) - np.array([[a, -b], [b, a]]) @ middle
        return (a, -b, x, b, a, y)

    def _moved(self, chip: np.ndarray, coefficients: tuple[float, ...]) -> np.ndarray:
        size = (self.chip.width, self.chip.height)
        # What comes in from outside the chip repeats its edge; black would look like a thing in the picture.
        wide = np.pad(chip, ((chip.shape[0] // 8,) * 2, (chip.shape[1] // 8,) * 2, (0, 0)), mode="edge")
        a, b, x, c, d, y = coefficients
        shifted = (a, b, x + chip.shape[1] // 8, c, d, y + chip.shape[0] // 8)
        picture = Image.fromarray(wide)
        return np.asarray(picture.transform(size, Image.Transform.AFFINE, shifted, Image.Resampling.BILINEAR))

    def _encode(self, batch: np.ndarray) -> np.ndarray:
        looks = [batch, *(np.stack([self._moved(chip, move) for chip in batch]) for move in self._moves)]
        if self._flip:
            looks += [np.ascontiguousarray(look[:, :, ::-1]) for look in looks]
        return np.mean([self._encoder.encode(look) for look in looks], axis=0, dtype=np.float32)

    def torch_module(self) -> torch.nn.Module:
        """See `Encoder.torch_module`.

        Raises
        ------
        IpseError
            With jitter, which has no differentiable form here, or if the encoder inside has none.
        """
        if self._moves:
            raise IpseError("Jitter cannot be averaged with gradients.", "Average with flip alone.")
        from ipse.encoders.modules import FlipAverage

        inside = self._encoder.torch_module()
        return FlipAverage(inside, unit=self.metric == "cosine").eval() if self._flip else inside
