"""Measure what keypoints tell a network of boxes that hold two people.

World people are those of a data set of recipes/world/bodies.yaml with parts: seven tenths are trained on, a fifth is
judged. Boxes hold two of the judged people side by side, one partly in front of the other, and each box is asked for
twice, once for either person, among pictures of one person each that no box was made from. A run that is finished is
kept in the work folder and not done again; one that was stopped goes on. A sheet of boxes and answers lies beside.

kpr: a part-based transformer with prompts, asked with them, with those of the other person, and without any; and the
same network trained without, with equal steps, batches and pasted people.

    ipse world dataset recipes/world/bodies.yaml --people 600 --shots 4 --start 1000 --out bodies
    python benchmarks/reid_occlusion.py --world bodies --work work
    python benchmarks/reid_occlusion.py --world bodies --work trial --share 0.02   # few steps, nothing is written
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from rich.progress import Progress

from ipse.encoders.backbones.kpr import PARTS, prompts
from ipse.errors import DataError
from ipse.gallery.visible_parts import VisibleParts
from ipse.measure import Evidence, Retrieval, evaluate
from ipse.training.kpr import Boxes, Chances, PromptedParts, paste, read_boxes, shifted
from ipse.training.learning import embed, learn, progress
from ipse.training.loop import with_steps
from ipse.training.networks import load_network
from ipse.training.recipe import TrainRecipe
from reid_training import add_comparison
from trials import add_gain, add_mean, measure

SIZE = (96, 48)
"""Height and width of a box in pixels."""
STEPS, SCENES = 750, 600
NETWORK = {
    "backbone": "kpr", "width": 96, "depth": 4, "heads": 3, "dim": 64, "size": list(SIZE), "patch": 8, "stride": 8,
}  # fmt: skip
RECIPE = {
    "modality": "body",
    "network": NETWORK,
    "cut": {"kind": "whole", "size": list(SIZE)},
    "batch": {"size": 64, "people": 16, "each": 4, "alone": "drop"},
    # People of a box stand anywhere across.
    "augment": {
        "geometry": {"shift": 0.15, "scale": 0.05, "flip": 0.5},
        "color": {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.0, "p": 0.5},
    },
    "optimizer": {"rate": 0.001, "warmup": 80, "decay": 0.05},
    "ema": 0.995,
    "save_every": 100,
    "evaluate_every": 10_000,
}
OCCLUDED = 0.5
#: What is trained.
TRAININGS = {"kpr": Chances(OCCLUDED), "unprompted": Chances(OCCLUDED, unprompted=1.0)}


@dataclass(frozen=True)
class Setting:
    """What the part is given.

    Attributes
    ----------
    world
        Folder of the world's bodies.
    work
        Where runs are kept.
    seeds
        Of the trainings.
    share
        Of the steps; below 1 for a trial.
    """

    world: Path
    work: Path
    seeds: Sequence[int]
    share: float

    def boxes(self, part: str) -> Boxes:
        """Those for ``train`` or ``judge``."""
        count = len(list(self.world.glob("data/*.parquet")))
        if count < 10:
            raise DataError(f"{self.world} has {count} files; 10 at least can be split.", "Render more people.")
        files = slice(0, round(0.7 * count)) if part == "train" else slice(round(0.8 * count), None)
        with Progress() as bar:
            task = bar.add_task(f"reading people to {part}")
            return read_boxes(
                self.world, SIZE, files, lambda done, total: bar.update(task, completed=done, total=total)
            )

    @cached_property
    def trained_on(self) -> Boxes:
        """Read once."""
        return self.boxes("train")

    def network(self, kind: str, seed: int) -> torch.nn.Module:
        """The network of a training, done now unless it is there."""
        recipe = TrainRecipe.from_dict({**RECIPE, "name": kind, "seed": seed, "steps": STEPS})
        if self.share < 1:
            recipe = with_steps(recipe, max(4, round(self.share * STEPS)))
        boxes, chances = self.trained_on, TRAININGS[kind]
        known = hashlib.sha256(boxes.pictures.tobytes() + repr(chances).encode()).hexdigest()
        told = hashlib.sha256(f"{recipe.fingerprint}{known}".encode()).hexdigest()[:10]
        folder = self.work / "runs" / f"{kind}-{seed}-{told}"
        if not (folder / f"{kind}.safetensors").exists():
            learn(PromptedParts(recipe, boxes, boxes.days, chances), folder, progress(f"{kind} {seed}"), known)
        return load_network(folder / f"{kind}.safetensors")[0]


def asked_of(boxes: Boxes) -> npt.NDArray[np.bool_]:
    """(N,) pictures that boxes are made from: the first half of the Shots of everybody in each Look."""
    order = np.lexsort((boxes.shots, boxes.days))
    days = boxes.days[order]
    turn = np.arange(len(days)) - np.searchsorted(days, days)
    size = np.searchsorted(days, days, "right") - np.searchsorted(days, days)
    chosen = np.zeros(len(days), bool)
    chosen[order] = turn < size // 2
    return chosen


def moved(box: Boxes, right: int) -> Boxes:
    """A box of one row whose picture is moved; what comes in repeats the edge."""
    width = box.pictures.shape[2]
    columns = (np.arange(width) - right).clip(0, width - 1)
    points = box.points + np.array([right, 0, 0], np.float32)
    points[:, :, 2] *= (points[:, :, 0] >= 0) & (points[:, :, 0] < width)
    return replace(
        box, pictures=box.pictures[:, :, columns], parts=shifted(box.parts[0], right, 0)[None], points=points
    )


def scenes(boxes: Boxes, count: int, draw: np.random.Generator) -> Boxes:
    """Boxes with two people, each twice, for one person and for the other; both can be seen at least in part."""
    found: list[Boxes] = []
    width = boxes.pictures.shape[2]
    while len(found) < count:
        first, second = draw.integers(len(boxes), size=2)
        side = draw.choice([-1, 1])
        left, right = (side * round(draw.uniform(0.14, 0.22) * width) for _ in range(2))
        if boxes.people[first] == boxes.people[second]:
            continue
        there = moved(boxes.choose(np.array([first])), -left)
        both = paste(joined([there, boxes.choose(np.array([second]))]), right, 0, behind=bool(draw.integers(2)))
        whole = (boxes.parts[[first, second]] > 0).sum((1, 2))
        if ((both.parts > 0).sum((1, 2)) >= 0.3 * whole).all() and (both.points[:, :, 2].sum(1) >= 4).all():
            found.append(both)
    return joined(found)


def joined(boxes: Sequence[Boxes]) -> Boxes:
    """All one after another."""
    return Boxes(*(np.concatenate([getattr(box, name) for box in boxes]) for name in Boxes.__dataclass_fields__))


def exchanged(count: int) -> npt.NDArray[np.intp]:
    """(count,) the row of each one's partner: 1, 0, 3, 2 and so on."""
    return np.arange(count) ^ 1


