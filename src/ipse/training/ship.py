"""Putting trained networks into the package: ``ipse train ship runs/face-world``.

The weights are stored once. The ONNX file beside them has the computation alone and reads its weights out of the
safetensors file, where those in half precision are cast to single; see `ipse.zoo.shipped_files`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ipse._files import atomic_write
from ipse.encoders.trained import contract_path
from ipse.errors import DataError, TrainingError
from ipse.training.export import Outputs, random_parity, to_onnx
from ipse.training.networks import load_network
from ipse.zoo import Network
from ipse.zoo.shipped_files import FORMAT, PARTS, SHIPPED

#: The most that the files of one network may take together, bytes.
LARGEST = 4_000_000

# What `Outputs` puts before the names of the network's own weights.
_PREFIX = "network."


def ship(run: str | Path, to: str | Path = SHIPPED, *, threshold: float | None = None) -> dict[str, Any]:
    """Write the files of a finished run that users need.

    Parameters
    ----------
    run
        The folder that ``ipse train encoder`` wrote.
    to
        Where to.
    threshold
        For an encoder: the distance up to which two of its embeddings are taken for one person, where that has been
        measured.

    Returns
    -------
    dict
        What ``NAME.json`` holds: the training's record, the differences between torch and ONNX Runtime, checksums.

    Raises
    ------
    DataError
        If the folder holds no finished run, or `to` cannot be written.
    TrainingError
        If the network is too large, or ONNX Runtime gives something else than torch; then nothing is written.
    WeightsError
        If the run's weights are damaged.
    """
    run = Path(run)
    try:
        record = json.loads((run / "record.json").read_bytes())
        name, cut = record["name"], record["recipe"]["cut"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{run} holds no finished training ({error!r}).", "It has a record.json.") from error
    weights = run / f"{name}.safetensors"
    network, contract = load_network(weights)
    chip, names = contract["chip"], list(contract["outputs"])
    module = Outputs(network, names).eval()
    told = json.loads(contract_path(weights).read_bytes()) | {"cut": cut}
    if contract["task"] == "identity":
        told["threshold"] = threshold
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder)
        shutil.copyfile(weights, part / weights.name)
        contract_path(part / weights.name).write_text(json.dumps(told, indent=2) + "\n")
        graph = part / f"{name}.onnx"
        graph.write_bytes(_pointing_at(to_onnx(module, chip, names, weights_as_stored=True), weights))
        parity = random_parity(module, Network(graph, name, weights=part / weights.name), chip, names)
        content = {f"{name}.{kind}": (part / f"{name}.{kind}").read_bytes() for kind in PARTS}
    size = sum(map(len, content.values()))
    if size > LARGEST:
        raise TrainingError(
            f"The network {name} takes {size / 1e6:.2f} MB; {LARGEST / 1e6:.0f} MB are the most that is shipped.",
            "Train a smaller one.",
        )
    sums = {file: hashlib.sha256(data).hexdigest() for file, data in content.items()}
    shipped = {"format": FORMAT, "name": name, "sha256": sums, "bytes": size, "parity": parity, "training": record}
    content[f"{name}.json"] = json.dumps(shipped, indent=2).encode() + b"\n"
    try:
        for file, data in content.items():
            with atomic_write(Path(to) / file) as out:
                out.write(data)
    except OSError as error:
        raise DataError(f"{to} cannot be written: {error.strerror or error}.", "Name another folder.") from error
    return shipped


def _pointing_at(model: bytes, weights: Path) -> bytes:
    """The model with every weight that is in a safetensors file replaced by its place there."""
    import onnx

    head, start = _header(weights)
    graph = onnx.load_from_string(model)
    casts = []
    for tensor in graph.graph.initializer:
        entry = head.get(tensor.name.removeprefix(_PREFIX))
        if entry is None:
            continue
        tensor.ClearField("raw_data")
        if entry["shape"] != list(tensor.dims) or tensor.data_type != onnx.TensorProto.FLOAT:
            raise TrainingError(f"The weight {tensor.name} was changed by the exporter.", "Please report the recipe.")
        if entry["dtype"] == "F16":
            full, tensor.name = tensor.name, f"{tensor.name}.half"
            tensor.data_type = onnx.TensorProto.FLOAT16
            casts.append(onnx.helper.make_node("Cast", [tensor.name], [full], to=onnx.TensorProto.FLOAT))
        first, last = entry["data_offsets"]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", weights.name), ("offset", start + first), ("length", last - first)):
            tensor.external_data.add(key=key, value=str(value))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return graph.SerializeToString(deterministic=True)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """What a safetensors file holds, and where its data begin (8 bytes of length, then JSON, then the data)."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length)), 8 + length
