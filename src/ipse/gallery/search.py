"""Nearest people: exact while a gallery is small, by an index of Lance when it is large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ipse.gallery.calibrate import distance_of, person_distances
from ipse.gallery.rows import quoted, vectors_of
from ipse.gallery.values import Grouping
from ipse.identity import Metric

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import Table

INDEX_FROM = 100_000
"""Templates from which on a gallery has an index; under that, looking at every vector is as fast."""

# An index is brought up to date once this share of the templates came after it; those are looked at one by one.
_STALE = 0.1
# Per partition; and the share of partitions looked at, which keeps recall@10 over 0.98 (benchmarks/gallery.py).
_PARTITION, _PROBED = 1000, 0.2
_REFINE = 3
_COLUMNS = ["id", "person_id", "name", "recognize", "provenance", "_distance"]


@dataclass
class Hit:
    """A person, the distance to them, and their template nearest to the query."""

    name: str
    distance: float
    template_id: str
    provenance: str


def nearest_people(
    table: Table,
    query: npt.NDArray[np.float32],
    k: int,
    *,
    index: dict[str, Any] | None,
    where: str | None,
    grouping: Grouping,
    metric: Metric,
) -> list[Hit]:
    """The `k` people nearest to one stored-form query vector (D,), nearest first; fewer where there are no more.

    With a grouping other than ``best`` the order is found among the 4 · `k` people with the nearest templates.
    """
    wanted = k if grouping == "best" else 4 * k
    limit = 4 * wanted
    while True:
        rows = _nearest_rows(table, query, limit, index, where).to_pylist()
        best: dict[str, dict[str, Any]] = {}
        for row in rows:
            if row["recognize"]:
                best.setdefault(row["person_id"], row)
        if len(best) >= wanted or len(rows) < limit:
            break
        limit *= 4
    people = list(best.items())[:wanted]
    if grouping == "best" or not people:
        distances = distance_of(np.array([row["_distance"] for _, row in people]), metric)
    else:
        distances = _regrouped(table, query, [person for person, _ in people], where, grouping, metric)
    hits = [
        Hit(row["name"], float(distance), row["id"], row["provenance"])
        for (_, row), distance in zip(people, distances, strict=True)
    ]
    return sorted(hits, key=lambda hit: hit.distance)[:k]


def tend_index(table: Table, record: dict[str, Any] | None) -> dict[str, Any] | None:
    """Build the index if there should be one, or bring it up to date.

    Parameters
    ----------
    table
        The gallery's table.
    record
        What this function returned last; None for no index.

    Returns
    -------
    dict or None
        JSON values that searches need: ``rows`` indexed and ``probes``; None for no index.
    """
    from lancedb.index import BTree, IvfSq

    rows = table.count_rows()
    if rows < INDEX_FROM or (record and rows < record["rows"] * (1 + _STALE)):
        return record
    partitions = max(1, rows // _PARTITION)
    # A fourth of the usual sample and of the rounds changes no figure and takes a fraction of the time.
    config = IvfSq("l2", num_partitions=partitions, sample_rate=64, max_iterations=15)
    table.create_index("vector", config=config, replace=True)
    for column in ("name", "person_id"):
        table.create_index(column, config=BTree(), replace=True)
    return {"rows": rows, "probes": max(1, round(partitions * _PROBED))}


def _nearest_rows(
    table: Table, query: npt.NDArray[np.float32], limit: int, index: dict[str, Any] | None, where: str | None
) -> pa.Table:
    search = table.search(query, vector_column_name="vector").distance_type("l2").limit(limit).select(_COLUMNS)
    if where:
        search = search.where(where, prefilter=True)
    if index is None:
        search = search.bypass_vector_index()
    else:
        search = search.nprobes(index["probes"]).refine_factor(_REFINE)
    return search.to_arrow()


def _regrouped(
    table: Table,
    query: npt.NDArray[np.float32],
    people: list[str],
    where: str | None,
    grouping: Grouping,
    metric: Metric,
) -> npt.NDArray[np.float32]:
    """Distances to people by all their templates (P,)."""
    theirs = f"recognize AND person_id IN ({', '.join(map(quoted, people))})"
    search = table.search().where(f"({where}) AND {theirs}" if where else theirs).select(["person_id", "vector"])
    rows = search.to_arrow()
    number = {person: i for i, person in enumerate(people)}
    who = np.array([number[person] for person in rows.column("person_id").to_pylist()])
    order = np.argsort(who, kind="stable")
    squared = ((vectors_of(rows)[order] - query) ** 2).sum(axis=1)[None]
    return person_distances(squared, np.searchsorted(who[order], np.arange(len(people))), grouping, metric)[0]
