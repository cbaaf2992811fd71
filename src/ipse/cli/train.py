"""``ipse train``: encoders and other networks from recipes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ipse.cli.train_adapter import adapter
from ipse.cli.train_base import base
from ipse.cli.train_words import words
from ipse.cli.training import needs, progress
from ipse.errors import TrainingError

if TYPE_CHECKING:
    from ipse.training.recipe import TrainRecipe

train = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")
train.add_typer(base, name="base", help="The text-to-image base of the world, stage by stage.")

train.command()(adapter)
train.command()(words)

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
    with needs():
        from ipse.training.loop import train as run
        from ipse.training.loop import with_steps
    folder = out or Path("runs") / plan.name
    with progress(plan.name) as (on_pack, on_step):
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
    with needs():
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
    with needs():
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
