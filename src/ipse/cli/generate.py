"""``ipse generate``: pictures from words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ipse.cli.picturing import STEPS, BaseName, Guidance, Out, open_base, write_pictures
from ipse.errors import IpseError


def generate(
    prompt: Annotated[str, typer.Option(help="What the pictures show.", show_default=False)],
    base: BaseName = "world",
    n: Annotated[int | None, typer.Option("-n", "--n", min=1, help="How many pictures; by default 4.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the first, by default 0; each has the next.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help=f"More are slower and finer; by default {STEPS}.")] = None,
    guidance: Guidance = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Made at a time; by default 1, or 8 on a GPU.")] = None,
    start: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Change the picture that `ipse invert` read.")
    ] = None,
    strength: Annotated[
        float | None, typer.Option(min=0, max=1, help="With --from: how much may change; by default 1.")
    ] = None,
    out: Out = Path("out"),
) -> None:
    """Make pictures by a text-to-image base.

    Every PNG says by which prompt, seed and weights it was made. The same seed gives the same picture, however many
    are made.

    For example:

    - `ipse generate --prompt "A portrait of a smiling woman with red hair."`

    - `ipse generate --prompt "A headshot of an old man, wearing a hat." -n 1 --seed 7 --steps 40`

    - `ipse generate --from ada.safetensors --prompt "A portrait of a woman, wearing a hat."`
    """
    given = {"-n": n, "--seed": seed, "--steps": steps, "--batch": batch}
    if start is None and strength is not None:
        raise IpseError("There is nothing to change.", "Name a file of `ipse invert` by --from, or drop --strength.")
    if start is not None and (said := [option for option, value in given.items() if value is not None]):
        raise IpseError(f"{start} is one picture and says how it is made.", f"Drop {' and '.join(said)}.")
    loaded = open_base(base, prompt)
    if start is None:
        pictures = loaded.generate(prompt, n or 4, seed or 0, steps or STEPS, guidance, batch)
        write_pictures(loaded, pictures, out, prompt)
        return

    from ipse.diffusion.inversion import Inversion

    inversion = Inversion.load(start)
    picture = inversion.generate(loaded, prompt, guidance=guidance, strength=1.0 if strength is None else strength)
    write_pictures(loaded, [picture], out, start.stem, prompt)
