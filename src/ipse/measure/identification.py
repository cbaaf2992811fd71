"""Open-set identification: finding those who are enrolled, and turning away those who are not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ipse.measure.distances import MEMORY_MIB, DistanceSource, blocks
from ipse.measure.evidence import bootstrap_ci
from ipse.measure.verification import allowed


@dataclass(frozen=True)
class OpenSet:
    """What a search in the gallery gave each query.

    Attributes
    ----------
    mated
        (Q,) whether the query's person is enrolled.
    nearest
        (Q,) distance of the nearest image of anybody.
    own
        (Q,) distance of the nearest image of the query's own person; ∞ for those who are not enrolled.
    rank
        (Q,) place of the own person among all people, from 1; 0 for those who are not enrolled. At equal distance
        others come first.
    person
        (Q,) who the queries are.
    """

    mated: npt.NDArray[np.bool_]
    nearest: npt.NDArray[np.float64] = field(repr=False)
    own: npt.NDArray[np.float64] = field(repr=False)
    rank: npt.NDArray[np.intp] = field(repr=False)
    person: npt.NDArray[Any] = field(repr=False)

    def threshold(self, fpir: float) -> float:
        """The largest distance to accept so that no more than a share of the strangers finds anybody.

        Parameters
        ----------
        fpir
            False positive identification rate, from 0 to under 1.

        Raises
        ------
        ValueError
            If there are too few strangers to know.
        """
        strangers = np.sort(self.nearest[~self.mated])
        if not 0 <= fpir < 1:
            raise ValueError(f"A false positive identification rate is from 0 to under 1, not {fpir}.")
        first = allowed(fpir, len(strangers))
        if not len(strangers) or (fpir and not first):
            needed = int(np.ceil(1 / fpir)) if fpir else 1
            raise ValueError(
                f"{len(strangers):,} queries of people who are not in the gallery cannot show a false positive "
                f"identification rate of {fpir:g}; at least {needed:,} can."
            )
        return float(np.nextafter(strangers[first], -np.inf))

    def dir_at_fpir(self, fpir: float, rank: int = 1) -> float:
        """The detection and identification rate, 0–1 (Phillips, Grother and Micheals 2011).

        Parameters
        ----------
        fpir
            As in `threshold`.
        rank
            The own person must be among so many nearest people, and no farther than the threshold.

        Raises
        ------
        ValueError
            If there are too few strangers, or nobody who is enrolled.
        """
        return float(self._identified(self.threshold(fpir), rank).mean())

    def interval(self, fpir: float, rank: int = 1, n: int = 500, seed: int = 0) -> tuple[float, float]:
        """The 95 % interval of `dir_at_fpir` over identities; strangers are drawn too, so the threshold varies.

        A draw whose strangers cannot show the rate takes the nearest of them as the limit.
        """
        whole = self.dir_at_fpir(fpir, rank)
        rows = np.stack([self.mated, self.nearest, self.own, self.rank], axis=1).astype(np.float64)

        def rate(sample: npt.NDArray[np.float64]) -> float:
            mated = sample[:, 0] > 0
            # A draw without either kind, rare unless there are very few, says nothing.
            if not mated.any() or mated.all():
                return whole
            strangers = np.sort(sample[~mated, 1])
            limit = strangers[allowed(fpir, len(strangers))]
            found = sample[mated]
            return float(np.mean((found[:, 2] < limit) & (found[:, 3] <= rank)))

        return bootstrap_ci(rows, self.person, n, seed, rate)

    def _identified(self, threshold: float, rank: int) -> npt.NDArray[np.bool_]:
        if not self.mated.any():
            raise ValueError("No query's person is in the gallery, so nobody can be identified.")
        return (self.own[self.mated] <= threshold) & (self.rank[self.mated] <= rank)


def open_set(
    distances: DistanceSource, query: npt.ArrayLike, gallery: npt.ArrayLike, memory_mib: float = MEMORY_MIB
) -> OpenSet:
    """Search everybody in the gallery. A person is as near as their nearest image.

    Parameters
    ----------
    distances
        (Q, G).
    query
        (Q,) people of the queries, enrolled or not.
    gallery
        (G,) people of the gallery.
    memory_mib
        Limit of the distances held at a time.

    Raises
    ------
    ValueError
        If lengths do not fit, the gallery is empty, or a distance is not a number.
    """
    ours, theirs = np.asarray(query), np.asarray(gallery)
    if (len(ours), len(theirs)) != tuple(distances.shape) or not len(theirs):
        raise ValueError(f"Distances have shape {tuple(distances.shape)} for {len(ours)} and {len(theirs)} people.")
    names, index = np.unique(theirs, return_inverse=True)
    order = np.argsort(index, kind="stable")
    starts = np.flatnonzero(np.diff(index[order], prepend=-1))
    place = np.minimum(np.searchsorted(names, ours), len(names) - 1)
    mated = names[place] == ours
    nearest, own = np.empty(len(ours)), np.full(len(ours), np.inf)
    rank = np.zeros(len(ours), np.intp)
    for start, stop in blocks(distances.shape, memory_mib):
        tile = distances.rows(start, stop)
        tile = tile if isinstance(tile, np.ndarray) else tile.cpu().numpy()
        people = np.minimum.reduceat(tile[:, order], starts, axis=1)
        if np.isnan(people).any():
            raise ValueError(f"Distances of queries {start} to {stop - 1} are not all numbers.")
        nearest[start:stop] = people.min(axis=1)
        rows = np.flatnonzero(mated[start:stop])
        mine = people[rows, place[start:stop][rows]]
        own[start + rows] = mine
        rank[start + rows] = (people[rows] <= mine[:, None]).sum(axis=1)
    return OpenSet(mated, nearest, own, rank, ours)
