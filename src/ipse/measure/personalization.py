"""Personalization: whether made pictures show the person and what the words asked for, and what they only copied.

Functions of arrays. Rows are made pictures; a picture of several people has a row for each of them. People are numbers
from 0. Judges are not here: vectors come from an encoder, facts from a classifier, and `refuse_judges` says which of
them may judge whom.

Each figure is a function of sums over people (`Figure`), so that intervals draw people, not pictures, and two methods
are compared on the same people.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from ipse import images
from ipse.errors import IpseError
from ipse.measure.evidence import bootstrap_sums

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
Metric = Literal["cosine", "l2"]


@dataclass(frozen=True, eq=False)
class Figure:
    """A figure as a function of sums over people.

    Attributes
    ----------
    sums
        (P, C): a row for each person; all zero where nothing was measured of somebody.
    statistic
        Maps sums of rows (..., C) to (...) values, NaN where there is nothing.
    groups
        (P,) numbers of people whom an interval draws together, such as those who were shown by the same prompts; by
        default everybody is drawn alone.
    """

    sums: Floats
    statistic: Callable[[Floats], Floats] = field(repr=False)
    groups: Ints | None = field(default=None, repr=False)

    @cached_property
    def value(self) -> float:
        """The figure over all people; NaN where nothing was measured."""
        return float(self.statistic(self.sums.sum(0)))

    @property
    def people(self) -> int:
        """Of how many people something was measured."""
        return int(self._measured.sum())

    @property
    def _measured(self) -> npt.NDArray[np.bool_]:
        return (self.sums != 0).any(1)

    def ci95(self, n: int = 2000, seed: int = 0) -> tuple[float, float] | None:
        """The 95 % interval of a bootstrap over groups of people; None where there are fewer than two."""
        groups = np.arange(len(self.sums)) if self.groups is None else self.groups
        drawn = groups[self._measured]
        if len(np.unique(drawn)) < 2:
            return None
        values = self.statistic(bootstrap_sums(self.sums[self._measured], drawn, n=n, seed=seed))
        values = values[np.isfinite(values)]
        if not len(values):
            return None
        low, high = np.quantile(values, [0.025, 0.975])
        return float(low), float(high)

    def minus(self, other: Figure) -> Figure:
        """The difference, paired: of the people of whom both were measured."""
        return joined([self, other], np.subtract)

    def over(self, other: Figure) -> Figure:
        """The ratio, paired: of the people of whom both were measured."""
        return joined([self, other], _ratio)


def joined(figures: Sequence[Figure], statistic: Callable[..., Floats]) -> Figure:
    """A function of several figures, paired: of the people of whom all were measured.

    Parameters
    ----------
    figures
        K figures of the same people; they are drawn in groups as those of the first that has some.
    statistic
        Maps K arrays (...) of their values to (...) values.
    """
    ends = np.cumsum([figure.sums.shape[1] for figure in figures])[:-1]
    everybody = np.all([figure._measured for figure in figures], axis=0)[:, None]
    sums = np.where(everybody, np.concatenate([figure.sums for figure in figures], axis=1), 0.0)

    def together(sums: Floats) -> Floats:
        parts = np.split(sums, ends, axis=-1)
        return statistic(*(figure.statistic(part) for figure, part in zip(figures, parts, strict=True)))

    groups = next((figure.groups for figure in figures if figure.groups is not None), None)
    return Figure(sums, together, groups)


def mean_of(values: npt.ArrayLike, person: npt.ArrayLike, people: int) -> Figure:
    """The mean of (N,) values over rows; rows with NaN are left out."""
    given, whose = np.asarray(values, np.float64), np.asarray(person, np.intp)
    return Figure(_sums([given], whose, people), lambda s: _ratio(s[..., 0], s[..., 1]))


def _sums(columns: Sequence[Floats], person: Ints, people: int) -> Floats:
    """(P, 2·C): for each column the sum of what is known of each person, and how much that is."""
    out = []
    for values in columns:
        known = np.isfinite(values)
        out += [
            np.bincount(person[known], values[known], people),
            np.bincount(person[known], minlength=people).astype(np.float64),
        ]
    return np.stack(out, axis=1)


def _ratio(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """`a` over `b`, NaN where that is nothing."""
    over, under = np.broadcast_arrays(np.asarray(a, np.float64), np.asarray(b, np.float64))
    return np.divide(over, under, out=np.full(over.shape, np.nan), where=np.isfinite(under) & (under != 0))


def _mean_known(values: Floats) -> Floats:
    """The mean over the last axis, of what is finite."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0).sum(-1), known.sum(-1))


