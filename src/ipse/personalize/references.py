"""Reference photographs: the one face of each, and what encoders say of it.

What a method is shown of somebody are features, by name:

============  ====================================================================================================
``vector``    (D,) of the face encoder, of length 1
``length``    () that it had before
``local``     (m, C) what that encoder says of m places of the face, before it says one thing of the whole
``five``      (5, 2) places of the eyes, the nose and the corners of the mouth, as shares of the picture's sides
``pose``      (17, 3) keypoints of the body: shares of the sides, and whether one is seen; see `bodies.BodyReader`
``pooled``    (P,) the base's image encoder, of the face cut as a portrait
``patches``   (m, C) the second last hidden states of that encoder
``portrait``  (1, 3, S, S) what that encoder is shown, for systems that train one of their own
``regions``   (5, C) the mean of those patches over each of `REGIONS`; zeros for one that is not seen
``figure``    (m, C) patches as those above of the person as far down as two portraits reach, with hair and clothes
``person``    (16, 16) share of each part of the picture that shows the person, which the world's truth tells
``face``      (16, 16) share of each part of the picture that shows the face, hair and ears left out
``masks``     (5, 16, 16) share of each part of the picture that shows each of `REGIONS`
============  ====================================================================================================

The last three are of a picture, not of somebody: training asks for them where a system treats places of it apart.
"""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from scipy.spatial import ConvexHull
from torch import Tensor

from ipse.diffusion.attention import fit_region
from ipse.encoders import Encoder, open_encoder
from ipse.encoders.modules import ChipEmbedding
from ipse.errors import IpseError, WeightsError
from ipse.faces import Detector, Face, HogDetector, LandmarkPredictor, Quality, align, assess
from ipse.faces.align import chip_maps, cut_chips, portrait_template
from ipse.faces.parts import LABELS
from ipse.gallery.fuse import fuse
from ipse.images import resize

if TYPE_CHECKING:
    from ipse.diffusion import Base

Features = dict[str, Tensor]
"""By name, (B, …) of B people."""

IMAGE_FEATURES = ("pooled", "patches", "regions", "region_patches", "figure")
"""Those of the base's image encoder."""
PIXEL_FEATURES = ("portrait",)
"""Those that are as large as pictures: they are cut anew each time, and not kept."""
FACE_FEATURES = ("vector", "length", "local")
"""Those of the face encoder."""

PLACES = ("five", "pose")
"""Those that tell how somebody is placed in the picture to be made, and not who it is."""

REGIONS = ("face", "eyes", "nose", "mouth", "ears")
"""Parts of the face that have words and features of their own."""

# As in enrolling: faces below this quality serve nobody.
_USELESS = 0.02
# Among fewer photographs `fuse` rejects none without a threshold.
_TELLING = 4
# Parts and places of the feature "face".
_FACE = [LABELS.index(part) for part in ("face", "eyes", "brows", "lips", "mouth", "beard", "glasses")]
_PLACES = (16, 16)
# Labels of the regions; the nose is the hull of its landmarks.
_REGION_PARTS = {"face": ("face",), "eyes": ("eyes",), "mouth": ("lips", "mouth"), "ears": ("ears",)}
_NOSE = slice(27, 36)
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


