"""CION: people correlated across videos, and learned by distillation between their pictures (Zuo et al., NeurIPS 2024).

Trackers follow somebody for a while and sometimes somebody else; and the same person walks through many videos. Labels
made of tracks are therefore noisy in two ways, which one definition of noise tells together: within an identity
pictures lie at most a `radius` from its middle, and the middles of two identities lie at least `apart` from each other.
`denoise` moves labels until that holds: pictures too far off go to the nearest other middle that takes them, or to
nobody, and identities too near become one. It is done level by level (`correlate`): within each track, within each
video, and in a window that slides over the videos.

The network then learns as a student of its own average (`Distillation`), which has seen other pictures of the identity:
what the teacher says of one picture, the student is to say of another change of it and of all others of its person.

The levels, the noise and the window are from summaries of the paper; radius, distances and the window's size are ours.
The loss, its temperatures and the centering are those of the published code.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from ipse.catalogue import system
from ipse.encoders.backbones import Backbone
from ipse.errors import TrainingError
from ipse.training.learning import Learner, Parts, Pictures, Vectors
from ipse.training.recipe import TrainRecipe
from ipse.training.samplers import IdentitySampler

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Noise:
    """What is not noise, in Euclidean distances of unit vectors, from 0 to 2.

    Attributes
    ----------
    radius
        The farthest that a picture lies from the middle of its identity.
    apart
        The nearest that two middles lie to each other.
    rounds
        Of moving labels; fewer are enough where nothing changes.
    """

    radius: float = 0.8
    apart: float = 0.5
    rounds: int = 20


def middles(vectors: Vectors, labels: Labels) -> Vectors:
    """(C, D) means of the identities 0 to C - 1, scaled to length 1; pictures labeled -1 are nobody's."""
    found = np.zeros((labels.max(initial=-1) + 1, vectors.shape[1]), np.float32)
    np.add.at(found, labels[labels >= 0], vectors[labels >= 0])
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def _apart(a: Vectors, b: Vectors) -> npt.NDArray[np.float32]:
    return np.sqrt(np.maximum(2 - 2 * a @ b.T, 0))


def numbered(labels: Labels) -> Labels:
    """The same identities with numbers from 0; -1 stays."""
    out = np.full(len(labels), -1, np.int64)
    out[labels >= 0] = np.unique(labels[labels >= 0], return_inverse=True)[1]
    return out


def denoise_track(vectors: Vectors, radius: float) -> npt.NDArray[np.bool_]:
    """(N,) which pictures of one track stay: the farthest from the middle goes until all are within the radius."""
    kept = np.ones(len(vectors), bool)
    while kept.sum() > 1:
        far = np.where(kept, _apart(vectors, middles(vectors, np.where(kept, 0, -1)))[:, 0], -1)
        if far.max() <= radius:
            break
        kept[far.argmax()] = False
    return kept


def denoise(vectors: Vectors, labels: Labels, noise: Noise) -> Labels:
    """Move labels until pictures are near the middle of their identity and identities are apart.

    Parameters
    ----------
    vectors
        (N, D) of length 1.
    labels
        (N,) identities, -1 for nobody.
    noise
        See `Noise`.

    Returns
    -------
    numpy.ndarray
        (N,) identities from 0, -1 for pictures that no identity takes.
    """
    labels = numbered(labels)
    for _ in range(noise.rounds):
        before = labels
        labels = numbered(_merged(vectors, labels, noise.apart))
        if labels.max(initial=-1) < 0:
            break
        # To the nearest middle that takes it; where its own does, it stays there.
        far = _apart(vectors, middles(vectors, labels))
        own = np.where(labels >= 0, far[np.arange(len(far)), labels], np.inf)
        nearest = far.argmin(1)
        taken = np.where(far[np.arange(len(far)), nearest] <= noise.radius, nearest, -1)
        labels = numbered(np.where(own <= noise.radius, labels, taken))
        if np.array_equal(labels, before):
            break
    return labels


def _merged(vectors: Vectors, labels: Labels, apart: float) -> Labels:
    """Identities joined, pair by pair of mutually nearest ones, until all are apart."""
    while labels.max(initial=-1) > 0:
        centers = middles(vectors, labels)
        far = _apart(centers, centers)
        np.fill_diagonal(far, np.inf)
        nearest = far.argmin(1)
        number = np.arange(len(centers))
        joined = (nearest[nearest] == number) & (far[number, nearest] < apart) & (nearest < number)
        if not joined.any():
            break
        number[joined] = nearest[joined]
        labels = numbered(np.where(labels >= 0, number[labels], -1))
    return labels


