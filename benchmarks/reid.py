"""Measure what is done at search time, without training: better orders, templates of several vectors, small codes.

Market-1501 val is cut as in benchmarks/encoders.py, and what a query must not see is the same. The encoder is the one
that recipes/encoders/market1501.yaml trains. Parameters are those of the papers; what they leave open is chosen on the
people of Market-1501 train that the run held out, asked among all of train, or on world people from number 700,000 on.

ablation: cosine, the mirror image, centralization, k-reciprocal re-ranking, expansion, FAIM; each alone, all that is
counted as training-free together, and that without each.
muvera: a picture as the eight places of its last feature map, a person seen by a camera as those of all pictures;
MUVERA beside all vectors against all, and their means.
compress: five kinds of codes at equal size, learned on Market-1501 train.
world: couples of world people from number 800,000 on, whom nothing was tuned to, in each other's clothes: FAIM with and
without pictures that bridge, and search under conditions.

    python benchmarks/reid.py --shared data --market-run runs/market1501          # everything
    python benchmarks/reid.py --only world                                        # one part; the other figures stay
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from encoders import Market, check_market_run, encode_bodies, percent
from ipse._files import atomic_write
from ipse.encoders import AveragedEncoder, DlibFaceEncoder
from ipse.encoders.stripes import hsv_stripes
from ipse.encoders.trained import TrainedEncoder
from ipse.faces import Face, align
from ipse.faces.quality import assess
from ipse.gallery.centralize import center_distance, centralize
from ipse.gallery.compress import CODECS, codec
from ipse.gallery.conditional import Boundary, Conditional, Space, Wanted
from ipse.gallery.faim import bridge
from ipse.gallery.multivector import Chamfer, VectorSets
from ipse.gallery.muvera import FixedDimensionalEncoding, MuveraSearch
from ipse.gallery.reid import WAYS, Way
from ipse.images import read_image, resize
from ipse.measure import Evidence, Features, Ignore, Protocol, Retrieval, bootstrap_ci, compare, evaluate
from ipse.measure.datasets import first_of_each, open_dataset
from ipse.measure.distances import DistanceSource
from ipse.measure.protocols import columns_of
from ipse.world import VERSION, look, person, render, shot

CHOSEN, JUDGED = 700_000, 800_000


@dataclass(frozen=True)
class Setting:
    """What the parts are given.

    Attributes
    ----------
    cache
        Folder of features and rendered pictures.
    couples
        Of world people that are measured.
    shared, market_run
        Folders, or None.
    """

    cache: Path
    couples: int
    shared: Path | None
    market_run: Path | None


# -- Market-1501 -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """A split of Market-1501 with its features.

    Attributes
    ----------
    columns
        Person and camera of N pictures.
    query, gallery
        Their rows.
    plain, mirrored
        (N, D) of the encoder, and averaged with those of the mirror image.
    places
        (N, P, C) float16: the encoder's last feature map, place by place.
    """

    columns: Mapping[str, np.ndarray]
    query: np.ndarray
    gallery: np.ndarray
    plain: np.ndarray
    mirrored: np.ndarray
    places: np.ndarray

    def sides(self) -> list[dict[str, np.ndarray]]:
        """Columns of queries and of the gallery."""
        return [{name: column[rows] for name, column in self.columns.items()} for rows in (self.query, self.gallery)]

    def split(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features of queries and of the gallery."""
        return features[self.query], features[self.gallery]

    def evaluate(self, distances: DistanceSource) -> Retrieval:
        """As `encoders.Market.evaluate`, for any distances."""
        return evaluate(distances, *self.sides(), "market1501")


