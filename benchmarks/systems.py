"""Measure what four published systems claim, each by small trainings on faces of people who do not exist.

FaceNet, OSNet, LBA-ReID and LNet+ANet: networks of less than a million parameters on chips of 64 or 128 pixels, three
training seeds each, one thread; OSNet on whole bodies, the others on faces. The first eight tenths of the data set's
files are trained on, the next tenth is for choices (thresholds, places of attention, linear classifiers), the last
tenth is judged; all hold other people. A run that is finished is kept in the work folder and not trained again; one
that was stopped goes on.

    ipse world dataset recipes/world/faces.yaml --people 1800 --out faces
    ipse world dataset recipes/world/bodies.yaml --people 600 --shots 4 --start 1000 --out bodies
    python benchmarks/systems.py --data faces --bodies bodies --work work    # everything; two hours on one core
    python benchmarks/systems.py --data faces --work work --only lba osnet
    python benchmarks/systems.py --data faces --work trial --share 0.02   # a trial: few steps, nothing is written
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from ipse._files import atomic_write
from ipse.attributes.lnet_anet import ANet, LNet, LNetANet, cut_squares
from ipse.catalogue import RESULTS
from ipse.encoders.backbones import backbone
from ipse.encoders.trained import TrainedEncoder
from ipse.errors import DataError
from ipse.gallery.cluster import cluster
from ipse.gallery.codes import quantize, restored
from ipse.images import resize
from ipse.measure.clustering import bcubed, bcubed_f
from ipse.measure.distances import Features
from ipse.measure.evidence import Evidence, bootstrap_ci
from ipse.measure.retrieval import Retrieval, evaluate
from ipse.measure.verification import best_threshold
from ipse.training.data import Chips, Cut, pack
from ipse.training.loop import with_steps
from ipse.training.networks import load_network
from ipse.training.placement import SearchLog, latency_increase, search
from ipse.training.recipe import TrainRecipe
from trials import RANKING, add_gain, add_mean, by_seed, measure, trained

Vectors = npt.NDArray[np.float32]

SIDE = 64
"""Of the chips of all but LNet, in pixels."""
FACE = Cut("face_box", (SIDE, SIDE))
WHOLE = Cut("whole", (128, 128), parts=True)
AUGMENT = {"geometry": {"turn": 6.0, "scale": 0.06, "shift": 0.04, "flip": 0.5}}
IRESNET = {"backbone": "iresnet", "depths": [1, 2, 2, 1], "width": 0.25, "stem": 2, "dim": 128, "size": [SIDE, SIDE]}
OSNET = {"backbone": "osnet", "width": 0.25, "neck": "linear_bn", "dim": 128}
BODY = Cut("whole", (128, 64))


# -- data and trainings ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """What the parts are given.

    Attributes
    ----------
    data
        Folders of the files that are trained on, for choices and judged, by these names.
    bodies
        The same of whole bodies, or None.
    work
        Where packs and runs are kept.
    seeds
        Of the trainings.
    share
        Of the steps; below 1 for a trial.
    """

    data: Mapping[str, Path]
    bodies: Mapping[str, Path] | None
    work: Path
    seeds: Sequence[int]
    share: float

    @property
    def folder(self) -> Path:
        """Where runs on these data are kept: other data and other numbers of steps have other folders."""
        names = "\n".join(sorted(path.name for path in (self.data["train"] / "data").iterdir()))
        return self.work / f"{hashlib.sha256(names.encode()).hexdigest()[:8]}-{self.share:g}"

    @property
    def rounds(self) -> int:
        """Of a measurement of latency."""
        return max(2, round(300 * self.share))

    def chips(self, name: str, cut: Cut = FACE) -> Chips:
        """Chips of ``train``, ``choose`` or ``judge``."""
        return pack(self.data[name], cut, self.work / "packs")

    def recipe(self, name: str, seed: int, steps: int, **plan: Any) -> TrainRecipe:
        """A recipe: what all trainings share, and `plan`."""
        common = {
            "data": {"source": str(self.data["train"]), "holdout": 0.0, "group": "look"},
            "cut": {"kind": FACE.kind, "size": list(FACE.size)},
            "batch": {"people": 16, "each": 4},
            "augment": AUGMENT,
            "optimizer": {"rate": 0.002, "warmup": 30, "decay": 0.03},
            "ema": 0.99,
            "save_every": 100,
            "evaluate_every": 10_000,
        }
        recipe = TrainRecipe.from_dict({**common, "name": name, "seed": seed, "steps": steps, **plan})
        return with_steps(recipe, max(2, round(self.share * steps))) if self.share < 1 else recipe

    def train(self, recipe: TrainRecipe) -> Path:
        """The weights of a training, done now unless they are there."""
        name = f"{recipe.name}-{recipe.seed}-{recipe.fingerprint[:8]}"
        return trained(recipe, self.folder / "runs" / name, self.work / "packs")


def split(source: Path, links: Path) -> dict[str, Path]:
    """Link the files of a data set into folders of their own: eight tenths, one and one; each file has other people."""
    files = sorted(source.glob("data/*.parquet"))
    if len(files) < 10:
        raise DataError(f"{source} has {len(files)} files of people; ten at least can be split.", "Render more people.")
    ends = [0, round(0.8 * len(files)), round(0.9 * len(files)), len(files)]
    folders = {}
    for name, start, end in zip(("train", "choose", "judge"), ends, ends[1:], strict=False):
        folders[name] = links / name
        (folders[name] / "data").mkdir(parents=True, exist_ok=True)
        for old in (folders[name] / "data").iterdir():
            old.unlink()
        for path in files[start:end]:
            (folders[name] / "data" / path.name).symlink_to(path.resolve())
    return folders


def images(chips: Chips) -> npt.NDArray[np.uint8]:
    """(N, height, width, 3)."""
    return chips.images(np.arange(len(chips)))


def embeddings(weights: Path, pictures: npt.NDArray[np.uint8]) -> Vectors:
    """(N, D) unit vectors."""
    return TrainedEncoder(weights).encode(pictures)


def raw_pixels(pictures: npt.NDArray[np.uint8]) -> Vectors:
    """(N, 768) unit vectors of thumbnails of 16 × 16 pixels."""
    small = np.stack([resize(picture, 16, 16) for picture in pictures]).reshape(len(pictures), -1).astype(np.float32)
    small -= small.mean(1, keepdims=True)
    return small / np.linalg.norm(small, axis=1, keepdims=True)


# -- figures -----------------------------------------------------------------------------------------------------------


def across_looks(query: Vectors, gallery: Vectors, chips: Chips) -> Retrieval:
    """Every picture looks for its person in other Looks."""
    columns = {name: chips.column(name) for name in ("person", "look")}
    return evaluate(Features(query, gallery), columns, columns, "world-across-looks")


def within_look(vectors: Vectors, chips: Chips) -> Retrieval:
    """Every picture looks for its person in other Shots of the same Look, as cameras of one day do."""
    columns = {name: chips.column(name) for name in ("person", "look", "shot")}
    return evaluate(Features(vectors, vectors), columns, columns, "world-within-look")


def verified(choose: tuple[Vectors, Vectors], judge: tuple[Vectors, Vectors], chips: Mapping[str, Chips]) -> Any:
    """(P,) whether each pair is told rightly, at the threshold of the fewest errors on other people; and whose it is.

    Pairs are all of one person in two Looks, and as many of two people. The first of a pair is embedded as in the first
    of `choose` or `judge`, the second as in the second.
    """
    told = []
    for name, (first, second) in (("choose", choose), ("judge", judge)):
        people, looks = (chips[name].column(column) for column in ("person", "look"))
        a, b = np.nonzero((people[:, None] == people) & (looks[:, None] != looks))
        draw = np.random.default_rng(0)
        other = draw.integers(0, len(people), len(a))
        different = people[a] != people[other]
        distances = [1 - (first[i] * second[j]).sum(1) for i, j in ((a, b), (a[different], other[different]))]
        told.append((*distances, np.concatenate([people[a], people[a[different]]])))
    threshold = best_threshold(*told[0][:2])
    same, others, people = told[1]
    return np.concatenate([same <= threshold, others > threshold]).astype(float), people


def f_measure(rows: npt.NDArray[np.float64]) -> float:
    """F of (N, 2) precision and recall."""
    precision, recall = rows.mean(0)
    return float(2 * precision * recall / (precision + recall))


# -- FaceNet -----------------------------------------------------------------------------------------------------------

FACENET_STEPS = 400
TRIPLET = {"mining": "semi_hard", "margin": 0.2, "normalize": True}


def facenet_run(setting: Setting, name: str, seed: int) -> Path:
    """Weights of a network trained by ``triplet``, by a ``softmax`` behind it as a bottleneck, or by ``harmonic``."""
    plan: dict[str, Any] = {"network": IRESNET, "batch": {"people": 24, "each": 4}}
    plan["losses"] = {"triplet": TRIPLET} if name == "triplet" else {name: {}}
    if name == "harmonic":
        # The one before it is the triplet network of the same number; it itself starts from other weights.
        plan["earlier"] = str(facenet_run(setting, "triplet", seed))
        seed += 100
    return setting.train(setting.recipe(f"facenet-{name}", seed, FACENET_STEPS, **plan))


def measure_facenet(setting: Setting, evidence: Evidence) -> None:
    """Triplets against a bottleneck and pixels, codes, clusters, and galleries of an earlier network."""
    chips = {name: setting.chips(name) for name in ("choose", "judge")}
    pictures = {name: images(chips[name]) for name in chips}
    seeds = setting.seeds
    found: dict[tuple[str, int], dict[str, Vectors]] = {}
    for seed in seeds:
        for kind in ("triplet", "softmax", "harmonic"):
            weights = facenet_run(setting, kind, seed)
            found[kind, seed] = {name: embeddings(weights, pictures[name]) for name in chips}
        found["codes", seed] = {n: restored(quantize(v)) for n, v in found["triplet", seed].items()}
        found["pixels", seed] = {name: raw_pixels(pictures[name]) for name in chips}

    verification: dict[str, list[Any]] = {}
    rank1: dict[str, list[Any]] = {}

    def judge(name: str, first: dict[str, Vectors], second: dict[str, Vectors]) -> tuple[Any, Any]:
        right, of_pairs = verified((first["choose"], second["choose"]), (first["judge"], second["judge"]), chips)
        retrieval = across_looks(first["judge"], second["judge"], chips["judge"])
        verification.setdefault(name, []).append(right)
        rank1.setdefault(name, []).append(retrieval.values()["rank-1"])
        return of_pairs, retrieval.person

    for i, seed in enumerate(seeds):
        for kind in ("triplet", "softmax", "codes", "pixels", "harmonic"):
            own = found[kind, seed]
            of_pairs, people = judge(kind, own, own)
        judge("harmonic_to_v1", found["harmonic", seed], found["triplet", seed])
        alone = seeds[(i + 1) % len(seeds)]
        if alone != seed:
            judge("alone_to_v1", found["triplet", alone], found["triplet", seed])

    network = f"{parameters(IRESNET) / 1e6:.2f} M parameters, 128 numbers, {FACENET_STEPS} steps of 96 pictures"
    for figure, values, whose in (("verification", verification, of_pairs), ("rank1", rank1, people)):
        for kind in ("triplet", "softmax", "pixels", "harmonic", "harmonic_to_v1", "alone_to_v1"):
            if kind in values:
                add_mean(evidence, f"systems.facenet.{figure}_{kind}", values[kind], whose, note=network)
        for label in ("softmax", "pixels"):
            add_gain(
                evidence, f"systems.facenet.{figure}_gain_over_{label}", values["triplet"], values[label], whose, label
            )
        add_gain(
            evidence,
            f"systems.facenet.{figure}_change_by_codes",
            values["codes"],
            values["triplet"],
            whose,
            "128 floats",
            "128 bytes a face against 512",
        )
        if "alone_to_v1" in values:
            add_gain(
                evidence,
                f"systems.facenet.{figure}_gain_of_harmonic_to_v1",
                values["harmonic_to_v1"],
                values["alone_to_v1"],
                whose,
                "trained alone",
                "pictures embedded by the new network, galleries by the earlier one",
            )
    measure_clusters(setting, evidence, found, chips)


def measure_clusters(
    setting: Setting,
    evidence: Evidence,
    found: Mapping[tuple[str, int], dict[str, Vectors]],
    chips: Mapping[str, Chips],
) -> None:
    """B-cubed F of average linkage, its distance chosen on other people."""
    people = {name: chips[name].column("person") for name in chips}
    rows: dict[str, list[npt.NDArray[np.float64]]] = {}
    for kind in ("triplet", "softmax", "pixels"):
        for seed in setting.seeds:
            vectors = found[kind, seed]
            scores = {
                near: bcubed_f(people["choose"], cluster(vectors["choose"], near=near, metric="cosine")).f
                for near in np.linspace(0.1, 0.85, 16)
            }
            near = max(scores, key=scores.__getitem__)
            groups = cluster(vectors["judge"], near=near, metric="cosine")
            rows.setdefault(kind, []).append(bcubed(people["judge"], groups))
    for kind, runs in rows.items():
        evidence.add(
            f"systems.facenet.bcubed_{kind}",
            100 * float(np.mean([f_measure(run) for run in runs])),
            "%",
            n=len(np.unique(people["judge"])),
            ci95=percent(bootstrap_ci(np.stack(runs, 2), people["judge"], n=500, statistic=mean_f)),
            note=by_seed(100 * np.array([f_measure(run) for run in runs])),
        )
    for label in ("softmax", "pixels"):
        both = np.concatenate([np.stack(rows["triplet"], 2), np.stack(rows[label], 2)], 1)
        evidence.add(
            f"systems.facenet.bcubed_gain_over_{label}",
            100 * (mean_f(both[:, :2]) - mean_f(both[:, 2:])),
            "points",
            n=len(np.unique(people["judge"])),
            ci95=percent(
                bootstrap_ci(both, people["judge"], n=500, statistic=lambda r: mean_f(r[:, :2]) - mean_f(r[:, 2:]))
            ),
            against=(label, 100 * mean_f(both[:, 2:])),
        )


def mean_f(rows: npt.NDArray[np.float64]) -> float:
    """Mean over seeds of the F of (N, 2, S) precision and recall."""
    return float(np.mean([f_measure(rows[:, :, i]) for i in range(rows.shape[2])]))


def percent(interval: tuple[float, float]) -> tuple[float, float]:
    """An interval in per cent."""
    return 100 * interval[0], 100 * interval[1]


def parameters(network: Mapping[str, Any]) -> int:
    """How many a recipe's network has."""
    options = dict(network)
    return sum(p.numel() for p in backbone(options.pop("backbone"), **options).parameters())


