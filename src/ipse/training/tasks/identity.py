"""Identity: an embedding in which pictures of one person lie together."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from ipse.encoders.contract import fingerprint_of
from ipse.errors import TrainingError
from ipse.measure.distances import Features
from ipse.measure.retrieval import evaluate
from ipse.measure.verification import equal_error_rate
from ipse.training.data import Chips, person_of
from ipse.training.losses import SumOfLosses
from ipse.training.networks import load_network
from ipse.training.recipe import TrainRecipe
from ipse.training.tasks.common import Run, Targets, Task, backbone_of, start_file

# Pairs of different people that the error rate is read from; all pairs would be millions.
_PAIRS = 200_000
_PROTOCOLS = {"": "all", "look": "world-across-looks", "camera": "market1501"}


class Frozen(nn.Module):
    """A network that was trained before: never in training mode, without gradients."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Nothing changes."""
        return self

    @torch.no_grad()
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the network says of (N, 3, H, W) normalized floats."""
        return self.network(pixels)


class IdentityTask(Task):
    """Train a backbone by losses over people.

    The recipe's ``network`` names the backbone and its options, ``losses`` what is summed; see
    `ipse.training.losses.LOSSES`. ``earlier`` names a network that the losses ``harmonic`` and ``distilled`` keep to.
    """

    def __init__(self, recipe: TrainRecipe, chips: Chips) -> None:
        super().__init__()
        self.network = backbone_of(recipe, recipe.network)
        self.label = recipe.data.label
        self.known = np.unique(chips.labels(self.label))
        traits = None
        if "traits" in recipe.losses:
            people, of = np.unique(person_of(self.known, self.label), return_inverse=True)
            traits = torch.from_numpy(chips.traits(people)[1][of])
        self.losses = SumOfLosses(recipe.losses, self.network.dim, len(self.known), traits)
        self.group = recipe.data.group
        self.earlier, self.matches = self._earlier(recipe) if recipe.earlier else (None, "")

    def _earlier(self, recipe: TrainRecipe) -> tuple[Frozen, str]:
        """The recipe's earlier network and its fingerprint."""
        network, contract = load_network(start_file(recipe.earlier))
        chip = contract["chip"]
        theirs = (contract["task"], contract.get("dim"), (chip.height, chip.width), chip.mean, chip.std)
        ours = ("identity", self.network.dim, recipe.cut.size, (recipe.mean,) * 3, (recipe.std,) * 3)
        for what, its, wanted in zip(("task", "dim", "size", "mean", "std"), theirs, ours, strict=True):
            if its != wanted:
                raise TrainingError(
                    f"The earlier network {recipe.earlier} has the {what} {its}, this recipe {wanted}.",
                    "Embeddings can match only where both networks see the same and say as much.",
                )
        return Frozen(network), fingerprint_of(contract["sha256"], chip)

    def targets(self, chips: Chips, rows: npt.NDArray[np.int64]) -> Targets:
        """See `Task.targets`: numbers of classes."""
        return {"label": torch.from_numpy(np.searchsorted(self.known, chips.labels(self.label)[rows]))}

    def beforehand(self, pixels: torch.Tensor, targets: Targets) -> Targets:
        """See `Task.beforehand`: with what the earlier network says."""
        return targets if self.earlier is None else targets | {"earlier": self.earlier(pixels)}

    def forward(self, pixels: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `Task.forward`."""
        return self.losses(self.network(pixels), targets["label"], targets.get("earlier"))

    def judge(self, network: nn.Module, chips: Chips, run: Run) -> dict[str, float]:
        """Rank-1 and mAP across groups (Looks or cameras), and the equal error rate of verification.

        Every chip is a query once; what the protocol of the group ignores is ignored. Where clothes are a part of who
        somebody is, rank-1 and mAP within the Look are told too.
        """
        found = functional.normalize(torch.from_numpy(run(network, chips)["embedding"]), dim=1).numpy()
        people = chips.column("person")
        columns = {"person": people}
        if self.group:
            columns[self.group] = chips.column(self.group)
            protocol = _PROTOCOLS[self.group]
            result = evaluate(Features(found, found), columns, columns, protocol)
        else:
            # Without groups a picture would find itself: the first of each person is the gallery.
            _, first = np.unique(people, return_index=True)
            rest = np.setdiff1d(np.arange(len(people)), first)
            query, gallery = ({"person": people[rows]} for rows in (rest, first))
            result = evaluate(Features(found[rest], found[first]), query, gallery, "all")
        figures = {"rank1": result.rank(1), "map": result.mean_ap()}
        if self.label == "look":
            columns |= {name: chips.column(name) for name in ("look", "shot")}
            result = evaluate(Features(found, found), columns, columns, "world-within-look")
            figures |= {"within_look.rank1": result.rank(1), "within_look.map": result.mean_ap()}
        # A person's pictures in different groups against those of others, by chance but always the same.
        draw = np.random.default_rng(0)
        a, b = draw.integers(0, len(people), (2, _PAIRS))
        different = people[a] != people[b]
        group = chips.column(self.group) if self.group else np.arange(len(people))
        x, y = np.nonzero(np.triu(people[:, None] == people[None, :], 1)) if len(people) <= 4096 else (a, b)
        same = (people[x] == people[y]) & (group[x] != group[y])
        if same.any() and different.any():
            distances = [
                1 - (found[i] * found[j]).sum(1) for i, j in ((x[same], y[same]), (a[different], b[different]))
            ]
            figures["eer"] = equal_error_rate(*distances)
        return figures

    def contract(self) -> dict[str, Any]:
        """See `Task.contract`."""
        told = {"dim": self.network.dim, "metric": "cosine", "outputs": {"embedding": {"kind": "embedding"}}}
        return told | ({"matches": self.matches} if self.matches else {})
