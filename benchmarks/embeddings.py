"""Measure what is known of an embedding without training it: its rank, its translation, its words, its graph.

Market-1501 val and what a query must not see are those of benchmarks/encoders.py; whatever is learned or chosen comes
from Market-1501 train, or from world people before number 700,000.

rankme: runs of one recipe that differ in losses, ranked by RankMe on pictures of train and by mAP on val; networks that
learn from the same pictures without labels, ranked in the same way; and other encoders beside them.
relreps: a gallery of one encoder searched by another, by shared anchors and directly.
sesa: world people by named dimensions, beside dense ones and attributes alone; --faces names what
`ipse world dataset recipes/world/faces.yaml --start 600000 --people 400 --shots 2` wrote. People that face-world, whose
features it learns from, was trained on are refused.
fastrp: embeddings of nodes beside DeepWalk, on a graph with planted communities and on the neighbor graph of val.
irwe: roles and places of nodes, planted and on that graph, also of nodes that come later.

    python benchmarks/embeddings.py --shared data --market-run runs/market1501 --faces faces    # everything
    python benchmarks/embeddings.py --only rankme --shared data --market-run runs/market1501    # one part
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

import reid
from encoders import check_market_run, percent
from ipse._files import atomic_write
from ipse.attributes.sesa import explicit_space
from ipse.encoders import ShippedEncoder
from ipse.encoders.stripes import hsv_stripes
from ipse.errors import DataError
from ipse.faces import Face, align
from ipse.gallery.fastrp import fastrp as embed_nodes
from ipse.gallery.fastrp import projection
from ipse.gallery.graph import nearest_graph, random_walks
from ipse.gallery.irwe import Irwe
from ipse.gallery.relative import relative
from ipse.images import read_image, resize
from ipse.measure import Evidence, Features, Retrieval, bootstrap_ci, evaluate, rankme
from ipse.measure.datasets import open_dataset
from ipse.measure.verification import all_pairs

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Setting(reid.Setting):
    """What the parts are given.

    Attributes
    ----------
    faces
        A data set of world people whom face-world does not know, to learn from, or None.
    """

    faces: Path | None


# -- RankMe ------------------------------------------------------------------------------------------------------------

#: Losses of the runs, by the names and options of `ipse.training.losses`; all else is the same.
FAMILY: dict[str, dict[str, dict[str, Any]]] = {
    "softmax": {"softmax": {}},
    "cosface 4": {"margin": {"margin": "cosface", "size": 0.15, "scale": 4.0}},
    "cosface 20": {"margin": {"margin": "cosface", "size": 0.15, "scale": 20.0}},
    "cosface 64": {"margin": {"margin": "cosface", "size": 0.15, "scale": 64.0}},
    "supcon 0.03": {"supcon": {"temperature": 0.03}},
    "supcon 0.1": {"supcon": {"temperature": 0.1}},
    "supcon 0.3": {"supcon": {"temperature": 0.3}},
    "supcon 1": {"supcon": {"temperature": 1.0}},
    "triplet, hardest": {"triplet": {"mining": "batch_hard"}},
    "triplet, all": {"triplet": {"mining": "batch_all"}},
    "circle": {"circle": {}},
    "cosface 20 and supcon 0.1": {
        "margin": {"margin": "cosface", "size": 0.15, "scale": 20.0},
        "supcon": {"temperature": 0.1, "weight": 0.5},
    },
}
DIM, STEPS, SAMPLE = 128, 200, 2000

#: Runs without labels, from noise: SimCLR (Chen et al. 2020) by its temperature and its highest learning rate; all else
#: is the same. One method, for the paper compares no others.
LABEL_FREE: dict[str, tuple[float, float]] = {
    f"temperature {temperature:g}, rate {rate:g}": (temperature, rate)
    for temperature in (0.03, 0.07, 0.15, 0.3, 0.6, 1.2)
    for rate in (2e-3, 5e-4)
}
SMALL, VIEWED, FREE_STEPS = (64, 32), 64, 400
"""Height and width of the pictures that they see, pictures in a batch, each in two views, and steps."""
VIEWS: dict[str, dict[str, Any]] = {
    "geometry": {"turn": 8.0, "scale": 0.25, "shift": 0.1, "flip": 0.5},
    "color": {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.05},
    "gray": {"p": 0.1},
    "blur": {},
    "erase": {},
}


def head(
    losses: Mapping[str, Any], batches: Sequence[np.ndarray], train: reid.Seen, val: reid.Seen
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of both splits by a layer that is learned anew, on the last feature map of the supervised encoder."""
    import torch

    from ipse.training.losses import SumOfLosses

    def inputs(seen: reid.Seen) -> torch.Tensor:
        return torch.from_numpy((flat(seen) - middle) / spread)

    flat_train = flat(train)
    middle, spread = flat_train.mean(axis=0), flat_train.std()
    _, labels = np.unique(train.columns["person"], return_inverse=True)
    torch.manual_seed(0)
    layer = torch.nn.Linear(flat_train.shape[1], DIM)
    loss = SumOfLosses(losses, DIM, int(labels.max()) + 1)
    optimizer = torch.optim.AdamW([*layer.parameters(), *loss.parameters()], lr=2e-3, weight_decay=1e-3)
    pictures, who = inputs(train), torch.from_numpy(labels)
    for batch in batches:
        rows = torch.from_numpy(batch)
        total, _ = loss(layer(pictures[rows]), who[rows])
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    with torch.inference_mode():
        return layer(pictures).numpy(), layer(inputs(val)).numpy()