# -- OSNet -------------------------------------------------------------------------------------------------------------

OSNET_STEPS = 400
OSNET_PLAN: dict[str, Any] = {
    "cut": {"kind": BODY.kind, "size": list(BODY.size)},
    "losses": {"softmax": {"smoothing": 0.1}, "triplet": {"mining": "batch_hard", "margin": 0.3}},
}
"""As the paper trains: a softmax with smoothed labels, here beside triplets, for people in one Look."""


def equally_large(network: Mapping[str, Any], size: int) -> dict[str, Any]:
    """The network with the width at which it has as many parameters, but for what rounding to channels leaves."""
    low, high = 0.1, 1.0
    while high - low > 0.004:
        middle = (low + high) / 2
        low, high = (middle, high) if parameters({**network, "width": middle}) < size else (low, middle)
    return {**network, "width": round(high, 3)}


def another_kind(pictures: npt.NDArray[np.uint8], chips: Chips) -> npt.NDArray[np.uint8]:
    """Pictures as other cameras would have them: each Shot has a tint, a gamma and a contrast of its own."""
    out = np.empty_like(pictures)
    for i, (person, look, shot) in enumerate(zip(*(chips.column(n) for n in ("person", "look", "shot")), strict=True)):
        draw = np.random.default_rng([int(person), int(look), int(shot)])
        changed = (pictures[i] / 255) ** np.exp(draw.uniform(-0.6, 0.6)) * draw.uniform(0.7, 1.3, 3)
        out[i] = np.clip(255 * (0.5 + draw.uniform(0.4, 1.0) * (changed - 0.5)), 0, 255)
    return out


