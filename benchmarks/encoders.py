"""Measure the networks that are trained on people who do not exist: face, body, attributes, landmarks.

World people are those from number 900,000 on, whom nothing was trained on or tuned to. Real photographs are named by
--shared, a folder with lfw/, utkface/ and market1501/; parts that need it are left out without it.

face: the portraits of benchmarks/world.py (two Looks of six Shots, 256 px, undamaged), through the HOG detector as
a user would have it, and with the true points. A picture without a face found counts as a failure everywhere: its
probe is not recognized, its pairs are refused. Beside it dlib's network on the same faces. LFW as in
benchmarks/recognition.py.
body: Market-1501 val, the first image of every person and camera against the rest, beside a histogram of colors in
horizontal stripes; and world people in another Look.
spans: world people within a Look, and in another Look ten years later.
market: a network that was trained on Market-1501 train, by the recipe; --market-run names the folder of the run.
attributes: world people, only what a picture shows of them; UTKFace by way of the HOG detector.
landmarks: error over the distance of the outer corners of the eyes, beside dlib's five points on the same faces;
--sheets names a folder for pictures with the points of real faces, to be looked at.
fruits: pairs of LFW under a limit of time, from picture to answer.

    python benchmarks/encoders.py --shared data --market-run runs/market1501   # everything; some two hours on two cores
    python benchmarks/encoders.py --only body --shared data                    # one part; the other figures stay
    python benchmarks/encoders.py --only face --start 800000 --people 10       # a look at other people; writes nothing
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console
from rich.progress import track

import recognition
import world
from ipse._files import atomic_write
from ipse.attributes import VOCABULARY, AttributeRecognizer
from ipse.encoders import AveragedEncoder, DlibFaceEncoder, Encoder, ShippedEncoder
from ipse.encoders.stripes import hsv_stripes
from ipse.encoders.trained import TrainedEncoder
from ipse.faces import Face, HogDetector, LandmarkPredictor, align
from ipse.faces.landmarks import five_of
from ipse.images import contact_sheet, read_image, resize
from ipse.measure import Evidence, Features, Retrieval, bootstrap_ci, compare, evaluate
from ipse.measure.datasets import first_of_each, open_dataset
from ipse.measure.fruits import BUDGETS_MS, Timed, time_pairs
from ipse.measure.protocols import columns_of
from ipse.measure.spans import rank_over_spans
from ipse.measure.verification import bootstrap_pairs, equal_error_rate
from ipse.world import VERSION, person
from ipse.world.dataset import Record, read_dataset, write_dataset
from ipse.world.recipe import Recipe
from ipse.zoo import DLIB_FIVE_POINTS
from ipse.zoo.shipped_files import SHIPPED

ROOT = Path(__file__).parents[1]
JUDGED = 900_000


@dataclass(frozen=True)
class Setting:
    """What the parts are given.

    Attributes
    ----------
    weights
        Folder of the networks, as `ipse train ship` writes them.
    cache
        Folder of rendered pictures.
    start, people
        World people before the judges; `people` is None for the number of each part.
    workers
        Processes.
    shared, market_run, sheets
        Folders, or None.
    sample, pairs
        Pictures of UTKFace, and pairs of LFW that pipelines are timed on.
    """

    weights: Path
    cache: Path
    start: int
    people: int | None
    workers: int
    shared: Path | None
    market_run: Path | None
    sheets: Path | None
    sample: int
    pairs: int

    def path(self, name: str) -> Path:
        """The ONNX file of a network, beside which its weights and contract lie."""
        return self.weights / f"{name}.onnx"


def percent(value: float, interval: tuple[float, float]) -> tuple[float, tuple[float, float]]:
    """A share and its interval in per cent."""
    return 100 * value, (100 * interval[0], 100 * interval[1])


def rendered(setting: Setting, name: str, recipe: Path, people: int, changes: Mapping[str, Any]) -> list[Record]:
    """Pictures of judged people by a recipe, with their truth; rendered once."""
    plain = Recipe.load(recipe).to_dict()
    for section, options in changes.items():
        plain[section] = {**plain[section], **options} if isinstance(options, Mapping) else options
    plain["people"] |= {"start": setting.start, "count": people}
    folder = setting.cache / f"{name}-{VERSION}-{setting.start}-{people}"
    write_dataset(plain, folder, workers=setting.workers)
    return list(read_dataset(folder).records(truth=True))


# -- faces -------------------------------------------------------------------------------------------------------------

# Farther than two embeddings can be: pairs with a picture in which no face was found.
_NEVER = 10.0
_SOURCES = {"detector": "", "true points": "_true_points"}


def _portraits_of(cache_folder: Path, n: int) -> dict[str, np.ndarray]:
    """Pictures and truth of person n before the judges: 2 × SHOTS portraits by Look and Shot; rendered once.

    Points and boxes are in pixels whose centers are whole numbers, as those of detectors are.
    """
    path = cache_folder / f"portraits-{VERSION}" / f"{n}.npz"
    if not path.exists():
        taken = list(world.portraits(person(n, balance=world.BY)))
        with atomic_write(path) as file:
            np.savez_compressed(
                file,
                images=np.stack([picture.image for picture in taken]),
                five=np.stack([picture.truth.five for picture in taken]) - 0.5,
                dense=np.stack([picture.truth.dense for picture in taken]) - 0.5,
                visible=np.stack([picture.truth.dense_visible for picture in taken]),
                face_box=np.stack([picture.truth.face_box for picture in taken]) - 0.5,
            )
    with np.load(path) as file:
        return dict(file)


@cache
def _encoders(weights: Path) -> dict[str, Encoder]:
    return {"face-world": ShippedEncoder(weights, threads=1), "dlib": DlibFaceEncoder(threads=1)}


@cache
def _detector() -> HogDetector:
    return HogDetector()


def judge_face(n: int, cache_folder: Path, weights: Path) -> tuple[dict[str, str], dict[tuple[str, str], np.ndarray]]:
    """Person n's groups; by encoder and source of landmarks, (2 × SHOTS, D) vectors, NaN where no face was found."""
    seen, encoders = _portraits_of(cache_folder, n), _encoders(weights)
    count = len(seen["images"])
    vectors = {
        (name, source): np.full((count, encoder.dim), np.nan, np.float32)
        for name, encoder in encoders.items()
        for source in _SOURCES
    }
    for k, image in enumerate(seen["images"]):
        faces = {
            "detector": world.face_over(_detector().detect(image), seen["face_box"][k]),
            "true points": Face(tuple(seen["face_box"][k]), 1.0, seen["five"][k], "arcface5"),
        }
        for (name, source), into in vectors.items():
            if faces[source] is not None:
                into[k] = encoders[name].encode(align(image, [faces[source]], encoders[name].chip.template))[0]
    return world.groups_of(person(n, balance=world.BY)), vectors


