"""``ipse inpaint``: a part of a picture made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ipse.cli.picturing import STEPS, BaseName, Guidance, Out, Picture, open_base, write_pictures
from ipse.errors import IpseError


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
    out: Out = Path("out"),
) -> None:
    """Paint a part of a picture anew; everything else stays as it is, to the pixel.

    Every PNG says by which prompt, seed, weights, picture and mask it was made.

    For example:

    - `ipse inpaint ada.png --region hair --prompt "A portrait of a woman with red hair." -n 4`

    - `ipse inpaint ada.png --mask mask.png --prompt "A portrait of a woman, wearing a hat."`
    """
    from ipse.images import read_image

    if (mask is None) == (region is None):
        raise IpseError("What shall be painted?", "Give either --mask or --region.")
    image = read_image(picture)
    loaded = open_base(base, prompt)

    from ipse.diffusion.inpainting import inpaint as paint
    from ipse.diffusion.inpainting import read_mask, region_mask

    where = read_mask(mask) if mask else region_mask(image, [part.strip() for part in region.split(",")])
    pictures = paint(loaded, image, where, prompt, n, seed, steps, guidance)
    write_pictures(loaded, pictures, out, picture.stem, prompt)
