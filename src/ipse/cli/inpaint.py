"""``ipse inpaint``: a part of a picture made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ipse.cli.picturing import STEPS, BaseName, Guidance, Out, Picture, open_base, write_pictures
from ipse.cli.recognizing import DEFAULT_GALLERY, GalleryPath, KeyFile
from ipse.errors import IpseError

METHOD = "facechain-fact"
"""Which method paints people where nobody says: it was made for it."""


def inpaint(
    picture: Picture,
    prompt: Annotated[str, typer.Option(help="What the whole picture shows then.", show_default=False)],
    mask: Annotated[Path | None, typer.Option(help="A picture of the same size: white is painted.")] = None,
    region: Annotated[
        str | None, typer.Option(help="In place of a mask: parts of the faces, such as hair,hat.")
    ] = None,
    base: BaseName = "world",
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="How many pictures.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the first; each has the next.")] = 0,
    steps: Annotated[int, typer.Option(min=1, help="More are slower and finer.")] = STEPS,
    guidance: Guidance = None,
    who: Annotated[
        str | None,
        typer.Option(help="Whom to paint: a photograph, several joined by commas, a folder, or a name in the gallery."),
    ] = None,
    method: Annotated[str | None, typer.Option(help=f"With --who: how; by default {METHOD}.")] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="With --who: the method's trained part; by default that which comes with ipse.")
    ] = None,
    strength: Annotated[
        float | None, typer.Option(min=0, max=1, help="With --who: how much the person counts; by default 1.")
    ] = None,
    gallery: GalleryPath = DEFAULT_GALLERY,
    key_file: KeyFile = None,
    out: Out = Path("out"),
) -> None:
    """Paint a part of a picture anew; everything else stays as it is, to the pixel.

    With --who it paints somebody: the words for the person stand in braces. Who is enrolled in the gallery is painted
    only if they allow it, as by `ipse generate`.

    Every PNG says by which prompt, seed, weights, picture and mask it was made.

    For example:

    - `ipse inpaint ada.png --region hair --prompt "A portrait of a woman with red hair." -n 4`

    - `ipse inpaint ada.png --mask mask.png --prompt "A portrait of a woman, wearing a brimmed hat."`

    - `ipse inpaint group.png --mask mask.png --who ben.jpg --prompt "A portrait of {a man}, smiling."`
    """
    from ipse.images import read_image

    if (mask is None) == (region is None):
        raise IpseError("What shall be painted?", "Give either --mask or --region.")
    given = {"--method": method, "--adapter": adapter, "--strength": strength}
    if who is None and (said := [option for option, value in given.items() if value is not None]):
        raise IpseError(f"{' and '.join(said)} needs somebody to paint.", "Name them by --who.")
    image = read_image(picture)
    loaded = open_base(base, prompt)

    from ipse.diffusion.inpainting import inpaint as paint
    from ipse.diffusion.inpainting import read_mask, region_mask

    where = read_mask(mask) if mask else region_mask(image, [part.strip() for part in region.split(",")])
    if who is None:
        pictures = paint(loaded, image, where, prompt, n, seed, steps, guidance)
    else:
        from ipse.cli.who import fitted, resolve, with_consent
        from ipse.personalize import open_method

        person = resolve(who, gallery, key_file)
        told = fitted(open_method(method or METHOD, loaded, adapter=adapter, steps=steps, guidance=guidance), [person])
        if not hasattr(told, "inpaint"):
            raise IpseError(f"The method {method} does not paint within a mask.", f"Use another, such as {METHOD}.")
        made = told.inpaint(image, where, prompt, n, seed, 1.0 if strength is None else strength)
        pictures = with_consent(made, [person])
    write_pictures(loaded, pictures, out, picture.stem, prompt)
