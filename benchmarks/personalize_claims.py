"""What personalizing systems claim, each as a difference of paired figures: above 0 is what the claim says.

Figures are those of `ipse.personalize.scoring` and of `ipse.measure.personalization`; what only one system's claim asks
for is here: places of faces and of their parts, changes outside of the face, and parts of a system's own loss, on
people who were held out of the training.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from torch import Tensor

from ipse.diffusion.attention import fit_region
from ipse.errors import IpseError
from ipse.faces import HogDetector, LandmarkPredictor, align
from ipse.faces.align import fit_similarity
from ipse.faces.landmarks import five_of
from ipse.images import read_image
from ipse.measure import personalization as figures
from ipse.measure.evidence import Evidence
from ipse.measure.personalization import Figure, joined
from ipse.personalize import bench
from ipse.personalize.adapting import Batch, Conditions, read_weights
from ipse.personalize.listing import Made, read_people
from ipse.personalize.observing import Seen
from ipse.personalize.references import FaceReader
from ipse.personalize.scoring import BARE, Curve, Scores, add_evidence, chosen
from ipse.personalize.training import AdapterStage, stage_of

if TYPE_CHECKING:
    from personalize import Plan, Setting

FACE_WORDS = ("expression", "glasses", "beard", "hair_color", "hair_length", "age_group")
"""What prompts ask of a face."""
MOVED = ("expression", "head")
SCENE = ("light_side", "clothes_color")
"""What prompts ask of the rest of a picture and the judge can tell; of backgrounds it tells nothing."""
POSE = ((0.39, 0.48), (0.60, 0.48), (0.495, 0.63), (0.41, 0.71), (0.58, 0.71))
"""Where a face is to be that is told its place: eyes, nose, corners of the mouth, as shares of the picture's sides.

