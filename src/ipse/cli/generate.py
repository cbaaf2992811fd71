"""``ipse generate``: pictures from words."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated

import typer


def generate(
    prompt: Annotated[str, typer.Option(help="What the pictures show.", show_default=False)],
    base: Annotated[str, typer.Option(help="world, a folder of a diffusers pipeline, or a hub id.")] = "world",
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="How many pictures.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of the first; each has the next.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="More are slower and finer.")] = 20,
    guidance: Annotated[float | None, typer.Option(help="How strictly the prompt is followed.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Made at a time; by default 1, or 8 on a GPU.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("out"),
) -> None:
    """Make pictures by a text-to-image base.

    Every PNG says by which prompt, seed and weights it was made. The same seed gives the same picture, however many
    are made.

    For example:

    - `ipse generate --prompt "A portrait of a smiling woman with red hair."`

    - `ipse generate --prompt "A headshot of an old man, wearing a hat." -n 1 --seed 7 --steps 40`
    """
    from ipse.diffusion.base import load_base
    from ipse.images import save_png

    loaded = load_base(base)
    for word in loaded.unknown_words(prompt):
        typer.echo(f"The base {loaded.name} does not know the word {word!r}.", err=True)
    stem = "-".join(re.findall(r"\w+", prompt.lower()))[:48].rstrip("-") or "picture"
    began = time.perf_counter()
    for picture in loaded.generate(prompt, n, seed, steps, guidance, batch):
        path = save_png(picture.image, out / f"{stem}-{picture.seed}.png", loaded.provenance(picture))
        typer.echo(path)
    typer.echo(f"{(time.perf_counter() - began) / n:.1f} s per picture", err=True)
