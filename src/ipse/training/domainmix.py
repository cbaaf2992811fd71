"""DomainMix: people of the world with their labels and real people without, in one training (Wang et al., BMVC 2021).

Again and again, the real pictures are put into groups by what the averaged network says of them, and of the groups
those are kept that can be relied on (`reliable_clusters`): that stay together where the clustering is a little
stricter, stay by themselves where it is a little looser, and are large enough. Groups are classes beside the people of
the world. The vectors of all classes in the classifier begin at the middles of their pictures, and since there are
other groups each time, theirs begin so again. After a while a discriminator learns to tell the world from the real, and
the features also move to where it cannot (`balance`).

Criteria and their numbers are those of the published code. Changed: the middle of its camera is taken off every real
feature before features are grouped, since small networks tell cameras better than people; the discriminator learns in
every step beside the network, not in each tenth alone, which in trainings of hundreds of steps is too seldom to learn
anything; the share of real pictures in a batch is chosen; the classifier sees scaled cosines; and the other losses are
those of the recipe, which were a soft triplet of the hardest pairs.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from ipse.catalogue import system
from ipse.encoders.backbones import Backbone
from ipse.errors import TrainingError
from ipse.training.frames import Frames
from ipse.training.learning import Learner, Parts, Vectors, centered
from ipse.training.losses import SumOfLosses
from ipse.training.recipe import TrainRecipe
from ipse.training.samplers import IdentitySampler

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Links = Callable[[Vectors, float], "csr_matrix"]
"""Sparse distances of features as far as they are small, such as `ipse.gallery.linking.linked`."""

Labels = npt.NDArray[np.int64]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What DomainMix leaves to choose, with the numbers of the published code.

    Attributes
    ----------
    eps, gap
        Distance within groups, and how much looser and stricter clusterings are.
    core
        Pictures within that distance, itself among them, that make one the core of a group.
    least
        Pictures of a group that is kept.
    apart
        Share of the groups that are taken for independent at the first clustering, which sets the threshold.
    every
        Steps between clusterings.
    real
        Share of the real people in a batch.
    scale
        Of the cosines.
    adversary
        Share of the steps after which the discriminator begins; 1 for never.
    weight
        Of the balance.
    choose
        Keep reliable groups alone; False keeps all, as a naive training on pseudo-labels does.
    """

    eps: float = 0.6
    gap: float = 0.02
    core: int = 4
    least: int = 5
    apart: float = 0.9
    every: int = 200
    real: float = 0.5
    scale: float = 20.0
    adversary: float = 0.3
    weight: float = 1.0
    choose: bool = True


def group(distances: csr_matrix, eps: float, core: int = 4) -> Labels:
    """(N,) groups by DBSCAN (Ester et al., 1996), from 0; pictures in none are groups of their own."""
    from sklearn.cluster import DBSCAN

    labels = DBSCAN(eps=eps, min_samples=core, metric="precomputed").fit_predict(_within(distances, eps))
    alone = labels < 0
    labels[alone] = labels.max(initial=-1) + 1 + np.arange(alone.sum())
    return labels.astype(np.int64)


def _within(distances: csr_matrix, eps: float) -> csr_matrix:
    kept = distances.copy()
    kept.data[kept.data > eps] = 0
    kept.eliminate_zeros()
    return kept


def disagreement(labels: Labels, others: Labels) -> npt.NDArray[np.float64]:
    """(N,) 1 less the overlap of a picture's groups in two clusterings, as intersection over union."""
    _, ours = np.unique(labels, return_inverse=True)
    _, theirs = np.unique(others, return_inverse=True)
    _, both, shared = np.unique(ours * len(labels) + theirs, return_inverse=True, return_counts=True)
    common = shared[both]
    union = np.bincount(ours)[ours] + np.bincount(theirs)[theirs] - common
    return 1 - common / union


