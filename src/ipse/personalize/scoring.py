"""Scoring pictures of people, whoever made them: figures by method and strength, beside real pictures and strangers.

What cannot be used is named, and counted as a failure where a method is to blame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipse.attributes.judge import Judge, fact_of
from ipse.errors import DataError
from ipse.measure import personalization as measure
from ipse.measure.frechet import frechet
from ipse.personalize.listing import Made, Photograph, Problem
from ipse.personalize.observing import Observer, Seen
from ipse.personalize.prompts import Prompt

if TYPE_CHECKING:
    from ipse.measure import Evidence

BARE = "bare"
"""The method that the others' prompt accuracy is held against."""

# Fewer pictures say little of a distribution of hundreds of dimensions.
_FRECHET_LEAST = 100


@dataclass(frozen=True, eq=False)
class Curve:
    """What a method reached at one strength.

    Attributes
    ----------
    method, strength
        Which.
    pictures
        How many count, failures included.
    figures
        By name, such as ``rank1`` or ``prompt_accuracy.glasses``.
    numbers
        Figures that are no means over people: ``frechet``, ``seconds``, …
    rows
        Its pictures.
    """

    method: str
    strength: float
    pictures: int
    figures: dict[str, measure.Figure]
    numbers: Mapping[str, float]
    rows: Sequence[Made] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Scores:
    """What a folder of pictures comes to.

    Attributes
    ----------
    curves
        By method and rising strength.
    ceiling, floor
        What real pictures of one person reach, and strangers; numbers are known without measuring.
    people
        Those who are enrolled.
    photographs
        Real pictures that count.
    judges
        Fingerprint by name.
    diversity_by
        What diversity is measured in.
    problems
        What could not be used, and why.
    """

    curves: Sequence[Curve]
    ceiling: Mapping[str, measure.Figure | float]
    floor: Mapping[str, measure.Figure | float]
    people: Sequence[str]
    photographs: Sequence[Photograph] = field(repr=False)
    judges: Mapping[str, str]
    diversity_by: str
    problems: Sequence[Problem] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """As JSON values; an interval is of 95 %, over people."""
        return {
            "format": "ipse.scores/1",
            "people": list(self.people),
            "photographs": len(self.photographs),
            "judges": dict(self.judges),
            "diversity_by": self.diversity_by,
            "ceiling": {name: told(figure) for name, figure in self.ceiling.items()},
            "floor": {name: told(figure) for name, figure in self.floor.items()},
            "methods": [
                {"method": c.method, "strength": c.strength, "pictures": c.pictures}
                | {"figures": {name: told(figure) for name, figure in [*c.figures.items(), *c.numbers.items()]}}
                for c in self.curves
            ],
            "problems": [{"place": problem.place, "what": problem.what} for problem in self.problems],
        }


def chosen(scores: Scores, most_cost: float = 0.05) -> dict[str, Curve]:
    """Of each method the strength that it is reported at.

    The most like held-out pictures of those that cost at most so much of the bare base's prompt accuracy; where all
    cost more, the one that costs least.
    """

    def worth(curve: Curve) -> tuple[bool, float]:
        cost = curve.figures["prompt_cost"].value if "prompt_cost" in curve.figures else 0.0
        alike = curve.figures["sim_held_out"].value if "sim_held_out" in curve.figures else 0.0
        return cost <= most_cost, alike if cost <= most_cost else -cost

    methods = dict.fromkeys(curve.method for curve in scores.curves)
    return {method: max((c for c in scores.curves if c.method == method), key=worth) for method in methods}


def add_evidence(scores: Scores, evidence: Evidence) -> None:
    """Add the figures of each method at its `chosen` strength, of the ceiling and of the floor.

    Names are ``personalize.METHOD.FIGURE``; shares are in percent.
    """
    judged = f"judges: {', '.join(scores.judges)}"
    sides: list[tuple[str, str, Mapping[str, measure.Figure | float]]] = [
        (c.method, f"strength {c.strength:g}; {judged}", {**c.figures, **c.numbers}) for c in chosen(scores).values()
    ]
    sides += [("ceiling", judged, scores.ceiling), ("floor", judged, scores.floor)]
    for side, note, figures in sides:
        for name, figure in figures.items():
            unit = _UNITS.get(name.removeprefix("several.").partition(".")[0], "")
            times = 100 if unit == "%" else 1
            value, interval, people = (
                (figure.value, figure.ci95(), figure.people)
                if isinstance(figure, measure.Figure)
                else (figure, None, len(scores.people))
            )
            ends = (times * interval[0], times * interval[1]) if interval else None
            evidence.add(f"personalize.{side}.{name}", times * value, unit, n=people, ci95=ends, note=note)


