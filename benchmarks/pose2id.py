"""Measure Pose2ID on bodies of the world: neighbors alone, generated pictures alone, and both, over the cosine.

People from number 800,000 on, whom nothing was trained on or tuned to, each in one Look: the first picture is asked,
the others are the gallery. Of each picture eight more are generated, in the standard poses. Two frozen encoders: the
image encoder of the base, which no re-identification has trained, and body-world, which also tells the generator who
to show. Parameters are as published: k1 = k2 = 2, generated pictures count as much as the picture itself.

    python benchmarks/pose2id.py --base body-base --adapter runs/pose2id/pose2id.safetensors --sheet views.png
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from encoders import percent
from ipse._files import atomic_write
from ipse.gallery.centralize import center_distance, centralize, centralize_by_generation, generated_features
from ipse.gallery.reid import Way
from ipse.images import contact_sheet, resize, save_png
from ipse.measure import Evidence, Retrieval, bootstrap_ci, evaluate
from ipse.world import VERSION, look, person, render, shot
from reid import JUDGED, add, add_ahead

Encode = Callable[[Sequence[np.ndarray]], np.ndarray]


def pictures_of(number: int, shots: int) -> list[np.ndarray]:
    """Pictures of a person in one Look, as surveillance has them."""
    who = person(number)
    worn = look(0, who)
    return [
        render(who, worn, shot(number * shots + k, "person", hard=True), "person", size=(128, 256)).image
        for k in range(shots)
    ]


def kept(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """An array of a file, made where it is not there."""
    if not path.exists():
        made = make()
        with atomic_write(path) as file:
            np.save(file, made)
    return np.load(path)


def encoders_of(method: object) -> dict[str, Encode]:
    """By name, what makes (n, D) features of pictures."""
    import torch

    from ipse.diffusion.training.joint import embed_images

    joint, (height, width) = method.base.joint(), method.base.size

    def image_encoder(pictures: Sequence[np.ndarray]) -> np.ndarray:
        pixels = np.stack([resize(picture, width, height) for picture in pictures])
        with torch.no_grad():
            shown = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
            return embed_images(joint, shown.to(method.base.device)).cpu().numpy()

    def body_encoder(pictures: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([method.reader.vector(picture) for picture in pictures])

    return {"image-encoder": image_encoder, method.reader.encoder.name: body_encoder}


def elses(who: np.ndarray) -> np.ndarray:
    """(N,) for each picture one of somebody else, of another one for each picture of a person.

    Were it always the same one, who shares the wrong person's features would still be found by them.
    """
    people, first, count = np.unique(who, return_index=True, return_counts=True)
    number = np.searchsorted(people, who)
    within = np.arange(len(who)) - first[number]
    other = (number + 1 + within) % len(people)
    return first[other] + within % count[other]


def measured(
    evidence: Evidence,
    name: str,
    who: np.ndarray,
    asked: np.ndarray,
    features: np.ndarray,
    generated: np.ndarray,
) -> None:
    """Add all figures of an encoder.

    Parameters
    ----------
    evidence, name
        Where to, and what they are called after.
    who
        (N,) who is on the pictures, in order.
    asked
        (N,) bool: the queries; the others are the gallery.
    features, generated
        (N, D) of the pictures, and (N, P, D) of those that were made of each.
    """
    sides = [{"person": who[asked]}, {"person": who[~asked]}]
    right, wrong = (centralize_by_generation(features, made) for made in (generated, generated[elses(who)]))
    neighbors = Way(centralized=True)
    searches: Mapping[str, tuple[Way, np.ndarray, str]] = {
        "neighbors": (neighbors, features, "neighbors alone, k1 = k2 = 2, queries and gallery together"),
        "generated": (Way(), right, f"{generated.shape[1]} generated pictures alone, as much as the picture itself"),
        "both": (neighbors, right, "generated pictures, then neighbors"),
        "wrong": (Way(), wrong, "pictures generated of somebody else in their place"),
        "wrong_both": (neighbors, wrong, "pictures generated of somebody else, then neighbors"),
        "reranked": (Way(reranked=True), features, "k-reciprocal re-ranking alone"),
        "both_reranked": (Way(centralized=True, reranked=True), right, "both, and k-reciprocal re-ranking on top"),
    }

    def found(way: Way, moved: np.ndarray) -> Retrieval:
        return evaluate(way.search(moved[asked], moved[~asked]), *sides)

    about = f"{asked.sum()} queries against {(~asked).sum()} pictures of {len(np.unique(who))} people of the world"
    cosine = found(Way(), features)
    add(evidence, f"{name}cosine_", cosine, f"the encoder alone; {about}")
    results = {}
    for label, (way, moved, note) in searches.items():
        results[label] = found(way, moved)
        add(evidence, f"{name}{label}_", results[label], note, ("cosine", cosine))
    pairs = {"generated": "wrong", "both": "neighbors", "both_reranked": "both"}
    for label, before in pairs.items():
        beside = (searches[before][2], results[before])
        for figure, short in (("mAP", "map"), ("rank-1", "rank1")):
            add_ahead(evidence, f"{name}{label}_over_{before}_{short}", results[label], beside, figure)
    far = center_distance(features, who)
    moves = {"neighbors": centralize(features), "generated": right, "both": centralize(right), "wrong": wrong}
    for label, moved in moves.items():
        nearer = far - center_distance(moved, who)
        evidence.add(
            f"{name}{label}_center_distance_less", nearer.mean(), "", n=len(np.unique(who)),
            ci95=bootstrap_ci(nearer, who), against=("distance before", far.mean()),
            note="distance of a feature of length 1 to the mean of its person's, less that of moved ones",
        )  # fmt: skip
    # What is made, by itself: whether it shows who it was made of.
    mean = generated.mean(1)
    alone = evaluate(Way().search(mean[asked], features[~asked]), *sides)
    value, interval = percent(alone.figures()["rank-1"][0], tuple(alone.figures()["rank-1"][1:]))
    evidence.add(
        f"{name}made_rank1", value, "%", n=len(np.unique(who)), ci95=interval,
        note="how often the pictures made of a query, without it, find its person first",
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    from ipse.diffusion import load_base
    from ipse.personalize import open_method

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, required=True, help="the folder of a base of bodies")
    parser.add_argument("--adapter", type=Path, required=True, help="pose2id.safetensors, trained on it")
    parser.add_argument("--people", type=int, default=60, help="of the world")
    parser.add_argument("--start", type=int, default=JUDGED, help="number of the first")
    parser.add_argument("--shots", type=int, default=4, help="pictures of each")
    parser.add_argument("--steps", type=int, default=20, help="of a generated picture")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "ipse-pose2id")
    parser.add_argument("--sheet", type=Path, help="write pictures, each with those generated of it")
    given = parser.parse_args(arguments)
    if given.shots < 2 or given.people <= given.shots or given.people * given.shots <= 20:
        parser.error("there must be two pictures or more of each, more people than that, and more than 20 pictures")

    base = load_base(given.base)
    method = open_method("pose2id", base, adapter=given.adapter, steps=given.steps)
    made = given.cache / f"{method.trained.sha256[:12]}-{base.fingerprint[:12]}-{given.steps}"
    shown = given.cache / f"world-{VERSION}-{given.shots}"
    for folder in (made, shown):
        folder.mkdir(parents=True, exist_ok=True)
    numbers = range(given.start, given.start + given.people)
    pictures, views, spent, count = [], [], 0.0, 0
    for number in track(numbers, description="pictures"):
        own = kept(shown / f"{number}.npy", lambda number=number: np.stack(pictures_of(number, given.shots)))
        for k, picture in enumerate(own):
            path = made / f"{number}-{k}.npy"
            start, fresh = time.process_time(), not path.exists()
            views.append(kept(path, lambda picture=picture: np.stack(method.views(picture))))
            spent, count = (spent + time.process_time() - start, count + len(views[-1])) if fresh else (spent, count)
        pictures += list(own)
    who = np.repeat(np.arange(given.people), given.shots)
    asked = np.arange(len(who)) % given.shots == 0
    if given.sheet:
        height, width = base.size
        rows = [[resize(pictures[i], width, height), *views[i]] for i in np.flatnonzero(asked)[:12]]
        save_png(contact_sheet([image for row in rows for image in row], len(rows[0]), gap=2), given.sheet)

    evidence, console = Evidence("pose2id", seeds=[0]), Console()
    for name, encode in encoders_of(method).items():
        features = encode(pictures)
        generated = generated_features(range(len(views)), views.__getitem__, encode)
        measured(evidence, f"pose2id.{name}.", who, asked, features, generated)
    if count:
        evidence.add(
            "pose2id.seconds_per_picture", spent / count, "s", n=count,
            note=f"processor time of a generated picture, {given.steps} steps",
        )  # fmt: skip
    console.print(f"written: {evidence.write(update=True)}")
    console.print(evidence.summary(), highlight=False)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