def measure_osnet(setting: Setting, evidence: Evidence) -> None:
    """Streams and gate against a sum and one scale of equal size, and instance norm on pictures of another kind."""
    size = parameters(OSNET)
    networks = {
        "gate": OSNET,
        "sum": equally_large({**OSNET, "gate": False}, size),
        "single": equally_large({**OSNET, "streams": 1, "gate": False}, size),
        "ain": {**OSNET, "backbone": "osnet_ain"},
    }
    if setting.bodies is None:
        raise DataError("OSNet is measured on whole bodies.", "Name some by --bodies; see --help.")
    setting = replace(setting, data=setting.bodies)
    chips = setting.chips("judge", BODY)
    plain = images(chips)
    pictures = {"map": plain, "map_other_kind": another_kind(plain, chips)}
    values: dict[tuple[str, str], list[Any]] = {}
    for name, network in networks.items():
        for seed in setting.seeds:
            data = {"source": str(setting.data["train"]), "holdout": 0.0, "group": "look", "label": "look"}
            recipe = setting.recipe(f"osnet-{name}", seed, OSNET_STEPS, network=network, data=data, **OSNET_PLAN)
            weights = setting.train(recipe)
            for kind, seen in pictures.items():
                vectors = embeddings(weights, seen)
                retrieval = within_look(vectors, chips)
                values.setdefault((kind, name), []).append(retrieval.values()["mAP"])
    people = retrieval.person
    for (kind, name), runs in values.items():
        note = f"{parameters(networks[name]):,} parameters, width {networks[name]['width']}, {OSNET_STEPS} steps of 64"
        add_mean(evidence, f"systems.osnet.{kind}_{name}", runs, people, note=note)
    for name in ("sum", "single"):
        add_gain(
            evidence,
            f"systems.osnet.gain_over_{name}",
            values["map", "gate"],
            values["map", name],
            people,
            f"mAP of {name}",
        )
    add_gain(
        evidence,
        "systems.osnet.gain_of_instance_norm_on_another_kind",
        values["map_other_kind", "ain"],
        values["map_other_kind", "gate"],
        people,
        "batch norm",
        "tint, gamma and contrast that no training picture had",
    )