def label_free(name: str, pictures: Mapping[str, np.ndarray], cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of both splits by a small network that learned from two views of pictures of train; trained once.

    Parameters
    ----------
    name
        Of `LABEL_FREE`.
    pictures
        (N, H, W, 3) uint8 of ``train`` and of ``val``.
    cache
        Where embeddings are kept, under a name that stands for all settings and pictures.
    """
    import torch

    from ipse.encoders.backbones import backbone
    from ipse.training.augment import Augmentation
    from ipse.training.losses import SupervisedContrastive
    from ipse.training.samplers import ShuffledSampler
    from trials import digest

    temperature, rate = LABEL_FREE[name]
    seed = 0
    plan = {"name": "iresnet", "depths": [1, 2, 3, 2], "width": 0.25, "stem": 1, "dim": DIM, "size": list(SMALL)}
    known = digest(seed, plan, temperature, rate, FREE_STEPS, VIEWED, VIEWS, pictures["train"], pictures["val"])
    path = cache / f"label-free-{known[:16]}.npz"
    if not path.exists():
        torch.manual_seed(seed)
        network = backbone(**plan)
        # SimCLR's loss is that of supervised contrast where every picture is a class of its own, of two views.
        views, contrast = Augmentation(VIEWS), SupervisedContrastive(temperature)
        optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=FREE_STEPS, pct_start=0.1)
        sampler, twice = ShuffledSampler(len(pictures["train"]), VIEWED), torch.arange(VIEWED).repeat(2)

        def pixels(rows: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(rows).permute(0, 3, 1, 2).float() / 255

        network.train()
        for step in range(FREE_STEPS):
            torch.manual_seed(step)
            seen = pixels(pictures["train"][sampler.batch(step)])
            loss = contrast(network(2 * torch.cat([views(seen)[0], views(seen)[0]]) - 1), twice)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        network.eval()
        found = {}
        with torch.inference_mode():
            for split, rows in pictures.items():
                parts = [network(2 * pixels(rows[start : start + 256]) - 1) for start in range(0, len(rows), 256)]
                found[split] = torch.cat(parts).numpy()
        with atomic_write(path) as file:
            np.savez(file, **found)
    with np.load(path) as file:
        return file["train"], file["val"]


def flat(seen: reid.Seen) -> np.ndarray:
    """(N, P · C) float32 feature maps."""
    return seen.places.reshape(len(seen.places), -1).astype(np.float32)


def others(setting: Setting, train: reid.Seen, val: reid.Seen) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Encoders that are no runs of the recipe: features of train, and of val."""
    # Turned to its principal axes, so that what is cut off is what varies least.
    middle = train.plain.mean(axis=0)
    axes = np.linalg.eigh(np.cov(train.plain.T))[1][:, ::-1]
    found = {
        "the supervised encoder": (train.plain, val.plain),
        "mirrored": (train.mirrored, val.mirrored),
        "its map": (flat(train), flat(val)),
    }
    for size in (8, 64):
        found[f"{size} components"] = tuple((seen.plain - middle) @ axes[:, :size] for seen in (train, val))
    colors = setting.cache / "colors.npz"
    if not colors.exists():
        with atomic_write(colors) as file:
            np.savez(file, **{split: hsv_stripes(market_images(setting, split)) for split in ("train", "val")})
    with np.load(colors) as file:
        found["colors of stripes"] = file["train"], file["val"]
    return found


def market_images(setting: Setting, split: str, every: bool = False) -> list[np.ndarray]:
    """The pictures of Market-1501 val, or `SAMPLE` of train, evenly of all; `every` one of train, too, if wanted."""
    assert setting.shared
    records = list(open_dataset("market1501", setting.shared / "market1501").records(split))
    if split == "train" and not every:
        records = [records[row] for row in np.linspace(0, len(records) - 1, SAMPLE).astype(int)]
    return [read_image(each.image) for each in records]


def spearman(ranks: np.ndarray, scores: np.ndarray) -> float:
    """Spearman's correlation; 0 where one of the two is the same throughout."""
    from scipy.stats import rankdata

    x, y = (rankdata(values) - (len(values) + 1) / 2 for values in (ranks, scores))
    length = np.linalg.norm(x) * np.linalg.norm(y)
    return float(x @ y / length) if length else 0.0


def spearman_ci(ranks: np.ndarray, results: Sequence[Retrieval], draws: int = 1000) -> tuple[float, float]:
    """The 95 % interval of Spearman's correlation with mAP, over encoders and people, which are drawn together."""
    draw = np.random.default_rng(0)
    values = np.stack([result.precisions["market"] for result in results])
    _, who = np.unique(results[0].person, return_inverse=True)
    sums = np.stack([np.bincount(who, row) for row in values])
    sizes, found = np.bincount(who), []
    for _ in range(draws):
        times = draw.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)))
        chosen = draw.integers(0, len(ranks), len(ranks))
        found.append(spearman(ranks[chosen], (sums @ times / (sizes @ times))[chosen]))
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def add_spearman(
    evidence: Evidence, name: str, ranks: Mapping[str, float], results: Mapping[str, Retrieval], note: str
) -> None:
    """Add how well two orders agree, with both in the note."""
    mine, theirs = np.array(list(ranks.values())), np.array([results[key].mean_ap() for key in ranks])
    told = "; ".join(f"{key} {ranks[key]:.1f}, {100 * results[key].mean_ap():.1f} %" for key in ranks)
    evidence.add(
        name, spearman(mine, theirs), n=len(ranks), ci95=spearman_ci(mine, [results[key] for key in ranks]),
        note=f"{note}; interval over encoders and people; RankMe and mAP: {told}",
    )  # fmt: skip


