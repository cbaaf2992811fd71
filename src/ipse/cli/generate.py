"""``ipse generate``: pictures from words, and of people by their photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ipse.cli.picturing import STEPS, BaseName, Guidance, Out, open_base, write_pictures
from ipse.cli.recognizing import DEFAULT_GALLERY, GalleryPath, KeyFile, ReportPath, wrote
from ipse.errors import IpseError

METHOD = "face-adapter"
"""Which method shows people where nobody says."""


def generate(
    prompt: Annotated[str, typer.Option(help="What the pictures show.", show_default=False)],
    base: BaseName = "world",
    n: Annotated[int | None, typer.Option("-n", "--n", min=1, help="How many pictures; by default 4.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the first, by default 0; each has the next.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help=f"More are slower and finer; by default {STEPS}.")] = None,
    guidance: Guidance = None,
    sampler: Annotated[
        str | None, typer.Option(help="How steps are gone through: ddim, or dpm, which needs fewer.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Made at a time; by default 1, or 8 on a GPU.")] = None,
    start: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Change the picture that `ipse invert` read.")
    ] = None,
    who: Annotated[
        list[str] | None,
        typer.Option(
            help="Whom to show: a photograph, several joined by commas, a folder of them, or a name in the gallery. "
            "Again for another person."
        ),
    ] = None,
    method: Annotated[str | None, typer.Option(help=f"With --who: how; by default {METHOD}.")] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="With --who: the method's trained part; by default that which comes with ipse.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="With --who: of faces; by default the one that the adapter was trained with.")
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="How much the person counts, or with --from may change; by default 1."),
    ] = None,
    gallery: GalleryPath = DEFAULT_GALLERY,
    key_file: KeyFile = None,
    report: ReportPath = None,
    out: Out = Path("out"),
) -> None:
    """Make pictures by a text-to-image base.

    Every PNG says by which prompt, seed and weights it was made. The same seed gives the same picture, however many
    are made.

    With --who they show somebody: the words for each person stand in braces. Who is enrolled in the gallery is shown
    only if they allow it (`ipse enroll … --allow generate`).

    For example:

    - `ipse generate --prompt "A portrait of a smiling woman with red hair."`

    - `ipse generate --prompt "A headshot of an old man, wearing a brimmed hat." -n 1 --seed 7 --steps 40`

    - `ipse generate --prompt "A portrait of a man." --sampler dpm --steps 10`

    - `ipse generate --who ada.jpg --prompt "A portrait of {a woman}, smiling." --method instantid --strength 0.8`

    - `ipse generate --who Ada --prompt "A portrait of {a woman}, wearing a brimmed hat." --report ada.html`

    - `ipse generate --from ada.safetensors --prompt "A portrait of a woman, wearing a brimmed hat."`
    """
    _check(
        start,
        who,
        strength,
        {"-n": n, "--seed": seed, "--steps": steps, "--batch": batch, "--sampler": sampler},
        {"--method": method, "--adapter": adapter, "--encoder": encoder, "--report": report},
    )
    share = 1.0 if strength is None else strength
    if who:
        from ipse.cli.who import fitted, resolve, with_consent, write_page
        from ipse.personalize import open_method

        people = [resolve(one, gallery, key_file) for one in who]
        loaded = open_base(base, prompt)
        opened = open_method(
            method or METHOD, loaded, adapter=adapter, encoder=encoder, steps=steps or STEPS, guidance=guidance
        )
        made = with_consent(fitted(opened, people).generate(prompt, n or 4, seed or 0, share), people)
        pictures = write_pictures(loaded, made, out, opened.name, prompt)
        if report:
            write_page(report, people, pictures, prompt)
            typer.echo(wrote(report), err=True)
        return
    loaded = open_base(base, prompt, sampler or "")
    if start is None:
        write_pictures(loaded, loaded.generate(prompt, n or 4, seed or 0, steps or STEPS, guidance, batch), out, prompt)
        return

    from ipse.diffusion.inversion import Inversion

    inversion = Inversion.load(start)
    picture = inversion.generate(loaded, prompt, guidance=guidance, strength=share)
    write_pictures(loaded, [picture], out, start.stem, prompt)


def _check(
    start: Path | None,
    who: list[str] | None,
    strength: float | None,
    making: dict[str, object],
    showing: dict[str, object],
) -> None:
    """Options that need others, and those that do not go together."""
    if start is not None and who:
        raise IpseError(f"{start} is a picture already.", "Drop --from, or --who.")
    if start is None and not who and strength is not None:
        raise IpseError("There is nothing to change.", "Name somebody by --who, or a file of `ipse invert` by --from.")
    if start is not None and (said := [option for option, value in making.items() if value is not None]):
        raise IpseError(f"{start} is one picture and says how it is made.", f"Drop {' and '.join(said)}.")
    if who and making["--batch"] is not None:
        raise IpseError("Pictures of people are made one after another.", "Drop --batch.")
    if who and making["--sampler"] is not None:
        raise IpseError("Pictures of people are made by DDIM.", "Drop --sampler.")
    if not who and (said := [option for option, value in showing.items() if value is not None]):
        raise IpseError(f"{' and '.join(said)} needs somebody to show.", "Name them by --who.")
