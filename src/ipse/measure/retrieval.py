"""Retrieval: the places of the images of a query's person in the gallery sorted by distance.

The gallery is never sorted, though. The rank of an image is one more than the number of images that are nearer, and
those are counted, for the images of the query's person alone. Of images at equal distance the one that comes first in
the gallery is the nearer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ipse.measure.distances import MEMORY_MIB, DistanceSource, blocks
from ipse.measure.evidence import bootstrap_ci, bootstrap_means
from ipse.measure.protocols import PROTOCOLS, Columns, Protocol, Selection

APDefinition = Literal["market", "trapezoid", "interpolated"]
"""How precision becomes average precision; see `average_precision`."""


@dataclass(frozen=True)
class Retrieval:
    """What became of each query, and the figures over all.

    Queries without anything to find are left out of the arrays; `notes` says how many and why.

    Attributes
    ----------
    protocol
        What was compared with what.
    query
        (V,) rows of the query columns that were evaluated.
    person
        (V,) their people: what intervals are over.
    first
        (V,) rank of the nearest image of the person, from 1.
    relevant
        (V,) how many images there were to find.
    precisions
        By AP definition, (V,) average precision.
    precision_at
        By k, (V,) average precision within the k nearest.
    inverse_penalty
        (V,) number to find over the rank of the last one found.
    notes
        What was left out and why.
    """

    protocol: Protocol
    query: npt.NDArray[np.intp]
    person: npt.NDArray[Any]
    first: npt.NDArray[np.intp] = field(repr=False)
    relevant: npt.NDArray[np.intp] = field(repr=False)
    precisions: dict[APDefinition, npt.NDArray[np.float64]] = field(repr=False)
    precision_at: dict[int, npt.NDArray[np.float64]] = field(repr=False)
    inverse_penalty: npt.NDArray[np.float64] = field(repr=False)
    notes: tuple[str, ...]

    def __len__(self) -> int:
        """V, the number of queries evaluated."""
        return len(self.query)

    def mean_ap(self, definition: APDefinition = "market") -> float:
        """MAP, 0–1: the mean over queries of `average_precision`; NaN where no query was evaluated."""
        return _mean(self.precisions[definition])

    def rank(self, k: int) -> float:
        """CMC at k, 0–1: the share of queries with an image of their person among the k nearest."""
        return _mean(self.first <= k)

    def cmc(self, ranks: int = 50) -> npt.NDArray[np.float64]:
        """(ranks,) the cumulative matching characteristic, `rank` of 1 to `ranks`."""
        if not len(self):
            return np.full(ranks, np.nan)
        hits = np.bincount(np.minimum(self.first, ranks + 1), minlength=ranks + 2)[1 : ranks + 1]
        return np.cumsum(hits) / len(self)

    def mean_inp(self) -> float:
        """MINP, 0–1: the mean inverse negative penalty of Ye et al. 2021 (equation 9); about the hardest image."""
        return _mean(self.inverse_penalty)

    def mean_ap_at(self, k: int) -> float:
        """MAP@k, 0–1: the sum of the precisions at the hits within k, over what k places can hold, meaned."""
        return _mean(self.precision_at[k])

    def values(self, ranks: Sequence[int] = (1, 5, 10)) -> dict[str, npt.NDArray[np.float64]]:
        """By name of a figure, (V,) what each query adds to it."""
        found = {"mAP": self.precisions["market"]}
        found |= {f"rank-{k}": (self.first <= k).astype(np.float64) for k in ranks}
        found["mINP"] = self.inverse_penalty
        found |= {f"mAP@{k}": values for k, values in self.precision_at.items()}
        found |= {f"mAP ({name})": self.precisions[name] for name in ("trapezoid", "interpolated")}
        return found

    def figures(self, ranks: Sequence[int] = (1, 5, 10), seed: int = 0) -> dict[str, tuple[float, float, float]]:
        """By name, each figure with the ends of its 95 % interval over identities, all 0–1.

        The ends are NaN where fewer than two people were evaluated.
        """
        values = self.values(ranks)
        if len(np.unique(self.person)) < 2:
            return {name: (_mean(column), np.nan, np.nan) for name, column in values.items()}
        low, high = bootstrap_means(np.stack(list(values.values()), axis=1), self.person, seed=seed)
        return {name: (_mean(column), float(low[i]), float(high[i])) for i, (name, column) in enumerate(values.items())}

    def __str__(self) -> str:
        """The figures as a table, then what was left out and why."""
        lines = [f"{self.protocol.name}: {len(self):,} queries of {len(np.unique(self.person)):,} people"]
        if len(self):
            for name, (value, low, high) in self.figures().items():
                ends = "" if np.isnan(low) else f"  {100 * low:6.2f} – {100 * high:.2f}"
                lines.append(f"  {name:<20}{100 * value:6.2f} %{ends}")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def evaluate(
    distances: DistanceSource,
    query: Columns,
    gallery: Columns,
    protocol: Protocol | str = "all",
    *,
    at: Sequence[int] = (10,),
    memory_mib: float = MEMORY_MIB,
    on_progress: Callable[[int, int], None] | None = None,
) -> Retrieval:
    """Evaluate retrieval under a protocol.

    Parameters
    ----------
    distances
        (Q, G) from queries to gallery: `Features`, `Matrix`, or re-ranked ones.
    query, gallery
        What is known of their images; ``person`` at least, and what the protocol needs.
    protocol
        Or its name in `PROTOCOLS`.
    at
        The k of the mAP@k wanted.
    memory_mib
        Limit of the distances held at a time; the features and the result come to it.
    on_progress
        Called with the queries done and those to do.

    Returns
    -------
    Retrieval
        If no query has anything to find, one without queries, whose notes say why.

    Raises
    ------
    DataError
        If a column that the protocol needs is missing.
    ValueError
        If lengths do not fit, or a distance is not a number.
    """
    protocol = named(protocol)
    selection = protocol.select(query, gallery)
    counts = tuple(len(np.asarray(columns["person"])) for columns in (query, gallery))
    if counts != tuple(distances.shape):
        raise ValueError(f"Distances have shape {tuple(distances.shape)} for {counts[0]} queries, {counts[1]} images.")
    shape = len(selection.query), len(selection.gallery)
    if shape != counts:
        distances = distances.select(selection.query, selection.gallery)
    parts, ignored = [], np.zeros(len(protocol.ignore), np.int64)
    for start, stop in blocks(shape, memory_mib) if all(shape) else ():
        pairs = selection.ignored(start, stop)
        ignored += np.array([len(rows) for rows, _ in pairs], np.int64)
        parts.append(_score(*_ranked(distances.rows(start, stop), selection, pairs, start, stop), start, at))
        if on_progress:
            on_progress(stop, shape[0])
    columns = (
        [np.concatenate(column) for column in zip(*parts, strict=True)] if parts else [np.empty(0)] * (7 + len(at))
    )
    rows = columns[0].astype(np.intp)
    without = np.ones(shape[0], bool)
    without[rows] = False
    return Retrieval(
        protocol,
        selection.query[rows],
        selection.query_columns["person"][rows],
        columns[1].astype(np.intp),
        columns[2].astype(np.intp),
        {"market": columns[3], "trapezoid": columns[4], "interpolated": columns[5]},
        dict(zip(at, columns[7:], strict=True)),
        columns[6],
        (*selection.notes, *selection.count(ignored), *selection.diagnose(without)),
    )


def named(protocol: Protocol | str) -> Protocol:
    """The protocol of a name.

    Raises
    ------
    ValueError
        If there is none, with the names that there are.
    """
    if isinstance(protocol, Protocol):
        return protocol
    if protocol not in PROTOCOLS:
        raise ValueError(f"There is no protocol {protocol!r}, but {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[protocol]


def average_precision(ranks: npt.ArrayLike, definition: APDefinition = "market") -> float:
    """The average precision of one query.

    With n images to find at ranks r_1 < … < r_n, the precision at the i-th is p_i = i / r_i.

    - ``market``: the mean of p_i, the non-interpolated average precision of TREC, of scikit-learn since 0.19, and of
      the evaluations called Market-1501 in torchreid and fast-reid.
    - ``trapezoid``: the mean of (b_i + p_i) / 2, where b_i = (i - 1) / (r_i - 1) is the precision just before the hit,
      and 1 at the top. It is that of the MATLAB code published with Market-1501, which took it from Oxford Buildings.
    - ``interpolated``: the mean of max(p_i, …, p_n), as in PASCAL VOC since 2010.

    Parameters
    ----------
    ranks
        (n,) from 1, in any order.
    definition
        One of the above.

    Returns
    -------
    float
        0–1.
    """
    ranks = np.sort(np.asarray(ranks, np.int64))
    if not len(ranks) or ranks[0] < 1:
        raise ValueError("An average precision needs ranks from 1 on, one at least.")
    scored = _score(np.zeros(len(ranks), np.intp), ranks, 0, ())
    return float(dict(zip(("market", "trapezoid", "interpolated"), scored[3:6], strict=True))[definition][0])


def compare(ours: Retrieval, theirs: Retrieval, figure: str = "mAP") -> tuple[float, tuple[float, float]]:
    """How far one system is ahead of another on the same queries, with the paired 95 % interval over identities.

    They differ where the interval excludes zero.

    Parameters
    ----------
    ours, theirs
        Evaluated under one protocol on the same queries.
    figure
        A name of `Retrieval.values`.

    Raises
    ------
    ValueError
        If the queries differ.
    """
    if not (np.array_equal(ours.query, theirs.query) and np.array_equal(ours.person, theirs.person)):
        raise ValueError("The two were not evaluated on the same queries, so they cannot be paired.")
    ahead = ours.values()[figure] - theirs.values()[figure]
    return float(ahead.mean()), bootstrap_ci(ahead, ours.person)


def _ranked(
    tile: Any,
    selection: Selection,
    ignored: Sequence[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]],
    start: int,
    stop: int,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Query (from `start`) and rank of every relevant image, sorted by both."""
    rows, items = selection.relevant(start, stop)
    count = _count_numpy if isinstance(tile, np.ndarray) else _count_torch
    rows, nearer = count(tile, rows, items, ignored, start)
    order = np.lexsort((nearer, rows))
    return rows[order], nearer[order] + 1