def rank(evidence: Evidence, setting: Setting) -> None:
    """Add the agreement of RankMe on unlabeled training pictures with mAP on val."""
    from ipse.training.samplers import IdentitySampler

    train, val = (reid.open_market(setting, split) for split in ("train", "val"))
    _, labels = np.unique(train.columns["person"], return_inverse=True)
    sampler = IdentitySampler(labels, 32, 4, train.columns["camera"], alone="drop")
    # The same for all, and slower to draw than to learn from.
    batches = [sampler.batch(step) for step in range(STEPS)]
    family = {name: head(losses, batches, train, val) for name, losses in FAMILY.items()}
    small = {
        split: np.stack([resize(image, SMALL[1], SMALL[0]) for image in market_images(setting, split, every=True)])
        for split in ("train", "val")
    }
    free = {
        name: label_free(name, small, setting.cache)
        for name in track(LABEL_FREE, description="learning without labels")
    }
    every = family | others(setting, train, val)
    results = {name: val.evaluate(Features(*val.split(features[1]))) for name, features in (every | free).items()}
    ranks = {name: rankme(features[0]) for name, features in (every | free).items()}
    about = f"RankMe on {len(train.plain)} pictures of Market-1501 train without labels, mAP on val; training seed 0"
    kinds = {
        "": (
            family,
            f"{len(family)} runs of one recipe with other losses: a layer to {DIM} numbers on the supervised encoder's "
            f"last feature map, {STEPS} steps",
        ),
        "label_free_": (
            free,
            f"{len(free)} runs of SimCLR, which takes no labels, with other temperatures and rates: a network for "
            f"{SMALL[0]} × {SMALL[1]} pixels and {DIM} numbers from noise, {FREE_STEPS} steps of {VIEWED} pictures in "
            "two views",
        ),
    }
    for kind, (runs, note) in kinds.items():
        ours = {name: ranks[name] for name in runs}
        add_spearman(evidence, f"reid.rankme.{kind}spearman", ours, results, f"{note}; {about}")
        pick, best = max(ours, key=ours.__getitem__), max(ours, key=lambda name: results[name].mean_ap())
        value, interval = percent(results[pick].mean_ap(), results[pick].figures()["mAP"][1:])
        evidence.add(
            f"reid.rankme.{kind}picked_map", value, "%", n=len(np.unique(results[pick].person)), ci95=interval,
            against=(f"the best run, {best}", 100 * results[best].mean_ap()),
            note=f"mAP of the run that RankMe picks, {pick}; the mean run has "
            f"{100 * np.mean([results[name].mean_ap() for name in ours]):.1f} %; {note}; {about}",
        )  # fmt: skip
    add_spearman(
        evidence, "reid.rankme.spearman_any_encoder", {name: ranks[name] for name in every}, results,
        f"the runs and other encoders, which the paper advises against; {about}; colors on {SAMPLE} pictures",
    )  # fmt: skip