_UNITS = {
    **dict.fromkeys(("rank1", "copy_paste", "prompt_accuracy", "prompt_cost", "detection_failures"), "%"),
    **dict.fromkeys(("seconds", "fit_seconds"), "s"),
    "memory_mib": "MiB",
}


def told(figure: measure.Figure | float) -> dict[str, Any]:
    """A figure as JSON values: ``value``, ``ci95`` or null, ``people`` or null."""
    if isinstance(figure, measure.Figure):
        interval = figure.ci95()
        return {"value": figure.value, "ci95": list(interval) if interval else None, "people": figure.people}
    return {"value": float(figure), "ci95": None, "people": None}


def score(
    pictures: Sequence[Made],
    photographs: Sequence[Photograph],
    prompts: Mapping[str, Prompt],
    observer: Observer,
    problems: Sequence[Problem] = (),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scores:
    """Score pictures against photographs and prompts.

    A picture about nobody who is enrolled, or by no prompt of the list, is set aside and named. A picture that cannot
    be read or shows no face is a failure: no hit, as like the person as strangers are, and no fact shown if it cannot
    be read. In a picture of one person the largest face counts; in one of several, faces are given to people so that
    they fit best, and who gets none is a failure.

    Parameters
    ----------
    pictures, problems
        Of `read_pictures`.
    photographs
        Of `read_people`. One that does not show exactly one face is left out and named.
    prompts
        By name.
    observer
        With the judges.
    on_progress
        Called with the number of pictures done and of all.

    Raises
    ------
    DataError
        If nobody is enrolled or no picture is left.
    IpseError
        If a judge is one that a method was trained with.
    """
    trained_with: dict[str, set[str]] = {}
    for made in pictures:
        trained_with.setdefault(made.method, set()).update(made.trained_with)
    measure.refuse_judges(trained_with, observer.judges)
    said = list(problems)
    seen = observer.look([p.path for p in photographs] + [made.path for made in pictures], on_progress)
    real = _enroll(photographs, seen[: len(photographs)], observer.encoder.metric, said)
    groups: dict[tuple[str, float], list[_Entry]] = {}
    for entry in _kept(pictures, seen[len(photographs) :], prompts, real.names, said):
        groups.setdefault((entry.made.method, entry.made.strength), []).append(entry)
    if not groups:
        raise DataError("No picture is left to score.", f"{said[0].place}: {said[0].what}" if said else "")
    ceiling, floor = _bounds(real)
    curves = [_curve(*key, groups[key], real, observer.judge, floor) for key in sorted(groups)]
    _add_costs(curves)
    by = "features of the judge" if _features(real.held.seen) is not None else "colors of 8 × 8 fields"
    return Scores(curves, ceiling, floor, real.names, real.photographs, observer.judges, by, said)


class _Entry(NamedTuple):
    """A picture that counts."""

    made: Made
    seen: Seen
    prompt: Prompt


def _kept(
    pictures: Sequence[Made],
    seen: Sequence[Seen],
    prompts: Mapping[str, Prompt],
    names: Sequence[str],
    said: list[Problem],
) -> Iterator[_Entry]:
    by_text = {prompt.text: prompt for prompt in prompts.values()}
    for made, one in zip(pictures, seen, strict=True):
        prompt = prompts.get(made.prompt) or by_text.get(made.prompt)
        unknown = [name for name in made.people if name not in names]
        if unknown:
            what = f"There is no usable photograph of {', '.join(unknown)}. It is set aside."
            said.append(Problem(str(made.path), what))
        elif prompt is None:
            said.append(Problem(str(made.path), f"There is no prompt {made.prompt!r}. It is set aside."))
        else:
            if one.problem:
                said.append(Problem(str(made.path), f"{one.problem} It counts as a failure."))
            yield _Entry(made, one, prompt)


class _Side(NamedTuple):
    """Real pictures that show one face each: references, or held-out ones."""

    vectors: npt.NDArray[np.float64]
    person: npt.NDArray[np.intp]
    seen: list[Seen]


class _Enrolled(NamedTuple):
    """Who can be told from whom."""

    names: list[str]
    photographs: list[Photograph]
    shown: _Side
    held: _Side
    #: What people are told apart by: held-out pictures, and references of those who have none.
    known: _Side
    metric: measure.Metric
    #: Shares of the held-out pictures without a face, of each person.
    failures: measure.Figure


def _enroll(
    photographs: Sequence[Photograph], seen: Sequence[Seen], metric: measure.Metric, said: list[Problem]
) -> _Enrolled:
    kept: list[tuple[Photograph, Seen]] = []
    for photograph, one in zip(photographs, seen, strict=True):
        if one.faces == 1:
            kept.append((photograph, one))
            continue
        several = f"It shows {one.faces} faces, so that nobody knows whose it is."
        what = one.problem or (several if one.faces else "No face was found in it.")
        said.append(Problem(str(photograph.path), f"{what} It is left out."))
    if not kept:
        raise DataError("No photograph of anybody shows one face.", f"{said[-1].place}: {said[-1].what}")
    names = sorted({photograph.person for photograph, _ in kept})

    def side(chosen: Sequence[tuple[Photograph, Seen]]) -> _Side:
        vectors = np.array([one.vectors[0] for _, one in chosen]).reshape(len(chosen), len(kept[0][1].vectors[0]))
        person = np.array([names.index(photograph.person) for photograph, _ in chosen], np.intp)
        return _Side(vectors, person, [one for _, one in chosen])

    held_out = {photograph.person for photograph, _ in kept if not photograph.shown}
    tried = [(p, one) for p, one in zip(photographs, seen, strict=True) if not p.shown and p.person in names]
    return _Enrolled(
        names,
        [photograph for photograph, _ in kept],
        side([(p, one) for p, one in kept if p.shown]),
        side([(p, one) for p, one in kept if not p.shown]),
        side([(p, one) for p, one in kept if not p.shown or p.person not in held_out]),
        metric,
        measure.mean_of([not one.faces for _, one in tried], [names.index(p.person) for p, _ in tried], len(names)),
    )


def _bounds(real: _Enrolled) -> tuple[dict[str, Any], dict[str, Any]]:
    """What real pictures reach, and strangers."""
    count, metric = len(real.names), real.metric
    held, shown = real.held[:2], real.shown[:2]
    ceiling = {
        "rank1": measure.rank1(*held, *held, count, metric, leave_out=True),
        "sim_reference": measure.identity_similarity(*held, *shown, count, metric, missing=0),
        "sim_held_out": measure.identity_similarity(*held, *held, count, metric, missing=0, leave_out=True),
        "detection_failures": real.failures,
    }
    floor = {
        "sim_reference": measure.stranger_similarity(*real.known[:2], *shown, count, metric),
        "sim_held_out": measure.stranger_similarity(*real.known[:2], *held, count, metric),
    }
    numbers = {}
    if (distance := _frechet(_features(real.shown.seen), _features(real.held.seen))) is not None:
        numbers["frechet"] = distance
    return _finite(ceiling) | numbers, _finite(floor) | {"rank1": 1 / count}


def _finite(figures: Mapping[str, measure.Figure]) -> dict[str, measure.Figure]:
    return {name: figure for name, figure in figures.items() if np.isfinite(figure.value)}


def _curve(
    method: str,
    strength: float,
    entries: Sequence[_Entry],
    real: _Enrolled,
    judge: Judge | None,
    floor: Mapping[str, Any],
) -> Curve:
    single = [entry for entry in entries if len(entry.made.people) == 1]
    several = [entry for entry in entries if len(entry.made.people) > 1]
    figures: dict[str, measure.Figure] = {}
    numbers: dict[str, float] = {}
    if single:
        person = np.array([real.names.index(entry.made.people[0]) for entry in single], np.intp)
        seen = [entry.seen for entry in single]
        nothing = np.full(real.known.vectors.shape[1], np.nan)
        vectors = np.array([one.vectors[0] if one.faces else nothing for one in seen])
        figures |= _identity(vectors, person, real, floor)
        figures |= _copied(seen, person, [tuple(entry.prompt.asks) for entry in single], real)
        if judge is not None:
            asks = [entry.prompt.asks for entry in single]
            wanted = {name: judge.truth(name, asks) for name in judge.attributes}
            shown = {name: np.array([one.told.get(name, "") for one in seen], str) for name in judge.attributes}
            for name, figure in measure.prompt_accuracy(wanted, shown, person, len(real.names)).items():
                figures["prompt_accuracy" if name == "mean" else f"prompt_accuracy.{name}"] = figure
        figures["diversity"] = _diversity(single, person, real)
        if (distance := _frechet(_features(seen), _features(real.held.seen))) is not None:
            numbers["frechet"] = distance
    if several:
        vectors, person = _assigned(several, real)
        figures |= {f"several.{name}": figure for name, figure in _identity(vectors, person, real, floor).items()}
    for name, together in (("seconds", np.median), ("fit_seconds", np.median), ("memory_mib", np.max)):
        if known := [entry.made.costs[name] for entry in entries if name in entry.made.costs]:
            numbers[name] = float(together(known))
    return Curve(method, strength, len(entries), _finite(figures), numbers, [entry.made for entry in entries])


def _identity(
    vectors: npt.NDArray[np.float64], person: npt.NDArray[np.intp], real: _Enrolled, floor: Mapping[str, Any]
) -> dict[str, measure.Figure]:
    count, metric = len(real.names), real.metric
    # Without strangers nobody knows how like them a picture is.
    missing = {name: floor[name].value if name in floor else 0.0 for name in ("sim_reference", "sim_held_out")}
    return {
        "rank1": measure.rank1(vectors, person, *real.known[:2], count, metric),
        "sim_reference": measure.identity_similarity(
            vectors, person, *real.shown[:2], count, metric, missing=missing["sim_reference"]
        ),
        "sim_held_out": measure.identity_similarity(
            vectors, person, *real.held[:2], count, metric, missing=missing["sim_held_out"]
        ),
        "detection_failures": measure.mean_of(np.isnan(vectors[:, 0]), person, count),
    }


def _assigned(entries: Sequence[_Entry], real: _Enrolled) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.intp]]:
    """The face of each person of each picture, as they fit best together; NaN for who has none."""
    from scipy.optimize import linear_sum_assignment

    vectors, person = [], []
    for entry in entries:
        people = [real.names.index(name) for name in entry.made.people]
        own = np.full((len(people), real.known.vectors.shape[1]), np.nan)
        if entry.seen.faces:
            middles = np.array([real.known.vectors[real.known.person == one].mean(0) for one in people])
            alike = measure.similarity(middles, entry.seen.vectors, real.metric)
            rows, columns = linear_sum_assignment(alike, maximize=True)
            own[rows] = entry.seen.vectors[columns]
        vectors += list(own)
        person += people
    return np.array(vectors), np.array(person, np.intp)


