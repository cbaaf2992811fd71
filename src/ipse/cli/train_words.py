"""``ipse train words``: pictures of people and English words in one space."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ipse.cli.recognizing import progress
from ipse.cli.training import needs


def words(
    data: Annotated[Path, typer.Argument(help="What `ipse world dataset` wrote, with captions.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/words"),
    steps: Annotated[int | None, typer.Option(min=1, help="In place of the plan's.")] = None,
    start: Annotated[str | None, typer.Option(help="The network to begin with; by default body-world.")] = None,
) -> None:
    """Train the network that `ipse find --text` searches by. A run that was stopped goes on by the same command.

    For example:

    - `ipse world dataset recipes/world/bodies.yaml --out bodies`, then `ipse train words bodies`
    """
    with needs():
        from ipse.training.plip import Plan, fit_words, read_described
    plan = Plan()
    plan = replace(plan, steps=steps or plan.steps, start=plan.start if start is None else start)
    with progress("Reading pictures") as tell:
        described = read_described(data, tuple(plan.network["size"]), progress=tell)
    with progress("Training") as tell:
        weights = fit_words(described, out, plan, lambda done, total, loss: tell(done, total))
    typer.echo(f'{weights}: {weights.stat().st_size / 1e6:.1f} MB. ipse find --text "a man in a red coat" PHOTOS')