# -- relative representations ------------------------------------------------------------------------------------------


# Couples whose pictures are the anchors.
ANCHORED = 15


def face_features(start: int, count: int, folder: Path) -> dict[str, np.ndarray]:
    """Near pictures of couples by two encoders of faces: who, clothes, and (N, D) of ``dlib`` and ``face-world``."""
    seen = reid.seen_couples(start, count, folder)
    near = ~seen["far"]
    path = folder / f"face-world-{reid.VERSION}-{start}-{count}.npy"
    if not path.exists():
        encoder, made = ShippedEncoder("face-world", threads=1), []
        for first in range(start, start + 2 * count, 2):
            with np.load(folder / f"couples-{reid.VERSION}" / f"{first}.npz") as file:
                pictures = dict(file)
            for row in np.flatnonzero(pictures["shot"] % 2 == 0):
                face = Face((0, 0, reid.SIDE, reid.SIDE), 1.0, pictures["five"][row], "arcface5")
                made.append(align(pictures["images"][row], [face], encoder.chip.template)[0])
        with atomic_write(path) as file:
            np.save(file, encoder.encode(made))
    return {
        "person": seen["person"][near], "look": seen["clothes"][near], "dlib": seen["face"][near],
        "face-world": np.load(path),
    }  # fmt: skip


def direct(query: np.ndarray, gallery: np.ndarray) -> Features:
    """Features of two encoders compared as they are; of unequal length, the longer ones are cut."""
    dim = min(query.shape[1], gallery.shape[1])
    return Features(query[:, :dim], gallery[:, :dim])


def relreps(evidence: Evidence, setting: Setting) -> None:
    """Add searches of world people in clothes of another day, between dlib's network and face-world."""
    seen = face_features(reid.JUDGED, setting.couples, setting.cache)
    anchors = face_features(reid.CHOSEN, ANCHORED, setting.cache)
    # Clothes are numbered from the couple's even number on: the first day's are even.
    query, gallery = (np.flatnonzero(seen["look"] % 2 == day) for day in (0, 1))
    columns = [{"person": seen["person"][rows]} for rows in (query, gallery)]
    about = (
        f"queries by face-world, gallery by dlib's network: {len(query)} pictures of {2 * setting.couples} world "
        f"people against {len(gallery)} in clothes of another day; {len(anchors['person'])} anchors of other people"
    )
    asked, held = "face-world", "dlib"

    def coded(name: str, rows: np.ndarray, center: bool) -> np.ndarray:
        return relative(seen[name][rows], anchors[name], center=center)

    searches = {
        "across": Features(coded(asked, query, True), coded(held, gallery, True)),
        "across_plain": Features(coded(asked, query, False), coded(held, gallery, False)),
        "direct": direct(seen[asked][query], seen[held][gallery]),
        "within_face_world": Features(seen[asked][query], seen[asked][gallery]),
        "within_dlib": Features(seen[held][query], seen[held][gallery]),
    }
    notes = {
        "across": "codes from the anchors' mean, for dlib's faces all lie to one side of the origin",
        "across_plain": "codes as in the paper",
        "direct": "features as they are, the longer ones cut",
        "within_face_world": "both sides by face-world",
        "within_dlib": "both sides by dlib's network",
    }
    found = {key: evaluate(source, *columns) for key, source in searches.items()}
    people = [side["person"] for side in columns]
    for key, source in searches.items():
        beside = ("within dlib's network", found["within_dlib"]) if key == "across" else None
        reid.add(evidence, f"reid.relreps.{key}_", found[key], f"{notes[key]}; {about}", beside)
        evidence.add(
            f"reid.relreps.{key}_eer", 100 * all_pairs(source, *people).eer(), "%", n=len(np.unique(people[0])),
            note="equal error rate of all pairs of a query and a picture of the gallery",
        )  # fmt: skip
    reid.add_ahead(evidence, "reid.relreps.ahead_of_direct", found["across"], ("direct", found["direct"]), "rank-1")
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(seen[held].shape[1],) * 2))[0]
    plain, turned = (relative(seen[held] @ by, anchors[held] @ by) for by in (np.eye(len(turn)), turn))
    evidence.add(
        "reid.relreps.rotation_error", np.abs(turned - plain).max(), n=len(plain),
        note="largest change of a code where the space of dlib's network is turned by chance, in float32",
    )  # fmt: skip