# --- who


def similarity(a: npt.ArrayLike, b: npt.ArrayLike, metric: Metric) -> Floats:
    """How alike vectors are: their cosine, or for encoders compared by Euclidean distance 1 − distance.

    Parameters
    ----------
    a, b
        (N, D) and (M, D); rows of NaN stand for pictures without a face.
    metric
        Of the encoder. For dlib's face network, an ``l2`` one, its author's threshold of 0.6 is a similarity of 0.4.

    Returns
    -------
    (N, M) float64 array
        At most 1; NaN where a vector is missing.
    """
    from scipy.spatial.distance import cdist

    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if metric == "l2":
        return 1 - cdist(x, y)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (y / np.linalg.norm(y, axis=1, keepdims=True)).T


def identity_similarity(
    vectors: npt.ArrayLike,
    person: npt.ArrayLike,
    real: npt.ArrayLike,
    real_person: npt.ArrayLike,
    people: int,
    metric: Metric,
    *,
    missing: float,
    leave_out: bool = False,
) -> Figure:
    """The mean similarity of pictures to real pictures of their person.

    With the references that a method was shown as `real`, what is copied counts; with held-out pictures it does not.
    That the second is what matters, and that two real pictures set its ceiling, is the point of MultiID-Bench
    (WithAnyone: Xu et al., 2025).

    Parameters
    ----------
    vectors
        (N, D) of made pictures, NaN where no face was found.
    person
        (N,) whom each is to show.
    real, real_person
        (M, D) and (M,) real pictures; those without a face are left out.
    people
        P, how many people there are.
    metric
        See `similarity`.
    missing
        What a made picture without a face counts: detection failures are failures. That of strangers says that it is
        no more like the person than anybody is.
    leave_out
        `vectors` and `real` are the same pictures, and none is compared with itself: the ceiling of real pictures.
    """
    whose, owner = np.asarray(person), np.asarray(real_person)
    alike = similarity(vectors, real, metric)
    own = (whose[:, None] == owner) & np.isfinite(np.asarray(real, np.float64)[:, 0])
    if leave_out:
        np.fill_diagonal(own, False)
    values = _mean_known(np.where(own, alike, np.nan))
    lost = ~np.isfinite(np.asarray(vectors, np.float64)[:, 0]) & own.any(1)
    return mean_of(np.where(lost, missing, values), whose, people)


def stranger_similarity(
    vectors: npt.ArrayLike,
    person: npt.ArrayLike,
    real: npt.ArrayLike,
    real_person: npt.ArrayLike,
    people: int,
    metric: Metric,
) -> Figure:
    """The floor: the mean similarity of real pictures to those of everybody else; see `identity_similarity`."""
    whose = np.asarray(person)
    alike = similarity(vectors, real, metric)
    return mean_of(_mean_known(np.where(whose[:, None] != np.asarray(real_person), alike, np.nan)), whose, people)


def rank1(
    vectors: npt.ArrayLike,
    person: npt.ArrayLike,
    real: npt.ArrayLike,
    real_person: npt.ArrayLike,
    people: int,
    metric: Metric,
    *,
    leave_out: bool = False,
) -> Figure:
    """The share of pictures that are more like their person than like anybody else.

    People are enrolled by the mean vector of their real pictures. A picture without a face is a miss, and so is a tie.

    Parameters
    ----------
    vectors, person, real, real_person, people, metric
        As in `identity_similarity`.
    leave_out
        As there: each of `vectors` is taken out of its own person's mean.
    """
    made, pictures = np.asarray(vectors, np.float64), np.asarray(real, np.float64)
    whose, owner = np.asarray(person, np.intp), np.asarray(real_person, np.intp)
    if metric == "cosine":
        pictures = pictures / np.linalg.norm(pictures, axis=1, keepdims=True)
    there = np.isfinite(pictures[:, 0])
    sums = np.zeros((people, pictures.shape[1]))
    np.add.at(sums, owner[there], pictures[there])
    count = np.bincount(owner[there], minlength=people)
    alike = similarity(made, _ratio(sums, count[:, None]), metric)
    own = alike[np.arange(len(made)), whose]
    if leave_out:
        rest, left = sums[whose] - np.where(there[:, None], pictures, 0), count[whose] - there
        own = np.diagonal(similarity(made, _ratio(rest, left[:, None]), metric))
    known = (count[whose] - (there if leave_out else 0)) > 0
    others = np.where(np.arange(people) == whose[:, None], np.nan, alike)
    best = np.where(np.isfinite(others), others, -np.inf).max(1, initial=-np.inf)
    # Where no face was found nothing is finite, and nothing is a hit.
    return mean_of(np.where(known, np.where(np.isfinite(own), own > best, 0.0), np.nan), whose, people)


