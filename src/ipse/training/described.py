"""Identity from pictures in memory, and from what may be known beside each: a description, or a prompt."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ipse.errors import TrainingError
from ipse.training.learning import Learner, Parts, Pictures
from ipse.training.losses import SumOfLosses
from ipse.training.recipe import TrainRecipe
from ipse.training.samplers import IdentitySampler


class Described(Learner):
    """Learn people by losses over people; the network may be told something of every picture.

    Parameters
    ----------
    recipe
        ``batch``, ``losses`` and the rest as in other trainings of identity; its network takes what is told second.
    pictures
        (N, height, width, 3).
    people
        (N,) who is on them.
    beside
        (N, ...) what is told; None for networks that see pictures alone.
    groups
        (N,) what was taken together, such as Looks; pictures of somebody in a batch are of as many as there are.
    fading
        Share of the steps within which pictures are told nothing (zeros): all of a batch in the beginning, then fewer
        and fewer, none from there on. So the network learns to see before it learns to be told. 0 tells everything
        from the start.

    Raises
    ------
    TrainingError
        If lengths differ.
    """

    def __init__(
        self,
        recipe: TrainRecipe,
        pictures: Pictures,
        people: npt.ArrayLike,
        beside: npt.NDArray[np.float32] | None = None,
        groups: npt.ArrayLike | None = None,
        fading: float = 0.0,
    ) -> None:
        super().__init__(recipe)
        names, labels = np.unique(np.asarray(people), return_inverse=True)
        told = len(labels) if beside is None else len(beside)
        if not len(pictures) == len(labels) == told:
            raise TrainingError(f"{len(pictures)} pictures, {len(labels)} people, {told} times something told.")
        self.pictures, self.beside, self.fading = pictures, beside, fading
        self.labels = torch.from_numpy(labels)
        plan = recipe.batch
        self.sampler = IdentitySampler(labels, plan.people, plan.each, groups, recipe.seed, plan.alone)
        self.losses = SumOfLosses(recipe.losses, self.network.dim, len(names))

    def loss(self, step: int) -> tuple[torch.Tensor, Parts]:
        """The recipe's losses of a batch."""
        rows = self.sampler.batch(step)
        pixels = self.pixels(self.pictures[rows])
        if self.beside is None:
            embeddings = self.network(pixels)
        else:
            told = torch.from_numpy(self.beside[rows])
            if self.fading:
                kept = torch.rand(len(rows)) < step / (self.fading * self.recipe.steps)
                told = told * kept.float().reshape(-1, *[1] * (told.ndim - 1))
            embeddings = self.network(pixels, told)
        return self.losses(embeddings, self.labels[torch.from_numpy(rows)])
