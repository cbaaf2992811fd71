"""Measure what learns from few pictures and few answers: templates of ears, and who comes later.

A run that is finished is kept in the work folder and not trained again; one that was stopped goes on.

gaitenroll: known or new, learned on Market-1501 train and asked on Market-1501 val, and on faces of world people by
dlib's network; beside the best threshold of the training and the best one of each gallery.
aspl: names for pictures of Market-1501 val from few answers, new people among them, beside questions alone, random
questions and self-paced labels alone, also with wrong answers.
starbucks: slices of one network on faces of world people, beside slices drawn by chance and small networks trained
alone; and search from coarse to fine.
pavenet: drawers of Omniglot by strings of any characters, beside warping and the network without patterns.
plip: words for world bodies: text to person, attributes, picture to picture; beside contrast between instances, and
without each task. --bodies names what `ipse world dataset recipes/base/bodies.yaml` wrote, people from number 20000 on;
its last fifth of the files is judged. People that body-world, the network it begins with, was trained on are refused.
find_text: sentences that look for somebody in a folder of world people whom the network never saw, by
`ipse train words` and `ipse find --text` as they come. --crops names what
`ipse world dataset recipes/world/bodies.yaml` wrote, to learn from.
proton: ears of AWE, people in three folds; each fold is judged by networks that were trained on the two others. ProtoN
beside prototypical networks, and beside the same backbone fine-tuned as a classifier; equal steps, batches and
pictures.

    python benchmarks/open_set.py --shared data --market-run runs/market1501 --faces faces --bodies bodies --crops crops
    python benchmarks/open_set.py --shared data --work work --only proton     # one part
    python benchmarks/open_set.py --shared data --work trial --share 0.02     # a trial: few steps, nothing is written
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress, track

import reid
import systems
from encoders import percent
from ipse._files import atomic_write
from ipse.cli.find_text import find_text
from ipse.cli.train_words import words as train_words
from ipse.errors import DataError
from ipse.gallery.aspl import SelfPacedLabels
from ipse.gallery.coarse import CoarseToFine
from ipse.gallery.set_enroll import Episode, KnownOrNew, play
from ipse.images import read_image, resize
from ipse.measure.datasets import open_dataset
from ipse.measure.distances import Features
from ipse.measure.evidence import Evidence, bootstrap_ci
from ipse.measure.retrieval import evaluate
from ipse.measure.verification import bootstrap_pairs, equal_error_rate
from ipse.training.loop import with_steps
from ipse.training.pavenet import WriterVerifier, path_features, trace
from ipse.training.plip import Plan, fit_words, open_words, read_described, run_fingerprint
from ipse.training.recipe import TrainRecipe
from ipse.world.caption import article
from ipse.world.dataset import read_dataset, write_dataset
from trials import told_seeds, trained


@dataclass(frozen=True)
class Setting:
    """What the parts are given.

    Attributes
    ----------
    shared
        Folder of real photographs.
    work
        Where pictures, packs and runs are kept.
    share
        Of the steps; below 1 for a trial.
    market_run
        Folder of a training on Market-1501, or None.
    cache
        Folder of features and rendered pictures, as of benchmarks/reid.py.
    faces
        A data set of recipes/world/faces.yaml, or None.
    bodies
        A data set of recipes/base/bodies.yaml, or None.
    crops
        A data set of recipes/world/bodies.yaml, or None.
    folds
        Of ears that are judged.
    """

    shared: Path
    work: Path
    share: float
    market_run: Path | None
    cache: Path
    faces: Path | None
    bodies: Path | None
    crops: Path | None
    folds: int

    @property
    def reid(self) -> reid.Setting:
        """The same for benchmarks/reid.py."""
        return reid.Setting(self.cache, COUPLES, self.shared, self.market_run)

    def steps(self, count: int) -> int:
        """A number of steps, or the share of it."""
        return max(2, round(self.share * count))

    def train(self, plan: Mapping[str, Any], seed: int) -> Path:
        """The weights of a training by a recipe, done now unless they are there."""
        recipe = TrainRecipe.from_dict({**plan, "seed": seed})
        recipe = with_steps(recipe, self.steps(recipe.steps))
        return trained(recipe, self.work / "runs" / f"{recipe.name}-{recipe.fingerprint[:8]}", self.work / "packs")


COUPLES = 40
"""Of world people whose faces are seen; those of benchmarks/reid.py."""


# -- ProtoN: ears ------------------------------------------------------------------------------------------------------

FOLDS, SHOTS, ASKED, DRAWS = 3, (1, 2, 3, 5), 5, 5
EAR = (64, 32)
"""Height and width of a chip in pixels."""

EARS: dict[str, Any] = {
    "modality": "ear",
    "steps": 100,
    "start": "face-world",
    "cut": {"kind": "whole", "size": list(EAR)},
    "batch": {"people": 8, "each": 5},
    "augment": {
        "geometry": {"turn": 12.0, "scale": 0.1, "shift": 0.06},
        "color": {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.0, "p": 0.8},
    },
    "optimizer": {"rate": 0.0015, "warmup": 15, "decay": 0.05},
    "ema": 0.97,
    "save_every": 40,
    "evaluate_every": 10_000,
}
BACKBONE = {"backbone": "iresnet", "depths": [1, 2, 3, 2], "width": 0.25, "stem": 2, "dim": 128, "size": list(EAR)}
GLOBAL = {"margin": {"margin": "cosface", "size": 0.15, "scale": 16.0}}
#: What is trained: the losses and the graph; all else is the same.
TRAININGS: dict[str, dict[str, Any]] = {
    "plain": {"task": "identity", "network": BACKBONE, "losses": GLOBAL},
    "protonet": {"task": "proton", "network": {**BACKBONE, "layers": 0}, "losses": {**GLOBAL, "episode": {}}},
    "proton": {
        "task": "proton",
        "network": {**BACKBONE, "layers": 2},
        "losses": {**GLOBAL, "episode": {}, "alignment": {"weight": 0.5}},
    },
}


@dataclass(frozen=True)
class Trials:
    """What queries of one picture found, under one way to make templates.

    Attributes
    ----------
    hits
        (Q,) whether the nearest template is the query's person.
    people
        (Q,) who is asked.
    same, others
        Distances to the template of the own person (Q,), and to those of others (M,).
    between
        (M, 2) whose query and whose template.
    """

    hits: np.ndarray
    people: np.ndarray
    same: np.ndarray
    others: np.ndarray
    between: np.ndarray


def ears(shared: Path, work: Path) -> tuple[list[Path], np.ndarray]:
    """Folders of the training pictures of each fold, mirrored to one side; and (P, 2) person and the judged fold."""
    records = list(open_dataset("awe", shared / "awe_ears").records())
    people = np.unique([record.person for record in records])
    fold = np.random.default_rng(0).permutation(len(people)) % FOLDS
    folders = [work / "ears" / f"without-{number}" for number in range(FOLDS)] + [work / "ears" / "all"]
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True, exist_ok=True)
        for turn, record in enumerate(records):
            path = folder / f"{record.person:04d}_c{turn % 10 + 1}s1_{turn:04d}.png"
            if fold[np.searchsorted(people, record.person)] == number or path.exists():
                continue
            picture = read_image(record.image)
            picture = picture[:, ::-1] if record.attributes["side"] == "l" else picture
            with atomic_write(path) as file:
                Image.fromarray(resize(np.ascontiguousarray(picture), EAR[1], EAR[0])).save(file, "PNG")
    return folders, np.stack([people, fold], axis=1)


def ear_pictures(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(N, H, W, 3) pictures and (N,) people."""
    paths = sorted(folder.glob("*.png"))
    return np.stack([read_image(path) for path in paths]), np.array([int(path.name[:4]) for path in paths])