class Reader(ABC):
    """What a method looks at photographs with.

    Parameters
    ----------
    base
        That the method is on.
    encoder
        A name or a file, see `ipse.encoders.open_encoder`, or an encoder.

    Attributes
    ----------
    usual
        The encoder where nobody names one.
    place
        The feature that tells where in a picture the person is, as shares of its sides; NaN where there is none.
    finder
        Name of what finds people.
    """

    usual: ClassVar[str]
    place: ClassVar[str]
    finder: str

    def __init__(self, base: Base, encoder: str | Path | Encoder) -> None:
        self.base = base
        self.encoder = encoder if isinstance(encoder, Encoder) else open_encoder(encoder)

    @abstractmethod
    def fingerprints(self, features: Sequence[str]) -> dict[str, str]:
        """By name, the fingerprints of the networks that some features come from."""

    @abstractmethod
    def locate(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Where the one person of a picture (H, W, 3) is; NaN if there is not one."""

    @abstractmethod
    def look(
        self, pictures: Sequence[npt.NDArray[np.uint8]], places: npt.NDArray[np.floating[Any]], name: str
    ) -> npt.NDArray[np.float32]:
        """(N, …) of a feature of the people at `places` of N pictures; where a place is NaN, of no use."""

    @abstractmethod
    def vector(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32] | None:
        """(D,) of who is in a picture that was made; None where nobody is found."""

    @abstractmethod
    def nobody(self, names: Sequence[str]) -> Features:
        """Features (1, …) of no photograph."""

    @abstractmethod
    def person(self, photographs: Sequence[npt.NDArray[np.uint8]], names: Sequence[str]) -> Features:
        """Features (1, …) of somebody by one or more photographs.

        Raises
        ------
        IpseError
            If the photographs are of no use.
        """

    def _of_chips(self, chips: npt.NDArray[np.uint8], names: Sequence[str]) -> dict[str, npt.NDArray[np.float32]]:
        """Those of `FACE_FEATURES` that are asked for, of chips of the encoder."""
        out: dict[str, npt.NDArray[np.float32]] = {}
        if "vector" in names or "length" in names:
            raw = self.encoder.raw(chips)
            out["length"] = np.linalg.norm(raw, axis=1)
            out["vector"] = raw / np.maximum(out["length"], 1e-12)[:, None]
        if "local" in names:
            out["local"] = self._local(chips)
        return out

    @cached_property
    def _module(self) -> torch.nn.Module:
        module = self.encoder.torch_module()
        if not isinstance(module, ChipEmbedding):
            raise WeightsError(
                f"The encoder {self.encoder.name} does not say what it sees of each place.",
                f"Use one that was trained by ipse, such as {self.usual}.",
            )
        return module

    @torch.no_grad()
    def _local(self, chips: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        told = self._module.feature_map(torch.from_numpy(chips).permute(0, 3, 1, 2).float() / 255)
        return told.flatten(2).transpose(1, 2).numpy()


class FaceReader(Reader):
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

    usual = "face-world"
    place = "five"

    def __init__(
        self,
        base: Base,
        encoder: str | Path | Encoder = "face-world",
        *,
        detector: Detector | None = None,
        points: str | Path = "landmarks-world",
    ) -> None:
        super().__init__(base, encoder)
        self.detector = detector or HogDetector()
        self.finder = self.detector.name
        self._predictor = LandmarkPredictor(points)

    def fingerprints(self, features: Sequence[str]) -> dict[str, str]:
        """By name, the fingerprints of the networks that some features come from."""
        found = {self._predictor.name: self._predictor.fingerprint}
        if set(FACE_FEATURES) & set(features):
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

    def locate(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(5, 2) points of the face, if there is one and no other."""
        found = self.find(picture)
        if len(found) != 1:
            return np.full((5, 2), np.nan, np.float32)
        return self.features([picture], [found[0].face], ["five"])["five"][0]

    def look(
        self, pictures: Sequence[npt.NDArray[np.uint8]], places: npt.NDArray[np.floating[Any]], name: str
    ) -> npt.NDArray[np.float32]:
        """See `Reader.look`."""
        size = np.array([picture.shape[1::-1] for picture in pictures], np.float32)[:, None]
        five = places * size - 0.5
        none = np.isnan(five).any((1, 2))
        # Somewhere in the picture; what comes out is not used.
        five[none] = size[none] * (0.25 + 0.5 * np.random.default_rng(0).random((5, 2), np.float32))
        faces = [Face((0, 0, 1, 1), 1.0, points, "arcface5") for points in five]
        return self.features(pictures, faces, [name])[name]

    def vector(self, picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32] | None:
        """(D,) of the first face of a picture."""
        faces = self.find(picture)
        return self.features([picture], [faces[0].face], ["vector"])["vector"][0] if faces else None

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
        if set(FACE_FEATURES) & set(names):
            chips = np.concatenate([align(p, [f], self.encoder.chip.template) for p, f in both])
            out |= self._of_chips(chips, names)
        if "five" in names:
            out["five"] = np.stack([(f.landmarks + 0.5) / (p.shape[1], p.shape[0]) for p, f in both])
        if "face" in names:
            out["face"] = np.stack([self._face(p, f) for p, f in both])
        if "masks" in names:
            out["masks"] = np.stack(
                [fit_region(torch.from_numpy(self._regions(p, f)), _PLACES).numpy() for p, f in both]
            )
        if "portrait" in names:
            out["portrait"] = self._pixels(np.stack([self.portrait(p, f) for p, f in both]))[:, None].numpy()
        if {"pooled", "patches"} & set(names):
            out |= self._see(np.stack([self.portrait(p, f) for p, f in both]))
        if "figure" in names:
            out["figure"] = self._see(np.stack([self.figure(p, f) for p, f in both]))["patches"]
        if "regions" in names:
            out["regions"] = np.stack([self._of_regions(p, f) for p, f in both])
        if "region_patches" in names:
            out["region_patches"] = np.stack([self._alone(p, f) for p, f in both])
        return {name: out[name].astype(np.float32) for name in names}

    def _face(self, picture: npt.NDArray[np.uint8], face: Face) -> npt.NDArray[np.float32]:
        """(16, 16) share of each part of a picture that shows the face."""
        (seen,) = self._predictor.predict(picture, [face])
        shown = np.isin(seen.parts_in(*picture.shape[:2]), _FACE).astype(np.float32)
        return fit_region(torch.from_numpy(shown), _PLACES).numpy()

    def _regions(self, picture: npt.NDArray[np.uint8], face: Face) -> npt.NDArray[np.float32]:
        """(5, H, W) of 0 and 1: where each of `REGIONS` is."""
        (seen,) = self._predictor.predict(picture, [face])
        parts = seen.parts_in(*picture.shape[:2])
        out = {name: np.isin(parts, [LABELS.index(label) for label in own]) for name, own in _REGION_PARTS.items()}
        nose = Image.new("1", picture.shape[1::-1])
        hull = seen.dense[_NOSE][ConvexHull(seen.dense[_NOSE], qhull_options="QJ").vertices]
        ImageDraw.Draw(nose).polygon([tuple(map(float, point)) for point in hull], fill=1)
        return np.stack([(out | {"nose": np.array(nose)})[name] for name in REGIONS]).astype(np.float32)

    def _of_regions(self, picture: npt.NDArray[np.uint8], face: Face) -> npt.NDArray[np.float32]:
        """(5, C) mean of the patches of the portrait over each of `REGIONS`."""
        portrait, masks = self._framed_regions(picture, face)
        patches = self._see(portrait[None])["patches"][0, 1:]
        side = round(len(patches) ** 0.5)
        share = fit_region(torch.from_numpy(masks), (side, side)).numpy().reshape(len(masks), -1)
        return share @ patches / np.maximum(share.sum(1, keepdims=True), 1e-6)

    def _alone(self, picture: npt.NDArray[np.uint8], face: Face) -> npt.NDArray[np.float32]:
        """(5, m, C) patches of each of `REGIONS` in a look at it alone; zeros for one that is not seen."""
        portrait, masks = self._framed_regions(picture, face)
        cut = (portrait * masks[:, :, :, None]).astype(np.uint8)
        return self._see(cut)["patches"] * masks.any((1, 2))[:, None, None]

    def _framed_regions(
        self, picture: npt.NDArray[np.uint8], face: Face
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        """The portrait, and (5, S, S) of 0 to 1 where each of `REGIONS` is in it."""
        side = self._vision.config.image_size
        (to_image,) = chip_maps([face], portrait_template(side))
        masks = self._regions(picture, face)
        # Three at a time, as the colors of a picture.
        told = np.concatenate([masks, masks[:1]]).reshape(2, 3, *masks.shape[1:]).transpose(0, 2, 3, 1)
        cut = [cut_chips((255 * one).astype(np.uint8), to_image[None], side)[0] for one in told]
        return self.portrait(picture, face), np.concatenate(cut, 2).transpose(2, 0, 1)[: len(masks)] / np.float32(255)

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

    def figure(self, picture: npt.NDArray[np.uint8], face: Face) -> npt.NDArray[np.uint8]:
        """The person around and below a face, (S, S, 3): what the picture has of two portraits' width and height."""
        side, (to_image,) = self._vision.config.image_size, chip_maps([face], portrait_template(1))
        # However small the face: something is left to cut.
        (x, y), scale = to_image[:, 2], max(1.0, np.hypot(*to_image[:, 0]))
        left, right = np.clip([x - scale, x + scale], 0, picture.shape[1]).round().astype(int)
        top, bottom = np.clip([y - 0.5 * scale, y + 1.5 * scale], 0, picture.shape[0]).round().astype(int)
        cut = picture[top:bottom, left:right]
        height, width = cut.shape[:2]
        out = np.zeros((max(height, width), max(height, width), 3), np.uint8)
        above, before = (len(out) - height) // 2, (len(out) - width) // 2
        out[above : above + height, before : before + width] = cut
        return resize(out, side, side)

    def _see(self, portraits: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        return self._encode_pixels(self._pixels(portraits))

    def _pixels(self, portraits: npt.NDArray[np.uint8]) -> Tensor:
        """(N, 3, S, S) as the image encoder takes portraits (N, S, S, 3)."""
        pixels = torch.from_numpy(portraits).permute(0, 3, 1, 2).float() / 255
        if self.base.kind == "world":
            return 2 * pixels - 1
        mean, std = (torch.tensor(x)[:, None, None] for x in (_CLIP_MEAN, _CLIP_STD))
        return (pixels - mean) / std

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
        if "portrait" in names:
            side = self._vision.config.image_size
            out["portrait"] = np.zeros((1, 3, side, side), np.float32)
        if "local" in names:
            chip = self.encoder.chip
            out["local"] = 0 * self._local(np.zeros((1, chip.height, chip.width, 3), np.uint8))[0]
        if set(IMAGE_FEATURES) & set(names):
            side = self._vision.config.image_size
            seen = {name: value[0] for name, value in self._encode_pixels(torch.zeros(1, 3, side, side)).items()}
            nothing = 0 * np.stack([seen["patches"]] * len(REGIONS))
            out |= seen | {
                "figure": seen["patches"],
                "pooled": 0 * seen["pooled"],
                "regions": nothing[:, 0],
                "region_patches": nothing,
            }
        return {name: torch.from_numpy(out[name])[None].to(self.base.device) for name in names}

    # --- A person ---------------------------------------------------------------------------------------------------

    def person(self, photographs: Sequence[npt.NDArray[np.uint8]], names: Sequence[str]) -> Features:
        """Features (1, …) of somebody by one or more photographs.

        Vectors are fused without those that are not like the others; patches and places stand one behind the other; the
        five points are those of the best photograph, cut as a portrait.

        Raises
        ------
        IpseError
            If no photograph shows one face, or half of them or more show somebody else.
        """
        chosen = self._chosen(photographs)
        together = self._same(photographs, chosen)
        best = max(together, key=lambda i: chosen[i].quality.overall)
        found = self.features([photographs[i] for i in together], [chosen[i].face for i in together], names)
        out = {name: value.mean(0) for name, value in found.items()}
        if "vector" in out:
            weights = [chosen[i].quality.overall for i in together]
            out["vector"] = fuse(found["vector"], weights, metric="cosine").vector
        for name in {"patches", "figure", "local", "portrait"} & out.keys():
            out[name] = found[name].reshape(-1, *found[name].shape[2:])
        for name in {"regions", "region_patches"} & out.keys():
            out[name] = found[name][together.index(best)]
        if "five" in out:
            out["five"] = _framed(chosen[best].face)
        return {name: torch.from_numpy(np.asarray(out[name]))[None].to(self.base.device) for name in names}

    def _chosen(self, photographs: Sequence[npt.NDArray[np.uint8]]) -> dict[int, Found]:
        """The face of each photograph that shows one; says what is wrong with the others."""
        chosen: dict[int, Found] = {}
        useless: dict[int, Found] = {}
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
            else:
                (useless if found[0].quality.overall < _USELESS else chosen)[i] = found[0]
        if chosen:
            problems += [f"{_told(i, found, photographs)} It is too poor." for i, found in useless.items()]
        # A poor picture is better than none.
        chosen = chosen or useless
        if not chosen:
            hint = "Give a photograph of one person from the front, sharp, with some space around the head."
            raise IpseError(" ".join(problems) or "There is no photograph.", hint)
        said = [f"{problem} It is left out." for problem in problems]
        said += [_told(i, found, photographs) for i, found in chosen.items() if found.quality.reasons]
        for text in said:
            warnings.warn(text, ReferenceWarning, stacklevel=4)
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
        if limit is None and len(places) < _TELLING:
            warnings.warn(
                f"Nobody has measured how unlike two photographs of one person are to {self.encoder.name}: whether "
                "these show one person was not checked. Look at them, or use an encoder with a threshold.",
                ReferenceWarning,
                stacklevel=4,
            )
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


def _told(index: int, found: Found, photographs: Sequence[object]) -> str:
    """What makes the face of a photograph poor."""
    name = _name(index, photographs)
    return f"{name[0].upper()}{name[1:]}: {' '.join(found.quality.reasons)}"


def _framed(face: Face) -> npt.NDArray[np.float32]:
    """(5, 2) points of a face cut as a portrait, as shares of its side."""
    (to_image,) = chip_maps([face], portrait_template(1))
    inside = (face.landmarks - to_image[:, 2]) @ np.linalg.inv(to_image[:, :2]).T
    return (inside + 0.5).astype(np.float32)
