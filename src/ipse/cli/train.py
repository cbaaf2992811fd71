"""``ipse train``: encoders and other networks from recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ipse.errors import TrainingError

if TYPE_CHECKING:
    from ipse.training.loop import Step
    from ipse.training.recipe import TrainRecipe

train = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")

Recipe = Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="See recipes/encoders/ for examples.")]
Data = Annotated[Path | None, typer.Option(help="Folder of the pictures, in place of the recipe's.")]
Cache = Annotated[Path | None, typer.Option(help="Folder for packed pictures; by default ipse's cache.")]


@train.callback()
def _train() -> None:
    """Train encoders and other networks by recipes, on one CPU, one GPU or many.

    For several GPUs, start it by Accelerate: `accelerate launch $(which ipse) train encoder RECIPE.yaml`.
    """


@train.command()
def encoder(
    recipe: Recipe,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; by default runs/NAME.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in that folder.")] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="In place of the recipe's; the schedule follows.")] = None,
    data: Data = None,
    cache: Cache = None,
) -> None:
    """Train by a recipe, with curves and a report.

    A run that was stopped goes on exactly where its last checkpoint was: the same command with --resume.

    For example:

    - `ipse train encoder recipes/encoders/face-world.yaml --data faces`

    - `ipse train encoder recipes/encoders/face-world.yaml --data faces --resume`

    - `ipse train encoder recipes/encoders/market1501.yaml --data market1501/train --steps 500 --out trial`
    """
    plan = _recipe(recipe, data)
    with _needs():
        from ipse.training.loop import train as run
        from ipse.training.loop import with_steps
    folder = out or Path("runs") / plan.name
    with _progress(plan.name) as (on_pack, on_step):
        record = run(with_steps(plan, steps), folder, resume=resume, cache=cache, on_pack=on_pack, on_step=on_step)
    if record:
        for name, value in record["figures"].items():
            typer.echo(f"{name:32s} {value:.4f}")
        typer.echo(
            f"{folder / record['weights']}: {record['bytes'] / 1e6:.2f} MB, {record['seconds']:.0f} s of training"
        )
        typer.echo(f"Report: {(folder / 'report.html').resolve().as_uri()}")


@train.command()
def carry(
    recipe: Recipe,
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    data: Data = None,
    quality: Annotated[int, typer.Option(min=50, max=100, help="Of JPEG.")] = 95,
) -> None:
    """Write the pictures of a recipe, cut to its size, as files below 64 MiB, to train on another machine.

    For example:

    - `ipse train carry recipes/encoders/face-world.yaml --data faces --out chips`, and on the other machine
      `ipse train encoder recipes/encoders/face-world.yaml --data chips`
    """
    plan = _recipe(recipe, data)
    with _needs():
        from ipse.training.data import carry as write
    files = write(plan.data.source, plan.cut, out, quality)
    size = sum(path.stat().st_size for path in files)
    typer.echo(f"{out}: {len(files)} files, {size / 1e6:.1f} MB")


@train.command()
def ship(
    run: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of a finished training.", show_default=False)],
    to: Annotated[Path | None, typer.Option(help="Where to; by default into this installation of ipse.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Of an encoder: the distance up to which two faces are one person's.")
    ] = None,
) -> None:
    """Make a trained network usable by name, without torch and with its weights stored once.

    What ONNX Runtime gives is compared with what torch gives before anything is written.

    For example:

    - `ipse train ship runs/face-world --threshold 0.62`, then `ipse enroll Ada ada.jpg --encoder face-world`

    - `ipse train ship runs/mine --to networks`, then `ipse enroll Ada ada.jpg --encoder networks/mine.onnx`
    """
    with _needs():
        from ipse.training.ship import ship as write
        from ipse.zoo.shipped_files import SHIPPED
    folder = SHIPPED if to is None else to
    shipped = write(run, folder, threshold=threshold)
    for name, difference in shipped["parity"].items():
        typer.echo(f"{name}: largest difference between torch and ONNX Runtime {difference:.1e} of its largest value")
    for file, digest in shipped["sha256"].items():
        typer.echo(f"{digest}  {file}")
    typer.echo(f"{folder}: {shipped['bytes'] / 1e6:.2f} MB")


def _recipe(path: Path, data: Path | None) -> TrainRecipe:
    from ipse.training.recipe import TrainRecipe

    plan = TrainRecipe.load(path)
    if data is not None:
        plan = replace(plan, data=replace(plan.data, source=str(data)))
    if not plan.data.source:
        raise TrainingError("The recipe names no data.", "Give --data FOLDER.")
    return plan


@contextmanager
def _needs() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise TrainingError(
            f"Training needs {error.name}, which is not installed.", "pip install 'ipse[train]'"
        ) from error


@contextmanager
def _progress(name: str) -> Iterator[tuple[Callable[[int, int], None], Callable[[Step], None]]]:
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
