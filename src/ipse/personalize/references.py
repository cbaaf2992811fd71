"""Reference photographs: the one face of each, and what encoders say of it.

What a method is shown of somebody are features, by name:

============  ====================================================================================================
``vector``    (D,) of the face encoder, of length 1
``length``    () that it had before
``five``      (5, 2) places of the eyes, the nose and the corners of the mouth, as shares of the picture's sides
``pooled``    (P,) the base's image encoder, of the face cut as a portrait
``patches``   (m, C) the second last hidden states of that encoder
============  ====================================================================================================
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ipse.encoders import Encoder, open_encoder
from ipse.errors import IpseError, WeightsError
from ipse.faces import Detector, Face, HogDetector, LandmarkPredictor, Quality, align, assess
from ipse.faces.align import chip_maps, cut_chips, portrait_template
from ipse.gallery.fuse import fuse

if TYPE_CHECKING:
    from ipse.diffusion import Base

Features = dict[str, Tensor]
"""By name, (B, …) of B people."""

IMAGE_FEATURES = ("pooled", "patches")
"""Those of the base's image encoder."""

# As in enrolling: faces below this quality serve nobody.
_USELESS = 0.02
# Of CLIP, as shares of 255.
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ReferenceWarning(UserWarning):
    """A photograph was used, or left out, though something is wrong with it."""


@dataclass(frozen=True, eq=False)
class Found:
    """The face of a picture.

    Attributes
    ----------
    face
        With five points of the scheme ``"arcface5"``.
    quality
        How good it is.
    """

    face: Face
    quality: Quality


