"""Starbucks: one network that can be left early and cut short, each of its sizes trained as if it were alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional

from ipse.catalogue import system
from ipse.encoders.backbones.nested import NestedIResNet
from ipse.errors import TrainingError
from ipse.training.data import Chips
from ipse.training.losses import LOSSES
from ipse.training.recipe import TrainRecipe
from ipse.training.tasks.common import Targets
from ipse.training.tasks.identity import IdentityTask


@system(
    name="Starbucks",
    paper="Starbucks: Improved Training for 2D Matryoshka Embeddings",
    year=2024,
    arxiv="2410.13230",
    room="training",
    claim="Trained on a fixed list of depths and lengths from small to large, each slice of one network is on par with "
    "a small network trained alone; slices drawn by chance are not.",
    evidence=["reid.starbucks.*"],
    works_means="Each slice's recall is within tolerance of a small network trained separately and above that of the "
    "same slice trained by random slices; a search by short embeddings first and long ones for the candidates keeps "
    "the recall with fewer multiplications.",
    status="experimental",
)
class StarbucksTask(IdentityTask):
    """Train a `NestedIResNet` on all its slices in every step (Zhuang et al., 2024, and their code).

    The recipe's losses, those over pairs of pictures, are summed over all pairs of depth and length. ``alignment``
    brings the cosines of every smaller slice within a batch to those of the whole network, which stay as they are for
    it: the Kullback-Leibler divergence of their softmax, with a ``temperature`` and a ``weight``; it may be left out.
    Two trainings to compare with: ``slices: {random: true}`` trains one earlier depth, drawn anew each step, and the
    last, each at all lengths, which is 2D Matryoshka; ``slices: {only: 1}`` trains the first pair alone, which is a
    small network of its own.

    The paper begins with a masked autoencoder of text over the same slices; a recipe's ``start`` takes that place here.
    """

    network: NestedIResNet

    def __init__(self, recipe: TrainRecipe, chips: Chips) -> None:
        losses = dict(recipe.losses)
        alignment = dict(losses.pop("alignment", {"weight": 0.0}))
        how = dict(losses.pop("slices", {}))
        self._random, self._only = bool(how.get("random", False)), int(how.get("only", 0))
        if of_classes := [name for name in losses if name in LOSSES and LOSSES[name][1]]:
            raise TrainingError(
                f"The loss {of_classes[0]} has vectors of classes of one length.",
                "Slices are of several lengths: give losses over pairs, such as supcon.",
            )
        super().__init__(replace(recipe, losses=losses), chips)
        if not isinstance(self.network, NestedIResNet):
            raise TrainingError("Slices need a network with exits.", "Give the backbone nested_iresnet with `pairs`.")
        self.weight, self.temperature = float(alignment.get("weight", 1.0)), float(alignment.get("temperature", 0.1))

    def _slices(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Embeddings of the slices that this step trains, the largest last."""
        if self._only:
            return self.network.slices(pixels, upto=self._only)[-1:]
        if not self._random:
            return self.network.slices(pixels)
        exits = self.network.exits(pixels)
        earlier = sorted(exits)[:-1]
        chosen = [earlier[int(torch.randint(len(earlier), ()))]] if earlier else []
        lengths = sorted({size for _, size in self.network.pairs})
        return [exits[stage][:, :size] for stage in (*chosen, max(exits)) for size in lengths]

    def forward(self, pixels: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `Task.forward`."""
        *smaller, whole = self._slices(pixels)
        total, told = self.losses(whole, targets["label"])
        wanted = self._chances(whole).detach()
        for number, embeddings in enumerate(smaller):
            loss, _ = self.losses(embeddings, targets["label"])
            told[f"slice{number + 1}"] = loss.detach()
            total = total + loss
            if self.weight:
                apart = functional.kl_div(self._chances(embeddings), wanted, log_target=True, reduction="batchmean")
                total = total + self.weight * apart
        return total, told

    def _chances(self, embeddings: torch.Tensor) -> torch.Tensor:
        """(N, N - 1) log of the softmax of cosines to the other pictures of the batch."""
        unit = functional.normalize(embeddings.float())
        others = ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)
        cosines = (unit @ unit.T)[others].view(len(unit), -1)
        return (cosines / self.temperature).log_softmax(1)

    def contract(self) -> dict[str, Any]:
        """See `Task.contract`: an encoder of identity like any other, whose slices `NestedIResNet.slices` gives."""
        return super().contract() | {"task": "identity"}
