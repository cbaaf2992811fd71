"""Measure what learns from few pictures and few answers: templates of ears, and who comes later.

A run that is finished is kept in the work folder and not trained again; one that was stopped goes on.

gaitenroll: known or new, learned on Market-1501 train and asked on Market-1501 val, and on faces of world people by
dlib's network; beside the best threshold of the training and the best one of each gallery.
proton: ears of AWE, people in three folds; each fold is judged by networks that were trained on the two others. ProtoN
beside prototypical networks, and beside the same backbone fine-tuned as a classifier; equal steps, batches and
pictures.

    python benchmarks/open_set.py --shared data --market-run runs/market1501 --work work      # everything
    python benchmarks/open_set.py --shared data --work work --only proton                     # one part
    python benchmarks/open_set.py --shared data --work trial --share 0.02     # a trial: few steps, nothing is written
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

import reid
from encoders import percent
from ipse._files import atomic_write
from ipse.gallery.set_enroll import Episode, KnownOrNew, play
from ipse.images import read_image, resize
from ipse.measure.datasets import open_dataset
from ipse.measure.distances import Features
from ipse.measure.evidence import Evidence, bootstrap_ci
from ipse.measure.verification import bootstrap_pairs, equal_error_rate


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
    """

    shared: Path
    work: Path
    share: float
    market_run: Path | None
    cache: Path

    @property
    def reid(self) -> reid.Setting:
        """The same for benchmarks/reid.py."""
        return reid.Setting(self.cache, COUPLES, self.shared, self.market_run)

    def steps(self, count: int) -> int:
        """A number of steps, or the share of it."""
        return max(2, round(self.share * count))

    def train(self, plan: Mapping[str, Any], seed: int) -> Path:
        """The weights of a training by a recipe, done now unless they are there."""
        from ipse.training.loop import train, with_steps
        from ipse.training.recipe import TrainRecipe

        recipe = TrainRecipe.from_dict({**plan, "seed": seed})
        recipe = with_steps(recipe, self.steps(recipe.steps))
        folder = self.work / "runs" / f"{recipe.name}-{recipe.fingerprint[:8]}"
        if not (folder / "record.json").exists():
            began = time.process_time()
            train(recipe, folder, resume=(folder / "checkpoint.pt").exists(), cache=self.work / "packs")
            print(f"{folder.name}: {time.process_time() - began:.0f} s of CPU", flush=True)
        return folder / f"{recipe.name}.safetensors"


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
            note=f"rank-1, ahead of {label}, paired by query",
        )  # fmt: skip
        value, interval = percent(
            rates[1] - rates[0],
            interval_of(lambda same, others: rate(theirs, same, others) - rate(ours, same, others)),
        )
        evidence.add(
            f"{name}eer_less", value, "points", n=count, ci95=interval,
            note=f"equal error rate, below {label}, paired by pair",
        )  # fmt: skip


def proton(evidence: Evidence, setting: Setting) -> None:
    """Add rank-1 and equal error rate on ears of people who were not trained on, by number of impressions."""
    from ipse.encoders.modules import ChipEmbedding
    from ipse.training.networks import load_network

    folders, folds = ears(setting.shared, setting.work)
    pictures, people = ear_pictures(folders[-1])
    judged = dict(folds.tolist())
    parts: dict[tuple[str, int], list[Trials]] = {}
    for number in range(FOLDS):
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
    enrolled = np.mean([(folds[:, 1] == number).sum() for number in range(FOLDS)])
    about = (
        f"{len(folds)} people of AWE in {FOLDS} folds, trained on two and judged on the third, about {enrolled:.0f} "
        f"people each; {ASKED} queries of one picture a person, {DRAWS} draws; {EARS['steps']} steps from face-world's "
        "filters; one threshold for all folds"
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
                f"reid.proton.shots{shots}.ahead_of_{name}", value, "points", n=len(folds), ci95=interval,
                note=f"rank-1, ProtoN ahead of: {told[name]}; paired by query",
            )  # fmt: skip
    gains = [results["proton", shots].hits - results["protonet", shots].hits for shots in (SHOTS[0], SHOTS[-1])]
    grown = gains[1] - gains[0]
    value, interval = percent(grown.mean(), bootstrap_ci(grown, results["proton", SHOTS[0]].people))
    evidence.add(
        "reid.proton.claim", value, "points", n=len(folds), ci95=interval,
        note=f"by how much the lead over prototypical networks grows from {SHOTS[0]} impression to {SHOTS[-1]}",
    )  # fmt: skip


