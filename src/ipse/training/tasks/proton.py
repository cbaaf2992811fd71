"""ProtoN: the few pictures of a person and a prototype are a graph, whose messages make the template."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from ipse.catalogue import system
from ipse.errors import DataError, TrainingError
from ipse.training.data import Chips
from ipse.training.losses import SupervisedContrastive
from ipse.training.recipe import TrainRecipe
from ipse.training.tasks.common import Targets
from ipse.training.tasks.identity import IdentityTask


class PrototypeLayer(nn.Module):
    """One exchange of messages in the graph of a person: impressions to the prototype, and back.

    The prototype asks which impressions to believe and moves toward what they say; then every impression hears how far
    it is from the prototype and moves by that. Nothing depends on the order of the impressions. The layer begins as one
    that changes nothing, so a graph begins as the mean of its impressions and learns where to leave it.

    Parameters
    ----------
    dim
        D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.back = nn.Sequential(nn.Linear(2 * dim, dim), nn.GELU(), nn.Linear(dim, dim))
        for layer in (self.query, self.value, self.back[2]):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.back[2].bias)

    def forward(
        self, prototypes: torch.Tensor, impressions: torch.Tensor, present: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """New prototypes and impressions.

        Parameters
        ----------
        prototypes
            (G, D) of G graphs.
        impressions
            (G, K, D).
        present
            (G, K) which of them there are.
        """
        scores = (self.key(impressions) @ self.query(prototypes)[:, :, None])[:, :, 0] / math.sqrt(prototypes.shape[1])
        belief = scores.masked_fill(~present, -torch.inf).softmax(1)[:, None]
        prototypes = (belief @ (impressions + self.value(impressions)))[:, 0]
        apart = prototypes[:, None] - impressions
        return prototypes, impressions + self.back(torch.cat([impressions, apart], 2))


class PrototypeNetwork(nn.Module):
    """A backbone, and layers that make one template of a person's few embeddings.

    Parameters
    ----------
    trunk
        Maps (N, 3, H, W) normalized floats to (N, D).
    layers
        Number of `PrototypeLayer`; without any a template is the mean, as in prototypical networks.
    """

    def __init__(self, trunk: nn.Module, layers: int = 2) -> None:
        super().__init__()
        self.trunk, self.dim = trunk, trunk.dim
        self.prototype = nn.Parameter(torch.zeros(self.dim))
        self.layers = nn.ModuleList(PrototypeLayer(self.dim) for _ in range(layers))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, D) embeddings of single pictures, as the backbone gives them."""
        return self.trunk(pixels)

    def refine(self, embeddings: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """(G, D) templates of length 1 from (G, K, D) embeddings, of which (G, K) are present; all where not said."""
        present = present if present is not None else embeddings.new_ones(embeddings.shape[:2], dtype=torch.bool)
        impressions = functional.normalize(embeddings, dim=2) * present[:, :, None]
        prototypes = impressions.sum(1) / present.sum(1)[:, None]
        if len(self.layers):
            prototypes = prototypes + self.prototype
        for layer in self.layers:
            prototypes, impressions = layer(prototypes, impressions, present)
        return functional.normalize(prototypes)

    @torch.inference_mode()
    def templates(
        self, embeddings: npt.ArrayLike, people: npt.ArrayLike
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
        """One template of each person, for galleries and for queries of one picture or of several.

        Parameters
        ----------
        embeddings
            (N, D) of this network.
        people
            (N,) whose they are, in any order.

        Returns
        -------
        tuple
            (P,) people, sorted, and (P, D) float32 templates of length 1.

        Raises
        ------
        DataError
            If lengths do not fit.
        """
        found, who = np.asarray(embeddings, np.float32), np.asarray(people)
        if found.ndim != 2 or found.shape[1] != self.dim or who.shape != (len(found),):
            raise DataError(
                f"Embeddings have shape {found.shape} and people {who.shape}.",
                f"Give ({len(found)}, {self.dim}) embeddings and whose each is.",
            )
        names, index = np.unique(who, return_inverse=True)
        counts = np.bincount(index)
        order = np.argsort(index, kind="stable")
        place = np.arange(len(found)) - np.repeat(np.cumsum(counts) - counts, counts)
        graphs = np.zeros((len(names), counts.max(initial=1), self.dim), np.float32)
        graphs[index[order], place] = found[order]
        present = np.arange(graphs.shape[1]) < counts[:, None]
        return names, self.refine(torch.from_numpy(graphs), torch.from_numpy(present)).numpy()


@system(
    name="ProtoN",
    paper="ProtoN: Prototype Node Graph Neural Network for Unconstrained Multi-Impression Ear Recognition",
    year=2025,
    arxiv="2508.04381",
    room="training",
    claim="Several impressions of an ear and a learned prototype, nodes of one graph that exchange messages, make a "
    "template that identifies and verifies people never seen in training better than impressions one by one.",
    evidence=["reid.proton.*"],
    works_means="On ears of people outside the training, a few impressions each: refined prototypes beat the mean of "
    "prototypical networks and single impressions in rank-1 and equal error rate, and more so with more impressions. "
    "Not shown: on AWE, after 100 steps on two thirds of 70 people, refined prototypes are behind both.",
    status="experimental",
)
class ProtonTask(IdentityTask):
    """Train a `PrototypeNetwork` by episodes (Peddi et al., 2025; from the abstract, the layer's form is ours).

    A batch is an episode: of every person some pictures, a different number each time, are the graph that enrolls, and
    the rest are queries. Three losses are summed. ``episode``: every query, a graph of one impression, names its person
    among the prototypes. ``alignment``: prototypes of a person from different pictures lie together across graphs and
    apart from those of others. The others of the recipe are the global ones, over all people that are trained on; they
    see embeddings and prototypes.

    The recipe's ``network`` has ``layers`` beside the backbone's options, and its ``losses`` have ``episode`` and
    ``alignment`` with a ``temperature`` and a ``weight``; each may be left out.
    """

    def __init__(self, recipe: TrainRecipe, chips: Chips) -> None:
        if not recipe.batch.people or recipe.batch.each < 2:
            raise TrainingError("Episodes need batches of people with two pictures each.", "Set batch.people and each.")
        options, losses = dict(recipe.network), dict(recipe.losses)
        layers = options.pop("layers", 2)
        self_made = {name: dict(losses.pop(name)) for name in ("episode", "alignment") if name in losses}
        super().__init__(replace(recipe, network=options, losses=losses), chips)
        self.network = PrototypeNetwork(self.network, layers)
        self.each = recipe.batch.each
        self.weights = {name: float(plan.get("weight", 1.0)) for name, plan in self_made.items()}
        self.temperatures = {name: float(plan.get("temperature", 0.1)) for name, plan in self_made.items()}

    def forward(self, pixels: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `Task.forward`."""
        labels = targets["label"].view(-1, self.each)
        embeddings = self.network(pixels)
        graphs = embeddings.view(*labels.shape, -1)
        shots = int(torch.randint(1, self.each, ()))
        prototypes = self.network.refine(graphs[:, :shots])
        parts = {}
        if "episode" in self.weights:
            queries = self.network.refine(graphs[:, shots:].flatten(0, 1)[:, None])
            logits = queries @ prototypes.T / self.temperatures["episode"]
            wanted = torch.arange(len(labels), device=logits.device).repeat_interleave(self.each - shots)
            parts["episode"] = functional.cross_entropy(logits, wanted)
        if "alignment" in self.weights:
            others = self.network.refine(graphs[:, shots:])
            align = SupervisedContrastive(self.temperatures["alignment"])
            parts["alignment"] = align(torch.cat([prototypes, others]), labels[:, 0].repeat(2))
        scale = embeddings.detach().norm(dim=1).mean()
        everything = torch.cat([embeddings, scale * prototypes]), torch.cat([targets["label"], labels[:, 0]])
        total, told = self.losses(*everything)
        for name, value in parts.items():
            total = total + self.weights[name] * value
        return total, told | {name: value.detach() for name, value in parts.items()}
