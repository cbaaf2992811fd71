"""Measure what trainings claim that need no labels, or people who stay the same in other clothes.

World people are those of a data set of recipes/world/bodies.yaml: seven tenths are trained on, a tenth is for
choices, a fifth is judged. Other worlds are the same renderings as other cameras would have them, in tint, gamma,
contrast and sharpness. Networks have less than a million parameters; kinds of one comparison have equal steps, batches
and seeds. Every run is kept in the work folder, where it goes on if it was stopped, and is not done again.

isr: people matched in videos of world people, some detections wrong; weighed by reliability, unweighted, and single
pictures beside their own changes; judged in a world that none has seen.
domainmix: a labeled world and an unlabeled one, judged in a third.
market: no label at all but the world's: ISR on the frames of Market-1501 train, then DomainMix in rounds, then a wider
network by their groups; beside the supervised run that --market-run names. Figures read labels of val alone, when all
is trained; those of train are read to print how many pairs are wrong, and nothing is trained or chosen by them.
made: people in other Looks, by a transformer that is told masked attributes, all attributes, or none; attributes are
told by a network that was trained on other people, by which the transformer begins as well. All are of --others, who
are well seen: in the pictures of --world a detector is wrong about what stays of somebody.
cion: tracks of world people who come again in other videos, some pictures in the wrong track; identities correlated
across videos, tracks alone, and ISR, all begun with the same network; before and after training on few labels.
contour: sketches of people in other colors of the same clothes, by learned angles and even ones; colors; and both.
lde: people of several worlds, judged in one that none of them is: expanded domains, mixed styles, and plain.
snp: a pool of six worlds and a target that none of them is; the people found, as many by chance or greedily, and all.
cast: folders of --faces, many pictures in the wrong one and people who are there twice; cleaned in rounds, once, not at
all, and the truth.

    ipse world dataset recipes/world/bodies.yaml --people 600 --shots 4 --start 1000 --out bodies
    python benchmarks/reid_training.py --world bodies --work work --only isr
    ipse world dataset recipes/base/bodies.yaml --out base-bodies
    python benchmarks/reid_training.py --world bodies --others base-bodies --work work --only made
    python benchmarks/reid_training.py --world bodies --work work --shared data --market-run runs/market1501
    python benchmarks/reid_training.py --world bodies --faces faces --work work --only cast
    python benchmarks/reid_training.py --world bodies --work trial --share 0.02   # few steps, nothing is written
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from encoders import Market, encode_bodies
from ipse._files import atomic_write
from ipse.encoders.backbones import Backbone
from ipse.encoders.backbones.contour import PolarTransform, edges, outline
from ipse.encoders.backbones.made import Description
from ipse.encoders.trained import TrainedEncoder
from ipse.errors import DataError
from ipse.faces.parts import LABELS
from ipse.gallery.linking import linked
from ipse.images import image_files, resize
from ipse.measure import Evidence, Features, Retrieval, bootstrap_ci, compare, evaluate
from ipse.measure.clustering import bcubed, bcubed_f, pairwise_f
from ipse.measure.verification import bootstrap_pairs, equal_error_rate, tar_at_far
from ipse.training.cast import Rules, cast, clean
from ipse.training.cion import Distillation, Noise, correlate
from ipse.training.data import Chips, Cut, pack
from ipse.training.described import Described
from ipse.training.domainmix import DomainMix, Plan, cameras_of, contradiction, reliable_clusters
from ipse.training.frames import Frames, read_frames
from ipse.training.isr import ISR, Associations, reliable_contrast, tracklets
from ipse.training.lde import Expansion, LatentDomainExpansion
from ipse.training.learning import Learner, Parts, centered, embed, learn, progress
from ipse.training.loop import train, with_steps
from ipse.training.networks import load_network
from ipse.training.recipe import TrainRecipe
from ipse.training.snp import prune, search
from ipse.training.tasks.common import start_file
from trials import RANKING, add_gain, add_mean, by_seed, digest, measure, told_seeds

Pictures = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

BODY = (128, 64)
"""Height and width of the packed pictures; small comparisons halve them."""
SMALL = {"backbone": "iresnet", "depths": [1, 1, 1, 1], "width": 0.25, "stem": 1, "dim": 128, "size": [64, 32]}
LARGE = {"backbone": "iresnet", "depths": [1, 2, 3, 2], "width": 0.25, "stem": 2, "dim": 256, "size": list(BODY)}
AUGMENT = {
    "geometry": {"shift": 0.05, "scale": 0.05, "flip": 0.5},
    "color": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.0, "p": 0.5},
    "erase": {"p": 0.4},
}


# -- data and trainings ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class People:
    """Pictures of world people in memory.

    Attributes
    ----------
    pictures
        (N, height, width, 3).
    chips
        What is known of them.
    """

    pictures: Pictures
    chips: Chips

    def choose(self, mask: npt.NDArray[np.bool_]) -> People:
        """Some of them."""
        return People(self.pictures[mask], self.chips.choose(np.flatnonzero(mask)))

    def column(self, name: str) -> npt.NDArray[Any]:
        """See `Chips.column`."""
        return self.chips.column(name)

    @property
    def day(self) -> npt.NDArray[np.int64]:
        """(N,) numbers of people in one Look."""
        return self.chips.labels("look")

    def seen(self, world: int) -> People:
        """The same people in another world."""
        return People(another_world(self.pictures, world), self.chips)

    def judge(self, vectors: Vectors, protocol: str) -> Retrieval:
        """Every picture is a query once."""
        columns = {name: self.column(name) for name in ("person", "look", "shot")}
        return evaluate(Features(vectors, vectors), columns, columns, protocol)


@dataclass(frozen=True)
class Setting:
    """What the parts are given.

    Attributes
    ----------
    world
        Folder of the world's bodies.
    work
        Where packs and runs are kept.
    seeds
        Of the trainings.
    share
        Of the steps; below 1 for a trial.
    shared, market_run, faces, others
        Folders of photographs, of the supervised run, of the world's faces and of more bodies, or None.
    """

    world: Path
    work: Path
    seeds: Sequence[int]
    share: float
    shared: Path | None
    market_run: Path | None
    faces: Path | None
    others: Path | None

    @cached_property
    def everyone(self) -> Chips:
        """All world people."""
        return pack(self.world, Cut("whole", BODY), self.work / "packs")

    def people(self, part: str, side: int = BODY[0]) -> People:
        """Those for ``train``, ``choose`` or ``judge``, `side` pixels high."""
        chips = self.everyone
        names = np.unique(chips.column("person"))
        if len(names) < 20:
            raise DataError(f"{self.world} has {len(names)} people; 20 at least can be split.", "Render more people.")
        ends = [0, round(0.7 * len(names)), round(0.8 * len(names)), len(names)]
        place = ("train", "choose", "judge").index(part)
        rows = np.flatnonzero(np.isin(chips.column("person"), names[ends[place] : ends[place + 1]]))
        chosen = chips.choose(rows)
        pictures = chosen.images(np.arange(len(chosen)))
        return People(pictures if side == BODY[0] else smaller(pictures, side), chosen)

    def recipe(self, name: str, seed: int, steps: int, **plan: Any) -> TrainRecipe:
        """A recipe: what all trainings share, and `plan`."""
        network = plan.get("network", SMALL)
        common = {
            "modality": "body",
            "network": network,
            "cut": {"kind": "whole", "size": network.get("size", SMALL["size"])},
            "batch": {"size": 64, "people": 16, "each": 4, "alone": "drop"},
            "augment": AUGMENT,
            "optimizer": {"rate": 0.002, "warmup": 30, "decay": 0.0005},
            "ema": 0.99,
            "save_every": 100,
            "evaluate_every": 10_000,
        }
        recipe = TrainRecipe.from_dict({**common, "name": name, "seed": seed, "steps": steps, **plan})
        return with_steps(recipe, max(4, round(self.share * steps))) if self.share < 1 else recipe

    def every(self, steps: int) -> int:
        """A number of steps, fewer in a trial."""
        return max(2, round(self.share * steps))

    def folder(self, recipe: TrainRecipe, known: str) -> Path:
        """Where a run is kept; `known` stands for all that decides it."""
        return self.work / "runs" / f"{recipe.name}-{recipe.seed}-{known[:10]}"

    def trained(self, kind: type[Learner], recipe: TrainRecipe, *given: Any) -> Path:
        """The weights of a training, done now unless they are there.

        The learner gets nothing but the recipe and what is `given`, and these, with the bytes of the weights that it
        begins with, are what a run is known by: with anything else it is another run.
        """
        start = start_file(recipe.start).read_bytes() if recipe.start else b""
        known = digest(kind, recipe.fingerprint, start, *given)
        weights = self.folder(recipe, known) / f"{recipe.name}.safetensors"
        if not weights.exists():
            learn(kind(recipe, *given), weights.parent, progress(f"{recipe.name} {recipe.seed}"), known)
        return weights

    def learned(self, kind: type[Learner], recipe: TrainRecipe, *given: Any) -> torch.nn.Module:
        """The network of a training; see `trained`."""
        return load_network(self.trained(kind, recipe, *given))[0]


def smaller(pictures: Pictures, side: int) -> Pictures:
    """Pictures `side` pixels high."""
    return np.stack([resize(picture, side // 2, side) for picture in pictures])


def another_world(pictures: Pictures, world: int) -> Pictures:
    """Pictures as another world's cameras have them; world 0 is as it is."""
    if not world:
        return pictures
    draw = np.random.default_rng([77, world])
    gains, gamma, contrast = draw.uniform(0.65, 1.25, 3), np.exp(draw.uniform(-0.5, 0.5)), draw.uniform(0.6, 1.0)
    side = round(pictures.shape[1] * draw.uniform(0.4, 0.9))
    out = np.empty_like(pictures)
    for i, picture in enumerate(pictures):
        small = resize(resize(picture, side // 2, side), picture.shape[1], picture.shape[0])
        out[i] = np.clip(255 * (0.5 + contrast * ((small / 255) ** gamma * gains - 0.5)), 0, 255)
    return out


def videos(people: People, seed: int, at_once: int = 6) -> Frames:
    """Videos of some people at a time, each in one Look; a frame has one Shot of everybody."""
    days, of = np.unique(people.day, return_inverse=True)
    number = np.random.default_rng([seed, 5]).permutation(len(days))[of]
    _, frame = np.unique(people.column("shot"), return_inverse=True)
    # The turn of a picture among those of its day.
    order = np.lexsort((frame, of))
    turn = np.empty(len(of), np.int64)
    turn[order] = np.arange(len(of)) - np.searchsorted(of[order], of[order])
    return Frames(people.pictures, np.zeros(len(of), np.int64), (number // at_once).astype(np.int64), turn)


def with_wrong(frames: Frames, share: float, seed: int) -> Frames:
    """Some detections show a corner of another picture instead of anybody."""
    draw = np.random.default_rng([seed, 6])
    pictures, (height, width) = frames.pictures.copy(), frames.pictures.shape[1:3]
    for row in np.flatnonzero(draw.random(len(frames)) < share):
        other = frames.pictures[draw.integers(len(frames))]
        corner = other[: height // 4, : width // 3] if draw.random() < 0.5 else other[: height // 4, -(width // 3) :]
        pictures[row] = resize(np.ascontiguousarray(corner), width, height)
    return Frames(pictures, frames.camera, frames.video, frames.frame)


def add_comparison(
    evidence: Evidence,
    name: str,
    ours: str,
    runs: Mapping[str, Sequence[Retrieval]],
    note: str,
    figures: Mapping[str, str] | None = None,
) -> None:
    """Add mAP (and what `figures` names) of all kinds of runs, and by how much ours are ahead of each other kind.

    The note is that of every figure: each is read by itself.
    """
    for short, figure in (figures or {"map": "mAP"}).items():
        values = {kind: [run.values()[figure] for run in each] for kind, each in runs.items()}
        people = runs[ours][0].person
        for kind, each in values.items():
            add_mean(evidence, f"{name}.{short}_{kind}", each, people, note=note)
        for kind in [kind for kind in values if kind != ours]:
            add_gain(evidence, f"{name}.{short}_gain_over_{kind}", values[ours], values[kind], people, kind, note)


# -- ISR ---------------------------------------------------------------------------------------------------------------

ISR_STEPS = 300
WRONG = 0.3


class Instances(ISR):
    """Instance discrimination: every picture beside another change of itself."""

    def before(self, step: int, average: Backbone) -> None:
        """Nobody is matched with anybody."""

    def loss(self, step: int) -> tuple[torch.Tensor, Parts]:
        """Contrast of two changes of half as many pictures."""
        draw = np.random.default_rng([self.recipe.seed, step])
        rows = draw.choice(len(self.frames), self.recipe.batch.size // 2, replace=False)
        embeddings = self.network(self.pixels(np.concatenate([self.frames.pictures[rows]] * 2)))
        first = np.arange(len(rows))
        pairs = Associations(first, first + len(rows), *np.ones((2, len(rows)), np.float32))
        loss = reliable_contrast(embeddings, pairs, self.temperature)
        return loss, {"contrast": loss.detach()}


def measure_isr(setting: Setting, evidence: Evidence) -> None:
    """Videos against single pictures, and weights against none where detections are wrong."""
    people, judged = setting.people("train", 64), setting.people("judge", 64).seen(5)
    runs: dict[str, list[Retrieval]] = {}
    for seed in setting.seeds:
        clean = videos(people, seed)
        wrong = with_wrong(clean, WRONG, seed)
        kinds: dict[str, tuple[type[ISR], Frames, bool]] = {
            "isr": (ISR, clean, True),
            "unweighted": (ISR, clean, False),
            "isr_wrong": (ISR, wrong, True),
            "unweighted_wrong": (ISR, wrong, False),
            "instances": (Instances, clean, True),
        }
        for kind, (method, frames, weighted) in kinds.items():
            recipe = setting.recipe(f"isr-{kind}", seed, ISR_STEPS)
            network = setting.learned(method, recipe, frames, 1, weighted)
            tell(f"chains of {kind}, seed {seed}", followed(network, frames, 1), frames, people.day)
            runs.setdefault(kind, []).append(judged.judge(embed(network, judged.pictures), "world-within-look"))
    note = (
        f"another Shot of the same Look in a world that was not trained on; {ISR_STEPS} steps of 64 pictures, "
        f"six people at once; wrong: {100 * WRONG:.0f} % of the detections show nobody; unweighted: the same pairs "
        f"all count the same; training seeds {told_seeds(setting.seeds)}"
    )
    add_comparison(evidence, "reid.isr", "isr", runs, note)
    values = {kind: np.array([run.values()["mAP"] for run in each]) for kind, each in runs.items()}
    add_gain(
        evidence, "reid.isr.loss_spared_by_weights",
        values["isr_wrong"] - values["isr"], values["unweighted_wrong"] - values["unweighted"],
        runs["isr"][0].person, "change without weights",
        f"what wrong detections cost the weighted less than the unweighted; above 0 the weights help; {note}",
    )  # fmt: skip


# -- DomainMix ---------------------------------------------------------------------------------------------------------

MIX_STEPS = 400
PAIRS = {"supcon": {"temperature": 0.1, "weight": 0.5}}


@dataclass(frozen=True)
class Neighbors:
    """Links by neighborhoods; by default those of people who have four pictures each, in place of a score as in Market.

    Attributes
    ----------
    k1, k2
        See `ipse.gallery.linking.linked`.
    """

    k1: int = 8
    k2: int = 3

    def __call__(self, vectors: Vectors, largest: float) -> Any:
        """Sparse distances up to the largest."""
        return linked(vectors, largest, k1=self.k1, k2=self.k2)


def domains_told(
    network: torch.nn.Module, sides: Sequence[Pictures], people: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    """How often a linear classifier tells worlds apart by embeddings of people whom it was not trained on.

    Parameters
    ----------
    network
        Of the embeddings.
    sides
        The same N pictures as each of W worlds has them, so that no world can be told by who is in it.
    people
        (N,) who is on them; the classifier of one half of the people is asked about the other half.

    Returns
    -------
    numpy.ndarray
        (N,) share of the worlds of each picture that are told right; by chance 1 / W.
    """
    from sklearn.linear_model import LogisticRegression

    vectors = np.stack([embed(network, side) for side in sides])
    _, person = np.unique(people, return_inverse=True)
    worlds = np.arange(len(sides))[:, None]
    right = np.empty(vectors.shape[:2])
    for half in (0, 1):
        asked = person % 2 == half
        known = vectors[:, ~asked]
        model = LogisticRegression(max_iter=1000).fit(np.concatenate(known), worlds.repeat(known.shape[1]))
        right[:, asked] = model.predict(np.concatenate(vectors[:, asked])).reshape(len(sides), -1) == worlds
    return right.mean(0)


def add_domains_told(
    evidence: Evidence,
    name: str,
    told: Mapping[str, Sequence[npt.NDArray[np.float64]]],
    people: Any,
    worlds: int,
    note: str,
) -> None:
    """Add what `domains_told` says of all kinds of trainings, with intervals over people."""
    for kind, runs in told.items():
        values = 100 * np.asarray(runs)
        evidence.add(
            f"{name}.domain_told_{kind}", values.mean(), "%", n=len(np.unique(people)),
            ci95=bootstrap_ci(values.mean(0), people), against=("chance", 100 / worlds),
            note="accuracy of a linear classifier on embeddings of judged people, each in all of the worlds trained "
            f"on; it was trained on other people than it is asked about; {note}; {by_seed(values.mean(1))}",
        )  # fmt: skip


def measure_domainmix(setting: Setting, evidence: Evidence) -> None:
    """A labeled world and an unlabeled one together, against the labeled one alone and naive groups."""
    people, held = setting.people("train", 64), setting.people("judge", 64)
    judged, known_worlds = held.seen(2), [held.pictures, held.seen(1).pictures]
    half = people.column("person") < np.median(np.unique(people.column("person")))
    world, real = people.choose(half), people.choose(~half).seen(1)
    every = setting.every(80)
    plans = {
        "mix": Plan(every=every, core=2, least=3),
        "without_balance": Plan(every=every, core=2, least=3, adversary=1.0),
        "naive": Plan(every=every, core=2, choose=False, adversary=1.0),
    }
    runs: dict[str, list[Retrieval]] = {}
    told: dict[str, list[npt.NDArray[np.float64]]] = {}
    precision, shares = [], []
    for seed in setting.seeds:
        first = setting.recipe("mix-world", seed, MIX_STEPS, losses=RANKING)
        weights = setting.trained(Described, first, world.pictures, world.day)
        start, known = str(weights), load_network(weights)[0]
        runs.setdefault("world", []).append(judged.judge(embed(known, judged.pictures), "world-within-look"))
        longer = setting.recipe("mix-longer", seed, MIX_STEPS, losses=RANKING, start=start)
        network = setting.learned(Described, longer, world.pictures, world.day)
        runs.setdefault("world_longer", []).append(judged.judge(embed(network, judged.pictures), "world-within-look"))
        frames = videos(real, seed)
        for kind, plan in plans.items():
            recipe = setting.recipe(f"mix-{kind}", seed, MIX_STEPS, losses=PAIRS, start=start)
            given = (world.pictures, world.day, frames, Neighbors(), plan)
            network = setting.learned(DomainMix, recipe, *given)
            runs.setdefault(kind, []).append(judged.judge(embed(network, judged.pictures), "world-within-look"))
            told.setdefault(kind, []).append(domains_told(network, known_worlds, held.column("person")))
            if kind == "mix":
                # With the network that came out, since what was grouped on the way is not kept.
                vectors = centered(embed(network, frames.pictures), frames.camera)
                groups, _ = reliable_clusters(Neighbors()(vectors, plan.eps + plan.gap), plan)
                tell(f"groups after DomainMix, seed {seed}", groups, frames, real.day)
                kept = groups >= 0
                shares.append(float(kept.mean()))
                precision.append(pairwise_f(real.day[kept], groups[kept]).precision if kept.any() else 0.0)
    note = (
        f"another Shot of the same Look in a third world; {MIX_STEPS} steps after {MIX_STEPS} on the labeled world; "
        f"{100 * np.mean(shares):.0f} % of the unlabeled pictures are in groups of the network that came out; pairs of "
        f"grouped pictures that are of one person and Look: {100 * np.mean(precision):.0f} %; "
        f"training seeds {told_seeds(setting.seeds)}"
    )
    add_comparison(evidence, "reid.domainmix", "mix", runs, note)
    chosen, naive = ([run.values()["mAP"] for run in runs[kind]] for kind in ("without_balance", "naive"))
    add_gain(
        evidence, "reid.domainmix.map_gain_of_choice", chosen, naive, runs["naive"][0].person, "naive",
        f"mAP of reliable groups without the balance; alike but for which groups are chosen; {note}",
    )  # fmt: skip
    add_domains_told(
        evidence, "reid.domainmix", told, held.column("person"), len(known_worlds),
        f"networks of {MIX_STEPS} steps after {MIX_STEPS}; training seeds {told_seeds(setting.seeds)}",
    )  # fmt: skip


# -- Market-1501 -------------------------------------------------------------------------------------------------------

MARKET_ISR, MARKET_MIX, MARKET_ROUNDS = 1000, 4000, 3
#: As wide as the network of recipes/encoders/market1501.yaml, and trained at its rate.
WIDE = {**LARGE, "width": 0.375, "dropout": 0.2}
GAP = 100
WITHIN = (0.3, 0.4, 0.5, 0.6)
"""Distances within groups that are tried."""
TERMS = "non-commercial research only"


@dataclass(frozen=True)
class Smoothed:
    """Links of features that stand in the middle between their own and the mean of their chain of frames.

    Attributes
    ----------
    frames
        Where the features' pictures are from.
    gap
        The most frames between two that are chained.
    k1
        See `ipse.gallery.linking.linked`.
    """

    frames: Frames
    gap: int = GAP
    k1: int = 20

    def __call__(self, vectors: Vectors, largest: float) -> Any:
        """Sparse distances up to the largest."""
        chains = tracklets(vectors, self.frames.pairs(self.gap))
        means = np.zeros((chains.max() + 1, vectors.shape[1]), np.float32)
        np.add.at(means, chains, vectors)
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return linked(vectors + means[chains], largest, k1=self.k1)


@dataclass(frozen=True)
class Grouped:
    """What groups of frames are like at one distance within them; no label tells it.

    Attributes
    ----------
    eps
        The distance.
    groups, across
        How many there are, and how many of them span two cameras or more.
    share
        Of the pictures that are in groups, 0–1.
    cameras
        Per group, the mean; 0 without groups.
    contradiction
        See `ipse.training.domainmix.contradiction`; infinite where it cannot be told.
    """

    eps: float
    groups: int
    across: int
    share: float
    cameras: float
    contradiction: float

    def __str__(self) -> str:
        return f"{self.groups} within {self.eps} of {100 * self.share:.0f} % of the pictures"


def grouped(labels: npt.NDArray[np.int64], frames: Frames, eps: float) -> Grouped:
    """What (N,) groups of frames, -1 for none, are like."""
    cameras = cameras_of(labels, frames.camera)
    told = contradiction(labels, frames)
    return Grouped(
        eps, len(cameras), int((cameras > 1).sum()), float((labels >= 0).mean()),
        float(cameras.mean()) if len(cameras) else 0.0, math.inf if math.isnan(told) else told,
    )  # fmt: skip


def best_of(found: Sequence[Grouped]) -> Grouped:
    """The loosest groups that hardly contradict frames and mostly go from camera to camera.

    At most 1 % of contradiction, at least half of the groups across cameras. If none are so, those with the most groups
    across cameras at 5 % at most; or else those with the least contradiction. Of equals the strictest.
    """
    good = [each for each in found if each.contradiction <= 0.01 and 2 * each.across >= each.groups]
    if good:
        return max(good, key=lambda each: each.eps)
    fair = [each for each in found if each.contradiction <= 0.05]
    if fair:
        return max(fair, key=lambda each: (each.across, -each.eps))
    return min(found, key=lambda each: (each.contradiction, each.eps))


def groups_by(network: torch.nn.Module, frames: Frames, choices: Sequence[float]) -> dict[float, Labels]:
    """By distance within groups, the (N,) groups of frames by what a network says."""
    vectors = centered(embed(network, frames.pictures), frames.camera)
    distances = Smoothed(frames)(vectors, max(choices) + Plan().gap)
    return {eps: reliable_clusters(distances, Plan(eps=eps))[0] for eps in choices}


def groups_for(network: torch.nn.Module, frames: Frames, folder: Path) -> tuple[Grouped, Labels]:
    """What groups of frames are like at the `best_of` the distances `WITHIN`, and these.

    They are kept in the folder of the network, in a file that is named by all that decides them but the network.
    """
    path = folder / f"groups-{digest(Smoothed(frames), Plan(), WITHIN)[:16]}.npz"
    if not path.exists():
        found = groups_by(network, frames, WITHIN)
        best = best_of([grouped(labels, frames, eps) for eps, labels in found.items()])
        with atomic_write(path) as file:
            np.savez(file, best=np.array(json.dumps(asdict(best))), labels=found[best.eps])
    with np.load(path) as held:
        return Grouped(**json.loads(str(held["best"]))), held["labels"]


def frames_of(folder: Path, cache: Path) -> Frames:
    """See `read_frames`; pictures that were decoded once are kept, as long as the files are the same."""
    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in image_files(folder)]
    path = cache / f"frames-{digest(files, BODY)[:16]}.npz"
    if not path.exists():
        frames = read_frames(folder, BODY)
        with atomic_write(path) as file:
            np.savez(file, **{own.name: getattr(frames, own.name) for own in fields(frames)})
    with np.load(path) as held:
        return Frames(**held)


def true_people(folder: Path) -> npt.NDArray[np.int64]:
    """(N,) who is on the pictures of `read_frames`, in its order; for what is printed alone."""
    pattern = re.compile(r"(-?\d+)_c(\d+)s(\d+)_(\d+)_(\d+)")
    found = [told for path in image_files(folder) if (told := pattern.match(path.name))]
    numbers = np.array([[int(text) for text in told.groups()] for told in found])
    return numbers[np.lexsort(numbers[:, :0:-1].T), 0]


def tell(what: str, labels: Labels, frames: Frames, people: npt.NDArray[Any]) -> None:
    """Print what (N,) groups are like, -1 for none; and, by labels that nothing else reads, how many pairs are wrong.

    It is for whoever looks why a run is as good as it is: nothing is chosen by it.
    """
    kept = labels >= 0
    cameras = cameras_of(labels, frames.camera)
    wrong = 1 - pairwise_f(people[kept], labels[kept]).precision if kept.any() else math.nan
    print(
        f"{what}: {len(cameras)} groups of {100 * kept.mean():.0f} % of the pictures, "
        f"{cameras.mean() if len(cameras) else 0:.1f} cameras in each, {100 * contradiction(labels, frames):.2f} % "
        f"contradiction; by labels {100 * wrong:.1f} % of the pairs within groups are wrong",
        flush=True,
    )


def add_wrong_pairs(evidence: Evidence, name: str, labels: Labels, people: npt.NDArray[Any]) -> None:
    """Add the share of the pairs of pictures in (N,) groups, -1 for none, that are of two people."""
    counts = []
    for group in range(int(labels.max(initial=-1)) + 1):
        sizes = np.unique(people[labels == group], return_counts=True)[1]
        counts.append((sizes.sum() * (sizes.sum() - 1), (sizes * (sizes - 1)).sum()))

    def share(rows: npt.NDArray[np.int64]) -> float:
        pairs, right = rows.sum(0)
        return 100 * (1 - right / pairs)

    evidence.add(
        name, share(np.array(counts)), "%", n=len(counts), ci95=bootstrap_ci(counts, statistic=share),
        note="of the pairs of pictures in one group after the rounds, by the labels of train, which nothing else "
        "reads; n counts groups, over which the interval is",
    )  # fmt: skip


def followed(network: torch.nn.Module, frames: Frames, gap: int) -> Labels:
    """(N,) chains of frames by what a network says, -1 for pictures that are alone; see `tracklets`."""
    labels = tracklets(centered(embed(network, frames.pictures), frames.camera), frames.pairs(gap))
    return np.where(np.bincount(labels)[labels] > 1, labels, -1)


def measure_market(setting: Setting, evidence: Evidence) -> None:
    """The world and unlabeled pictures, against labels."""
    if not setting.shared or not setting.market_run:
        raise DataError("The part market needs photographs and a run.", "Name them by --shared and --market-run.")
    market = Market.open(setting.shared)
    train_folder = setting.shared / "market1501" / "train"
    frames, truth = frames_of(train_folder, setting.work / "packs"), true_people(train_folder)
    everyone = setting.everyone
    world = everyone.images(np.arange(len(everyone)))
    recipe = setting.recipe(
        "market-isr", 0, MARKET_ISR, license=TERMS, network=LARGE, start="body-world",
        optimizer={"rate": 0.001, "warmup": 50, "decay": 0.0005},
    )  # fmt: skip
    begun = setting.trained(ISR, recipe, frames, GAP)
    first = load_network(begun)[0]
    tell("chains after ISR", followed(first, frames, GAP), frames, truth)
    network, rounds = first, []
    for number in range(MARKET_ROUNDS):
        # Groups are kept beside the weights, whose folder stands for all that decided them.
        chosen, groups = groups_for(network, frames, begun.parent)
        tell(f"groups within {chosen.eps} before round {number + 1}", groups, frames, truth)
        rounds.append(chosen)
        mixed = setting.recipe(
            f"market-mix-{number + 1}" if number else "market-mix", 0, MARKET_MIX, license=TERMS,
            network={**LARGE, "dropout": 0.2}, start=str(begun), losses=PAIRS,
            optimizer={"rate": 0.001, "warmup": 100, "last": 0.005, "decay": 0.0005}, ema=0.998,
        )  # fmt: skip
        plan = Plan(eps=chosen.eps, every=setting.every(200), real=0.75)
        smoothed = Smoothed(frames)
        begun = setting.trained(DomainMix, mixed, world, everyone.labels("look"), frames, smoothed, plan)
        network = load_network(begun)[0]
        tell(f"groups after round {number + 1}", groups_by(network, frames, [chosen.eps])[chosen.eps], frames, truth)
    # A network as wide as the supervised one, from nothing: others of its size know nobody to begin with.
    chosen, groups = groups_for(network, frames, begun.parent)
    add_wrong_pairs(evidence, "reid.market.wrong_pairs", groups, truth)
    widened = setting.recipe(
        "market-wide", 0, MARKET_MIX, license=TERMS, network=WIDE, losses=PAIRS,
        optimizer={"rate": 0.002, "warmup": 200, "last": 0.005, "decay": 0.0005}, ema=0.998,
    )  # fmt: skip
    plan = Plan(eps=chosen.eps, every=setting.every(1000), real=0.75)
    wide = setting.learned(DomainMix, widened, world, everyone.labels("look"), frames, Smoothed(frames), plan, groups)
    tell("groups of the wide network", groups_by(wide, frames, [chosen.eps])[chosen.eps], frames, truth)
    small = np.stack([resize(image, BODY[1], BODY[0]) for image in market.images])
    weights = next(setting.market_run.glob("*.safetensors"))
    supervised = market.evaluate(encode_bodies(TrainedEncoder(weights), market.images, "supervised"))
    made = {"isr": first, "mix": network, "wide": wide}
    results = {name: market.evaluate(embed(own, small)) for name, own in made.items()}
    whose = supervised.person
    reference = supervised.values()["mAP"]
    how = f"no label of a photograph; begun with body-world, {MARKET_ISR} steps of ISR"
    grouped_by = ", ".join(map(str, rounds))
    mixing = f"then {MARKET_ROUNDS} rounds of {MARKET_MIX} steps of DomainMix, groups at their start: {grouped_by}"
    judging = "Market-1501 val; one training, of seed 0"
    widening = (
        f"a fresh network as wide as the supervised one, {MARKET_MIX} steps of DomainMix that begin with the groups of "
        f"the narrower one after {MARKET_ROUNDS} rounds: {chosen}"
    )
    notes = {"isr": f"{how}; {judging}", "mix": f"{mixing}; {judging}", "wide": f"{widening}; {judging}"}
    for name, result in results.items():
        for short, figure in (("map", "mAP"), ("rank1", "rank-1")):
            add_mean(evidence, f"reid.market.{short}_{name}", [result.values()[figure]], whose, note=notes[name])
        both = np.stack([result.values()["mAP"], reference], 1)
        ratio = bootstrap_ci(both, whose, statistic=lambda rows: float(rows[:, 0].mean() / rows[:, 1].mean()))
        evidence.add(
            f"reid.market.share_of_supervised_{name}", 100 * both[:, 0].mean() / both[:, 1].mean(), "%",
            n=len(np.unique(whose)), ci95=(100 * ratio[0], 100 * ratio[1]),
            against=("goal", 70.0),
            note=f"mAP over that of the supervised run, {100 * reference.mean():.1f} %; {notes[name]}",
        )  # fmt: skip
    for name, other, what in (("mix", "isr", "ISR alone"), ("wide", "mix", "the narrower network")):
        ahead, interval = compare(results[name], results[other])
        evidence.add(
            f"reid.market.{name}_gain_over_{other}", 100 * ahead, "points", n=len(np.unique(whose)),
            ci95=(100 * interval[0], 100 * interval[1]), note=f"mAP, ahead of {what}, paired by query",
        )  # fmt: skip


# -- MADE --------------------------------------------------------------------------------------------------------------

MADE_STEPS, START_STEPS, DETECTOR_STEPS = 600, 1500, 2500
#: Share of the steps by whose end all that is told is told, whatever kind it is.
FADING = 0.35
#: Not the triplets of the paper, whose loss soon was the margin, all embeddings alike, and stayed so.
CONTRAST = {"softmax": {}, "supcon": {"temperature": 0.1}}
MADE_NETWORK = {
    "backbone": "made", "width": 256, "heads": 4, "depths": [2, 2, 2], "size": list(BODY), "patch": 16, "stride": 16,
}  # fmt: skip
#: What a detector tells, by column or fact; numbers with their ranges.
CLOTHES = ("top", "bottom", "outer", "dress", "bag", "hat", "scarf", "mask")
COLORS = ("top_color", "coat_color", "bottom_color", "shoes_color", "bag_color", "hat_color")
OTHERS = ("gender", "age_group", "skin_group", "hair_style", "hair_color", "beard", "glasses")


def targets(chips: Chips) -> dict[str, dict[str, Any]]:
    """The detector's attributes, with the values that people have."""
    found: dict[str, dict[str, Any]] = {}
    for name in (*OTHERS, *CLOTHES, *COLORS):
        source = "fact" if name in COLORS else "column"
        classes = sorted(values_of(chips, name, source))
        if len(classes) > 1:
            found[name] = {source: name, "classes": classes}
    return found


def values_of(chips: Chips, name: str, source: str) -> set[str]:
    """The values of a column or of a fact, as a recipe names them."""
    if source == "fact":
        return {known[name] for text in chips.column("facts") if name in (known := json.loads(text))}
    values = chips.column(name)
    return {("yes" if v else "no") if isinstance(v, bool | np.bool_) else str(v) for v in values if v is not None}


def told_by(weights: Path, pictures: Pictures) -> dict[str, Vectors]:
    """By attribute, (N, C) chances of its values."""
    network, _ = load_network(weights)
    parts: dict[str, list[torch.Tensor]] = {}
    with torch.inference_mode():
        for start in range(0, len(pictures), 128):
            pixels = torch.from_numpy(pictures[start : start + 128]).permute(0, 3, 1, 2).float()
            for name, logits in network((pixels - 127.5) / 127.5).items():
                parts.setdefault(name, []).append(functional.softmax(logits.float(), 1))
    return {name: torch.cat(each).numpy() for name, each in parts.items()}


def shares(setting: Setting) -> tuple[Path, People, People]:
    """Of the people of `Setting.others`: a folder of two fifths, a half, and the tenth that is left, by their files."""
    if not setting.others:
        raise DataError("The part made needs people who are well seen.", "Name them by --others.")
    files = sorted(setting.others.glob("data/*.parquet"))
    ends = [round(share * len(files)) for share in (0.0, 0.4, 0.9, 1.0)]
    if len(set(ends)) < len(ends):
        raise DataError(f"{setting.others} has {len(files)} files; 10 at least can be split.", "Render more people.")
    folders = []
    for name, first, last in zip(("attributes", "train", "judge"), ends, ends[1:], strict=False):
        folder = setting.work / "data" / f"made-{name}"
        (folder / "data").mkdir(parents=True, exist_ok=True)
        for old in (folder / "data").iterdir():
            old.unlink()
        for path in files[first:last]:
            (folder / "data" / path.name).symlink_to(path.resolve())
        folders.append(folder)
    packs = [pack(folder, Cut("whole", BODY), setting.work / "packs") for folder in folders]
    learned, judged = (People(chips.images(np.arange(len(chips))), chips) for chips in packs[1:])
    return folders[0], learned, judged


def first_taught(setting: Setting, folder: Path, recipe: TrainRecipe) -> Path:
    """The weights of a network that was trained on the people in a folder."""
    chips = pack(folder, Cut("whole", BODY), setting.work / "packs")
    out = setting.folder(recipe, digest(recipe.fingerprint, chips.fingerprint))
    if not (out / "record.json").exists():
        train(recipe, out, resume=(out / "checkpoint.pt").exists(), cache=setting.work / "packs")
    return out / f"{recipe.name}.safetensors"


def measure_made(setting: Setting, evidence: Evidence) -> None:
    """The same transformer told masked attributes, all attributes and nothing."""
    others, people, judged = shares(setting)
    data = {"source": str(others), "holdout": 0.0}
    known = targets(pack(others, Cut("whole", BODY), setting.work / "packs"))
    detector = first_taught(setting, others, setting.recipe(
        "made-detector", 0, DETECTOR_STEPS, network={**LARGE, "dim": 128}, task="attributes", data=data,
        batch={"size": 64}, targets=known,
    ))  # fmt: skip
    for_training, for_judging = (told_by(detector, part.pictures) for part in (people, judged))
    widths = {name: values.shape[1] for name, values in for_training.items()}
    changing = frozenset(name for name in widths if name in CLOTHES + COLORS)
    kinds = {
        "made": Description(widths, changing),
        "unmasked": Description(widths),
        "without": Description(widths, frozenset(widths)),
    }
    # In place of the weights that the published network begins with: fresh transformers learn next to nothing here.
    transformer = {**MADE_NETWORK, "description": sum(widths.values())}
    start = first_taught(setting, others, setting.recipe(
        "made-start", 0, START_STEPS, network=transformer, data=data, losses={"distilled": {}}, earlier="body-world",
        optimizer={"rate": 0.001, "warmup": 100, "decay": 0.05},
    ))  # fmt: skip
    runs: dict[str, list[Retrieval]] = {}
    for seed in setting.seeds:
        for kind, description in kinds.items():
            recipe = setting.recipe(
                f"made-{kind}", seed, MADE_STEPS, network=transformer, start=str(start), losses=CONTRAST, ema=0.99,
                optimizer={"rate": 0.0005, "warmup": 100, "decay": 0.05},
            )  # fmt: skip
            beside = description.vectors(for_training)
            network = setting.learned(
                Described, recipe, people.pictures, people.column("person"), beside, people.column("look"), FADING
            )
            vectors = embed(network, judged.pictures, beside=description.vectors(for_judging))
            runs.setdefault(kind, []).append(judged.judge(vectors, "world-across-looks"))
    note = (
        "another Look, whose clothes are others, of people who are well seen; "
        f"{len(np.unique(people.column('person')))} people to learn from; {len(widths)} attributes, {len(changing)} of "
        "them masked, told by a network that was trained on other people; without: all masked, so that networks are "
        "equal; all three begin with one transformer that learned to embed these other people as body-world does, "
        f"which knows none of them, {START_STEPS} steps; {MADE_STEPS} steps of 64 pictures, in the first "
        f"{100 * FADING:.0f} % of which some are told nothing; "
        f"the detector and the beginning are of seed 0; training seeds {told_seeds(setting.seeds)}"
    )
    add_comparison(evidence, "reid.made", "made", runs, note, {"map": "mAP", "rank1": "rank-1"})


# -- ContourReID -------------------------------------------------------------------------------------------------------

CONTOUR_STEPS = 400
CONTOUR = {"backbone": "contour", "angles": 64, "radii": 32, "stripes": 4, "depths": [1, 1, 1], "width": 0.25}
IDENTITY = {"softmax": {"smoothing": 0.0}, "triplet": {"margin": 0.3}}
STAYS = ("background", "occluder")
BODY_COLORS = ("skin", "face", "ears", "eyes", "brows", "lips", "mouth", "hair", "beard")


def outfits(people: People) -> npt.NDArray[np.int64]:
    """(N,) 0 or 1: the Shots of everybody in one Look are in two colorings, turn by turn."""
    order = np.lexsort((people.column("shot"), people.day))
    days = people.day[order]
    turn = np.empty(len(order), np.int64)
    turn[order] = np.arange(len(order)) - np.searchsorted(days, days)
    return turn % 2


def recolored(people: People, parts: npt.NDArray[np.uint8], kept: Sequence[str]) -> Pictures:
    """Every class of a segmentation in a color by chance, one for each coloring of everybody in each Look.

    Light and shade within a class stay, and so do classes in `kept`.
    """
    classes = len(LABELS)
    stays = np.isin(LABELS, kept)
    out = people.pictures.copy()
    for picture, places, day, outfit in zip(out, parts, people.day, outfits(people), strict=True):
        colors = np.random.default_rng([91, int(day), int(outfit)]).uniform(20, 200, (classes, 3))
        light = picture.mean(2)
        sums = np.bincount(places.ravel(), light.ravel(), classes)
        means = sums / np.maximum(np.bincount(places.ravel(), minlength=classes), 1)
        shade = light / np.maximum(means, 1)[places]
        changed = np.clip(colors[places] * shade[..., None], 0, 255)
        picture[:] = np.where(stays[places][..., None], picture, changed)
    return out


def turned(network: torch.nn.Module) -> float:
    """By how many degrees learned rays are away from even ones, on average."""
    moved = []
    for module in network.modules():
        if isinstance(module, PolarTransform):
            even = PolarTransform(len(module.gaps), module.radii, module.span)
            moved.append(float(torch.rad2deg((module.angles - even.angles).detach().abs().mean())))
    return float(np.mean(moved))


def measure_contour(setting: Setting, evidence: Evidence) -> None:
    """Sketches against colors, where clothes keep their form and change their colors, or keep both."""
    segmented = pack(setting.world, Cut("whole", BODY, parts=True), setting.work / "packs")
    views: dict[str, list[Pictures]] = {}
    people, judged = setting.people("train"), setting.people("judge")
    for side in (people, judged):
        parts = segmented.parts(side.chips.rows)
        colors = recolored(side, parts, STAYS)
        shown = {
            "contour": outline(parts),
            "edges": edges(colors),
            "colors": colors,
            "clothes": recolored(side, parts, STAYS + BODY_COLORS),
        }
        for kind, pictures in shown.items():
            views.setdefault(kind, []).append(smaller(pictures, 64))
    views["even"] = views["contour"]
    groups = outfits(people)
    # Everybody in one Look: other garments are the last of the questions, not the first.
    one = judged.column("look") == judged.column("look").min()
    dressed = {"person": judged.column("person")[one], "look": outfits(judged)[one], "shot": judged.column("shot")[one]}
    runs: dict[str, dict[str, list[Retrieval]]] = {"other_colors": {}, "same_colors": {}, "other_look": {}}
    moved = []
    for seed in setting.seeds:
        found: dict[str, Vectors] = {}
        for kind, (training, judging) in views.items():
            sketched = {"contour": CONTOUR, "edges": CONTOUR, "even": {**CONTOUR, "learned": False}}
            recipe = setting.recipe(
                f"contour-{kind}", seed, CONTOUR_STEPS, network=sketched.get(kind, SMALL), losses=IDENTITY
            )
            beside = None
            network = setting.learned(Described, recipe, training, people.day, beside, groups)
            found[kind] = embed(network, judging)
            if kind == "contour":
                moved.append(turned(network))
        found["both"] = np.concatenate([found["contour"], found["colors"]], 1)
        for kind, vectors in found.items():
            features = Features(vectors[one], vectors[one])
            for name, protocol in (("other_colors", "world-across-looks"), ("same_colors", "world-within-look")):
                runs[name].setdefault(kind, []).append(evaluate(features, dressed, dressed, protocol))
            runs["other_look"].setdefault(kind, []).append(judged.judge(vectors, "world-across-looks"))
    asked = {
        "other_colors": "another Shot in the same garments, all in other colors",
        "same_colors": "another Shot in the same garments and colors",
        "other_look": "another Look, whose garments are others too",
    }
    note = (
        "contour: borders of the world's own segmentation, rays at learned angles, which are "
        f"{np.mean(moved):.1f} degrees away from even ones; edges: gradients instead; colors: every color of the "
        "person is by chance; clothes: skin and hair keep theirs; both: contour and colors side by side; "
        f"{CONTOUR_STEPS} steps of 64 pictures; training seeds {told_seeds(setting.seeds)}"
    )
    for name, each in runs.items():
        alone, about = {kind: found for kind, found in each.items() if kind != "both"}, f"{asked[name]}; {note}"
        add_comparison(evidence, f"reid.contour.{name}", "contour", alone, about)
        both, whose = [run.values()["mAP"] for run in each["both"]], each["both"][0].person
        add_mean(evidence, f"reid.contour.{name}.map_both", both, whose, note=about)
        for kind in ("contour", "colors"):
            values = [run.values()["mAP"] for run in each[kind]]
            add_gain(evidence, f"reid.contour.{name}.both_gain_over_{kind}", both, values, whose, kind, about)


# -- LDE ---------------------------------------------------------------------------------------------------------------

LDE_STEPS = 400
SEEN, UNSEEN = (41, 42, 43), 51
SPLIT = {**SMALL, "backbone": "split_iresnet"}


class MixedStyles(Described):
    """Statistics of early maps mixed between the pictures of a batch, as MixStyle does (Zhou et al., 2021)."""

    def loss(self, step: int) -> tuple[torch.Tensor, Parts]:
        """The recipe's losses, every second time with mixed styles behind the first two stages."""
        if torch.rand(()) < 0.5:
            return super().loss(step)
        hooks = [stage.register_forward_hook(mixed_styles) for stage in self.network.stages[:2]]
        try:
            return super().loss(step)
        finally:
            for hook in hooks:
                hook.remove()


def mixed_styles(_: torch.nn.Module, __: tuple[torch.Tensor, ...], maps: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) maps whose means and deviations are mixed with those of another of them."""
    mean, deviation = maps.mean((2, 3), keepdim=True), (maps.var((2, 3), keepdim=True) + 1e-6).sqrt()
    plain = (maps - mean) / deviation
    mean, deviation = mean.detach(), deviation.detach()
    other = torch.randperm(len(maps))
    own = torch.distributions.Beta(0.1, 0.1).sample((len(maps), 1, 1, 1))
    mean, deviation = (own * side + (1 - own) * side[other] for side in (mean, deviation))
    return plain * deviation + mean


def faceless(people: People) -> Pictures:
    """Pictures with a patch of their mean color where the face is."""
    out, scale = people.pictures.copy(), people.pictures.shape[1] / BODY[0]
    for picture, five in zip(out, people.column("five") * scale, strict=True):
        low, high = five.min(0), five.max(0)
        margin = 0.5 * (high - low).max() + 1
        left, top = np.maximum(np.floor(low - margin), 0).astype(int)
        right, bottom = np.maximum(np.ceil(high + margin) + 1, 0).astype(int)
        patch = picture[top:bottom, left:right]
        if patch.size:
            patch[:] = patch.mean((0, 1))
    return out


def measure_lde(setting: Setting, evidence: Evidence) -> None:
    """Several worlds, everybody in one of them, for a world that is none of these; another one for each seed."""
    people, judged = (setting.people(part, 64) for part in ("train", "judge"))
    hidden = People(faceless(judged), judged.chips)
    _, of = np.unique(people.column("person"), return_inverse=True)
    domains = of % len(SEEN)
    pictures = people.pictures.copy()
    for number, world in enumerate(SEEN):
        pictures[domains == number] = another_world(pictures[domains == number], world)
    known = [judged.seen(world).pictures for world in SEEN]
    runs: dict[str, list[Retrieval]] = {}
    without_faces: dict[str, list[Retrieval]] = {}
    told: dict[str, list[npt.NDArray[np.float64]]] = {}
    for seed in setting.seeds:
        unseen, unseen_hidden = (side.seen(UNSEEN + seed) for side in (judged, hidden))
        pairs = {"triplet": IDENTITY["triplet"]}
        learners: dict[str, tuple[dict[str, Any], type[Learner], tuple[Any, ...]]] = {
            "lde": (pairs, LatentDomainExpansion, (domains, Expansion())),
            "split": (pairs, LatentDomainExpansion, (domains, Expansion(strength=0))),
            "mixed": (IDENTITY, MixedStyles, ()),
            "plain": (IDENTITY, Described, ()),
        }
        for kind, (losses, learner, more) in learners.items():
            recipe = setting.recipe(f"lde-{kind}", seed, LDE_STEPS, network=SPLIT, losses=losses)
            network = setting.learned(learner, recipe, pictures, people.day, *more)
            runs.setdefault(kind, []).append(unseen.judge(embed(network, unseen.pictures), "world-within-look"))
            without_faces.setdefault(kind, []).append(
                unseen_hidden.judge(embed(network, unseen_hidden.pictures), "world-within-look")
            )
            told.setdefault(kind, []).append(domains_told(network, known, judged.column("person")))
    note = (
        f"another Shot of the same Look in a world that was not trained on, another one for each seed; {len(SEEN)} "
        "worlds with other people in each; split: features are parted and domains not expanded; mixed: statistics of "
        f"early maps are mixed; {LDE_STEPS} steps of 64 pictures; training seeds {told_seeds(setting.seeds)}"
    )
    add_comparison(evidence, "reid.lde", "lde", runs, note)
    add_comparison(evidence, "reid.lde.faceless", "lde", without_faces, f"faces hidden; {note}")
    add_domains_told(
        evidence, "reid.lde", told, judged.column("person"), len(SEEN),
        f"networks of {LDE_STEPS} steps; training seeds {told_seeds(setting.seeds)}",
    )  # fmt: skip


# -- CION --------------------------------------------------------------------------------------------------------------

CION_START, CION_STEPS, FINE_STEPS = 150, 300, 150
ASTRAY = 0.1


def tracked(people: People, seed: int, at_once: int = 6) -> tuple[Frames, npt.NDArray[np.int64]]:
    """Everybody in one Look on two tracks in two videos, half of the Shots each; and (N,) tracks as a tracker has them.

    Some pictures are told to be of another track of the same video.
    """
    draw = np.random.default_rng([seed, 8])
    whole = videos(people, seed, at_once)
    days, of = np.unique(people.day, return_inverse=True)
    length = (whole.frame.max() + 1) // 2
    half = whole.frame // length
    places = draw.permutation(2 * len(days))
    video = places[2 * of + half] // at_once
    track = 2 * of + half
    told = track.copy()
    for row in np.flatnonzero(draw.random(len(track)) < ASTRAY):
        others = np.unique(track[video == video[row]])
        told[row] = draw.choice(others)
    return Frames(people.pictures, whole.camera, video, whole.frame % length), told


def noise_for(network: torch.nn.Module, people: People, seed: int) -> Noise:
    """The noise at which identities of other people, whose truth is read, agree best with it."""
    frames, tracks = tracked(people, seed)
    vectors = embed(network, people.pictures)
    scores = {}
    for radius in (0.6, 0.7, 0.8, 0.9, 1.0):
        for apart in (0.3, 0.4, 0.5, 0.6, 0.7):
            noise = Noise(radius, apart)
            found = correlate(vectors, tracks, frames.video, noise, len(tracks))
            scores[noise] = bcubed_f(people.day, alone(found)).f
    return max(scores, key=scores.__getitem__)


def alone(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Labels in which pictures of nobody are each by itself."""
    return np.where(labels >= 0, labels, labels.max() + 1 + np.arange(len(labels)))


def measure_cion(setting: Setting, evidence: Evidence) -> None:
    """Identities across videos against tracks and ISR."""
    people, choose, judged = (setting.people(part, 64) for part in ("train", "choose", "judge"))
    zero: dict[str, list[Retrieval]] = {}
    tuned: dict[str, list[Retrieval]] = {}
    agreement: dict[str, list[npt.NDArray[np.float64]]] = {}
    for seed in setting.seeds:
        frames, tracks = tracked(people, seed)
        first = setting.recipe("cion-start", seed, CION_START)
        begun = setting.trained(ISR, first, frames, 1)
        start_network = load_network(begun)[0]
        noise = noise_for(start_network, choose, seed)
        # One window over all videos: people come again anywhere.
        found = correlate(embed(start_network, people.pictures), tracks, frames.video, noise, len(tracks))
        for kind, labels in (("cion", found), ("tracks", tracks)):
            agreement.setdefault(kind, []).append(bcubed(people.day, alone(labels)))
        plan = {"start": str(begun), "batch": {"people": 16, "each": 2, "size": 64, "alone": "drop"}}
        learners: dict[str, tuple[type[Learner], tuple[Any, ...]]] = {
            "cion": (Distillation, (frames.pictures, found)),
            "tracks": (Distillation, (frames.pictures, tracks)),
            "isr": (ISR, (frames, 1)),
        }
        for kind, (learner, given) in learners.items():
            recipe = setting.recipe(f"cion-{kind}", seed, CION_STEPS, **plan)
            weights = setting.trained(learner, recipe, *given)
            network = load_network(weights)[0]
            zero.setdefault(kind, []).append(judged.judge(embed(network, judged.pictures), "world-within-look"))
            fine = setting.recipe(f"cion-fine-{kind}", seed, FINE_STEPS, losses=RANKING, start=str(weights))
            network = setting.learned(Described, fine, choose.pictures, choose.day)
            tuned.setdefault(kind, []).append(judged.judge(embed(network, judged.pictures), "world-within-look"))
    tracking = (
        f"{100 * ASTRAY:.0f} % of the pictures in a wrong track; what is noise was chosen on tracks of people set "
        f"apart, whose true identities are read; training seeds {told_seeds(setting.seeds)}"
    )
    note = (
        f"another Shot of the same Look; {CION_START} steps of ISR, then {CION_STEPS} of each kind on the same tracks, "
        f"64 pictures in each (of cion and tracks 32, in two changes); {tracking}"
    )
    add_comparison(evidence, "reid.cion", "cion", zero, note)
    add_comparison(
        evidence, "reid.cion.tuned", "cion", tuned, f"{note}; then {FINE_STEPS} on the labels of other people"
    )
    for kind, told in agreement.items():
        for column, figure in enumerate(("purity", "completeness")):
            add_mean(
                evidence, f"reid.cion.{figure}_{kind}", [each[:, column] for each in told], people.column("person"),
                note=f"B-cubed, of identities with people in one Look, after {CION_START} steps of ISR; {tracking}",
            )  # fmt: skip


# -- SnP ---------------------------------------------------------------------------------------------------------------

SNP_STEPS, SNP_GROUPS, SNP_SHARE = 300, 21, 0.2
POOL, TARGET = (11, 12, 13, 14, 15, 16), 13


def measure_snp(setting: Setting, evidence: Evidence) -> None:
    """A fifth of a pool, found, by chance and greedily, against all of it."""
    people, choose, judged = (setting.people(part, 64) for part in ("train", "choose", "judge"))
    names, of = np.unique(people.column("person"), return_inverse=True)
    pictures = people.pictures.copy()
    for turn, world in enumerate(POOL):
        mine = of % len(POOL) == turn
        pictures[mine] = another_world(pictures[mine], world)
    # The target is one of these worlds, and a little more than that.
    target, judged = (side.seen(TARGET).seen(30) for side in (choose, judged))
    budget = round(SNP_SHARE * len(names))
    groups = min(SNP_GROUPS, len(names) // 4)
    runs: dict[str, list[Retrieval]] = {}
    right = []
    for seed in setting.seeds:
        recipe = setting.recipe("snp-full", seed, SNP_STEPS, losses=RANKING)
        full = setting.learned(Described, recipe, pictures, people.day)
        runs.setdefault("full", []).append(judged.judge(embed(full, judged.pictures), "world-within-look"))
        features = embed(full, pictures)
        found = search(features, people.column("person"), embed(full, target.pictures), groups, seed)
        whose = np.isin(names, found.identities)
        right.append(float((np.arange(len(names)) % len(POOL) == POOL.index(TARGET))[whose].mean()))
        owner = people.column("person")
        chosen = {
            "snp": prune(features, owner, found.identities, budget, seed=seed),
            "random": prune(features, owner, names, budget, seed=seed),
            "greedy": np.flatnonzero(np.isin(owner, found.nearest[:budget])),
        }
        for kind, rows in chosen.items():
            recipe = setting.recipe(f"snp-{kind}", seed, SNP_STEPS, losses=RANKING)
            network = setting.learned(Described, recipe, pictures[rows], people.day[rows])
            runs.setdefault(kind, []).append(judged.judge(embed(network, judged.pictures), "world-within-look"))
    note = (
        f"another Shot of the same Look in the target; {budget} of {len(names)} people at most; of those found before "
        f"the budget {100 * np.mean(right):.0f} % are of the world that the target was made from; {SNP_STEPS} steps; "
        f"training seeds {told_seeds(setting.seeds)}"
    )
    add_comparison(evidence, "reid.snp", "snp", runs, note)


# -- CAST --------------------------------------------------------------------------------------------------------------

CAST_STEPS, CAST_ROUNDS = 400, 3
FAR, DRAWS = 0.001, 200
WRONG_FOLDER, TWICE = 0.4, 0.1
FACE = {"backbone": "iresnet", "depths": [1, 2, 2, 1], "width": 0.25, "stem": 2, "dim": 128, "size": [64, 64]}


def faces(setting: Setting, name: str, start: int, stop: int) -> People:
    """Faces of some files of the data set."""
    if not setting.faces:
        raise DataError("The part cast needs faces of the world.", "Name a data set of recipes/world/faces.yaml.")
    files = sorted(setting.faces.glob("data/*.parquet"))
    if len(files) < stop:
        raise DataError(f"{setting.faces} has {len(files)} files; {stop} are needed.", "Render more people.")
    folder = setting.work / "data" / f"faces-{name}"
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for old in (folder / "data").iterdir():
        old.unlink()
    for path in files[start:stop]:
        (folder / "data" / path.name).symlink_to(path.resolve())
    chips = pack(folder, Cut("face_box", (64, 64)), setting.work / "packs")
    return People(chips.images(np.arange(len(chips))), chips)


def as_downloaded(people: People, seed: int) -> npt.NDArray[np.int64]:
    """(N,) folders: many pictures in somebody else's, some people under two names."""
    draw = np.random.default_rng([seed, 9])
    _, person = np.unique(people.column("person"), return_inverse=True)
    count = person.max() + 1
    folder = np.where(draw.random(len(person)) < WRONG_FOLDER, draw.integers(0, count, len(person)), person)
    twice = draw.permutation(count)[: round(TWICE * count)]
    split = np.isin(folder, twice) & (draw.random(len(folder)) < 0.5)
    return np.where(split, folder + count, folder)


def rules_for(vectors: Vectors, people: People, folders: npt.NDArray[np.int64]) -> Rules:
    """The rules that clean the folders of other people, whose truth is read, best."""
    truth, scores = people.column("person"), {}
    for near in (0.15, 0.25, 0.35, 0.45, 0.55):
        for merge in (0.6, 0.7, 0.8, 0.9):
            rules = Rules(near, 3, merge, merge - 0.1)
            scores[rules] = pairwise_f(truth, alone(clean(vectors, folders, rules))).f
    return max(scores, key=scores.__getitem__)


@dataclass(frozen=True)
class Pairs:
    """Pairs of pictures that are asked whether they are of one person.

    Attributes
    ----------
    first, second
        (P,) rows of the pictures.
    people
        (P, 2) who is on them.
    """

    first: npt.NDArray[np.intp]
    second: npt.NDArray[np.intp]
    people: npt.NDArray[Any]

    @classmethod
    def across_looks(cls, people: People) -> Pairs:
        """All pairs of pictures of which there is one of everybody in each Look, the first."""
        _, rows = np.unique(people.day, return_index=True)
        a, b = np.triu_indices(len(rows), 1)
        person = people.column("person")[rows]
        return cls(rows[a], rows[b], np.stack([person[a], person[b]], 1))

    @property
    def same(self) -> npt.NDArray[np.intp]:
        """Numbers of the pairs of one person."""
        return np.flatnonzero(self.people[:, 0] == self.people[:, 1])

    @property
    def different(self) -> npt.NDArray[np.intp]:
        """Numbers of the pairs of two people."""
        return np.flatnonzero(self.people[:, 0] != self.people[:, 1])

    def distances(self, vectors: Vectors) -> npt.NDArray[np.float64]:
        """(P,) cosine distances of (N, D) vectors of length 1."""
        return 1 - np.einsum("pd,pd->p", vectors[self.first], vectors[self.second]).astype(np.float64)

    def interval(self, figure: Callable[[npt.NDArray[np.intp], npt.NDArray[np.intp]], float]) -> tuple[float, float]:
        """Over people, of a figure of numbers of same and of different pairs, by `bootstrap_pairs`.

        Of numbers instead of distances, so that a difference of two encoders is one of the same people.
        """
        same, different = self.same, self.different
        return bootstrap_pairs(
            same, self.people[same, 0], different, self.people[different],
            lambda ours, others: figure(ours.astype(np.intp), others.astype(np.intp)), DRAWS,
        )  # fmt: skip


Rate = Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64]], float]


def tar(same: npt.NDArray[np.float64], different: npt.NDArray[np.float64]) -> float:
    """True acceptance rate at the false acceptance rate `FAR`."""
    return tar_at_far(same, different, FAR)


def mean_rate(
    rate: Rate, runs: Sequence[npt.NDArray[np.float64]], same: npt.NDArray[np.intp], different: npt.NDArray[np.intp]
) -> float:
    """The mean, in per cent, over the (P,) distances of each seed."""
    return 100 * float(np.mean([rate(distances[same], distances[different]) for distances in runs]))


def add_verification(
    evidence: Evidence,
    name: str,
    ours: str,
    runs: Mapping[str, Sequence[npt.NDArray[np.float64]]],
    pairs: Pairs,
    note: str,
) -> None:
    """Add rates of all kinds of (P,) distances by seed, and by how much ours are better than each other kind.

    The note is that of every figure, as in `add_comparison`.
    """
    same, different, count = pairs.same, pairs.different, len(np.unique(pairs.people))
    for short, rate, sign in (("tar", tar, 1), ("eer", equal_error_rate, -1)):
        for kind, each in runs.items():
            seeds = by_seed(np.array([mean_rate(rate, [one], same, different) for one in each]))
            evidence.add(
                f"{name}.{short}_{kind}", mean_rate(rate, each, same, different), "%", n=count,
                ci95=pairs.interval(partial(mean_rate, rate, each)),
                note="; ".join(filter(None, [note, seeds])),
            )  # fmt: skip
        for kind in [kind for kind in runs if kind != ours]:
            ahead = partial(better_by, rate, sign, runs[ours], runs[kind])
            evidence.add(
                f"{name}.{short}_gain_over_{kind}", ahead(same, different), "points", n=count,
                ci95=pairs.interval(ahead), against=(kind, mean_rate(rate, runs[kind], same, different)),
                note=f"above 0 it is better; paired by people; {note}",
            )  # fmt: skip


def better_by(
    rate: Rate,
    sign: int,
    ours: Sequence[npt.NDArray[np.float64]],
    theirs: Sequence[npt.NDArray[np.float64]],
    same: npt.NDArray[np.intp],
    different: npt.NDArray[np.intp],
) -> float:
    """By how many points a rate of ours is better; the sign is -1 where less is better."""
    return sign * (mean_rate(rate, ours, same, different) - mean_rate(rate, theirs, same, different))


@dataclass(frozen=True)
class LabelPairs:
    """Pairs of pictures that labels put together, and that are of one person.

    Attributes
    ----------
    right
        (P,) per person, pairs of one label.
    alike
        (P,) per person, pairs in all.
    mixed
        (P, P) pairs of one label between two people, each once.
    """

    right: npt.NDArray[np.float64]
    alike: npt.NDArray[np.float64]
    mixed: npt.NDArray[np.float64]

    @classmethod
    def of(cls, people: npt.NDArray[Any], labels: Labels) -> LabelPairs:
        """Those of (N,) labels, -1 for pictures that were left out, of (N,) people."""
        _, person = np.unique(people, return_inverse=True)
        _, label = np.unique(labels, return_inverse=True)
        kept = labels >= 0
        table = np.zeros((person.max() + 1, label.max() + 1))
        np.add.at(table, (person[kept], label[kept]), 1)
        count = np.bincount(person)
        right, alike = (table * (table - 1)).sum(1) / 2, count * (count - 1) / 2
        return cls(right, alike, np.triu(table @ table.T, 1))

    def precision(self, times: Labels) -> float:
        """Share of the pairs of one label that are of one person, where people count (P,) times; 1 without any.

        A pair of one person counts as often as the person, one of two people as often as one times the other, as in
        `bootstrap_pairs`.
        """
        right, mixed = times @ self.right, times @ self.mixed @ times
        return float(right / (right + mixed)) if right + mixed else 1.0

    def recall(self, times: Labels) -> float:
        """Share of the pairs of one person that are of one label, where people count (P,) times; 1 without any."""
        alike = times @ self.alike
        return float(times @ self.right / alike) if alike else 1.0


Share = Callable[[LabelPairs, Labels], float]


def mean_share(share: Share, runs: Sequence[LabelPairs], people: Labels) -> float:
    """The mean, in per cent, over the seeds, of people by number, some of them several times."""
    times = np.bincount(people, minlength=len(runs[0].right))
    return 100 * float(np.mean([share(pairs, times) for pairs in runs]))


def share_ahead(share: Share, ours: Sequence[LabelPairs], theirs: Sequence[LabelPairs], people: Labels) -> float:
    """By how many points a share of ours is larger."""
    return mean_share(share, ours, people) - mean_share(share, theirs, people)


def add_labels(evidence: Evidence, name: str, told: Mapping[str, Sequence[LabelPairs]], note: str) -> None:
    """Add how right labels are that were cleaned once and in rounds, and by how much rounds are ahead.

    What is told is of ``noisy``, ``once`` and ``cast``, by seed; all intervals are over the same people drawn.
    """
    everybody = np.arange(len(told["cast"][0].right))
    shares = {
        "precision": (LabelPairs.precision, "of the pairs of pictures with one label, those of one person"),
        "recall": (LabelPairs.recall, "of the pairs of pictures of one person, those with one label"),
    }
    for figure, (share, what) in shares.items():
        came = mean_share(share, told["noisy"], everybody)
        for kind in ("once", "cast"):
            value = partial(mean_share, share, told[kind])
            seeds = by_seed(np.array([mean_share(share, [one], everybody) for one in told[kind]]))
            evidence.add(
                f"{name}.label_{figure}_{kind}", value(everybody), "%", n=len(everybody),
                ci95=bootstrap_ci(everybody, statistic=value), against=("as they came", came),
                note="; ".join(filter(None, [what, note, seeds])),
            )  # fmt: skip
        ahead = partial(share_ahead, share, told["cast"], told["once"])
        evidence.add(
            f"{name}.label_{figure}_gain_over_once", ahead(everybody), "points", n=len(everybody),
            ci95=bootstrap_ci(everybody, statistic=ahead),
            against=("once", mean_share(share, told["once"], everybody)), note=f"{what}; paired by people; {note}",
        )  # fmt: skip


def measure_cast(setting: Setting, evidence: Evidence) -> None:
    """Labels and encoders, round by round."""
    parts = {"train": (0, 20), "choose": (20, 25), "judge": (25, 35)}
    people, choose, judged = (faces(setting, name, *files) for name, files in parts.items())
    truth, pairs = people.column("person"), Pairs.across_looks(judged)
    runs: dict[str, list[Retrieval]] = {}
    distances: dict[str, list[npt.NDArray[np.float64]]] = {}
    labels_told: dict[str, list[LabelPairs]] = {}
    network: torch.nn.Module

    def trained(kind: str, seed: int, labels: npt.NDArray[np.int64]) -> torch.nn.Module:
        kept = labels >= 0
        recipe = setting.recipe(f"cast-{kind}", seed, CAST_STEPS, network=FACE, losses=RANKING)
        return setting.learned(Described, recipe, people.pictures[kept], labels[kept])

    for seed in setting.seeds:
        folders, few = as_downloaded(people, seed), as_downloaded(choose, seed + 100)

        def teach(labels: npt.NDArray[np.int64], number: int, seed: int = seed) -> Vectors:
            nonlocal network
            network = trained("noisy" if number == 0 else f"round-{number}", seed, labels)
            return embed(network, people.pictures)

        def rules(vectors: Vectors, few: npt.NDArray[np.int64] = few) -> Rules:
            return rules_for(embed(network, choose.pictures), choose, few)

        found = list(cast(teach, folders, rules, CAST_ROUNDS))
        names = np.unique(folders, return_inverse=True)[1].astype(np.int64)
        _, person = np.unique(truth, return_inverse=True)
        # As much as cleaning can reach: what is in somebody else's folder is gone, people are under one name.
        true = np.where(folders % (person.max() + 1) == person, person, -1)
        kinds = {"noisy": names, "once": found[0], "cast": found[-1], "clean": true}
        for kind, labels in kinds.items():
            name = {"noisy": "noisy", "once": "round-1", "cast": f"round-{CAST_ROUNDS}"}.get(kind, kind)
            last = trained(name, seed, labels.astype(np.int64))
            vectors = embed(last, judged.pictures)
            runs.setdefault(kind, []).append(judged.judge(vectors, "world-across-looks"))
            distances.setdefault(kind, []).append(pairs.distances(vectors))
            if kind != "clean":
                labels_told.setdefault(kind, []).append(LabelPairs.of(truth, labels))
    note = (
        f"of the pictures of {len(np.unique(truth))} people {100 * WRONG_FOLDER:.0f} % in a folder by chance, "
        f"{100 * TWICE:.0f} % of the people under two names; {CAST_ROUNDS} rounds, each cleaned by the rules that are "
        "the best on folders of people set apart, whose true labels are read; clean: by the truth; equal steps "
        f"({CAST_STEPS}), and batches drawn by the same seeds from the labels of each kind; "
        f"training seeds {told_seeds(setting.seeds)}"
    )
    add_comparison(evidence, "reid.cast", "cast", runs, f"faces in another Look; {note}")
    add_verification(
        evidence, "reid.cast", "cast", distances, pairs,
        f"pairs of faces, one of everybody in each Look, at a false acceptance rate of {100 * FAR:g} % of these pairs "
        f"(tar) or where both errors are equal (eer); {note}",
    )  # fmt: skip
    # What the folders were like as they came is decided by how they were made: it is no figure.
    add_labels(evidence, "reid.cast", labels_told, f"once: the first of the rounds; {note}")


PARTS: dict[str, Callable[[Setting, Evidence], None]] = {
    "isr": measure_isr,
    "domainmix": measure_domainmix,
    "market": measure_market,
    "made": measure_made,
    "contour": measure_contour,
    "lde": measure_lde,
    "cion": measure_cion,
    "snp": measure_snp,
    "cast": measure_cast,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, required=True, help="a data set of recipes/world/bodies.yaml")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "ipse-reid-training")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="some parts; the figures of the others are kept")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--shared", type=Path, help="folder with market1501/")
    parser.add_argument("--market-run", type=Path, help="run of recipes/encoders/market1501.yaml")
    parser.add_argument("--faces", type=Path, help="a data set of recipes/world/faces.yaml, for the part cast")
    parser.add_argument("--others", type=Path, help="a data set of recipes/base/bodies.yaml, for the part made")
    parser.add_argument("--share", type=float, default=1.0, help="of the steps; below 1 nothing is written")
    args = parser.parse_args()
    torch.set_num_threads(1)
    # What trainings say of their groups as they go.
    logging.basicConfig(format="%(message)s")
    logging.getLogger("ipse.training").setLevel(logging.INFO)
    seeds = range(args.seeds)
    setting = Setting(args.world, args.work, seeds, args.share, args.shared, args.market_run, args.faces, args.others)
    evidence = Evidence("reid", seeds=seeds)
    lacking = {"market": not (args.shared and args.market_run), "cast": not args.faces, "made": not args.others}
    chosen = args.only or [name for name in PARTS if not lacking.get(name)]
    measure(PARTS, chosen, setting, evidence, whole=args.share == 1)


if __name__ == "__main__":
    main()