def open_market(setting: Setting, split: str) -> Seen:
    """A split with its features, computed once.

    The queries of train are the first picture of each camera of people whom the run held out; its gallery is the rest
    of all pictures.
    """
    assert setting.shared and setting.market_run
    record = json.loads((setting.market_run / "record.json").read_text())
    encoder = TrainedEncoder(setting.market_run / record["weights"])
    path = setting.cache / f"market-{encoder.fingerprint[:12]}-{split}.npz"
    records = list(open_dataset("market1501", setting.shared / "market1501").records(split))
    if not path.exists():
        images = [read_image(each.image) for each in records]
        made = {
            "plain": encode_bodies(encoder, images, split),
            "mirrored": encode_bodies(AveragedEncoder(encoder), images, f"{split}, mirrored"),
            "places": feature_maps(encoder, images, f"{split}, feature maps"),
        }
        with atomic_write(path) as file:
            np.savez(file, **made)
    with np.load(path) as file:
        made = dict(file)
    columns = columns_of(records, "camera")
    query, gallery = first_of_each(records, "camera")
    if split == "train":
        # The people that `ipse.training` holds out: the last ones by number.
        held_out = np.unique(columns["person"])[-record["judged_people"] :]
        query = query[np.isin(columns["person"][query], held_out)]
    return Seen(columns, query, gallery, **made)


def feature_maps(encoder: TrainedEncoder, images: Sequence[np.ndarray], what: str) -> np.ndarray:
    """(N, P, C) float16: the last feature map before pooling, place by place."""
    import torch

    module, chip, out = encoder.torch_module(), encoder.chip, []
    for start in track(range(0, len(images), 32), description=what):
        pixels = np.stack([resize(image, chip.width, chip.height) for image in images[start : start + 32]])
        with torch.inference_mode():
            x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() - module.mean) / module.std
            found = module.network.feature_map(x)
        out.append(found.flatten(2).transpose(1, 2).numpy().astype(np.float16))
    return np.concatenate(out)


def add(
    evidence: Evidence, name: str, result: Retrieval, note: str, beside: tuple[str, Retrieval] | None = None
) -> None:
    """Add mAP and rank-1 of a search; and, beside another of the same queries, by how much it is ahead in both."""
    figures, people = result.figures(), len(np.unique(result.person))
    for short, figure in (("map", "mAP"), ("rank1", "rank-1")):
        value, *interval = figures[figure]
        value, interval = percent(value, tuple(interval))
        against = (beside[0], 100 * beside[1].figures()[figure][0]) if beside else None
        evidence.add(f"{name}{short}", value, "%", n=people, ci95=interval, against=against, note=note)
        if beside:
            add_ahead(evidence, f"{name}{short}_ahead", result, beside, figure)


def add_ahead(
    evidence: Evidence, name: str, result: Retrieval, beside: tuple[str, Retrieval], figure: str = "mAP", note: str = ""
) -> None:
    """Add by how many points one search is ahead of another, with the interval paired by query."""
    ahead, interval = percent(*compare(result, beside[1], figure))
    evidence.add(
        name, ahead, "points", n=len(np.unique(result.person)), ci95=interval,
        note="; ".join(filter(None, [f"{figure}, ahead of {beside[0]}, paired by query", note])),
    )  # fmt: skip


# -- order -------------------------------------------------------------------------------------------------------------


def searched(seen: Seen, way: Way) -> DistanceSource:
    """Distances of a search with some of what needs no training."""
    return way.search(*seen.split(seen.mirrored if way.mirror else seen.plain))


