"""CAST: folders of pictures out of the web, cleaned by training on what was cleaned (WebFace260M, Zhu et al., 2021).

A search engine fills a folder for every name: mostly with the person, and with others; and one person is there under
two names. An encoder trained on the folders as they are tells well enough who belongs where to throw out the worst
(`clean`): in each folder the largest group stays, folders whose middles are nearly the same become one, and of two that
are too alike for two people and not alike enough for one the smaller goes. An encoder trained on what is left tells
better, and cleans the folders as they were once more (`cast`).

From the paper are the rounds, the clustering within folders and that folders are merged or removed by the cosine of
their middles; its numbers could not be checked, so those here are for their reader to choose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ipse.errors import TrainingError
from ipse.training.cion import middles, numbered

Labels = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Rules:
    """What belongs together.

    Attributes
    ----------
    near
        Cosine distance of pictures of one group, as DBSCAN has it.
    core
        Pictures within that distance, itself among them, that make one the core of a group.
    merge
        Folders with a higher cosine of their middles are one person.
    part
        Of folders with a higher cosine than this, but not as high as `merge`, the smaller is removed.

    Raises
    ------
    TrainingError
        If nothing can be near, or folders would be removed that are more alike than those that are merged.
    """

    near: float = 0.4
    core: int = 2
    merge: float = 0.7
    part: float = 0.5

    def __post_init__(self) -> None:
        if self.near <= 0 or self.core < 1:
            raise TrainingError(f"Nothing has {self.core} pictures within {self.near}.", "Give a distance above 0.")
        if not self.part <= self.merge:
            raise TrainingError(f"Folders are parted from {self.part} and merged from {self.merge}.", "Part earlier.")


def clean(vectors: Vectors, folders: npt.ArrayLike, rules: Rules) -> Labels:
    """Clean folders by what an encoder says of their pictures.

    Parameters
    ----------
    vectors
        (N, D) of length 1.
    folders
        (N,) which folder each picture came in.
    rules
        See `Rules`.

    Returns
    -------
    numpy.ndarray
        (N,) people from 0, -1 for pictures that are thrown out.
    """
    from scipy.sparse.csgraph import connected_components
    from sklearn.cluster import DBSCAN

    names, owner = np.unique(np.asarray(folders), return_inverse=True)
    labels = np.full(len(owner), -1, np.int64)
    for folder in range(len(names)):
        rows = np.flatnonzero(owner == folder)
        apart = np.maximum(1 - vectors[rows] @ vectors[rows].T, 0)
        group = DBSCAN(eps=rules.near, min_samples=rules.core, metric="precomputed").fit_predict(apart)
        if group.max() >= 0:
            labels[rows[group == np.bincount(group[group >= 0]).argmax()]] = folder
    labels = numbered(labels)
    if labels.max() < 1:
        return labels
    centers = middles(vectors, labels)
    cosines = centers @ centers.T
    np.fill_diagonal(cosines, -1)
    _, person = connected_components(cosines > rules.merge, directed=False)
    sizes = np.bincount(labels[labels >= 0])
    a, b = np.nonzero((cosines > rules.part) & (cosines <= rules.merge) & (person[:, None] != person))
    # Of equally large ones the second goes.
    smaller = np.where((sizes[a] < sizes[b]) | ((sizes[a] == sizes[b]) & (a > b)), a, b)
    gone = np.isin(np.arange(len(sizes)), smaller)
    return numbered(np.where((labels >= 0) & ~gone[labels], person[labels], -1))


def cast(
    embed: Callable[[Labels, int], Vectors],
    folders: npt.ArrayLike,
    rules: Callable[[Vectors], Rules],
    rounds: int = 3,
) -> Iterator[Labels]:
    """Clean folders round by round; each is cleaned as it came, by a better encoder than before.

    Parameters
    ----------
    embed
        Trains an encoder on labels, of which -1 are left out, and gives (N, D) vectors of length 1 of all pictures;
        told the number of the round.
    folders
        (N,) which folder each picture came in, what the first encoder is trained on.
    rules
        Of cleaning, for the vectors of an encoder: each has distances of its own.
    rounds
        How often.

    Yields
    ------
    numpy.ndarray
        (N,) people after each round.

    Raises
    ------
    TrainingError
        If a round leaves fewer than two people.
    """
    labels = numbered(np.unique(np.asarray(folders), return_inverse=True)[1].astype(np.int64))
    for number in range(rounds):
        vectors = embed(labels, number)
        labels = clean(vectors, folders, rules(vectors))
        if labels.max(initial=-1) < 1:
            raise TrainingError(
                f"Round {number + 1} of cleaning left {labels.max(initial=-1) + 1} people.", "Make the rules looser."
            )
        yield labels
