"""Search under conditions: the same person in other clothes, other people in the same clothes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ipse.catalogue import system
from ipse.measure.distances import DistanceSource

Wanted = Literal["same", "other"]
"""What is asked of a space: that the two are the same in it, or that they are not."""


@dataclass(frozen=True)
class Boundary:
    """Where in a space the same ends and the other begins.

    Attributes
    ----------
    middle
        The distance at which both are equally likely.
    width
        How far the logarithm of their odds takes to change by 1; positive.
    """

    middle: float
    width: float

    @classmethod
    def fit(cls, same: npt.ArrayLike, other: npt.ArrayLike) -> Boundary:
        """Learn it from distances of pairs, by logistic regression with both kinds weighing equally.

        Parameters
        ----------
        same, other
            (N,) and (M,) distances of pairs that are the same, and that are not.

        Raises
        ------
        ValueError
            If a kind is missing, or the same are not the nearer.
        """
        from sklearn.linear_model import LogisticRegression

        near, far = np.asarray(same, np.float64), np.asarray(other, np.float64)
        if not len(near) or not len(far) or near.mean() >= far.mean():
            raise ValueError("A boundary needs pairs of both kinds, the same nearer than the other on average.")
        scale = np.concatenate([near, far]).std()
        values = np.concatenate([near, far])[:, None] / scale
        kinds = np.repeat([0, 1], [len(near), len(far)])
        model = LogisticRegression(C=1e6, class_weight="balanced").fit(values, kinds)
        slope, offset = float(model.coef_[0, 0]) / scale, float(model.intercept_[0])
        return cls(-offset / slope, 1 / slope)


@dataclass(frozen=True)
class Space:
    """One way in which pictures can be alike.

    Attributes
    ----------
    distances
        (Q, G), such as `ipse.measure.Features` of an encoder or of colors.
    boundary
        Where the same ends in them.
    """

    distances: DistanceSource
    boundary: Boundary


@system(
    name="GeneCIS",
    paper="GeneCIS: A Benchmark for General Conditional Image Similarity",
    year=2023,
    arxiv="2306.07969",
    room="gallery",
    claim="What counts as alike is a condition that comes with the query, so one gallery answers several questions.",
    evidence=["reid.genecis.*"],
    works_means="On world people in shared clothes, both 'same person, other clothes' and 'same clothes, other person' "
    "find the right picture first more often than either feature alone and than both alike. Clearly so for the second; "
    "the first one's interval holds zero. The paper's combiner of pictures and free text is not here: conditions are "
    "those that features exist for.",
    status="experimental",
)
class Conditional:
    """Distances under conditions: the less likely that all of them hold, the farther.

    A space says how likely two pictures are the same in it, p = 1 / (1 + exp((d − middle) / width)). The distance is
    −Σ log of p for the spaces in which the same is wanted and of 1 − p for those in which another is. It saturates:
    who is clearly another person gains nothing by being another still more.

    Parameters
    ----------
    spaces
        By name, such as ``person`` and ``clothes``; all of the same queries and gallery.
    wanted
        What is asked, such as ``{"person": "same", "clothes": "other"}``; spaces not named are not looked at.

    Raises
    ------
    ValueError
        If nothing is asked, or of a space that there is not, or spaces differ in shape.
    """

    def __init__(self, spaces: Mapping[str, Space], wanted: Mapping[str, Wanted]) -> None:
        if missing := sorted(wanted.keys() - spaces.keys()):
            raise ValueError(f"There is no space {missing[0]!r}, but {', '.join(spaces)}.")
        if not wanted or set(wanted.values()) - {"same", "other"}:
            raise ValueError("Ask 'same' or 'other' of one space at least.")
        self.spaces, self.wanted = {name: spaces[name] for name in wanted}, dict(wanted)
        shapes = {space.distances.shape for space in self.spaces.values()}
        if len(shapes) > 1:
            raise ValueError(f"Spaces are of different queries or galleries: {', '.join(map(str, shapes))}.")
        self._shape = shapes.pop()

    @property
    def shape(self) -> tuple[int, int]:
        """Q and G."""
        return self._shape

    def select(self, query: npt.NDArray[np.intp], gallery: npt.NDArray[np.intp]) -> Conditional:
        """The same for some of the queries and some of the gallery."""
        chosen = {
            name: Space(space.distances.select(query, gallery), space.boundary) for name, space in self.spaces.items()
        }
        return Conditional(chosen, self.wanted)

    def rows(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """(stop - start, G) distances; see `ipse.measure.distances.DistanceSource`."""
        total = np.zeros((stop - start, self.shape[1]), np.float32)
        for name, space in self.spaces.items():
            odds = (space.distances.rows(start, stop) - space.boundary.middle) / space.boundary.width
            total += np.logaddexp(0, odds if self.wanted[name] == "same" else -odds)
        return total
