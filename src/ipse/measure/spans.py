"""Time spans: whether who is best over minutes is best over years (LaST, Shu et al. 2021).

Over a short span people wear the same clothes, so an encoder that reads clothes does well. Over a long span they wear
others and have grown older, and only what stays can be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from ipse.catalogue import system
from ipse.errors import DataError
from ipse.measure.distances import Features
from ipse.measure.protocols import PROTOCOLS, Columns, Protocol
from ipse.measure.retrieval import Retrieval, compare, evaluate

SHORT: Protocol = PROTOCOLS["world-within-look"]
"""Another Shot of the same day."""
LONG: Protocol = PROTOCOLS["world-long-span"]
"""Another Look, years before or after."""


def split_spans(columns: Columns, distractors: float = 0.2) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Cut a set into queries and gallery.

    The first Shot of every Look of a person is a query, the rest is the gallery. The people with the highest numbers
    are distractors: all their pictures are in the gallery, and nobody looks for them.

    Parameters
    ----------
    columns
        ``person`` and ``look``, (N,) each, in the order of the Shots.
    distractors
        The share of people that are, from 0 to under 1.

    Returns
    -------
    tuple
        Rows of the queries and rows of the gallery, ascending.
    """
    person, worn = np.asarray(columns["person"]), np.asarray(columns["look"])
    people = np.unique(person)
    wanted = people[: len(people) - int(distractors * len(people))]
    _, first = np.unique(np.stack([person, worn], 1), axis=0, return_index=True)
    query = np.sort(first[np.isin(person[first], wanted)])
    return query, np.setdiff1d(np.arange(len(person)), query)


@dataclass(frozen=True)
class Spans:
    """What each encoder reaches over each span.

    Attributes
    ----------
    short, long
        By name of the encoder; see `SHORT` and `LONG`.
    figure
        The name of the figure that they are ranked by, as in `Retrieval.values`.
    """

    short: dict[str, Retrieval]
    long: dict[str, Retrieval]
    figure: str

    def order(self, span: dict[str, Retrieval]) -> list[str]:
        """The encoders, best first, over one of the two spans."""
        return sorted(span, key=lambda name: -float(span[name].values()[self.figure].mean()))

    def flips(self) -> list[tuple[str, str]]:
        """Pairs of encoders of which the first is ahead over the short span and the second over the long.

        Ahead means that the paired 95 % interval over people excludes zero.
        """
        return [
            (one, other)
            for one, other in permutations(self.short, 2)
            if compare(self.short[one], self.short[other], self.figure)[1][0] > 0
            and compare(self.long[other], self.long[one], self.figure)[1][0] > 0
        ]


@system(
    name="LaST",
    paper="Large-Scale Spatio-Temporal Person Re-identification: Algorithms and Benchmark",
    year=2021,
    arxiv="2105.15076",
    room="measure",
    claim="People found again over long spans of space and time are another task: methods rank differently, and what "
    "was trained on long spans carries over to changed clothes.",
    evidence=["encoders.spans.*"],
    works_means="On the world, queries against a gallery with distractors: encoders rank differently over short and "
    "long spans, as planted; training on a small set of long spans beats a set of short spans of the same size where "
    "clothes change.",
    status="experimental",
)
def rank_over_spans(
    features: Mapping[str, npt.NDArray[np.floating[Any]]],
    columns: Columns,
    distractors: float = 0.2,
    figure: str = "mAP",
) -> Spans:
    """Evaluate encoders over a short and a long span, on the same queries and gallery.

    Parameters
    ----------
    features
        By name of the encoder, (N, D) of all pictures; compared by cosine.
    columns
        ``person``, ``look``, ``shot`` and ``age`` in years, (N,) each, in the order of the Shots.
    distractors
        See `split_spans`.
    figure
        What encoders are ranked by, a name of `Retrieval.values`.

    Raises
    ------
    DataError
        If a column is missing, or no query has anything to find over one of the spans.
    """
    query, gallery = split_spans(columns, distractors)
    sides = [{name: np.asarray(column)[rows] for name, column in columns.items()} for rows in (query, gallery)]
    results: list[dict[str, Retrieval]] = []
    for protocol in (SHORT, LONG):
        found = {}
        for name, vectors in features.items():
            found[name] = evaluate(Features(vectors[query], vectors[gallery]), *sides, protocol)
            if not len(found[name]):
                raise DataError(
                    f"Nobody can be found under {protocol.name}: {' '.join(found[name].notes)}",
                    "Give people two Shots in each Look, and Looks at ages at least five years apart.",
                )
        results.append(found)
    return Spans(*results, figure)