def ablation(evidence: Evidence, setting: Setting) -> None:
    """Add the figures of each method alone, of all together, and of all but one."""
    val, train = open_market(setting, "val"), open_market(setting, "train")
    asked = f"{len(val.query)} queries against {len(val.gallery)} pictures of Market-1501 val"
    cosine = val.evaluate(searched(val, WAYS["cosine"]))
    add(evidence, "reid.cosine_", cosine, f"the encoder alone; {asked}")
    beside = ("cosine", cosine)

    choices = [(n, alpha) for n in (2, 5, 10) for alpha in (0.0, 3.0)]
    held_out = {choice: train.evaluate(searched(train, Way(expanded=choice))).mean_ap() for choice in choices}
    n, alpha = best = max(held_out, key=held_out.__getitem__)
    alone: dict[str, tuple[Way, str]] = {
        "mirror": (WAYS["mirror"], "averaged with the mirror image"),
        "pose2id": (WAYS["pose2id"], "k1 = k2 = 2 as published, queries and gallery together"),
        "kreciprocal": (WAYS["kreciprocal"], "k1 20, k2 6, λ 0.3 as published"),
        "expansion": (
            Way(expanded=best),
            f"of gallery, then queries, by {n} neighbors weighing cosine^{alpha:g}: the best of 2, 5, 10 neighbors and "
            f"powers 0, 3 on {len(train.query)} queries of people held out of training",
        ),
    }
    for name, (way, note) in alone.items():
        add(evidence, f"reid.{name}.", val.evaluate(searched(val, way)), note, beside)
    ours, theirs = val.split(val.plain)
    assert setting.shared
    colors = hsv_stripes(Market.open(setting.shared).images)
    bridged = bridge(ours, theirs, *val.split(colors), k=3)
    add(
        evidence, "reid.faim_market.", val.evaluate(Features(bridged.query, bridged.gallery)),
        "clothes do not change here; 3 intermediaries by colors of stripes, feasibility of queries "
        f"{bridged.query_feasibility.mean():.2f}", beside,
    )  # fmt: skip

    parts = {"mirror": True, "centralized": True, "reranked": True}
    everything = val.evaluate(searched(val, Way(**parts)))
    add(
        evidence, "reid.training_free_", everything,
        f"mirror image, centralization, k-reciprocal re-ranking, with published parameters; {asked}", beside,
    )  # fmt: skip
    steps = [{}, {"mirror": True}, {"mirror": True, "centralized": True}, parts]
    results = [val.evaluate(searched(val, Way(**step))) for step in steps]
    names = {"mirror": "mirror", "centralized": "pose2id", "reranked": "kreciprocal"}
    for part, (before, after) in zip(parts, pairwise(results), strict=True):
        add_ahead(
            evidence, f"reid.{names[part]}.added", after, ("the steps before", before),
            note="in the order mirror image, centralization, re-ranking",
        )  # fmt: skip
        less = val.evaluate(searched(val, Way(**{**parts, part: False})))
        add_ahead(evidence, f"reid.{names[part]}.part", everything, ("all three without it", less))
    with_expansion = val.evaluate(searched(val, Way(**parts, expanded=best)))
    add_ahead(
        evidence, "reid.expansion.part", with_expansion, ("all three", everything), note="expansion added to all three"
    )
    apart = val.evaluate(Features(*(centralize(side) for side in val.split(val.plain))))
    add(evidence, "reid.pose2id.apart_", apart, "queries and gallery apart, as the published evaluation has it", beside)
    both = np.concatenate([val.query, val.gallery])
    who, features = val.columns["person"][both], val.plain[both]
    nearer = center_distance(features, who) - center_distance(centralize(features), who)
    evidence.add(
        "reid.pose2id.center_distance_less", nearer.mean(), "", n=len(np.unique(who)), ci95=bootstrap_ci(nearer, who),
        against=("distance before", center_distance(features, who).mean()),
        note="distance of a feature of length 1 to the mean of its person's, less that of centralized ones",
    )  # fmt: skip
    add_ahead(
        evidence, "reid.pose2id.claim", val.evaluate(searched(val, WAYS["pose2id"])), beside,
        note="centralization alone; generated pictures, the method's other half, are not measured",
    )  # fmt: skip


