"""Reference photographs of whole bodies: each shows one person, cut out as re-identification has them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from ipse.encoders import Encoder
from ipse.errors import IpseError
from ipse.gallery.fuse import fuse
from ipse.images import resize
from ipse.personalize.references import FACE_FEATURES, Features, Reader
from ipse.world import look, person, render, shot

if TYPE_CHECKING:
    from ipse.diffusion import Base

_DIRECTIONS = 8
# An adult in plain clothes, seen from the height of the hips.
_ADULT = {"age": 30.0, "gender": 0.5}
_STILL = {
    "camera.elevation_deg": 0.0,
    "camera.roll_deg": 0.0,
    "camera.distance_m": 8.0,
    "head.yaw": 0.0,
    "head.pitch": 0.0,
    "head.roll": 0.0,
    "occluder": None,
}


@cache
def standard_poses() -> npt.NDArray[np.float32]:
    """(8, 17, 3) ``pose`` of people who walk, seen from the front and on around, an eighth of a turn each."""
    who = person(0, fix=_ADULT)
    poses = []
    for number in range(_DIRECTIONS):
        walk = {"pose.name": "walking", "pose.phase": 0.1 + 0.5 * (number % 2)}
        seen = shot(0, "person", fix=_STILL | walk | {"camera.azimuth_deg": 360.0 * number / _DIRECTIONS - 180.0})
        truth = render(who, look(0, who), seen, "person", size=(64, 128)).truth
        poses.append(np.column_stack([truth.keypoints / (64, 128), truth.keypoints_visible]))
    # From the front first.
    return np.roll(np.array(poses, np.float32), _DIRECTIONS // 2, 0)


class BodyReader(Reader):
    """Says what a body encoder sees of whole pictures.

    Features are ``vector``, ``length`` and ``local`` as of faces, and ``pose``, which training knows by the truth.
    That of somebody is the first of `standard_poses`.

    Parameters
    ----------
    base
        That the method is on.
    encoder
        Of bodies: a name or a file, see `ipse.encoders.open_encoder`, or an encoder.

    Raises
    ------
    IpseError
        If the encoder is not one of bodies.
    """

    usual = "body-world"
    place = "box"
    finder = "whole pictures"

    def __init__(self, base: Base, encoder: str | Path | Encoder = "body-world") -> None:
        super().__init__(base, encoder)
        if self.encoder.modality != "body":
            raise IpseError(
                f"The encoder {self.encoder.name} is one of the {self.encoder.modality}, and here are whole bodies.",
                f"Name one of bodies, such as {self.usual}.",
            )

    def fingerprints(self, features: Sequence[str]) -> dict[str, str]:
        """See `Reader.fingerprints`."""
        return {self.encoder.name: self.encoder.fingerprint} if set(FACE_FEATURES) & set(features) else {}

    def locate(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(4,) left, top, right and bottom: the whole picture."""
        return np.array([0, 0, 1, 1], np.float32)

    def look(
        self, pictures: Sequence[npt.NDArray[np.uint8]], places: npt.NDArray[np.floating[Any]], name: str
    ) -> npt.NDArray[np.float32]:
        """See `Reader.look`."""
        return self._of_chips(self._chips(pictures), [name])[name]

    def vector(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(D,) of a picture."""
        return self._of_chips(self._chips([picture]), ["vector"])["vector"][0]

    def nobody(self, names: Sequence[str]) -> Features:
        """Zeros, as many as of a photograph, and the first of the standard poses."""
        chip = self.encoder.chip
        told = self._of_chips(np.zeros((1, chip.height, chip.width, 3), np.uint8), names)
        return self._on_base({name: 0 * value for name, value in told.items()}, names)

    def person(self, photographs: Sequence[npt.NDArray[np.uint8]], names: Sequence[str]) -> Features:
        """Features (1, …) of somebody by one or more pictures; places stand one behind the other.

        Raises
        ------
        IpseError
            If there is no picture.
        """
        if not photographs:
            raise IpseError("There is no photograph.", "Give one of a whole body, cut out.")
        found = self._of_chips(self._chips(photographs), names)
        out = {name: value.mean(0, keepdims=True) for name, value in found.items()}
        if "vector" in out:
            out["vector"] = fuse(found["vector"], metric="cosine").vector[None]
        if "local" in out:
            out["local"] = found["local"].reshape(1, -1, found["local"].shape[2])
        return self._on_base(out, names)

    def _chips(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
        chip = self.encoder.chip
        return np.stack([resize(picture, chip.width, chip.height) for picture in pictures])

    def _on_base(self, found: dict[str, npt.NDArray[np.float32]], names: Sequence[str]) -> Features:
        if "pose" in names:
            found["pose"] = standard_poses()[:1]
        return {name: torch.from_numpy(np.asarray(found[name], np.float32)).to(self.base.device) for name in names}
