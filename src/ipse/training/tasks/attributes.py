"""Attributes: what can be seen of a person, of the day and of the picture, each with a calibrated confidence.

The recipe's ``targets`` name what is told. Each has a source, ``column`` or ``fact`` (of the JSON column ``facts``; by
default a fact of the target's own name), and a kind:

- ``classes: [...]``: one of several values; ``otherwise`` names the class of every other value;
- ``number: [low, high]``: a quantity, told with its standard deviation.

``seen: fact`` trains and judges only where the facts of the picture have that name, so that nobody learns to guess
what is hidden; a fact that is absent is not trained on either.

With the loss ``traits`` among the recipe's ``losses``, the network also learns to tell the numbers that the person was
made from and the picture taken by: far more is to be learned from how far the corners of a mouth are drawn than from
the word for it. Pictures must then not be mirrored. What tells these numbers is not kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from ipse.errors import TrainingError
from ipse.training.data import Chips
from ipse.training.losses import SumOfLosses
from ipse.training.recipe import TrainRecipe
from ipse.training.tasks.common import Run, Targets, Task, backbone_of

# Bins of the expected calibration error (Guo et al., 2017, eq. 3).
_BINS = 15


@dataclass(frozen=True)
class Target:
    """One attribute; see the module."""

    name: str
    column: str = ""
    fact: str = ""
    seen: str = ""
    classes: tuple[str, ...] = ()
    otherwise: str = ""
    number: tuple[float, float] | None = None

    @classmethod
    def from_recipe(cls, name: str, options: Mapping[str, Any]) -> Target:
        """A target from its entry in the recipe."""
        known = {"column", "fact", "seen", "classes", "otherwise", "number"}
        if not isinstance(options, Mapping) or set(options) - known:
            raise TrainingError(f"The target {name} is {options!r}.", f"It may have {', '.join(sorted(known))}.")
        given = dict(options)
        if bool(given.get("classes")) == bool(given.get("number")):
            raise TrainingError(f"The target {name} needs either `classes` or `number`.")
        # YAML reads bare yes and no as true and false.
        given["classes"] = tuple(_text(value) for value in given.get("classes", ()))
        if given.get("number"):
            given["number"] = tuple(map(float, given["number"]))
        if not given.get("column") and not given.get("fact"):
            given["fact"] = name
        if given.get("otherwise") and given["otherwise"] not in given["classes"]:
            raise TrainingError(f"The target {name} has no class {given['otherwise']!r} for all other values.")
        return cls(name, **given)

    @property
    def width(self) -> int:
        """Outputs of the network for it: one for each class, or mean and logarithm of the variance."""
        return len(self.classes) or 2

    def values(self, chips: Chips, facts: list[dict[str, str]]) -> npt.NDArray[np.float64]:
        """(N,) class numbers, or numbers from 0 to 1 within the range; NaN where it cannot be seen or known."""
        raw = list(chips.column(self.column)) if self.column else [known.get(self.fact) for known in facts]
        out = np.full(len(raw), np.nan)
        for i, value in enumerate(raw):
            if value is None or (self.seen and self.seen not in facts[i]):
                continue
            if self.number:
                low, high = self.number
                out[i] = (float(value) - low) / (high - low)
            elif (text := _text(value)) in self.classes or self.otherwise:
                out[i] = self.classes.index(text if text in self.classes else self.otherwise)
        return out


def _text(value: Any) -> str:
    return {True: "yes", False: "no"}[bool(value)] if isinstance(value, (bool, np.bool_)) else str(value)


class AttributeNetwork(nn.Module):
    """A backbone with one linear layer for each attribute.

    It maps (N, 3, H, W) normalized floats to one tensor per attribute. For classes (N, C) logarithms of chances, once
    calibrated: ``softmax`` of them are chances as frequent as the data had the classes, and adding `balance` gives
    those of classes that are all as frequent. For numbers (N, 2): mean and logarithm of the variance, from 0 to 1
    within the attribute's range.
    """

    def __init__(self, trunk: nn.Module, targets: list[Target]) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleDict({target.name: nn.Linear(trunk.dim, target.width) for target in targets})
        self.priors = nn.ParameterDict(
            {t.name: nn.Parameter(torch.zeros(t.width), requires_grad=False) for t in targets if t.classes}
        )
        self.temperatures = nn.ParameterDict(
            {t.name: nn.Parameter(torch.ones(()), requires_grad=False) for t in targets}
        )

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """See the class."""
        return self.tell(self.trunk(x))

    def tell(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """As the network, for (N, D) features of its trunk."""
        out = {}
        for name, head in self.heads.items():
            told = head(features)
            if name in self.priors:
                # Trained with the priors added, so that rare classes are learned as well (Menon et al., 2021, eq. 10).
                out[name] = (told + self.priors[name]) / self.temperatures[name]
            else:
                out[name] = torch.cat([told[:, :1], told[:, 1:] + self.temperatures[name].log()], 1)
        return out


class AttributesTask(Task):
    """Train a backbone to tell attributes; see the module."""

    def __init__(self, recipe: TrainRecipe, chips: Chips) -> None:
        super().__init__()
        if not recipe.targets:
            raise TrainingError("The recipe names no targets.", "See recipes/encoders/attributes-world.yaml.")
        self.list = [Target.from_recipe(name, options) for name, options in recipe.targets.items()]
        self.network = AttributeNetwork(backbone_of(recipe, recipe.network), self.list)
        self._known: dict[Chips, dict[str, npt.NDArray[np.float64]]] = {}
        values = self._values(chips)
        for target in self.list:
            seen = values[target.name][~np.isnan(values[target.name])]
            if not len(seen):
                raise TrainingError(
                    f"No picture of the data shows {target.name}.", f"Check its source: {target}. Or leave it out."
                )
            if target.classes:
                counts = np.bincount(seen.astype(int), minlength=len(target.classes))
                if (counts == 0).any():
                    absent = [name for name, count in zip(target.classes, counts, strict=True) if not count]
                    raise TrainingError(
                        f"No picture shows {target.name} as {', '.join(absent)}.", "Leave it out, or add pictures."
                    )
                with torch.no_grad():
                    self.network.priors[target.name].copy_(torch.from_numpy(np.log(counts / counts.sum())))
        self.losses = self._losses(recipe, chips) if recipe.losses else None

    def _losses(self, recipe: TrainRecipe, chips: Chips) -> SumOfLosses:
        if set(recipe.losses) != {"traits"}:
            raise TrainingError(
                f"The recipe's losses are {', '.join(recipe.losses)}.",
                "Attributes take `targets`, and of losses none but `traits`.",
            )
        if float((recipe.augment.get("geometry") or {}).get("flip", 0)):
            raise TrainingError("The loss traits knows left from right.", "Leave augment.geometry.flip out.")
        people, of = np.unique(chips.column("person"), return_inverse=True)
        table = np.hstack([chips.traits(people)[1][of], chips.circumstances()[1]])
        return SumOfLosses(recipe.losses, self.network.trunk.dim, len(chips), torch.from_numpy(table))

    def _values(self, chips: Chips) -> dict[str, npt.NDArray[np.float64]]:
        if chips not in self._known:
            facts = [json.loads(text) for text in chips.columns.get("facts", np.array(["{}"] * len(chips)))]
            self._known[chips] = {target.name: target.values(chips, facts) for target in self.list}
        return self._known[chips]

    def targets(self, chips: Chips, rows: npt.NDArray[np.int64]) -> Targets:
        """See `Task.targets`; NaN where an attribute is not seen."""
        values = self._values(chips)
        told = {t.name: torch.from_numpy(values[t.name][rows]).float() for t in self.list}
        return told | ({"row": torch.from_numpy(rows)} if self.losses else {})

    def forward(self, pixels: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Cross-entropy of classes and negative log-likelihood of numbers, each over the pictures that show it."""
        features = self.network.trunk(pixels)
        told = self.network.tell(features)
        parts = {}
        for target in self.list:
            out, true = told[target.name].float(), targets[target.name]
            seen = ~torch.isnan(true)
            if target.classes:
                labels = torch.where(seen, true, -100).long()
                total = functional.cross_entropy(out, labels, ignore_index=-100, reduction="sum")
            else:
                mean, logarithm = out[:, 0], out[:, 1].clamp(-8, 4)
                errors = (mean - torch.where(seen, true, mean.detach())).pow(2)
                total = ((errors * (-logarithm).exp() + logarithm) / 2 * seen).sum()
            parts[target.name] = total / seen.sum().clamp(min=1)
        loss = sum(parts.values()) / len(parts)
        parts = {name: part.detach() for name, part in parts.items()}
        if self.losses:
            more, told = self.losses(features, targets["row"])
            loss, parts = loss + more, parts | told
        return loss, parts

    def judge(self, network: nn.Module, chips: Chips, run: Run) -> dict[str, float]:
        """Balanced accuracy of every class attribute, mean absolute error of numbers, in their own units."""
        told, values = run(network, chips), self._values(chips)
        figures = {}
        for target in self.list:
            seen = ~np.isnan(values[target.name])
            if not seen.any():
                continue
            out, true = told[target.name][seen], values[target.name][seen]
            if target.classes:
                chosen = (out - network.priors[target.name].cpu().numpy()).argmax(1)
                hits = [(chosen[true == c] == c).mean() for c in np.unique(true)]
                figures[f"{target.name}.balanced_accuracy"] = float(np.mean(hits))
            else:
                low, high = target.number
                figures[f"{target.name}.error"] = float(np.abs(out[:, 0] - true).mean() * (high - low))
        accuracies = [value for name, value in figures.items() if name.endswith("accuracy")]
        if accuracies:
            figures |= {"balanced_accuracy.mean": float(np.mean(accuracies)), "balanced_accuracy.min": min(accuracies)}
        return figures

    def finish(self, network: nn.Module, chips: Chips, run: Run) -> dict[str, float]:
        """Fit one temperature per attribute on half of the people, and tell the calibration error on the others."""
        people = np.unique(chips.column("person"))
        fitted = np.isin(chips.column("person"), people[::2])
        told, values = run(network, chips), self._values(chips)
        figures = {}
        for target in self.list:
            seen = ~np.isnan(values[target.name])
            half, rest = seen & fitted, seen & ~fitted
            if not half.any() or not rest.any():
                continue
            out, true = told[target.name].astype(np.float64), values[target.name]
            if target.classes:
                temperature = _fit_temperature(out[half], true[half].astype(int))
                error = calibration_error(out[rest] / temperature, true[rest].astype(int))
            else:
                deviations = (out[:, 0] - true) ** 2 / np.exp(out[:, 1])
                temperature = float(deviations[half].mean())
                # A normal distribution has 68.3 % within one deviation.
                error = abs(float((deviations[rest] < temperature).mean()) - 0.683)
            with torch.no_grad():
                network.temperatures[target.name].fill_(temperature)
            figures[f"{target.name}.calibration_error"] = error
        return figures

    def contract(self) -> dict[str, Any]:
        """See `Task.contract`."""
        outputs = {}
        for target in self.list:
            kind = {"classes": list(target.classes)} if target.classes else {"number": list(target.number)}
            outputs[target.name] = {"kind": "classes" if target.classes else "number", **kind}
        return {"outputs": outputs}


def _fit_temperature(logits: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    """The temperature of least cross-entropy (Guo et al., 2017, section 4.2)."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    def loss(logarithm: float) -> float:
        return -float(log_softmax(logits / np.exp(logarithm), axis=1)[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-2.5, 2.5), method="bounded").x))


def calibration_error(logits: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    """The expected calibration error: the mean gap between confidence and accuracy, over bins of confidence.

    Parameters
    ----------
    logits
        (N, C).
    labels
        (N,) true classes.

    Returns
    -------
    float
        From 0 to 1 (Guo et al., 2017, eq. 3).
    """
    from scipy.special import softmax

    chances = softmax(logits, axis=1)
    confidence, right = chances.max(1), chances.argmax(1) == labels
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return float(np.sum(gaps))
