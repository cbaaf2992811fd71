"""Calibration: the threshold that lets in no more strangers than promised, found from the gallery's own people.

Every person plays the stranger once: compared with everybody else of the gallery, the nearest is the score that a
stranger of their kind would reach. The threshold is the distance that the wanted share of strangers stays under; that
share is called FPIR, the false positive identification rate.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipse.errors import GalleryError
from ipse.gallery.values import Grouping
from ipse.identity import Metric
from ipse.measure import bootstrap_ci

# Distances held at a time.
_BLOCK = 4_000_000
_CURVE = 200


@dataclass(frozen=True)
class Calibration:
    """A threshold and how far it can be trusted.

    Attributes
    ----------
    threshold
        Distance: of the strangers tried, no more than `fpir` came nearer to anybody.
    ci95
        95 % interval of the threshold: a bootstrap over people.
    fpir
        The false positive identification rate that was asked for, 0–1.
    fpir_upper
        Upper end of the one-sided 95 % interval of the rate that the threshold really has for people like these.
    people
        How many people the gallery had; the rate grows with their number.
    templates
        How many templates they had.
    strangers
        How many of them played the stranger.
    enough
        Whether there are enough people to promise the rate; see `people_needed`.
    grouping
        The grouping it holds for; see `ipse.gallery.Grouping`.
    date
        ISO 8601, UTC.
    curve
        The strangers' distances at evenly spaced shares from 0 to 1, ascending.
    note
        What to know before relying on it; empty if there is nothing.
    """

    threshold: float
    ci95: tuple[float, float]
    fpir: float
    fpir_upper: float
    people: int
    templates: int
    strangers: int
    enough: bool
    grouping: Grouping
    date: str
    curve: tuple[float, ...]
    note: str

    def confidence(self, distance: float) -> float:
        """The share of strangers, 0–1, who come out farther from everybody than `distance`."""
        return float(1 - np.interp(distance, self.curve, np.linspace(0, 1, len(self.curve)), left=0, right=1))

    def to_json(self) -> dict[str, Any]:
        """The calibration as JSON values."""
        return {**asdict(self), "ci95": list(self.ci95), "curve": list(self.curve)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Calibration:
        """Read what `to_json` wrote."""
        return cls(**{**values, "ci95": tuple(values["ci95"]), "curve": tuple(values["curve"])})


def people_needed(fpir: float) -> int:
    """How many strangers must be tried, all of them turned away, to promise a rate at 95 % confidence."""
    return math.ceil(math.log(0.05) / math.log1p(-fpir))


def distance_of(squared: npt.ArrayLike, metric: Metric) -> npt.NDArray[np.floating[Any]]:
    """The metric's distance from a squared Euclidean one; for ``cosine`` of vectors of length 1."""
    squared = np.maximum(squared, 0)
    return squared / 2 if metric == "cosine" else np.sqrt(squared)


def person_distances(
    squared: npt.NDArray[np.float32], starts: npt.NDArray[np.intp], grouping: Grouping, metric: Metric
) -> npt.NDArray[np.float32]:
    """Distances to people from squared distances to their templates.

    Parameters
    ----------
    squared
        (Q, N) squared Euclidean distances to templates, those of one person side by side.
    starts
        (P,) where each person begins, ascending, the first at 0.
    grouping
        How several become one.
    metric
        As in `ipse.Identity`.

    Returns
    -------
    numpy.ndarray
        (Q, P) distances of the metric.
    """
    if grouping == "best":
        return distance_of(np.minimum.reduceat(squared, starts, axis=1), metric)
    sizes = np.diff(np.append(starts, squared.shape[1]))
    distances = distance_of(squared, metric)
    if grouping == "mean":
        return np.add.reduceat(distances, starts, axis=1) / sizes
    person = np.repeat(np.arange(len(starts)), sizes)
    # Sorted by distance within each person, all but the first three count nothing.
    counted = np.arange(len(person)) - np.repeat(starts, sizes) < 3
    ordered = np.stack([row[np.lexsort((row, person))] for row in distances])
    return np.add.reduceat(np.where(counted, ordered, 0), starts, axis=1) / np.minimum(sizes, 3)