def reliable_clusters(distances: csr_matrix, plan: Plan, threshold: float | None = None) -> tuple[Labels, float]:
    """Groups of pictures that can be relied on.

    Parameters
    ----------
    distances
        (N, N) sparse, at least up to ``plan.eps + plan.gap``.
    plan
        See `Plan`.
    threshold
        Of independence, as the first clustering told it; None for that one.

    Returns
    -------
    tuple
        (N,) groups from 0, -1 for pictures that are in none; and the threshold.
    """
    labels, tight, loose = (group(distances, plan.eps + step, plan.core) for step in (0.0, -plan.gap, plan.gap))
    sizes = np.bincount(labels)
    compactness, independence = disagreement(labels, tight), disagreement(labels, loose)
    # A group is as compact and as independent as the best of its pictures.
    compact, independent = np.full(len(sizes), np.inf), np.full(len(sizes), np.inf)
    np.minimum.at(compact, labels, compactness)
    np.minimum.at(independent, labels, independence)
    several = np.sort(independent[sizes > 1])
    if threshold is None:
        place = min(len(several) - 1, round(plan.apart * len(several)))
        threshold = float(several[place]) if len(several) else 0.0
    kept = (independent[labels] <= threshold) & (compactness <= compact[labels]) if plan.choose else sizes[labels] > 1
    labels = np.where(kept, labels, -1)
    left = np.bincount(labels[kept], minlength=len(sizes))
    labels[kept & (left[labels] < (plan.least if plan.choose else 2))] = -1
    _, numbers = np.unique(labels[labels >= 0], return_inverse=True)
    labels[labels >= 0] = numbers
    return labels, threshold


def contradiction(labels: Labels, frames: Frames) -> float:
    """Share of the pairs of people in one frame who are in one group, though one person is not there twice.

    It tells without labels how loose groups may be: where it rises, different people have come together.

    Parameters
    ----------
    labels
        (N,) groups, -1 for none.
    frames
        Where the N pictures are from.

    Returns
    -------
    float
        0–1; NaN where no frame has two pictures that are in groups.
    """
    _, frame = np.unique(np.stack([frames.camera, frames.video, frames.frame]), axis=1, return_inverse=True)
    rows = np.flatnonzero(labels >= 0)
    rows = rows[np.argsort(frame.ravel()[rows], kind="stable")]
    together, pairs = 0, 0
    for mine in np.split(labels[rows], np.flatnonzero(np.diff(frame.ravel()[rows])) + 1):
        counts = np.unique(mine, return_counts=True)[1]
        together += int((counts * (counts - 1)).sum()) // 2
        pairs += len(mine) * (len(mine) - 1) // 2
    return together / pairs if pairs else math.nan


