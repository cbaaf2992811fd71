"""FRUITS: how right whole pipelines are that must be done within a time (Zhu et al. 2021).

A pipeline takes a picture as it comes and gives a vector: detection, alignment, embedding. What counts is the time for
two pictures and their comparison. A pipeline that is slower than the budget gets no accuracy under it.

Time is that of the processor, over all threads: several threads buy nothing, and other work on the machine costs
little.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipse.catalogue import system
from ipse.errors import DataError
from ipse.measure.verification import best_threshold

BUDGETS_MS = (100, 500, 1000)
"""Milliseconds for a pair: FRUITS-100, -500 and -1000."""

# A budget is kept if this share of the pairs is decided within it; few enough may be slow that a hiccup is forgiven.
_KEPT = 0.95

Pipeline = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.floating[Any]] | None]
"""From a picture, (H, W, 3) RGB, to a vector (D,); None where no face was found."""


@dataclass(frozen=True)
class Timed:
    """What a pipeline made of some pairs.

    Attributes
    ----------
    distances
        (N,) Euclidean between the vectors of each pair; NaN where one has none.
    milliseconds
        (N,) processor time for each.
    """

    distances: npt.NDArray[np.float64]
    milliseconds: npt.NDArray[np.float64]

    @property
    def needed_ms(self) -> float:
        """The milliseconds within which 95 % of the pairs were decided: what a budget is held against."""
        return float(np.quantile(self.milliseconds, _KEPT))

    def right(
        self, same: npt.ArrayLike, folds: npt.ArrayLike, budget_ms: float = float("inf")
    ) -> npt.NDArray[np.bool_]:
        """Whether each pair is told rightly, by the threshold that is best on the other folds.

        Parameters
        ----------
        same
            (N,) whether each pair shows one person.
        folds
            (N,) the fold of each, two or more.
        budget_ms
            Milliseconds for a pair.

        Returns
        -------
        (N,) bool array
            A pair with a picture without a vector is told wrongly.

        Raises
        ------
        DataError
            If the pipeline is over the budget.
        ValueError
            If lengths differ, or there is only one fold, or outside a fold only pairs of one kind.
        """
        if self.needed_ms > budget_ms:
            raise DataError(
                f"The pipeline needs {self.needed_ms:.0f} ms for a pair, more than the {budget_ms:g} it may take.",
                "Take a smaller network, look at fewer copies, or let it enter under a larger budget.",
            )
        truth, fold = np.asarray(same, bool), np.asarray(folds)
        if not truth.shape == fold.shape == self.distances.shape:
            raise ValueError(f"{len(self.distances)} pairs, {len(truth)} truths and {len(fold)} folds; give one each.")
        if len(np.unique(fold)) < 2:
            raise ValueError("A threshold chosen on other folds needs at least two folds.")
        there = np.isfinite(self.distances)
        told = np.zeros(len(truth), bool)
        for name in np.unique(fold):
            mine, known = fold == name, (fold != name) & there
            threshold = best_threshold(self.distances[known & truth], self.distances[known & ~truth])
            told[mine] = there[mine] & ((self.distances[mine] <= threshold) == truth[mine])
        return told


@system(
    name="WebFace260M",
    paper="WebFace260M: A Benchmark Unveiling the Power of Million-Scale Deep Face Recognition",
    year=2021,
    arxiv="2103.04098",
    room="measure",
    claim="Self-training cleans millions of faces out of the web, and matchers are compared under a limit of time for "
    "the whole way from picture to answer.",
    evidence=["encoders.fruits.*", "reid.cast.*"],
    works_means="The harness times detection, alignment, embedding and comparison of a pair and refuses what is over "
    "its budget of 100, 500 or 1000 ms; cleaning by self-training (CAST) raises the precision and recall of noisy "
    "labels above one-shot cleaning, and the encoder trained on them nears that of clean labels.",
    status="experimental",
)
def time_pairs(
    pipeline: Pipeline,
    pairs: Iterable[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]],
    on_progress: Callable[[int], None] = lambda done: None,
) -> Timed:
    """Run a pipeline over pairs of pictures, one pair at a time.

    Parameters
    ----------
    pipeline
        Run once before the clock starts, so that what it loads at first use is not counted.
    pairs
        Two pictures each, (H, W, 3) uint8 RGB; reading them is not counted.
    on_progress
        Called with the pairs done.

    Raises
    ------
    DataError
        If there are no pairs.
    """
    distances, milliseconds = [], []
    for first, second in pairs:
        if not distances:
            pipeline(first)
        start = time.process_time()
        one, other = pipeline(first), pipeline(second)
        far = np.nan if one is None or other is None else float(np.linalg.norm(one - other))
        milliseconds.append(1000 * (time.process_time() - start))
        distances.append(far)
        on_progress(len(distances))
    if not distances:
        raise DataError("There are no pairs to time a pipeline on.", "Give at least one.")
    return Timed(np.array(distances), np.array(milliseconds))
