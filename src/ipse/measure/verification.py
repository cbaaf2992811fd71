"""Verification: are two pictures of the same person? Figures from the distances of same and different pairs.

Everywhere two pictures are accepted as one person's if their distance is at most the threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipse.measure.distances import MEMORY_MIB, DistanceSource, blocks
from ipse.measure.evidence import bootstrap_ci


@dataclass(frozen=True)
class Roc:
    """What acceptance costs at every threshold that makes a difference.

    Attributes
    ----------
    thresholds
        (T,) ascending distances, the first −∞.
    far
        (T,) false acceptance rate (FMR), 0–1: the share of different pairs accepted.
    tar
        (T,) true acceptance rate, 0–1: the share of same pairs accepted.
    """

    thresholds: npt.NDArray[np.float64]
    far: npt.NDArray[np.float64]
    tar: npt.NDArray[np.float64]

    @property
    def frr(self) -> npt.NDArray[np.float64]:
        """(T,) false rejection rate (FNMR), 0–1; a DET curve shows it over `far`, as a rule on normal deviates."""
        return 1 - self.tar

    def auc(self) -> float:
        """The area under the curve, 0–1: how often a same pair is nearer than a different one, ties counting half."""
        return float(np.trapezoid(np.append(self.tar, 1.0), np.append(self.far, 1.0)))

    def eer(self) -> float:
        """The equal error rate; see `equal_error_rate`."""
        # The difference falls from 1 to -1; the rates meet where it crosses zero.
        gap = self.frr - self.far
        i = int(np.argmax(gap <= 0))
        t = gap[i - 1] / (gap[i - 1] - gap[i])
        return float(self.frr[i - 1] + t * (self.frr[i] - self.frr[i - 1]))


def roc(same: npt.ArrayLike, different: npt.ArrayLike) -> Roc:
    """The receiver operating characteristic.

    Parameters
    ----------
    same
        (N,) distances between pictures of the same person; small means alike.
    different
        (M,) distances between pictures of different people.

    Raises
    ------
    ValueError
        If one of the two is empty or holds a number that is not finite.
    """
    genuine, impostor = _sorted(same, "same"), _sorted(different, "different")
    thresholds = np.concatenate([[-np.inf], np.unique(np.concatenate([genuine, impostor]))])
    accepted = (np.searchsorted(d, thresholds, side="right") / len(d) for d in (impostor, genuine))
    return Roc(thresholds, *accepted)


def all_pairs(
    distances: DistanceSource,
    query: npt.ArrayLike,
    gallery: npt.ArrayLike | None = None,
    memory_mib: float = MEMORY_MIB,
) -> Roc:
    """The characteristic of all queries against all of a gallery, without a matrix of them.

    Thresholds are the distances of same pairs only, where the true acceptance rate changes; between them just the
    false acceptance rate grows, so `tar_at_far` and the equal error rate lose nothing that matters.

    Parameters
    ----------
    distances
        (Q, G).
    query
        (Q,) people of the queries.
    gallery
        (G,) people of the gallery; without it the two are the same pictures, and each pair counts once.
    memory_mib
        Limit of the distances held at a time; same pairs come to it.

    Raises
    ------
    ValueError
        If there are no pairs of a kind, or a distance is not finite.
    """
    ours = np.asarray(query)
    theirs = ours if gallery is None else np.asarray(gallery)
    if (len(ours), len(theirs)) != tuple(distances.shape):
        raise ValueError(f"Distances have shape {tuple(distances.shape)} for {len(ours)} and {len(theirs)} people.")

    def tiles():
        for start, stop in blocks(distances.shape, memory_mib):
            tile = distances.rows(start, stop)
            tile = tile if isinstance(tile, np.ndarray) else tile.cpu().numpy()
            alike = ours[start:stop, None] == theirs
            wanted = np.ones_like(alike)
            if gallery is None:
                wanted = np.arange(len(theirs)) > np.arange(start, stop)[:, None]
            yield tile[alike & wanted], tile[~alike & wanted]

    genuine = _sorted(np.concatenate([same for same, _ in tiles()] or [[]]), "same")
    thresholds = np.unique(genuine).astype(np.float32)
    below = np.zeros(len(thresholds) + 1, np.int64)
    for _, different in tiles():
        if not np.isfinite(different).all():
            raise ValueError("Distances of different pairs are not all finite; leave out the pairs without one.")
        below += np.bincount(np.searchsorted(thresholds, different), minlength=len(below))
    if not below.sum():
        raise ValueError("There are no distances of different pairs; an error rate needs both kinds.")
    far = np.cumsum(below)[:-1] / below.sum()
    tar = np.searchsorted(genuine, thresholds, side="right") / len(genuine)
    return Roc(np.append(-np.inf, thresholds), np.append(0.0, far), np.append(0.0, tar))


def equal_error_rate(same: npt.ArrayLike, different: npt.ArrayLike) -> float:
    """The error where false rejections and false acceptances meet.

    Parameters
    ----------
    same
        (N,) distances between pictures of the same person; small means alike.
    different
        (M,) distances between pictures of different people.

    Returns
    -------
    float
        0..1. Between two thresholds the rates are interpolated linearly, so that the figure does not depend on which
        side is taken.

    Raises
    ------
    ValueError
        If one of the two is empty or holds a number that is not finite.
    """
    return roc(same, different).eer()


def threshold_at_far(different: npt.ArrayLike, far: float) -> float:
    """The largest distance to accept so that no more than a share of different pairs is accepted.

    Parameters
    ----------
    different
        (M,) distances between pictures of different people.
    far
        The share, from 0 to under 1.

    Returns
    -------
    float
        Just under the distance of the first pair that must be refused.

    Raises
    ------
    ValueError
        If fewer than one pair may be accepted: there are too few pairs to know.
    """
    impostor = _sorted(different, "different")
    if not 0 <= far < 1:
        raise ValueError(f"A false acceptance rate is from 0 to under 1, not {far}.")
    if far and not allowed(far, len(impostor)):
        raise ValueError(
            f"{len(impostor):,} different pairs cannot show a false acceptance rate of {far:g}; at least "
            f"{int(np.ceil(1 / far)):,} can."
        )
    return float(np.nextafter(impostor[allowed(far, len(impostor))], -np.inf))


def allowed(rate: float, count: int) -> int:
    """How many of a number may be accepted at a rate."""
    # A share such as 0.3 of 10 must not become 2.9999.
    return int(rate * count + 1e-9)


def tar_at_far(same: npt.ArrayLike, different: npt.ArrayLike, far: float) -> float:
    """The share of same pairs accepted, 0–1, at `threshold_at_far`.

    Raises
    ------
    ValueError
        If there are too few different pairs, none of a kind, or a number is not finite.
    """
    threshold = threshold_at_far(different, far)
    return float(np.mean(_sorted(same, "same") <= threshold))


@dataclass(frozen=True)
class Calibrated:
    """A threshold found on some pairs.

    Attributes
    ----------
    threshold
        Distance up to which two pictures are accepted as one person's.
    ci95
        95 % interval of the threshold, a bootstrap over people.
    """

    threshold: float
    ci95: tuple[float, float]


def calibrate(different: npt.ArrayLike, people: npt.ArrayLike, far: float, n: int = 500, seed: int = 0) -> Calibrated:
    """Find the threshold for a false acceptance rate, and how sure it is.

    Parameters
    ----------
    different
        (M,) distances between pictures of different people.
    people
        (M,) the person of each pair that the interval is over, as a rule that of its first picture.
    far
        The rate wanted, 0–1.
    n, seed
        As in `bootstrap_ci`.

    Raises
    ------
    ValueError
        If there are too few pairs, or fewer than two people.
    """
    values = np.asarray(different, np.float64)

    def threshold(sample: npt.NDArray[np.float64]) -> float:
        # A draw may have too few pairs to show the rate; that is part of the doubt.
        return float(np.partition(sample, allowed(far, len(sample)))[allowed(far, len(sample))])

    return Calibrated(threshold_at_far(values, far), bootstrap_ci(values, people, n, seed, threshold))


@dataclass(frozen=True)
class Folds:
    """Accuracy with the threshold of each fold chosen on all the others, as LFW is measured (Huang et al. 2007).

    Attributes
    ----------
    accuracy
        (F,) 0–1, by fold.
    thresholds
        (F,) chosen on the other folds.
    """

    accuracy: npt.NDArray[np.float64]
    thresholds: npt.NDArray[np.float64]

    @property
    def mean(self) -> float:
        """The mean accuracy, 0–1."""
        return float(self.accuracy.mean())

    @property
    def std(self) -> float:
        """The standard deviation over folds, with which it is reported; over √F it is the standard error."""
        return float(self.accuracy.std(ddof=1))


def fold_accuracy(distances: npt.ArrayLike, same: npt.ArrayLike, folds: npt.ArrayLike | int = 10) -> Folds:
    """Accuracy of telling same pairs from different ones.

    Parameters
    ----------
    distances
        (N,) of the pairs.
    same
        (N,) whether each shows one person.
    folds
        (N,) the fold of each, or how many folds to cut both kinds of pairs into, in their order.

    Raises
    ------
    ValueError
        If lengths differ, or there are fewer than two folds, or only pairs of one kind outside a fold.
    """
    values, truth = np.asarray(distances, np.float64), np.asarray(same, bool)
    if values.shape != truth.shape or values.ndim != 1:
        raise ValueError(f"Distances have shape {values.shape} and their truth {truth.shape}; both are (pairs,).")
    if not np.isfinite(values).all():
        raise ValueError("Distances are not all finite; count a pair without one as an error first.")
    if isinstance(folds, int):
        count, fold = folds, np.empty(len(values), np.intp)
        for kind in (True, False):
            fold[truth == kind] = np.arange((truth == kind).sum()) * count // max(1, (truth == kind).sum())
    else:
        fold = np.asarray(folds)
        if fold.shape != values.shape:
            raise ValueError(f"{len(fold)} folds for {len(values)} pairs; give one for each.")
    names = np.unique(fold)
    if len(names) < 2:
        raise ValueError("A threshold chosen on other folds needs at least two folds.")
    accuracy, thresholds = [], []
    for name in names:
        outside = fold != name
        threshold = best_threshold(values[outside & truth], values[outside & ~truth])
        thresholds.append(threshold)
        accuracy.append(np.mean((values[~outside] <= threshold) == truth[~outside]))
    return Folds(np.array(accuracy), np.array(thresholds))


def best_threshold(same: npt.ArrayLike, different: npt.ArrayLike) -> float:
    """The threshold with the fewest errors; in the middle between the distances that it separates.

    Raises
    ------
    ValueError
        If there are no pairs of a kind, or a number is not finite.
    """
    genuine, impostor = _sorted(same, "same"), _sorted(different, "different")
    steps = np.unique(np.concatenate([genuine, impostor]))
    right = np.searchsorted(genuine, steps, "right") + len(impostor) - np.searchsorted(impostor, steps, "right")
    best = int(np.argmax(right))
    return float(steps[best] if best + 1 == len(steps) else (steps[best] + steps[best + 1]) / 2)


@dataclass(frozen=True)
class GroupRate:
    """A rate in one group of people.

    Attributes
    ----------
    rate
        0–1.
    ci95
        95 % interval over people; None where there are fewer than two.
    pairs, people
        How many it is of.
    """

    rate: float
    ci95: tuple[float, float] | None
    pairs: int
    people: int


def fnmr_by_group(
    same: npt.ArrayLike, groups: npt.ArrayLike, people: npt.ArrayLike, threshold: float
) -> dict[str, GroupRate]:
    """The false non-match rate of each group at one threshold: who is turned away more often.

    Parameters
    ----------
    same
        (N,) distances of same pairs.
    groups
        (N,) such as an age group.
    people
        (N,) whose pair it is.
    threshold
        Largest distance that is accepted.
    """
    missed = (np.asarray(same, np.float64) > threshold).astype(float)
    group, who = np.asarray(groups), np.asarray(people)
    if not len(missed) == len(group) == len(who):
        raise ValueError(f"{len(missed)} distances, {len(group)} groups and {len(who)} people; give one of each.")
    found = {}
    for name in np.unique(group):
        mine = group == name
        count = len(np.unique(who[mine]))
        interval = bootstrap_ci(missed[mine], who[mine]) if count > 1 else None
        found[str(name)] = GroupRate(float(missed[mine].mean()), interval, int(mine.sum()), count)
    return found


def bootstrap_pairs(
    same: npt.ArrayLike,
    same_people: npt.ArrayLike,
    different: npt.ArrayLike,
    different_people: npt.ArrayLike,
    statistic: Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64]], float],
    n: int = 500,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95 % interval over identities of a figure of same and different pairs.

    People are drawn, and with them their pairs: a same pair as often as its person, a different pair as often as the
    first of its two people times the second.

    Parameters
    ----------
    same, same_people
        (N,) distances and whose they are.
    different, different_people
        (M,) distances and (M, 2) between whom.
    statistic
        Of same and different distances, such as `equal_error_rate`.
    n, seed
        As in `bootstrap_ci`.

    Raises
    ------
    ValueError
        If lengths do not fit or there are fewer than two people.
    """
    genuine, impostor = np.asarray(same, np.float64), np.asarray(different, np.float64)
    whose, between = np.asarray(same_people), np.asarray(different_people)
    if whose.shape != genuine.shape or between.shape != (len(impostor), 2):
        raise ValueError(f"People have shapes {whose.shape} and {between.shape}; give (N,) and (M, 2).")
    names, index = np.unique(np.concatenate([whose, between.reshape(-1)]), return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"An interval over identities needs at least two of them; there are {len(names)}.")
    mine, (one, other) = index[: len(genuine)], index[len(genuine) :].reshape(-1, 2).T
    generator = np.random.default_rng(seed)
    results = []
    while len(results) < n:
        drawn = np.bincount(generator.integers(0, len(names), len(names)), minlength=len(names))
        of_same, of_different = drawn[mine], drawn[one] * drawn[other]
        # A draw without a pair of a kind has no figure.
        if of_same.any() and of_different.any():
            results.append(statistic(np.repeat(genuine, of_same), np.repeat(impostor, of_different)))
    low, high = np.quantile(results, [0.025, 0.975])
    return float(low), float(high)


def _sorted(distances: npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
    values = np.sort(np.asarray(distances, np.float64).ravel())
    if not len(values):
        raise ValueError(f"There are no distances of {name} pairs; an error rate needs both kinds.")
    if not np.isfinite(values).all():
        raise ValueError(f"Distances of {name} pairs are not all finite; leave out the pairs without one.")
    return values
