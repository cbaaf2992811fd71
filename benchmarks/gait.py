"""Measure gait: people of the world who are told by how they walk, in other clothes and from other sides.

The encoder is trained first, unless that is done; a run that was stopped goes on. Nobody who is judged here was trained
on or looked at before.

rank: rank-1 among people numbered 900,000 and up with one walk of each in the gallery: in another Look, from another
side, and both; beside the gait energy image, and beside the same encoder that sees one silhouette of each walk.
enroll: known or new by GaitEnroll, which learned with an encoder of bodies and has seen no gait; beside the best fixed
threshold of that encoder and the best one of each gallery.

    python benchmarks/gait.py --walks walks --shared data --market-run runs/market1501     # everything
    python benchmarks/gait.py --walks walks --only rank                                    # one part
    python benchmarks/gait.py --walks walks --only rank --start 60000 --people 12 --share 0.01   # a trial
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
from rich.progress import Progress

import reid
from encoders import JUDGED
from ipse.encoders.contract import Encoder
from ipse.encoders.gait import FRAMES, WIDTH, GaitEnergy
from ipse.encoders.trained import TrainedEncoder
from ipse.measure.evidence import Evidence
from ipse.training.loop import with_steps
from ipse.training.recipe import TrainRecipe
from ipse.world.walks import Walks, read_walks, write_walks
from open_set import COUPLES, add_enrollments, learned_enrollment
from trials import add_gain, add_mean, measure, trained

RECIPE = Path(__file__).parents[1] / "recipes" / "encoders" / "gait-world.yaml"

#: What differs between a walk and the gallery: Look, side.
SCENES = {
    "across_looks": (True, False, "another Look, the same side"),
    "across_views": (False, True, "the same Look, another side"),
    "across_both": (True, True, "another Look, another side"),
}

#: People enrolled, walks of each, and share of new people among those who come.
GALLERIES = [(8, 1, 0.5), (12, 2, 0.2), (20, 1, 0.2), (20, 3, 0.5), (30, 2, 0.2)]


@dataclass(frozen=True)
class Setting:
    """What the parts are given.

    Attributes
    ----------
    walks
        Folder that ``ipse world walks`` wrote, to train on.
    work
        Where walks that are judged, packs and runs are kept.
    start, people
        Number of the first person who is judged, and how many.
    share
        Of the steps; below 1 for a trial.
    shared
        Folder of real photographs.
    market_run
        Folder of a training on Market-1501.
    cache
        Folder of features, as of benchmarks/reid.py.
    """

    walks: Path
    work: Path
    start: int
    people: int
    share: float
    shared: Path | None
    market_run: Path | None
    cache: Path

    @cached_property
    def judged(self) -> Walks:
        """Walks of people who were not trained on, rendered now unless they are there."""
        folder = self.work / f"judged-{self.start}"
        with Progress() as bar:
            task = bar.add_task("walks")
            write_walks(
                folder,
                people=self.people,
                start=self.start,
                on_walk=lambda done, total: bar.update(task, completed=done, total=total),
            )
        return read_walks(folder)

    @cached_property
    def encoder(self) -> TrainedEncoder:
        """Of the recipe, trained now unless it is there."""
        recipe = TrainRecipe.load(RECIPE)
        recipe = replace(recipe, data=replace(recipe.data, source=str(self.walks)))
        recipe = with_steps(recipe, max(2, round(self.share * recipe.steps)))
        return TrainedEncoder(trained(recipe, self.work / f"gait-{recipe.fingerprint[:8]}", self.work / "packs"))


def hits(features: np.ndarray, walks: Walks, other_look: bool, other_view: bool) -> tuple[np.ndarray, np.ndarray]:
    """Every walk asked in every gallery of one Look and one side that differ from its own as they should.

    Returns
    -------
    tuple
        (Q,) whether the nearest walk is of the same person, and (Q,) people.
    """
    found, whose = [], []
    places = list(product(np.unique(walks.looks), np.unique(walks.azimuths)))
    for (look, side), (worn, seen) in product(places, places):
        if (look != worn, side != seen) != (other_look, other_view):
            continue
        query, gallery = (
            np.flatnonzero((walks.looks == a) & (walks.azimuths == b)) for a, b in ((look, side), (worn, seen))
        )
        nearest = gallery[(features[query] @ features[gallery].T).argmax(axis=1)]
        found.append(walks.people[nearest] == walks.people[query])
        whose.append(walks.people[query])
    return np.concatenate(found).astype(float), np.concatenate(whose)


def still(strips: np.ndarray) -> np.ndarray:
    """Strips that show their first silhouette again and again."""
    return np.tile(strips[:, :, :WIDTH], (1, 1, strips.shape[2] // WIDTH, 1))


def rank(setting: Setting, evidence: Evidence) -> None:
    """Add rank-1 across Looks and sides."""
    walks = setting.judged
    encoder: Encoder = setting.encoder
    found = {
        "": (encoder.encode(walks.strips), "GaitSet"),
        "energy_": (GaitEnergy().encode(walks.strips), "gait energy image"),
        "still_": (encoder.encode(still(walks.strips)), "GaitSet, one silhouette of each walk"),
    }
    about = f"one walk of each of {setting.people} people in the gallery; {FRAMES} silhouettes of one stride"
    for scene, (other_look, other_view, told) in SCENES.items():
        runs = {name: hits(features, walks, other_look, other_view) for name, (features, _) in found.items()}
        people = runs[""][1]
        for name, (_, label) in found.items():
            add_mean(
                evidence, f"reid.gait.{name}rank1_{scene}", [runs[name][0]], people, note=f"{label}; {told}; {about}"
            )
            if name:
                add_gain(
                    evidence, f"reid.gait.ahead_of_{name}{scene}", [runs[""][0]], [runs[name][0]], people, label,
                    note=f"rank-1, GaitSet ahead, paired by walk; {told}",
                )  # fmt: skip
    frames = walks.strips.reshape(*walks.strips.shape[:2], -1, WIDTH, 3)
    turned = frames[:, :, np.random.default_rng(0).permutation(frames.shape[2])].reshape(walks.strips.shape)
    evidence.add(
        "reid.gait.order_error", float(np.abs(encoder.encode(turned) - found[""][0]).max()), n=len(turned),
        note="largest change of a number of an embedding where the silhouettes are in another order",
    )  # fmt: skip


def enroll(setting: Setting, evidence: Evidence) -> None:
    """Add F1 of known and new by a decision that was learned with another encoder."""
    assert setting.shared and setting.market_run
    learned = learned_enrollment(
        reid.Setting(setting.cache, COUPLES, setting.shared, setting.market_run), max(2, round(300 * setting.share))
    )
    walks = setting.judged
    about = f"another encoder: GaitSet, walks of {setting.people} world people in two Looks from three sides"
    asked = setting.encoder.encode(walks.strips), walks.people
    add_enrollments(evidence, "reid.gait.enroll_", learned, asked, GALLERIES, about)


PARTS = {"rank": rank, "enroll": enroll}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(PARTS), nargs="+", default=list(PARTS), help="these parts")
    parser.add_argument("--walks", type=Path, required=True, help="what `ipse world walks` wrote, to train on")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "ipse-gait")
    parser.add_argument("--start", type=int, default=JUDGED + 400, help="first person; another number makes a trial")
    parser.add_argument("--people", type=int, default=40, help="how many are judged; another number makes a trial")
    parser.add_argument("--share", type=float, default=1.0, help="of the steps; below 1 makes a trial")
    parser.add_argument("--shared", type=Path, help="the folder of real photographs")
    parser.add_argument("--market-run", type=Path, help="the folder of a training on Market-1501")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "ipse-reid")
    given = vars(parser.parse_args(arguments))
    only = given.pop("only")
    setting = Setting(**given)
    if "enroll" in only and not (setting.shared and setting.market_run):
        parser.error("enroll needs --shared and --market-run")
    # Figures are of people for judging alone, all of them, by the whole training.
    whole = (setting.start, setting.people, setting.share) == (JUDGED + 400, 40, 1.0)
    measure(PARTS, only, setting, Evidence("reid", seeds=[0]), whole=whole)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