def _copied(
    seen: Sequence[Seen], person: npt.NDArray[np.intp], asked: Sequence[Sequence[str]], real: _Enrolled
) -> dict[str, measure.Figure]:
    if not real.held.seen or not real.shown.seen:
        return {}
    sides = [_signal_table(side, real.held.seen) for side in (seen, real.shown.seen, real.held.seen)]
    found = measure.copy_paste(
        sides[0], person, asked, sides[1], real.shown.person, sides[2], real.held.person, len(real.names)
    )
    return {"copy_paste" if name == "all" else f"copy_paste.{name}": figure for name, figure in found.items()}


def _signal_table(seen: Sequence[Seen], like: Sequence[Seen]) -> dict[str, npt.NDArray]:
    """What was seen as arrays, by name of signal, with the widths of pictures of one face."""
    first, out = like[0], {}
    for name, values in first.signals.items():
        nothing = np.full(len(values), np.nan)
        out[name] = np.array([one.signals.get(name, nothing) for one in seen])
    for name in first.told:
        out[f"facts.{fact_of(name)}"] = np.array([one.told.get(name, "") for one in seen], str)
    return out


def _diversity(entries: Sequence[_Entry], person: npt.NDArray[np.intp], real: _Enrolled) -> measure.Figure:
    """How varied pictures of one person by one prompt are, over how varied held-out pictures of one person are."""
    count = len(real.names)
    made, held = (_varied([entry.seen for entry in entries], real), _varied(real.held.seen, real))
    names = [(entry.made.people, entry.prompt.name) for entry in entries]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    within = measure.spread(made, [numbers[name] for name in names], person, count)
    return within.over(measure.spread(held, real.held.person, real.held.person, count))