def trials(templates: np.ndarray, names: np.ndarray, queries: np.ndarray, people: np.ndarray) -> Trials:
    """Every query against every template, unit vectors all; templates may be several of a person."""
    distances = 1 - queries @ templates.T
    known = np.unique(names)
    nearest = np.stack([distances[:, names == name].min(axis=1) for name in known], axis=1)
    own = people[:, None] == known
    query, template = np.nonzero(~own)
    return Trials(
        (known[nearest.argmin(axis=1)] == people).astype(float), people, nearest[own], nearest[~own],
        np.stack([people[query], known[template]], axis=1),
    )  # fmt: skip


def joined(parts: Sequence[Trials]) -> Trials:
    """Trials of several draws and folds as one."""
    return Trials(*(np.concatenate([getattr(part, name) for part in parts]) for name in Trials.__dataclass_fields__))


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def means(rows: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """People, and the mean of each one's unit vectors, of length 1."""
    names = np.unique(people)
    return names, unit(np.stack([unit(rows)[people == name].mean(axis=0) for name in names]))


def asked(found: Mapping[str, np.ndarray], refine: Any, people: np.ndarray) -> dict[tuple[str, int], Trials]:
    """Trials of one fold by way and shots, over `DRAWS` draws of which pictures enroll and which ask.

    Parameters
    ----------
    found
        (N, D) embeddings by training, of people who were not trained on.
    refine
        Makes people and templates of ProtoN's embeddings.
    people
        (N,).
    """
    made: dict[tuple[str, int], list[Trials]] = {}
    for number in range(DRAWS):
        draw = np.random.default_rng([1, number])
        order = np.concatenate([draw.permutation(np.flatnonzero(people == name)) for name in np.unique(people)])
        places = np.concatenate([np.arange(count) for count in np.unique(people, return_counts=True)[1]])
        query = order[places < ASKED]
        alone = refine(found["proton"][query], np.arange(len(query)))[1]
        for shots in SHOTS:
            rows = order[(places >= ASKED) & (places < ASKED + shots)]
            ways = {
                "single": (unit(found["plain"][rows]), people[rows], unit(found["plain"][query])),
                **{
                    name: (*means(found[key][rows], people[rows])[::-1], unit(found[key][query]))
                    for name, key in (("plain", "plain"), ("protonet", "protonet"), ("mean", "proton"))
                },
                "proton": (*refine(found["proton"][rows], people[rows])[::-1], alone),
            }
            for name, (templates, names, queries) in ways.items():
                made.setdefault((name, shots), []).append(trials(templates, names, queries, people[query]))
    return {key: joined(parts) for key, parts in made.items()}


def add_trials(evidence: Evidence, name: str, ours: Trials, note: str, beside: tuple[str, Trials] | None) -> None:
    """Add rank-1 and equal error rate, and by how much both are ahead of another way with the same trials."""
    count = len(np.unique(ours.people))
    label, theirs = beside or ("", ours)

    def against(value: float) -> tuple[str, float] | None:
        return (label, 100 * value) if beside else None

    value, interval = percent(ours.hits.mean(), bootstrap_ci(ours.hits, ours.people))
    evidence.add(
        f"{name}rank1", value, "%", n=count, ci95=interval, against=against(theirs.hits.mean()), note=note
    )  # fmt: skip

    # Rows and not distances are drawn, so that both ways see the same pairs.
    def rate(way: Trials, same: np.ndarray, others: np.ndarray) -> float:
        return equal_error_rate(way.same[same.astype(int)], way.others[others.astype(int)])

    def interval_of(statistic: Any) -> tuple[float, float]:
        rows = np.arange(len(ours.same)), np.arange(len(ours.others))
        return bootstrap_pairs(rows[0], ours.people, rows[1], ours.between, statistic, n=100)

    rates = [equal_error_rate(way.same, way.others) for way in (ours, theirs)]
    value, interval = percent(rates[0], interval_of(lambda same, others: rate(ours, same, others)))
    evidence.add(f"{name}eer", value, "%", n=count, ci95=interval, against=against(rates[1]), note=note)
    if beside:
        ahead = ours.hits - theirs.hits
        value, interval = percent(ahead.mean(), bootstrap_ci(ahead, ours.people))
        evidence.add(
            f"{name}rank1_ahead", value, "points", n=count, ci95=interval,
            note=f"rank-1, ahead of {label}, paired by query; {note}",
        )  # fmt: skip
        value, interval = percent(
            rates[1] - rates[0],
            interval_of(lambda same, others: rate(theirs, same, others) - rate(ours, same, others)),
        )
        evidence.add(
            f"{name}eer_less", value, "points", n=count, ci95=interval,
            note=f"equal error rate, below {label}, paired by pair; {note}",
        )  # fmt: skip


def proton(evidence: Evidence, setting: Setting) -> None:
    """Add rank-1 and equal error rate on ears of people who were not trained on, by number of impressions."""
    from ipse.encoders.modules import ChipEmbedding
    from ipse.training.networks import load_network

    folders, folds = ears(setting.shared, setting.work)
    pictures, people = ear_pictures(folders[-1])
    judged = dict(folds.tolist())
    parts: dict[tuple[str, int], list[Trials]] = {}
    for number in range(setting.folds):
        rows = np.flatnonzero([judged[who] == number for who in people])
        found, networks = {}, {}
        for name, plan in TRAININGS.items():
            data = {"source": str(folders[number]), "holdout": 0.0}
            weights = setting.train({**EARS, **plan, "data": data, "name": f"ears-{name}-{number}"}, seed=number)
            networks[name], contract = load_network(weights)
            module = ChipEmbedding(networks[name], contract["chip"], unit=False)
            found[name] = embedded(module, pictures[rows])
        for key, made in asked(found, networks["proton"].templates, people[rows]).items():
            parts.setdefault(key, []).append(made)
    results = {key: joined(made) for key, made in parts.items()}
    count = int((folds[:, 1] < setting.folds).sum())
    about = (
        f"{len(folds)} people of AWE in {FOLDS} folds, trained on two and judged on the third, {count} people in "
        f"{setting.folds} of the folds; {ASKED} queries of one picture a person, {DRAWS} draws; {EARS['steps']} steps "
        f"from face-world's filters; training seeds {told_seeds(range(setting.folds))}, one a fold; one "
        "threshold for all"
    )
    told = {
        "single": "fine-tuned as a classifier, the nearest of all impressions",
        "plain": "fine-tuned as a classifier, the mean of impressions",
        "protonet": "prototypical networks: trained by episodes, the mean of impressions",
        "mean": "ProtoN's backbone, the mean of impressions",
        "proton": "ProtoN: templates refined by the graph",
    }
    for shots in SHOTS:
        for name, note in told.items():
            final = name == "proton" and shots == SHOTS[-1]
            path = "reid.proton." if final else f"reid.proton.shots{shots}.{name}_"
            beside = ("a plain fine-tuned encoder, mean of impressions", results["plain", shots])
            add_trials(
                evidence, path, results[name, shots], f"{note}; {shots} impressions a person; {about}",
                beside if name == "proton" else None,
            )  # fmt: skip
        for name in ("protonet", "mean", "single"):
            ahead = results["proton", shots].hits - results[name, shots].hits
            value, interval = percent(ahead.mean(), bootstrap_ci(ahead, results[name, shots].people))
            evidence.add(
                f"reid.proton.shots{shots}.ahead_of_{name}", value, "points", n=count, ci95=interval,
                note=f"rank-1, ProtoN ahead of: {told[name]}; paired by query; {shots} impressions a person; {about}",
            )  # fmt: skip
    gains = [results["proton", shots].hits - results["protonet", shots].hits for shots in (SHOTS[0], SHOTS[-1])]
    grown = gains[1] - gains[0]
    value, interval = percent(grown.mean(), bootstrap_ci(grown, results["proton", SHOTS[0]].people))
    evidence.add(
        "reid.proton.claim", value, "points", n=count, ci95=interval,
        note=f"by how much the lead over prototypical networks grows from {SHOTS[0]} impression to {SHOTS[-1]}, paired "
        f"by query; {about}",
    )  # fmt: skip


def embedded(module: Any, pictures: np.ndarray) -> np.ndarray:
    """(N, D) float32 of a module that takes float pictures in 0–1."""
    with torch.inference_mode():
        parts = [
            module(torch.from_numpy(pictures[start : start + 64]).permute(0, 3, 1, 2).float() / 255).numpy()
            for start in range(0, len(pictures), 64)
        ]
    return np.concatenate(parts)


# -- GaitEnroll: known or new ------------------------------------------------------------------------------------------

#: People enrolled, pictures of each, and share of new people among those who come.
GALLERIES = {
    "market": [(20, 1, 0.5), (20, 4, 0.2), (60, 2, 0.5), (100, 1, 0.2), (100, 4, 0.5)],
    "faces": [(10, 1, 0.5), (20, 2, 0.2), (40, 1, 0.2), (40, 2, 0.5), (60, 2, 0.2)],
}


def f1(known: np.ndarray, told: np.ndarray) -> float:
    """The mean of F1 for known and F1 for new; 0 for a kind that is never told."""
    scores = []
    for kind in (True, False):
        both = ((known == kind) & (told == kind)).sum()
        scores.append(2 * both / max(1, (known == kind).sum() + (told == kind).sum()))
    return float(np.mean(scores))


def best_limit(known: np.ndarray, nearest: np.ndarray) -> float:
    """The distance up to which a probe is best called known, of a hundred tried."""
    limits = np.quantile(nearest, np.linspace(0, 1, 101))
    return float(max(limits, key=lambda limit: f1(known, nearest <= limit)))


def nearest_of(features: np.ndarray, episode: Episode) -> np.ndarray:
    """(Q,) cosine distance of each probe to the nearest picture of the gallery."""
    return Features(features[episode.probes], features[episode.gallery]).rows(0, len(episode.probes)).min(axis=1)


def mean_f1(rows: np.ndarray, way: int) -> float:
    """The mean over galleries of `f1`, of rows as `enrollments` gives; `way` is a column."""
    return float(np.mean([f1(*rows[rows[:, 4] == scene][:, [0, way]].T > 0) for scene in np.unique(rows[:, 4])]))


def enrollments(
    decide: KnownOrNew,
    features: np.ndarray,
    people: np.ndarray,
    galleries: Sequence[tuple[int, int, float]],
    limit: float,
) -> tuple[np.ndarray, float]:
    """Ten enrollments of each gallery.

    Returns
    -------
    tuple
        (N, 6) int: whether a probe is known, and by decision, fixed limit and best limit; gallery; person. And the
        largest change of a chance where the gallery is in another order.
    """
    tables, error = [], 0.0
    for scene, (enrolled, shots, new) in enumerate(galleries):
        rows = []
        for number in range(10):
            draw = np.random.default_rng([3, number])
            episode = play(people, enrolled, shots, draw, new=new)
            turned = draw.permutation(episode.gallery)
            chances, again = (
                decide.known(features[episode.probes], features[gallery], people[gallery])
                for gallery in (episode.gallery, turned)
            )
            error = max(error, float(np.abs(chances - again).max()))
            rows.append([episode.known, chances >= 0.5, nearest_of(features, episode), people[episode.probes]])
        known, told, nearest, who = (np.concatenate(column) for column in zip(*rows, strict=True))
        best = best_limit(known, nearest)
        tables.append(np.stack([known, told, nearest <= limit, nearest <= best, np.full(len(who), scene), who], axis=1))
    return np.concatenate(tables).astype(int), error


def learned_enrollment(setting: reid.Setting, steps: int) -> tuple[KnownOrNew, float]:
    """GaitEnroll that learned on galleries of Market-1501 train, and the best fixed threshold there."""
    train = reid.open_market(setting, "train")
    features, people = train.plain, train.columns["person"]
    draws = [np.random.default_rng([2, number]) for number in range(60)]
    played = [play(people, int(draw.integers(5, 61)), int(draw.integers(1, 5)), draw) for draw in draws]
    limit = best_limit(
        np.concatenate([episode.known for episode in played]),
        np.concatenate([nearest_of(features, episode) for episode in played]),
    )
    return KnownOrNew().fit(features, people, steps=steps), limit


def add_enrollments(
    evidence: Evidence,
    path: str,
    learned: tuple[KnownOrNew, float],
    asked: tuple[np.ndarray, np.ndarray],
    galleries: Sequence[tuple[int, int, float]],
    about: str,
    claim: str = "",
) -> float:
    """Add F1 of known and new in galleries, beside thresholds.

    Parameters
    ----------
    evidence, path
        Where to, and how the names of the figures begin.
    learned
        As `learned_enrollment` gives.
    asked
        (N, D) features and (N,) people.
    galleries
        As of `enrollments`.
    about
        Which encoder and people they are.
    claim
        Name of the figure that says how far ahead of the fixed threshold it is, in place of the usual one.

    Returns
    -------
    float
        The largest change of a chance where a gallery is in another order.
    """
    decide, limit = learned
    table, error = enrollments(decide, *asked, galleries, limit)
    whose, count = table[:, 5], len(np.unique(table[:, 5]))
    note = (
        f"{about}; learned on galleries of 5 to 60 people of Market-1501 train; mean F1 of known and new over "
        f"galleries of (people, pictures each, share new): {', '.join(map(str, galleries))}, ten draws each; training "
        "seed 0"
    )
    ways = {
        "": (1, "GaitEnroll"),
        "limit_": (2, "the best fixed threshold of the training, carried over"),
        "oracle_": (3, "the best threshold of each gallery, chosen on the answers"),
    }
    for label, (way, told) in ways.items():
        interval = bootstrap_ci(table, whose, 200, statistic=partial(mean_f1, way=way))
        value, interval = percent(mean_f1(table, way), interval)
        evidence.add(f"{path}{label}f1", value, "%", n=count, ci95=interval, note=f"{told}; {note}")
        if way > 1:
            interval = bootstrap_ci(
                table, whose, 200, statistic=lambda rows, way=way: mean_f1(rows, 1) - mean_f1(rows, way)
            )
            value, interval = percent(mean_f1(table, 1) - mean_f1(table, way), interval)
            evidence.add(
                claim if claim and way == 2 else f"{path}ahead_of_{label.rstrip('_')}", value, "points", n=count,
                ci95=interval, note=f"F1, ahead of {told}, paired by probe; {note}",
            )  # fmt: skip
    return error


def gaitenroll(evidence: Evidence, setting: Setting) -> None:
    """Add F1 of known and new on galleries of other people, sizes and encoders."""
    val = reid.open_market(setting.reid, "val")
    world = reid.seen_couples(reid.JUDGED, COUPLES, setting.cache)
    near = ~world["far"]
    asked = {
        "market": (val.plain, val.columns["person"], "the same encoder, people of Market-1501 val"),
        "faces": (world["face"][near], world["person"][near], "another encoder: dlib's, faces of world people"),
    }
    learned = learned_enrollment(setting.reid, setting.steps(300))
    errors = []
    for name, (features, people, about) in asked.items():
        claim = "reid.gaitenroll.claim" if name == "faces" else ""
        path, judged = f"reid.gaitenroll.{name}.", (features, people)
        errors.append(add_enrollments(evidence, path, learned, judged, GALLERIES[name], about, claim))
    evidence.add(
        "reid.gaitenroll.permutation_error", max(errors), n=len(asked),
        note="largest change of a chance where the gallery is in another order, over all galleries of people of "
        "Market-1501 val and of world people; training seed 0",
    )  # fmt: skip


# -- ASPL: few answers -------------------------------------------------------------------------------------------------

NAMED, KNOWN, ROUNDS, ANSWERS, WRONG = 40, 20, 10, 12, 0.15
#: Way → pace, growth, whether questions are chosen, and share of wrong answers; no questions where None.
WAYS: dict[str, tuple[float, float, bool | None, float]] = {
    "aspl": (0.2, 0.08, True, 0.0),
    "active": (0.0, 0.0, True, 0.0),
    "random": (0.0, 0.0, False, 0.0),
    # Up to as many answers as ASPL has, and self-paced labels as well: which questions are asked is all that differs.
    "random_paced": (0.2, 0.08, False, 0.0),
    "paced": (0.2, 0.08, None, 0.0),
    "aspl_wrong": (0.2, 0.08, True, WRONG),
    "active_wrong": (0.0, 0.0, True, WRONG),
}


def labeled(
    way: str, features: np.ndarray, people: np.ndarray, judged: tuple[np.ndarray, np.ndarray], seed: int
) -> tuple[np.ndarray, int, int]:
    """Label a stream in rounds of answers.

    Returns
    -------
    tuple
        (rounds, judged pictures) whether each is told rightly after a round; and how many labels there are in the end:
        answers, those known at first among them, and self-paced ones.
    """
    pace, growth, chosen, wrong = WAYS[way]
    draw = np.random.default_rng([4, seed])
    names = draw.permutation(np.unique(people))
    made = SelfPacedLabels(features, pace=pace, growth=growth)
    for name in names[:KNOWN]:
        made.tell(int(draw.choice(np.flatnonzero(people == name))), int(name))
    right, answers = [], KNOWN
    for _ in range(ROUNDS):
        made.learn()
        right.append(np.array(made.identify(judged[0])) == judged[1])
        if chosen is None:
            continue
        rows = [question.row for question in made.ask(ANSWERS)] if chosen else []
        if not chosen:
            rows = draw.permutation(np.flatnonzero(~made.answered))[:ANSWERS].tolist()
        for row in rows:
            said = int(people[row])
            if draw.random() < wrong:
                said = int(draw.choice([name for name in made.people if name != said]))
            made.tell(row, said)
        answers += len(rows)
    made.learn()
    paced = sum(label is not None for label in made.labels) - int(made.answered.sum())
    return np.stack([*right[1:], np.array(made.identify(judged[0])) == judged[1]]), answers, paced


def aspl(evidence: Evidence, setting: Setting) -> None:
    """Add accuracy by number of answers."""
    val = reid.open_market(setting.reid, "val")
    people = val.columns["person"]
    names, counts = np.unique(people, return_counts=True)
    names = names[np.argsort(-counts, kind="stable")][:NAMED]
    rows = np.concatenate([np.flatnonzero(people == name) for name in names])
    odd = np.concatenate([np.arange(count) % 2 for count in [(people == name).sum() for name in names]]) > 0
    stream, other = rows[~odd], rows[odd]
    judged = val.plain[other], people[other]
    seeds = range(max(1, round(3 * setting.share)))
    found = {way: [labeled(way, val.plain[stream], people[stream], judged, seed) for seed in seeds] for way in WAYS}
    right = {way: np.mean([rows for rows, _, _ in runs], axis=0) for way, runs in found.items()}
    answers, paced = ({way: np.mean([run[k] for run in runs]) for way, runs in found.items()} for k in (1, 2))
    full = SelfPacedLabels(val.plain[stream], pace=0.0, growth=0.0)
    for row, name in enumerate(people[stream]):
        full.tell(row, int(name))
    full.learn()
    all_right = (np.array(full.identify(judged[0])) == judged[1]).astype(float)
    note = (
        f"{len(other)} other pictures of {NAMED} people of Market-1501 val; {len(stream)} pictures come in, one of "
        f"each of {KNOWN} people is known, then {ROUNDS} rounds of {ANSWERS} answers; seeds "
        f"of the draws {told_seeds(seeds)}"
    )
    ways = {
        "aspl": "ASPL", "active": "questions alone", "random": "random questions alone",
        "random_paced": "random questions and self-paced labels", "paced": "self-paced labels alone, no question",
        "aspl_wrong": f"ASPL, {100 * WRONG:.0f} % of answers wrong",
        "active_wrong": f"questions alone, {100 * WRONG:.0f} % of answers wrong",
    }  # fmt: skip
    told = {
        way: f"{label} ({answers[way]:.0f} answers and {paced[way]:.0f} self-paced labels in the end)"
        for way, label in ways.items()
    }
    whose = judged[1]

    def add(name: str, values: np.ndarray, unit: str, note: str, against: tuple[str, float] | None = None) -> None:
        value, interval = percent(values.mean(), bootstrap_ci(values, whose))
        evidence.add(f"reid.aspl.{name}", value, unit, n=NAMED, ci95=interval, against=against, note=note)

    every = ("labels for all", 100 * float(all_right.mean()))
    for way, values in right.items():
        add(f"{way}_accuracy", values[-1], "%", f"{told[way]}, after the last round; {note}", every)
        add(f"{way}_curve", values.mean(axis=0), "%", f"{told[way]}, mean of the rounds; {note}", every)
    add("full_accuracy", all_right, "%", f"labels for all {len(stream)} pictures; {note}")
    for way in ("active", "random", "random_paced", "paced"):
        ahead = right["aspl"].mean(axis=0) - right[way].mean(axis=0)
        name = "claim" if way == "active" else f"ahead_of_{way}"
        compared = f"mean of the rounds, {told['aspl']} ahead of {told[way]}, paired by picture; {note}"
        add(name, ahead, "points", compared, (ways[way], 100 * float(right[way].mean())))
    lost = [(right[way] - right[f"{way}_wrong"]).mean(axis=0) for way in ("active", "aspl")]
    add(
        "wrong_answers_cost_less",
        lost[0] - lost[1],
        "points",
        f"by how much less wrong answers cost than with questions alone, mean of the rounds, paired by picture; {note}",
        (ways["active"], 100 * float(lost[0].mean())),
    )
    evidence.add(
        "reid.aspl.labels_share", 100 * answers["aspl"] / len(stream), "%", n=len(stream),
        note=f"answers in the end over pictures that came in; {note}",
    )  # fmt: skip


# -- Starbucks: nested sizes -------------------------------------------------------------------------------------------

PAIRS = ((2, 16), (3, 32), (4, 128))
NESTED = {**systems.IRESNET, "backbone": "nested_iresnet", "pairs": [list(pair) for pair in PAIRS]}
SLICED: dict[str, dict[str, Any]] = {
    "fixed": {"supcon": {}, "alignment": {"weight": 1.0}},
    # Aligned as well, so that how slices are chosen is all that differs.
    "random": {"supcon": {}, "alignment": {"weight": 1.0}, "slices": {"random": True}},
    **{f"alone{number}": {"supcon": {}, "slices": {"only": number}} for number in (1, 2, 3)},
}


def sliced(weights: Path, pictures: np.ndarray) -> list[np.ndarray]:
    """(N, numbers) embeddings of every slice."""
    from ipse.training.networks import load_network

    network, _ = load_network(weights)
    found = []
    with torch.inference_mode():
        for start in range(0, len(pictures), 128):
            pixels = torch.from_numpy(pictures[start : start + 128]).permute(0, 3, 1, 2).float()
            found.append([part.numpy() for part in network.slices((pixels - 127.5) / 127.5)])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def starbucks(evidence: Evidence, setting: Setting) -> None:
    """Add mAP of every slice across Looks, and a search from coarse to fine."""
    from ipse.training.data import pack

    assert setting.faces
    data = systems.split(setting.faces, setting.work)
    chips = pack(data["judge"], systems.FACE, setting.work / "packs")
    pictures = chips.images(np.arange(len(chips)))
    seeds = range(max(1, round(3 * setting.share)))
    plan = {
        "task": "starbucks", "steps": 400, "data": {"source": str(data["train"]), "holdout": 0.0, "group": "look"},
        "cut": {"kind": systems.FACE.kind, "size": list(systems.FACE.size)}, "batch": {"people": 16, "each": 4},
        "augment": systems.AUGMENT, "optimizer": {"rate": 0.002, "warmup": 30, "decay": 0.03}, "ema": 0.99,
        "network": NESTED, "save_every": 100, "evaluate_every": 10_000,
    }  # fmt: skip
    found = {
        way: [
            sliced(setting.train({**plan, "name": f"nested-{way}", "losses": losses}, seed), pictures) for seed in seeds
        ]
        for way, losses in SLICED.items()
    }
    people = chips.column("person")
    count = len(np.unique(people))

    def searched(source: Any) -> np.ndarray:
        """(N,) average precision of each query."""
        columns = {name: chips.column(name) for name in ("person", "look")}
        return evaluate(source, columns, columns, "world-across-looks").precisions["market"]

    def of_slice(way: str, number: int) -> np.ndarray:
        return np.mean([searched(Features(run[number], run[number])) for run in found[way]], axis=0)

    def add(name: str, values: np.ndarray, unit: str, note: str, against: tuple[str, float] | None = None) -> None:
        value, interval = percent(values.mean(), bootstrap_ci(values, people))
        evidence.add(f"reid.starbucks.{name}", value, unit, n=count, ci95=interval, against=against, note=note)

    about = f"mAP across Looks, {len(pictures)} pictures of {count} world people; training seeds {told_seeds(seeds)}"
    for number, (stage, size) in enumerate(PAIRS):
        ours, others = of_slice("fixed", number), of_slice("random", number)
        alone = of_slice(f"alone{number + 1}", number)
        label = f"{stage} stages, {size} numbers"
        add(f"stage{stage}.map", ours, "%", f"{label}; {about}", ("a network trained alone", 100 * float(alone.mean())))
        add(f"stage{stage}.random_map", others, "%", f"{label}, random slices; {about}")
        add(
            f"stage{stage}.ahead_of_random", ours - others, "points",
            f"{label}, ahead of random slices, paired by query; {about}",
            ("random slices", 100 * float(others.mean())),
        )  # fmt: skip
        add(
            f"stage{stage}.ahead_of_alone", ours - alone, "points",
            f"{label}, ahead of a network trained alone, paired by query; {about}",
            ("a network trained alone", 100 * float(alone.mean())),
        )  # fmt: skip
    fine = [run[-1] for run in found["fixed"]]
    coarse = [run[0] for run in found["fixed"]]
    searches = [
        CoarseToFine((short, short), (long, long), candidates=50) for short, long in zip(coarse, fine, strict=True)
    ]
    whole, quick = of_slice("fixed", -1), np.mean([searched(search) for search in searches], axis=0)
    cost = searches[0].multiplications() / (len(pictures) * PAIRS[-1][1])
    add(
        "claim", quick - whole, "points",
        f"mAP of 50 candidates by {PAIRS[0][1]} numbers and then all, against all by {PAIRS[-1][1]}; "
        f"{100 * cost:.0f} % of the multiplications of a search; {about}",
    )  # fmt: skip


# -- PAVENet: hands ----------------------------------------------------------------------------------------------------

LENGTH, STRINGS = 6, 2
PROBED = 32
"""Principal components that content is told from: as many of either network, and fewer than a probe has strings."""
LEARNED, ASKED_OF = "images_background_small1", "images_background_small2"


def handwriting(shared: Path, work: Path) -> dict[str, tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]]:
    """Paths, writers, alphabets and characters of both sets of alphabets by name; traced once."""
    path = work / "omniglot.npz"
    if not path.exists():
        records = list(open_dataset("omniglot", shared / "omniglot").records())
        names = ("split", "alphabet", "drawer")
        paths = [
            trace(read_image(record.image)[..., 0] < 128) for record in track(records, description="tracing characters")
        ]
        with atomic_write(path) as file:
            np.savez(
                file, points=np.concatenate(paths), lengths=[len(each) for each in paths],
                told=np.array([[*(str(r.attributes[name]) for name in names), str(r.person)] for r in records]),
            )  # fmt: skip
    with np.load(path) as file:
        paths, told = np.split(file["points"], np.cumsum(file["lengths"])[:-1]), file["told"]
    learned = told[:, 0] == LEARNED
    # Two alphabets are in both.
    asked = ~learned & ~np.isin(told[:, 1], told[learned, 1])
    found = {}
    for name, chosen in ((LEARNED, learned), (ASKED_OF, asked)):
        rows = np.flatnonzero(chosen)
        writers = np.char.add(np.char.add(told[rows, 1], "/"), told[rows, 2])
        found[name] = [paths[row] for row in rows], writers, told[rows, 1], told[rows, 3]
    return found


