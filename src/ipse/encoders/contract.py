"""The contract of every encoder: chips in, embeddings out."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ipse.errors import ImageError, IpseError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ChipSpec:
    """What an encoder's input looks like.

    Attributes
    ----------
    height, width
        Of the chip in pixels.
    template
        Name of the alignment that cuts the chip out of a photograph (``"dlib150"``, ``"arcface112"``; see
        `ipse.faces`), or None where the whole crop is used as it is.
    color
        Channel order the *network* wants; callers always hand over red, green, blue.
    mean, std
        The network sees ``(pixel - mean) / std`` with pixels in 0–255, per channel in the order of `color`.
    """

    height: int
    width: int
    template: str | None
    color: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def pixels(self, chips: np.ndarray) -> np.ndarray:
        """What the network sees of (N, height, width, 3) uint8 RGB chips: (N, 3, height, width) float32."""
        ordered = chips[..., ::-1] if self.color == "bgr" else chips
        normal = (ordered - np.float32(self.mean)) / np.float32(self.std)
        return np.ascontiguousarray(normal.transpose(0, 3, 1, 2))


def fingerprint_of(weights_sha256: str, chip: ChipSpec) -> str:
    """sha256 in hexadecimal over weights and preprocessing: equal only where embeddings can be compared."""
    preprocessing = json.dumps(asdict(chip), sort_keys=True)
    return hashlib.sha256(f"{weights_sha256}\n{preprocessing}".encode()).hexdigest()


def as_batch(images: np.ndarray | Sequence[np.ndarray], chip: ChipSpec) -> np.ndarray:
    """Stack chips into an (N, height, width, 3) uint8 array.

    Raises
    ------
    ImageError
        If an image is not a uint8 RGB array of the chip's size.
    """
    wanted = (chip.height, chip.width, 3)
    for index, image in enumerate(images):
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape != wanted:
            found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise ImageError(
                f"Image {index} is {found} where a uint8 array of shape {wanted} is needed.",
                f"Align faces to the template {chip.template!r} first." if chip.template else "Resize it first.",
                reason="bad-array",
            )
    if len(images) == 0:
        return np.empty((0, *wanted), np.uint8)
    return images if isinstance(images, np.ndarray) else np.stack(images)


class Encoder(ABC):
    """Maps chips of people to vectors, near for the same person and far for different ones.

    Attributes
    ----------
    name
        Short and stable.
    dim
        Length D of an embedding.
    modality
        What the chip shows: ``"face"``, ``"body"``, ``"ear"``, …
    metric
        How embeddings are compared: ``"cosine"`` (they have length 1) or ``"l2"`` (Euclidean distance).
    chip
        Size, alignment, color order and normalization of the input.
    fingerprint
        sha256 over weights and preprocessing, hexadecimal; embeddings are comparable only between equal fingerprints.
    license
        Terms of the weights.
    batch_size
        The most chips that go through the network at once.
    """

    name: str
    dim: int
    modality: str
    metric: Literal["cosine", "l2"]
    chip: ChipSpec
    fingerprint: str
    license: str
    batch_size: int = 16

    def encode(self, images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Embed chips.

        Parameters
        ----------
        images
            (N, height, width, 3) uint8 RGB array, or a sequence of N such chips; N may be 0.

        Returns
        -------
        numpy.ndarray
            (N, D) float32. A chip's embedding does not depend on the others in the batch.

        Raises
        ------
        ImageError
            If an image is not a uint8 RGB array of the chip's size.
        """
        out = self.raw(images)
        if self.metric == "cosine":
            out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return out

    def raw(self, images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """As `encode`, but of the length that the network gives, which some published adapters were trained with."""
        batch = as_batch(images, self.chip)
        out = np.empty((len(batch), self.dim), np.float32)
        for start in range(0, len(batch), self.batch_size):
            part = slice(start, start + self.batch_size)
            out[part] = self._encode(batch[part])
        return out

    @abstractmethod
    def _encode(self, batch: np.ndarray) -> np.ndarray:
        """Embed 1 to `batch_size` chips, (n, height, width, 3) uint8, as (n, D) float32 of any length."""

    def torch_module(self) -> torch.nn.Module:
        """The same network with gradients down to the pixels, in evaluation mode.

        It maps (N, 3, height, width) float RGB in 0–1 to the (N, D) that `encode` gives for the same pixels.

        Raises
        ------
        IpseError
            If this encoder has no differentiable form.
        """
        raise IpseError(
            f"{self.name} cannot pass gradients to the pixels.", "Use an encoder that can, such as DlibFaceEncoder."
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, dim={self.dim}, fingerprint={self.fingerprint[:12]!r})"