# -- named dimensions --------------------------------------------------------------------------------------------------

DIMENSIONS = 48
#: People of the data that face-world was made with, those that it was judged on among them, as its recipe begins:
#: ``ipse world dataset recipes/world/faces.yaml``; its record counts 1900 and 100.
BEGUN_WITH = range(1000, 3000)


def check_fresh(people: np.ndarray) -> None:
    """Raise a `DataError` if dimensions would be learned from people whom face-world knows, or who are to be judged.

    Features of people that an encoder was trained on are not what it makes of others, and a layer learned from them
    would lean on the difference.
    """
    known = [who for who in people.tolist() if who in BEGUN_WITH or who >= reid.CHOSEN]
    if known:
        raise DataError(
            f"{len(known)} people, such as {known[0]}, are of face-world's own, or kept to choose or judge by.",
            "`ipse world dataset recipes/world/faces.yaml --start 600000 --people 400 --shots 2` renders others.",
        )


def readable(trait: str) -> str:
    """``shape.nose-width1-incr`` → ``nose width``."""
    side = trait.split(".")[-1].removeprefix("l-").removeprefix("r-")
    return side.replace("-incr", "").replace("-", " ").rstrip("0123456789")


def taught_faces(setting: Setting) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
    """face-world's features of people it does not know, whose they are, names of traits and their standardized values.

    Raises
    ------
    DataError
        As `check_fresh`.
    """
    from ipse.training.data import Cut, pack

    assert setting.faces
    chips = pack(setting.faces, Cut("arcface112", (112, 112)), setting.cache / "packs")
    check_fresh(np.unique(chips.column("person")))
    path = setting.cache / f"taught-{chips.fingerprint[:12]}.npy"
    if not path.exists():
        encoder = ShippedEncoder("face-world", threads=1)
        with atomic_write(path) as file:
            np.save(file, encoder.encode(list(chips.images(np.arange(len(chips))))))
    who, rows = np.unique(chips.column("person"), return_inverse=True)
    names, traits = chips.traits(who)
    return np.load(path), chips.column("person"), names, traits[rows]


def told_by(features: np.ndarray, people: np.ndarray, traits: np.ndarray) -> np.ndarray:
    """(T,) share of the variance of traits of half of the people that a linear map learned on the others tells."""
    first = people < np.median(people)
    inputs = np.c_[features, np.ones(len(features))]
    ridge = inputs[first].T @ inputs[first] + 0.01 * first.sum() / features.shape[1] * np.eye(inputs.shape[1])
    wrong = traits[~first] - inputs[~first] @ np.linalg.solve(ridge, inputs[first].T @ traits[first])
    return 1 - wrong.var(axis=0) / traits[~first].var(axis=0)