def columns(boxes: Boxes) -> dict[str, npt.NDArray[np.int64]]:
    """As protocols need them."""
    return {"person": boxes.people, "look": boxes.looks, "shot": boxes.shots}


def templates(
    network: torch.nn.Module,
    boxes: Boxes,
    points: npt.NDArray[np.float32] | None = None,
    others: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float32]:
    """(N, 6, D) of boxes, asked with keypoints or without."""  # fmt: skip
    beside = None if points is None else prompts(points, SIZE, others)
    return embed(network, boxes.pictures, beside=beside).reshape(len(boxes), len(PARTS) + 1, -1)


def told_apart(distances: VisibleParts, asked: Boxes, gallery: Boxes) -> npt.NDArray[np.float64]:
    """(Q,) whether, of all pictures of the two people of a box on their days, one of who was meant is the nearest."""
    rows = distances.rows(0, len(asked))
    meant = asked.days[:, None] == gallery.days
    other = asked.days[exchanged(len(asked)), None] == gallery.days
    nearest = [np.where(side, rows, np.inf).min(1) for side in (meant, other)]
    return (nearest[0] < nearest[1]).astype(float)


def sheet(path: Path, asked: Boxes, gallery: Boxes, found: VisibleParts, without: VisibleParts, boxes: int = 8) -> None:
    """Boxes with the keypoints of who is meant, their five nearest pictures, and those without a prompt."""
    height, width = SIZE
    page = Image.new("RGB", (12 * width, 2 * boxes * height), "white")
    rows = np.arange(2 * boxes)
    for line, (ours, theirs) in enumerate(zip(found.rows(0, len(rows)), without.rows(0, len(rows)), strict=True)):
        picture = Image.fromarray(asked.pictures[line])
        pen = ImageDraw.Draw(picture)
        for x, y, known in asked.points[line]:
            if known:
                pen.ellipse([x - 2, y - 2, x + 1, y + 1], fill="lime")
        page.paste(picture, (0, line * height))
        for start, distances in ((1, ours), (7, theirs)):
            for place, row in enumerate(distances.argsort()[:5]):
                answer = Image.fromarray(gallery.pictures[row])
                right = gallery.days[row] == asked.days[line]
                ImageDraw.Draw(answer).rectangle([0, 0, width - 1, height - 1], outline="lime" if right else "red")
                page.paste(answer, ((start + place) * width, line * height))
    page.save(path)