# -- LBA-ReID ----------------------------------------------------------------------------------------------------------

LBA_SEARCH_STEPS, LBA_STEPS = 150, 600
LBA_BUDGET = 0.05
HEAVY = "nonlocal"


def measure_lba(setting: Setting, evidence: Evidence) -> None:
    """Search the slots, then train what was chosen, the plain network and a heavy block from every seed."""
    options = {key: value for key, value in IRESNET.items() if key != "backbone"}
    pixels = torch.zeros(16, 3, SIDE, SIDE)

    def build(placement: Mapping[str, str]) -> Any:
        return backbone("iresnet", **options, attention=dict(placement))

    def weights(placement: Mapping[str, str], seed: int, steps: int) -> Path:
        name = "-".join(["lba", *(f"{slot}.{kind}" for slot, kind in placement.items())])
        network = {**IRESNET, "attention": dict(placement)} if placement else IRESNET
        return setting.train(setting.recipe(name, seed, steps, network=network, losses=RANKING))

    def found(name: str, path: Path) -> Retrieval:
        chips = setting.chips(name)
        vectors = embeddings(path, images(chips))
        return across_looks(vectors, vectors, chips)

    kept = setting.folder / "lba-search.json"
    if not kept.exists():
        log = search(
            build,
            # A seed of its own: what chance gave this once is not to be judged again.
            lambda placement: found("choose", weights(placement, 1000, LBA_SEARCH_STEPS)).mean_ap(),
            pixels,
            budget=LBA_BUDGET,
            rounds=setting.rounds,
            on_trial=lambda trial: print(trial, flush=True),
        )
        log.save(kept)
    log = SearchLog.load(kept)
    if setting.share == 1:
        (RESULTS / "systems-lba-search.md").write_text(f"{log}\n")
    chosen = log.chosen
    slots = chosen or {"stage2": HEAVY}
    placements = {"plain": {}, "chosen": chosen, "heavy": dict.fromkeys(slots, HEAVY)}
    runs = {
        name: [found("judge", weights(placement, seed, LBA_STEPS)) for seed in setting.seeds]
        for name, placement in placements.items()
    }
    people = runs["plain"][0].person
    maps = {name: [run.values()["mAP"] for run in mine] for name, mine in runs.items()}
    told = ", ".join(f"{kind} behind {slot}" for slot, kind in chosen.items()) or "no attention"
    trials = len(log.trials)
    evidence.add("systems.lba.trials", trials, "placements", n=trials, note=f"chosen: {told}; systems-lba-search.md")
    for name in placements:
        add_mean(evidence, f"systems.lba.map_{name}", maps[name], people, note=f"{LBA_STEPS} steps of 64 pictures")
        if name != "plain":
            evidence.add(
                f"systems.lba.latency_{name}",
                100 * latency_increase(build(placements[name]), build({}), pixels, setting.rounds),
                "%",
                n=setting.rounds,
                against=("budget", 100 * LBA_BUDGET),
                note="more than the plain network; batches of 16, one thread's processor time, median of these rounds",
            )
    add_gain(evidence, "systems.lba.gain_over_plain", maps["chosen"], maps["plain"], people, "plain", told)
    add_gain(evidence, "systems.lba.gain_over_heavy", maps["chosen"], maps["heavy"], people, HEAVY, told)


