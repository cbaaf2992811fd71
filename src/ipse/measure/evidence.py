"""Evidence: the figures of a benchmark, written with all that is needed to doubt or repeat them."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipse._files import atomic_write
from ipse.catalogue import RESULTS
from ipse.errors import DataError

# Distribution by module, for the packages whose version can change a figure.
_PACKAGES = {
    "numpy": "numpy",
    "PIL": "pillow",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "onnxruntime": "onnxruntime",
    "warp": "warp-lang",
    "dlib": "dlib-bin",
    "_dlib_pybind11": "dlib-bin",
    "lancedb": "lancedb",
    "pyarrow": "pyarrow",
    "torch": "torch",
    "diffusers": "diffusers",
    "transformers": "transformers",
    "accelerate": "accelerate",
    "peft": "peft",
    "kornia": "kornia",
    "ray": "ray",
}


class Evidence:
    """Collects the figures of one benchmark and writes them to ``benchmarks/results/<name>.json``.

    Parameters
    ----------
    name
        The benchmark's name and the file's; the first part of its figures' names.
    seeds
        The seeds that the run used; empty if nothing was random.
    command
        The command that repeats the run; by default that of this process, with paths made relative to the source tree.
    """

    def __init__(self, name: str, seeds: Sequence[int] = (), command: str = "") -> None:
        self.name = name
        self.seeds = [int(seed) for seed in seeds]
        self.command = command or _command()
        self.figures: list[dict[str, Any]] = []

    def add(
        self,
        name: str,
        value: float,
        unit: str = "",
        *,
        n: int,
        ci95: tuple[float, float] | None = None,
        against: tuple[str, float] | None = None,
        note: str = "",
    ) -> None:
        """Add one figure.

        Parameters
        ----------
        name
            Dotted and stable, such as ``world.rank1_same_look``; starts with the benchmark's name.
        value
            The figure, in `unit`.
        unit
            Such as ``%``, ``s`` or ``pictures/s``; empty for a plain number.
        n
            How many independent things it was measured on (identities, where there are any).
        ci95
            Lower and upper end of the 95 % interval, in `unit`; None where there is no sampling error to speak of.
        against
            Name and value of what it is compared with, in `unit`.
        note
            What a reader must know to take it right.

        Raises
        ------
        ValueError
            If a number is not finite, the interval is upside down, or the name is wrong or taken.
        """
        if not name.startswith(f"{self.name}."):
            raise ValueError(f"Figures of {self.name} are called {self.name}.<something>, not {name}.")
        if any(figure["name"] == name for figure in self.figures):
            raise ValueError(f"The figure {name} is there already.")
        numbers = [value, *(ci95 or ()), *(against[1:] if against else ())]
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"The figure {name} is not finite: {numbers}.")
        if ci95 is not None and ci95[0] > ci95[1]:
            raise ValueError(f"The interval of {name} goes from {ci95[0]} down to {ci95[1]}.")
        self.figures.append(
            {
                "name": name,
                "value": float(value),
                "unit": unit,
                "n": int(n),
                "ci95": [float(end) for end in ci95] if ci95 else None,
                "against": {"name": against[0], "value": float(against[1])} if against else None,
                "note": note,
            }
        )

    def summary(self) -> str:
        """The figures, a line each: name, value, unit, interval, and what the value stands against."""
        lines = []
        for figure in self.figures:
            interval = "" if figure["ci95"] is None else f"  [{figure['ci95'][0]:.4g}, {figure['ci95'][1]:.4g}]"
            against = f"  ({figure['against']['name']}: {figure['against']['value']:.4g})" if figure["against"] else ""
            lines.append(f"{figure['name']:52s} {figure['value']:10.4g} {figure['unit']}{interval}{against}")
        return "\n".join(lines)

    def write(self, folder: str | os.PathLike[str] = RESULTS, *, update: bool = False) -> Path:
        """Write the file, whole or not at all, replacing that of an earlier run.

        Parameters
        ----------
        folder
            By default ``benchmarks/results`` of the source tree.
        update
            Keep the figures of the earlier file that this run did not measure, for benchmarks whose parts run one by
            one. The note of a kept figure says when, from which source and by which command it was measured.

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        DataError
            If the folder cannot be written.
        """
        path = Path(folder) / f"{self.name}.json"
        kept = _kept(path, {figure["name"] for figure in self.figures}) if update and path.exists() else []
        record = {
            "name": self.name,
            "command": self.command,
            "commit": _commit(),
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "machine": machine(),
            "versions": versions(),
            "seeds": self.seeds,
            "figures": sorted(self.figures + kept, key=lambda figure: figure["name"]) if kept else self.figures,
        }
        try:
            with atomic_write(path) as file:
                file.write((json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())
        except OSError as error:
            raise DataError(f"Cannot write {path}: {error.strerror or error}.", "Choose another folder.") from error
        return path


def _kept(path: Path, measured: set[str]) -> list[dict[str, Any]]:
    """The figures of an earlier file that are not measured again, each with its origin in the note."""
    try:
        earlier = json.loads(path.read_text())
        origin = f"measured {earlier['date']} at {earlier['commit']} by `{earlier['command']}`"
        kept = [figure for figure in earlier["figures"] if figure["name"] not in measured]
        for figure in kept:
            if "measured " not in figure["note"]:
                figure["note"] = "; ".join(filter(None, [figure["note"], origin]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"Cannot update {path}: it is not a results file ({error}).", "Write it anew.") from error
    return kept


def bootstrap_ci(
    values: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    n: int = 2000,
    seed: int = 0,
    statistic: Callable[[npt.NDArray[Any]], float] = np.mean,
) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of a statistic, resampling identities rather than images.

    Images of one person are alike, so resampling images would give intervals far too narrow. For two methods on the
    same people, pass their paired differences.

    Parameters
    ----------
    values
        (N, ...): one row per image (or comparison).
    groups
        (N,): the identity of each row; without it every row is an identity of its own.
    n
        Number of resamples.
    seed
        Seed of the resampling; equal input gives an equal interval.
    statistic
        Maps rows (M, ...) to a number.

    Returns
    -------
    tuple
        Lower and upper end.

    Raises
    ------
    ValueError
        If there are fewer than two identities, or the lengths differ.
    """
    rows = np.asarray(values)
    index, count = _identities(rows, groups)
    if statistic is np.mean and rows.ndim == 1:
        # The common case without a Python loop over rows.
        low, high = bootstrap_means(rows[:, None], index, n, seed)
        return float(low[0]), float(high[0])
    generator = np.random.default_rng(seed)
    members = np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index))[:-1])
    results = np.array(
        [statistic(rows[np.concatenate([members[g] for g in generator.integers(0, count, count)])]) for _ in range(n)]
    )
    low, high = np.quantile(results, [0.025, 0.975])
    return float(low), float(high)