# --- copied


@dataclass(frozen=True)
class Signal:
    """Something that a made picture may have taken over from the reference.

    Attributes
    ----------
    name
        ``facts.NAME`` for a classifier's answer, otherwise a function of the picture: ``pose``, ``light`` …
    aspect
        What it belongs to, of `ASPECTS`.
    asked_by
        Facts that, asked for by the prompt, make it no copying.
    """

    name: str
    aspect: str
    asked_by: frozenset[str]


ASPECTS = ("pose", "expression", "light", "background", "look")
"""What a picture of a person has besides the person."""

_LIGHT = frozenset({"light_side", "light_tone"})
_PLACE = frozenset({"background", "background_color"})
_CLOTHES = frozenset({"top", "top_color", "dress", "dress_color", "coat", "coat_color", "scarf_color"})
_HAIR = frozenset({"hair_color", "hair_length", "hair_style", "hat", "age_group"})
SIGNALS = (
    Signal("pose", "pose", frozenset({"head", "head_pitch", "head_tilt"})),
    Signal("facts.head", "pose", frozenset({"head"})),
    Signal("facts.expression", "expression", frozenset({"expression"})),
    Signal("light", "light", _LIGHT | {"head", "hat"}),
    Signal("facts.light_side", "light", _LIGHT),
    Signal("background", "background", _PLACE),
    Signal("facts.background", "background", _PLACE),
    Signal("clothes", "look", _CLOTHES),
    Signal("facts.top_color", "look", _CLOTHES),
    Signal("facts.glasses", "look", frozenset({"glasses"})),
    Signal("facts.hat", "look", frozenset({"hat"})),
    Signal("facts.beard", "look", frozenset({"beard"})),
    Signal("facts.hair_color", "look", _HAIR),
    Signal("facts.hair_length", "look", _HAIR),
)
"""What is looked for."""


def copy_paste(
    made: Mapping[str, npt.NDArray],
    person: npt.ArrayLike,
    asked: Sequence[Collection[str]],
    reference: Mapping[str, npt.NDArray],
    reference_person: npt.ArrayLike,
    held_out: Mapping[str, npt.NDArray],
    held_out_person: npt.ArrayLike,
    people: int,
    signals: Iterable[Signal] = SIGNALS,
) -> dict[str, Figure]:
    """What made pictures share with the reference beyond what held-out pictures of the same person share with it.

    A class (a value of the classifier) is shared where it is the same. A number (pose, light, colors) is shared as far
    as it is nearer to the reference than real pictures of other people are: the share of them that are farther away.
    Of several references the nearest counts. With m the mean that made pictures share and h the mean that held-out
    pictures share, the figure of an aspect is Σ (m − h) / Σ (1 − h) over its signals: the form of Cohen's kappa (1960),
    with held-out pictures as what is to be expected; what can hardly be copied because it is nearly always shared
    counts for little. The figure ``all`` is the mean over aspects. What a prompt asks for is not counted as shared.

    Parameters
    ----------
    made, reference, held_out
        By name of signal: (N,) text, empty where unknown, or (N, K) numbers, NaN where unknown. Signals that are not
        in all three are left out.
    person, reference_person, held_out_person
        (N,) each.
    asked
        N: names of the facts that the prompt of each made picture asked for.
    people
        P, how many people there are.
    signals
        What is looked for.

    Returns
    -------
    dict
        By aspect and for ``all``: 0 where nothing is copied, 1 where everything is; below 0 where less is shared than
        by held-out pictures. Only aspects of which something is known.
    """
    whose, owner, holder = (np.asarray(x, np.intp) for x in (person, reference_person, held_out_person))
    used = [s for s in signals if s.name in made and s.name in reference and s.name in held_out]
    columns = []
    for signal in used:
        pool = reference[signal.name], owner, held_out[signal.name], holder
        shares = _shares(made[signal.name], whose, *pool)
        free = np.array([not signal.asked_by & set(names) for names in asked], bool)
        columns += [
            _sums([np.where(free, shares, np.nan)], whose, people),
            _sums([_shares(held_out[signal.name], holder, *pool)], holder, people),
        ]
    # Of somebody without a made picture nothing is measured.
    there = np.bincount(whose, minlength=people) > 0
    sums = np.concatenate([np.zeros((people, 0)), *columns], axis=1) * there[:, None]
    out = {}
    aspects = [aspect for aspect in ASPECTS if any(s.aspect == aspect for s in used)]
    for name, chosen in [*((a, (a,)) for a in aspects), ("all", tuple(aspects))]:
        members = [[i for i, s in enumerate(used) if s.aspect == aspect] for aspect in chosen]
        if not members:
            continue
        figure = Figure(sums, lambda s, m=members: _copied(s, m))
        if np.isfinite(figure.value):
            out[name] = figure
    return out


