"""What every task has: a network, targets, a loss, and figures of how good the network is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ipse.encoders.backbones import Backbone, backbone
from ipse.errors import TrainingError
from ipse.training.data import Chips
from ipse.training.networks import load_network
from ipse.training.recipe import TrainRecipe
from ipse.zoo import shipped_files, shipped_names

Targets = dict[str, torch.Tensor]
Run = Callable[[nn.Module, Chips], dict[str, npt.NDArray[np.float32]]]
"""Runs a network over chips; gives its outputs by name, (N, ...) each."""


class Task(nn.Module):
    """A network with its losses.

    Attributes
    ----------
    network
        What is kept; maps (N, 3, H, W) normalized floats to one tensor, or to tensors by name.
    """

    network: nn.Module

    @abstractmethod
    def targets(self, chips: Chips, rows: npt.NDArray[np.int64]) -> Targets:
        """What the network should say about some chips, first dimension n."""

    def beforehand(self, pixels: torch.Tensor, targets: Targets) -> Targets:
        """The targets, and what is to be known of pictures before they are changed against the network."""
        return targets

    def move(self, targets: Targets, maps: torch.Tensor) -> Targets:
        """The targets of pictures that were moved by (n, 2, 3) maps; most do not change."""
        return targets

    @abstractmethod
    def forward(self, pixels: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of (N, 3, H, W) normalized floats, and its parts by name."""

    @abstractmethod
    def judge(self, network: nn.Module, chips: Chips, run: Run) -> dict[str, float]:
        """Figures of a network on chips it was not trained on."""

    def finish(self, network: nn.Module, chips: Chips, run: Run) -> dict[str, float]:
        """What is left to do when the training is over, such as calibration; gives figures."""
        return {}

    @abstractmethod
    def contract(self) -> dict[str, Any]:
        """What a user of the network must know: at least ``outputs``, and ``dim`` and ``metric`` of an embedding."""


def backbone_of(recipe: TrainRecipe, options: Mapping[str, Any]) -> Backbone:
    """The recipe's backbone, begun as the recipe says and tried on one empty chip.

    Raises
    ------
    TrainingError
        If the recipe names none, the network does not take the recipe's chips, or it has nothing in common with the one
        that it is to begin with.
    WeightsError
        If the network to begin with is not there, or damaged.
    """
    own = dict(options)
    name = own.pop("backbone", None)
    if name is None:
        raise TrainingError("The recipe's network has no `backbone`.", "See ipse.encoders.backbones.BACKBONES.")
    network = backbone(name, **own)
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, *recipe.cut.size))
    except RuntimeError as error:
        raise TrainingError(
            f"{name} with {own} does not take chips of {list(recipe.cut.size)}: {error}.",
            "Give it the option `size` of the recipe's cut, if it has one, or other chips.",
        ) from error
    if recipe.start:
        begin_with(network, recipe.start)
    return network.train()


def start_file(start: str) -> Path:
    """The weights that a recipe's ``start`` names; see `TrainRecipe`.

    Raises
    ------
    WeightsError
        If a network that comes with ipse is not there, or damaged.
    """
    return shipped_files(start).weights if start in shipped_names() else Path(start)


def begin_with(network: nn.Module, start: str) -> None:
    """Give a network what it shares, by name and shape, with the backbone of one that was trained; see `TrainRecipe`.

    Raises
    ------
    TrainingError
        If they share no filter.
    WeightsError
        If the other is not there, or damaged.
    """
    trained, _ = load_network(start_file(start))
    theirs, ours = getattr(trained, "trunk", trained).state_dict(), network.state_dict()
    taken = {name: value for name, value in theirs.items() if name in ours and ours[name].shape == value.shape}
    if not any(value.ndim > 1 for value in taken.values()):
        raise TrainingError(
            f"The network {start}, which the recipe starts with, has no filter of a form that this one has.",
            "Give both the same backbone and width, or leave `start` out.",
        )
    network.load_state_dict(ours | taken)