def _count_numpy(
    tile: npt.NDArray[np.float32],
    rows: npt.NDArray[np.intp],
    items: npt.NDArray[np.intp],
    ignored: Sequence[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]],
    start: int,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The pairs that are not ignored, and how many images are nearer than the item of each."""
    # The smallest of a row is NaN if any of it is.
    if np.isnan(tile.min(axis=1)).any():
        raise ValueError(_not_a_number(start + int(np.isnan(tile.min(axis=1)).argmax())))
    for pair in ignored:
        # It compares false with everything, so that it is never counted.
        tile[pair] = np.nan
    distances = tile[rows, items]
    seen = ~np.isnan(distances)
    rows, items, distances = rows[seen], items[seen], distances[seen]
    nearer = np.empty(len(rows), np.intp)
    flags = np.empty(tile.shape[1], bool)
    begins = np.flatnonzero(np.diff(rows, prepend=-1))
    farthest = np.maximum.reduceat(distances, begins) if len(begins) else distances
    ends = np.append(begins, len(rows))[1:]
    for begin, end, last in zip(begins.tolist(), ends.tolist(), farthest, strict=True):
        # Only what is no farther than the farthest of them can count; of that, only the numbers are sorted.
        row = tile[rows[begin]]
        near = np.less_equal(row, last, out=flags).nonzero()[0]
        inorder = row.take(near)
        inorder.sort()
        wanted = distances[begin:end]
        below = inorder.searchsorted(wanted)
        tied = inorder.searchsorted(wanted, "right") - below > 1
        for j in tied.nonzero()[0].tolist() if tied.any() else ():
            before = near[: np.searchsorted(near, items[begin + j])]
            below[j] += np.count_nonzero(row[before] == wanted[j])
        nearer[begin:end] = below
    return rows, nearer


def _count_torch(
    tile: Any,
    rows: npt.NDArray[np.intp],
    items: npt.NDArray[np.intp],
    ignored: Sequence[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]],
    start: int,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """As `_count_numpy`, on the tensor's device; where a loop over rows would be slow, all rows are sorted at once."""
    import torch

    def there(values: npt.NDArray[Any]) -> Any:
        return torch.from_numpy(np.ascontiguousarray(values)).to(tile.device)

    bad = tile.isnan().any(1)
    if bool(bad.any()):
        raise ValueError(_not_a_number(start + int(bad.int().argmax())))
    for pair in ignored:
        tile[tuple(map(there, pair))] = torch.nan
    wanted = tile[there(rows), there(items)]
    seen = (~wanted.isnan()).cpu().numpy()
    rows, items, wanted = rows[seen], items[seen], wanted[there(seen)]
    # One row of what is wanted per query, padded at the end.
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    at = there(rows), there(place)
    padded = torch.full((len(tile), int(place.max(initial=0)) + 1), torch.inf, device=tile.device)
    padded[at] = wanted
    # Torch's binary search, unlike its sort, does not know that NaN comes last.
    inorder = tile.sort(1).values.nan_to_num_(torch.inf, torch.inf, -torch.inf)
    below = torch.searchsorted(inorder, padded)[at]
    tied = (torch.searchsorted(inorder, padded, right=True)[at] - below > 1).cpu().numpy().nonzero()[0]
    nearer = below.cpu().numpy()
    for j in tied.tolist():
        nearer[j] += int((tile[rows[j], : items[j]] == wanted[j]).sum())
    return rows, nearer


