"""The neighbor graph of a gallery: pictures are nodes, and who is near whom are edges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ipse.errors import DataError
from ipse.gallery.rerank import MEMORY_MIB, neighbors, prepared

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def nearest_graph(features: Any, k: int = 10, memory_mib: float = MEMORY_MIB) -> csr_array:
    """Each picture joined to the `k` nearest by cosine, both ways.

    Parameters
    ----------
    features
        (N, D), array or tensor.
    k
        Neighbors of each; those that have it among theirs come to it.
    memory_mib
        Limit of the distances held at a time; the graph has up to 2 · N · k entries.

    Returns
    -------
    scipy.sparse.csr_array
        (N, N) symmetric float64, cosines from 0 to 1 as weights, without loops.

    Raises
    ------
    ValueError
        If there are no more than k features.
    """
    from scipy.sparse import coo_array

    found = prepared(features, "cosine")
    near, cosine = neighbors(found, found, k, memory_mib, itself=True)
    rows = np.repeat(np.arange(len(found)), k)
    # A weight of zero would be no edge, and a node without edges no place to walk from.
    weights = np.clip(cosine.reshape(-1).astype(np.float64), 1e-6, 1)
    one_way = coo_array((weights, (rows, near.reshape(-1))), shape=(len(found),) * 2).tocsr()
    return one_way.maximum(one_way.T).tocsr()


def transitions(graph: Any) -> csr_array:
    """The chances of a random walker: a graph with rows that sum to 1.

    Parameters
    ----------
    graph
        (N, N) sparse matrix of weights from 0 up; every node has an edge.

    Returns
    -------
    scipy.sparse.csr_array
        (N, N) float64.

    Raises
    ------
    DataError
        If the matrix is not square, a weight is negative, or a node has no edge.
    """
    from scipy.sparse import csr_array, diags_array

    found = csr_array(graph, dtype=np.float64)
    if found.shape[0] != found.shape[1] or (found.nnz and not found.data.min() >= 0):
        raise DataError(f"A graph of shape {found.shape} cannot be walked.", "Give (N, N) weights from 0 up.")
    degree = found.sum(axis=1)
    if not (degree > 0).all():
        raise DataError(f"Node {int((degree <= 0).argmax())} has no edge.", "Leave out nodes that nothing leads to.")
    return csr_array(diags_array(1 / degree) @ found)


def random_walks(graph: Any, walks: int, length: int, seed: int = 0) -> npt.NDArray[np.intp]:
    """Where random walkers go, one step after the other by the chances of `transitions`.

    Parameters
    ----------
    graph
        (N, N) sparse matrix, as for `transitions`.
    walks
        From every node.
    length
        Nodes of a walk, its start included.
    seed
        Another one gives other walks.

    Returns
    -------
    numpy.ndarray
        (N, walks, length) nodes.

    Raises
    ------
    DataError
        If the graph cannot be walked.
    """
    steps, draw = transitions(graph), np.random.default_rng(seed)
    count = steps.shape[0]
    of_row = np.repeat(np.arange(count), np.diff(steps.indptr))
    # The chances of a row climb from its number to the next, so that one sorted search serves all walkers.
    total = np.concatenate([[0.0], np.cumsum(steps.data)])
    ladder = of_row + total[1:] - total[steps.indptr[of_row]]
    paths = np.empty((count * walks, length), np.intp)
    paths[:, 0] = np.repeat(np.arange(count), walks)
    for step in range(1, length):
        here = paths[:, step - 1]
        found = np.searchsorted(ladder, here + draw.random(len(here)))
        # Rounding may put a step beyond the ends of its row.
        paths[:, step] = steps.indices[np.clip(found, steps.indptr[here], steps.indptr[here + 1] - 1)]
    return paths.reshape(count, walks, length)
