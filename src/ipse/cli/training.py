"""What the verbs that train share: live progress, and the hint when a package is missing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ipse.errors import TrainingError

if TYPE_CHECKING:
    from ipse.training.loop import Step


@contextmanager
def needs(extras: str = "train") -> Iterator[None]:
    """Say which extras of ipse to install where an import fails."""
    try:
        yield
    except ImportError as error:
        raise TrainingError(
            f"Training needs {error.name}, which is not installed.", f"pip install 'ipse[{extras}]'"
        ) from error


@contextmanager
def progress(name: str) -> Iterator[tuple[Callable[[int, int], None], Callable[[Step], None]]]:
    """Live progress on the error stream: what to call while packing, and at steps."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
        console=console,
    )
    tasks: dict[str, Any] = {}

    def task(what: str, total: int) -> Any:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total, told="")
        return tasks[what]

    shown: dict[str, float] = {}

    def on_pack(done: int, total: int) -> None:
        bar.update(task("Packing", total), completed=done, total=total)

    def on_step(step: Step) -> None:
        nonlocal shown
        told = f"loss {step.loss:.3f}  {step.speed:.0f} pictures/s"
        bar.update(task(name, step.steps), completed=step.step, told=told)
        if step.figures and step.figures != shown:
            shown = dict(step.figures)
            brief = [(key, value) for key, value in shown.items() if "." not in key or "mean" in key]
            bar.console.print(f"step {step.step}: " + ", ".join(f"{key} {value:.3f}" for key, value in brief))

    with bar:
        yield on_pack, on_step


def tell(record: Mapping[str, Any], result: Path) -> None:
    """Print what a training with a limit of minutes came to; of several processes only the first does."""
    if os.environ.get("RANK", "0") != "0":
        return
    if not record:
        typer.echo("Time is up: go on by the same command with --resume.")
        return
    for name, value in record["figures"].items():
        typer.echo(f"{name:32s} {value:.4f}")
    typer.echo(f"{result}: {record['parameters'] / 1e6:.2f} M parameters, {record['seconds']:.0f} s")
