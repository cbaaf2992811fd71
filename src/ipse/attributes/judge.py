"""Judges: classifiers that say whether a picture shows what its words asked for.

A judge tells attributes of pictures in its own classes, and says which of them a fact of the world
(`ipse.world.caption.facts`) belongs to. It must be nothing that what it judges was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ipse.attributes.recognizer import AttributeRecognizer
from ipse.attributes.vocabulary import VOCABULARY
from ipse.errors import WeightsError
from ipse.faces.contract import Face
from ipse.zoo.shipped_files import SHIPPED

Pictures = Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8]
Told = dict[str, npt.NDArray[np.str_]]

_BROWN = ("dark brown", "brown", "light brown", "auburn")
TOGETHER = {
    "hair_color": dict.fromkeys(_BROWN, "brown") | {"white": "gray"},
    "age_group": {"child": "child", "teen": "child", "young": "adult", "middle": "adult"},
    "clothes_color": {
        "light blue": "blue",
        "navy": "blue",
        "burgundy": "red",
        "olive": "green",
        "beige": "brown",
    },
    "head": {
        "turned slightly to the left": "left",
        "turned to the left": "left",
        "turned slightly to the right": "right",
        "turned to the right": "right",
    },
}
"""Classes that are judged as one, by attribute: those that differ in degree only."""
ONE_OF = {
    "expression": "other",
    "glasses": "worn",
    "beard": "worn",
    "hat": "worn",
}
"""What a judge of pictures calls every value that is no class of its own, by attribute."""
FACTS = {"clothes_color": "top_color"}
"""The fact of an attribute with another name."""

WORLD_JUDGE = SHIPPED / "judge" / "base-judge.safetensors"
"""The judge that comes with ipse, which `open_judge` calls ``world``. Nothing is to be trained or tuned with it."""


class Judge(Protocol):
    """What tells attributes of pictures.

    Attributes
    ----------
    name, fingerprint
        Of the network.
    attributes
        What it tells, by names of its own; `fact_of` says which fact of the world each is.
    """

    name: str
    fingerprint: str
    attributes: tuple[str, ...]

    def tell(self, pictures: Pictures, faces: Sequence[Face | None]) -> tuple[Told, npt.NDArray[np.float64] | None]:
        """What pictures show.

        Parameters
        ----------
        pictures
            N pictures (H, W, 3) uint8 of any sizes.
        faces
            N: the face that each is about, or None.

        Returns
        -------
        tuple
            By attribute (N,) classes, empty where it cannot be told; and (N, D) features, or None for a judge that has
            none.
        """
        ...

    def truth(self, name: str, facts: Sequence[Mapping[str, str]]) -> npt.NDArray[np.str_]:
        """(N,) the class that facts of the world say an attribute has; empty where they say nothing."""
        ...


def fact_of(attribute: str) -> str:
    """The fact of the world that an attribute is."""
    return FACTS.get(attribute, attribute)


def open_judge(which: str | Path) -> Judge:
    """A judge by its file or name.

    Parameters
    ----------
    which
        ``world`` for the one that comes with ipse, or a safetensors file that ``ipse train encoder
        recipes/base/judge.yaml`` wrote, both of which need torch; or, as for `AttributeRecognizer`, a network's name or
        ONNX file.

    Raises
    ------
    WeightsError
        If there is none, or its files are damaged.
    """
    if str(which) == "world":
        return PictureJudge(WORLD_JUDGE)
    return PictureJudge(which) if Path(which).suffix == ".safetensors" else FaceJudge(which)


class PictureJudge:
    """The classifier of recipes/base/judge.yaml: it looks at whole pictures, all classes taken for equally frequent.

    Parameters
    ----------
    path
        Weights that ``ipse train encoder recipes/base/judge.yaml`` wrote.

    Raises
    ------
    WeightsError
        If they are missing or damaged, or tell no attributes.
    """

    def __init__(self, path: str | Path) -> None:
        from ipse.encoders.contract import fingerprint_of
        from ipse.training.networks import load_network

        self._network, contract = load_network(path)
        if contract["task"] != "attributes":
            raise WeightsError(f"{path} is a network for {contract['task']}.", "A judge tells attributes.")
        self.chip = contract["chip"]
        self.name, self.fingerprint = contract["name"], fingerprint_of(contract["sha256"], self.chip)
        self.classes = {name: told["classes"] for name, told in contract["outputs"].items() if "classes" in told}
        self.attributes = tuple(self.classes)

    def tell(
        self, pictures: Pictures, faces: Sequence[Face | None] = (), batch: int = 50
    ) -> tuple[Told, npt.NDArray[np.float64]]:
        """As `Judge.tell`; faces play no role."""
        import torch

        from ipse.images import resize

        side = self.chip.width, self.chip.height
        logits: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in self.classes}
        features = []
        with torch.inference_mode():
            for start in range(0, len(pictures), batch):
                part = [resize(picture, *side) for picture in pictures[start : start + batch]]
                given = torch.from_numpy(self.chip.pixels(np.stack(part)))
                seen = self._network.trunk(given)
                features.append(seen.numpy())
                told = self._network.tell(seen)
                for name in self.classes:
                    # As if all classes were as frequent.
                    logits[name].append((told[name] - self._network.priors[name]).numpy())
        if not features:
            return {name: np.array([], str) for name in self.classes}, np.empty((0, self._network.trunk.dim))
        told_of_all = {name: self._chosen(name, np.concatenate(parts)) for name, parts in logits.items()}
        return told_of_all, np.concatenate(features).astype(np.float64)

    def _chosen(self, name: str, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.str_]:
        from scipy.special import softmax

        shared = np.array([TOGETHER.get(name, {}).get(c, c) for c in self.classes[name]])
        names = np.unique(shared)
        chances = softmax(logits, axis=1)
        return names[np.stack([chances[:, shared == c].sum(1) for c in names], 1).argmax(1)]

    def truth(self, name: str, facts: Sequence[Mapping[str, str]]) -> npt.NDArray[np.str_]:
        """As `Judge.truth`."""
        known = [fact.get(fact_of(name), "") for fact in facts]
        other = ONE_OF[name] if ONE_OF.get(name) in self.classes[name] else ""
        listed = [value if not value or value in self.classes[name] else other for value in known]
        return np.array([TOGETHER.get(name, {}).get(value, value) for value in listed])


class FaceJudge:
    """An attribute network that looks at the face of each picture, all values taken for equally frequent.

    Parameters
    ----------
    which
        As for `AttributeRecognizer`.

    Raises
    ------
    WeightsError
        As for `AttributeRecognizer`.
    """

    def __init__(self, which: str | Path) -> None:
        self._recognizer = AttributeRecognizer(which, frequencies="even", threads=1)
        self.name, self.fingerprint = self._recognizer.name, self._recognizer.fingerprint
        self.classes = self._recognizer.classes
        self.attributes = tuple(self.classes)

    def tell(self, pictures: Pictures, faces: Sequence[Face | None]) -> tuple[Told, None]:
        """As `Judge.tell`; nothing is told of a picture without a face."""
        told = {name: [""] * len(pictures) for name in self.attributes}
        for row, (picture, face) in enumerate(zip(pictures, faces, strict=True)):
            found = self._recognizer.recognize(picture, [face])[0] if face else {}
            for name in told:
                if name in found and found[name].value is not None:
                    told[name][row] = str(found[name].value)
        return {name: np.array(values, str) for name, values in told.items()}, None

    def truth(self, name: str, facts: Sequence[Mapping[str, str]]) -> npt.NDArray[np.str_]:
        """As `Judge.truth`."""
        rest = VOCABULARY[name].otherwise
        other = rest.name if rest and rest.name in self.classes[name] else ""
        known = [fact.get(fact_of(name), "") for fact in facts]
        return np.array([value if not value or value in self.classes[name] else other for value in known], str)