# -- LNet+ANet ---------------------------------------------------------------------------------------------------------

LNET_STEPS, LNET_FINE_STEPS, OBJECTS_STEPS = 200, 120, 300
TAGS: dict[str, Callable[[Mapping[str, str]], bool | None]] = {
    "male": lambda facts: facts["gender"] == "male" if "gender" in facts else None,
    "child": lambda facts: facts["age_group"] == "child" if "age_group" in facts else None,
    "elder": lambda facts: facts["age_group"] == "elder" if "age_group" in facts else None,
    "dark_skin": lambda facts: facts["skin_tone"] == "dark" if "skin_tone" in facts else None,
    "light_skin": lambda facts: facts["skin_tone"] == "light" if "skin_tone" in facts else None,
    "long_hair": lambda facts: facts["hair_length"] == "long" if "hair_length" in facts else None,
    "black_hair": lambda facts: facts["hair_color"] == "black" if "hair_color" in facts else None,
    "gray_hair": lambda facts: facts["hair_color"] == "gray" if "hair_color" in facts else None,
    "beard": lambda facts: facts["beard"] != "none" if "beard" in facts else None,
    "glasses": lambda facts: facts["glasses"] != "none" if "glasses" in facts else None,
    "hat": lambda facts: facts["hat"] != "none" if "hat" in facts else None,
    "smile": lambda facts: facts["expression"] in ("smile", "big_smile") if "expression" in facts else None,
    "lipstick": lambda facts: "lipstick" in facts,
}
"""Tags of a picture by the names of ours; None where it does not show."""
LABELED = 100
"""Faces that linear classifiers learn from."""
EMPTY = 0.15
"""Share of scenes without anybody."""
TAGGED = "train-00000.parquet"
"""File of tagged pictures within a folder of data."""


def true_boxes(chips: Chips) -> npt.NDArray[np.float64]:
    """(N, 4) boxes around the landmarks, edges of pixels at whole numbers."""
    dense = chips.column("dense").astype(np.float64) + 0.5
    return np.concatenate([dense.min(1), dense.max(1)], 1)