def _score(
    rows: npt.NDArray[np.intp], ranks: npt.NDArray[np.intp], start: int, at: Sequence[int]
) -> list[npt.NDArray[Any]]:
    """Query, first rank, number relevant, three APs, inverse penalty, the AP@k; ranks are sorted by query and rank."""
    begins = np.flatnonzero(np.diff(rows, prepend=-1))
    if not len(begins):
        return [np.empty(0)] * (7 + len(at))
    size = np.diff(np.append(begins, len(rows)))
    hit = np.arange(len(rows)) - np.repeat(begins, size) + 1
    precision = hit / ranks
    before = np.divide(hit - 1, ranks - 1, out=np.ones(len(ranks)), where=ranks > 1)
    # Each query is lifted over those after it, so that a running maximum from the end starts anew with each.
    lift = 2.0 * np.repeat(np.arange(len(size))[::-1], size)
    best = np.maximum.accumulate((precision + lift)[::-1])[::-1] - lift

    def total(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.add.reduceat(values, begins)

    return [
        start + rows[begins],
        ranks[begins],
        size,
        total(precision) / size,
        total((before + precision) / 2) / size,
        total(best) / size,
        size / ranks[begins + size - 1],
        *(total(np.where(ranks <= k, precision, 0)) / np.minimum(size, k) for k in at),
    ]


def _mean(values: npt.NDArray[Any]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _not_a_number(query: int) -> str:
    return f"Distances of query {query} are not all numbers; look for features that are not finite."