def _copied(sums: Floats, members: Sequence[Sequence[int]]) -> Floats:
    parts = sums.reshape(*sums.shape[:-1], -1, 4)
    made, expected = _ratio(parts[..., 0], parts[..., 1]), _ratio(parts[..., 2], parts[..., 3])
    known = np.isfinite(made) & np.isfinite(expected)
    gained, room = (np.where(known, values, 0.0) for values in (made - expected, 1 - expected))
    return _mean_known(np.stack([_ratio(gained[..., m].sum(-1), room[..., m].sum(-1)) for m in map(list, members)], -1))


def _shares(
    given: npt.NDArray, whose: Ints, reference: npt.NDArray, owner: Ints, pool: npt.NDArray, holder: Ints
) -> Floats:
    """(N,) how much each picture shares with the nearest reference of its person; NaN where that is unknown."""
    out = np.full(len(given), np.nan)
    for row, one in enumerate(reference):
        mine = np.flatnonzero(whose == owner[row])
        if given.dtype.kind == "U":
            share = np.where((given[mine] == "") | (one == ""), np.nan, given[mine] == one)
        else:
            far = np.linalg.norm(pool[holder != owner[row]] - one, axis=1)
            far = np.sort(far[np.isfinite(far)])
            near = np.linalg.norm(given[mine] - one, axis=1)
            # What is as far as some counts as nearer than half of these.
            places = (np.searchsorted(far, near, "left") + np.searchsorted(far, near, "right")) / 2
            share = np.where(np.isfinite(near), 1 - _ratio(places, len(far)), np.nan)
        out[mine] = np.fmax(out[mine], share)
    return out


def pose_of(landmarks: npt.ArrayLike) -> Floats:
    """Where a head looks, as (2·K,) numbers: K landmarks (x, y) of one scheme, moved and scaled to one place and size.

    Size is the root of the mean squared distance from the middle (Procrustes, without turning: a tilt is a pose).
    """
    points = np.asarray(landmarks, np.float64)
    centered = points - points.mean(0)
    return (centered / max(np.sqrt(np.square(centered).sum(1).mean()), 1e-9)).ravel()


def light_of(image: npt.NDArray[np.uint8], box: tuple[float, float, float, float]) -> Floats:
    """How light falls on a face, as (16,) numbers: lightness L* of its box in 4 × 4 fields, less their mean."""
    small = images.resize(images.crop(image, box, fill=128), 4, 4)
    lightness = images.rgb_to_lab(small)[..., 0].astype(np.float64).ravel()
    return lightness - lightness.mean()


