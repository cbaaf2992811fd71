"""Nearest people: exact while a gallery is small, by an index of Lance when it is large."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ipse.gallery.calibrate import distance_of, person_distances
from ipse.gallery.rows import quoted, vectors_of
from ipse.gallery.values import Grouping
from ipse.identity import Metric

if TYPE_CHECKING:
    import pyarrow as pa
    from lancedb.table import AsyncTable, Table

INDEX_FROM = 20_000
"""Templates from which on a gallery has an index; under that, looking at every vector is about as fast."""

# Templates that come after an index are looked at one by one; from this share on they are added to it, and once the
# gallery has grown this many times over, its partitions are too large and it is built anew.
_STALE, _OUTGROWN = 0.1, 2
# Templates per partition; the share of partitions looked at, and how many at least. The index holds 4 bits per number,
# so three times the wanted number are looked at in full. Recall@10 stays over 0.98 (benchmarks/gallery.py).
_PARTITION, _PROBED, _PROBES, _BITS, _REFINE = 1000, 0.16, 30, 4, 3
# Queries under way at once.
_TOGETHER = 8


@dataclass
class Hit:
    """A person, the distance to them, and their template nearest to the query."""

    person_id: str
    name: str
    distance: float
    template_id: str
    provenance: str


async def nearest_people(
    table: AsyncTable,
    queries: npt.NDArray[np.float32],
    k: int,
    *,
    index: dict[str, Any] | None,
    where: str | None,
    grouping: Grouping,
    metric: Metric,
) -> list[list[Hit]]:
    """The `k` people nearest to each query in stored form (Q, D), nearest first; fewer where there are no more.

    With a grouping other than ``best`` the order is found among the 4 · `k` people with the nearest templates.
    """
    # A query costs less than handing it from thread to thread, so all of them go over at once.
    turn = asyncio.Semaphore(_TOGETHER)

    async def answer(query: npt.NDArray[np.float32]) -> list[Hit]:
        async with turn:
            people = await _candidates(table, query, k if grouping == "best" else 4 * k, index, where)
            if grouping == "best" or not people:
                distances = distance_of(np.array([hit.distance for hit in people]), metric)
            else:
                ids = [hit.person_id for hit in people]
                distances = await _regrouped(table, query, ids, where, grouping, metric)
            hits = [replace(hit, distance=float(far)) for hit, far in zip(people, distances, strict=True)]
            return sorted(hits, key=lambda hit: hit.distance)[:k]

    return await asyncio.gather(*map(answer, queries))


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
        JSON values: the ``rows`` indexed, the rows when it was ``built``, and the ``probes`` that searches need; None
        for no index.
    """
    from lancedb.index import BTree, IvfRq

    rows = table.count_rows()
    if rows < INDEX_FROM or (record and rows < record["rows"] * (1 + _STALE)):
        return record
    if record and rows < record["built"] * _OUTGROWN:
        table.optimize()
        return {**record, "rows": rows}
    partitions = max(1, rows // _PARTITION)
    # An eighth of the usual sample and a sixth of the rounds change no figure and take a fraction of the time.
    config = IvfRq("l2", num_partitions=partitions, num_bits=_BITS, sample_rate=32, max_iterations=8)
    table.create_index("vector", config=config, replace=True)
    for column in ("name", "person_id"):
        table.create_index(column, config=BTree(), replace=True)
    return {"rows": rows, "built": rows, "probes": max(_PROBES, round(partitions * _PROBED))}


async def _candidates(
    table: AsyncTable, query: npt.NDArray[np.float32], wanted: int, index: dict[str, Any] | None, where: str | None
) -> list[Hit]:
    """The nearest template of each of the `wanted` nearest people, nearest first, with squared distances."""
    limit = 2 * wanted + 8
    while True:
        rows = await _nearest_rows(table, query, limit, index, where)
        best: dict[str, Hit] = {}
        for card, squared in zip(rows.column("card").to_pylist(), rows.column("_distance").to_pylist(), strict=True):
            template, person, name, recognize, provenance = json.loads(card)
            if recognize:
                best.setdefault(person, Hit(person, name, squared, template, provenance))
        if len(best) >= wanted or rows.num_rows < limit:
            return list(best.values())[:wanted]
        limit *= 4


async def _nearest_rows(
    table: AsyncTable, query: npt.NDArray[np.float32], limit: int, index: dict[str, Any] | None, where: str | None
) -> pa.Table:
    search = table.query().nearest_to(query).distance_type("l2").limit(limit).select(["card", "_distance"])
    if where:
        search = search.where(where)
    if index is None:
        search = search.bypass_vector_index()
    else:
        search = search.nprobes(index["probes"]).refine_factor(_REFINE)
        if where:
            # Where few templates pass the filter, on to all partitions until there are enough.
            search = search.maximum_nprobes(0)
    return await search.to_arrow()


async def _regrouped(
    table: AsyncTable,
    query: npt.NDArray[np.float32],
    people: list[str],
    where: str | None,
    grouping: Grouping,
    metric: Metric,
) -> npt.NDArray[np.float32]:
    """Distances to people by all their templates (P,)."""
    theirs = f"recognize AND person_id IN ({', '.join(map(quoted, people))})"
    search = table.query().where(f"({where}) AND {theirs}" if where else theirs).select(["person_id", "vector"])
    rows = await search.to_arrow()
    number = {person: i for i, person in enumerate(people)}
    who = np.array([number[person] for person in rows.column("person_id").to_pylist()])
    order = np.argsort(who, kind="stable")
    squared = ((vectors_of(rows)[order] - query) ** 2).sum(axis=1)[None]
    return person_distances(squared, np.searchsorted(who[order], np.arange(len(people))), grouping, metric)[0]
