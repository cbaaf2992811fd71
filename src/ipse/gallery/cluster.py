"""Sorting faces into people nobody has named, without a table of all against all."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Rows compared with all others at a time: memory is this times the number of faces.
_BLOCK = 512
# Neighbors kept of each face: enough to hold a person together, few enough for a wedding.
_NEIGHBORS = 64
# Within a group of this many faces all pairs are compared (64 MB); in a larger one only neighbors are.
_DENSE = 4000
# Faces of a quality under this found no group: poor pictures of different people are alike in being poor.
_POOR = 0.15
# They join a group whose middle is nearer than this share of the largest mean distance.
_SURE = 0.8


def cluster(
    vectors: npt.NDArray[np.float32],
    *,
    near: float,
    metric: str = "l2",
    quality: npt.NDArray[np.floating] | None = None,
) -> npt.NDArray[np.intp]:
    """Group vectors so that within a group they are near to each other on average (average linkage).

    Average linkage merges groups while their mean distance stays under `near`. No two groups can be joined without one
    pair that near, so faces are first joined to their neighbors within `near`; each connected part is then sorted by
    itself, so that memory grows with the number of faces and not with its square.

    Parameters
    ----------
    vectors
        (N, D).
    near
        The largest mean distance within a group, in the metric's terms.
    metric
        ``"l2"`` or ``"cosine"`` (distance 1 − cosine).
    quality
        (N,) from 0 to 1; faces of little quality join the groups of others, or stay alone.

    Returns
    -------
    numpy.ndarray
        (N,) group numbers, 0 the largest group; those of equal size in the order of their first member.
    """
    rows = np.asarray(vectors, np.float32)
    count = len(rows)
    if count == 0:
        return np.empty(0, np.intp)
    # On unit vectors 1 − cosine is half the squared Euclidean distance, so both metrics share one path.
    if metric == "cosine":
        rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        near = float(np.sqrt(2 * near))
    good = np.ones(count, bool) if quality is None else np.asarray(quality) >= _POOR
    labels = np.empty(count, np.intp)
    labels[good] = _linked(rows[good], near)
    labels[~good] = _joined(rows[~good], rows[good], labels[good], _SURE * near)
    return _by_size(labels)


def _joined(
    poor: npt.NDArray[np.float32], rows: npt.NDArray[np.float32], labels: npt.NDArray[np.intp], near: float
) -> npt.NDArray[np.intp]:
    """The group of each poor face: the one whose middle is nearest, or a new one."""
    groups = int(labels.max(initial=-1)) + 1
    alone = groups + np.arange(len(poor))
    if not groups or not len(poor):
        return alone
    middles = np.zeros((groups, rows.shape[1]), np.float32)
    np.add.at(middles, labels, rows)
    middles /= np.bincount(labels)[:, None]
    square = np.einsum("ij,ij->i", middles, middles)
    chosen = np.empty(len(poor), np.intp)
    for start in range(0, len(poor), _BLOCK):
        block = poor[start : start + _BLOCK]
        apart = square - 2 * block @ middles.T + np.einsum("ij,ij->i", block, block)[:, None]
        nearest = apart.argmin(1)
        is_near = apart[np.arange(len(block)), nearest] <= near**2
        chosen[start : start + _BLOCK] = np.where(is_near, nearest, alone[start : start + _BLOCK])
    return chosen


def _linked(rows: npt.NDArray[np.float32], near: float) -> npt.NDArray[np.intp]:
    """Average linkage, one connected part after the other; group numbers without gaps."""
    from scipy.sparse.csgraph import connected_components

    labels = np.empty(len(rows), np.intp)
    if not len(rows):
        return labels
    graph = neighbor_graph(rows, near)
    _, part = connected_components(graph, directed=False)
    used = 0
    order = np.argsort(part, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(part[order])) + 1):
        mine = _within(rows[members], near, graph[members][:, members] if len(members) > _DENSE else None)
        labels[members] = used + mine
        used += int(mine.max()) + 1
    return labels


def neighbor_graph(rows: npt.NDArray[np.float32], near: float):
    """A sparse (N, N) matrix of the Euclidean distances to each row's nearest neighbors within `near`."""
    from scipy.sparse import coo_matrix

    count = len(rows)
    square = np.einsum("ij,ij->i", rows, rows)
    starts, ends, distances = [], [], []
    for start in range(0, count, _BLOCK):
        block = rows[start : start + _BLOCK]
        apart = square[start : start + _BLOCK, None] + square - 2 * block @ rows.T
        apart[np.arange(len(block)), np.arange(start, start + len(block))] = np.inf
        if count > _NEIGHBORS + 1:
            nearest = np.argpartition(apart, _NEIGHBORS, axis=1)[:, :_NEIGHBORS]
        else:
            nearest = np.broadcast_to(np.arange(count), (len(block), count))
        found = np.take_along_axis(apart, nearest, 1)
        row, column = np.nonzero(found <= near**2)
        starts.append(start + row)
        ends.append(nearest[row, column])
        # A stored zero would count as no edge.
        distances.append(np.sqrt(np.maximum(found[row, column], 1e-12)))
    joined = coo_matrix(
        (np.concatenate(distances), (np.concatenate(starts), np.concatenate(ends))), shape=(count, count)
    ).tocsr()
    return joined.maximum(joined.T)


def _within(rows: npt.NDArray[np.float32], near: float, graph) -> npt.NDArray[np.intp]:
    """Average linkage within one connected part."""
    if len(rows) == 1:
        return np.zeros(1, np.intp)
    if graph is None:
        from scipy.cluster.hierarchy import fcluster, linkage

        return fcluster(linkage(rows, "average"), near, "distance") - 1
    from sklearn.cluster import AgglomerativeClustering

    model = AgglomerativeClustering(n_clusters=None, distance_threshold=near, linkage="average", connectivity=graph)
    return model.fit_predict(rows)


def _by_size(labels: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Renumber groups, the largest first."""
    _, first, index, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(sizes), np.intp)
    rank[np.lexsort((first, -sizes))] = np.arange(len(sizes))
    return rank[index]