def _varied(seen: Sequence[Seen], real: _Enrolled) -> npt.NDArray[np.float64]:
    """Features that pictures differ in; NaN for those that cannot be read."""
    if _features(real.held.seen) is not None:
        nothing = np.full(len(real.held.seen[0].features), np.nan)
        return np.array([nothing if one.features is None else one.features for one in seen])
    nothing = np.full(192, np.nan)
    return np.array([one.signals.get("layout", nothing) for one in seen]).reshape(len(seen), 192)


def _features(seen: Sequence[Seen]) -> npt.NDArray[np.float64] | None:
    """(N, K): the judge's of the pictures that could be read, or None."""
    found = [one.features for one in seen if one.features is not None]
    return np.array(found) if found else None


def _frechet(a: npt.NDArray[np.float64] | None, b: npt.NDArray[np.float64] | None) -> float | None:
    if a is None or b is None or min(len(a), len(b)) < _FRECHET_LEAST:
        return None
    return frechet(a, b)


def _add_costs(curves: Sequence[Curve]) -> None:
    """What each method's prompt accuracy is below the bare base's."""
    accuracies = [c.figures["prompt_accuracy"] for c in curves if c.method == BARE and "prompt_accuracy" in c.figures]
    for curve in curves:
        if accuracies and curve.method != BARE and "prompt_accuracy" in curve.figures:
            cost = {"prompt_cost": accuracies[0].minus(curve.figures["prompt_accuracy"])}
            curve.figures.update(_finite(cost))