def tags_of(chips: Chips) -> dict[str, npt.NDArray[np.float64]]:
    """By tag, (N,) 1, 0 or NaN."""
    facts = [json.loads(text) for text in chips.column("facts")]
    return {
        name: np.array([np.nan if (value := tell(known)) is None else float(value) for known in facts])
        for name, tell in TAGS.items()
    }


def scenes_of(chips: Chips, parts: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64]) -> tuple[Any, Any]:
    """(n, 128, 128, 3) pictures of the people of some rows, anywhere, at any size, before a corner of another picture.

    With them come (n, 4) boxes of the faces, NaN for the share of the scenes that is left empty.
    """
    pictures, boxes = chips.images(rows), true_boxes(chips)[rows]
    # A corner without anybody, as most portraits have one.
    corners = [i for i in range(len(rows)) if not parts[i, :40, :40].any()]
    out, moved = np.empty_like(pictures), np.full((len(rows), 4), np.nan)
    for i, (person, look, shot) in enumerate(
        zip(*(chips.column(n)[rows] for n in ("person", "look", "shot")), strict=True)
    ):
        draw = np.random.default_rng([int(person), int(look), int(shot)])
        scene = resize(np.ascontiguousarray(pictures[draw.choice(corners), :40, :40]), 128, 128)
        if draw.random() >= EMPTY:
            side = round(128 * draw.uniform(0.4, 0.9))
            # The face is inside, other parts of the person may be cut off.
            scale = side / 128
            box = boxes[i].clip(0, 128) * scale
            left, top = (draw.integers(math.ceil(-box[k]), math.floor(128 - box[k + 2]) + 1) for k in (0, 1))
            small = resize(pictures[i], side, side)
            cover = np.asarray(Image.fromarray((parts[i] > 0).astype(np.uint8) * 255).resize((side, side))) / 255
            y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + side, 128), min(left + side, 128)
            inside = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
            share = cover[inside][..., None]
            scene = scene.copy()
            scene[y0:y1, x0:x1] = share * small[inside] + (1 - share) * scene[y0:y1, x0:x1]
            moved[i] = box + np.array([left, top, left, top])
        out[i] = scene
    return out, moved


def write_tagged(folder: Path, pictures: npt.NDArray[np.uint8], tags: Mapping[str, Any]) -> None:
    """Write pictures and tags as data for a training."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    rows = []
    for i, picture in enumerate(pictures):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        rows.append({"image": {"bytes": file.getvalue()}, "person": i} | {n: bool(v[i]) for n, v in tags.items()})
    with atomic_write(folder / "data" / TAGGED) as file:
        pq.write_table(pa.Table.from_pylist(rows), file)


def tag_recipe(setting: Setting, name: str, source: Path, seed: int, steps: int) -> TrainRecipe:
    """A network that learns tags of pictures of 128 pixels."""
    return setting.recipe(
        name,
        seed,
        steps,
        task="attributes",
        data={"source": str(source), "holdout": 0.0},
        cut={"kind": "whole", "size": [128, 128]},
        batch={"size": 32},
        network={**OSNET, "neck": "none"},
        targets={tag: {"column": tag, "classes": ["no", "yes"]} for tag in TAGS},
    )


def overlaps(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N,) intersection over union of boxes."""
    shared = (np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])).clip(0).prod(1)
    return shared / ((a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared)


@dataclass(frozen=True)
class Scenes:
    """Scenes of one part of the data.

    Attributes
    ----------
    pictures, boxes, tags, people
        See `scenes_of`; tags are 0 where nobody is there, or NaN.
    """

    pictures: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float64]
    tags: dict[str, npt.NDArray[np.float64]]
    people: npt.NDArray[np.int64]

    @property
    def filled(self) -> npt.NDArray[np.bool_]:
        """(N,) whether somebody is there."""
        return ~np.isnan(self.boxes[:, 0])

    @classmethod
    def of(cls, setting: Setting, name: str) -> Scenes:
        """Those of ``train``, ``choose`` or ``judge``: one for the first Shot of every Look."""
        chips = setting.chips(name, WHOLE)
        _, rows = np.unique(np.stack([chips.column("person"), chips.column("look")]), axis=1, return_index=True)
        pictures, boxes = scenes_of(chips, chips.parts(rows), rows)
        tags = {tag: values[rows] for tag, values in tags_of(chips).items()}
        return cls(pictures, boxes, tags, chips.column("person")[rows])


