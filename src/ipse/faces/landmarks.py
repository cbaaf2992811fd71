"""Landmarks of faces: seventy points, which of them show, the five of alignment, and a map of the face's parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipse.encoders.shipped import ShippedNetwork
from ipse.errors import WeightsError
from ipse.faces.align import chip_maps, cut_chips, face_box_template, fit_similarity
from ipse.faces.contract import Detector, Face
from ipse.faces.hog import HogDetector
from ipse.faces.parts import LABELS

POINTS = 70
"""Dense landmarks: the customary 68 and the pupils."""

# The five points of face alignment as means of dense ones: eyes, tip of the nose, corners of the mouth.
_FIVE: tuple[tuple[int, ...], ...] = (tuple(range(36, 42)), tuple(range(42, 48)), (30,), (48,), (54,))


def five_of(dense: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """The five points of alignment, (..., 5, 2), from dense landmarks (..., 70, 2)."""
    return np.stack([dense[..., list(rows), :].mean(-2) for rows in _FIVE], -2)


@dataclass(frozen=True, eq=False)
class Landmarks:
    """What was found in one face.

    Attributes
    ----------
    dense
        (70, 2) float32, pixels of the image, whole numbers at the centers of pixels: the customary 68 points and the
        pupils, in the order of `ipse.world`. Points that are hidden are where they should be.
    visible
        (70,) float32: the chance that each point is to be seen.
    to_image
        (2, 3) map from places in the chip that the network saw to places in the image.
    side
        Of that chip in pixels.
    """

    dense: npt.NDArray[np.float32]
    visible: npt.NDArray[np.float32]
    to_image: npt.NDArray[np.float64]
    side: int
    _logits: npt.NDArray[np.float32] = field(repr=False)

    @property
    def five(self) -> npt.NDArray[np.float32]:
        """(5, 2) points of alignment in pixels of the image, of the scheme ``"arcface5"``."""
        return five_of(self.dense)

    @cached_property
    def parts(self) -> npt.NDArray[np.uint8]:
        """(side, side) parts of the face's chip, as rows of `ipse.faces.parts.LABELS`."""
        # Between the coarse cells of the network, what it says of them is mixed, so that edges run smoothly.
        cells = self._logits.shape[-1]
        places = (np.arange(self.side) + 0.5) * cells / self.side - 0.5
        mix = np.stack([np.interp(places, np.arange(cells), row) for row in np.eye(cells)], 1).astype(np.float32)
        return (mix @ self._logits @ mix.T).argmax(0).astype(np.uint8)

    def parts_in(self, height: int, width: int) -> npt.NDArray[np.uint8]:
        """(height, width) parts of the whole image; 0, which is background, outside of the face's chip."""
        out = np.zeros((height, width), np.uint8)
        corners = np.array([(-0.5, -0.5), (-0.5, self.side), (self.side, -0.5), (self.side, self.side)])
        reach = corners @ self.to_image[:, :2].T + self.to_image[:, 2]
        (left, top), (right, bottom) = (
            np.clip(edge, 0, (width, height)).astype(int)
            for edge in (np.floor(reach.min(0)), np.ceil(reach.max(0)) + 1)
        )
        x, y = np.meshgrid(np.arange(left, right), np.arange(top, bottom))
        back = np.linalg.inv(np.vstack([self.to_image, [0, 0, 1]]))[:2]
        column, row = np.rint(np.tensordot(back, np.stack([x, y, np.ones_like(x)]), 1)).astype(int)
        inside = (column >= 0) & (column < self.side) & (row >= 0) & (row < self.side)
        out[y[inside], x[inside]] = self.parts[row[inside], column[inside]]
        return out


