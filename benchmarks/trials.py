"""What benchmarks share that train networks to compare them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from rich.console import Console

from ipse.measure.evidence import Evidence, bootstrap_ci
from ipse.training.data import pack
from ipse.training.loop import train
from ipse.training.recipe import TrainRecipe
from ipse.training.tasks.common import start_file

Setting = TypeVar("Setting")

RANKING = {"margin": {"margin": "cosface", "size": 0.15, "scale": 20.0}, "supcon": {"temperature": 0.1, "weight": 0.5}}
"""Losses of small networks that are to rank people."""


def trained(recipe: TrainRecipe, folder: Path, cache: Path) -> Path:
    """The weights of a training, done now unless they are there; one that was stopped goes on.

    Its folder is the given one with what the recipe's fingerprint leaves out behind its name: which data, and which
    other networks. So no run is taken for one on other data.
    """
    sources = filter(None, [recipe.data.source, recipe.data.validate])
    told = [pack(source, recipe.cut, cache).fingerprint for source in sources]
    for other in (recipe.start, recipe.earlier):
        told.append(hashlib.sha256(start_file(other).read_bytes()).hexdigest() if other else "")
    folder = folder.with_name(f"{folder.name}-{hashlib.sha256(' '.join(told).encode()).hexdigest()[:8]}")
    if not (folder / "record.json").exists():
        began = time.process_time()
        train(recipe, folder, resume=(folder / "checkpoint.pt").exists(), cache=cache)
        print(f"{folder.name}: {time.process_time() - began:.0f} s of CPU", flush=True)
    return folder / f"{recipe.name}.safetensors"


def measure(
    parts: Mapping[str, Callable[[Setting, Evidence], None]],
    chosen: Iterable[str],
    setting: Setting,
    evidence: Evidence,
    *,
    whole: bool,
) -> None:
    """Measure some parts, and write the figures unless it is a trial; figures of other parts are kept."""
    for name in chosen:
        parts[name](setting, evidence)
        print(evidence.summary(), flush=True)
        if whole:
            # After each part, so that what is measured stays measured.
            evidence.write(update=True)
    Console().print("written" if whole else "a trial: nothing is written")


def add_mean(evidence: Evidence, name: str, runs: Sequence[Any], people: Any, unit: str = "%", note: str = "") -> None:
    """Add the mean over (S, N) runs and pictures, in per cent, with its interval over people."""
    values = 100 * np.asarray(runs, float)
    evidence.add(
        name,
        values.mean(),
        unit,
        n=len(np.unique(people)),
        ci95=bootstrap_ci(values.mean(0), people),
        note="; ".join(filter(None, [note, by_seed(values.mean(1))])),
    )


def add_gain(
    evidence: Evidence, name: str, ours: Sequence[Any], theirs: Sequence[Any], people: Any, label: str, note: str = ""
) -> None:
    """Add by how many points (S, N) runs are ahead of others, paired by seed and picture, its interval over people."""
    gain = 100 * (np.asarray(ours, float) - np.asarray(theirs, float))
    evidence.add(
        name,
        gain.mean(),
        "points",
        n=len(np.unique(people)),
        ci95=bootstrap_ci(gain.mean(0), people),
        against=(label, 100 * float(np.mean(theirs))),
        note="; ".join(filter(None, [note, by_seed(gain.mean(1))])),
    )


def by_seed(values: npt.NDArray[np.float64]) -> str:
    """What each training seed gave."""
    return f"by seed {', '.join(f'{value:.2f}' for value in values)}" if len(values) > 1 else ""


def told_seeds(seeds: Iterable[int]) -> str:
    """Which seeds, for notes: ``0, 1, 2``."""
    return ", ".join(map(str, seeds))


def digest(*values: Any) -> str:
    """sha256 of what decides a run: arrays, bytes, plain values, classes; dataclasses, dicts and sequences of these.

    Raises
    ------
    TypeError
        For anything else, such as a function, whose settings nobody could tell.
    """
    told = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray) and value.dtype != object:
            # By way of a view: pictures are many, and a copy of them as bytes would double them.
            part = hashlib.sha256(f"{value.dtype}{value.shape}".encode())
            part.update(np.ascontiguousarray(value).reshape(-1).view(np.uint8))
        elif isinstance(value, bytes):
            part = hashlib.sha256(b"bytes" + value)
        elif isinstance(value, type):
            part = hashlib.sha256(f"class {value.__qualname__}".encode())
        elif is_dataclass(value):
            part = hashlib.sha256(digest(type(value), *(getattr(value, own.name) for own in fields(value))).encode())
        elif isinstance(value, dict):
            part = hashlib.sha256(digest(type(value), *value.items()).encode())
        elif isinstance(value, list | tuple):
            part = hashlib.sha256(digest(type(value), *value).encode())
        elif value is None or isinstance(value, bool | int | float | str):
            part = hashlib.sha256(repr(value).encode())
        else:
            raise TypeError(f"A run cannot be known by {value!r}; give arrays, plain values or dataclasses of them.")
        told.update(part.digest())
    return told.hexdigest()
