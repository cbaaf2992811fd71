"""``ipse train adapter``: what puts a person into a base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ipse.cli.train_base import Cache, Data, End, Minutes, Resume, Steps
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
    with needs("train,generate"):
        from ipse.diffusion import load_base
        from ipse.personalize.training import AdapterRecipe, train_adapter
        from ipse.training.loop import with_steps
    plan = with_steps(AdapterRecipe.load(recipe), steps)
    folder = out or Path("runs") / recipe.stem
    with progress(plan.stage) as (on_pack, on_step):
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
        )
    tell(record, folder / f"{plan.stage}.safetensors")
