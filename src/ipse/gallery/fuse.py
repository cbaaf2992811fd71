"""Several references of one person fused into one vector, without those that are probably somebody else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

# A reference farther from the middle one than the median by this many (robust) standard deviations is left out.
_DEVIATIONS = 3.5
_MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True, eq=False)
class Fused:
    """What became of several references.

    Attributes
    ----------
    vector
        (D,) float32: the weighted mean of the references kept; of length 1 for ``cosine``.
    kept
        Indices of the references that went into it, ascending.
    rejected
        Reason by index of a reference that was left out.
    distances
        (N,) float32: of every reference to the vector.
    """

    vector: npt.NDArray[np.float32]
    kept: tuple[int, ...]
    rejected: dict[int, str]
    distances: npt.NDArray[np.float32]


def fuse(
    templates: npt.ArrayLike,
    quality: npt.ArrayLike | None = None,
    *,
    metric: Literal["cosine", "l2"] = "cosine",
    limit: float | None = None,
) -> Fused:
    """Fuse references of one person, weighted by quality, leaving out those that do not fit the others.

    The reference nearest to all others, counting better ones more, is taken for the person; whatever is too far from it
    is rejected.

    Parameters
    ----------
    templates
        (N, D), N ≥ 1.
    quality
        (N,) from 0 to 1; references of quality 0 are used only where there is nothing else.
    metric
        As in `ipse.Identity`.
    limit
        The distance at which two references stop being one person: the threshold of the gallery. Without it a
        reference is rejected where it stands out among at least four, so that nothing is rejected among fewer.

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, or quality leaves 0–1.
    """
    rows = np.array(templates, np.float64, ndmin=2)
    if rows.ndim != 2 or rows.size == 0 or not np.isfinite(rows).all():
        raise ValueError(f"References are finite and have shape (N, D), N at least 1; got {np.shape(templates)}.")
    weights = np.ones(len(rows)) if quality is None else np.array(quality, np.float64, ndmin=1)
    if weights.shape != (len(rows),) or not ((weights >= 0) & (weights <= 1)).all():
        raise ValueError(f"Quality is one value from 0 to 1 for each of the {len(rows)} references.")
    if not weights.any():
        weights = np.ones(len(rows))
    if metric == "cosine":
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        if (lengths == 0).any():
            raise ValueError("A reference of zeros has no direction, so the cosine metric cannot use it.")
        rows = rows / lengths
    between = _distances(rows, rows, metric)
    # A reference's own distance is 0, so a better one is drawn nearer to the middle by its own weight too.
    middle = int(np.argmin(between @ weights - 1e-9 * weights))
    far = between[middle]
    if limit is not None:
        bound = float(limit)
    elif len(rows) >= 4:
        others = np.delete(far, middle)
        typical = np.median(others)
        bound = typical + _DEVIATIONS * max(_MAD_TO_SIGMA * np.median(np.abs(others - typical)), 0.05 * typical)
    else:
        bound = np.inf
    rejected = {
        int(i): f"{far[i]:.3f} from reference {middle}, more than {bound:.3f}: probably another person or a bad picture"
        for i in np.flatnonzero(far > bound)
    }
    kept = [i for i in range(len(rows)) if i not in rejected]
    used = weights[kept] if weights[kept].any() else None
    vector = np.average(rows[kept], axis=0, weights=used)
    if metric == "cosine":
        vector = vector / max(float(np.linalg.norm(vector)), np.finfo(np.float64).tiny)
    return Fused(
        vector.astype(np.float32),
        tuple(kept),
        rejected,
        _distances(rows, vector[None], metric)[:, 0].astype(np.float32),
    )


def _distances(a: np.ndarray, b: np.ndarray, metric: str) -> np.ndarray:
    if metric == "cosine":
        return np.clip(1 - a @ b.T, 0, 2)
    return np.linalg.norm(a[:, None] - b[None], axis=2)
