"""Telling attributes of faces, each with how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ipse.attributes.vocabulary import VOCABULARY
from ipse.encoders.shipped import ShippedNetwork
from ipse.errors import WeightsError
from ipse.faces.align import TEMPLATES, Template, chip_maps, cut_chips, face_box_template, portrait_template
from ipse.faces.contract import Face

# Standard deviation of what may be anywhere from 0 to 1.
_UNIFORM = 12**-0.5


@dataclass(frozen=True)
class Told:
    """What is told of one attribute of one face.

    Attributes
    ----------
    name
        Of the attribute; see `ipse.attributes.VOCABULARY`.
    value
        A name or a number; None where it cannot be seen.
    chances
        Of each value, 0 to 1, summing to 1; empty for numbers and for what cannot be seen.
    deviation
        Standard deviation of a number, in its unit; None for names and for what cannot be seen.
    hidden_by
        The attribute that hides this one from sight, or empty.
    """

    name: str
    value: str | float | None
    chances: Mapping[str, float]
    deviation: float | None = None
    hidden_by: str = ""

    @property
    def confidence(self) -> float | None:
        """The chance of the value; None for numbers and for what cannot be seen."""
        return self.chances[self.value] if isinstance(self.value, str) else None

    @property
    def text(self) -> str:
        """In words, such as ``brown eyes (93 %)``, ``age 34 ± 5 years`` or ``beard: not seen (mask)``."""
        known = VOCABULARY[self.name]
        if self.value is None:
            return f"{known.label}: not seen ({VOCABULARY[self.hidden_by].label})"
        if isinstance(self.value, str):
            return f"{known.said(self.value)} ({100 * self.chances[self.value]:.0f} %)"
        return f"{known.label} {self.value:.0f} ± {self.deviation:.0f} {known.unit}"

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        if self.value is None:
            return {"value": None, "hidden_by": self.hidden_by}
        if isinstance(self.value, str):
            chances = {name: round(chance, 4) for name, chance in self.chances.items()}
            return {"value": self.value, "confidence": chances[self.value], "chances": chances}
        return {"value": round(self.value, 2), "deviation": round(self.deviation or 0.0, 2)}


class AttributeRecognizer:
    """Tells attributes of faces.

    Parameters
    ----------
    network
        A network's name, or the path of an ONNX file that `ipse.training.ship` wrote.
    frequencies
        How frequent values are taken to be before a face is looked at. With ``"learned"``, as they were in training,
        which is what confidences were calibrated on; with ``"even"``, all values of an attribute alike, so that rare
        ones are missed no more often than others.
    threads
        CPU threads per call; None reads ``OMP_NUM_THREADS``, and without it uses all cores.

    Attributes
    ----------
    name, fingerprint
        Of the network.
    attributes
        Names of what it tells, of `ipse.attributes.VOCABULARY`.
    classes
        The values of each that is not told as a number.

    Raises
    ------
    WeightsError
        If there is no such network, its files are damaged, or it tells what the vocabulary does not know.
    """

    def __init__(
        self,
        network: str | Path = "attributes-world",
        *,
        frequencies: Literal["learned", "even"] = "learned",
        threads: int | None = None,
    ) -> None:
        self._network = ShippedNetwork(network, "attributes", threads)
        self.name, self.fingerprint = self._network.name, self._network.fingerprint
        self._outputs: dict[str, dict[str, Any]] = self._network.contract["outputs"]
        self.attributes = tuple(self._outputs)
        self.classes = {name: tuple(o["classes"]) for name, o in self._outputs.items() if o["kind"] == "classes"}
        for name, output in self._outputs.items():
            _check(self.name, name, output)
        self._template = self._template_of(self._network)
        self._priors = self._read_priors() if frequencies == "even" else {}

    def recognize(self, image: npt.NDArray[np.uint8], faces: Sequence[Face]) -> list[dict[str, Told]]:
        """Tell the attributes of faces.

        Parameters
        ----------
        image
            (H, W, 3) uint8 RGB array.
        faces
            N faces of that image.

        Returns
        -------
        list of dict
            One for each face, in the same order: what is told by attribute.

        Raises
        ------
        ImageError
            If the array is not an image of that form.
        """
        layout = self._template
        # Beyond the edges of an image, as of a tight crop, there is more of what is there, not blackness.
        return self.tell(cut_chips(image, chip_maps(faces, layout), layout.size, layout.origin, repeat_edges=True))

    def tell(self, chips: npt.NDArray[np.uint8]) -> list[dict[str, Told]]:
        """As `recognize`, for (N, side, side, 3) chips that are cut already; N may be 0.

        Raises
        ------
        ImageError
            If a chip has another size.
        """
        if not len(chips):
            return []
        told = self._network.run(chips)
        chances, numbers = {}, {}
        for name, output in self._outputs.items():
            values = told[name].astype(np.float64)
            if output["kind"] == "classes":
                logits = values - self._priors.get(name, 0.0)
                powers = np.exp(logits - logits.max(1, keepdims=True))
                chances[name] = powers / powers.sum(1, keepdims=True)
            else:
                low, high = output["number"]
                mean = np.clip(values[:, 0], 0, 1) * (high - low) + low
                # Before what it has never seen a network's variance may be anything. Who knows nothing but the range
                # is off by that of a uniform distribution, and nobody knows less.
                deviation = np.minimum(np.exp(values[:, 1] / 2), _UNIFORM) * (high - low)
                numbers[name] = np.stack([mean, deviation], 1)
        return [self._face(i, chances, numbers) for i in range(len(chips))]

    def _face(self, row: int, chances: Mapping[str, np.ndarray], numbers: Mapping[str, np.ndarray]) -> dict[str, Told]:
        found = {}
        for name, output in self._outputs.items():
            if name in numbers:
                value, deviation = numbers[name][row].tolist()
                found[name] = Told(name, value, {}, deviation)
            else:
                each = dict(zip(output["classes"], chances[name][row].tolist(), strict=True))
                found[name] = Told(name, max(each, key=each.__getitem__), each)
        seen = {name: told.value for name, told in found.items()}
        for name in found:
            hidden = [other for other, value in VOCABULARY[name].hidden_by if seen.get(other) == value]
            if hidden:
                found[name] = Told(name, None, {}, hidden_by=hidden[0])
        return found

    @staticmethod
    def _template_of(network: ShippedNetwork) -> Template:
        """How to cut faces as training did."""
        chip, cut = network.chip, network.cut
        if chip.template in TEMPLATES:
            return TEMPLATES[chip.template]
        if cut["kind"] == "face_box":
            return face_box_template(chip.width, cut["margin"])
        # Whole pictures were the world's portraits.
        return portrait_template(chip.width)

    def _read_priors(self) -> dict[str, npt.NDArray[np.float64]]:
        from safetensors import safe_open

        with safe_open(self._network.weights, "numpy") as file:
            return {
                name: file.get_tensor(f"priors.{name}").astype(np.float64)
                for name, output in self._outputs.items()
                if output["kind"] == "classes"
            }


def _check(network: str, name: str, output: Mapping[str, Any]) -> None:
    known = VOCABULARY.get(name)
    rest = {known.otherwise.name} if known and known.otherwise else set()
    strange = set(output.get("classes", ())) - set(known.values if known else ()) - rest
    if known is None or strange:
        what = f"{name} as {', '.join(sorted(strange))}" if known else name
        raise WeightsError(
            f"The network {network} tells {what}, which is not in the vocabulary.",
            "Give it a name there: ipse.attributes.vocabulary.",
        )
