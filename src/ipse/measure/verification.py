"""Verification: are two pictures of the same person? Figures from the distances of same and different pairs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def equal_error_rate(same: npt.ArrayLike, different: npt.ArrayLike) -> float:
    """The error where false rejections and false acceptances meet.

    Parameters
    ----------
    same
        (N,) distances between pictures of the same person; small means alike.
    different
        (M,) distances between pictures of different people.

    Returns
    -------
    float
        0..1. Between two thresholds the rates are interpolated linearly, so that the figure does not depend on which
        side is taken.

    Raises
    ------
    ValueError
        If one of the two is empty or holds a number that is not finite.
    """
    genuine, impostor = (np.sort(np.asarray(d, np.float64).ravel()) for d in (same, different))
    for name, distances in (("same", genuine), ("different", impostor)):
        if not len(distances):
            raise ValueError(f"There are no distances of {name} pairs; an error rate needs both kinds.")
        if not np.isfinite(distances).all():
            raise ValueError(f"Distances of {name} pairs are not all finite; leave out the pairs without one.")
    thresholds = np.concatenate([[-np.inf], np.unique(np.concatenate([genuine, impostor]))])
    rejected = 1 - np.searchsorted(genuine, thresholds, side="right") / len(genuine)
    accepted = np.searchsorted(impostor, thresholds, side="right") / len(impostor)
    # The difference falls from 1 to -1; the rates meet where it crosses zero.
    gap = rejected - accepted
    i = int(np.argmax(gap <= 0))
    t = gap[i - 1] / (gap[i - 1] - gap[i])
    return float(rejected[i - 1] + t * (rejected[i] - rejected[i - 1]))