def sesa(evidence: Evidence, setting: Setting) -> None:
    """Add how people are found by named dimensions."""
    features, people, names, traits = taught_faces(setting)
    clear = np.argsort(-told_by(features, people, traits), kind="stable")
    # Of what has two sides, such as the eyes, one is enough.
    words: dict[str, int] = {}
    for k in clear:
        words.setdefault(readable(names[k]), int(k))
    chosen = dict(list(words.items())[:DIMENSIONS])
    taught = features, people, list(chosen), traits[:, list(chosen.values())]
    spaces = {
        "explicit": explicit_space(*taught),
        "dense": explicit_space(*taught, explicit=0),
        "attributes": explicit_space(*taught, ranking=0),
    }
    seen = face_features(reid.JUDGED, setting.couples, setting.cache)
    columns = {"person": seen["person"], "look": seen["look"]}
    made = {name: space.encode(seen["face-world"]) for name, space in spaces.items()}
    made["face_world"] = seen["face-world"]
    found = {
        name: evaluate(Features(codes, codes), columns, columns, "world-across-looks") for name, codes in made.items()
    }
    about = (
        f"{len(seen['person'])} pictures of {2 * setting.couples} world people in the clothes of two days; "
        f"{DIMENSIONS} dimensions learned, seed 0, on {len(np.unique(people))} others, whom face-world does not know"
    )
    notes = {
        "explicit": "named dimensions, trained to rank and to tell their attribute",
        "dense": "trained to rank alone",
        "attributes": "trained to tell attributes alone",
        "face_world": f"the encoder's own {seen['face-world'].shape[1]} dimensions",
    }
    for name, result in found.items():
        beside = ("dense", found["dense"]) if name == "explicit" else None
        reid.add(evidence, f"reid.sesa.{name}_", result, f"{notes[name]}; {about}", beside)
    reid.add_ahead(
        evidence, "reid.sesa.ahead_of_attributes", found["explicit"], ("attributes alone", found["attributes"])
    )
    pairs = np.random.default_rng(0).integers(0, len(seen["person"]), (200, 2))
    errors = []
    for one, other in pairs:
        match = spaces["explicit"].explain(seen["face-world"][one], seen["face-world"][other])
        struck = match.names[int(np.abs(match.contributions).argmax())]
        codes = made["explicit"][[one, other]].astype(np.float64)
        unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
        kept = np.array([name != struck for name in match.names])
        errors += [abs(unit[0] @ unit[1] - match.score), abs(unit[0, kept] @ unit[1, kept] - match.without(struck))]
    evidence.add(
        "reid.sesa.explanation_error", max(errors), n=len(pairs),
        note="largest difference of a cosine from the sum of what its dimensions contribute, and of the score without "
        "the strongest dimension from what the explanation said",
    )  # fmt: skip
    # The first picture, and one of the same person in other clothes.
    other = np.flatnonzero((seen["person"] == seen["person"][0]) & (seen["look"] != seen["look"][0]))[0]
    match = spaces["explicit"].explain(seen["face-world"][0], seen["face-world"][other])
    evidence.add("reid.sesa.example", match.score, n=1, note=f"one person in two clothes: {match.words()}")


# -- the graph ---------------------------------------------------------------------------------------------------------


def planted(communities: int = 10, each: int = 60, inside: float = 0.1, outside: float = 0.004) -> tuple[Any, Any]:
    """A graph with communities, and which each node is in; nodes without edges are joined to their next."""
    from scipy.sparse import csr_array

    draw = np.random.default_rng(0)
    member = np.repeat(np.arange(communities), each)
    edges = np.triu(draw.random((len(member),) * 2) < np.where(member[:, None] == member, inside, outside), 1)
    edges |= edges.T
    for lonely in np.flatnonzero(~edges.any(axis=1)):
        edges[lonely, lonely - 1] = edges[lonely - 1, lonely] = True
    return csr_array(edges.astype(float)), member


def deep_walk(
    graph: Any, dim: int = 128, walks: int = 5, length: int = 40, window: int = 5, negatives: int = 16, seed: int = 0
) -> np.ndarray:
    """DeepWalk with negative sampling, as word2vec has it, as a reference.

    Negatives are shared by the pairs of a batch, which costs a fraction of those of each pair; walks are shorter and
    fewer than the paper's 80 of 40. So its time is a lower bound.
    """
    draw = np.random.default_rng(seed)
    paths = random_walks(graph, walks, length, seed).reshape(-1, length)
    count = graph.shape[0]
    pairs = np.concatenate([np.c_[paths[:, :-gap].ravel(), paths[:, gap:].ravel()] for gap in range(1, window + 1)])
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    draw.shuffle(pairs)
    frequency = np.bincount(paths.ravel(), minlength=count) ** 0.75
    center = ((draw.random((count, dim)) - 0.5) / dim).astype(np.float32)
    context = np.zeros((count, dim), np.float32)
    size = 64
    for start in range(0, len(pairs), size):
        rate = np.float32(0.025 * 2 * max(0.01, 1 - start / len(pairs)))
        one, other = pairs[start : start + size].T
        wrong = draw.choice(count, negatives, p=frequency / frequency.sum())
        ours, theirs, apart = center[one], context[other], context[wrong]
        right = 1 / (1 + np.exp(np.einsum("nd,nd->n", ours, theirs)))[:, None]
        # Five negatives a pair, as word2vec has them: those shared count for less.
        chance = (5 / negatives) / (1 + np.exp(-ours @ apart.T))
        np.add.at(center, one, rate * (right * theirs - chance @ apart))
        np.add.at(context, other, rate * right * ours)
        np.add.at(context, wrong, -rate * chance.T @ ours)
    return center


def timed(work: Callable[[], np.ndarray], times: int = 1) -> tuple[np.ndarray, float]:
    """What it gives, and its least processor time in seconds."""
    spent = []
    for _ in range(times):
        start = time.process_time()
        made = work()
        spent.append(time.process_time() - start)
    return made, min(spent)


