"""Networks that were trained here and come with ipse, each in four files of one folder.

``NAME.safetensors``
    The weights, stored once.
``NAME.safetensors.json``
    Their contract; see `ipse.encoders.trained`.
``NAME.onnx``
    The computation for ONNX Runtime, whose weights are places in the safetensors file ("external data" of ONNX).
``NAME.json``
    How it was trained and checked, and the sha256 of the other three.

`ipse.training.ship` writes them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ipse.errors import WeightsError

FORMAT = "ipse.shipped/1"

SHIPPED = Path(__file__).parent / "shipped"
"""The folder of those that come with ipse."""

PARTS = ("safetensors", "safetensors.json", "onnx")
"""What is after the name in the files whose checksums are kept."""


@dataclass(frozen=True)
class ShippedFiles:
    """The files of one network, all of them as they were written.

    Attributes
    ----------
    name
        Of the network.
    weights, graph
        The safetensors file and the ONNX file.
    contract
        What the contract says, JSON values.
    record
        How the network was trained and checked, JSON values.
    """

    name: str
    weights: Path
    graph: Path
    contract: dict[str, Any] = field(repr=False)
    record: dict[str, Any] = field(repr=False)


def shipped_names() -> tuple[str, ...]:
    """Networks that are in this build, in the order of the alphabet."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.onnx")))


def shipped_files(which: str | Path) -> ShippedFiles:
    """Find a network and check its files.

    Parameters
    ----------
    which
        A name, or the path of an ONNX file that `ipse.training.ship` wrote elsewhere.

    Raises
    ------
    WeightsError
        If there is none of that name, or one of its files is missing, damaged or from another network.
    """
    graph = Path(which) if Path(which).suffix == ".onnx" else SHIPPED / f"{which}.onnx"
    name, folder = graph.stem, graph.parent
    if not graph.is_file():
        if folder != SHIPPED:
            raise WeightsError(f"There is no network {graph}.", "Name an ONNX file that ipse.training.ship wrote.")
        there = ", ".join(shipped_names()) or "none yet"
        raise WeightsError(
            f"The network {name} is not in this build of ipse.",
            f"In it: {there}. Train it by its recipe (docs/train.md), or give the path of its ONNX file.",
        )
    try:
        record = json.loads((folder / f"{name}.json").read_bytes())
        if record["format"] != FORMAT:
            raise ValueError(f"its format is {record['format']}")
        for part in PARTS:
            file = f"{name}.{part}"
            if hashlib.sha256((folder / file).read_bytes()).hexdigest() != record["sha256"][file]:
                raise ValueError(f"{file} has another checksum than it was written with")
        contract = json.loads((folder / f"{name}.safetensors.json").read_bytes())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"The files of the network {name} in {folder} do not belong together: {error!s:.300}.",
            "They are cut short, damaged or of different versions: install ipse again, or copy all four together.",
        ) from error
    return ShippedFiles(name, folder / f"{name}.safetensors", graph, contract, record)