def warped(first: np.ndarray, second: np.ndarray) -> float:
    """Dynamic time warping between two sequences of features: the mean cost along the cheapest way."""
    costs = np.linalg.norm(first[:, None] - second, axis=2)
    rows, columns = costs.shape
    # By diagonals, each of which depends on the two before it.
    before, last = np.full(rows + 1, np.inf), np.full(rows + 1, np.inf)
    last[0] = 0.0
    for diagonal in range(rows + columns - 1):
        i = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        now = np.full(rows + 1, np.inf)
        now[i + 1] = costs[i, diagonal - i] + np.minimum(np.minimum(last[i], last[i + 1]), before[i])
        before, last = last, now
        if diagonal == 0:
            before[0] = np.inf
    return float(last[rows] / (rows + columns))


def halves_told(vectors: np.ndarray, half: np.ndarray, where: np.ndarray, who: np.ndarray) -> np.ndarray:
    """(N,) whether a linear probe tells which half of its alphabet a string is of.

    Probes learn from three quarters of the drawers of an alphabet and are asked about the others: about what was
    written, by hands that they do not know.

    Parameters
    ----------
    vectors
        (N, D) of strings; `PROBED` principal components of them are looked at, each scaled to deviation 1.
    half, where, who
        (N,) half and alphabet of each string, and its drawer.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    right = np.empty(len(vectors))
    for alphabet in np.unique(where):
        rows = np.flatnonzero(where == alphabet)
        probe = make_pipeline(PCA(PROBED, whiten=True), LogisticRegression(max_iter=300))
        told = cross_val_predict(probe, vectors[rows], half[rows], groups=who[rows], cv=GroupKFold(4))
        right[rows] = told == half[rows]
    return right


def pavenet(evidence: Evidence, setting: Setting) -> None:
    """Add equal error rates on strings of other characters each time, and how well content is told."""
    data = handwriting(setting.shared, setting.work)
    paths, writers, alphabets, characters = data[ASKED_OF]
    draw = np.random.default_rng(5)
    strings, who, where, half = [], [], [], []
    for writer in np.unique(writers):
        rows = np.flatnonzero(writers == writer)
        rows = rows[np.argsort(characters[rows])]
        # The two halves of an alphabet share no character.
        for number, some in enumerate(np.array_split(rows, 2)):
            for _ in range(STRINGS):
                strings.append([paths[row] for row in draw.choice(some, LENGTH, replace=False)])
                who.append(writer)
                where.append(alphabets[rows[0]])
                half.append(number)
    who, where, half = np.array(who), np.array(where), np.array(half)
    a, b = np.nonzero((where[:, None] == where) & (half[:, None] < half))
    same = who[a] == who[b]
    # As many pairs of two hands as of one, ten times over, for warping compares them one by one.
    others = draw.permutation(np.flatnonzero(~same))[: 10 * same.sum()]
    pairs = np.concatenate([np.flatnonzero(same), others])
    a, b, same = a[pairs], b[pairs], same[pairs]

    learned, seeds = data[LEARNED], range(max(1, round(3 * setting.share)))
    # Of every training seed.
    distances: dict[str, np.ndarray] = {}
    content: dict[str, np.ndarray] = {}
    for name, patterns in (("pavenet", 8), ("means", 0)):
        runs = []
        for seed in seeds:
            verifier = WriterVerifier(patterns=patterns, seed=seed)
            verifier.fit(learned[0], learned[1], length=LENGTH, steps=setting.steps(300))
            runs.append(verifier.encode(strings))
        distances[name] = np.stack([1 - (vectors[a] * vectors[b]).sum(axis=1) for vectors in runs])
        content[name] = np.mean([halves_told(vectors, half, where, who) for vectors in runs], axis=0)
    made = [np.concatenate([path_features(path) for path in string]) for string in strings]
    kept = np.arange(0, len(a), max(1, round(1 / setting.share)))
    costs = [warped(made[a[row]], made[b[row]]) for row in track(kept, description="warping")]
    a, b, same = a[kept], b[kept], same[kept]
    distances = {name: values[:, kept] for name, values in distances.items()} | {"warping": np.array([costs])}
    people = who[a[same]], np.stack([who[a[~same]], who[b[~same]]], axis=1)
    count = len(np.unique(who))
    trained = f"training seeds {told_seeds(seeds)}"
    about = (
        f"{count} drawers of {len(np.unique(where))} alphabets of Omniglot, learned on other drawers and alphabets; "
        f"strings of {LENGTH} characters"
    )
    note = (
        f"{about}, the two of a pair without a character in common; {same.sum()} pairs of one hand, {(~same).sum()} of "
        f"two of one alphabet; paths are traced from pictures; {trained}"
    )
    told = {
        "pavenet": "PAVENet", "means": "the same network with means for patterns and pools",
        "warping": "dynamic time warping of the paths, which is not trained",
    }  # fmt: skip
    rows = np.flatnonzero(same), np.flatnonzero(~same)

    def rate(name: str, x: np.ndarray, y: np.ndarray) -> float:
        """The mean equal error rate of the training seeds."""
        return float(np.mean([equal_error_rate(run[x.astype(int)], run[y.astype(int)]) for run in distances[name]]))

    def interval_of(statistic: Any) -> tuple[float, float]:
        return bootstrap_pairs(rows[0], people[0], rows[1], people[1], statistic, n=100)

    def less(x: np.ndarray, y: np.ndarray, name: str) -> float:
        return rate(name, x, y) - rate("pavenet", x, y)

    for name in distances:
        value, interval = percent(rate(name, *rows), interval_of(partial(rate, name)))
        evidence.add(
            f"reid.pavenet.{name}_eer", value, "%", n=count, ci95=interval, note=f"{told[name]}; {note}"
        )  # fmt: skip
        if name == "pavenet":
            continue
        theirs = 100 * rate(name, *rows)
        value, interval = percent(less(*rows, name), interval_of(partial(less, name=name)))
        final = "claim" if name == "means" else f"eer_below_{name}"
        evidence.add(
            f"reid.pavenet.{final}", value, "points", n=count, ci95=interval, against=(told[name], theirs),
            note=f"equal error rate, below {told[name]}, paired by pair; {note}",
        )  # fmt: skip
    note = (
        f"how often a linear probe of {PROBED} principal components tells from which half of its alphabet a string is, "
        f"of drawers that it did not learn from; 50 % is chance; {about}; {trained}"
    )
    for name, values in content.items():
        value, interval = percent(values.mean(), bootstrap_ci(values, who))
        final = "content" if name == "pavenet" else f"content_{name}"
        evidence.add(
            f"reid.pavenet.{final}", value, "%", n=count, ci95=interval, note=f"{told[name]}; {note}"
        )  # fmt: skip
    hidden = content["means"] - content["pavenet"]
    value, interval = percent(hidden.mean(), bootstrap_ci(hidden, who))
    evidence.add(
        "reid.pavenet.content_less", value, "points", n=count, ci95=interval,
        against=(told["means"], 100 * float(content["means"].mean())),
        note=f"{note}; below {told['means']}, paired by string",
    )  # fmt: skip


# -- PLIP: words -------------------------------------------------------------------------------------------------------

#: What is trained: all tasks, CLIP's contrast between instances alone, and all but one.
TASKS: dict[str, dict[str, Any]] = {
    "plip": {},
    "instance": {"identity": False, "color": 0.0, "attributes": 0.0},
    "without_identity": {"identity": False},
    "without_color": {"color": 0.0},
    "without_attributes": {"attributes": 0.0},
}
#: Figure → attributes, one at a time, with the words that ask for a value.
ASKED_WORDS: dict[str, dict[str, str]] = {
    "colors": {"coat_color": "a person in a {} coat", "top_color": "a person in a {} top"},
    "bags": {"bag": "a person with a {}"},
}


#: People of the data that body-world was made with, those that it was judged on among them, as its recipe begins:
#: ``ipse world dataset recipes/world/bodies.yaml --people 600 --start 1000``; its record counts 570 and 30.
BEGUN_WITH = range(1000, 1600)


def check_unseen(people: np.ndarray) -> None:
    """Raise a `DataError` if somebody who is to be judged was there when the first weights were trained."""
    if seen := sorted(set(people.tolist()) & set(BEGUN_WITH)):
        raise DataError(
            f"{len(seen)} people who are to be judged, such as {seen[0]}, are of those that body-world was made with.",
            "Judge others: `ipse world dataset recipes/base/bodies.yaml` renders people from 20000 on.",
        )


def showing(facts: Sequence[Mapping[str, str]], attribute: str) -> np.ndarray:
    """Rows of the pictures that show an attribute."""
    return np.flatnonzero([known.get(attribute, "none") != "none" for known in facts])


def told_attributes(
    network: Any, seen: np.ndarray, facts: Sequence[Mapping[str, str]], asks: Mapping[str, str]
) -> np.ndarray:
    """(M,) whether attributes are told rightly by the nearest of their values in words, attribute after attribute.

    Parameters
    ----------
    network
        As `ipse.training.plip.open_words` gives.
    seen
        (N, D) vectors of pictures.
    facts
        What each shows; those that do not show an attribute are not asked for it.
    asks
        Attribute → words for a value.
    """
    right = []
    for attribute, form in asks.items():
        rows = showing(facts, attribute)
        values, true = np.unique([facts[row][attribute] for row in rows], return_inverse=True)
        likeness = seen[rows] @ network.encode_texts([form.format(value) for value in values]).T
        right.append(likeness.argmax(axis=1) == true)
    return np.concatenate(right).astype(float)


def commonest(facts: Sequence[Mapping[str, str]], attributes: Iterable[str]) -> float:
    """How often who always says the commonest value of an attribute is right."""
    values = [[facts[row][name] for row in showing(facts, name)] for name in attributes]
    return sum(max(Counter(some).values()) for some in values) / sum(map(len, values))


def plip(evidence: Evidence, setting: Setting) -> None:
    """Add text to person, attributes and picture to picture for all tasks, contrast alone, and all but one."""
    assert setting.bodies
    paths = len(list(setting.bodies.glob("data/*.parquet")))
    size = tuple(Plan().network["size"])
    with Progress() as bar:
        task = bar.add_task("reading bodies")
        learned, judged = (
            read_described(
                setting.bodies, size, files, lambda done, total: bar.update(task, completed=done, total=total)
            )
            for files in (slice(0, round(0.8 * paths)), slice(round(0.8 * paths), None))
        )
        check_unseen(judged.people)
        runs = {}
        for name, changes in TASKS.items():
            plan = Plan(steps=setting.steps(800), **changes)
            task = bar.add_task(name)
            runs[name] = fit_words(
                learned, setting.work / "runs" / f"words-{name}-{run_fingerprint(learned, plan)[:8]}", plan,
                lambda done, total, loss, task=task: bar.update(task, completed=done, total=total),
            )  # fmt: skip
    people, labels = judged.people, judged.labels
    count = len(np.unique(people))
    queries = np.array([texts[0] for texts in judged.captions])
    shown = {
        figure: np.concatenate([showing(judged.facts, attribute) for attribute in asks])
        for figure, asks in ASKED_WORDS.items()
    }
    measured: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for name, weights in runs.items():
        network = open_words(weights)
        seen, said = network.encode_pictures(list(judged.pictures)), network.encode_texts(queries.tolist())
        likeness = said @ seen.T
        # A caption's own picture does not count: another of the same person on the same day must come first.
        np.fill_diagonal(likeness, -np.inf)
        hits = (labels[likeness.argmax(axis=1)] == labels).astype(float)
        half = np.arange(len(people)) % 2 == 0
        columns = [{"person": labels[side]} for side in (half, ~half)]
        precision = evaluate(Features(seen[half], seen[~half]), *columns).precisions["market"]
        measured[name] = {
            "text_rank1": (hits, people), "map": (precision, people[half]),
            **{
                figure: (told_attributes(network, seen, judged.facts, asks), people[shown[figure]])
                for figure, asks in ASKED_WORDS.items()
            },
        }  # fmt: skip
    about = (
        f"{len(judged)} pictures of {count} world people, {len(learned)} others learned from, {setting.steps(800)} "
        f"steps from body-world's filters, training seed {Plan().seed}"
    )
    means = {
        "text_rank1": "a caption's nearest other picture shows its person on the same day",
        "map": "mAP between pictures of a person on one day",
        "colors": "zero-shot: the color of a coat and that of a top, each by the nearest of all colors in words",
        "bags": "zero-shot: the kind of a bag by the nearest of all kinds in words",
    }
    for name, figures in measured.items():
        for figure, (values, whose) in figures.items():
            value, interval = percent(np.nanmean(values), bootstrap_ci(values, whose))
            label, count = name.replace("_", " "), len(np.unique(whose))
            chance = commonest(judged.facts, ASKED_WORDS[figure]) if figure in ASKED_WORDS else None
            evidence.add(
                f"reid.plip.{'' if name == 'plip' else name + '.'}{figure}", value, "%", n=count, ci95=interval,
                against=None if chance is None else ("always the commonest value", 100 * chance),
                note=f"{label}; {means[figure]}; {about}",
            )  # fmt: skip
            if name == "plip":
                continue
            ahead = measured["plip"][figure][0] - values
            theirs = label, value
            value, interval = percent(ahead.mean(), bootstrap_ci(ahead, whose))
            final = "claim" if (name, figure) == ("instance", "text_rank1") else f"ahead_of_{name}.{figure}"
            evidence.add(
                f"reid.plip.{final}", value, "points", n=count, ci95=interval, against=theirs,
                note=f"{means[figure]}; all three tasks ahead of {label}, paired by picture; {about}",
            )  # fmt: skip


# -- a sentence --------------------------------------------------------------------------------------------------------

SEARCHED, TRIED, CROPS = 900_000, 890_000, 400
"""First person of the gallery, and of that of a trial; and how many people are in it, in one Look each."""
CROPS_RECIPE = Path(__file__).parents[1] / "recipes" / "world" / "bodies.yaml"
SPOKEN = {"male": "man", "female": "woman", "tshirt": "T-shirt", "tanktop": "tank top"}
YOUNG = ("child", "teen")


def sentence(facts: Mapping[str, str]) -> tuple[str, dict[str, str]] | None:
    """How somebody of whom a picture has these facts is looked for, and the facts that a picture must have to fit.

    None where it shows too little: an adult's gender, kind and color of what is worn above, and a bag are wanted.
    """
    worn = next((name for name in ("coat", "dress", "top") if name in facts), "")
    names = ["gender", worn, f"{worn}_color", "bag"]
    if not set(names) <= facts.keys() or facts.get("age_group") in YOUNG:
        return None
    gender, kind, color, bag = (SPOKEN.get(facts[name], facts[name]) for name in names)
    return f"{article(gender)} in {article(f'{color} {kind}')} with {article(bag)}", {n: facts[n] for n in names}


def fits(facts: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether a picture shows an adult with all that is wanted; what it does not show surely does not count."""
    return wanted.items() <= facts.items() and facts.get("age_group") not in YOUNG


