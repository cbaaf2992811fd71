"""SnP: the part of a pool that is worth training on for a place (Yao et al., CVPR 2023).

What one network tells best of a new place, it learns from people who look as those there do. Nobody there is labeled,
but pictures are there, and so is a pool of labeled people from everywhere. `search` puts the pool's identities into
groups of one size by their mean features, orders groups by the Fréchet distance of their pictures to those of the
place, and adds them one after the other as long as the whole is nearer than ever before. `prune` then cuts down to a
budget: of the identities some by chance, and of their pictures those that are farthest from each other, one of each
identity at least.

As in the published code, but for the groups of one size: the means of plain k-means, to which identities are assigned
at the least total distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipse.catalogue import system
from ipse.errors import TrainingError
from ipse.measure.frechet import frechet

Vectors = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes
    ----------
    identities
        Those of the nearest groups, as the pool names them.
    distances
        (G,) Fréchet distance of each group to the target.
    groups
        By group, its identities.
    """

    identities: npt.NDArray[Any]
    distances: npt.NDArray[np.float64]
    groups: tuple[npt.NDArray[Any], ...]

    @property
    def nearest(self) -> npt.NDArray[Any]:
        """All identities, those of the nearest groups first: what greedy sampling takes."""
        return np.concatenate([self.groups[i] for i in np.argsort(self.distances, kind="stable")])


def search(features: Vectors, identities: npt.ArrayLike, target: Vectors, groups: int = 50, seed: int = 0) -> Found:
    """Find the identities of a pool that together are most like a target.

    Parameters
    ----------
    features
        (N, D) of the pool's pictures; of any network that was not trained on the target's labels.
    identities
        (N,) who is on them; people of two sources need two names.
    target
        (M, D) of the target's pictures.
    groups
        How many groups of one size identities are put into.
    seed
        Of the groups, and of the pictures that are drawn where two sets must be equally large.

    Raises
    ------
    TrainingError
        If there are fewer identities than groups, or fewer pictures in a group than a covariance needs.
    """
    names, owner = np.unique(np.asarray(identities), return_inverse=True)
    if len(owner) != len(features):
        raise TrainingError(f"There are {len(features)} features and {len(owner)} identities; give one each.")
    if not 1 <= groups <= len(names):
        raise TrainingError(f"{len(names)} identities cannot be put into {groups} groups.", "Ask for fewer groups.")
    draw = np.random.default_rng(seed)
    means = np.zeros((len(names), features.shape[1]))
    np.add.at(means, owner, features)
    means /= np.bincount(owner)[:, None]
    group = _of_one_size(means, groups, seed)
    distances = np.array([_distance(features[group[owner] == g], target, draw) for g in range(groups)])
    chosen = np.zeros(groups, bool)
    best, kept = np.inf, chosen
    for g in np.argsort(distances, kind="stable"):
        chosen[g] = True
        distance = _distance(features[chosen[group[owner]]], target, draw)
        if distance < best:
            best, kept = distance, chosen.copy()
    return Found(names[kept[group]], distances, tuple(names[group == g] for g in range(groups)))


def _of_one_size(means: npt.NDArray[np.float64], groups: int, seed: int) -> npt.NDArray[np.intp]:
    """(I,) groups whose sizes differ by one at most."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist
    from sklearn.cluster import KMeans

    centers = KMeans(groups, n_init=4, random_state=seed).fit(means).cluster_centers_
    places = np.arange(len(means)) % groups
    _, place = linear_sum_assignment(cdist(means, centers, "sqeuclidean")[:, places])
    return places[place]


def _distance(features: Vectors, target: Vectors, draw: np.random.Generator) -> float:
    """Fréchet distance of equally many pictures, since it is greater for few."""
    count = min(len(features), len(target))
    if count < 2:
        raise TrainingError("A group has one picture, which has no distribution.", "Ask for fewer groups.")
    a, b = (draw.choice(len(side), count, replace=False) if len(side) > count else slice(None)
            for side in (features, target))  # fmt: skip
    return frechet(features[a], target[b])


def farthest(features: Vectors, first: npt.NDArray[np.intp], count: int) -> npt.NDArray[np.intp]:
    """Rows that lie far from each other: to those given, the one farthest from all that are taken is added, and so on.

    Parameters
    ----------
    features
        (N, D).
    first
        Rows to begin with, one at least.
    count
        Of rows in all; those to begin with all stay.
    """
    taken = list(first)
    near = np.full(len(features), np.inf)
    for row in taken:
        near = np.minimum(near, np.square(features - features[row]).sum(1))
    while len(taken) < min(count, len(features)):
        near[taken] = -1
        taken.append(int(near.argmax()))
        near = np.minimum(near, np.square(features - features[taken[-1]]).sum(1))
    return np.array(taken, np.intp)


@system(
    name="SnP",
    paper="Large-scale Training Data Search for Object Re-identification",
    year=2023,
    arxiv="2303.16186",
    room="training",
    claim="A training set found and pruned for an unlabeled place is a fifth of the pool, and trains encoders that are "
    "as good there or better.",
    evidence=["reid.snp.*"],
    works_means="Of a pool of six worlds, with one of them shifted as the target and no label of it: an encoder "
    "trained on the 20 % that were found has at least the mAP of one trained on all, and more than random and greedy "
    "samples of the same size.",
    status="experimental",
)
def prune(
    features: Vectors,
    identities: npt.ArrayLike,
    found: npt.ArrayLike,
    people: int,
    share: float = 1.0,
    seed: int = 0,
) -> npt.NDArray[np.intp]:
    """Cut what a search found down to a budget.

    Parameters
    ----------
    features, identities
        As in `search`.
    found
        Identities to choose from, such as `Found.identities`.
    people
        The most identities that stay; of more, some by chance.
    share
        Of their pictures that stay; one of each identity at least.
    seed
        Of the chance.

    Returns
    -------
    numpy.ndarray
        Rows of the pool, ascending.

    Raises
    ------
    TrainingError
        If nothing was found, or the budget makes no sense.
    """
    names = np.unique(np.asarray(found))
    if not len(names) or people < 1 or not 0 < share <= 1:
        raise TrainingError(
            f"{people} of {len(names)} identities with {share} of their pictures cannot be chosen.",
            "Give a number from 1, a share up to 1, and what a search found.",
        )
    draw = np.random.default_rng(seed)
    kept = names if people >= len(names) else draw.choice(names, people, replace=False)
    owner = np.asarray(identities)
    rows = np.flatnonzero(np.isin(owner, kept))
    if share == 1:
        return rows
    _, first = np.unique(owner[rows], return_index=True)
    return np.sort(rows[farthest(features[rows], first, round(share * len(rows)))])
