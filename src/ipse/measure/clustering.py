"""Clustering: how well groups of pictures agree with the people in them.

All take (N,) people and (N,) groups of any labels and give 0–1; a picture in no group is a group of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Agreement:
    """Precision, recall and their harmonic mean, 0–1."""

    precision: float
    recall: float

    @property
    def f(self) -> float:
        """The F measure."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def pairwise_f(people: npt.ArrayLike, groups: npt.ArrayLike) -> Agreement:
    """Of the pairs in one group, how many are of one person; of the pairs of one person, how many are in one group.

    Where there are no pairs to judge, the share is 1: nothing was put together wrongly, or nothing was there to put
    together.
    """
    table, of_person, of_group = _table(people, groups)

    def pairs(sizes: npt.NDArray[np.int64]) -> int:
        return int((sizes * (sizes - 1)).sum()) // 2

    right, together, alike = pairs(table.data), pairs(of_group), pairs(of_person)
    return Agreement(right / together if together else 1.0, right / alike if alike else 1.0)


def bcubed(people: npt.ArrayLike, groups: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(N, 2): the share of each picture's group that is of its person, and of its person that is in its group.

    Bagga and Baldwin 1998; the picture itself counts.
    """
    table, of_person, of_group = _table(people, groups)
    _, rows = np.unique(np.asarray(people), return_inverse=True)
    _, columns = np.unique(np.asarray(groups), return_inverse=True)
    alike = np.asarray(table[rows, columns], np.float64).ravel()
    return np.stack([alike / of_group[columns], alike / of_person[rows]], 1)


def bcubed_f(people: npt.ArrayLike, groups: npt.ArrayLike) -> Agreement:
    """The means of `bcubed` over all pictures."""
    precision, recall = bcubed(people, groups).mean(0)
    return Agreement(float(precision), float(recall))


def v_measure(people: npt.ArrayLike, groups: npt.ArrayLike) -> Agreement:
    """Homogeneity as precision, completeness as recall; their harmonic mean is V (Rosenberg and Hirschberg 2007)."""
    from sklearn.metrics import homogeneity_completeness_v_measure

    _table(people, groups)
    homogeneity, completeness, _ = homogeneity_completeness_v_measure(people, groups)
    return Agreement(float(homogeneity), float(completeness))


def _table(people: npt.ArrayLike, groups: npt.ArrayLike):
    """The sparse (people, groups) table of counts, and its sums both ways."""
    from scipy.sparse import coo_matrix

    ours, theirs = np.asarray(people), np.asarray(groups)
    if ours.shape != theirs.shape or ours.ndim != 1 or not len(ours):
        raise ValueError(f"People have shape {ours.shape} and groups {theirs.shape}; give one of each per picture.")
    _, rows = np.unique(ours, return_inverse=True)
    _, columns = np.unique(theirs, return_inverse=True)
    table = coo_matrix((np.ones(len(rows), np.int64), (rows, columns))).tocsr()
    return table, np.bincount(rows), np.bincount(columns)
