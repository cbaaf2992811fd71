"""``ipse train adapter``: what puts a person into a base; ``ipse train base people``: what makes a base hear it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ipse.cli import train_base
from ipse.cli.train_base import RUNS, Cache, Data, End, Minutes, Resume, Runs, Steps
from ipse.cli.training import needs, progress, tell


def adapter(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="See recipes/adapters/.", show_default=False)],
    data: Data,
    base: Annotated[str, typer.Option(help="world, or the folder of a base that ipse trained.")] = "world",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; by default runs/ and the recipe's name.", show_default=False)
    ] = None,
    resume: Resume = False,
    steps: Steps = None,
    minutes: Minutes = None,
    end: End = None,
    cache: Cache = None,
) -> None:
    """Train the adapter of a system on a base that stands still.

    Faces are looked at once and what was seen is kept with the decoded pictures. A run that was stopped goes on exactly
    where its last checkpoint was: the same command with --resume.

    For example:

    - `ipse train adapter recipes/adapters/face-adapter.yaml --data faces --base world-base`

    - `ipse train adapter recipes/adapters/instantid.yaml --data faces --minutes 55`, then the same with `--resume`
    """
    _train(recipe, data, base, out or Path("runs") / recipe.stem, resume, steps, minutes, end, cache)


@train_base.base.command()
def people(
    recipe: train_base.Recipe,
    data: Data,
    base: Annotated[
        str, typer.Option(help="`world`, or the folder that `assemble` made of the other stages.", show_default=False)
    ],
    out: Runs = RUNS,
    resume: Resume = False,
    steps: Steps = None,
    minutes: Minutes = None,
    end: End = None,
    cache: Cache = None,
) -> None:
    """Train the U-Net of an assembled base on, to follow an adapter that tells whom to show; the adapter is not kept.

    Assemble the stages again afterwards: the U-Net of this one then takes the place of the denoiser's.

    For example:

    - `ipse train base people recipes/base/people.yaml --base world-base --data faces`, then
      `ipse train base assemble world-base-people`
    """
    _train(recipe, data, base, out / "people", resume, steps, minutes, end, cache, people=True)


def _train(
    recipe: Path,
    data: list[Path],
    base: str,
    folder: Path,
    resume: bool,
    steps: int | None,
    minutes: float | None,
    end: int | None,
    cache: Path | None,
    people: bool = False,
) -> None:
    with needs("train,generate"):
        from ipse.diffusion import load_base
        from ipse.personalize.people import PeopleStage
        from ipse.personalize.training import AdapterRecipe, AdapterStage, train_adapter
        from ipse.training.loop import with_steps
    plan = with_steps(AdapterRecipe.load(recipe), steps)
    with progress("people" if people else plan.stage) as (on_pack, on_step):
        record = train_adapter(
            plan,
            load_base(base),
            data,
            folder,
            resume=resume,
            minutes=minutes,
            end=end,
            cache=cache,
            on_pack=on_pack,
            on_look=on_pack,
            on_step=on_step,
            stage=PeopleStage if people else AdapterStage,
        )
    tell(record, folder / ("weights" if people else f"{plan.stage}.safetensors"))
