"""RankMe: how many dimensions an encoder really uses, told without labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ipse.catalogue import system
from ipse.errors import DataError
from ipse.measure.distances import as_features, blocks

EPSILON = 1e-7
"""What the paper adds to each share of a singular value, that of 32-bit numbers (equation 1)."""


@system(
    name="RankMe",
    paper="RankMe: Assessing the downstream performance of pretrained self-supervised representations by their rank",
    year=2023,
    arxiv="2210.02885",
    room="measure",
    claim="The effective rank of an encoder's features on unlabeled pictures tells which run of a method will do best, "
    "so that hyperparameters are chosen without labels.",
    evidence=["reid.rankme.*"],
    works_means="Over at least eight encoders, Spearman's correlation of RankMe on unlabeled training pictures with "
    "mAP on Market-1501 val is positive and high, its interval above zero, and the encoder that RankMe picks among "
    "runs of one recipe is near the best. Shown, if not by much, for runs that learn without labels; of runs with "
    "labels, and of unlike encoders, it tells nothing.",
    status="experimental",
)
def rankme(features: Any, epsilon: float = EPSILON) -> float:
    """The effective rank of an embedding matrix (Garrido et al. 2023, equation 1).

    The singular values of the matrix, which is not centered, are scaled to sum to 1; the result is the exponential of
    their entropy: k for k directions that are used alike, less for less even ones. The paper advises 25,000 pictures
    or more, and compares runs of one method only, since rank is not all that decides.

    Singular values are read from the D × D matrix of products, so memory grows with D² and not with N.

    Parameters
    ----------
    features
        (N, D), array or tensor; or an iterable of (n, D) batches, which is read once.
    epsilon
        Added to each share.

    Returns
    -------
    float
        From 1 to the smaller of N and D.

    Raises
    ------
    DataError
        If there are no features, batches differ in D, a number is not finite, or all are zeros.
    ValueError
        If something is not a matrix of numbers.
    """
    gram: npt.NDArray[np.float64] | None = None
    count = 0
    for batch in _batches(features):
        rows = batch.astype(np.float64)
        if gram is None:
            gram = np.zeros((rows.shape[1],) * 2)
        if rows.shape[1] != len(gram):
            raise DataError(
                f"A batch has {rows.shape[1]} numbers a feature and those before it {len(gram)}.",
                "Give features of one encoder.",
            )
        gram += rows.T @ rows
        count += len(rows)
    if gram is None or not count:
        raise DataError("There are no features to find the rank of.", "Give one at least, better 25,000.")
    if not np.isfinite(gram).all():
        raise DataError("Some features are not finite.", "Leave out those of pictures that could not be encoded.")
    # Of fewer features than dimensions the other eigenvalues are rounding alone.
    squares = np.linalg.eigvalsh(gram)[::-1][: min(count, len(gram))]
    values = np.sqrt(np.maximum(squares, 0))
    if not values.any():
        raise DataError("All features are zeros, which have no rank.", "Was the encoder given pictures?")
    shares = values / values.sum() + epsilon
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _batches(features: Any) -> Iterator[npt.NDArray[np.float32]]:
    """Rows a few at a time, in main memory."""
    parts: Iterable[Any] = [features] if hasattr(features, "ndim") else features
    for part in parts:
        found = as_features(part)
        for start, stop in blocks(tuple(found.shape)) if len(found) else ():
            rows = found[start:stop]
            yield rows if isinstance(rows, np.ndarray) else rows.cpu().numpy()