Such as portraits of the world have them: an adapter was told of no others.
"""
PARTS = {"eyes": slice(36, 48), "nose": slice(27, 36), "mouth": slice(48, 68)}
"""Landmarks of parts of the face."""
_EYES = (slice(36, 42), slice(42, 48))
# Held-out people of a batch, and pictures of each.
_TOGETHER, _ROUNDS = 2, 3


class Missing(Exception):
    """What a claim needs is not there: something was left out, or is not finished."""


class Measured:
    """Figures of pictures and of adapters, looked up by name.

    Parameters
    ----------
    setting, plan
        Of the run.
    scores
        Of all pictures.
    """

    def __init__(self, setting: Setting, plan: Plan, scores: Scores) -> None:
        self.setting, self.plan, self.scores = setting, plan, scores
        self._curves = {(curve.method, curve.strength): curve for curve in scores.curves}
        self._stages: dict[str, AdapterStage] = {}
        self._only: set[str] | None = None
        self.used: set[str] = set()
        """Training seeds that were looked at since this was last emptied."""

    # --- Pictures ---------------------------------------------------------------------------------------------------

    def seeds(self, name: str, strength: float) -> list[Curve]:
        """The curves of training seeds of some pictures, at one strength: of all, or as `paired` says."""
        found = self._seeds(name, strength)
        if self._only is not None and name != BARE:
            found = {seed: curve for seed, curve in found.items() if seed in self._only}
        if not found:
            raise Missing(f"There are no pictures of {name} at strength {strength:g}.")
        if name != BARE:
            self.used |= found.keys()
        return [found[seed] for seed in sorted(found)]

    def _seeds(self, name: str, strength: float) -> dict[str, Curve]:
        """By training seed, empty for the first."""
        named = {
            tuple(method.partition(".seed-")[::2]): c for (method, at), c in self._curves.items() if at == strength
        }
        return {seed: curve for (plain, seed), curve in named.items() if plain == name}

    @contextmanager
    def paired(self, *sides: tuple[str, float]) -> Iterator[None]:
        """Look only at training seeds of which there are pictures of all sides.

        What was made with one adapter is held against what was made with that adapter, or with one of the same seed.
        The bare base has no seeds, and goes with all.

        Parameters
        ----------
        sides
            Names and strengths.
        """
        each = [seeds for name, at in sides if name != BARE and (seeds := self._seeds(name, at).keys())]
        before, self._only = self._only, set.intersection(*map(set, each)) if each else None
        try:
            yield
        finally:
            self._only = before

    def figure(self, figure: str, name: str, strength: float = 1.0) -> Figure:
        """A figure of pictures, the mean over training seeds that have it: diversity is that of the first."""
        found = [curve.figures[figure] for curve in self.seeds(name, strength) if figure in curve.figures]
        if not found:
            raise Missing(f"{name} has no {figure}.")
        return mean(found)

    def strengths(self, name: str) -> list[float]:
        """At which there are pictures."""
        return sorted({at for method, at in self._curves if method == name})

    def seen(self, rows: Sequence[Made]) -> list[Seen]:
        """What judges saw in pictures."""
        return self.setting.observer.look([row.path for row in rows], self.setting.keep_on)

    def alone(self, name: str, strength: float = 1.0) -> tuple[list[Made], npt.NDArray[np.intp]]:
        """Pictures of one person, of all seeds, and the number of the person."""
        curves = self.seeds(name, strength)
        rows = [row for curve in curves for row in curve.rows if len(row.people) == 1]
        return rows, np.array([self.scores.people.index(row.people[0]) for row in rows], np.intp)

    def accuracy(self, attributes: Collection[str], name: str, strength: float = 1.0) -> Figure:
        """Share of pictures that show what was asked for, the mean over some attributes."""
        judge = self.setting.observer.judge
        if judge is None:
            raise Missing("There is no judge of prompts.")
        rows, person = self.alone(name, strength)
        asks = [bench.prompts()[row.prompt].asks for row in rows]
        names = [attribute for attribute in judge.attributes if attribute in attributes]
        wanted = {attribute: judge.truth(attribute, asks) for attribute in names}
        told = {
            attribute: np.array([one.told.get(attribute, "") for one in self.seen(rows)], str) for attribute in names
        }
        found = figures.prompt_accuracy(wanted, told, person, len(self.scores.people))
        if "mean" not in found:
            raise Missing(f"Of {name} nothing was asked about {', '.join(attributes)}.")
        return replace(found["mean"], groups=self._groups)

    @cached_property
    def _groups(self) -> npt.NDArray[np.intp]:
        return self.setting.drawn(self.scores.people)

    def _mean_of(self, values: npt.ArrayLike, person: npt.ArrayLike) -> Figure:
        """The mean over pictures, for an interval over people and prompts."""
        return replace(figures.mean_of(values, person, len(self.scores.people)), groups=self._groups)

    def pose_spread(self, name: str) -> Figure:
        """How far apart heads of one person and prompt are turned, the mean over seeds with two pictures each."""
        out = []
        for curve in self.seeds(name, 1.0):
            rows = [row for row in curve.rows if len(row.people) == 1]
            seen = self.seen(rows)
            width = max((len(one.signals["pose"]) for one in seen if "pose" in one.signals), default=0)
            poses = np.array([one.signals.get("pose", np.full(width, np.nan)) for one in seen])
            labels = [f"{row.people} {row.prompt}" for row in rows]
            person = [self.scores.people.index(row.people[0]) for row in rows]
            out.append(replace(figures.spread(poses, labels, person, len(self.scores.people)), groups=self._groups))
        known = [figure for figure in out if np.isfinite(figure.value)]
        if not known:
            raise Missing(f"Of {name} there are no two pictures by one prompt that show a face.")
        return mean(known)

    # --- Places of faces --------------------------------------------------------------------------------------------

    @cached_property
    def _looking(self) -> tuple[HogDetector, LandmarkPredictor]:
        return HogDetector(), LandmarkPredictor()

    @cached_property
    def _dense(self) -> dict[str, npt.NDArray[np.float64]]:
        return {}

    def dense(self, path: Any) -> npt.NDArray[np.float64]:
        """(70, 2) landmarks of the largest face of a picture as shares of its sides; NaN where there is none."""
        if str(path) not in self._dense:
            picture, (detector, predictor) = read_image(path), self._looking
            faces = sorted(detector.detect(picture), key=lambda f: (f.box[2] - f.box[0]) * (f.box[3] - f.box[1]))
            size = np.array(picture.shape[1::-1])
            found = [one.dense for one in predictor.predict(picture, faces[-1:])]
            self._dense[str(path)] = (found[0] + 0.5) / size if found else np.full((70, 2), np.nan)
        return self._dense[str(path)]

    def off_place(self, name: str, five: npt.NDArray[np.float64] | None = None) -> Figure:
        """How far eyes, nose and mouth are from where they are to be, in distances of the eyes; failures left out.

        `five` are the places, by default those of the reference, cut as a portrait.
        """
        rows, person = self.alone(name)
        errors = []
        for row in rows:
            wanted = self._places[row.people[0]] if five is None else five
            far = np.linalg.norm(five_of(self.dense(row.path)) - wanted, axis=1).mean()
            errors.append(far / np.linalg.norm(wanted[1] - wanted[0]))
        return self._mean_of(errors, person)

    @cached_property
    def _places(self) -> dict[str, npt.NDArray[np.float64]]:
        """By person, the five points of the reference, cut as a portrait."""
        setting, out = self.setting, {}
        reader = FaceReader(setting.base)
        for name in setting.people.people:
            photographs = [read_image(path) for path in setting.people.references(name)]
            out[name] = reader.person(photographs, ["five"])["five"][0].numpy().astype(np.float64)
        return out

    def part_error(self, name: str) -> Figure:
        """How unlike the person's eyes, nose and mouth are in shape and place: landmarks, faces laid on each other.

        Held against the mean of held-out pictures, in distances of the eyes; pictures without a face are left out.
        """
        rows, person = self.alone(name)
        errors = []
        for row in rows:
            real = self._shapes.get(row.people[0])
            own = self.dense(row.path)
            if real is None or np.isnan(own).any():
                errors.append(np.nan)
                continue
            far = np.linalg.norm(laid_on(own, real) - real, axis=1)
            errors.append(np.mean([far[part].mean() for part in PARTS.values()]) / eye_distance(real))
        return self._mean_of(errors, person)

    @cached_property
    def _shapes(self) -> dict[str, npt.NDArray[np.float64]]:
        """By person, the mean landmarks of held-out pictures, laid on the first."""
        shapes: dict[str, list[npt.NDArray[np.float64]]] = {}
        for photograph in read_people(self.setting.people.folder):
            if not photograph.shown and not np.isnan(own := self.dense(photograph.path)).any():
                first = shapes.setdefault(photograph.person, [])
                first.append(laid_on(own, first[0]) if first else own)
        return {name: np.mean(own, 0) for name, own in shapes.items()}

    def in_place(self, name: str) -> Figure:
        """Share of pictures of two people whose faces, from left to right, are theirs in the order given.

        That is so where their similarities in this order add up to more than in the other; where not two faces were
        found, a half.
        """
        curves = self.seeds(name, 1.0)
        rows = [row for curve in curves for row in curve.rows if len(row.people) == 2]
        if not rows:
            raise Missing(f"There are no pictures of two people by {name}.")
        observer, known = self.setting.observer, self._known
        right = []
        for row in rows:
            picture = read_image(row.path)
            faces = sorted(observer.detector.detect(picture), key=lambda f: f.box[0] + f.box[2])
            if len(faces) != 2:
                right.append(0.5)
                continue
            vectors = observer.encoder.encode(align(picture, faces, observer.encoder.chip.template or "dlib150"))
            alike = figures.similarity(vectors, np.stack([known[who] for who in row.people]), observer.encoder.metric)
            right.append(float(np.trace(alike) > np.trace(alike[::-1])))
        person = [self.scores.people.index(row.people[0]) for row in rows]
        return self._mean_of(right, person)

    @cached_property
    def _known(self) -> dict[str, npt.NDArray[np.float64]]:
        """By person, the mean vector of held-out pictures."""
        held_out = [photograph for photograph in self.scores.photographs if not photograph.shown]
        vectors: dict[str, list[Any]] = {}
        seen = self.setting.observer.look([photograph.path for photograph in held_out])
        for photograph, one in zip(held_out, seen, strict=True):
            vectors.setdefault(photograph.person, []).append(one.vectors[0])
        return {name: np.mean(own, 0) for name, own in vectors.items()}

    # --- Adapters, on people held out of the training ---------------------------------------------------------------

    def held_out(self, name: str, training: str, as_trained: str, look: Callable[..., float]) -> Figure:
        """Something of batches of held-out people, with the same noise for all adapters.

        Parameters
        ----------
        name
            What is measured: a word for the file that remembers it.
        training
            Whose adapter.
        as_trained
            The training whose options it is looked at with.
        look
            Maps a stage and a batch to a number.
        """
        setting, plan = self.setting, self.plan
        if training not in plan.trainings or not (path := setting.adapter(training, plan.trainings[training])).exists():
            raise Missing(f"{training} is not trained.")
        self.used.add("")
        place = setting.home / "held-out" / f"{path.parent.name}-{name}.json"
        if not place.exists():
            stage = self._stage(as_trained)
            stage.network.load_state_dict(read_weights(path)[0], strict=False)
            stage.network.eval()
            values = []
            for batches in self._batches(stage):
                setting.keep_on()
                values.append([look(stage, batch) for batch in batches])
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(values))
        values = json.loads(place.read_text())
        groups = np.repeat(np.arange(len(values)), [len(own) for own in values])
        return figures.mean_of([one for own in values for one in own], groups, len(values))

    def _stage(self, name: str) -> AdapterStage:
        if name not in self._stages:
            setting, training = self.setting, self.plan.trainings[name]
            recipe, corpus, make = stage_of(
                setting.recipe(name, training), setting.base, setting.data, setting.store(training)
            )
            stage = make(recipe, corpus, torch.device("cpu"))
            stage.method.regions = tuple({*stage.method.regions, "face"})
            # All rows are asked for their directions, so that a few batches say enough.
            if hasattr(stage.method.options, "edited"):
                stage.method.options = replace(stage.method.options, edited=1.0)
            self._stages[name] = stage
        return self._stages[name]

    @staticmethod
    def _batches(stage: AdapterStage) -> Iterator[Iterator[Batch]]:
        """Of some held-out people at a time, batches of their pictures."""
        part = stage.held_out
        people = np.unique(part.person)
        few = [people[i : i + _TOGETHER] for i in range(0, len(people) - _TOGETHER + 1, _TOGETHER)] or [people]
        pairs = stage.pairs[id(part)]

        def batches(number: int, who: npt.NDArray[np.int64]) -> Iterator[Batch]:
            for turn in range(_ROUNDS):
                draw = np.random.default_rng([number, turn])
                rows = np.array([draw.choice(np.flatnonzero(part.person == one)) for one in who])
                steps = torch.from_numpy(draw.integers(0, len(stage.share), len(rows)))
                known = torch.ones(len(rows), dtype=torch.bool)
                tokens = stage.captions.full(part.rows[rows])
                torch.manual_seed(int(draw.integers(2**31)))
                yield stage.batch(part, rows, pairs(rows, draw), tokens, steps, known)

        for number, who in enumerate(few):
            yield batches(number, who)


def changed_outside(stage: AdapterStage, batch: Batch) -> float:
    """Mean squared difference to what the base predicts, outside of the face."""
    with torch.no_grad():
        mine = stage.method.predict(batch)
        base = stage.method.predict(batch, Conditions(batch.words.text))
    outside = 1 - fit_region(batch.own["face"], mine.shape[-2:])[:, None].to(mine)
    return float((outside * (mine - base).square()).sum() / (outside.sum() * mine.shape[1]).clamp_min(1e-6))


def part_of_loss(name: str, stage: AdapterStage, batch: Batch) -> float:
    """One of the numbers that a system's loss is made of."""
    with torch.no_grad():
        told: dict[str, Tensor] = stage.method.loss(batch)[1]
    return float(told[name])


