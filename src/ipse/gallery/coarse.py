"""From coarse to fine: short embeddings choose a few candidates, and only those are compared by long ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ipse.errors import DataError
from ipse.measure.distances import Features, nearest


class CoarseToFine:
    """Cosine distances of a search in two stages: exact for the best candidates, all others behind them.

    The nearest by the short embeddings are compared by the long ones; the rest follow at distances of 2 and more, in
    the order of the short ones. Short embeddings may be the first numbers of the long ones, or come from an earlier
    exit of the network.

    Parameters
    ----------
    short, long
        (query, gallery) each: (Q, D) and (G, D) of any two lengths D.
    candidates
        How many are compared by the long ones.

    Raises
    ------
    DataError
        If the two are of different pictures, or there is no candidate.
    """

    def __init__(self, short: tuple[Any, Any], long: tuple[Any, Any], candidates: int = 50) -> None:
        self.short, self.long = Features(*short), Features(*long)
        if self.short.shape != self.long.shape or candidates < 1 or not self.short.shape[1]:
            raise DataError(
                f"Short embeddings are of {self.short.shape} pictures, long ones of {self.long.shape}; "
                f"{candidates} candidates.",
                "Give both of the same queries and gallery, and one candidate at least.",
            )
        self.candidates = min(candidates, self.short.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Q and G."""
        return self.short.shape

    def select(self, query: npt.NDArray[np.intp], gallery: npt.NDArray[np.intp]) -> CoarseToFine:
        """The same for some of the queries and some of the gallery."""
        pairs = [(each.query[query], each.gallery[gallery]) for each in (self.short, self.long)]
        return CoarseToFine(*pairs, self.candidates)

    def rows(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """(stop - start, G) distances; see `ipse.measure.distances.DistanceSource`."""
        distances = self.short.rows(start, stop) + 2
        for query, row in enumerate(distances, start):
            near = next(nearest(row[None], self.candidates))
            near = near[np.argsort(row[near], kind="stable")[: self.candidates]]
            row[near] = self.long.select(np.array([query]), near).rows(0, 1)[0]
        return distances

    def multiplications(self) -> float:
        """What a query costs: all by the short embeddings, the candidates by the long ones."""
        return float(self.shape[1] * self.short.query.shape[1] + self.candidates * self.long.query.shape[1])
