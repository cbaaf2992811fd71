"""Distances from queries to a gallery, a few rows at a time: no matrix of all against all is ever held.

Whatever ranks or counts asks a `DistanceSource` for rows. One kind computes them from features, another cuts them out
of a matrix that exists already, and re-ranking (`ipse.gallery.rerank`) is a third.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ipse.identity import Metric

MEMORY_MIB = 16.0
"""What the rows of distances held at a time may take, unless told otherwise: about what a processor's cache holds."""


class DistanceSource(Protocol):
    """What gives rows of a (Q, G) matrix of distances."""

    @property
    def shape(self) -> tuple[int, int]:
        """Q and G."""

    def rows(self, start: int, stop: int) -> Any:
        """(stop - start, G) float32 of `start` to `stop`, which the caller may overwrite until it asks again.

        A NumPy array, or a tensor where the features are tensors on a device of their own.
        """

    def select(self, query: npt.NDArray[np.intp], gallery: npt.NDArray[np.intp]) -> DistanceSource:
        """The same for some of the queries and some of the gallery."""


class Features:
    """Distances between features, computed when rows are asked for.

    Parameters
    ----------
    query
        (Q, D): a NumPy array, or a torch tensor on any device. Numbers of another type are computed in float32.
    gallery
        (G, D), of the same kind.
    metric
        ``"cosine"``: 1 − cosine, from 0 to 2; ``"l2"``: Euclidean.
    ranks_only
        Leave out what changes no order within a row, the square root and the query's own length; distances are then
        only good for ranking.

    Raises
    ------
    ValueError
        If shapes do not fit, a number is not finite, or a feature without direction meets the cosine.
    """

    def __init__(self, query: Any, gallery: Any, metric: Metric = "cosine", *, ranks_only: bool = False) -> None:
        self.query, self.gallery = as_features(query, "query"), as_features(gallery, "gallery")
        self.metric, self.ranks_only = metric, ranks_only
        if metric not in ("cosine", "l2"):
            raise ValueError(f"The metric is 'cosine' or 'l2', not {metric!r}.")
        if self.query.shape[1] != self.gallery.shape[1]:
            raise ValueError(
                f"Queries have {self.query.shape[1]} numbers and the gallery {self.gallery.shape[1]}: are they "
                "features of one encoder?"
            )
        if type(self.query) is not type(self.gallery):
            raise ValueError("Queries and gallery are on different devices; move one of them.")
        self._lengths = self._squared(self.query), self._squared(self.gallery)
        for name, lengths in zip(("query", "gallery"), self._lengths, strict=True):
            # A sum of squares is finite exactly where all its numbers are (and none is of the order of 1e19).
            bad = ~(lengths < np.inf)
            if bool(bad.any()):
                raise ValueError(f"Feature {bad.tolist().index(True)} of the {name} is not finite.")
            if metric == "cosine" and len(lengths) and not bool((lengths > 0).all()):
                raise ValueError(f"A {name} feature of zeros has no direction, so the cosine metric cannot use it.")
        self._buffer = np.empty(0, np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        """Q and G."""
        return len(self.query), len(self.gallery)

    def select(self, query: npt.NDArray[np.intp], gallery: npt.NDArray[np.intp]) -> Features:
        """The same for some of the queries and some of the gallery."""
        return Features(self.query[query], self.gallery[gallery], self.metric, ranks_only=self.ranks_only)

    def rows(self, start: int, stop: int) -> Any:
        """(stop - start, G) distances; see `DistanceSource`."""
        if self.metric == "l2" and not self.ranks_only:
            distances = self.squared(start, stop)
            distances = distances.clip(0, None, **({"out": distances} if isinstance(distances, np.ndarray) else {}))
            distances **= 0.5
            return distances
        query, own, other = self.query[start:stop], self._lengths[0][start:stop], self._lengths[1]
        # The factor goes into the few queries, so that the many products need no pass of their own.
        if self.metric == "l2":
            distances = self._product(query * -2)
            distances += other
            return distances
        distances = self._product(query * (-1 / own**0.5)[:, None])
        distances /= other**0.5
        if not self.ranks_only:
            distances += 1
        return distances

    def squared(self, start: int, stop: int) -> Any:
        """(stop - start, G) squared Euclidean distances, whatever the metric, as `rows` gives distances.

        Rounding may make them less than zero.
        """
        distances = self._product(self.query[start:stop] * -2)
        distances += self._lengths[0][start:stop, None]
        distances += self._lengths[1]
        return distances

    def _product(self, query: Any) -> Any:
        if not isinstance(query, np.ndarray):
            return query @ self.gallery.T
        size = len(query) * len(self.gallery)
        if self._buffer.size < size:
            self._buffer = np.empty(size, np.float32)
        return np.matmul(query, self.gallery.T, out=self._buffer[:size].reshape(len(query), -1))

    @staticmethod
    def _squared(features: Any) -> Any:
        if isinstance(features, np.ndarray):
            return np.einsum("nd,nd->n", features, features)
        return (features * features).sum(1)


class Matrix:
    """Rows of a matrix of distances that exists already, such as one from a memory-mapped file.

    Parameters
    ----------
    distances
        (Q, G), a NumPy array or a torch tensor; small means alike. It is not changed.
    """

    def __init__(self, distances: Any) -> None:
        self.distances = _array(distances)
        if self.distances.ndim != 2:
            raise ValueError(f"A matrix of distances has two axes, (queries, gallery); this has {self.distances.ndim}.")
        self._buffer = np.empty(0, np.float32)

    @property
    def shape(self) -> tuple[int, int]:
        """Q and G."""
        return tuple(self.distances.shape)

    def select(self, query: npt.NDArray[np.intp], gallery: npt.NDArray[np.intp]) -> DistanceSource:
        """The same for some of the queries and some of the gallery."""
        return _Cut(self, query, gallery)

    def rows(self, start: int, stop: int) -> Any:
        """(stop - start, G) distances; see `DistanceSource`."""
        rows = self.distances[start:stop]
        if not isinstance(rows, np.ndarray):
            return rows.float().clone()
        if self._buffer.size < rows.size:
            self._buffer = np.empty(rows.size, np.float32)
        copy = self._buffer[: rows.size].reshape(rows.shape)
        np.copyto(copy, rows, casting="same_kind")
        return copy


class _Cut:
    """Some rows and columns of a matrix."""

    def __init__(self, matrix: Matrix, query: npt.NDArray[np.intp], gallery: npt.NDArray[np.intp]) -> None:
        self.matrix, self.query, self.gallery = matrix, query, gallery

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.query), len(self.gallery)

    def select(self, query: npt.NDArray[np.intp], gallery: npt.NDArray[np.intp]) -> _Cut:
        return _Cut(self.matrix, self.query[query], self.gallery[gallery])

    def rows(self, start: int, stop: int) -> Any:
        rows = self.matrix.distances[self.query[start:stop]][:, self.gallery]
        return rows.astype(np.float32, copy=False) if isinstance(rows, np.ndarray) else rows.float()