def searched(text: str, folder: Path, words: Path) -> list[str]:
    """Names of the pictures in the order that ``ipse find FOLDER --text TEXT --json`` gives."""
    with redirect_stdout(io.StringIO()) as told:
        find_text(text, [folder], words, None, True)
    lines = [json.loads(line) for line in told.getvalue().splitlines()]
    return [Path(line["path"]).name for line in lines if "path" in line]


def sentences(evidence: Evidence, setting: Setting) -> None:
    """Add how often the first pictures that ``ipse find --text`` names fit a sentence, by the commands of the docs."""
    assert setting.crops
    steps = setting.steps(Plan().steps)
    plan = replace(Plan(), steps=steps)
    described = read_described(setting.crops, tuple(plan.network["size"]))
    learned = np.unique(described.people)
    words = setting.work / "runs" / f"find-{run_fingerprint(described, plan)[:8]}"
    # The command reads the pictures itself.
    del described
    train_words(setting.crops, words, steps=steps)

    start = SEARCHED if setting.share == 1 else TRIED
    count = max(60, round(setting.share * CROPS))
    made, folder = (setting.work / f"crops-{start}-{count}{kind}" for kind in ("", "-pictures"))
    write_dataset(CROPS_RECIPE, made, people=count, looks=1, shots=4, start=start)
    folder.mkdir(exist_ok=True)
    known, people = {}, {}
    for number, record in enumerate(read_dataset(made).records(truth=True)):
        name = f"{number:05d}.jpg"
        (folder / name).write_bytes(record.image)
        known[name], people[name] = json.loads(record.truth["facts"]), record.person
    # One sentence a person, from the first picture that shows enough.
    asked: dict[int, tuple[str, dict[str, str]]] = {}
    for name, facts in known.items():
        if people[name] not in asked and (said := sentence(facts)):
            asked[people[name]] = said
    found = {text: searched(text, folder, words / "words.safetensors") for text in dict(asked.values())}
    fitting = [np.array([fits(known[name], wanted) for name in found[text]], float) for text, wanted in asked.values()]
    about = (
        f"{len(asked)} sentences such as “{next(iter(found))}”, each true of a person in the gallery: {len(known)} "
        f"pictures of {len(set(people.values()))} world people from {start:,} on, in one Look each; a picture fits "
        "that shows all that is said; interval over the people asked for; the network of `ipse train words`: "
        f"{steps} steps on {len(learned)} other people, training seed {Plan().seed}"
    )
    base = 100 * float(np.mean([row.mean() for row in fitting]))
    for first in (1, 5):
        best = 100 * float(np.mean([min(row.sum(), first) / first for row in fitting]))
        values = np.array([row[:first].mean() for row in fitting])
        value, interval = percent(values.mean(), bootstrap_ci(values))
        evidence.add(
            f"reid.find_text.precision{first}", value, "%", n=len(asked), ci95=interval, against=("base rate", base),
            note=f"share of the first {first} that fit; {best:.1f} % could be reached; {about}",
        )  # fmt: skip
    values = np.array([row.mean() for row in fitting])
    value, interval = percent(values.mean(), bootstrap_ci(values))
    evidence.add(
        "reid.find_text.base_rate", value, "%", n=len(asked), ci95=interval,
        note=f"share of the gallery that fits; {about}",
    )  # fmt: skip