def bootstrap_means(
    values: npt.ArrayLike, groups: npt.ArrayLike, n: int = 2000, seed: int = 0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The intervals of `bootstrap_ci` for the means of several columns, all with the same draws.

    A mean needs only each identity's sum and count, so nothing is computed again for a draw but two products.

    Parameters
    ----------
    values
        (N, C).
    groups, n, seed
        As in `bootstrap_ci`.

    Returns
    -------
    tuple
        (C,) lower and (C,) upper ends.

    Raises
    ------
    ValueError
        If there are fewer than two identities, or the lengths differ.
    """
    rows = np.asarray(values, np.float64)
    ones = np.ones((len(rows), 1))
    sums = bootstrap_sums(np.concatenate([rows, ones], axis=1), groups, n, seed)
    low, high = np.quantile(sums[:, :-1] / sums[:, -1:], [0.025, 0.975], axis=0)
    return low, high


def bootstrap_sums(
    values: npt.ArrayLike, groups: npt.ArrayLike | None = None, n: int = 2000, seed: int = 0
) -> npt.NDArray[np.float64]:
    """The sums of several columns in each resample of identities: for statistics that are functions of sums.

    Parameters
    ----------
    values
        (N, C).
    groups, n, seed
        As in `bootstrap_ci`.

    Returns
    -------
    (n, C) float64 array

    Raises
    ------
    ValueError
        If there are fewer than two identities, or the lengths differ.
    """
    rows = np.asarray(values, np.float64)
    index, count = _identities(rows, groups)
    sums = np.stack([np.bincount(index, column, count) for column in rows.T], axis=1)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=n)
    return drawn.astype(np.float64) @ sums


def _identities(rows: npt.NDArray[Any], groups: npt.ArrayLike | None) -> tuple[npt.NDArray[np.intp], int]:
    """The number of each row's identity, from 0, and how many identities there are."""
    labels = np.arange(len(rows)) if groups is None else np.asarray(groups)
    if len(labels) != len(rows):
        raise ValueError(f"{len(labels)} groups for {len(rows)} values; give one for each.")
    _, index = np.unique(labels, return_inverse=True)
    count = int(index.max(initial=-1)) + 1
    if count < 2:
        raise ValueError(f"An interval over identities needs at least two of them; there are {count}.")
    return index, count


def machine() -> dict[str, Any]:
    """What the run had: processor model, usable cores, memory in GiB, system; nothing that names the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found: dict[str, Any] = {"cpu": _cpu_model(), "cores": cores, "system": f"{platform.system()} {platform.machine()}"}
    if "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name(0)
    return found


def versions() -> dict[str, str]:
    """Versions of Python, ipse and the packages that this run has loaded."""
    found = {"python": platform.python_version(), "ipse": importlib.metadata.version("ipse")}
    for module, distribution in _PACKAGES.items():
        if module in sys.modules:
            found[distribution] = importlib.metadata.version(distribution)
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _commit() -> str:
    """The commit that ran; ``-dirty`` where tracked files other than results had changed."""

    def git(*arguments: str) -> str:
        run = subprocess.run(["git", *arguments], cwd=RESULTS.parents[1], capture_output=True, text=True, check=True)
        return run.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _command() -> str:
    """The command line of this process, in a form that works from the source tree and shows nothing outside it."""
    script, *arguments = sys.argv
    shown = _shown(script)
    words = ["python", shown] if shown.endswith(".py") else [Path(script).name]
    return shlex.join([*words, *map(_shown, arguments)])


def _shown(word: str) -> str:
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    path = Path(value)
    if path.is_absolute():
        root = RESULTS.parents[1]
        value = str(path.relative_to(root)) if path.is_relative_to(root) else path.name
    return f"{option}{equals}{value}"