class FaceReader:
    """Finds faces and says what encoders see of them.

    Parameters
    ----------
    base
        Its image encoder is used for `IMAGE_FEATURES`.
    encoder
        Of faces: a name or a file, see `ipse.encoders.open_encoder`, or an encoder.
    detector
        Finds faces; by default `HogDetector`.
    points
        The network that places the five points.
    """

    def __init__(
        self,
        base: Base,
        encoder: str | Path | Encoder = "face-world",
        *,
        detector: Detector | None = None,
        points: str | Path = "landmarks-world",
    ) -> None:
        self.base = base
        self.encoder = encoder if isinstance(encoder, Encoder) else open_encoder(encoder)
        self.detector = detector or HogDetector()
        self._predictor = LandmarkPredictor(points)

    def fingerprints(self, features: Sequence[str]) -> dict[str, str]:
        """By name, the fingerprints of the networks that some features come from."""
        found = {self._predictor.name: self._predictor.fingerprint}
        if "vector" in features:
            found[self.encoder.name] = self.encoder.fingerprint
        if set(IMAGE_FEATURES) & set(features):
            found["image encoder"] = self.image_fingerprint
        return found

    # --- Faces ------------------------------------------------------------------------------------------------------

    def find(self, picture: npt.NDArray[np.uint8]) -> list[Found]:
        """The faces of a picture (H, W, 3)."""
        faces = self.detector.detect(picture)
        quality = assess(picture, faces)
        points = self._predictor.predict(picture, faces)
        return [
            Found(replace(face, landmarks=seen.five, scheme="arcface5"), told)
            for face, told, seen in zip(faces, quality, points, strict=True)
        ]

    def features(
        self, pictures: Sequence[npt.NDArray[np.uint8]], faces: Sequence[Face], names: Sequence[str]
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Features of one face of each picture.

        Parameters
        ----------
        pictures
            N of any size.
        faces
            Of `find`.
        names
            Which features; see the module.

        Returns
        -------
        dict
            (N, …) by name.
        """
        both = list(zip(pictures, faces, strict=True))
        out: dict[str, npt.NDArray[np.float32]] = {}
        if "vector" in names or "length" in names:
            raw = self.encoder.raw(np.concatenate([align(p, [f], self.encoder.chip.template) for p, f in both]))
            out["length"] = np.linalg.norm(raw, axis=1)
            out["vector"] = raw / np.maximum(out["length"], 1e-12)[:, None]
        if "five" in names:
            out["five"] = np.stack([(f.landmarks + 0.5) / (p.shape[1], p.shape[0]) for p, f in both])
        if set(IMAGE_FEATURES) & set(names):
            out |= self._see(np.concatenate([self.portrait(p, f)[None] for p, f in both]))
        return {name: out[name].astype(np.float32) for name in names}

    # --- The image encoder ------------------------------------------------------------------------------------------

    @property
    def _vision(self) -> torch.nn.Module:
        found = getattr(self.base.pipeline, "image_encoder", None)
        if found is None:
            raise WeightsError(
                f"The base {self.base.name} has no image encoder, which this method looks at photographs with.",
                "Put one into the folder of its pipeline (image_encoder); bases trained by ipse have one.",
            )
        return found

    @cached_property
    def image_fingerprint(self) -> str:
        """sha256 over the base's image encoder, rounded to half precision."""
        digest = hashlib.sha256()
        for key, value in sorted(self._vision.state_dict().items()):
            digest.update(key.encode() + value.detach().to("cpu", torch.float16).contiguous().numpy().tobytes())
        return digest.hexdigest()

    def portrait(self, picture: npt.NDArray[np.uint8], face: Face) -> npt.NDArray[np.uint8]:
        """The face as `ipse.world` frames a portrait, (S, S, 3) at the size of the image encoder."""
        side = self._vision.config.image_size
        return cut_chips(picture, chip_maps([face], portrait_template(side)), side, repeat_edges=True)[0]

    def _see(self, portraits: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        pixels = torch.from_numpy(portraits).permute(0, 3, 1, 2).float() / 255
        if self.base.kind == "world":
            pixels = 2 * pixels - 1
        else:
            mean, std = (torch.tensor(x)[:, None, None] for x in (_CLIP_MEAN, _CLIP_STD))
            pixels = (pixels - mean) / std
        return self._encode_pixels(pixels)

    @torch.no_grad()
    def _encode_pixels(self, pixels: Tensor) -> dict[str, npt.NDArray[np.float32]]:
        vision = self._vision
        seen = vision(pixel_values=pixels.to(vision.device, vision.dtype), output_hidden_states=True)
        told = {"pooled": seen.image_embeds, "patches": seen.hidden_states[-2]}
        return {name: value.float().cpu().numpy() for name, value in told.items()}

    def nobody(self, names: Sequence[str]) -> Features:
        """Features (1, …) of no photograph: zeros, and what the image encoder says of a picture of zeros."""
        zeros = {"vector": (self.encoder.dim,), "length": (), "five": (5, 2)}
        out = {name: np.zeros(zeros[name], np.float32) for name in names if name in zeros}
        if set(IMAGE_FEATURES) & set(names):
            side = self._vision.config.image_size
            seen = self._encode_pixels(torch.zeros(1, 3, side, side))
            out |= {"pooled": 0 * seen["pooled"][0], "patches": seen["patches"][0]}
        return {name: torch.from_numpy(out[name])[None].to(self.base.device) for name in names}

    # --- A person ---------------------------------------------------------------------------------------------------

    def person(self, photographs: Sequence[npt.NDArray[np.uint8]], names: Sequence[str]) -> Features:
        """Features (1, …) of somebody by one or more photographs.

        Vectors are fused without those that are not like the others; patches stand one behind the other; the five
        points are those of the best photograph, cut as a portrait.

        Raises
        ------
        IpseError
            If no photograph shows one face that is good enough, or half of them or more show somebody else.
        """
        chosen = self._chosen(photographs)
        together = self._same(photographs, chosen)
        best = max(together, key=lambda i: chosen[i].quality.overall)
        found = self.features([photographs[i] for i in together], [chosen[i].face for i in together], names)
        out = {name: value.mean(0) for name, value in found.items()}
        if "vector" in out:
            weights = [chosen[i].quality.overall for i in together]
            out["vector"] = fuse(found["vector"], weights, metric="cosine").vector
        if "patches" in out:
            out["patches"] = found["patches"].reshape(-1, found["patches"].shape[-1])
        if "five" in out:
            out["five"] = _framed(chosen[best].face)
        return {name: torch.from_numpy(out[name])[None].to(self.base.device) for name in names}

    def _chosen(self, photographs: Sequence[npt.NDArray[np.uint8]]) -> dict[int, Found]:
        """The face of each photograph that shows one; says what is wrong with the others."""
        chosen: dict[int, Found] = {}
        problems: list[str] = []
        for i, picture in enumerate(photographs):
            name, found = _name(i, photographs), self.find(picture)
            if not found:
                size = f"{picture.shape[1]}×{picture.shape[0]}"
                problems.append(
                    f"No face was found in {name} ({size} pixels): it may be turned aside, covered or tiny."
                )
            elif len(found) > 1:
                problems.append(f"There are {len(found)} faces in {name}, and it is not clear who is meant.")
            elif found[0].quality.overall < _USELESS:
                problems.append(f"The face in {name} is of no use. {' '.join(found[0].quality.reasons)}".strip())
            else:
                chosen[i] = found[0]
                for reason in found[0].quality.reasons:
                    warnings.warn(f"{name[0].upper()}{name[1:]}: {reason}", ReferenceWarning, stacklevel=4)
        if not chosen:
            hint = "Give a photograph of one person from the front, sharp, with some space around the head."
            raise IpseError(" ".join(problems) or "There is no photograph.", hint)
        for problem in problems:
            warnings.warn(f"{problem} It is left out.", ReferenceWarning, stacklevel=4)
        return chosen

    def _same(self, photographs: Sequence[npt.NDArray[np.uint8]], chosen: Mapping[int, Found]) -> list[int]:
        """Those of the photographs that show the person whom most of them show."""
        if len(chosen) == 1:
            return list(chosen)
        places = list(chosen)
        vectors = self.features([photographs[i] for i in places], [chosen[i].face for i in places], ["vector"])[
            "vector"
        ]
        weights = [chosen[i].quality.overall for i in places]
        limit = getattr(self.encoder, "threshold", None)
        fused = fuse(vectors, weights, metric="cosine", limit=limit)
        odd = [_name(places[i], photographs) for i in fused.rejected]
        if 2 * len(odd) >= len(places):
            raise IpseError(
                f"The photographs show different people: unlike the others {'are' if len(odd) > 1 else 'is'} "
                f"{' and '.join(odd)}.",
                "Give photographs of one person, or of each person apart.",
            )
        for name in odd:
            warnings.warn(
                f"{name[0].upper()}{name[1:]} is not like the others: it may show somebody else. It is left out.",
                ReferenceWarning,
                stacklevel=4,
            )
        return [places[i] for i in fused.kept]


def _name(index: int, photographs: Sequence[object]) -> str:
    return "the photograph" if len(photographs) == 1 else f"photograph {index + 1} of {len(photographs)}"


def _framed(face: Face) -> npt.NDArray[np.float32]:
    """(5, 2) points of a face cut as a portrait, as shares of its side."""
    (to_image,) = chip_maps([face], portrait_template(1))
    inside = (face.landmarks - to_image[:, 2]) @ np.linalg.inv(to_image[:, :2]).T
    return (inside + 0.5).astype(np.float32)
