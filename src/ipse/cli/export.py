"""``ipse export``: trained networks for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ipse.errors import TrainingError


def export(
    weights: Annotated[Path, typer.Argument(metavar="FILE", help="A .safetensors file of `ipse train encoder`.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="As an ONNX file.")] = False,
    out: Annotated[Path | None, typer.Option(help="The file to write; by default beside FILE.")] = None,
    data: Annotated[Path | None, typer.Option(help="Compare on the pictures of this folder, too.")] = None,
    protocol: Annotated[str, typer.Option(help="By which mAP is measured on --data.")] = "all",
) -> None:
    """Write a trained network as ONNX, after a check that it gives what its weights give.

    Such as:

      ipse export runs/face-world/face-world.safetensors --onnx

      ipse export body-world.safetensors --onnx --data market1501/val --protocol market1501
    """
    if not onnx:
        raise TrainingError("There is one format to export to.", "Add --onnx.")
    try:
        from ipse.training.export import export_onnx
    except ImportError as error:
        raise TrainingError(
            f"Exporting needs {error.name}, which is not installed.", "pip install 'ipse[train]'"
        ) from error
    found = export_onnx(weights, out, data=data, protocol=protocol)
    for part, what in (("random", "noise"), ("data", "the pictures")):
        for name, difference in found.get(part, {}).items():
            typer.echo(f"{name}: largest difference on {what} {difference:.1e} of its largest value")
    if "map_drift" in found:
        typer.echo(f"mAP {found['map_torch']:.4f} by torch, {found['map_onnx']:.4f} by ONNX Runtime")
    typer.echo(f"{found['file']}: {found['bytes'] / 1e6:.2f} MB")
