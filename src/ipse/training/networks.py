"""Networks that were trained here, of any task, ready to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from ipse.encoders.backbones import backbone
from ipse.encoders.trained import read_network


def load_network(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """A network in evaluation mode, and its contract.

    Raises
    ------
    WeightsError
        As `ipse.encoders.trained.read_network`.
    """
    tensors, contract = read_network(path)
    network = _build(contract)
    network.load_state_dict(tensors)
    return network.eval(), contract


def _build(contract: dict[str, Any]) -> nn.Module:
    options = dict(contract["network"])
    if contract["task"] == "landmarks":
        from ipse.training.tasks.landmarks import LandmarkNetwork

        return LandmarkNetwork(**options)
    layers = options.pop("layers", 2) if contract["task"] == "proton" else 0
    trunk = backbone(options.pop("backbone"), **options)
    if contract["task"] == "identity":
        return trunk
    if contract["task"] == "proton":
        from ipse.training.tasks.proton import PrototypeNetwork

        return PrototypeNetwork(trunk, layers)
    from ipse.training.tasks.attributes import AttributeNetwork, Target

    targets = []
    for name, told in contract["outputs"].items():
        known = {"classes": tuple(told["classes"])} if told["kind"] == "classes" else {"number": tuple(told["number"])}
        targets.append(Target(name, **known))
    return AttributeNetwork(trunk, targets)
