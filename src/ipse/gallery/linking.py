"""Jaccard distances of neighborhoods as a sparse matrix: what groups pictures of people whom nobody labeled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ipse.gallery.rerank import MEMORY_MIB, Neighborhood, _described, _terms
from ipse.measure.distances import blocks

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def linked(features: Any, largest: float, k1: int = 30, k2: int = 6, memory_mib: float = MEMORY_MIB) -> csr_matrix:
    """Jaccard distances between the k-reciprocal neighborhoods of features, where they are small.

    They are those of `ipse.gallery.rerank.KReciprocal` within one set and without a share of the original distance.
    Clustering by them is how most of re-identification without labels finds its people; `sklearn.cluster.DBSCAN` takes
    the matrix as ``precomputed``.

    Parameters
    ----------
    features
        (N, D), array or tensor, compared by cosine; N is more than k1.
    largest
        Greater distances are left out; from 0 to below 1.
    k1, k2
        As in `KReciprocal`.
    memory_mib
        Limit of the distances held at a time.

    Returns
    -------
    scipy.sparse.csr_matrix
        (N, N) float32; no feature's distance to itself is in it.

    Raises
    ------
    ValueError
        If there are too few features, or `largest` is out of range.
    """
    from scipy.sparse import csr_matrix

    every = Neighborhood.of(features, "cosine", k1 + 1, memory_mib)
    count = len(every.features)
    if count <= k1 or not 0 <= largest < 1:
        raise ValueError(f"{count} features have no {k1} neighbors each, or {largest} is not from 0 to below 1.")
    described = _described(every, k1, k2)
    holders = described.tocsc()
    rows: list[npt.NDArray[np.intp]] = []
    columns: list[npt.NDArray[np.intp]] = []
    values: list[npt.NDArray[np.float32]] = []
    for start, stop in blocks((count, count), memory_mib):
        shared = np.zeros((stop - start) * count, np.float32)
        for places, terms in _terms(described, holders, start, stop):
            np.add.at(shared, places, terms)
        tile = 1 - (shared / (2 - shared)).reshape(-1, count)
        tile[np.arange(stop - start), np.arange(start, stop)] = np.inf
        row, column = np.nonzero(tile <= largest)
        rows.append(start + row)
        columns.append(column)
        # A stored zero would count as no entry.
        values.append(np.maximum(tile[row, column], np.float32(1e-6)))
    entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    return csr_matrix(entries, (count, count))