def laid_on(points: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(P, 2) points, turned, scaled and moved so that they are nearest to others."""
    to_others = fit_similarity(points, others)
    return points @ to_others[:, :2].T + to_others[:, 2]


def eye_distance(points: npt.NDArray[np.float64]) -> float:
    """Between the middles of the eyes of (70, 2) landmarks."""
    left, right = (points[eye].mean(0) for eye in _EYES)
    return float(np.linalg.norm(left - right))


def mean(of: Sequence[Figure]) -> Figure:
    """The mean of figures of the same people, such as those of training seeds."""
    return of[0] if len(of) == 1 else joined(of, lambda *values: np.mean(values, 0))


# -- claims ------------------------------------------------------------------------------------------------------------


def reached(x: Sequence[npt.ArrayLike], y: Sequence[npt.ArrayLike], at: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The most that a curve reaches in y where its x is `at` or more; its end where it never is.

    Parameters
    ----------
    x, y
        K points (...) in the order of the curve, straight lines between them.
    at
        (...).
    """
    xs, ys, wanted = np.stack(np.broadcast_arrays(*x)), np.stack(np.broadcast_arrays(*y)), np.asarray(at, np.float64)
    best = np.where(xs >= wanted, ys, -np.inf).max(0)
    for i in range(len(xs) - 1):
        width = xs[i + 1] - xs[i]
        share = np.divide(wanted - xs[i], width, out=np.full(np.shape(wanted), np.nan), where=width != 0)
        on = ys[i] + share * (ys[i + 1] - ys[i])
        best = np.where((share >= 0) & (share <= 1), np.fmax(best, on), best)
    end = np.take_along_axis(ys, xs.argmax(0)[None], 0)[0]
    return np.where(np.isfinite(best), best, end)


Pair = tuple[Figure, float]
"""By how much a claim holds, and what it is held against, both of the same people."""


def ahead(ours: Figure, theirs: Figure, *, less: bool = False) -> Pair:
    """How far one figure is ahead of another; with `less`, behind."""
    return (theirs.minus(ours) if less else ours.minus(theirs)), joined([ours, theirs], lambda _, other: other).value


def sides_of(ours: str, theirs: str) -> list[tuple[str, float]]:
    """Both at full strength."""
    return [(name, 0.0 if name == BARE else 1.0) for name in (ours, theirs)]


def gain(figure: str, ours: str, theirs: str, m: Measured) -> Pair:
    """How far one is ahead of another in a figure of pictures, at full strength."""
    sides = sides_of(ours, theirs)
    with m.paired(*sides):
        return ahead(*(m.figure(figure, *side) for side in sides))


def above(y: str, x: str, ours: str, theirs: str, m: Measured) -> Pair:
    """How far one at full strength is above the curve of another over its strengths, and the bare base at its end."""
    curve = [(BARE, 0.0), *((theirs, at) for at in m.strengths(theirs))]
    points = [(ours, 1.0), *curve]
    with m.paired(*points):
        flat = [m.figure(name, *point) for point in points for name in (x, y)]

    def there(*values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return reached(values[2::2], values[3::2], values[0])

    return joined(flat, lambda *values: values[1] - there(*values)), joined(flat, there).value


def between(measure: Callable[[Measured, str], Figure], ours: str, theirs: str, m: Measured, *, less: bool) -> Pair:
    """How far one is ahead of another, or behind, in a measure of its name."""
    with m.paired(*sides_of(ours, theirs)):
        return ahead(measure(m, ours), measure(m, theirs), less=less)


def kept(figure: str, ours: str, theirs: str, share: float, m: Measured) -> Pair:
    """By how much one keeps more than a share of another's figure."""
    with m.paired(*sides_of(ours, theirs)):
        a, b = m.figure(figure, ours), m.figure(figure, theirs)
    return ahead(a, joined([b], lambda y: share * y))


def recognized(m: Measured) -> Pair:
    """How much more often the face adapter's pictures are recognized than the bare base's."""
    return gain("rank1", "face-adapter", BARE, m)


def nearer_than_strangers(m: Measured) -> Pair:
    """How much more like the reference than strangers the image adapter's pictures are."""
    return ahead(m.figure("sim_reference", "image-adapter"), m.scores.floor["sim_reference"])


def copies_less(m: Measured) -> Pair:
    """How much less of the reference's pose and expression is copied with pairs."""
    names = ("copy_paste.pose", "copy_paste.expression")
    sides = sides_of("imagine-yourself", "imagine-yourself.self-paired")
    with m.paired(*sides):
        return ahead(*(mean([m.figure(figure, *side) for figure in names]) for side in sides), less=True)


def accurate(words: Collection[str], m: Measured, name: str) -> Figure:
    """How often some attributes that prompts ask for are as asked."""
    return m.accuracy(words, name, 0.0 if name == BARE else 1.0)


def of_training(name: str, look: Callable[..., float], as_trained: str = "") -> Callable[[Measured, str], Figure]:
    """A measure of adapters on held-out people."""
    return lambda m, training: m.held_out(name, training, as_trained or training, look)


def placed(m: Measured, name: str) -> Figure:
    """How far faces are from where they are told to be."""
    return m.off_place(name, np.array(POSE))


@dataclass(frozen=True)
class Claim:
    """A part of what a system claims.

    Attributes
    ----------
    part
        Its name; empty for the first.
    measure
        Of it.
    against
        What it is held against.
    percent
        Whether it is of shares.
    note
        What a reader must know.
    """

    part: str
    measure: Callable[[Measured], Pair]
    against: str
    percent: bool = False
    note: str = ""


OUTSIDE = of_training("outside", changed_outside)
_SAME = "similarity to held-out pictures, "
_OUT = "mean squared change of the base's prediction outside of the face, held-out pictures"
CLAIMS: dict[str, Sequence[Claim]] = {
    "face-adapter": [Claim("", recognized, "the bare base", True, "rank-1 of the true person")],
    "image-adapter": [Claim("", nearer_than_strangers, "strangers", note="similarity to the reference")],
    "instantid": [
        Claim(
            "", partial(above, "sim_held_out", "prompt_accuracy", "instantid", "image-adapter"),
            "the image adapter at equal prompt accuracy", note=_SAME + "above its curve",
        ),
        Claim(
            "without_identitynet", partial(gain, "sim_held_out", "instantid", "instantid.no-identitynet"),
            "without IdentityNet", note=_SAME + "full strength",
        ),
        Claim(
            "without_tokens", partial(gain, "sim_held_out", "instantid", "instantid.no-tokens"), "without the adapter",
            note=_SAME + "full strength",
        ),
        Claim(
            "points", partial(between, Measured.off_place, "instantid", "instantid.no-identitynet", less=True),
            "without IdentityNet", note="distance of five points to those given, in distances of the eyes",
        ),
    ],
    "photoverse": [
        Claim(
            "text", partial(above, "sim_held_out", "prompt_accuracy", "photoverse", "photoverse.text"),
            "the pseudo-word alone", note=_SAME + "above its curve",
        ),
        Claim(
            "image", partial(above, "sim_held_out", "prompt_accuracy", "photoverse", "photoverse.image"),
            "the image tokens alone", note=_SAME + "above its curve",
        ),
        Claim(
            "", partial(gain, "sim_held_out", "photoverse", "photoverse.no-loss"), "no loss on identity",
            note=_SAME + "full strength",
        ),
    ],
    "arc2face": [
        Claim("", partial(gain, "sim_held_out", "arc2face", "face-adapter"), "the face adapter", note=_SAME + "alone"),
        Claim("diversity", partial(gain, "diversity", "arc2face", "face-adapter"), "the face adapter"),
        Claim("pose", partial(between, Measured.pose_spread, "arc2face", "face-adapter", less=False),
              "the face adapter", note="distance of poses of one person and prompt"),
    ],
    "consistentid": [
        Claim("", partial(gain, "sim_held_out", "consistentid", "face-adapter"), "the face adapter", note=_SAME),
        Claim(
            "parts", partial(between, Measured.part_error, "consistentid", "face-adapter", less=True),
            "the face adapter", note="landmarks of eyes, nose and mouth, in distances of the eyes",
        ),
        Claim(
            "localization", partial(gain, "sim_held_out", "consistentid", "consistentid.anywhere"),
            "no loss on attention", note=_SAME,
        ),
        Claim(
            "localization_parts",
            partial(between, Measured.part_error, "consistentid", "consistentid.anywhere", less=True),
            "no loss on attention", note="landmarks of eyes, nose and mouth, in distances of the eyes",
        ),
        Claim(
            "attention",
            partial(
                between, of_training("beside", partial(part_of_loss, "beside"), "consistentid"), "consistentid",
                "consistentid.anywhere", less=True,
            ),
            "no loss on attention", note="attention of words for parts outside less inside, held-out pictures",
        ),
    ],
    "infinite-id": [
        Claim("", partial(gain, "sim_held_out", "infinite-id", "infinite-id.text-on"), "trained with the text on",
              note=_SAME),
        Claim("prompt", partial(gain, "prompt_accuracy", "infinite-id", "infinite-id.added"),
              "both attentions added", True, "prompt accuracy"),
        Claim("prompt_of_base", partial(gain, "prompt_accuracy", "infinite-id", BARE), "the bare base", True,
              "prompt accuracy"),
    ],
    "facechain-fact": [
        Claim("", partial(between, OUTSIDE, "facechain-fact", "facechain-fact.no-fair", less=True), "without FAIR",
              note=_OUT),
        Claim("similarity", partial(gain, "sim_held_out", "facechain-fact", "facechain-fact.no-fair"),
              "without FAIR", note=_SAME),
        Claim("scene", partial(between, partial(accurate, SCENE), "facechain-fact", BARE, less=False),
              "the bare base", True, "accuracy of words for light and clothes"),
        Claim("pose", partial(between, Measured.pose_spread, "facechain-fact", "facechain-fact.unshuffled", less=False),
              "references not shuffled", note="distance of poses of one person and prompt"),
    ],
    "dp-adapter": [
        Claim("", partial(above, "sim_held_out", "prompt_accuracy", "dp-adapter", "face-adapter"),
              "the face adapter at equal prompt accuracy", note=_SAME + "above its curve"),
        Claim("outside", partial(between, OUTSIDE, "dp-adapter", "face-adapter", less=True), "the face adapter",
              note=_OUT),
    ],
    "masterweaver": [
        Claim("", partial(between, partial(accurate, FACE_WORDS), "masterweaver", "masterweaver.no-edit", less=False),
              "no loss on editing directions", True, "accuracy of words for the face"),
        Claim("similarity", partial(gain, "sim_held_out", "masterweaver", "masterweaver.no-edit"),
              "no loss on editing directions", note=_SAME),
        Claim(
            "directions",
            partial(
                between, of_training("edit_cosine", partial(part_of_loss, "edit_cosine"), "masterweaver"),
                "masterweaver", "masterweaver.no-edit", less=False,
            ),
            "no loss on editing directions", note="cosine to the base's editing directions, held-out pictures",
        ),
        Claim("augmentation",
              partial(between, partial(accurate, FACE_WORDS), "masterweaver", "masterweaver.plain-faces", less=False),
              "the picture's own face as reference", True, "accuracy of words for the face"),
    ],
    "imagine-yourself": [
        Claim("", copies_less, "self-paired", True, "pose and expression copied from the reference"),
        Claim("prompt",
              partial(
                  between, partial(accurate, MOVED), "imagine-yourself", "imagine-yourself.self-paired", less=False
              ),
              "self-paired", True, "accuracy of words for expression and pose"),
        Claim("similarity", partial(gain, "sim_held_out", "imagine-yourself", "imagine-yourself.self-paired"),
              "self-paired", note=_SAME),
        Claim("parallel", partial(gain, "prompt_accuracy", "imagine-yourself", "imagine-yourself.one-row"),
              "text and image tokens in one row", True, "prompt accuracy"),
    ],
    "id-aligner": [
        Claim("", partial(gain, "sim_held_out", "id-aligner", "id-aligner.no-reward"),
              "as many more steps without rewards", note=_SAME),
        Claim("start", partial(gain, "sim_held_out", "id-aligner", "face-adapter"), "where it began", note=_SAME),
        Claim("prompt", partial(gain, "prompt_accuracy", "id-aligner", "face-adapter"), "where it began", True,
              "prompt accuracy"),
        Claim("diversity", partial(gain, "diversity", "id-aligner", "face-adapter"), "where it began"),
        Claim("lora", partial(gain, "sim_held_out", "id-aligner.lora", "id-aligner.lora-no-reward"),
              "low-rank weights without rewards", note=_SAME),
        Claim("lora_start", partial(gain, "sim_held_out", "id-aligner.lora", BARE), "where it began: the bare base",
              note=_SAME),
    ],
    "freecure": [
        Claim("", partial(gain, "prompt_accuracy", "freecure", "face-adapter"), "the face adapter", True,
              "prompt accuracy"),
        Claim("kept", partial(kept, "sim_held_out", "freecure", "face-adapter", 0.95),
              "95 % of the face adapter's similarity", note=_SAME),
        Claim("strength", partial(above, "prompt_accuracy", "sim_held_out", "freecure", "face-adapter"),
              "the face adapter, its strength lowered to equal similarity", True, "prompt accuracy above its curve"),
        Claim("photoverse", partial(gain, "prompt_accuracy", "freecure.photoverse", "photoverse"), "PhotoVerse", True,
              "prompt accuracy"),
        Claim("photoverse_kept", partial(kept, "sim_held_out", "freecure.photoverse", "photoverse", 0.95),
              "95 % of PhotoVerse's similarity", note=_SAME),
        Claim("photoverse_strength",
              partial(above, "prompt_accuracy", "sim_held_out", "freecure.photoverse", "photoverse"),
              "PhotoVerse, its strength lowered to equal similarity", True, "prompt accuracy above its curve"),
    ],
    "storymaker": [
        Claim("", partial(between, Measured.in_place, "storymaker.placed", "storymaker.free-placed", less=False),
              "attention not kept to places", True, "two people who are told their places are in them"),
        Claim("several", partial(gain, "several.rank1", "storymaker", "storymaker.free"),
              "attention not kept to places", True, "rank-1 of both of two people"),
        Claim("look", partial(gain, "copy_paste.look", "storymaker", "storymaker.free"),
              "attention not kept to places", True, "clothes, hair and the like that no prompt changes, kept"),
        Claim("pose", partial(between, placed, "storymaker.posed", "storymaker", less=True), "no pose given",
              note="distance of five points to those given, in distances of the eyes"),
        Claim(
            "attention",
            partial(
                between, of_training("misplaced", partial(part_of_loss, "misplaced"), "storymaker"), "storymaker",
                "storymaker.free", less=True,
            ),
            "no loss on attention", note="mean squared error of attention's places, held-out pictures",
        ),
    ],
}  # fmt: skip
"""By system."""


def add_claims(m: Measured, evidence: Evidence, claims: Mapping[str, Iterable[Claim]]) -> None:
    """Add what can be said of claims, and name what cannot."""
    console = Console()
    for system, own in claims.items():
        for claim in own:
            name = f"personalize.{system}.claim" + (f"_{claim.part}" if claim.part else "")
            m.used.clear()
            try:
                figure, theirs = claim.measure(m)
            except (Missing, IpseError, KeyError) as reason:
                # One claim is not worth the figures of all others.
                what = f"nothing is known of {reason}" if isinstance(reason, KeyError) else reason
                console.print(f"[yellow]! {name}: {what}[/]", highlight=False, soft_wrap=True)
                continue
            if not np.isfinite(figure.value):
                console.print(f"[yellow]! {name}: nothing was measured of both[/]", highlight=False)
                continue
            times, unit = (100, "points") if claim.percent else (1, "")
            interval = figure.ci95()
            ends = (times * interval[0], times * interval[1]) if interval else None
            note = "; ".join(
                filter(None, [claim.note.rstrip(", "), "gain: above 0 is as claimed", trained(m, system, len(m.used))])
            )
            evidence.add(
                name, times * figure.value, unit, n=figure.people, ci95=ends,
                against=(claim.against, times * theirs), note=note,
            )  # fmt: skip


def trained(m: Measured, system: str, count: int) -> str:
    """That a system's figures are of so many trainings, and of how many steps."""
    told = m.plan.shown.get(system)
    if told is None or not told.training:
        return ""
    steps = m.setting.recipe(told.training, m.plan.trainings[told.training]).steps
    return f"{count} training seed{'s' if count > 1 else ''} of {steps} steps"


def add_systems(m: Measured, evidence: Evidence, systems: Collection[str]) -> Scores:
    """Add figures of systems, the mean over training seeds, of the bare base, of real pictures and of strangers.

    Returns
    -------
    Scores
        Those of the systems alone.
    """
    curves = []
    for curve in m.scores.curves:
        if curve.method in (*systems, BARE):
            told = {name: m.figure(name, curve.method, curve.strength) for name in curve.figures}
            curves.append(replace(curve, figures=told))
    shown = replace(m.scores, curves=curves)
    before = len(evidence.figures)
    add_evidence(shown, evidence)
    for figure in evidence.figures[before:]:
        system = figure["name"].split(".")[1]
        if system in systems:
            count = len({curve.method for curve in m.scores.curves if curve.method.partition(".seed-")[0] == system})
            figure["note"] = f"{figure['note']}; {trained(m, system, count)}"
    for name in chosen(shown):
        training = m.plan.trainings.get(name)
        if training is not None:
            record = json.loads((m.setting.run(name, training) / "record.json").read_text())
            evidence.add(
                f"personalize.{name}.training_minutes", record["seconds"] / 60, "min", n=1,
                note=f"{record['steps']} steps of {training_batch(record)} pictures, one thread",
            )  # fmt: skip
    return shown


def training_batch(record: Mapping[str, Any]) -> int:
    """Pictures of a step."""
    return int(record["recipe"]["batch"])
