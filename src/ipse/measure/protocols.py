"""Protocols as data: which queries, which gallery, and which of its images a query must not be compared with.

A protocol is a value; to make one of your own, make a `Protocol`. Items are described by columns: a mapping from names
such as ``person``, ``camera``, ``clothes`` or ``time`` to arrays with one entry per image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ipse.errors import DataError

Columns = Mapping[str, npt.ArrayLike]
"""What is known of a set of images: by name, (N,) values."""


@dataclass(frozen=True)
class Ignore:
    """Gallery images that a query is not compared with; all that is given must hold.

    Attributes
    ----------
    same
        Columns in which the two are equal.
    different
        Columns in which they differ.
    closer
        By column of numbers: they differ by less than this, such as ``{"years": 1}``.
    """

    same: tuple[str, ...] = ("person",)
    different: tuple[str, ...] = ()
    closer: Mapping[str, float] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it needs."""
        return (*self.same, *self.different, *self.closer)

    def __str__(self) -> str:
        parts = [f"same {' and '.join(self.same)}"] if self.same else []
        parts += [f"different {' and '.join(self.different)}"] if self.different else []
        parts += [f"less than {value:g} apart in {name}" for name, value in self.closer.items()]
        return ", ".join(parts)


@dataclass(frozen=True)
class Protocol:
    """What is compared with what.

    Attributes
    ----------
    name
        As in `PROTOCOLS`.
    about
        What it asks, and where it is from.
    ignore
        Gallery images that are as if not there, for each query; those of any of the rules.
    query, gallery
        By column, the values that queries and gallery may have; all others are left out.
    junk
        By column, values whose images are left out of the gallery for everybody.
    """

    name: str
    about: str
    ignore: tuple[Ignore, ...] = ()
    query: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    gallery: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    junk: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def select(self, query: Columns, gallery: Columns) -> Selection:
        """Choose queries and gallery.

        Raises
        ------
        DataError
            If a column that the protocol needs is missing, or lengths differ.
        """
        notes: list[str] = []
        ours, theirs = _columns(query, "query"), _columns(gallery, "gallery")
        both = {name for rule in self.ignore for name in rule.columns} | {"person"}
        for columns, name, needed in (
            (ours, "query", both | self.query.keys()),
            (theirs, "gallery", both | self.gallery.keys() | self.junk.keys()),
        ):
            if missing := sorted(needed - columns.keys()):
                raise DataError(
                    f"The protocol {self.name} needs the column {missing[0]!r} of the {name}, which has "
                    f"{', '.join(sorted(columns)) or 'none'}.",
                    "Add it, or choose another protocol.",
                )
        q, g = np.ones(len(ours["person"]), bool), np.ones(len(theirs["person"]), bool)
        for mask, columns, wanted, what in (
            (q, ours, self.query, "queries"),
            (g, theirs, self.gallery, "gallery images"),
        ):
            for name, values in wanted.items():
                keep = np.isin(columns[name], values)
                _note(notes, mask & ~keep, what, f"{name} is not {_listed(values)}")
                mask &= keep
        for name, values in self.junk.items():
            drop = np.isin(theirs[name], values)
            _note(notes, g & drop, "gallery images", f"junk, {name} is {_listed(values)}")
            g &= ~drop
        return Selection(self, ours, theirs, np.flatnonzero(q), np.flatnonzero(g), notes)