class LandmarkPredictor:
    """Finds the landmarks of faces that a detector has found.

    Each face is turned upright and cut as the network saw faces in training: a square around all landmarks, with a
    margin. Where that square is, the five points of the detector tell roughly (`ipse.faces.align.face_box_template`);
    with `refine`, the face is cut again by the landmarks that were found, and they are found anew.

    Parameters
    ----------
    network
        A network's name, or the path of an ONNX file that `ipse.training.ship` wrote.
    refine
        Look twice. It takes twice the time, and corrects what the detector had wrong.
    threads
        CPU threads per call; None reads ``OMP_NUM_THREADS``, and without it uses all cores.

    Attributes
    ----------
    name, fingerprint
        Of the network.

    Raises
    ------
    WeightsError
        If there is no such network, its files are damaged, or it was trained on chips that were cut in another way.
    """

    def __init__(
        self, network: str | Path = "landmarks-world", *, refine: bool = True, threads: int | None = None
    ) -> None:
        self._network = ShippedNetwork(network, "landmarks", threads)
        self.name, self.fingerprint, self.refine = self._network.name, self._network.fingerprint, refine
        chip, cut = self._network.chip, self._network.cut
        if cut["kind"] != "face_box" or chip.height != chip.width:
            raise WeightsError(
                f"The network {self.name} was trained on chips of {chip.height} × {chip.width} cut as {cut['kind']}.",
                "Landmarks are found in square chips cut as face_box.",
            )
        self._side, self._margin = chip.width, cut["margin"]
        self._template = face_box_template(self._side, self._margin)

    def predict(self, image: npt.NDArray[np.uint8], faces: Sequence[Face]) -> list[Landmarks]:
        """Find the landmarks of faces.

        Parameters
        ----------
        image
            (H, W, 3) uint8 RGB array.
        faces
            N faces of that image.

        Returns
        -------
        list of Landmarks
            One for each face, in the same order.

        Raises
        ------
        ImageError
            If the array is not an image of that form.
        """
        maps = chip_maps(faces, self._template)
        found = self._look(image, maps)
        return self._look(image, self._around(found)) if self.refine and found else found

    def _look(self, image: npt.NDArray[np.uint8], maps: npt.NDArray[np.float64]) -> list[Landmarks]:
        # As training moves pictures; beyond the edges of an image there is more of what is there, not blackness.
        chips = cut_chips(image, maps, self._side, repeat_edges=True)
        if not len(chips):
            return []
        told = self._network.run(chips)
        points = told["points"].astype(np.float64) * self._side - 0.5
        dense = points @ maps[:, :, :2].transpose(0, 2, 1) + maps[:, None, :, 2]
        visible = 1 / (1 + np.exp(-told["visible"]))
        return [
            Landmarks(dense[i].astype(np.float32), visible[i], maps[i], self._side, told["parts"][i])
            for i in range(len(chips))
        ]

    def _around(self, found: Sequence[Landmarks]) -> npt.NDArray[np.float64]:
        """(N, 2, 3) maps of the chips that landmarks which are known would be cut as; see `ipse.training.data.Cut`."""
        dense = np.stack([one.dense for one in found]).astype(np.float64)
        # Upright by the eyes and the mouth, as similar to the mean face as turning makes it.
        turned = fit_similarity(np.broadcast_to(self._template.points["arcface5"], (len(dense), 5, 2)), five_of(dense))
        turned = turned[:, :, :2] / np.hypot(turned[:, 0, 0], turned[:, 1, 0])[:, None, None]
        upright = dense @ turned
        low, high = upright.min(1), upright.max(1)
        side = (high - low).max(1) * (1 + 2 * self._margin)
        scale = np.maximum(side, 1.0)[:, None, None] / self._side
        corner = (low + high) / 2 - side[:, None] / 2 + scale[:, 0] / 2
        return np.concatenate([turned * scale, turned @ corner[:, :, None]], 2)


class LandmarkDetector:
    """Another detector, whose faces get the five points of a `LandmarkPredictor` in place of its own.

    Parameters
    ----------
    detector
        Finds the faces; by default `HogDetector`.
    predictor
        Finds their landmarks; by default ``landmarks-world``.

    Attributes
    ----------
    name
        Of both.
    fingerprint
        The predictor's.
    """

    def __init__(self, detector: Detector | None = None, predictor: LandmarkPredictor | None = None) -> None:
        self.detector = detector or HogDetector()
        self._predictor = predictor or LandmarkPredictor()
        self.name = f"{self.detector.name}+{self._predictor.name}"
        self.fingerprint = self._predictor.fingerprint

    def detect(self, image: npt.NDArray[np.uint8]) -> list[Face]:
        """Find the faces of an image; see `Detector.detect`."""
        faces = self.detector.detect(image)
        found = self._predictor.predict(image, faces)
        return [replace(face, landmarks=one.five, scheme="arcface5") for face, one in zip(faces, found, strict=True)]


__all__ = ["LABELS", "POINTS", "LandmarkDetector", "LandmarkPredictor", "Landmarks", "five_of"]
