"""How far two sets of pictures are apart as wholes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def frechet(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Fréchet distance of two sets of features, taken for normal distributions (Heusel et al., 2017, eq. 6).

    ``|mean(a) − mean(b)|² + tr(cov(a) + cov(b) − 2 (cov(a) cov(b))^½)``. Small sets are told too far apart, the more so
    the more dimensions there are, so only distances of equally large sets can be compared.

    Parameters
    ----------
    a, b
        (N, D) and (M, D) features of any encoder or classifier.

    Returns
    -------
    float
        0 for equal distributions, in the square of the features' unit.

    Raises
    ------
    ValueError
        If a set has fewer than two rows, or the dimensions differ.
    """
    from scipy.linalg import sqrtm

    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(
            f"Features of shapes {x.shape} and {y.shape} have no Fréchet distance: give (N, D) and (M, D)."
        )
    cov_x, cov_y = np.atleast_2d(np.cov(x.T)), np.atleast_2d(np.cov(y.T))
    root = np.atleast_2d(sqrtm(cov_x @ cov_y)).real
    return float(np.square(x.mean(0) - y.mean(0)).sum() + np.trace(cov_x + cov_y - 2 * root))