def blocks(shape: tuple[int, int], memory_mib: float = MEMORY_MIB) -> Iterator[tuple[int, int]]:
    """Start and end of blocks of rows of a (Q, G) float32 matrix that keep within a limit, one row at least."""
    if not memory_mib > 0:
        raise ValueError(f"Memory of {memory_mib} MiB holds no distances.")
    step = max(1, int(memory_mib * 2**20 / 4 / max(1, shape[1])))
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


def nearest(tile: npt.NDArray[np.float32], k: int) -> Iterator[npt.NDArray[np.intp]]:
    """For each row of (B, G) distances the columns of the `k` smallest, and some more, ascending; `k` is from 1 to G.

    Whatever equals the k-th smallest is among them.
    """
    parts = tile.shape[1] // 32
    if parts > k:
        # The smallest of every 32nd: the k-th of these is at least the k-th of all, and few numbers are under it.
        smallest = tile[:, : 32 * parts].reshape(len(tile), 32, parts).min(axis=1)
    else:
        smallest = tile
    limits = np.partition(smallest, k - 1, axis=1)[:, k - 1]
    for row, limit in zip(tile, limits, strict=True):
        yield (row <= limit).nonzero()[0]


def as_features(features: Any, name: str = "feature") -> Any:
    """(N, D) float32: a NumPy array, or a tensor if it is on a device other than the processor.

    Raises
    ------
    ValueError
        If it is not a matrix of numbers.
    """
    found = _array(features)
    if found.ndim != 2 or found.shape[1] == 0:
        raise ValueError(f"The {name} has shape {tuple(found.shape)}; features are (number, dimensions).")
    if isinstance(found, np.ndarray):
        if found.dtype.kind not in "fiu":
            raise ValueError(f"The {name} holds {found.dtype} and not numbers.")
        return np.ascontiguousarray(found, np.float32)
    return found.float()


def _array(values: Any) -> Any:
    """NumPy's view of an array or of a tensor in main memory; other tensors as they are."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        values = values.detach()
        if values.device.type != "cpu":
            return values
        # NumPy knows no bfloat16.
        return (values.float() if values.dtype is torch.bfloat16 else values).numpy()
    return np.asarray(values)
