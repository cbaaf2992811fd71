"""Measure evaluation and re-ranking beside their peers, on drawn features of the size of Market-1501 and MSMT17.

Features are unit vectors around a center for each person, with bystanders nobody looks for; for re-ranking they lie on
a grid of 1/1024, so that distances are exact in float32 and both sides rank the same numbers. Every side runs alone in
a process on one thread. Times are processor seconds of the process, the best of some rounds, which other work on the
machine disturbs least; memory is the largest resident set beyond that before the call.

Peers are run from their own repositories where a folder with them is given: fast-reid and deep-person-reid with their
Cython evaluation built in place (`python setup.py build_ext --inplace` in `rank_cylib`), and person-re-ranking. What is
not there is replaced by a plain NumPy function below that computes the same; the figure's note says which was used.

    python benchmarks/evaluation.py --peers FOLDER    # everything; about ten minutes
    python benchmarks/evaluation.py --only evaluate   # one part; the other figures in the file stay
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.machinery
import importlib.util
import os
import resource
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from ipse.gallery.rerank import KReciprocal
from ipse.measure import Evidence, Features, Matrix, evaluate

SEED, DIM = 0, 512
GRID = 1024
# Where the peers keep what is compared, below the folder that --peers names.
CYTHON = {
    "fast-reid Cython": "fast-reid/fastreid/evaluation/rank_cylib",
    "torchreid Cython": "deep-person-reid/torchreid/metrics/rank_cylib",
}
ORIGINAL = "person-re-ranking/python-version/re_ranking_ranklist.py"


class Size(NamedTuple):
    """How many of what a data set has."""

    queries: int
    images: int
    people: int
    bystanders: int
    cameras: int


MARKET = Size(3368, 15913, 750, 2798, 6)
MSMT = Size(11659, 82161, 3060, 0, 15)


class Drawn(NamedTuple):
    """Features and what is known of them."""

    query: np.ndarray
    gallery: np.ndarray
    query_items: dict[str, np.ndarray]
    gallery_items: dict[str, np.ndarray]


def draw(size: Size, noise: float = 2.2, grid: int = 0) -> Drawn:
    """Features spread around their people's centers; bystanders have a center each."""
    generator = np.random.default_rng(SEED)
    centers = generator.standard_normal((size.people, DIM), np.float32)
    own = size.images - size.bystanders - size.people
    person = np.concatenate(
        [np.arange(size.people), generator.integers(0, size.people, own), np.full(size.bystanders, -2)]
    )
    sides = []
    for people in (generator.integers(0, size.people, size.queries), generator.permutation(person)):
        features = noise * generator.standard_normal((len(people), DIM), np.float32)
        known = people >= 0
        features[known] += centers[people[known]]
        features[~known] *= np.sqrt(1 + noise**2) / noise
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        if grid:
            features = np.round(features * grid) / np.float32(grid)
        sides.append((features, {"person": people, "camera": generator.integers(0, size.cameras, len(people))}))
    (query, query_items), (gallery, gallery_items) = sides
    return Drawn(query, gallery, query_items, gallery_items)


# -- what the peers compute ------------------------------------------------------------------------------------------


def sorted_evaluation(distances: np.ndarray, q_pids, g_pids, q_camids, g_camids, max_rank: int) -> tuple:
    """CMC, per-query AP and inverse penalty from a sort of the whole matrix, as torchreid and fast-reid do it."""
    order = np.argsort(distances, axis=1)
    cmc, precisions, penalties = np.zeros(max_rank), [], []
    for i, row in enumerate(order):
        row = row[(g_pids[row] != q_pids[i]) | (g_camids[row] != q_camids[i])]
        ranks = np.flatnonzero(g_pids[row] == q_pids[i]) + 1
        if len(ranks):
            cmc[ranks[0] - 1 :] += 1
            precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
            penalties.append(len(ranks) / ranks[-1])
    return cmc / len(precisions), np.array(precisions), np.array(penalties)


