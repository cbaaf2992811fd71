"""Recipes of the stages that make the world base: everything that decides what comes out, in a YAML file each."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from ipse.errors import TrainingError
from ipse.training.recipe import OptimizerPlan, known_keys, read_recipe

T = TypeVar("T")

Size = int | Sequence[int]
"""Of pictures: a number for squares, or height and width."""


@contextmanager
def starting_with(folder: str | Path, what: str) -> Iterator[None]:
    """Turn the ways in which a folder cannot be what a stage's ``start`` names into one error."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, IndexError) as error:
        told = " ".join(str(error).split())
        raise TrainingError(
            f"{folder} holds no {what} of this shape to begin with: {told:.200}", "Change options.start of the recipe."
        ) from error


def shape_of(size: Size) -> tuple[int, int]:
    """Height and width."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def size_of(height: int, width: int) -> Size:
    """As short as it can be told: a number for squares."""
    return height if height == width else (height, width)


@dataclass(frozen=True)
class StageRecipe:
    """A training of one part of the base.

    Attributes
    ----------
    stage
        ``joint``, ``vae``, ``decoder`` or ``denoiser``.
    seed
        Of everything random.
    steps
        How often weights move.
    batch
        Pictures per step.
    size
        Of a picture in pixels: a number for squares, or height and width.
    holdout
        Share of the people that are looked at and not trained on.
    network
        Options of `make_joint`, `make_vae`, of the decoder's discriminator `Patches`, or of `make_denoiser`.
    options
        Of the stage; see its class.
    optimizer
        How weights move.
    ema
        Share of the old mean that a step keeps in the averaged weights, which are what comes out.
    precision
        ``no`` or ``bf16``.
    look_every, save_every
        Steps between sheets of pictures with figures, and between checkpoints.
    """

    stage: str
    seed: int = 0
    steps: int = 1000
    batch: int = 16
    size: Size = 128
    holdout: float = 0.02
    network: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    optimizer: OptimizerPlan = field(default_factory=OptimizerPlan)
    ema: float = 0.999
    precision: str = "no"
    look_every: int = 1000
    save_every: int = 250

    def __post_init__(self) -> None:
        if self.precision not in ("no", "bf16"):
            raise TrainingError(f"There is no precision {self.precision!r}.", "Use no or bf16.")
        if self.optimizer.kind != "adamw":
            raise TrainingError(f"The base is not trained by {self.optimizer.kind!r}.", "Use adamw.")
        for label in ("steps", "batch", "look_every", "save_every"):
            if getattr(self, label) < 1:
                raise TrainingError(f"The recipe's {label} is {getattr(self, label)}; it must be from 1.")
        sides = self.size if isinstance(self.size, Sequence) else (self.size, self.size)
        if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
            raise TrainingError(f"The recipe's size is {self.size}; it must be from 1, or [height, width].")
        if not 0 <= self.ema < 1 or not 0 < self.holdout < 1:
            raise TrainingError(f"The recipe's ema is {self.ema}, its holdout {self.holdout}; both are from 0 to 1.")

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of a picture."""
        return shape_of(self.size)

    @property
    def fingerprint(self) -> str:
        """sha256 of all that decides the result."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """A recipe from what a YAML file holds; absent keys take their defaults.

        Raises
        ------
        TrainingError
            For unknown keys, naming the nearest known one, or values that cannot be.
        """
        given = dict(known_keys(cls, data, "The recipe"))
        if "stage" not in given:
            raise TrainingError("The recipe names no stage.", "See recipes/base/ for examples.")
        if "optimizer" in given:
            given["optimizer"] = OptimizerPlan(
                **known_keys(OptimizerPlan, given["optimizer"], "The recipe's optimizer")
            )
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
        return cls.from_dict(read_recipe(path, "recipes/base/"))


def options_of(kind: type[T], recipe: StageRecipe) -> T:
    """The options of a stage as its dataclass, unknown keys refused."""
    return kind(**known_keys(kind, recipe.options, f"The options of the stage {recipe.stage}"))
