"""Templates of several vectors: parts of a picture, frames of a walk, pictures of a person.

Two templates are compared by the Chamfer similarity: every vector of the query takes its best match in the other.
`Chamfer` computes it over all pairs, which is exact and slow; `ipse.gallery.muvera` makes it fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipse.gallery.rerank import prepared, unit
from ipse.measure.distances import MEMORY_MIB, as_features, blocks


@dataclass(frozen=True)
class VectorSets:
    """S templates of one or more vectors each, side by side.

    Attributes
    ----------
    vectors
        (N, D) float32 of length 1, those of one template side by side.
    starts
        (S,) where each template begins; ascending, the first at 0.
    """

    vectors: npt.NDArray[np.float32]
    starts: npt.NDArray[np.intp]

    @classmethod
    def of(cls, sets: Sequence[npt.ArrayLike]) -> VectorSets:
        """Take S arrays of (n, D) each, or one array (S, n, D).

        Raises
        ------
        ValueError
            If there is none, one has no vectors, or a vector is of zeros.
        """
        found = [as_features(each, "template") for each in sets]
        sizes = np.array([len(each) for each in found], np.intp)
        if not len(sizes) or not sizes.all():
            raise ValueError("A template has one vector at least; leave out pictures that gave none.")
        vectors = np.concatenate(found)
        if not np.linalg.norm(vectors, axis=1).all():
            raise ValueError("A vector of zeros has no direction; leave it out of its template.")
        return cls(unit(vectors), np.cumsum(sizes) - sizes)

    @classmethod
    def grouped(cls, vectors: Any, group: npt.ArrayLike) -> tuple[VectorSets, npt.NDArray[Any]]:
        """Collect (N, D) vectors by (N,) groups: a template for each, and (S,) the group of each, ascending."""
        names, index = np.unique(np.asarray(group), return_inverse=True)
        order = np.argsort(index, kind="stable")
        sizes = np.bincount(index)
        return cls(prepared(vectors, "cosine")[order], np.cumsum(sizes) - sizes), names

    def __len__(self) -> int:
        """S."""
        return len(self.starts)

    @property
    def sizes(self) -> npt.NDArray[np.intp]:
        """(S,) vectors of each template."""
        return np.diff(self.starts, append=len(self.vectors))

    @property
    def owners(self) -> npt.NDArray[np.intp]:
        """(N,) the template of each vector."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def select(self, rows: npt.NDArray[np.intp]) -> VectorSets:
        """Some of the templates, in the given order."""
        sizes = self.sizes[rows]
        ends = np.cumsum(sizes)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)
        return VectorSets(self.vectors[np.repeat(self.starts[rows], sizes) + within], ends - sizes)

    def means(self) -> npt.NDArray[np.float32]:
        """(S, D) the mean of each template, of length 1: what a search by single vectors has."""
        return unit(np.add.reduceat(self.vectors, self.starts, axis=0))


class Chamfer:
    """Chamfer distances between templates, computed when rows are asked for.

    1 − the mean over the query's vectors of their largest cosine with a vector of the other: from 0 to 2, not
    symmetric. MUVERA (Dhulipala et al. 2024, section 1) has the sum in place of the mean, which orders an answer
    likewise.

    Parameters
    ----------
    query, gallery
        Q and G templates of vectors of one length.
    """

    def __init__(self, query: VectorSets, gallery: VectorSets) -> None:
        self.query, self.gallery = query, gallery
        if query.vectors.shape[1] != gallery.vectors.shape[1]:
            raise ValueError(
                f"Vectors of queries have {query.vectors.shape[1]} numbers and those of the gallery "
                f"{gallery.vectors.shape[1]}: are they of one encoder?"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Q and G."""
        return len(self.query), len(self.gallery)

    def select(self, query: npt.NDArray[np.intp], gallery: npt.NDArray[np.intp]) -> Chamfer:
        """The same for some of the queries and some of the gallery."""
        return Chamfer(self.query.select(query), self.gallery.select(gallery))

    def rows(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """(stop - start, G) distances; see `ipse.measure.distances.DistanceSource`.

        Beside the result, `MEMORY_MIB` of cosines are held at a time, or those of one query if they are more.
        """
        distances = np.empty((stop - start, len(self.gallery)), np.float32)
        largest = int(self.query.sizes[start:stop].max(initial=1))
        for first, last in blocks((stop - start, largest * len(self.gallery.vectors)), MEMORY_MIB):
            some = self.query.select(np.arange(start + first, start + last))
            cosines = np.maximum.reduceat(some.vectors @ self.gallery.vectors.T, self.gallery.starts, axis=1)
            distances[first:last] = 1 - np.add.reduceat(cosines, some.starts, axis=0) / some.sizes[:, None]
        return distances