def stranger_distances(
    vectors: npt.NDArray[np.float32],
    person: npt.NDArray[np.intp],
    probes: npt.NDArray[np.intp],
    grouping: Grouping,
    metric: Metric,
) -> npt.NDArray[np.float32]:
    """How near each probe comes to the nearest person other than its own.

    Parameters
    ----------
    vectors
        (N, D), sorted by person.
    person
        (N,) ascending person numbers from 0 without gaps.
    probes
        (Q,) rows of `vectors` that play strangers.
    grouping, metric
        As in `person_distances`.

    Returns
    -------
    numpy.ndarray
        (Q,) distances of the metric.
    """
    starts = np.flatnonzero(np.diff(person, prepend=-1))
    lengths = np.einsum("nd,nd->n", vectors, vectors)
    nearest = np.empty(len(probes), np.float32)
    step = max(1, _BLOCK // len(vectors))
    for start in range(0, len(probes), step):
        rows = probes[start : start + step]
        squared = lengths[rows, None] + lengths - 2 * vectors[rows] @ vectors.T
        distances = person_distances(squared, starts, grouping, metric)
        distances[np.arange(len(rows)), person[rows]] = np.inf
        nearest[start : start + step] = distances.min(axis=1)
    return nearest


def calibrate(
    vectors: npt.NDArray[np.float32],
    person: npt.NDArray[np.intp],
    *,
    fpir: float,
    grouping: Grouping,
    metric: Metric,
    date: str,
    probes: int = 4000,
    seed: int = 0,
) -> Calibration:
    """Find the threshold for a wanted false positive identification rate.

    Parameters
    ----------
    vectors
        (N, D), sorted by person; of length 1 for ``cosine``.
    person
        (N,) ascending person numbers from 0 without gaps.
    fpir
        The wanted rate, over 0 and under 1.
    grouping, metric, date
        See `Calibration` and `ipse.Identity`.
    probes
        The most templates that play strangers; drawn at random, person by person, where there are more.
    seed
        Of the draw and the bootstrap.

    Raises
    ------
    GalleryError
        If there are fewer than three people (reason ``too-few``).
    ValueError
        If the rate is not between 0 and 1.
    """
    if not 0 < fpir < 1:
        raise ValueError(f"A false positive identification rate is between 0 and 1, not {fpir}.")
    people = int(person[-1]) + 1 if len(person) else 0
    if people < 3:
        raise GalleryError(
            f"A calibration compares people with each other, and there are {people}.",
            f"Enroll more; {people_needed(fpir)} allow to promise a false positive rate of {fpir:.2%}.",
            reason="too-few",
        )
    generator = np.random.default_rng(seed)
    order = generator.permutation(people)
    shuffled = np.argsort(np.argsort(order)[person], kind="stable")
    drawn = np.sort(shuffled[:probes])
    distances = stranger_distances(vectors, person, drawn, grouping, metric).astype(np.float64)
    who, count = np.unique(person[drawn], return_inverse=True)
    weights = 1 / np.bincount(count)[count]
    strangers = len(who)
    rows = np.stack([distances, weights], axis=1)
    threshold = _under(rows, fpir)
    low, high = bootstrap_ci(rows, count, n=500, seed=seed, statistic=lambda sample: _under(sample, fpir))
    upper = _rate_upper(float(weights[distances <= threshold].sum()), strangers)
    needed = people_needed(fpir)
    enough = strangers >= needed
    note = ""
    if not enough:
        note = (
            f"{strangers} people are too few to promise a false positive rate of {fpir:.2%}: it may be up to "
            f"{upper:.1%}. {needed} people would do."
        )
    order = np.argsort(distances)
    share = (np.cumsum(weights[order]) - weights[order] / 2) / weights.sum()
    curve = np.interp(np.linspace(0, 1, _CURVE + 1), share, distances[order])
    return Calibration(
        threshold,
        (low, high),
        fpir,
        upper,
        people,
        len(vectors),
        strangers,
        enough,
        grouping,
        date,
        tuple(np.maximum.accumulate(np.round(curve, 6)).tolist()),
        note,
    )


def _under(rows: npt.NDArray[np.float64], fpir: float) -> float:
    """The largest distance that at most this share of (distance, weight) rows reaches, just under the next one."""
    ordered = rows[np.argsort(rows[:, 0], kind="stable")]
    share = np.cumsum(ordered[:, 1]) / ordered[:, 1].sum()
    first_over = min(int(np.searchsorted(share, fpir * (1 + 1e-9), side="right")), len(ordered) - 1)
    return float(np.nextafter(ordered[first_over, 0], -np.inf))


def _rate_upper(accepted: float, strangers: int) -> float:
    """Upper end of the one-sided 95 % Clopper-Pearson interval of accepted / strangers."""
    from scipy.stats import beta

    return float(beta.ppf(0.95, accepted + 1, max(strangers - accepted, 1e-9)))