def cameras_of(labels: Labels, camera: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(groups,) how many cameras the pictures of each group are from; of (N,) groups, -1 for none, and cameras."""
    seen = np.unique(np.stack([labels, camera])[:, labels >= 0], axis=1)[0]
    return np.unique(seen, return_counts=True)[1]


def middles(vectors: Vectors, labels: Labels) -> torch.Tensor:
    """(classes, D) means, of length 1, of the (N, D) features of each class; features labeled -1 are of none."""
    sums = np.zeros((int(labels.max(initial=-1)) + 1, vectors.shape[1]), np.float32)
    np.add.at(sums, labels[labels >= 0], vectors[labels >= 0])
    return functional.normalize(torch.from_numpy(sums))


def balance(logits: torch.Tensor) -> torch.Tensor:
    """Domain balance loss: by how much a discriminator's (N, domains) logits are surer than chance, in nats."""
    return (logits.softmax(1) * logits.log_softmax(1)).sum(1).mean() + math.log(logits.shape[1])


class Discriminator(nn.Module):
    """Tell the world from the real by an embedding; the published layers, as wide as the embedding and half of that."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = max(dim // 2, 2)
        self.layers = nn.Sequential(
            nn.Linear(dim, dim), nn.BatchNorm1d(dim), nn.LeakyReLU(0.2),
            nn.Linear(dim, half), nn.BatchNorm1d(half), nn.LeakyReLU(0.2), nn.Linear(half, 2),
        )  # fmt: skip

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """(N, 2) logits of (N, D): of the world, and of the real."""
        return self.layers(embeddings)


@system(
    name="DomainMix",
    paper="DomainMix: Learning Generalizable Person Re-Identification Without Human Annotations",
    year=2021,
    arxiv="2011.11953",
    room="training",
    claim="Labeled synthetic people and unlabeled real ones together train an encoder that recognizes people in places "
    "that it never saw about as well as human labels do.",
    evidence=["reid.domainmix.*", "reid.market.*"],
    works_means="With people of the world and unlabeled ones of a shifted world, mAP in a third is above training on "
    "the world alone and above naive pseudo-labels; a classifier of domains falls to about one half with the balance; "
    "no real label is read. With unlabeled Market-1501 train, mAP on val is at least 70 % of the supervised one.",
    status="experimental",
)
class DomainMix(Learner):
    """Learn from the world's labels and from groups of real pictures.

    Parameters
    ----------
    recipe
        ``batch.people`` and ``batch.each``; ``losses`` that compare pictures with pictures, such as ``triplet``.
    world
        (M, height, width, 3) pictures of the world.
    labels
        (M,) their people, or people in one Look.
    real
        Frames, without labels.
    links
        Finds the distances that real pictures are grouped by.
    plan
        See `Plan`.
    groups
        (N,) groups of the real pictures to begin with, -1 for none, such as those of an earlier network: a fresh one
        knows nobody. By default what the network itself says before the first step.

    Raises
    ------
    TrainingError
        If losses keep vectors of classes, a batch has no room for both domains, or the first clustering finds fewer
        groups than a batch needs, so that no real picture would be learned from.
    """

    def __init__(
        self,
        recipe: TrainRecipe,
        world: npt.NDArray[np.uint8],
        labels: npt.ArrayLike,
        real: Frames,
        links: Links,
        plan: Plan | None = None,
        groups: Labels | None = None,
    ) -> None:
        super().__init__(recipe)
        if groups is not None and len(groups) != len(real):
            raise TrainingError(
                f"There are {len(real)} real pictures and groups of {len(groups)}.", "Give one of each."
            )
        self.world, self.real, self.links, self.plan = world, real, links, plan or Plan()
        self.known = groups
        self.of_real = round(self.plan.real * recipe.batch.people)
        self.of_world = recipe.batch.people - self.of_real
        if min(self.of_real, self.of_world) < 2:
            raise TrainingError(
                f"{recipe.batch.people} people in a batch cannot be shared at {self.plan.real}.",
                "Give batch.people of 4 or more, two of each domain at least.",
            )
        _, numbers = np.unique(np.asarray(labels), return_inverse=True)
        self.classes = int(numbers.max()) + 1
        self.numbers = torch.from_numpy(numbers.astype(np.int64))
        self.of_both = SumOfLosses(recipe.losses, self.network.dim, 1) if recipe.losses else None
        if self.of_both and not all(name in ("triplet", "circle", "supcon") for name in self.of_both.parts):
            raise TrainingError(
                f"DomainMix has a classifier of its own beside {', '.join(self.of_both.parts)}.",
                "Name losses that compare pictures with pictures: triplet, circle or supcon.",
            )
        self.weight = nn.Parameter(torch.zeros(self.classes + len(real) // 2, self.network.dim))
        self.discriminator = Discriminator(self.network.dim)
        # Labels of real pictures, and the threshold of independence, NaN before the first clustering.
        self.register_buffer("groups", torch.full((len(real),), -1))
        self.register_buffer("threshold", torch.tensor(math.nan))
        seed = recipe.seed
        self.from_world = IdentitySampler(numbers, self.of_world, recipe.batch.each, seed=seed, alone="drop")
        self.from_real: tuple[Any, IdentitySampler] | None = None

    def before(self, step: int, average: Backbone) -> None:
        """Group the real pictures anew, every so many steps; the world's classes begin before the first."""
        if step == 0:
            self.renew(self.weight, 0, middles(self.embed(average, self.world), self.numbers.numpy()))
        if step % self.plan.every == 0:
            vectors = self.embed(average, self.real.pictures)
            threshold = float(self.threshold)
            if step == 0 and self.known is not None:
                found = self.known
            else:
                found, threshold = reliable_clusters(
                    self.links(centered(vectors, self.real.camera), self.plan.eps + self.plan.gap),
                    self.plan,
                    None if math.isnan(threshold) else threshold,
                )
            count = int(found.max(initial=-1)) + 1
            _log.info(
                "step %d: %d groups of %.1f %% of the real pictures, %.1f cameras in each, %.2f %% contradiction",
                step, count, 100 * (found >= 0).mean(), cameras_of(found, self.real.camera).mean() if count else 0,
                100 * contradiction(found, self.real),
            )  # fmt: skip
            if step == 0 and count < self.of_real:
                raise TrainingError(
                    f"The first clustering finds {count} groups of real pictures; a batch needs {self.of_real}.",
                    "Start with a network that knows people better, raise plan.eps, lower plan.core or plan.least, or "
                    "give fewer batch.people.",
                )
            self.groups.copy_(torch.from_numpy(found))
            self.threshold.fill_(threshold)
            self.renew(self.weight, self.classes, middles(vectors, found))
            self.from_real = None
        if self.from_real is None and int(self.groups.max()) + 1 >= self.of_real:
            rows = np.flatnonzero(self.groups.numpy() >= 0)
            cameras = self.real.camera[rows]
            labels = self.groups.numpy()[rows]
            number = step // self.plan.every
            sampler = IdentitySampler(
                labels, self.of_real, self.recipe.batch.each, cameras, self.recipe.seed + 7919 * number, "drop"
            )
            self.from_real = rows, sampler

    def loss(self, step: int) -> tuple[torch.Tensor, Parts]:
        """Classes of both domains, pairs, the balance, and what the discriminator learns by."""
        rows = self.from_world.batch(step)
        pictures, labels = [self.world[rows]], [self.numbers[torch.from_numpy(rows)]]
        if self.from_real:
            kept, sampler = self.from_real
            rows = kept[sampler.batch(step)]
            pictures.append(self.real.pictures[rows])
            labels.append(self.classes + self.groups[torch.from_numpy(rows)])
        target = torch.cat(labels)
        embeddings = self.network(self.pixels(np.concatenate(pictures)))
        domain = (target >= self.classes).long()
        count = self.classes + int(self.groups.max()) + 1
        cosines = functional.linear(functional.normalize(embeddings), functional.normalize(self.weight[:count]))
        total = classes = functional.cross_entropy(self.plan.scale * cosines, target, label_smoothing=0.1)
        parts = {"classes": classes.detach()}
        if self.of_both:
            pairs, each = self.of_both(embeddings, target)
            total, parts = total + pairs, parts | each
        if step >= self.plan.adversary * self.recipe.steps and bool(domain.any()):
            # What the discriminator learns by does not move the features.
            logits = self.discriminator(embeddings.detach())
            told = functional.cross_entropy(logits, domain)
            right = (logits.argmax(1) == domain).float().mean()
            # And what moves them goes through the discriminator, which stays as it is.
            logits = torch.func.functional_call(
                self.discriminator, {n: p.detach() for n, p in self.discriminator.named_parameters()}, (embeddings,)
            )
            even = balance(logits)
            total = total + told + self.plan.weight * even
            parts |= {"balance": even.detach(), "discriminator": told.detach(), "domain_told": right}
        grouped = (self.groups >= 0).float().mean()
        return total, parts | {"groups": torch.tensor(float(count - self.classes)), "grouped": grouped}