PARTS = {
    "proton": proton,
    "gaitenroll": gaitenroll,
    "aspl": aspl,
    "starbucks": starbucks,
    "pavenet": pavenet,
    "plip": plip,
    "find_text": sentences,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(PARTS), nargs="+", help="these parts; other figures stay")
    parser.add_argument("--shared", type=Path, required=True, help="the folder of real photographs")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "ipse-open-set")
    parser.add_argument("--market-run", type=Path, help="the folder of a training on Market-1501")
    parser.add_argument("--faces", type=Path, help="a data set of recipes/world/faces.yaml")
    parser.add_argument("--bodies", type=Path, help="a data set of recipes/base/bodies.yaml")
    parser.add_argument("--crops", type=Path, help="a data set of recipes/world/bodies.yaml")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "ipse-reid")
    parser.add_argument("--folds", type=int, choices=range(1, FOLDS + 1), default=FOLDS, help="of ears, to be judged")
    parser.add_argument("--share", type=float, default=1.0, help="of the steps; below 1 nothing is written")
    given = vars(parser.parse_args(arguments))
    only = given.pop("only") or list(PARTS)
    setting = Setting(**given)
    if {"gaitenroll", "aspl"} & set(only) and not setting.market_run:
        parser.error("gaitenroll and aspl need --market-run")
    for part, folder in (("starbucks", "faces"), ("plip", "bodies"), ("find_text", "crops")):
        if part in only and not getattr(setting, folder):
            parser.error(f"{part} needs --{folder}")
    torch.set_num_threads(1)
    setting.work.mkdir(parents=True, exist_ok=True)
    evidence, console = Evidence("reid", seeds=range(FOLDS)), Console()
    for name in only:
        PARTS[name](evidence, setting)
        # After each part, so that a run cut short keeps what it has.
        if setting.share == 1:
            console.print(f"{name} written: {evidence.write(update=True)}")
    console.print(evidence.summary(), highlight=False)


if __name__ == "__main__":
    main()