def embedded(module: Any, pictures: np.ndarray) -> np.ndarray:
    """(N, D) float32 of a module that takes float pictures in 0–1."""
    import torch

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


def gaitenroll(evidence: Evidence, setting: Setting) -> None:
    """Add F1 of known and new on galleries of other people, sizes and encoders."""
    train, val = (reid.open_market(setting.reid, split) for split in ("train", "val"))
    world = reid.seen_couples(reid.JUDGED, COUPLES, setting.cache)
    near = ~world["far"]
    learned = train.plain, train.columns["person"]
    asked = {
        "market": (val.plain, val.columns["person"], "the same encoder, people of Market-1501 val"),
        "faces": (world["face"][near], world["person"][near], "another encoder: dlib's, faces of world people"),
    }
    decide = KnownOrNew().fit(*learned, steps=setting.steps(300))
    draws = [np.random.default_rng([2, number]) for number in range(60)]
    played = [play(learned[1], int(draw.integers(5, 61)), int(draw.integers(1, 5)), draw) for draw in draws]
    limit = best_limit(
        np.concatenate([episode.known for episode in played]),
        np.concatenate([nearest_of(learned[0], episode) for episode in played]),
    )
    errors = []
    for name, (features, people, about) in asked.items():
        table, error = enrollments(decide, features, people, GALLERIES[name], limit)
        errors.append(error)
        whose, count = table[:, 5], len(np.unique(table[:, 5]))
        note = (
            f"{about}; learned on galleries of 5 to 60 people of Market-1501 train; mean F1 of known and new over "
            f"galleries of (people, pictures each, share new): {', '.join(map(str, GALLERIES[name]))}, ten each"
        )
        ways = {
            "": (1, "GaitEnroll"),
            "limit_": (2, "the best fixed threshold of the training, carried over"),
            "oracle_": (3, "the best threshold of each gallery, chosen on the answers"),
        }
        for label, (way, told) in ways.items():
            interval = bootstrap_ci(table, whose, 200, statistic=partial(mean_f1, way=way))
            value, interval = percent(mean_f1(table, way), interval)
            evidence.add(
                f"reid.gaitenroll.{name}.{label}f1", value, "%", n=count, ci95=interval, note=f"{told}; {note}"
            )  # fmt: skip
            if way > 1:
                interval = bootstrap_ci(
                    table, whose, 200, statistic=lambda rows, way=way: mean_f1(rows, 1) - mean_f1(rows, way)
                )
                value, interval = percent(mean_f1(table, 1) - mean_f1(table, way), interval)
                final = "claim" if (name, way) == ("faces", 2) else f"{name}.ahead_of_{label.rstrip('_')}"
                evidence.add(
                    f"reid.gaitenroll.{final}", value, "points", n=count, ci95=interval,
                    note=f"F1, ahead of {told}, paired by probe; {about}",
                )  # fmt: skip
    evidence.add(
        "reid.gaitenroll.permutation_error", max(errors), n=len(asked),
        note="largest change of a chance where the gallery is in another order",
    )  # fmt: skip


PARTS = {"proton": proton, "gaitenroll": gaitenroll}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(PARTS), nargs="+", help="these parts; other figures stay")
    parser.add_argument("--shared", type=Path, required=True, help="the folder of real photographs")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "ipse-open-set")
    parser.add_argument("--market-run", type=Path, help="the folder of a training on Market-1501")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "ipse-reid")
    parser.add_argument("--share", type=float, default=1.0, help="of the steps; below 1 nothing is written")
    given = vars(parser.parse_args(arguments))
    only = given.pop("only") or list(PARTS)
    setting = Setting(**given)
    if "gaitenroll" in only and not setting.market_run:
        parser.error("gaitenroll needs --market-run")
    setting.work.mkdir(parents=True, exist_ok=True)
    evidence, console = Evidence("reid", seeds=range(FOLDS)), Console()
    for name in only:
        PARTS[name](evidence, setting)
        # After each part, so that a run cut short keeps what it has.
        if setting.share == 1:
            console.print(f"{name} written: {evidence.write(update=True)}")
    console.print(evidence.summary(), highlight=False)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