def fastrp(evidence: Evidence, setting: Setting) -> None:
    """Add embeddings of nodes beside DeepWalk's."""
    graph, community = planted()
    once = {"person": community, "image": np.arange(len(community))}
    protocol = reid.Protocol("nodes", "Every node among the others.", (reid.Ignore(same=("image",)),))

    def among_nodes(made: np.ndarray) -> Retrieval:
        return evaluate(Features(made, made), once, once, protocol)

    scenes: dict[str, tuple[Any, Callable[[np.ndarray], Retrieval], str]] = {
        "planted": (graph, among_nodes, f"{len(community)} nodes in {community.max() + 1} planted communities")
    }
    if setting.market_run:
        val = reid.open_market(setting, "val")
        both = np.concatenate([val.query, val.gallery])
        split = len(val.query)
        scenes["market"] = (
            nearest_graph(val.plain[both]), lambda made: val.evaluate(Features(made[:split], made[split:])),
            f"10 nearest of {len(both)} pictures of Market-1501 val, queries and gallery as one graph",
        )  # fmt: skip
        plain = val.evaluate(Features(*val.split(val.plain)))
    for name, (edges, judge, about) in scenes.items():
        ours, our_time = timed(lambda edges=edges: embed_nodes(edges), 5)
        theirs, their_time = timed(lambda edges=edges: deep_walk(edges))
        mine, walked = judge(ours), judge(theirs)
        reid.add(evidence, f"reid.fastrp.{name}.", mine, f"{about}; 128 numbers", ("DeepWalk", walked))
        evidence.add(
            f"reid.fastrp.{name}.speedup", their_time / our_time, "x", n=len(ours), against=("goal", 100),
            note=f"processor time of DeepWalk over FastRP's, {their_time:.1f} and {our_time:.4f} s of one thread; 5 "
            "walks of 40 from every node where DeepWalk's paper has 80, and negatives shared in batches",
        )  # fmt: skip
        if name == "market":
            reid.add_ahead(evidence, "reid.fastrp.market.ahead_of_plain", mine, ("plain features", plain))
    small, _ = planted(4, 25)
    dense = small.toarray()
    degree = dense.sum(axis=1)
    step = dense / degree[:, None]
    similarity = (np.linalg.matrix_power(step, 3) + 2 * np.linalg.matrix_power(step, 4)) * (
        degree / degree.sum()
    ) ** -0.5
    error = np.abs(embed_nodes(small, 32) - similarity @ projection(len(dense), 32).toarray()).max()
    evidence.add(
        "reid.fastrp.formula_error", error, n=len(dense), against=("goal", 1e-6),
        note="largest difference from the dense formula on a graph of 100 nodes",
    )  # fmt: skip


def villages(count: int = 10, seed: int = 1) -> tuple[Any, np.ndarray, np.ndarray]:
    """A clique, a star and a chain in each of some villages joined in a ring; role and village of each node."""
    from scipy.sparse import csr_array

    draw = np.random.default_rng(seed)
    clique = [(i, j) for i in range(8) for j in range(i)]
    star = [(8, 9 + i) for i in range(8)]
    chain = [(17 + i, 18 + i) for i in range(5)]
    village = np.array([*clique, *star, *chain, (0, 8), (1, 17), (22, 8)])
    roles = np.array(["clique"] * 8 + ["hub"] + ["leaf"] * 8 + ["chain"] * 6)
    size = len(roles)
    roads = [(size * n + draw.integers(2, 8), size * ((n + 1) % count) + draw.integers(2, 8)) for n in range(count)]
    rows, columns = np.concatenate([*(village + size * n for n in range(count)), roads]).T
    graph = csr_array((np.ones(len(rows)), (rows, columns)), shape=(size * count,) * 2)
    return (graph + graph.T).tocsr(), np.tile(roles, count), np.repeat(np.arange(count), size)