def dense_reranking(q_g: np.ndarray, q_q: np.ndarray, g_g: np.ndarray, k1: int = 20, k2: int = 6) -> np.ndarray:
    """K-reciprocal re-ranking over whole matrices, as in the paper's code."""
    queries, count = len(q_g), len(q_g) + len(g_g)
    original = np.square(np.block([[q_q, q_g], [q_g.T, g_g]]))
    original /= original.max(axis=1, keepdims=True)
    rank = np.argsort(original, axis=1)
    half = int(np.around(k1 / 2))

    def reciprocal(i: int, k: int) -> np.ndarray:
        forward = rank[i, : k + 1]
        return forward[(rank[forward, : k + 1] == i).any(axis=1)]

    described = np.zeros_like(original)
    for i in range(count):
        near = members = reciprocal(i, k1)
        for candidate in near:
            theirs = reciprocal(candidate, half)
            if len(np.intersect1d(theirs, near)) > 2 / 3 * len(theirs):
                members = np.append(members, theirs)
        members = np.unique(members)
        weights = np.exp(-original[i, members])
        described[i, members] = weights / weights.sum()
    described = np.stack([described[rank[i, :k2]].mean(axis=0) for i in range(count)])
    result = np.empty((queries, len(g_g)), np.float32)
    for i in range(queries):
        shared = np.zeros(len(g_g), np.float32)
        for member in np.flatnonzero(described[i]):
            shared += np.minimum(described[i, member], described[queries:, member])
        result[i] = (1 - shared / (2 - shared)) * 0.7 + original[i, queries:] * 0.3
    return result


def cython_peers(folder: Path | None) -> dict[str, Callable[..., Any]]:
    """The Cython evaluations that are built below a folder."""
    found: dict[str, Callable[..., Any]] = {}
    for name, place in CYTHON.items() if folder else ():
        for path in sorted((folder / place).glob("rank_cy*.so")):
            loader = importlib.machinery.ExtensionFileLoader("rank_cy", str(path))
            module = importlib.util.module_from_spec(importlib.util.spec_from_loader("rank_cy", loader))
            loader.exec_module(module)
            found[name] = module.evaluate_cy
            break
    return found


