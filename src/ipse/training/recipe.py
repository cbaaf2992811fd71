"""Recipes of training: everything that decides what comes out, in one value that a YAML file holds."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from ipse.errors import DataError, TrainingError
from ipse.training.adversarial import AdversarialPlan
from ipse.training.data import Cut

T = TypeVar("T")

TASKS = ("identity", "attributes", "landmarks", "proton", "starbucks")
"""What can be trained: embeddings, attributes of a picture, landmarks with parts, templates of a few pictures, and
embeddings of several depths and lengths."""


@dataclass(frozen=True)
class DataPlan:
    """Where pictures come from.

    Attributes
    ----------
    source
        Folder of the data; see `ipse.training.data.rows_of`. Relative to the working folder.
    validate
        Another folder to judge on; None judges on people held out of the first.
    holdout
        Share of the people held out, where there is no other folder.
    group
        Column of what was taken together (``look``, ``camera``), for sampling and for judging across it; or empty.
    label
        What is one class to an identity: a ``person``, or a person in one ``look``, so that clothes are a part of who
        somebody is, as they are to cameras that see people for a day.
    """

    source: str = ""
    validate: str | None = None
    holdout: float = 0.1
    group: str = ""
    label: str = "person"


@dataclass(frozen=True)
class BatchPlan:
    """What makes a batch: `people` times `each` pictures, or `size` pictures by chance where `people` is 0.

    Attributes
    ----------
    people, each, size
        See above.
    alone
        What to do about people with one picture: ``error`` or ``drop``.
    """

    people: int = 0
    each: int = 4
    size: int = 64
    alone: str = "error"


@dataclass(frozen=True)
class OptimizerPlan:
    """How weights move.

    Attributes
    ----------
    kind
        ``adamw`` or ``sgd`` (momentum 0.9).
    rate
        Highest learning rate, reached after `warmup` steps; then it falls as a cosine to `last` times it.
    decay
        Weight decay of matrices and filters; norms and biases have none.
    clip
        Longest gradient; 0 for any.
    """

    kind: str = "adamw"
    rate: float = 1e-3
    warmup: int = 100
    last: float = 0.01
    decay: float = 0.01
    clip: float = 5.0


_SECTIONS = {
    "data": DataPlan,
    "cut": Cut,
    "batch": BatchPlan,
    "optimizer": OptimizerPlan,
    "adversarial": AdversarialPlan,
}


@dataclass(frozen=True)
class TrainRecipe:
    """A training.

    Attributes
    ----------
    name
        Of what comes out.
    task
        One of `TASKS`.
    modality
        What the chip shows: ``face``, ``body``, …
    license
        Terms of the weights that come out.
    seed
        Of everything random.
    steps
        How often weights move.
    data, cut, batch, optimizer
        See their classes.
    mean, std
        The network sees (pixel - mean) / std, pixels from 0 to 255.
    network
        ``backbone`` with its options; for landmarks the options of its network.
    losses
        For identity: `ipse.training.losses.LOSSES` with options.
    earlier
        For the losses ``harmonic`` and ``distilled``: a network that was trained before, with the same chips and length
        of embedding, whose galleries the new one is to match. Named as `start` is; or empty.
    start
        A network whose backbone this one begins with instead of by chance: the name of one that comes with ipse, or
        the file of one that `ipse train encoder` wrote, relative to the working folder; or empty. What differs in name
        or shape begins by chance.
    targets
        For attributes: see `ipse.training.tasks.attributes`.
    augment
        See `ipse.training.augment.Augmentation`.
    adversarial
        See `ipse.training.adversarial.AdversarialPlan`; by default pictures are not changed against the network.
    ema
        Share of the old mean that a step keeps in the averaged weights, which are what comes out.
    precision
        ``no``, ``bf16`` or ``fp16``.
    accumulate
        Batches per step.
    still
        The last so many steps keep the statistics of batch norms as they are, as the finished network does. What is
        rare in pictures, such as a bright red hat, is tamed in training by the batch that it is in; without it, it can
        grow from layer to layer until nothing else is left in the embedding.
    evaluate_every, save_every
        Steps between judgments, and between checkpoints.
    """

    name: str = "encoder"
    task: str = "identity"
    modality: str = "face"
    license: str = "Apache-2.0"
    seed: int = 0
    steps: int = 1000
    data: DataPlan = field(default_factory=DataPlan)
    cut: Cut = field(default_factory=Cut)
    batch: BatchPlan = field(default_factory=BatchPlan)
    optimizer: OptimizerPlan = field(default_factory=OptimizerPlan)
    mean: float = 127.5
    std: float = 127.5
    network: Mapping[str, Any] = field(default_factory=dict)
    losses: Mapping[str, Any] = field(default_factory=dict)
    earlier: str = ""
    start: str = ""
    targets: Mapping[str, Any] = field(default_factory=dict)
    augment: Mapping[str, Any] = field(default_factory=dict)
    adversarial: AdversarialPlan = field(default_factory=AdversarialPlan)
    ema: float = 0.999
    precision: str = "no"
    accumulate: int = 1
    still: int = 0
    evaluate_every: int = 500
    save_every: int = 250

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise TrainingError(f"There is no task {self.task!r}.", f"There are {', '.join(TASKS)}.")
        if self.precision not in ("no", "bf16", "fp16"):
            raise TrainingError(f"There is no precision {self.precision!r}.", "Use no, bf16 or fp16.")
        if self.optimizer.kind not in ("adamw", "sgd"):
            raise TrainingError(f"There is no optimizer {self.optimizer.kind!r}.", "Use adamw or sgd.")
        for label in ("steps", "accumulate", "evaluate_every", "save_every"):
            value = getattr(self, label)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise TrainingError(f"The recipe's {label} is {value!r}; it must be a whole number from 1.")
        if bool(self.earlier) != bool({"harmonic", "distilled"} & set(self.losses)):
            raise TrainingError(
                f"The recipe's losses are {', '.join(self.losses) or 'none'}, its earlier network {self.earlier!r}.",
                "The losses harmonic and distilled, and the key `earlier`, which names a network, need each other.",
            )
        if isinstance(self.still, bool) or not isinstance(self.still, int) or not 0 <= self.still < self.steps:
            raise TrainingError(
                f"The recipe's still is {self.still!r}.", f"Give a whole number from 0 to below its {self.steps} steps."
            )
        if not 0 <= self.ema < 1:
            raise TrainingError(f"The recipe's ema is {self.ema}; it must be from 0 to below 1.")
        if self.data.label not in ("person", "look"):
            raise TrainingError(f"The recipe's data.label is {self.data.label!r}.", "Use person or look.")
        if not 0 <= self.data.holdout < 1:
            raise TrainingError(f"The recipe's data.holdout is {self.data.holdout}; it must be from 0 to below 1.")

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and numbers, as a YAML file holds them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @property
    def fingerprint(self) -> str:
        """sha256 of all that decides the result; where the data and other networks lie does not."""
        plain = self.to_dict()
        # Which networks they were, the checkpoint knows: it holds their weights or what became of them.
        del plain["earlier"], plain["start"]
        if not self.still:
            del plain["still"]
        if not self.adversarial.size:
            del plain["adversarial"]
        kept = ("holdout", "group", "label") if self.data.label != "person" else ("holdout", "group")
        plain["data"] = {key: plain["data"][key] for key in kept}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """A recipe from what a YAML file holds; absent keys take their defaults.

        Raises
        ------
        TrainingError
            For unknown keys, naming the nearest known one, or values that cannot be.
        """
        given = dict(known_keys(cls, data, "The recipe"))
        for name, kind in _SECTIONS.items():
            if name in given:
                given[name] = kind(**known_keys(kind, given[name], f"The recipe's {name}"))
        return cls(**given)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a recipe from a YAML file.

        Raises
        ------
        DataError
            For a file that cannot be read or is not YAML.
        TrainingError
            As `from_dict`.
        """
        return cls.from_dict(read_recipe(path, "recipes/encoders/"))


def read_recipe(path: str | Path, examples: str) -> Any:
    """What a YAML file holds; an empty one holds no keys.

    Raises
    ------
    DataError
        For a file that cannot be read or is not YAML; names the folder of examples.
    """
    import yaml

    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"The recipe {path} cannot be read: {error.strerror}.", "Name a YAML file.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"The recipe {path} is not YAML: {error}.", f"See {examples} for examples.") from error
    return {} if data is None else data


def known_keys(kind: type, data: Any, where: str) -> Mapping[str, Any]:
    """Check the keys and the simple types of a section."""
    if not isinstance(data, Mapping):
        raise TrainingError(f"{where} is {data!r}; it must be a mapping of keys.")
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}
    for key, value in data.items():
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, 1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise TrainingError(f"{where} has no key {key!r}.", f"{hint}There are {', '.join(fields)}.")
        wanted = {"int": int, "float": (int, float), "str": str, "bool": bool}.get(str(fields[key].type))
        if wanted and (not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool)):
            # YAML reads 1e-3 as a text; 1.0e-3 is a number.
            raise TrainingError(f"{where} has {key}: {value!r}; it must be of type {fields[key].type}.")
    return data
