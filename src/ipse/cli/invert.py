"""``ipse invert``: a picture as what a base would make it from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ipse.cli.picturing import STEPS, BaseName, Picture, open_base


def invert(
    picture: Picture,
    prompt: Annotated[str, typer.Option(help="What the picture shows.", show_default=False)],
    base: BaseName = "world",
    steps: Annotated[int, typer.Option(min=1, help="More lead back more exactly.")] = STEPS,
    method: Annotated[
        Literal["ddim", "edit-friendly"], typer.Option(help="The second keeps more of the picture in changes.")
    ] = "ddim",
    guidance: Annotated[float, typer.Option(help="How strictly the prompt is followed; 1 leads back best.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise of edit-friendly.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="The file to write; by default PICTURE's name with .safetensors.")
    ] = None,
    again: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Write the picture that is made from the file.")
    ] = None,
) -> None:
    """Find what a base would make a picture from, to change it by `ipse generate --from`.

    It tells how near the picture is that is made from the file with the same prompt, and how near the base's
    autoencoder alone comes to it, which is the most that can be.

    For example:

    - `ipse invert ada.png --prompt "A portrait of a woman." --out ada.safetensors --again again.png`

    - `ipse generate --from ada.safetensors --prompt "A portrait of a woman, wearing a brimmed hat."`
    """
    from ipse.images import read_image, save_png

    image = read_image(picture)
    loaded = open_base(base, prompt)

    from ipse.diffusion.inversion import invert_picture, psnr

    inversion = invert_picture(loaded, image, prompt, steps=steps, method=method, guidance=guidance, seed=seed)
    typer.echo(inversion.save(out or Path(f"{picture.stem}.safetensors")))
    made, fitted = inversion.generate(loaded), loaded.fit(image)
    if again is not None:
        typer.echo(save_png(made.image, again, loaded.provenance(made)))
    most = psnr(loaded.decode(loaded.encode(fitted)), fitted)
    typer.echo(f"PSNR {psnr(made.image, fitted):.2f} dB; by the autoencoder alone {most:.2f} dB")