def lnet(setting: Setting, scenes: Scenes, seed: int) -> LNet:
    """Both networks, trained on tags: the fine one on what the coarse one finds."""
    folder = setting.folder / "scenes"
    # A tag that does not show is as good as absent: it is what somebody would write beside the picture.
    tags = {tag: np.nan_to_num(values) * scenes.filled for tag, values in scenes.tags.items()}
    if not (folder / "coarse" / "data" / TAGGED).exists():
        write_tagged(folder / "coarse", scenes.pictures, tags)
    weights = setting.train(tag_recipe(setting, "lnet-coarse", folder / "coarse", seed, LNET_STEPS))
    coarse = load_network(weights)[0]
    faces, backgrounds = (list(scenes.pictures[mask][:1000]) for mask in (scenes.filled, ~scenes.filled))
    first = LNet([coarse.trunk], 128).fit(faces, backgrounds)
    fine_folder = folder / f"fine-{seed}"
    if not (fine_folder / "data" / TAGGED).exists():
        boxes, _ = first.locate(list(scenes.pictures))
        write_tagged(fine_folder, cut_squares(list(scenes.pictures), boxes, 128, 0.3), tags)
    # Both are pretrained in the paper, too: the fine one begins with what the coarse one learned.
    recipe = replace(tag_recipe(setting, "lnet-fine", fine_folder, seed, LNET_FINE_STEPS), start=str(weights))
    fine = load_network(setting.train(recipe))[0]
    return LNet([coarse.trunk, fine.trunk], 128).fit(faces, backgrounds)