def measure_kpr(setting: Setting, evidence: Evidence) -> None:
    """Boxes of two people and of one, with prompts, exchanged ones, and without."""
    judged = setting.boxes("judge")
    chosen = asked_of(judged)
    single, gallery = judged.choose(np.flatnonzero(chosen)), judged.choose(np.flatnonzero(~chosen))
    two = scenes(single, SCENES, np.random.default_rng(7))
    swap = exchanged(len(two))

    def asked(ours: npt.NDArray[np.float32], theirs: npt.NDArray[np.float32], boxes: Boxes) -> Retrieval:
        return evaluate(VisibleParts(ours, theirs), columns(boxes), columns(gallery), "world-within-look")

    runs: dict[str, list[Retrieval]] = {}
    alone: dict[str, list[Retrieval]] = {}
    apart: list[npt.NDArray[np.float64]] = []
    for seed in setting.seeds:
        network, plain = (setting.network(kind, seed) for kind in TRAININGS)
        held = {
            "prompted": templates(network, gallery, gallery.points),
            "without": templates(network, gallery),
            "unprompted": templates(plain, gallery),
        }
        found = {
            "prompted": templates(network, two, two.points, two.points[swap]),
            "positive": templates(network, two, two.points),
            "without": templates(network, two),
            "unprompted": templates(plain, two),
        }
        # Asked with the other's keypoints, a box says what its twin says: pictures and prompts are the same.
        found["swapped"] = found["prompted"][swap]
        for kind, ours in found.items():
            theirs = held.get(kind, held["prompted"])
            runs.setdefault(kind, []).append(asked(ours, theirs, two))
        apart.append(told_apart(VisibleParts(found["prompted"], held["prompted"]), two, gallery))
        whole = {
            "prompted": templates(network, single, single.points),
            "without": templates(network, single),
            "unprompted": templates(plain, single),
        }
        for kind, ours in whole.items():
            alone.setdefault(kind, []).append(asked(ours, held[kind], single))
        if seed == setting.seeds[0]:
            sheet(
                setting.work / "kpr.png", two, gallery, VisibleParts(found["prompted"], held["prompted"]),
                VisibleParts(found["without"], held["without"]),
            )  # fmt: skip
    note = (
        f"{SCENES} boxes of two people, asked for either, among {len(gallery)} pictures of one person in the same "
        f"Look; true keypoints that can be seen; {STEPS} steps of 64 pictures, somebody pasted over half of them; "
        "positive: without the other's keypoints; without: the same network without prompts; unprompted: trained "
        "without them"
    )
    add_comparison(evidence, "reid.kpr", "prompted", runs, note, {"map": "mAP", "rank1": "rank-1"})
    add_comparison(evidence, "reid.kpr.single", "without", alone, "boxes of one person", {"map": "mAP"})
    people = runs["prompted"][0].person
    values = {kind: [run.values()["mAP"] for run in each] for kind, each in runs.items()}
    add_gain(
        evidence, "reid.kpr.claim", values["prompted"], values["unprompted"], people, "trained without prompts",
        "mAP, boxes of two people",
    )  # fmt: skip
    add_gain(
        evidence, "reid.kpr.without_ahead", values["without"], values["unprompted"], people,
        "trained without prompts", "mAP, boxes of two people, neither has a prompt",
    )  # fmt: skip
    # The two questions of a box, side by side. Without prompts both have one answer, and one of them is always wrong.
    add_mean(
        evidence, "reid.kpr.switched_prompted", [each.reshape(-1, 2).all(1) for each in apart], two.people[::2],
        note="boxes where of the two people's pictures the nearest is of who is asked for, both times",
    )  # fmt: skip


MEASURED = {"kpr": measure_kpr}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", type=Path, required=True, help="a data set of recipes/world/bodies.yaml")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "ipse-reid-occlusion")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--share", type=float, default=1.0, help="of the steps; below 1 nothing is written")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    setting = Setting(given.world, given.work, range(given.seeds), given.share)
    evidence = Evidence("reid", seeds=range(given.seeds))
    measure(MEASURED, MEASURED, setting, evidence, whole=given.share == 1)


if __name__ == "__main__":
    main()