def original_reranking(folder: Path | None) -> tuple[str, Callable[..., Any]]:
    """The re-ranking published with the paper, or ours that computes the same."""
    path = folder / ORIGINAL if folder else None
    if path is None or not path.exists():
        return "dense NumPy reimplementation", dense_reranking
    spec = importlib.util.spec_from_file_location("original", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return "the paper's Python version", module.re_ranking


# -- measuring -------------------------------------------------------------------------------------------------------


class Cost(NamedTuple):
    """Processor seconds and MiB beyond what was held before."""

    seconds: float
    mib: float


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def _peak() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def cost(function: Callable[[], Any], rounds: int = 1) -> tuple[Cost, Any]:
    """What a call costs: its best time and largest memory over some rounds."""
    seconds, mib, result = float("inf"), 0.0, None
    for _ in range(rounds):
        result = None
        ctypes.CDLL(None).malloc_trim(0)  # what is free goes back, or it would hide what the call takes
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before, start = _resident(), time.process_time()
        result = function()
        seconds = min(seconds, time.process_time() - start)
        mib = max(mib, _peak() - before)
    return Cost(seconds, mib), result


def _product(query: np.ndarray, gallery: np.ndarray, rounds: int = 1) -> Cost:
    """What nothing but the matrix product costs, a block of rows at a time."""
    block = np.empty((256, len(gallery)), np.float32)

    def whole() -> None:
        for start in range(0, len(query), len(block)):
            rows = query[start : start + len(block)]
            np.matmul(rows, gallery.T, out=block[: len(rows)])

    return cost(whole, rounds)[0]


def _alone(target: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in a new process, on one thread."""
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    context = get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    child = context.Process(target=_report, args=(send, target, arguments))
    child.start()
    send.close()
    result = receive.recv()
    child.join()
    return result


def _report(pipe: Connection, target: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    pipe.send(target(*arguments))


def _figures_of(result: Any) -> np.ndarray:
    return np.array([result.mean_ap(), result.mean_inp(), *result.cmc(10)])


def _evaluate_child(folder: Path | None, rounds: int) -> dict[str, Any]:
    drawn = draw(MARKET)
    distances = 1 - drawn.query @ drawn.gallery.T
    q, g = drawn.query_items, drawn.gallery_items
    peers = cython_peers(folder) or {"NumPy reimplementation": sorted_evaluation}
    found: dict[str, Any] = {"peers": {}}
    for name, peer in peers.items():
        arguments = q["person"], g["person"], q["camera"], g["camera"], 50
        spent, (cmc, *rest) = cost(lambda peer=peer, given=arguments: peer(distances, *given), rounds)
        # torchreid gives no inverse penalty, and the mean AP instead of all.
        figures = [float(np.mean(values)) for values in rest]
        found["peers"][name] = spent, figures[0], figures[1] if len(figures) > 1 else None, cmc[:10]
    items = drawn.query_items, drawn.gallery_items, "market1501"
    found["matrix"], result = cost(lambda: evaluate(Matrix(distances), *items, memory_mib=8), 3 * rounds)
    found["figures"] = _figures_of(result)
    found["people"] = len(np.unique(result.person))
    found["intervals"], _ = cost(result.figures, rounds)
    found["product"] = _product(drawn.query, drawn.gallery, rounds)
    source = Features(drawn.query, drawn.gallery, ranks_only=True)
    found["features"], result = cost(lambda: evaluate(source, *items), rounds)
    found["features_figures"] = _figures_of(result)
    return found


def measure_evaluate(evidence: Evidence, console: Console, folder: Path | None) -> None:
    """Evaluation from distances that are there, and from features, beside the peers."""
    found = _alone(_evaluate_child, folder, 3)
    peers = found["peers"]
    fastest = min(peers, key=lambda name: peers[name][0].seconds)
    theirs, ours, product = peers[fastest][0], found["matrix"], found["product"]
    for name, (spent, *_) in peers.items():
        console.print(f"{name}: {spent.seconds:.2f} s, {spent.mib:.0f} MiB")
    size = f"{MARKET.queries:,} x {MARKET.images:,}, one thread, processor seconds"
    n = found["people"]
    evidence.add(
        "evaluation.speedup_vs_cython",
        theirs.seconds / ours.seconds,
        n=n,
        against=("goal", 8),
        note=f"{fastest} over ipse, CMC, mAP and mINP from one matrix of distances, {size}",
    )
    evidence.add("evaluation.seconds", ours.seconds, "s", n=n, against=(fastest, theirs.seconds), note=size)
    evidence.add(
        "evaluation.memory_mib", ours.mib, "MiB", n=n, against=(fastest, theirs.mib), note="beyond the distances"
    )
    differences = []
    for _, precision, penalty, cmc in peers.values():
        differences += [abs(found["figures"][0] - precision), *np.abs(found["figures"][2:] - cmc)]
        differences += [abs(found["figures"][1] - penalty)] if penalty is not None else []
    evidence.add(
        "evaluation.largest_difference",
        float(max(differences)),
        n=n,
        note=f"in mAP, mINP or CMC, 0-1, from {' and '.join(peers)}, which add in float32",
    )
    evidence.add(
        "evaluation.from_features_speedup",
        (theirs.seconds + product.seconds) / found["features"].seconds,
        n=n,
        note=f"the same with the matrix product on both sides; {found['features'].seconds:.2f} s and "
        f"{found['features'].mib:.0f} MiB of ipse",
    )
    evidence.add(
        "evaluation.from_features_product_share",
        product.seconds / found["features"].seconds,
        n=n,
        note=f"processor time of the bare product of {DIM}-D features over that of evaluating: 1 is the limit",
    )
    evidence.add(
        "evaluation.intervals_s",
        found["intervals"].seconds,
        "s",
        n=n,
        note="eight figures with intervals over identities, 2,000 draws",
    )


def _original_child(folder: Path | None, path: str) -> Cost:
    drawn = draw(MARKET, grid=GRID)
    every = np.concatenate([drawn.query, drawn.gallery])
    distances = Features(every, every, "l2").rows(0, len(every))
    q = len(drawn.query)
    parts = distances[:q, q:].copy(), distances[:q, :q].copy(), distances[q:, q:].copy()
    del distances
    _, function = original_reranking(folder)
    spent, result = cost(lambda: function(*parts))
    np.save(path, result)
    return spent


def _rerank_child(path: str | None) -> dict[str, Any]:
    drawn = draw(MARKET, grid=GRID)
    items = drawn.query_items, drawn.gallery_items, "market1501"

    def whole() -> Any:
        return evaluate(KReciprocal(drawn.query, drawn.gallery, "l2"), *items, memory_mib=64)

    found: dict[str, Any] = {}
    found["spent"], result = cost(whole, 2)
    found["figures"] = _figures_of(result)
    every = np.concatenate([drawn.query, drawn.gallery])
    found["product"] = _product(every, every).seconds + _product(drawn.query, drawn.gallery).seconds
    if path:
        theirs = np.load(path, mmap_mode="r")
        source = KReciprocal(drawn.query, drawn.gallery, "l2").fit()
        equal = same = 0
        for start in range(0, len(theirs), 400):
            rows = source.rows(start, min(start + 400, len(theirs)))
            same += int((rows == theirs[start : start + 400]).sum())
            orders = (np.argsort(side, axis=1, kind="stable") for side in (rows, theirs[start : start + 400]))
            equal += int(np.equal(*orders).sum())
        found["equal"], found["same"] = equal / theirs.size, same / theirs.size
        found["their_figures"] = _figures_of(evaluate(Matrix(theirs), *items))
    return found


def measure_rerank(evidence: Evidence, console: Console, folder: Path | None) -> None:
    """K-reciprocal re-ranking beside the original."""
    name = original_reranking(folder)[0]
    with tempfile.TemporaryDirectory() as temporary:
        path = str(Path(temporary) / "original.npy")
        theirs = _alone(_original_child, folder, path)
        console.print(f"{name}: {theirs.seconds:.1f} s, {theirs.mib:.0f} MiB")
        found = _alone(_rerank_child, path)
    ours = found["spent"]
    n = MARKET.queries
    evidence.add(
        "evaluation.rerank_speedup",
        theirs.seconds / ours.seconds,
        n=n,
        against=("goal", 10),
        note=f"{name} (k1 20, k2 6, 0.3; distances given) over ipse from features, evaluated too; "
        f"{theirs.seconds:.1f} s and {ours.seconds:.1f} s of one thread",
    )
    evidence.add(
        "evaluation.rerank_memory_ratio",
        ours.mib / theirs.mib,
        n=n,
        against=("goal", 0.125),
        note=f"ipse over {name}: {ours.mib:.0f} MiB beyond the features, {theirs.mib:.0f} MiB beyond the distances",
    )
    evidence.add(
        "evaluation.rerank_ranks_equal",
        100 * found["equal"],
        "%",
        n=n,
        note="of all places of all queries, ties in gallery order; "
        f"{100 * found['same']:.6f} % of the distances are equal bit by bit",
    )
    evidence.add(
        "evaluation.rerank_largest_difference",
        float(np.abs(found["figures"] - found["their_figures"]).max()),
        n=n,
        note="in mAP, mINP or CMC, 0-1",
    )
    evidence.add(
        "evaluation.rerank_product_share",
        found["product"] / ours.seconds,
        n=n,
        note="processor time of the bare matrix products over that of re-ranking and evaluating: 1 is the limit",
    )


def _msmt_child(_: None = None) -> dict[str, Any]:
    drawn = draw(MSMT, grid=GRID)
    items = drawn.query_items, drawn.gallery_items, "msmt17"
    found: dict[str, Any] = {}
    plain, result = cost(lambda: evaluate(Features(drawn.query, drawn.gallery, ranks_only=True), *items))
    found["plain"], found["plain_map"], plain_peak = plain, result.mean_ap(), _peak()
    source = KReciprocal(drawn.query, drawn.gallery, "l2")
    again, result = cost(lambda: evaluate(source, *items, memory_mib=64))
    found["again"], found["again_map"] = again, result.mean_ap()
    found["peak"] = max(plain_peak, _peak()) * 2**20 / 1e9
    found["people"] = len(np.unique(result.person))
    return found


def measure_msmt17(evidence: Evidence, console: Console, folder: Path | None) -> None:
    """Evaluating and re-ranking at the size of MSMT17."""
    found = _alone(_msmt_child)
    evidence.add(
        "evaluation.msmt17_peak_gb",
        found["peak"],
        "GB",
        n=found["people"],
        against=("goal", 6),
        note=f"largest resident set of the whole process, {MSMT.queries:,} x {MSMT.images:,}: features, evaluation "
        "and re-ranking",
    )
    for name, key in (("evaluate", "plain"), ("rerank", "again")):
        evidence.add(
            f"evaluation.msmt17_{name}_s",
            found[key].seconds,
            "s",
            n=found["people"],
            note=f"processor seconds of one thread, from features; mAP {100 * found[f'{key}_map']:.2f} %",
        )


PARTS = {"evaluate": measure_evaluate, "rerank": measure_rerank, "msmt17": measure_msmt17}


def main() -> None:
    """Measure what was asked for and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=tuple(PARTS), help="measure only this")
    parser.add_argument("--peers", type=Path, help="folder with fast-reid, deep-person-reid and person-re-ranking")
    parser.add_argument("--no-write", action="store_true", help="show the figures and write nothing")
    arguments = parser.parse_args()
    console = Console()
    evidence = Evidence("evaluation", seeds=[SEED])
    for name, part in PARTS.items():
        if arguments.only in (None, name):
            part(evidence, console, arguments.peers)
    console.print(evidence.summary(), highlight=False)
    if not arguments.no_write:
        console.print(f"written: {evidence.write(update=True)}")


if __name__ == "__main__":
    main()
