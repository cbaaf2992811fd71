"""Trained networks as ONNX files, each compared with what it was made from before it is kept."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ipse._files import atomic_write
from ipse.encoders.contract import ChipSpec
from ipse.encoders.trained import contract_path
from ipse.errors import DataError, TrainingError
from ipse.measure.distances import Features
from ipse.measure.retrieval import evaluate
from ipse.training.data import Chips, Cut, pack
from ipse.training.networks import load_network
from ipse.zoo import Network
from ipse.zoo.cache import cache_dir

#: The largest difference that is taken for rounding, as a share of the largest output.
TOLERANCE = 1e-3

_BATCH = 32


class Outputs(nn.Module):
    """Outputs by name as a tuple, the only form that ONNX has."""

    def __init__(self, network: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What the network tells, in the order of the names."""
        told = self.network(pixels)
        return tuple(told[name] for name in self.names) if isinstance(told, dict) else (told,)


def export_onnx(
    weights: str | Path,
    out: str | Path | None = None,
    *,
    data: str | Path | None = None,
    protocol: str = "all",
    cut: str = "",
    cache: str | Path | None = None,
) -> dict[str, Any]:
    """Write a network as ONNX: ``pixels`` (N, 3, height, width) normalized float32 to its outputs by name.

    Parameters
    ----------
    weights
        A file that `ipse train encoder` wrote.
    out
        The ONNX file; None for one beside the weights. Its contract is written beside it.
    data
        A folder of pictures to compare on as well; see `ipse.training.data.rows_of`.
    protocol
        For an encoder: what retrieval among these pictures is measured by, a name of `ipse.measure.protocols`.
    cut
        How these pictures are cut; by default as the network's chip says.
    cache
        Folder of packed data; None for ipse's cache.

    Returns
    -------
    dict
        ``file``, ``bytes``; ``random`` and, with data, ``data``: the largest difference of each output over its
        largest value; with data and an encoder ``map_torch``, ``map_onnx`` and ``map_drift``.

    Raises
    ------
    TrainingError
        If the export needs a package, the network cannot be exported, or the outputs differ; then no file is left.
    WeightsError, DataError
        If weights or data cannot be read.
    """
    weights = Path(weights)
    network, contract = load_network(weights)
    chip, names = contract["chip"], list(contract["outputs"])
    module = Outputs(network, names).eval()
    content = to_onnx(module, chip, names)
    session = Network(content, contract["name"])
    parity: dict[str, Any] = {"random": random_parity(module, session, chip, names)}
    if data is not None:
        kind = cut or chip.template or "whole"
        chips = pack(data, Cut(kind, (chip.height, chip.width)), Path(cache) if cache else cache_dir() / "packs")
        parity |= _on_data(module, session, contract, chips, protocol)
        _refuse_drift(parity["data"])
    target = Path(out) if out is not None else weights.with_suffix(".onnx")
    told = {key: value for key, value in contract.items() if key not in ("sha256", "network", "format")}
    told |= {"chip": asdict(chip), "sha256": hashlib.sha256(content).hexdigest(), "source_sha256": contract["sha256"]}
    told["parity"] = parity
    try:
        for path, written in ((target, content), (contract_path(target), json.dumps(told, indent=2).encode() + b"\n")):
            with atomic_write(path) as file:
                file.write(written)
    except OSError as error:
        raise DataError(f"{target} cannot be written: {error.strerror or error}.", "Name another file.") from error
    return {"file": str(target), "bytes": len(content), **parity}


def random_parity(module: nn.Module, session: Network, chip: ChipSpec, names: list[str]) -> dict[str, float]:
    """The largest difference of each output on noise, over its largest value.

    Raises
    ------
    TrainingError
        If one is more than rounding.
    """
    draw = np.random.default_rng(0)
    worst: dict[str, float] = {}
    for count in (1, 3, 8):
        pixels = draw.normal(size=(count, 3, chip.height, chip.width)).astype(np.float32)
        _compare(worst, _by_torch(module, names, pixels), session.run({"pixels": pixels}))
    _refuse_drift(worst)
    return worst


def _refuse_drift(differences: Mapping[str, float]) -> None:
    for name, difference in differences.items():
        if not difference <= TOLERANCE:
            raise TrainingError(
                f"The exported network differs from its weights: {name} by {difference:.2g} of its largest value.",
                "Nothing was written. Please report the recipe.",
            )


def to_onnx(module: nn.Module, chip: ChipSpec, names: list[str], *, weights_as_stored: bool = False) -> bytes:
    """A network as ONNX.

    Parameters
    ----------
    module
        `Outputs` of the network.
    chip
        Its input.
    names
        Of its outputs.
    weights_as_stored
        Keep every weight as it is, under its name in the module's state; otherwise norms are folded into filters.

    Raises
    ------
    TrainingError
        If the package onnx is missing, or the network cannot be exported.
    """
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise TrainingError("Exporting needs the package onnx.", "pip install onnx") from error
    file, modes = io.BytesIO(), torch.onnx.TrainingMode
    try:
        with warnings.catch_warnings():
            # That torch has a newer exporter: it takes minutes for networks of many small layers, and needs onnxscript.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (torch.zeros(2, 3, chip.height, chip.width),),
                file,
                dynamo=False,
                opset_version=17,
                input_names=["pixels"],
                output_names=names,
                dynamic_axes={name: {0: "n"} for name in ("pixels", *names)},
                # The mode of training is that of the module, which is to evaluate: what the exporter's own mode of
                # evaluation adds to it is the folding.
                training=modes.PRESERVE if weights_as_stored else modes.EVAL,
                do_constant_folding=not weights_as_stored,
            )
    except Exception as error:  # the exporter has many
        raise TrainingError(f"The network cannot be exported: {str(error).splitlines()[0]:.300}.") from error
    return file.getvalue()


def _by_torch(module: nn.Module, names: list[str], pixels: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
    with torch.inference_mode():
        return dict(zip(names, (value.numpy() for value in module(torch.from_numpy(pixels))), strict=True))


def _compare(worst: dict[str, float], ours: dict[str, npt.NDArray[Any]], theirs: dict[str, npt.NDArray[Any]]) -> None:
    for name, value in ours.items():
        scale = max(float(np.abs(value).max()), 1e-6)
        worst[name] = max(worst.get(name, 0.0), float(np.abs(value - theirs[name]).max()) / scale)


def _on_data(
    module: nn.Module, session: Network, contract: dict[str, Any], chips: Chips, protocol: str
) -> dict[str, Any]:
    names, chip = list(contract["outputs"]), contract["chip"]
    worst: dict[str, float] = {}
    embeddings: tuple[list[npt.NDArray[Any]], list[npt.NDArray[Any]]] = ([], [])
    for start in range(0, len(chips), _BATCH):
        images = chips.images(np.arange(start, min(start + _BATCH, len(chips))))
        pixels = chip.pixels(images)
        both = _by_torch(module, names, pixels), session.run({"pixels": pixels})
        _compare(worst, *both)
        for kept, told in zip(embeddings, both, strict=True):
            kept.append(told[names[0]])
    found: dict[str, Any] = {"data": worst}
    if contract["task"] != "identity":
        return found
    columns = {name: values for name, values in chips.columns.items() if values.ndim == 1}
    columns.setdefault("shot", np.arange(len(chips)))
    scores = []
    for kept in embeddings:
        features = np.concatenate(kept)
        scores.append(evaluate(Features(features, features), columns, columns, protocol).mean_ap())
    found |= {"map_torch": scores[0], "map_onnx": scores[1], "map_drift": abs(scores[0] - scores[1])}
    return found