class Selection:
    """The queries and the gallery of a protocol, and for each query what it must find and what it must not see.

    Attributes
    ----------
    query, gallery
        Rows that take part, ascending.
    notes
        What was left out and why.
    """

    def __init__(
        self,
        protocol: Protocol,
        query_columns: Mapping[str, npt.NDArray[Any]],
        gallery_columns: Mapping[str, npt.NDArray[Any]],
        query: npt.NDArray[np.intp],
        gallery: npt.NDArray[np.intp],
        notes: list[str],
    ) -> None:
        self.protocol, self.query, self.gallery, self.notes = protocol, query, gallery, notes
        self.query_columns = {name: column[query] for name, column in query_columns.items()}
        self.gallery_columns = {name: column[gallery] for name, column in gallery_columns.items()}
        self._person = _Groups(self.query_columns, self.gallery_columns, ("person",))
        self._ignored = [_Groups(self.query_columns, self.gallery_columns, rule.same) for rule in protocol.ignore]

    def relevant(self, start: int, stop: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Pairs (query - start, gallery) of one person for queries `start` to `stop`, ignored ones included."""
        return self._person.pairs(start, stop)

    def ignored(self, start: int, stop: int) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
        """For each rule of the protocol the pairs (query - start, gallery) that it excludes."""
        found = []
        for rule, groups in zip(self.protocol.ignore, self._ignored, strict=True):
            rows, items = groups.pairs(start, stop)
            keep = np.ones(len(rows), bool)
            for name in rule.different:
                keep &= self.query_columns[name][start + rows] != self.gallery_columns[name][items]
            for name, least in rule.closer.items():
                ours, theirs = (side[name].astype(float) for side in (self.query_columns, self.gallery_columns))
                keep &= np.abs(ours[start + rows] - theirs[items]) < least
            found.append((rows[keep], items[keep]))
        return found

    def count(self, ignored: npt.ArrayLike) -> list[str]:
        """Say how many comparisons each rule of the protocol took out, given their numbers."""
        total = len(self.query) * len(self.gallery)
        return [
            f"{number:,} of {total:,} comparisons ignored: {rule}."
            for rule, number in zip(self.protocol.ignore, np.asarray(ignored).tolist(), strict=True)
            if number
        ]

    def diagnose(self, without: npt.NDArray[np.bool_]) -> list[str]:
        """Say why queries have nothing to find.

        Parameters
        ----------
        without
            (Q,) the queries of this selection that have nothing to find.
        """
        people, count = self.gallery_columns["person"], len(self.query)
        if not count or not len(people):
            return [f"There are no {'gallery images' if count else 'queries'} for the protocol {self.protocol.name}."]
        if not without.any():
            return []
        known = np.isin(self.query_columns["person"], people)
        strangers, hidden = without & ~known, without & known
        notes = []
        if strangers.any():
            names = np.unique(self.query_columns["person"][strangers])
            notes.append(
                f"{_share(strangers, count)} left out: their {len(names):,} "
                f"{'person has' if len(names) == 1 else 'people have'} no image in the gallery, such as {names[0]!s}."
            )
            if strangers.all():
                notes.append(
                    f"No query person is in the gallery: queries are called {_some(self.query_columns['person'])}, the "
                    f"gallery {_some(people)}. Were labels renumbered on one side?"
                )
        if hidden.any():
            rules = "; or ".join(map(str, self.protocol.ignore))
            notes.append(
                f"{_share(hidden, count)} left out: the protocol ignores all images of their person ({rules})."
            )
        for name in dict.fromkeys(column for rule in self.protocol.ignore for column in rule.columns):
            values = np.unique(self.query_columns[name])
            if hidden.any() and len(values) == 1 and name != "person":
                one = len(np.unique(self.gallery_columns[name])) == 1
                also = ", and all of the gallery too" if one else ""
                notes.append(f"All {count:,} queries come from {name} {values[0]!s}{also}.")
        return notes


class _Groups:
    """Gallery images by equal values of some columns."""

    def __init__(
        self, query: Mapping[str, npt.NDArray[Any]], gallery: Mapping[str, npt.NDArray[Any]], names: Sequence[str]
    ) -> None:
        count = len(query["person"])
        ours, theirs = np.zeros(count, np.int64), np.zeros(len(gallery["person"]), np.int64)
        for name in names:
            values, codes = np.unique(np.concatenate([query[name], gallery[name]]), return_inverse=True)
            ours, theirs = ours * len(values) + codes[:count], theirs * len(values) + codes[count:]
        self.order = np.argsort(theirs, kind="stable")
        self.first = np.searchsorted(theirs, ours, sorter=self.order)
        self.size = np.searchsorted(theirs, ours, "right", sorter=self.order) - self.first

    def pairs(self, start: int, stop: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        size = self.size[start:stop]
        rows = np.repeat(np.arange(stop - start), size)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(size) - size, size)
        return rows, self.order[np.repeat(self.first[start:stop], size) + within]


def columns_of(records: Iterable[Any], *attributes: str) -> dict[str, npt.NDArray[Any]]:
    """The columns ``person``, ``group`` and some attributes of records, as readers of data sets give them."""
    found = list(records)
    columns = {"person": [record.person for record in found], "group": [record.group for record in found]}
    columns |= {name: [record.attributes[name] for record in found] for name in attributes}
    return {name: np.array(values) for name, values in columns.items()}


def _columns(columns: Columns, what: str) -> dict[str, npt.NDArray[Any]]:
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    if len({array.shape for array in arrays.values()}) > 1 or any(array.ndim != 1 for array in arrays.values()):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise DataError(f"Columns of the {what} do not fit together: {shapes}.", "Give one value per image.")
    return arrays


def _note(notes: list[str], mask: npt.NDArray[np.bool_], what: str, why: str) -> None:
    if count := int(mask.sum()):
        notes.append(f"{count:,} of {len(mask):,} {what} left out: {why}.")


def _share(mask: npt.NDArray[np.bool_], count: int) -> str:
    return f"{'All' if mask.all() else f'{int(mask.sum()):,} of'} {count:,} queries"


def _listed(values: Sequence[Any]) -> str:
    return " or ".join(map(str, values))


def _some(values: npt.NDArray[Any]) -> str:
    found = np.unique(values)
    return ", ".join(map(str, found[:3])) + (", …" if len(found) > 3 else "")


_CAMERA = Ignore(same=("person", "camera"))
_MARKET = "Gallery images of the query's own person and camera are as if not there"

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("all", "Every query against the whole gallery; nothing is ignored."),
        Protocol(
            "leave-one-out",
            "Every image against all others; the column `image` tells them apart.",
            (Ignore(("image",)),),
        ),
        Protocol(
            "market1501",
            f"{_MARKET}; boxes without a person (-1) are left out, bystanders (0) stay. Zheng et al. 2015.",
            (_CAMERA,),
            junk={"person": (-1,)},
        ),
        Protocol("msmt17", f"{_MARKET}. Wei et al. 2018.", (_CAMERA,)),
        Protocol("cuhk03-np", f"{_MARKET}; 767 people to train, 700 to test. Zhong et al. 2017.", (_CAMERA,)),
        Protocol("occluded-duke", f"{_MARKET}; all queries are occluded. Miao et al. 2019.", (_CAMERA,)),
        Protocol(
            "occluded-reid",
            "Occluded queries against whole bodies; nothing is ignored. Zhuo et al. 2018.",
        ),
        Protocol(
            "prcc-same",
            "Camera B against A: other camera, same clothes. The paper draws one gallery image per person ten times; "
            "later work, and this, uses them all. Yang et al. 2019.",
            query={"camera": ("B",)},
            gallery={"camera": ("A",)},
        ),
        Protocol(
            "prcc-changed",
            "Camera C against A: other camera, other clothes. Gallery as in prcc-same. Yang et al. 2019.",
            query={"camera": ("C",)},
            gallery={"camera": ("A",)},
        ),
        Protocol("ltcc-general", f"{_MARKET}, whatever the clothes. Qian et al. 2020.", (_CAMERA,)),
        Protocol(
            "ltcc-changed",
            "Images of the query's own person are ignored in its own camera, and in its own clothes. Qian et al. 2020.",
            (_CAMERA, Ignore(same=("person", "clothes"))),
        ),
        Protocol("last", "Films: no cameras, nothing is ignored, clothes change freely. Shu et al. 2021."),
        Protocol(
            "viper",
            "Camera a against b, one image of each person; the mean of ten random halves. Gray and Tao 2008.",
            query={"camera": ("a",)},
            gallery={"camera": ("b",)},
        ),
        Protocol(
            "world-within-look",
            "The world: find the person in another Shot of the same Look.",
            (Ignore(same=("person",), different=("look",)), Ignore(same=("person", "look", "shot"))),
        ),
        Protocol(
            "world-across-looks",
            "The world: find the person in another Look; pictures of the query's own Look are ignored.",
            (Ignore(same=("person", "look")),),
        ),
        Protocol(
            "world-across-cameras",
            "The world: find the person seen by another camera; pictures of the query's own camera are ignored.",
            (_CAMERA,),
        ),
        Protocol(
            "world-across-years",
            "The world: find the person at least five years older or younger; `age` is in years.",
            (Ignore(same=("person",), closer={"age": 5}),),
        ),
        Protocol(
            "world-long-span",
            "The world: find the person in another Look at least five years older or younger; `age` is in years.",
            (Ignore(same=("person", "look")), Ignore(same=("person",), closer={"age": 5})),
        ),
    )
}
"""By name, the protocols that data sets are measured under."""