def background_of(image: npt.NDArray[np.uint8]) -> Floats:
    """What is behind a person, as (16,) numbers: mean CIELAB color and deviation of L* of four fields of the picture.

    They are its left and right eighth, from the top to two thirds of the height, each cut in halves.
    """
    height, width = image.shape[:2]
    wide, high = max(1, width // 8), max(2, 2 * height // 3)
    fields = [image[rows, columns] for columns in (slice(0, wide), slice(-wide, None))
              for rows in (slice(0, high // 2), slice(high // 2, high))]  # fmt: skip
    return np.concatenate([_color(part) for part in fields])


def clothes_of(image: npt.NDArray[np.uint8]) -> Floats:
    """What is worn, as (4,) numbers: mean CIELAB color and deviation of L* of the lowest tenth, its middle half."""
    height, width = image.shape[:2]
    return _color(image[-max(1, height // 10) :, width // 4 : max(width // 4 + 1, 3 * width // 4)])


def layout_of(image: npt.NDArray[np.uint8]) -> Floats:
    """The whole picture, as (192,) numbers: CIELAB colors of 8 × 8 fields."""
    return images.rgb_to_lab(images.resize(image, 8, 8)).astype(np.float64).ravel()


def _color(part: npt.NDArray[np.uint8]) -> Floats:
    lab = images.rgb_to_lab(part).reshape(-1, 3).astype(np.float64)
    return np.append(lab.mean(0), lab[:, 0].std())


# --- what was asked for


def prompt_accuracy(
    wanted: Mapping[str, npt.NDArray[np.str_]],
    told: Mapping[str, npt.NDArray[np.str_]],
    person: npt.ArrayLike,
    people: int,
) -> dict[str, Figure]:
    """The share of pictures that show what their prompt asked for, by attribute.

    Parameters
    ----------
    wanted
        By attribute (N,): the judge's class that was asked for, empty where none was.
    told
        By attribute (N,): the class that the judge tells; empty, as for a picture that cannot be read, is a miss.
    person, people
        (N,), and how many people there are.

    Returns
    -------
    dict
        By attribute that was asked for, 0–1; and ``mean`` over them, each attribute counting alike.
    """
    whose = np.asarray(person, np.intp)
    names = [name for name in wanted if name in told and (wanted[name] != "").any()]
    if not names:
        return {}
    hits = [np.where(wanted[n] == "", np.nan, (told[n] == wanted[n]) & (told[n] != "")) for n in names]
    out = {name: mean_of(values, whose, people) for name, values in zip(names, hits, strict=True)}
    out["mean"] = Figure(_sums(hits, whose, people), lambda s: _mean_known(_ratio(s[..., ::2], s[..., 1::2])))
    return out


# --- how varied


def spread(features: npt.ArrayLike, group: npt.ArrayLike, person: npt.ArrayLike, people: int) -> Figure:
    """Diversity: the mean Euclidean distance between two pictures of one group.

    Parameters
    ----------
    features
        (N, F), NaN for a picture that cannot be read, which is left out.
    group
        (N,) numbers: pictures of one person by one prompt; for the real ones, of one person.
    person, people
        (N,), the person of each group's pictures, and how many people there are.

    Returns
    -------
    Figure
        Over that of real pictures (`Figure.over`), 1 is as varied as they are.
    """
    from scipy.spatial.distance import pdist

    rows, groups, whose = np.asarray(features, np.float64), np.asarray(group), np.asarray(person, np.intp)
    far, owner = [], []
    for name in np.unique(groups):
        mine = np.flatnonzero((groups == name) & np.isfinite(rows).all(1))
        pairs = pdist(rows[mine])
        far += pairs.tolist()
        owner += [whose[mine[0]]] * len(pairs) if len(mine) else []
    return mean_of(np.array(far, np.float64), np.array(owner, np.intp), people)


# --- who may judge


def refuse_judges(trained_with: Mapping[str, Collection[str]], judges: Mapping[str, str]) -> None:
    """Make sure that no judge is one that a method trained against.

    Parameters
    ----------
    trained_with
        By method: fingerprints of the encoders and classifiers that it was trained with.
    judges
        By name: fingerprint.

    Raises
    ------
    IpseError
        Naming the first such pair.
    """
    for method, known in trained_with.items():
        for name, fingerprint in judges.items():
            if fingerprint in known:
                raise IpseError(
                    f"{method} was trained with {name} ({fingerprint[:12]}), which is to judge it: it would be "
                    "measured by what it learned to please.",
                    "Name another judge, or leave the method out.",
                )
