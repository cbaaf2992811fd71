"""``ipse adapter``: files of identity adapters."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from ipse.errors import WeightsError

if TYPE_CHECKING:
    from ipse.diffusion.layouts import Inspection

adapter = typer.Typer(no_args_is_help=True, help="Look into files of identity adapters, and write them anew.")

File = Annotated[Path, typer.Argument(metavar="FILE", help="A .safetensors, .bin or .pt file of an adapter.")]
LayoutName = Annotated[
    str | None, typer.Option(help="Take the file for this layout, such as ip-adapter-faceid-plusv2.")
]


def _layouts() -> ModuleType:
    try:
        from ipse.diffusion import layouts
    except ImportError as error:
        raise WeightsError(
            f"Adapters need {error.name}, which is not installed.", "pip install 'ipse[generate]'"
        ) from error
    return layouts


@adapter.command()
def inspect(
    file: File,
    layout: LayoutName = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Name the format and the base of an adapter, and list what is missing, extra or of another shape.

    The exit code is 0 if everything is there and nothing else, and 3 otherwise. Such as:

      ipse adapter inspect ip-adapter-faceid_sd15.bin
    """
    found = _layouts().inspect(file, layout=layout)
    typer.echo(json.dumps(_record(found), indent=2) if as_json else _text(found))
    if not found.complete:
        raise typer.Exit(3)


@adapter.command()
def convert(
    file: File,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write; its ending says how.")],
    layout: LayoutName = None,
    to: Annotated[str | None, typer.Option(help="The layout to write; by default that of FILE.")] = None,
) -> None:
    """Write an adapter anew: as safetensors or for torch.load, from a training checkpoint, in another layout.

    Such as:

      ipse adapter convert checkpoint-20000/pytorch_model.bin ip-adapter.safetensors

      ipse adapter convert instantid/ip-adapter.bin plus.safetensors --to ip-adapter-plus
    """
    found = _layouts().convert(file, out, layout=layout, to=to)
    typer.echo(f"{out}: {found.layout.title} for {found.base.title}, {found.used} keys")


def _record(found: Inspection) -> dict[str, object]:
    return {
        "layout": found.layout.name,
        "title": found.layout.title,
        "base": found.base.name,
        "base_title": found.base.title,
        "takes": found.layout.encoder,
        "encoder": found.encoder,
        "complete": found.complete,
        "used": found.used,
        "missing": found.missing,
        "extra": found.extra,
        "shapes": [{"key": key, "found": shape, "expected": wanted} for key, shape, wanted in found.shapes],
        "left_out": found.left_out,
    }


def _text(found: Inspection) -> str:
    lines = [
        f"layout   {found.layout.title} ({found.layout.name})",
        f"base     {found.base.title}",
        f"takes    {found.layout.encoder}",
    ]
    if found.encoder is not None:
        lines.append(f"encoder  {found.encoder[0]} ({found.encoder[1][:12]})")
    lines += [f"missing  {key}" for key in found.missing]
    lines += [f"extra    {key}" for key in found.extra]
    lines += [f"shape    {key} is {shape} where {wanted} is expected" for key, shape, wanted in found.shapes]
    if found.left_out:
        lines.append(f"not used {len(found.left_out)} keys that the adapter does not need, such as {found.left_out[0]}")
    lines.append(f"keys     all {found.used} keys fit" if found.complete else f"keys     {found.used} keys fit")
    return "\n".join(lines)