def irwe(evidence: Evidence, setting: Setting) -> None:
    """Add how roles and places are told, of nodes known from training and of new ones."""
    graph, role, village = villages()
    # Two leaves and a member of the clique of every village come later.
    later = np.isin(np.arange(len(role)) % 23, (6, 12, 13))
    order = np.concatenate([np.flatnonzero(~later), np.flatnonzero(later)])
    graph, role, village = graph[order][:, order], role[order], village[order]
    known = int((~later).sum())
    found = Irwe(graph[:known, :known]).embed(graph)
    asked = {"role": (role, village, "another village"), "village": (village, role, "another role")}
    hits: dict[tuple[str, str], np.ndarray] = {}
    for kind, made in (("identity", found.identity), ("position", found.position)):
        for label, (values, within, _) in asked.items():
            distances = Features(made, made).rows(0, len(made))
            # A role is looked for in other villages, and a village in other roles: what is alike in both tells neither.
            distances[within[:, None] == within] = np.inf
            hits[kind, label] = (values[distances.argmin(axis=1)] == values).astype(float)
    for nodes, rows in (("known", slice(known)), ("new", slice(known, None))):
        for (kind, label), told in hits.items():
            about = f"{nodes} nodes whose nearest by {kind}, in {asked[label][2]}, has their {label}; one graph; seed 0"
            value, interval = percent(told[rows].mean(), bootstrap_ci(told[rows], village[rows]))
            evidence.add(
                f"reid.irwe.{kind}.{label}_{nodes}", value, "%", n=village.max() + 1, ci95=interval, note=about
            )  # fmt: skip
        for label, ours, theirs in (("role", "identity", "position"), ("village", "position", "identity")):
            ahead = (hits[ours, label] - hits[theirs, label])[rows]
            value, interval = percent(ahead.mean(), bootstrap_ci(ahead, village[rows]))
            evidence.add(
                f"reid.irwe.{ours}.{label}_{nodes}_ahead", value, "points", n=village.max() + 1, ci95=interval,
                against=(f"by {theirs}", 100 * hits[theirs, label][rows].mean()),
                note=f"{nodes} nodes whose nearest has their {label}, by {ours} ahead of {theirs}, paired by node; "
                "interval over villages; one graph; seed 0",
            )  # fmt: skip
    if setting.market_run:
        val = reid.open_market(setting, "val")
        both = np.concatenate([val.gallery, val.query])
        edges, split = nearest_graph(val.plain[both]), len(val.gallery)
        made = Irwe(nearest_graph(val.plain[val.gallery])).embed(edges).position
        # The baseline knows the queries' edges as it embeds the gallery, which is made anew for each query that comes.
        anew = embed_nodes(edges, made.shape[1])
        result, fast, plain = (
            val.evaluate(source)
            for source in (
                Features(made[split:], made[:split]),
                Features(anew[split:], anew[:split]),
                Features(*val.split(val.plain)),
            )
        )
        reid.add(
            evidence, "reid.irwe.market_", result,
            f"position embeddings of {made.shape[1]} numbers, learned, seed 0, on the neighbor graph of {split} "
            f"pictures of the gallery of Market-1501 val; {len(val.query)} queries come later",
            ("plain features", plain),
        )  # fmt: skip
        for figure, short in (("mAP", "map"), ("rank-1", "rank1")):
            reid.add_ahead(
                evidence, f"reid.irwe.market_{short}_ahead_of_fastrp", result, ("FastRP", fast), figure,
                f"FastRP's {made.shape[1]} numbers of the graph with the queries in it, {figure} "
                f"{100 * fast.figures()[figure][0]:.2f} %; interval over people",
            )  # fmt: skip


PARTS = {"rankme": rank, "relreps": relreps, "sesa": sesa, "fastrp": fastrp, "irwe": irwe}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=tuple(PARTS), nargs="+", help="these parts; other figures stay")
    parser.add_argument("--shared", type=Path, help="the folder of real photographs")
    parser.add_argument("--market-run", type=Path, help="the folder of a training on Market-1501")
    parser.add_argument("--faces", type=Path, help="a data set of recipes/world/faces.yaml, people from 600000 on")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "ipse-embeddings")
    parser.add_argument("--couples", type=int, default=40, help="of world people")
    given = vars(parser.parse_args(arguments))
    only = given.pop("only") or list(PARTS)
    setting = Setting(**given)
    real = bool(setting.shared and setting.market_run)
    if not real and "rankme" in only:
        parser.error("rankme needs --shared and --market-run")
    if "sesa" in only and not setting.faces:
        parser.error("sesa needs --faces")
    if real:
        check_market_run(json.loads((setting.market_run / "record.json").read_text()), setting.shared)
    setting.cache.mkdir(parents=True, exist_ok=True)
    evidence, console = Evidence("reid", seeds=[0]), Console()
    for name in only:
        PARTS[name](evidence, setting)
        # After each part, so that a run cut short keeps what it has.
        console.print(f"{name} written: {evidence.write(update=True)}")
    console.print(evidence.summary(), highlight=False)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