def balanced(scores: Mapping[str, Any], truth: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """(N,) what each face adds to the mean over attributes of balanced accuracy: their mean is that figure."""
    total = np.zeros(len(next(iter(truth.values()))))
    for name, values in truth.items():
        for side in (0.0, 1.0):
            mine = values == side
            total[mine] += ((scores[name][mine] > 0) == side) / (2 * mine.sum() * len(truth))
    return total * len(total)


def usable(*parts: Mapping[str, npt.NDArray[np.float64]]) -> list[str]:
    """Tags of which every part has ten faces of both kinds."""
    return [tag for tag in TAGS if all(min((part[tag] == 0).sum(), (part[tag] == 1).sum()) >= 10 for part in parts)]


def measure_lnet(setting: Setting, evidence: Evidence) -> None:
    """Boxes from tags, and attributes from few labels by features of identity, of other things and of chance."""
    scenes = {name: Scenes.of(setting, name) for name in ("train", "choose", "judge")}
    judged = scenes["judge"]
    filled = judged.filled
    boxes, people = judged.boxes[filled], judged.people[filled]
    pictures = list(judged.pictures[filled])
    mean_box = np.nanmean(scenes["train"].boxes, 0, keepdims=True)
    chance = np.stack([overlaps(boxes, np.roll(boxes, turn, 0)) for turn in range(1, 21)]).mean(0)
    found: dict[str, list[Any]] = {"coarse": [], "fine": []}
    parted, systems = [], {}
    for seed in setting.seeds:
        both = lnet(setting, scenes["train"], seed)
        systems[seed] = both
        found["fine"].append(overlaps(both.locate(pictures)[0], boxes))
        found["coarse"].append(overlaps(both.locate(pictures, looks=1)[0], boxes))
        scores = both.locate(list(judged.pictures))[1]
        parted.append((scores > 0) == filled)
    note = f"scenes of 128 pixels; two OSNets of {parameters({**OSNET, 'neck': 'none'}) / 1e6:.2f} M parameters"
    for name, runs in found.items():
        add_mean(evidence, f"systems.lnet.iou_{name}", runs, people, note=note)
    add_mean(evidence, "systems.lnet.iou_above_half", np.array(found["fine"]) >= 0.5, people, note=note)
    add_mean(
        evidence,
        "systems.lnet.faces_told_from_backgrounds",
        parted,
        judged.people,
        note="scenes with and without anybody",
    )
    for label, theirs in (("chance", chance), ("mean_box", overlaps(boxes, np.broadcast_to(mean_box, boxes.shape)))):
        add_gain(
            evidence,
            f"systems.lnet.iou_gain_over_{label}",
            found["fine"],
            [theirs] * len(setting.seeds),
            people,
            {"chance": "boxes of other pictures", "mean_box": "the mean box of the training"}[label],
        )
    measure_anet(setting, evidence)
    measure_whole(setting, evidence, scenes, systems)


def measure_anet(setting: Setting, evidence: Evidence) -> None:
    """Linear classifiers from few labels on three kinds of features, all at the true boxes."""
    chips = {name: setting.chips(name, WHOLE) for name in ("choose", "judge")}
    truth = {name: tags_of(chips[name]) for name in chips}
    people = chips["judge"].column("person")
    values: dict[str, list[Any]] = {}
    kinds = sorted(set(setting.chips("train", WHOLE).column("background")))
    objects = {"background": {"column": "background", "classes": kinds}}
    for seed in setting.seeds:
        plan = {"network": IRESNET, "task": "attributes", "batch": {"size": 96}, "targets": objects}
        plan["cut"] = {"kind": "whole", "size": [SIDE, SIDE]}
        of_objects = setting.train(setting.recipe("anet-objects", seed, OBJECTS_STEPS, **plan))
        torch.manual_seed(seed)
        networks = {
            "identity": load_network(facenet_run(setting, "softmax", seed))[0],
            "objects": load_network(of_objects)[0].trunk,
            "random": backbone("iresnet", **{k: v for k, v in IRESNET.items() if k != "backbone"}).eval(),
        }
        draw = np.random.default_rng(seed)
        chosen = draw.choice(len(chips["choose"]), LABELED, replace=False)
        few = {tag: v[chosen] for tag, v in truth["choose"].items()}
        # With a hundred labels a rare attribute has a handful of faces at least.
        names = [tag for tag in usable(truth["judge"]) if min((few[tag] == 0).sum(), (few[tag] == 1).sum()) >= 3]
        for kind, network in networks.items():
            anet = ANet(lambda seen, network=network: embedded(network, seen), SIDE)
            told = [
                anet.features(list(part.images(rows)), true_boxes(part)[rows])
                for part, rows in ((chips["choose"], chosen), (chips["judge"], np.arange(len(people))))
            ]
            scores = anet.fit(told[0], {tag: few[tag] for tag in names}).scores(told[1])
            values.setdefault(kind, []).append(balanced(scores, {tag: truth["judge"][tag] for tag in names}))
    note = f"mean over {len(names)} attributes ({', '.join(names)}), {LABELED} labeled faces, true boxes"
    for kind, runs in values.items():
        add_mean(evidence, f"systems.lnet.attributes_{kind}", runs, people, note=note)
    for label in ("objects", "random"):
        add_gain(
            evidence,
            f"systems.lnet.attributes_gain_over_{label}",
            values["identity"],
            values[label],
            people,
            label,
            note,
        )


def measure_whole(
    setting: Setting, evidence: Evidence, scenes: Mapping[str, Scenes], systems: Mapping[int, LNet]
) -> None:
    """Attributes in scenes, the face found by LNet, against those at the true boxes."""
    filled = {name: scenes[name].filled for name in ("choose", "judge")}
    pictures = {name: list(scenes[name].pictures[mask]) for name, mask in filled.items()}
    truth = {name: {t: v[mask] for t, v in scenes[name].tags.items()} for name, mask in filled.items()}
    boxes = {name: scenes[name].boxes[mask] for name, mask in filled.items()}
    names = usable(*truth.values())
    labels, wanted = ({tag: truth[name][tag] for tag in names} for name in ("choose", "judge"))
    values: dict[str, list[Any]] = {"located": [], "true_boxes": []}
    for seed, located in systems.items():
        network = load_network(facenet_run(setting, "softmax", seed))[0]
        anet = ANet(lambda seen, network=network: embedded(network, seen), SIDE)
        system = LNetANet(located, anet).fit(pictures["choose"], labels)
        values["located"].append(balanced(system.scores(pictures["judge"])[1], wanted))
        told = {name: anet.features(pictures[name], boxes[name]) for name in pictures}
        values["true_boxes"].append(balanced(anet.fit(told["choose"], labels).scores(told["judge"]), wanted))
    people = scenes["judge"].people[filled["judge"]]
    note = f"mean balanced accuracy over {len(names)} attributes, {len(boxes['choose'])} labeled scenes"
    for kind, runs in values.items():
        add_mean(evidence, f"systems.lnet.scenes_{kind}", runs, people, note=note)


def embedded(network: torch.nn.Module, pictures: npt.NDArray[np.uint8]) -> Vectors:
    """(N, D) unit vectors of chips, by a network of these recipes."""
    out = []
    with torch.inference_mode():
        for start in range(0, len(pictures), 128):
            pixels = torch.from_numpy(pictures[start : start + 128]).permute(0, 3, 1, 2).float()
            out.append(torch.nn.functional.normalize(network((pixels - 127.5) / 127.5)))
    return torch.cat(out).numpy()


PARTS: dict[str, Callable[[Setting, Evidence], None]] = {
    "facenet": measure_facenet,
    "osnet": measure_osnet,
    "lba": measure_lba,
    "lnet": measure_lnet,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a data set of recipes/world/faces.yaml")
    parser.add_argument("--bodies", type=Path, help="a data set of recipes/world/bodies.yaml, for OSNet")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "ipse-systems")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="some parts; the figures of the others are kept")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each kind")
    parser.add_argument("--share", type=float, default=1.0, help="of the steps; below 1 nothing is written")
    args = parser.parse_args()
    torch.set_num_threads(1)
    bodies = split(args.bodies, args.work / "bodies") if args.bodies else None
    setting = Setting(split(args.data, args.work / "data"), bodies, args.work, range(args.seeds), args.share)
    evidence = Evidence("systems", seeds=range(args.seeds))
    measure(PARTS, args.only or PARTS, setting, evidence, whole=args.share == 1)


if __name__ == "__main__":
    main()
