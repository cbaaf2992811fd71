"""Templates of parts of a body, compared by the parts that both pictures show.

Where somebody's legs are hidden, nothing is to be learned from how unlike they are to anybody's. So part stands against
the same part, and only where both are visible.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ipse.measure.distances import as_features


class VisibleParts:
    """The mean Euclidean distance over parts that both show, computed when rows are asked for; from 0 to 2.

    Somers et al., WACV 2023 (BPBreID), as in the published code.

    Parameters
    ----------
    query, gallery
        (Q, K, D) and (G, K, D), one vector of any length for each part; a part of zeros is not visible. Templates
        without a part in common are as far apart as can be.

    Raises
    ------
    ValueError
        If shapes do not fit.
    """

    def __init__(self, query: npt.ArrayLike, gallery: npt.ArrayLike) -> None:
        self.query, self.gallery = _prepared(query, "query"), _prepared(gallery, "gallery")
        if self.query.shape[1:] != self.gallery.shape[1:]:
            raise ValueError(
                f"Queries have parts of shape {self.query.shape[1:]} and the gallery {self.gallery.shape[1:]}: are "
                "they of one encoder?"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Q and G."""
        return len(self.query), len(self.gallery)

    def select(self, query: npt.NDArray[np.intp], gallery: npt.NDArray[np.intp]) -> VisibleParts:
        """The same for some of the queries and some of the gallery."""
        return VisibleParts(self.query[query], self.gallery[gallery])

    def rows(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """(stop - start, G) distances; see `ipse.measure.distances.DistanceSource`."""
        total = np.zeros((stop - start, len(self.gallery)), np.float32)
        count = np.zeros_like(total)
        for part in range(self.query.shape[1]):
            ours, theirs = self.query[start:stop, part], self.gallery[:, part]
            both = ours.any(1)[:, None] & theirs.any(1)
            total += both * np.sqrt(np.maximum(2 - 2 * ours @ theirs.T, 0))
            count += both
        return np.where(count > 0, total / np.maximum(count, 1), np.float32(2))


def _prepared(parts: Any, name: str) -> npt.NDArray[np.float32]:
    found = np.asarray(parts)
    if found.ndim != 3:
        raise ValueError(f"The {name} has shape {found.shape}; templates of parts are (number, parts, dimensions).")
    vectors = as_features(found.reshape(-1, found.shape[2]), name).reshape(found.shape)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=2, keepdims=True), 1e-12)