# -- templates of several vectors --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """A search among templates of several vectors, under Market's protocol.

    Attributes
    ----------
    about
        What a template of the gallery is.
    query, gallery
        Templates.
    columns
        Of queries and gallery.
    encoding
        Of MUVERA.
    share
        Of the gallery that is compared exactly.
    """

    about: str
    query: VectorSets
    gallery: VectorSets
    columns: Sequence[Mapping[str, np.ndarray]]
    encoding: FixedDimensionalEncoding
    share: float


def scenes(val: Seen, middle: np.ndarray) -> dict[str, Scene]:
    """Templates of all pictures of a person by a camera, and of one picture each.

    Numbers of the encodings and shares were chosen on people held out of training, for a tenth of the cost. Places of
    maps lie around a mean far from the origin, where hyperplanes would part little; so a mean is taken off.
    """
    places = val.places.astype(np.float32) - middle
    mine, theirs = val.split(places)
    ours, pictures = val.sides()
    each = mine.shape[1]
    whose = pictures["person"] * 10 + pictures["camera"].astype(int)
    walks, names = VectorSets.grouped(theirs.reshape(-1, theirs.shape[2]), np.repeat(whose, each))
    groups = {"person": names // 10, "camera": (names % 10).astype(pictures["camera"].dtype)}
    query, dim = VectorSets.of(list(mine)), mine.shape[2]
    return {
        "": Scene(
            "all pictures of a person by a camera", query, walks, (ours, groups),
            FixedDimensionalEncoding(dim, bits=2, repetitions=40, inner=None, final=1200), 0.055,
        ),
        "pictures_": Scene(
            "one picture", query, VectorSets.of(list(theirs)), (ours, pictures),
            FixedDimensionalEncoding(dim, bits=2, repetitions=20, inner=None, final=500), 0.045,
        ),
    }  # fmt: skip


def muvera(evidence: Evidence, setting: Setting) -> None:
    """Add how much of a search by all vectors MUVERA keeps, and what it costs."""
    val = open_market(setting, "val")
    middle = open_market(setting, "train").places.mean(axis=(0, 1), dtype=np.float32)
    for short, scene in scenes(val, middle).items():
        name, query, gallery, code = f"reid.muvera.{short}", scene.query, scene.gallery, scene.encoding
        candidates = round(scene.share * len(gallery))
        sources = {
            "brute": Chamfer(query, gallery),
            "single": Features(query.means(), gallery.means()),
            "muvera": MuveraSearch(query, gallery, code, candidates),
        }
        timed: dict[str, tuple[Retrieval, float]] = {}
        for method, source in sources.items():
            start = time.process_time()
            result = evaluate(source, *scene.columns, "market1501")
            timed[method] = result, time.process_time() - start
        exact, found = timed["brute"][0], timed["muvera"][0]
        every = (
            f"all vectors against all, {query.sizes.mean():.0f} and {gallery.sizes.mean():.1f} of {code.dim} numbers"
        )
        templates = f"a template of the gallery is {scene.about}: {len(gallery)} of them, {len(query)} queries"
        add(evidence, f"{name}brute_", exact, f"{every}; {templates}")
        add(evidence, f"{name}single_", timed["single"][0], f"their means; {templates}", ("all against all", exact))
        add(
            evidence, name, found,
            f"encodings of {code.size} numbers, {code.bits} hyperplanes, {code.repetitions} repetitions, the best "
            f"{candidates} compared exactly; the rest of the order, which mAP counts, is that of the encodings",
            ("all against all", exact),
        )  # fmt: skip
        for k in (1, 5, 10):
            hits, theirs = (np.where(result.first <= k, 1.0, 0.0) for result in (found, exact))
            value, interval = percent((hits - theirs).mean(), bootstrap_ci(hits - theirs, found.person))
            evidence.add(
                f"{name}recall{k}_ahead", value, "points", n=len(np.unique(found.person)), ci95=interval,
                note=f"share of queries with their person among the {k} nearest, ahead of all against all, which has "
                f"{100 * theirs.mean():.1f} %; paired",
            )  # fmt: skip
        ours, theirs = sources["muvera"].multiplications(), query.sizes.mean() * len(gallery.vectors) * code.dim
        evidence.add(
            f"{name}cost", ours / theirs, "", n=len(query), against=("goal", 0.1),
            note="multiplications of a query, its encoding and exact comparisons included, over all against all",
        )  # fmt: skip
        evidence.add(
            f"{name}seconds_ratio", timed["muvera"][1] / timed["brute"][1], "", n=len(query),
            note="processor time of asking and evaluating over that of all against all: "
            f"{timed['muvera'][1]:.2f} and {timed['brute'][1]:.2f} s of one thread",
        )  # fmt: skip
        if not short:
            add_ahead(
                evidence, "reid.muvera.claim", found, ("all against all", exact), "rank-1",
                note="within 2 points at a tenth of the cost is what is asked",
            )  # fmt: skip


# -- codes -------------------------------------------------------------------------------------------------------------

SIZES, SEEDS = (8, 16, 32, 64), (0, 1, 2)


def compress(evidence: Evidence, setting: Setting) -> None:
    """Add mAP and rank-1 of codes by kind and size."""
    val, train = open_market(setting, "val"), open_market(setting, "train")
    query, gallery = val.split(val.plain)
    full = val.evaluate(Features(query, gallery))
    stable = []
    for size in track(SIZES, description="codes"):
        orders = []
        results: dict[str, list[Retrieval]] = {}
        for kind in CODECS:
            if kind == "binary" and 8 * size > query.shape[1]:
                continue  # a sign for every number is all that there is
            for seed in SEEDS:
                code = codec(kind, size, seed).fit(train.plain)
                kept = code.encode(gallery)
                assert kept.dtype == np.uint8 and kept.shape == (len(gallery), size)
                results.setdefault(kind, []).append(val.evaluate(Features(query, code.decode(kept))))
        for kind, found in results.items():
            add(
                evidence, f"reid.compress.{kind}_{size}.", found[0],
                f"{size} bytes in place of {query.shape[1] * 4}, learned on Market-1501 train; by seed "
                f"{', '.join(f'{100 * each.mean_ap():.2f}' for each in found)} % mAP",
                ("full vectors", full),
            )  # fmt: skip
        for seed in range(len(SEEDS)):
            orders.append(sorted(results, key=lambda kind: results[kind][seed].mean_ap(), reverse=True))
        stable.append(all(order == orders[0] for order in orders))
        evidence.add(
            f"reid.compress.best_{size}", 100 * max(found[0].mean_ap() for found in results.values()), "%",
            n=len(np.unique(full.person)), against=("full vectors", 100 * full.mean_ap()),
            note=f"mAP of the best at {size} bytes; {' > '.join(orders[0])}, "
            f"{'the same' if stable[-1] else 'not the same'} for {len(SEEDS)} seeds",
        )  # fmt: skip
    evidence.add(
        "reid.compress.claim", sum(stable), "budgets", n=len(SIZES), against=("all", len(SIZES)),
        note=f"at which the order of the kinds by mAP is the same for {len(SEEDS)} seeds; every code kept to its size",
    )  # fmt: skip


# -- people who share their clothes ------------------------------------------------------------------------------------

CLOTHES = ("top", "bottom", "outer", "dress", "scarf", "shoes")
SHOTS, SIDE, FAR = 4, 160, 32


def couple(first: int) -> Iterator[tuple[int, int, int, np.ndarray, np.ndarray]]:
    """Pictures of two people, each in the clothes of two days of the first: person, clothes, shot, picture, points."""
    plain = {"mask": None, "hat": None}
    wardrobe = [look(day, person(first), fix=plain) for day in range(2)]
    for number in (first, first + 1):
        who = person(number)
        for day, clothes in enumerate(wardrobe):
            worn = look(day, who, fix=plain).replace(**{name: getattr(clothes, name) for name in CLOTHES})
            if worn.glasses is not None and worn.glasses.style == "sunglasses":
                worn = worn.replace(glasses=None)
            for k in range(SHOTS):
                turned = {"head.yaw": (-80, 80)}
                taken = shot((number * 2 + day) * SHOTS + k, "bust", ranges=turned, fix={"occluder": None})
                picture = render(who, worn, taken, "bust", size=SIDE)
                yield number, first + day, k, picture.image, picture.truth.five - 0.5


@cache
def _faces() -> DlibFaceEncoder:
    return DlibFaceEncoder(threads=1)


def seen_couple(first: int, folder: Path) -> dict[str, np.ndarray]:
    """The pictures of a couple with their features, made once.

    Every second Shot of the first person's first day is from far away, `FAR` pixels in all; other second Shots are
    left out.
    """
    pictures = folder / f"couples-{VERSION}" / f"{first}.npz"
    if not pictures.exists():
        names = ("person", "clothes", "shot", "images", "five")
        made = dict(zip(names, map(np.stack, zip(*couple(first), strict=True)), strict=True))
        with atomic_write(pictures) as file:
            np.savez_compressed(file, **made)
    path = folder / f"couples-{VERSION}-seen" / f"{first}.npz"
    if not path.exists():
        with np.load(pictures) as file:
            made = dict(file)
        far = made["shot"] % 2 == 1
        keep = ~far | ((made["person"] == first) & (made["clothes"] == first))
        images = made.pop("images")
        faces, colors, quality = [], [], []
        for row in np.flatnonzero(keep):
            image = images[row]
            if far[row]:
                image = resize(resize(image, FAR, FAR), SIDE, SIDE)
            found = Face((0, 0, SIDE, SIDE), 1.0, made["five"][row], "arcface5")
            faces.append(_faces().encode(align(image, [found], _faces().chip.template))[0])
            quality.append(assess(image, [found])[0].overall)
            colors.append(hsv_stripes([image[SIDE // 2 :, SIDE // 4 : -SIDE // 4]], 2, (16, 4, 2))[0])
        told = {name: made[name][keep] for name in ("person", "clothes", "shot")}
        with atomic_write(path) as file:
            np.savez(file, **told, far=far[keep], face=faces, colors=colors, quality=quality)
    with np.load(path) as file:
        return dict(file)


def seen_couples(start: int, count: int, folder: Path) -> dict[str, np.ndarray]:
    """The pictures of `count` couples side by side."""
    numbers = track(range(start, start + 2 * count, 2), description=f"couples from {start:,}")
    found = [seen_couple(first, folder) for first in numbers]
    return {name: np.concatenate([each[name] for each in found]) for name in found[0]}


def world(evidence: Evidence, setting: Setting) -> None:
    """Add FAIM and search under conditions, on people who share their clothes."""
    seen = seen_couples(JUDGED, setting.couples, setting.cache)
    chosen = seen_couples(CHOSEN, 15, setting.cache)
    # Faces of dlib's network lie around a mean far from the origin, which would hide what cosines tell.
    middle = chosen["face"].mean(axis=0)
    for each in (seen, chosen):
        each["face"] = each["face"] - middle
    faim(evidence, seen)
    conditions(evidence, seen, chosen)


def faim(evidence: Evidence, seen: Mapping[str, np.ndarray]) -> None:
    """Add FAIM with bridging pictures and without."""
    columns = {"person": seen["person"], "look": seen["clothes"]}
    query, near = np.flatnonzero(seen["far"]), np.flatnonzero(~seen["far"])
    worn = set(zip(seen["person"][query].tolist(), seen["clothes"][query].tolist(), strict=True))
    bridges = np.array([(seen["person"][row], seen["clothes"][row]) in worn for row in near])
    scenes = {"": (near, "two pictures of each query's person in the same clothes are in the gallery"), "unbridged_": (
        near[~bridges], "nobody but the other person of the couple wears the query's clothes in the gallery"
    )}  # fmt: skip
    feasible = {}
    for scene, (gallery, about) in scenes.items():
        sides = [{name: column[rows] for name, column in columns.items()} for rows in (query, gallery)]
        identity = seen["face"][query], seen["face"][gallery]
        looks = seen["colors"][query], seen["colors"][gallery]

        def asked(ours: np.ndarray, theirs: np.ndarray, sides: Sequence[Any] = sides) -> Retrieval:
            return evaluate(Features(ours, theirs), *sides, "world-across-looks")

        plain = asked(*identity)
        note = f"queries from far away, {FAR} pixels, answers in other clothes; {about}"
        add(evidence, f"reid.faim.{scene}identity_", plain, f"features of faces alone; {note}")
        variants: dict[str, tuple[str, dict[str, Any]]] = {
            "": ("reliability is agreement", {}),
            "quality_": ("reliability is the quality of the face", {"reliability": seen["quality"][gallery]}),
            "unweighted_": ("intermediaries count in full", {"weighted": False}),
        }
        for variant, (how, options) in variants.items():
            found = bridge(*identity, *looks, k=3, **options)
            feasible[scene, variant] = found.query_feasibility
            add(
                evidence, f"reid.faim.{scene}{variant}", asked(found.query, found.gallery),
                f"3 intermediaries by colors, {how}; mean feasibility of queries {found.query_feasibility.mean():.3f}",
                ("features of faces alone", plain),
            )  # fmt: skip
            if not scene and not variant:
                add_ahead(evidence, "reid.faim.claim", asked(found.query, found.gallery), ("features of faces", plain))
    fall = feasible["", ""] - feasible["unbridged_", ""]
    evidence.add(
        "reid.faim.feasibility_fall", fall.mean(), "", n=len(np.unique(seen["person"][query])),
        ci95=bootstrap_ci(fall, seen["person"][query]), against=("with bridges", feasible["", ""].mean()),
        note="mean feasibility of queries with bridging pictures in the gallery, less that without",
    )  # fmt: skip


def conditions(evidence: Evidence, seen: Mapping[str, np.ndarray], chosen: Mapping[str, np.ndarray]) -> None:
    """Add search under two conditions."""
    names = {"person": "face", "clothes": "colors"}
    boundaries = {name: Boundary.fit(*pairs(chosen, chosen[key], name)) for name, key in names.items()}
    near = np.flatnonzero(~seen["far"])
    who, clothes = seen["person"][near], seen["clothes"][near]
    spaces = {name: Space(Features(seen[key][near], seen[key][near]), boundaries[name]) for name, key in names.items()}
    average = Conditional(spaces, {"person": "same", "clothes": "same"})
    # Clothes are numbered from the couple's even number on, as its people are: the other one of two differs in one bit.
    questions: dict[str, tuple[dict[str, Wanted], tuple[np.ndarray, np.ndarray]]] = {
        "other_clothes": ({"person": "same", "clothes": "other"}, (who, clothes ^ 1)),
        "other_person": ({"person": "other", "clothes": "same"}, (who ^ 1, clothes)),
    }
    once = Protocol("genecis", "One gallery, a condition with every query.", (Ignore(same=("image",)),))
    images = np.arange(len(near))
    gallery = {"person": [f"{w} in {c}" for w, c in zip(who, clothes, strict=True)], "image": images}
    for question, (wanted, target) in questions.items():
        query = {"person": [f"{w} in {c}" for w, c in zip(*target, strict=True)], "image": images}
        found = evaluate(Conditional(spaces, wanted), query, gallery, once)
        others = {
            "features of faces alone": evaluate(spaces["person"].distances, query, gallery, once),
            "colors alone": evaluate(spaces["clothes"].distances, query, gallery, once),
            "both alike": evaluate(average, query, gallery, once),
        }
        best = max(others, key=lambda name: others[name].rank(1))
        told = ", ".join(f"{name} {100 * result.rank(1):.1f}" for name, result in others.items())
        add(
            evidence, f"reid.genecis.{question}_", found,
            f"same and other likelihoods learned on people from {CHOSEN:,} on; pictures of the same person in the same "
            f"clothes are in the gallery and wrong; rank-1 of others: {told} %",
            (best, others[best]),
        )  # fmt: skip


def pairs(seen: Mapping[str, np.ndarray], features: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Distances of pairs of near pictures that are the same, and that are not."""
    near = ~seen["far"]
    distances = Features(features[near], features[near]).rows(0, int(near.sum()))
    alike = seen[name][near][:, None] == seen[name][near]
    above = np.triu(np.ones_like(alike), 1)
    return distances[alike & above], distances[~alike & above]


PARTS = {"ablation": ablation, "muvera": muvera, "compress": compress, "world": world}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(PARTS), nargs="+", help="these parts; other figures stay")
    parser.add_argument("--shared", type=Path, help="the folder of real photographs")
    parser.add_argument("--market-run", type=Path, help="the folder of a training on Market-1501")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "ipse-reid")
    parser.add_argument("--couples", type=int, default=40, help="of world people")
    given = vars(parser.parse_args(arguments))
    only = given.pop("only")
    setting = Setting(**given)
    real = bool(setting.shared and setting.market_run)
    if not real and set(only or PARTS) - {"world"}:
        parser.error("Market-1501 needs --shared and --market-run; --only world does without")
    if real:
        check_market_run(json.loads((setting.market_run / "record.json").read_text()), setting.shared)
    setting.cache.mkdir(parents=True, exist_ok=True)
    evidence, console = Evidence("reid", seeds=[0]), Console()
    for name, part in PARTS.items():
        if name in (only or PARTS):
            part(evidence, setting)
            # After each part, so that a run cut short keeps what it has.
            console.print(f"{name} written: {evidence.write(update=True)}")
    console.print(evidence.summary(), highlight=False)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
