"""``ipse train base``: the text-to-image base of the world, stage by stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ipse.cli.training import needs, progress, tell
from ipse.errors import TrainingError

base = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown")

Recipe = Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="See recipes/base/.", show_default=False)]
Data = Annotated[
    list[Path], typer.Option(help="Folder of pictures with captions; give it again for more.", show_default=False)
]
Runs = Annotated[Path, typer.Option(help="Folder of the runs of all stages.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in that folder.")]
Steps = Annotated[int | None, typer.Option(min=1, help="In place of the recipe's; the schedule follows.")]
Minutes = Annotated[float | None, typer.Option(min=0.0, help="Stop after so long, to go on later by --resume.")]
End = Annotated[
    int | None,
    typer.Option(min=1, help="End a resumed run at this step, before its recipe's; the rate falls until there."),
]
Cache = Annotated[Path | None, typer.Option(help="Folder for decoded pictures; by default ipse's cache.")]
RUNS = Path("runs/base")


@base.callback()
def _base() -> None:
    """Train the text-to-image base of the world: `joint`, `text`, `vae`, `denoiser`, then `assemble`.

    `people` trains the U-Net of an assembled base on, for adapters; `assemble` then takes that one.

    `unpack` writes the stages of an assembled base, to go on from them.

    Runs that were stopped go on exactly where their last checkpoint was: the same command with --resume.
    """


def _stage(name: str, told: str) -> None:
    """Add the command that trains a stage; `told` is its help."""

    def command(
        recipe: Recipe,
        data: Data,
        out: Runs = RUNS,
        resume: Resume = False,
        steps: Steps = None,
        minutes: Minutes = None,
        end: End = None,
        cache: Cache = None,
    ) -> None:
        _train(name, recipe, data, out, resume, steps, minutes, end, cache)

    base.command(name, help=told)(command)


_stage(
    "joint",
    """Train the encoder of pictures and captions into one space.

For example:

- `ipse train base joint recipes/base/joint.yaml --data faces`
""",
)
_stage(
    "text",
    """Train the base's text encoder, of the finished joint encoder's shape: its states tell what captions say.

For example:

- `ipse train base text recipes/base/text.yaml --data faces`
""",
)
_stage(
    "vae",
    """Train the autoencoder, which needs no other stage.

For example:

- `ipse train base vae recipes/base/vae-start.yaml --data faces --data more-faces`
""",
)
_stage(
    "decoder",
    """Make the decoder of the finished autoencoder sharper; its latents, and denoisers of them, stay.

For example:

- `ipse train base decoder recipes/base/decoder.yaml --data faces`
""",
)
_stage(
    "denoiser",
    """Train the U-Net on the latents of the finished autoencoder and the states of the finished text encoder.

For example:

- `ipse train base denoiser recipes/base/denoiser.yaml --data faces`

- `ipse train base denoiser recipes/base/denoiser.yaml --data faces --minutes 55`, then the same with `--resume`

- `torchrun --nproc-per-node 4 $(which ipse) train base denoiser recipes/base/denoiser.yaml --data faces`, where
  four cores or GPUs share every batch
""",
)


@base.command()
def assemble(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new one.", show_default=False)],
    runs: Runs = RUNS,
    name: Annotated[str, typer.Option(help="What the base calls itself in what it makes.")] = "world-base",
    joint: Annotated[
        Literal["whole", "pictures", "none"],
        typer.Option(help="Of the joint encoder: all, what adapters read pictures with, or nothing, for words alone."),
    ] = "whole",
) -> None:
    """Put the finished stages into one folder, in half precision, that `ipse generate --base` and diffusers load.

    For example:

    - `ipse train base assemble world-base`

    - `ipse train base assemble body-base --runs runs/body-base --name body-base`
    """
    with needs("train,generate"):
        from ipse.diffusion.training.assemble import assemble as write
    record = write(runs, folder, name, joint)
    typer.echo(f"{folder}: {record['bytes'] / 1e6:.1f} MB; half precision changes pictures by {record['parity']:.2%}")


@base.command()
def unpack(
    which: Annotated[
        str, typer.Argument(metavar="BASE", help="`world`, `world-body`, or a folder of `assemble`.")
    ] = "world",
    out: Runs = RUNS,
) -> None:
    """Write the stages of an assembled base as finished runs, to go on from them.

    For example:

    - `ipse train base unpack world --out runs/base`, then `mv runs/base/denoiser runs/base/denoiser-start` and
      `ipse train base denoiser recipes/base/denoiser.yaml --data faces` train the U-Net on
    """
    with needs("train,generate"):
        from ipse.diffusion.training.assemble import unpack as write
    typer.echo(f"{out}: {', '.join(write(which, out))}")


@base.command()
def carry(
    data: Data,
    out: Annotated[Path, typer.Option(help="A new folder.")],
    judge: Annotated[bool, typer.Option("--judge", help="The people kept for judging instead of the base's.")] = False,
) -> None:
    """Write what training needs as files below 64 MiB, to train on another machine.

    For example:

    - `ipse train base carry --data faces --out carried`, and there
      `ipse train base vae recipes/base/gpu-vae.yaml --data carried`
    """
    with needs("train,generate"):
        from ipse.diffusion.training.data import carry as write
    files = write(data, out, judge=judge)
    typer.echo(f"{out}: {len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB")


def _train(
    stage: str,
    recipe: Path,
    data: list[Path],
    out: Path,
    resume: bool,
    steps: int | None,
    minutes: float | None,
    end: int | None,
    cache: Path | None,
) -> None:
    with needs("train,generate"):
        from ipse.diffusion.training import stages
        from ipse.diffusion.training.recipe import StageRecipe
        from ipse.training.loop import with_steps
    plan = StageRecipe.load(recipe)
    if plan.stage != stage:
        raise TrainingError(f"{recipe} is a recipe of the stage {plan.stage}.", f"Name one of the stage {stage}.")
    with progress(stage) as (on_pack, on_step):
        record: dict[str, Any] = stages.run(
            with_steps(plan, steps),
            data,
            out,
            resume=resume,
            minutes=minutes,
            end=end,
            cache=cache,
            on_pack=on_pack,
            on_step=on_step,
        )
    tell(record, out / stage / "weights")