def hits_across_looks(vectors: np.ndarray, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Whether the nearest picture of the first Look shows the person, for every picture of the second; and the owners.

    Parameters
    ----------
    vectors
        (P, 2 × SHOTS, D) of P people; NaN where no face was found, which is a miss of the probe.
    metric
        As in `Features`.
    """
    people = len(vectors)
    enrolled, probes = (half.reshape(-1, vectors.shape[2]) for half in np.split(vectors, 2, axis=1))
    owner = np.repeat(np.arange(people), len(probes) // people)
    seen, known = np.isfinite(probes[:, 0]), np.isfinite(enrolled[:, 0])
    result = evaluate(
        Features(probes[seen], enrolled[known], metric), {"person": owner[seen]}, {"person": owner[known]}
    )
    hits = np.zeros(len(owner))
    hits[np.flatnonzero(seen)[result.query]] = result.first == 1
    return hits, owner


def pairs_across_looks(vectors: np.ndarray, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Distances and people of all pairs of a picture of the first Look with one of the second, of anybody's.

    Returns
    -------
    tuple
        Distances of same pairs and whose they are; distances of different pairs and (M, 2) between whom. Pairs with a
        picture in which no face was found are as far apart as can be.
    """
    people = len(vectors)
    enrolled, probes = (half.reshape(-1, vectors.shape[2]) for half in np.split(vectors, 2, axis=1))
    owner = np.repeat(np.arange(people), len(probes) // people)
    there = [np.isfinite(side[:, 0]) for side in (probes, enrolled)]
    distances = Features(np.nan_to_num(probes, nan=1.0), np.nan_to_num(enrolled, nan=1.0), metric).rows(0, len(probes))
    distances[~(there[0][:, None] & there[1])] = _NEVER
    alike = owner[:, None] == owner
    between = np.stack(np.nonzero(~alike), 1)
    return distances[alike], owner[np.nonzero(alike)[0]], distances[~alike], owner[between]


def error_across_looks(vectors: np.ndarray, metric: str, draws: int) -> tuple[float, tuple[float, float]]:
    """The equal error rate of `pairs_across_looks` with its interval over people, in per cent."""
    same, whose, different, between = pairs_across_looks(vectors, metric)
    interval = bootstrap_pairs(same, whose, different, between, equal_error_rate, n=draws)
    return percent(equal_error_rate(same, different), interval)


def face(evidence: Evidence, setting: Setting) -> None:
    """Add the figures of face-world, over all and by group, and on LFW."""
    count, weights = setting.people or 200, setting.path("face-world")
    numbers = range(setting.start, setting.start + count)
    work = partial(judge_face, cache_folder=setting.cache, weights=weights)
    with ProcessPoolExecutor(setting.workers, mp_context=get_context("spawn")) as pool:
        judged = list(track(pool.map(work, numbers), total=count, description="people before face-world"))
    groups = [found for found, _ in judged]
    vectors = {key: np.stack([found[key] for _, found in judged]) for key in judged[0][1]}
    metrics = {name: encoder.metric for name, encoder in _encoders(weights).items()}
    missed = ~np.isfinite(vectors["face-world", "detector"][..., 0])
    value, interval = percent(
        missed.mean(), bootstrap_ci(missed.ravel().astype(float), np.repeat(range(count), missed.shape[1]))
    )
    evidence.add(
        "encoders.face_world_missed_faces", value, "%", n=count, ci95=interval,
        note=f"{missed.size} pictures; the HOG detector found no face, which counts as a failure in the other figures",
    )  # fmt: skip
    members = {
        f".{dimension}.{name}": np.array([found[dimension] == name for found in groups])
        for dimension in world.BY
        for name in sorted({found[dimension] for found in groups})
    }
    for source, suffix in _SOURCES.items():
        ours, theirs = vectors["face-world", source], vectors["dlib", source]
        hits, owner = hits_across_looks(ours, metrics["face-world"])
        other, _ = hits_across_looks(theirs, metrics["dlib"])
        found = np.isfinite(ours[:, world.SHOTS :, 0]).ravel()
        pictures = f"{source}; {len(hits)} pictures of a second Look among {len(hits)} of the first of {count} people"
        value, interval = percent(hits.mean(), bootstrap_ci(hits, owner))
        evidence.add(
            f"encoders.face_world_rank1{suffix}", value, "%", n=count, ci95=interval,
            against=("dlib's network on the same faces", 100 * other.mean()),
            note=f"{pictures}; an undetected face is a failure, and {100 * hits[found].mean():.2f} % of the others are "
            "recognized",
        )  # fmt: skip
        value, interval = percent((hits - other).mean(), bootstrap_ci(hits - other, owner))
        evidence.add(
            f"encoders.face_world_rank1_minus_dlib{suffix}", value, "points", n=count, ci95=interval,
            note=f"{source}; paired by picture",
        )  # fmt: skip
        value, interval = error_across_looks(ours, metrics["face-world"], 200)
        same, _, different, _ = pairs_across_looks(theirs, metrics["dlib"])
        evidence.add(
            f"encoders.face_world_eer{suffix}", value, "%", n=count, ci95=interval,
            against=("dlib's network on the same faces", 100 * equal_error_rate(same, different)),
            note=f"{source}; same pairs: every picture of a person's first Look with every one of the second "
            f"({len(same)}); different pairs: likewise of two people ({len(different)}); a pair with an undetected "
            "face is refused",
        )  # fmt: skip
    ours = vectors["face-world", "detector"]
    hits, owner = hits_across_looks(ours, metrics["face-world"])
    for suffix, member in members.items():
        if member.sum() < 2:
            continue  # an interval over people needs two
        mine = member[owner]
        value, interval = percent(hits[mine].mean(), bootstrap_ci(hits[mine], owner[mine]))
        evidence.add(
            f"encoders.face_world_rank1{suffix}", value, "%", n=int(member.sum()), ci95=interval,
            note=f"detector; the rank is among all {count} people",
        )  # fmt: skip
        value, interval = error_across_looks(ours[member], metrics["face-world"], 100)
        evidence.add(
            f"encoders.face_world_eer{suffix}", value, "%", n=int(member.sum()), ci95=interval,
            note="detector; different pairs within the group",
        )  # fmt: skip
    if setting.shared:
        make = partial(ShippedEncoder, weights, threads=1)
        recognition.lfw(evidence, setting.shared, setting.workers, "encoders.face_world_lfw", make)


# -- bodies ------------------------------------------------------------------------------------------------------------


def encode_bodies(encoder: Encoder, images: Sequence[np.ndarray], what: str) -> np.ndarray:
    """(N, D) vectors of whole pictures, brought to the size that the encoder takes."""
    chip = encoder.chip
    out = []
    for start in track(range(0, len(images), 32), description=what):
        out.append(encoder.encode([resize(image, chip.width, chip.height) for image in images[start : start + 32]]))
    return np.concatenate(out)


@dataclass(frozen=True)
class Market:
    """Market-1501 val: pictures, people, cameras, and the rows that are queries and gallery."""

    images: list[np.ndarray]
    columns: dict[str, np.ndarray]
    query: np.ndarray
    gallery: np.ndarray

    @classmethod
    def open(cls, shared: Path) -> Market:
        """Read it; the first image by name of every person and camera is a query."""
        records = list(open_dataset("market1501", shared / "market1501").records("val"))
        images = [read_image(record.image) for record in records]
        return cls(images, columns_of(records, "camera"), *first_of_each(records, "camera"))

    def evaluate(self, features: np.ndarray) -> Retrieval:
        """Retrieval by cosine; images of the query's own person and camera are ignored."""
        sides = [{name: column[rows] for name, column in self.columns.items()} for rows in (self.query, self.gallery)]
        return evaluate(Features(features[self.query], features[self.gallery]), *sides, "market1501")


def add_retrieval(
    evidence: Evidence, name: str, result: Retrieval, note: str, beside: tuple[str, Retrieval] | None = None
) -> None:
    """Add rank-1 and mAP; and, beside another on the same queries, by how much it is ahead."""
    figures, people = result.figures(), len(np.unique(result.person))
    for short, figure in (("rank1", "rank-1"), ("map", "mAP")):
        value, *interval = figures[figure]
        value, interval = percent(value, tuple(interval))
        against = (beside[0], 100 * beside[1].figures()[figure][0]) if beside else None
        evidence.add(f"{name}_{short}", value, "%", n=people, ci95=interval, against=against, note=note)
        if beside:
            ahead, interval = percent(*compare(result, beside[1], figure))
            evidence.add(
                f"{name}_{short}_ahead", ahead, "points", n=people, ci95=interval,
                note=f"of {beside[0]}, paired by query",
            )  # fmt: skip


def body(evidence: Evidence, setting: Setting) -> None:
    """Add the figures of body-world on Market-1501 and across Looks of world people."""
    encoder = ShippedEncoder(setting.path("body-world"))
    stripes = "color histogram of stripes"
    if setting.shared:
        market = Market.open(setting.shared)
        colors = market.evaluate(hsv_stripes(market.images))
        result = market.evaluate(encode_bodies(encoder, market.images, "Market-1501 val"))
        note = (
            f"Market-1501 val (125 people of the official training split, no distractors): {len(market.query)} queries "
            f"against {len(market.gallery)} images"
        )
        add_retrieval(evidence, "encoders.hsv_market", colors, f"{stripes}; {note}")
        add_retrieval(
            evidence, "encoders.body_world_market", result, f"trained on no photograph; {note}", (stripes, colors)
        )
    people = setting.people or 150
    changes = {"looks": {"count": 2}, "shots": {"count": 4}, "captions": 0, "truth": [], "shard_people": 10}
    records = rendered(setting, "bodies", ROOT / "recipes" / "world" / "bodies.yaml", people, changes)
    images = [record.pixels() for record in records]
    columns = {"person": [record.person for record in records], "look": [record.group for record in records]}

    def across(features: np.ndarray) -> Retrieval:
        return evaluate(Features(features, features), columns, columns, "world-across-looks")

    add_retrieval(
        evidence, "encoders.body_world_across_looks", across(encode_bodies(encoder, images, "bodies")),
        f"{len(images)} hard pictures of {people} world people; those of the query's own Look are ignored",
        (stripes, across(hsv_stripes(images))),
    )  # fmt: skip


def spans(evidence: Evidence, setting: Setting) -> None:
    """Add how encoders of bodies rank over a short and a long span."""
    people = setting.people or 100
    records, ages = [], (25, 35)
    for seed, age in enumerate(ages):
        changes = {
            "people": {"balance": ["gender", "skin"], "fix": {"age": age}}, "looks": {"count": 1},
            "shots": {"count": 3}, "captions": 0, "truth": [], "shard_people": 10, "seed": seed,
        }  # fmt: skip
        recipe = ROOT / "recipes" / "world" / "bodies.yaml"
        records += rendered(setting, f"bodies-at-{age}", recipe, people, changes)
    images = [record.pixels() for record in records]
    columns = {"person": [record.person for record in records], "look": [record.group for record in records]}
    columns |= {name: [record.attributes[name] for record in records] for name in ("shot", "age")}
    features = {
        "hsv": hsv_stripes(images),
        "body_world": encode_bodies(ShippedEncoder(setting.path("body-world")), images, "bodies over ten years"),
    }
    found = rank_over_spans(features, columns)
    about = {
        "short": f"another Shot of the same Look at {ages[0]} or {ages[1]} years",
        "long": f"another Look, {ages[1] - ages[0]} years before or after",
    }
    for span, results in (("short", found.short), ("long", found.long)):
        for name, result in results.items():
            note = f"{about[span]}; {people} people, a fifth of them distractors; hsv reads clothes alone"
            add_retrieval(evidence, f"encoders.spans.{span}.{name}", result, note)
    evidence.add(
        "encoders.spans.flips", len(found.flips()), "pairs", n=people,
        note=f"of encoders whose order turns around, both paired intervals of mAP excluding zero; short "
        f"{' > '.join(found.order(found.short))}, long {' > '.join(found.order(found.long))}",
    )  # fmt: skip


def check_market_run(record: Mapping[str, Any], shared: Path) -> None:
    """Refuse a run that saw anything but Market-1501 train.

    Raises
    ------
    SystemExit
        With what is wrong.
    """
    data = open_dataset("market1501", shared / "market1501")
    trained, judged = ([r.person for r in data.records(split) if r.person > 0] for split in ("train", "val"))
    if both := set(trained) & set(judged):
        raise SystemExit(f"People such as {min(both)} are in Market-1501 train and in val.")
    source = record["recipe"]["data"]["source"]
    people, pictures = (record[key] + record[f"judged_{key}"] for key in ("people", "pictures"))
    if source != "train" or (people, pictures) != (len(set(trained)), len(trained)):
        raise SystemExit(
            f"The run had {pictures} pictures of {people} people in a folder {source!r}; Market-1501 train has "
            f"{len(trained)} of {len(set(trained))}."
        )


def market(evidence: Evidence, setting: Setting) -> None:
    """Add the figures of a network that was trained on Market-1501 train."""
    assert setting.shared and setting.market_run
    record = json.loads((setting.market_run / "record.json").read_text())
    check_market_run(record, setting.shared)
    data = Market.open(setting.shared)
    encoder = TrainedEncoder(setting.market_run / record["weights"])
    result = data.evaluate(encode_bodies(encoder, data.images, "Market-1501 val"))
    network = record["recipe"]["network"]["backbone"]
    add_retrieval(
        evidence, "encoders.market_supervised", result,
        f"{network}, {record['parameters'] / 1e6:.1f} M parameters, trained in {record['seconds'] / 60:.0f} minutes on "
        f"{record['gpu'] or record['machine']['cpu'] + ' (CPU)'}: {record['steps']} steps, {record['people']} people "
        "of Market-1501 train, none of them in val; its weights are not shipped",
    )  # fmt: skip


# -- attributes --------------------------------------------------------------------------------------------------------

# Yes-or-no attributes whose targets do not say when they are seen: by the fact that shows them.
_SHOWN_BY = {"mask": "mask_color", "scarf": "scarf_color"}


def true_attributes(records: Sequence[Record], recipe: Path) -> tuple[list[Any], dict[str, np.ndarray]]:
    """The targets of the recipe, and of each (N,) class numbers, or numbers from 0 to 1; NaN where nothing shows it."""
    from ipse.training.data import Chips, Cut
    from ipse.training.recipe import TrainRecipe
    from ipse.training.tasks.attributes import Target

    facts = [json.loads(record.truth["facts"]) for record in records]
    columns = {name: np.array([record.attributes[name] for record in records]) for name in records[0].attributes}
    chips = Chips(Path(), Cut(), "", columns, np.arange(len(records)))
    targets = [Target.from_recipe(name, told) for name, told in TrainRecipe.load(recipe).targets.items()]
    values = {target.name: target.values(chips, facts) for target in targets}
    for name, fact in _SHOWN_BY.items():
        hidden = columns[name] & np.array([fact not in known for known in facts])
        if name in values:
            values[name][hidden] = np.nan
    return targets, values


def balanced_accuracy(chosen: np.ndarray, true: np.ndarray) -> float:
    """The mean over classes of the share told rightly, 0–1; NaN in `true` is left out, and alone gives NaN."""
    shares = [(chosen[true == c] == c).mean() for c in np.unique(true[~np.isnan(true)])]
    return float(np.mean(shares)) if shares else float("nan")


def attributes(evidence: Evidence, setting: Setting) -> None:
    """Add the figures of attributes-world on world people and on UTKFace."""
    from ipse.training.tasks.attributes import calibration_error

    people, path = setting.people or 400, setting.path("attributes-world")
    changes = {"looks": {"count": 1}, "shots": {"count": 3}, "captions": 0, "truth": []}
    records = rendered(setting, "faces", ROOT / "recipes" / "world" / "portraits.yaml", people, changes)
    targets, true = true_attributes(records, ROOT / "recipes" / "encoders" / "attributes-world.yaml")
    chips = np.stack([record.pixels() for record in records])
    # Balanced accuracy is of values that are all as frequent, confidence of values as frequent as they were learned.
    even, sure = (AttributeRecognizer(path, frequencies=f, threads=1).tell(chips) for f in ("even", "learned"))
    who, rows = np.array([record.person for record in records]), np.arange(len(records))
    chosen, calibration = {}, {}
    for target in targets:
        name, seen = target.name, ~np.isnan(true[target.name])
        if len(np.unique(who[seen])) < 2:
            continue  # an interval over people needs two
        if target.number:
            low, high = target.number
            values = np.array([face[name].value for face in even])
            errors = np.abs(values - (true[name] * (high - low) + low))[seen]
            evidence.add(
                f"encoders.attributes_world_error.{name}", errors.mean(), VOCABULARY[name].unit,
                n=len(np.unique(who[seen])), ci95=bootstrap_ci(errors, who[seen]),
                note=f"mean absolute error, {seen.sum()} pictures that show it",
            )  # fmt: skip
            continue
        # What it takes to be hidden is told wrongly where it shows.
        places = {value: place for place, value in enumerate(target.classes)}
        chosen[name] = np.array([places.get(face[name].value, -1) for face in even])
        confident = [row for row in rows[seen] if sure[row][name].value is not None]
        calibration[name] = float("nan")
        if confident:
            chances = np.array([[sure[row][name].chances[value] for value in target.classes] for row in confident])
            labels = true[name][confident].astype(int)
            calibration[name] = calibration_error(np.log(np.maximum(chances, 1e-12)), labels)

    def accuracy(name: str, sample: np.ndarray) -> float:
        return balanced_accuracy(chosen[name][sample], true[name][sample])

    def every(sample: np.ndarray) -> list[float]:
        return [accuracy(name, sample) for name in chosen]

    for name in chosen:
        seen = rows[~np.isnan(true[name])]
        value, interval = percent(accuracy(name, seen), bootstrap_ci(seen, who[seen], 500, 0, partial(accuracy, name)))
        counts = np.bincount(true[name][seen].astype(int))
        evidence.add(
            f"encoders.attributes_world_balanced_accuracy.{name}", value, "%", n=len(np.unique(who[seen])),
            ci95=interval, note=f"{len(seen)} pictures that show it, by class {', '.join(map(str, counts))}; "
            f"calibration error {100 * calibration[name]:.1f} %",
        )  # fmt: skip
    worst = min(chosen, key=lambda name: accuracy(name, rows))
    for name, summary in (("mean", np.nanmean), ("min", np.nanmin)):
        value, interval = percent(
            summary(every(rows)), bootstrap_ci(rows, who, 500, 0, lambda sample, f=summary: float(f(every(sample))))
        )
        evidence.add(
            f"encoders.attributes_world_balanced_accuracy_{name}", value, "%", n=people, ci95=interval,
            note=f"of {len(chosen)} attributes, each on the pictures that show it; the lowest is {worst}",
        )  # fmt: skip
    gap = float(np.nanmean(list(calibration.values())))
    evidence.add(
        "encoders.attributes_world_calibration_error", 100 * gap, "%", n=people,
        note="mean over attributes of the gap between confidence and accuracy, 15 bins (Guo et al. 2017)",
    )  # fmt: skip
    if setting.shared:
        utkface(evidence, setting)


def utkface(evidence: Evidence, setting: Setting) -> None:
    """Add error of age and accuracy of gender on UTKFace."""
    recognizer = AttributeRecognizer(setting.path("attributes-world"), frequencies="even", threads=1)
    records = list(open_dataset("utkface", setting.shared / "utkface").records())
    records = random.Random(0).sample(records, min(setting.sample, len(records)))
    told, known = [], []
    for record in track(records, description="UTKFace"):
        image = read_image(record.image)
        if faces := recognition.middle_face(image, _detector()):
            told.append(recognizer.recognize(image, faces)[0])
            known.append(record.attributes)
    age = np.array([truth["age"] for truth in known], float)
    errors = np.abs(np.array([face["age"].value for face in told]) - age)
    frame = (
        f"{len(known)} crops of UTKFace, {len(records) - len(known)} more without a face found are left out; nobody is "
        "named, so the interval is over pictures"
    )
    evidence.add(
        "encoders.attributes_world_utkface_age_error", errors.mean(), "years", n=len(known), ci95=bootstrap_ci(errors),
        against=("always the median age", np.abs(age - np.median(age)).mean()),
        note=f"{frame}; {errors[(age >= 5) & (age <= 85)].mean():.1f} years from 5 to 85, the ages of the world",
    )  # fmt: skip
    female = np.array([truth["gender"] == 1 for truth in known])
    right = np.array([face["gender"].value == "female" for face in told]) == female
    for name, some in (("", age >= 0), ("_adults", age >= 18)):
        hits = right[some].astype(float)
        value, interval = percent(hits.mean(), bootstrap_ci(hits))
        evidence.add(
            f"encoders.attributes_world_utkface_gender_accuracy{name}", value, "%", n=len(hits), ci95=interval,
            against=("always the more frequent", 100 * max(female[some].mean(), 1 - female[some].mean())), note=frame,
        )  # fmt: skip


# -- landmarks ---------------------------------------------------------------------------------------------------------

# dlib's five points among the dense ones; see `ipse.faces.contract.LandmarkScheme`.
_DLIB_FIVE = (45, 42, 36, 39, 33)
_OUTER = (36, 45)


def eye_distance(dense: np.ndarray) -> np.ndarray:
    """(...) distance of the outer corners of the eyes of (..., 70, 2) points."""
    return np.linalg.norm(dense[..., _OUTER[0], :] - dense[..., _OUTER[1], :], axis=-1)


def point_error(points: np.ndarray, dense: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """(N,) mean distance of (N, 70, 2) points from the true ones that show, in per cent of the distance of the eyes."""
    errors = np.linalg.norm(points - dense, axis=2) / eye_distance(dense)[:, None]
    return 100 * (errors * shown).sum(1) / np.maximum(shown.sum(1), 1)


def without_habit(errors: np.ndarray, dense: np.ndarray) -> np.ndarray:
    """Errors (N, 5, 2) less the mean error of each point in the frame of each face's eyes.

    Where a method means a point to be elsewhere than the world does, that is no error of finding it.
    """
    eyes = dense[:, _OUTER[1]] - dense[:, _OUTER[0]]
    turn = (eyes[:, 0] + 1j * eyes[:, 1])[:, None]
    own = (errors[..., 0] + 1j * errors[..., 1]) / turn
    rest = (own - own.mean(0)) * turn
    return np.stack([rest.real, rest.imag], -1)


def true_face(box: np.ndarray, dense: np.ndarray) -> Face:
    """A face as a detector that knew everything would find it."""
    return Face(tuple(box), 1.0, five_of(dense), "arcface5")


def landmarks(evidence: Evidence, setting: Setting) -> None:
    """Add the figures of landmarks-world, beside dlib's five points."""
    path, count = setting.path("landmarks-world"), setting.people or 200
    twice, once = (LandmarkPredictor(path, refine=refine, threads=1) for refine in (True, False))
    rows: dict[str, list[Any]] = {name: [] for name in ("who", "true", "visible", "found", "once", "known", "dlib")}
    missed = 0
    for n in track(range(setting.start, setting.start + count), description="people before landmarks-world"):
        seen = _portraits_of(setting.cache, n)
        for k, image in enumerate(seen["images"]):
            face = world.face_over(_detector().detect(image), seen["face_box"][k])
            if face is None:
                missed += 1
                continue
            known = true_face(seen["face_box"][k], seen["dense"][k])
            values = (
                n, seen["dense"][k], seen["visible"][k], twice.predict(image, [face])[0].dense,
                once.predict(image, [face])[0].dense, once.predict(image, [known])[0].dense, face.landmarks,
            )  # fmt: skip
            for name, value in zip(rows, values, strict=True):
                rows[name].append(value)
    who, true, visible, found, at_once, from_truth, dlib_five = (np.array(values) for values in rows.values())
    eyes = eye_distance(true)
    pictures = f"{len(who)} portraits of {count} people; {missed} without a face found are left out"
    for suffix, points, about in (
        ("", found, "after the HOG detector, looked at twice as is the default"),
        ("_one_look", at_once, "after the HOG detector, looked at once"),
        ("_true_cut", from_truth, "cut by the true five points, looked at once"),
    ):
        errors = point_error(points, true, visible)
        evidence.add(
            f"encoders.landmarks_world_nme{suffix}", errors.mean(), "%", n=count, ci95=bootstrap_ci(errors, who),
            note=f"visible ones of 70 points, over the distance of the outer corners of the eyes; {about}; {pictures}",
        )  # fmt: skip
    errors_of = {"ours": found[:, _DLIB_FIVE] - true[:, _DLIB_FIVE], "dlib": dlib_five - true[:, _DLIB_FIVE]}
    for suffix, correct, about in (
        ("", lambda errors: errors, "as they are"),
        ("_without_habit", partial(without_habit, dense=true), "less the mean error of each point"),
    ):
        ours, theirs = (
            100 * (np.linalg.norm(correct(errors_of[name]), axis=2) / eyes[:, None]).mean(1) for name in errors_of
        )
        evidence.add(
            f"encoders.landmarks_world_five_nme{suffix}", ours.mean(), "%", n=count, ci95=bootstrap_ci(ours, who),
            against=("dlib's five points", theirs.mean()),
            note=f"corners of the eyes and base of the nose, {about}; faces of the HOG detector; {pictures}",
        )  # fmt: skip
        evidence.add(
            f"encoders.landmarks_world_five_nme_minus_dlib{suffix}", (ours - theirs).mean(), "points", n=count,
            ci95=bootstrap_ci(ours - theirs, who), note=f"paired by picture, {about}; below 0 ours are nearer",
        )  # fmt: skip
    spoiled_landmarks(evidence, setting, once)
    for suffix, predictor in (("", twice), ("_one_look", once)):
        landmark_speed(evidence, setting, predictor, suffix)
    if setting.sheets and setting.shared:
        write_sheets(setting.shared, setting.sheets, twice)


def spoiled_landmarks(evidence: Evidence, setting: Setting, predictor: LandmarkPredictor) -> None:
    """Add the error on portraits as data sets have them: with masks, things in front, and damage."""
    people = setting.people or 400
    changes = {"looks": {"count": 1}, "shots": {"count": 3}, "captions": 0, "truth": []}
    records = rendered(setting, "faces", ROOT / "recipes" / "world" / "portraits.yaml", people, changes)
    dense = np.stack([record.truth["dense"] for record in records]) - 0.5
    shown = np.stack([record.truth["dense_visible"] for record in records])
    points = np.stack(
        [
            predictor.predict(record.pixels(), [true_face(record.truth["face_box"] - 0.5, known)])[0].dense
            for record, known in zip(records, dense, strict=True)
        ]
    )
    errors, who = point_error(points, dense, shown), np.array([record.person for record in records])
    some = shown.any(1)
    evidence.add(
        "encoders.landmarks_world_nme_spoiled", errors[some].mean(), "%", n=people,
        ci95=bootstrap_ci(errors[some], who[some]),
        note=f"visible points, cut by the true five points; {some.sum()} portraits of 128 px with face masks, things "
        "in front of the face, noise, blur and compression",
    )  # fmt: skip


def landmark_speed(
    evidence: Evidence, setting: Setting, predictor: LandmarkPredictor, suffix: str, rounds: int = 7, people: int = 4
) -> None:
    """Add the time of our points beside that of dlib's five, on the same faces, in turns."""
    import dlib

    theirs = dlib.shape_predictor(str(DLIB_FIVE_POINTS.path()))
    faces: list[tuple[np.ndarray, Face]] = []
    for n in range(setting.start, setting.start + min(people, setting.people or people)):
        for image in _portraits_of(setting.cache, n)["images"]:
            faces += [(image, face) for face in _detector().detect(image)[:1]]
    boxes = [dlib.rectangle(*(round(edge) for edge in face.box)) for _, face in faces]
    our_ms, their_ms = [], []
    predictor.predict(faces[0][0], [faces[0][1]])
    for _ in track(range(rounds), description="speed of landmarks"):
        start = time.process_time()
        for image, face in faces:
            predictor.predict(image, [face])
        our_ms.append(1000 * (time.process_time() - start) / len(faces))
        start = time.process_time()
        for (image, _), box in zip(faces, boxes, strict=True):
            theirs(image, box)
        their_ms.append(1000 * (time.process_time() - start) / len(faces))
    ratios = np.array(their_ms) / np.array(our_ms)
    evidence.add(
        f"encoders.landmarks_world_speedup_vs_dlib{suffix}", float(np.median(ratios)), "x", n=rounds,
        ci95=(float(ratios.min()), float(ratios.max())),
        note=f"dlib's five-point predictor over ours with 70 points, visibility and parts: {np.median(their_ms):.2f} "
        f"and {np.median(our_ms):.2f} ms a face, processor time of one thread, face by face, cutting included; median "
        "and range of runs in turns; above 1 ours are faster",
    )  # fmt: skip


def write_sheets(shared: Path, folder: Path, predictor: LandmarkPredictor, count: int = 40) -> None:
    """Write pictures of real faces with the points found on them."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = {
        "utkface": ((shared / "utkface").glob("*.jpg"), read_image),
        "lfw": ((shared / "lfw" / "images").glob("*/*.jpg"), recognition.lfw_photograph),
    }
    for name, (paths, read) in sources.items():
        drawn = []
        for path in random.Random(0).sample(sorted(paths), 2 * count):
            image = read(path)
            faces = recognition.middle_face(image, _detector())
            if faces and len(drawn) < count:
                found = predictor.predict(image, faces)[0]
                drawn.append(with_points(image, found.dense, found.visible > 0.5))
        contact_sheet(drawn, columns=8, title=f"landmarks-world on {name}: green shows, red is hidden").save(
            folder / f"landmarks-{name}.png"
        )


def with_points(image: np.ndarray, points: np.ndarray, shown: np.ndarray, side: int = 256) -> np.ndarray:
    """The picture at the given width with its points drawn."""
    scale = side / image.shape[1]
    picture = Image.fromarray(resize(image, side, round(scale * image.shape[0])))
    draw = ImageDraw.Draw(picture)
    for (x, y), seen in zip((points + 0.5) * scale, shown, strict=True):
        draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=(0, 255, 0) if seen else (255, 60, 60))
    return np.asarray(picture)


# -- time --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pipeline:
    """Detect, align, embed."""

    detector: HogDetector
    encoder: Encoder

    def __call__(self, image: np.ndarray) -> np.ndarray | None:
        """The vector of the face nearest the middle, or None."""
        faces = recognition.middle_face(image, self.detector)
        return self.encoder.encode(align(image, faces, self.encoder.chip.template))[0] if faces else None


def pipelines(weights: Path) -> dict[str, Pipeline]:
    """What enters, on one thread each."""
    ours = ShippedEncoder(weights, threads=1)
    theirs, detector = DlibFaceEncoder(threads=1), HogDetector()
    # Finds faces from a quarter of the picture's side on, in a fraction of the time.
    quick = HogDetector(max_side=320, small_faces="never")
    return {
        "quick_face_world": Pipeline(quick, ours),
        "quick_dlib": Pipeline(quick, theirs),
        "face_world": Pipeline(detector, ours),
        "face_world_flip": Pipeline(detector, AveragedEncoder(ours)),
        "dlib": Pipeline(detector, theirs),
        "dlib_flip": Pipeline(detector, AveragedEncoder(theirs)),
        "dlib_flip_jitter": Pipeline(HogDetector(small_faces="always"), AveragedEncoder(theirs, jitter=8)),
    }


def lfw_sample(shared: Path, count: int) -> Iterator[dict[str, str]]:
    """Pairs of LFW, evenly of every fold, half of them same."""
    with open(shared / "lfw" / "pairs.csv", newline="") as file:
        pairs = list(csv.DictReader(file))
    kinds: dict[tuple[str, str], list[dict[str, str]]] = {}
    for pair in pairs:
        kinds.setdefault((pair["fold"], pair["same"]), []).append(pair)
    for members in kinds.values():
        yield from random.Random(0).sample(members, min(len(members), count // len(kinds)))


def fruits(evidence: Evidence, setting: Setting) -> None:
    """Add the accuracy of whole pipelines under limits of time."""
    assert setting.shared
    pairs = list(lfw_sample(setting.shared, setting.pairs))
    same = np.array([pair["same"] == "1" for pair in pairs])
    fold = np.array([int(pair["fold"]) for pair in pairs])
    who = np.array([pair["a"].split("/")[0] for pair in pairs])
    root = setting.shared / "lfw" / "images"
    timed: dict[str, Timed] = {}
    for name, pipeline in pipelines(setting.path("face-world")).items():
        pictures = (tuple(recognition.lfw_photograph(root / pair[side]) for side in "ab") for pair in pairs)
        timed[name] = time_pairs(pipeline, track(pictures, total=len(pairs), description=name))
        evidence.add(
            f"encoders.fruits.ms.{name}", timed[name].needed_ms, "ms", n=len(pairs),
            note="detect, align, embed and compare a pair of 448 px pictures on one thread, processor time; 95 % of "
            f"the pairs take no longer, the mean is {timed[name].milliseconds.mean():.0f} ms",
        )  # fmt: skip
    for budget in BUDGETS_MS:
        entered = [name for name in timed if timed[name].needed_ms <= budget]
        for name in entered:
            right = timed[name].right(same, fold, budget).astype(float)
            value, interval = percent(right.mean(), bootstrap_ci(right, who))
            evidence.add(
                f"encoders.fruits.accuracy_{budget}ms.{name}", value, "%", n=len(np.unique(who)), ci95=interval,
                note=f"{len(pairs)} pairs of LFW folds 1 to 5; the threshold of a fold is chosen on the others, "
                "undetected faces are errors",
            )  # fmt: skip
        refused = [name for name in timed if name not in entered]
        evidence.add(
            f"encoders.fruits.refused_{budget}ms", len(refused), "pipelines", n=len(timed),
            note=f"over the budget of {budget} ms: {', '.join(refused) or 'none'}",
        )  # fmt: skip


PARTS = {
    "face": face,
    "body": body,
    "spans": spans,
    "market": market,
    "attributes": attributes,
    "landmarks": landmarks,
    "fruits": fruits,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(PARTS), nargs="+", help="these parts; other figures stay")
    parser.add_argument("--weights", type=Path, default=SHIPPED, help="the folder of the networks")
    parser.add_argument("--shared", type=Path, help="the folder of real photographs")
    parser.add_argument("--market-run", type=Path, help="the folder of a training on Market-1501")
    parser.add_argument("--sheets", type=Path, help="a folder for pictures of landmarks to look at")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "ipse-encoders")
    parser.add_argument("--start", type=int, default=JUDGED, help="number of the first person before the judges")
    parser.add_argument("--people", type=int, help="how many, in place of each part's own number")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sample", type=int, default=4000, help="pictures of UTKFace")
    parser.add_argument("--pairs", type=int, default=600, help="pairs of LFW that pipelines are timed on")
    given = vars(parser.parse_args(arguments))
    only = given.pop("only")
    setting = Setting(**given)
    lacking = {
        name
        for name, wanted in (("market", setting.shared and setting.market_run), ("fruits", setting.shared))
        if not wanted
    }
    if only and (absent := sorted(lacking.intersection(only))):
        parser.error(f"{' and '.join(absent)} cannot be measured without --shared (and market without --market-run)")
    evidence, console = Evidence("encoders", seeds=[0]), Console()
    for name, part in PARTS.items():
        if name in (only or PARTS) and name not in lacking:
            part(evidence, setting)
            # After each part, so that a run cut short keeps what it has.
            if setting.start >= JUDGED:
                console.print(f"{name} written: {evidence.write(update=True)}")
    console.print(evidence.summary(), highlight=False)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
