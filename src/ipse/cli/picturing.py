"""What the verbs that make pictures share: the base, its options, and PNGs that say what made them."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ipse.diffusion import Base, Generated

STEPS = 20
"""Steps of the scheduler where nobody says."""

BaseName = Annotated[str, typer.Option("--base", help="world, world-body, a folder of a diffusers pipeline, a hub id.")]
Picture = Annotated[Path, typer.Argument(metavar="PICTURE", help="A picture.", show_default=False)]
Guidance = Annotated[float | None, typer.Option(help="How strictly the prompt is followed.")]
Out = Annotated[Path, typer.Option(help="Folder of the pictures.")]


def open_base(which: str, prompt: str | None = None, sampler: str = "") -> Base:
    """Load a base, and name the words of a prompt that it does not know on the error stream."""
    from ipse.diffusion import load_base

    base = load_base(which, sampler=sampler)
    for word in base.unknown_words(prompt or ""):
        typer.echo(f"The base {base.name} does not know the word {word!r}.", err=True)
    return base


def write_pictures(base: Base, pictures: Iterable[Generated], out: Path, *names: str) -> list[Generated]:
    """Write each picture as it is ready, as a PNG that says what made it, and tell where it is.

    Parameters
    ----------
    base
        Which makes them.
    pictures
        At least one.
    out
        Folder.
    names
        Words that the files are called by, before the seed.

    Returns
    -------
    list
        The pictures.
    """
    from ipse.images import save_png

    words = "-".join(re.findall(r"\w+", " ".join(names).lower())) or "picture"
    # What is cut off still tells files apart.
    stem = words if len(words) <= 48 else f"{words[:41].rstrip('-')}-{hashlib.sha256(words.encode()).hexdigest()[:6]}"
    began, made = time.perf_counter(), []
    for picture in pictures:
        typer.echo(save_png(picture.image, out / f"{stem}-{picture.seed}.png", base.provenance(picture)))
        made.append(picture)
    typer.echo(f"{(time.perf_counter() - began) / len(made):.1f} s per picture", err=True)
    return made
