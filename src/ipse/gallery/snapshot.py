"""A copy of a small gallery that searches read in place of the table: starting Lance takes seconds, reading it none.

It lies inside the generation, so that it goes when the generation goes (forgetting, another key, another encoder), and
counts only for the very state of the table it was made from.
"""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ipse._files import atomic_write
from ipse.gallery.calibrate import person_distances
from ipse.gallery.rows import vectors_of
from ipse.gallery.search import Hit
from ipse.identity import Metric

if TYPE_CHECKING:
    from lancedb.table import Table

_FILE = "snapshot.npz"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What searches need of a table.

    Attributes
    ----------
    vectors
        (N, D) in stored form, those of one person side by side.
    cards
        N rows' cards; see `ipse.gallery.rows`.
    """

    vectors: npt.NDArray[np.float32]
    cards: list[tuple[str, str, str, bool, str]]

    @property
    def names(self) -> list[str]:
        """The names of everybody, sorted."""
        return sorted({name for _, _, name, _, _ in self.cards})

    def nearest_people(self, queries: npt.NDArray[np.float32], k: int, metric: Metric) -> list[list[Hit]]:
        """The `k` people with the templates nearest to each query in stored form (Q, D), nearest first."""
        allowed = [row for row, card in enumerate(self.cards) if card[3]]
        if not allowed:
            return [[] for _ in queries]
        vectors, cards = self.vectors[allowed], [self.cards[row] for row in allowed]
        people = [person for _, person, *_ in cards]
        starts = np.array([row for row, person in enumerate(people) if not row or person != people[row - 1]])
        ends = np.append(starts[1:], len(cards))
        found = []
        for query in queries:
            squared = ((vectors - query) ** 2).sum(1)
            distances = person_distances(squared[None], starts, "best", metric)[0]
            hits = []
            for number in np.argsort(distances, kind="stable")[:k]:
                row = starts[number] + int(squared[starts[number] : ends[number]].argmin())
                template, person, name, _, provenance = cards[row]
                hits.append(Hit(person, name, float(distances[number]), template, provenance))
            found.append(hits)
        return found


def state_of(generation: Path, table: str) -> str:
    """What changes whenever the table does: the names of its versions."""
    return " ".join(sorted(os.listdir(generation / f"{table}.lance" / "_versions")))


def save(generation: Path, state: str, table: Table) -> None:
    """Write the copy of a table in that state; nobody else may write to the gallery meanwhile.

    Raises
    ------
    OSError
        If the folder cannot be written.
    """
    rows = table.search().select(["person_id", "vector", "card"]).to_arrow().sort_by("person_id")
    texts = {"state": state, "cards": "[" + ",".join(rows.column("card").to_pylist()) + "]"}
    arrays = {key: np.frombuffer(text.encode(), np.uint8) for key, text in texts.items()}
    for left in generation.glob(f".{_FILE}.*"):
        # By a process that was killed on the way.
        left.unlink()
    with atomic_write(generation / _FILE) as file:
        np.savez(file, vectors=vectors_of(rows), **arrays)


def load(generation: Path, state: str) -> Snapshot | None:
    """The copy, if there is one of that state."""
    try:
        with open(generation / _FILE, "rb") as file, np.load(file) as arrays:
            if arrays["state"].tobytes().decode() != state:
                return None
            return Snapshot(arrays["vectors"], [tuple(card) for card in json.loads(arrays["cards"].tobytes())])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        # It is only a copy.
        return None