def correlate(
    vectors: Vectors, tracks: npt.NDArray[Any], videos: npt.NDArray[Any], noise: Noise, window: int = 8
) -> Labels:
    """Identities across videos, from tracks within them.

    Parameters
    ----------
    vectors
        (N, D) of length 1.
    tracks, videos
        (N,) the track and the video of every picture; a track lies in one video.
    noise
        See `Noise`.
    window
        Videos that are looked at together; the window moves on by half of them.

    Returns
    -------
    numpy.ndarray
        (N,) identities from 0, -1 for pictures that are taken for nobody's.
    """
    labels = np.unique(tracks, return_inverse=True)[1].astype(np.int64)
    for track in range(labels.max() + 1):
        rows = np.flatnonzero(labels == track)
        labels[rows[~denoise_track(vectors[rows], noise.radius)]] = -1
    number = np.unique(videos, return_inverse=True)[1]
    last = number.max()
    spans = [(video, video + 1) for video in range(last + 1)]
    step = max(1, window // 2)
    spans += [(first, first + window) for first in range(0, max(last - window + step, 0) + 1, step)]
    for first, stop in spans:
        rows = np.flatnonzero((number >= first) & (number < stop))
        names, inside = np.unique(labels[rows][labels[rows] >= 0], return_inverse=True)
        given = np.full(len(rows), -1, np.int64)
        given[labels[rows] >= 0] = inside
        found = denoise(vectors[rows], given, noise)
        # An identity keeps a name that a picture of it had, so that it is the same outside of the window.
        for identity in range(found.max(initial=-1) + 1):
            mine = found == identity
            old = given[mine][given[mine] >= 0]
            name = names[np.bincount(old).argmax()] if len(old) else labels.max() + 1
            labels[rows[mine]] = name
        labels[rows[found < 0]] = -1
    return numbered(labels)


class Head(nn.Module):
    """From embeddings to scores of prototypes, as DINO has it: a small network, length 1, and a linear layer."""

    def __init__(self, dim: int, prototypes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.prototypes = nn.utils.parametrizations.weight_norm(nn.Linear(dim, prototypes, bias=False))

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """(N, prototypes) of (N, D)."""
        return self.prototypes(functional.normalize(self.mlp(embeddings)))


def identity_guided(
    teacher: torch.Tensor, student: torch.Tensor, each: int, sharp: float = 0.04, soft: float = 0.1
) -> torch.Tensor:
    """What the teacher says of a picture, the student is to say of its other change and of others of its identity.

    Parameters
    ----------
    teacher, student
        (2, N, K) scores of two changes of N pictures, the teacher's centered; pictures of an identity are side by side.
    each
        Pictures of an identity.
    sharp, soft
        Temperatures of the teacher and of the student.
    """
    _, count, _ = student.shape
    chances = (teacher / sharp).softmax(2).detach()
    logs = (student / soft).log_softmax(2)
    identity = torch.arange(count) // each
    same = (identity[:, None] == identity).float()
    losses = []
    for ours, theirs in ((0, 1), (1, 0)):
        surprise = -chances[ours] @ logs[theirs].T
        # Of one picture to its other change, and the mean over others of its identity, in the published proportion.
        others = same - torch.eye(count)
        own = surprise.diagonal().mean()
        losses.append((own + (surprise * others).sum() / count * each) / (each * (each - 1) + 1))
    return torch.stack(losses).mean()


@system(
    name="CION",
    paper="Cross-video Identity Correlating for Person Re-identification Pre-training",
    year=2024,
    arxiv="2409.18569",
    room="training",
    claim="Pre-training on people who were correlated across videos, by distillation between pictures of one identity, "
    "needs a small part of the pictures that pre-training on tracks needs.",
    evidence=["reid.cion.*"],
    works_means="On tracks of world people who come again in other videos, mAP without and after fine-tuning is above "
    "that of pre-training on tracks of the same data and of ISR at equal steps; purity and completeness of the "
    "identities are told.",
    status="experimental",
)
class Distillation(Learner):
    """Identity-guided self-distillation.

    Parameters
    ----------
    recipe
        ``batch.people`` and ``batch.each``, pictures of which are seen in two changes.
    pictures
        (N, height, width, 3).
    labels
        (N,) identities, such as `correlate` gives them; pictures of -1 are left out.
    prototypes
        Outputs of the head.
    momentum
        Share of the teacher that a step keeps.

    Raises
    ------
    TrainingError
        If there are fewer identities with two pictures than a batch has.
    """

    def __init__(
        self,
        recipe: TrainRecipe,
        pictures: Pictures,
        labels: Labels,
        prototypes: int = 1024,
        momentum: float = 0.99,
    ) -> None:
        super().__init__(recipe)
        if len(pictures) != len(labels):
            raise TrainingError(f"There are {len(pictures)} pictures and {len(labels)} labels.")
        rows = np.flatnonzero(np.asarray(labels) >= 0)
        self.rows, self.pictures, self.momentum = rows, pictures, momentum
        plan = recipe.batch
        self.sampler = IdentitySampler(np.asarray(labels)[rows], plan.people, plan.each, None, recipe.seed, "drop")
        self.head = Head(self.network.dim, prototypes)
        self.teacher = copy.deepcopy(nn.Sequential(self.network, self.head)).requires_grad_(False)
        self.register_buffer("center", torch.zeros(prototypes))

    def before(self, step: int, average: Backbone) -> None:
        """The teacher follows the student."""
        if step:
            student = nn.Sequential(self.network, self.head)
            with torch.no_grad():
                for old, new in zip(self.teacher.parameters(), student.parameters(), strict=True):
                    old.lerp_(new, 1 - self.momentum)
                for old, new in zip(self.teacher.buffers(), student.buffers(), strict=True):
                    old.copy_(new)

    def loss(self, step: int) -> tuple[torch.Tensor, Parts]:
        """Two changes of a batch, by teacher and student."""
        rows = self.rows[self.sampler.batch(step)]
        pixels = torch.cat([self.pixels(self.pictures[rows]) for _ in range(2)])
        with torch.no_grad():
            scores = self.teacher(pixels)
        told = self.head(self.network(pixels))
        loss = identity_guided(
            (scores - self.center).unflatten(0, (2, -1)), told.unflatten(0, (2, -1)), self.recipe.batch.each
        )
        with torch.no_grad():
            self.center.lerp_(scores.mean(0), 0.1)
        return loss, {"distillation": loss.detach()}
