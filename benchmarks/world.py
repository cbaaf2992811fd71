"""Measure the world: speed, memory, and whether its people are people to a judge that never saw a rendering.

Identity: people balanced over age, gender and skin tone, each in 2 Looks x 6 Shots (yaw within 40 degrees,
expressions, lights) as
portraits of 256 pixels, undamaged, without face masks, sunglasses and occluders. The dlib HOG detector looks for
each face; the
public-domain face network encodes what it found. Rank-1: is the nearest other picture one of the same person? Within
a Look
the gallery holds the other pictures of everybody's first (or second) Look; across Looks the probes are those of the
second and
the gallery those of the first. Pictures in which the detector finds no face are counted in `missed_faces`, not in the
ranks. Equal error rates are over all pairs of found pictures of one Look, against all pairs of different people.
Nothing was tuned on
the people measured (numbers 900,000 and up).

    python benchmarks/world.py                                     # everything; about half an hour on two cores
    python benchmarks/world.py --only identity --start 0 --people 60   # a look at other people; writes nothing
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from rich.console import Console
from rich.progress import track

from ipse.encoders import DlibFaceEncoder
from ipse.faces import Face, HogDetector, align
from ipse.measure.evidence import Evidence, bootstrap_ci
from ipse.measure.verification import equal_error_rate
from ipse.world import Person, Picture, age_group, gender_presentation, look, person, render, shot, skin_group
from ipse.world.shot import Degrade

SHOTS, SIZE = 6, 256
"""Shots per Look, and the side of the pictures the judge sees."""
BY = ("age", "gender", "skin")

_FIRST = """
import time; start = time.perf_counter()
from ipse.world import look, person, render, shot
who = person(1); render(who, look(0, who), shot(0))
print(time.perf_counter() - start)
"""


def first_picture(warm_trials: int = 5) -> tuple[float, list[float]]:
    """Seconds from a new process to the first picture: once with an empty kernel cache, then as later starts are."""

    def run(cache: str) -> float:
        environment = {**os.environ, "WARP_CACHE_PATH": cache, "OMP_NUM_THREADS": "1"}
        out = subprocess.run(
            [sys.executable, "-c", _FIRST], env=environment, capture_output=True, text=True, check=True
        )
        return float(out.stdout.split()[-1])

    with tempfile.TemporaryDirectory() as cache:
        return run(cache), [run(cache) for _ in range(warm_trials)]


def _take(n: int, shots: int = 4) -> int:
    """Render the default portraits of person n: `shots` pictures in one Look, truth included."""
    who = person(n)
    worn = look(0, who)
    for k in range(shots):
        render(who, worn, shot(n * shots + k))
    return shots


def throughput(people: int, shots: int) -> list[float]:
    """Pictures per second of one process on one core, per person, the making of the person included."""
    _take(0)
    rates = []
    for n in track(range(1, people + 1), description=f"{shots} portraits a person"):
        start = time.perf_counter()
        _take(n, shots)
        rates.append(shots / (time.perf_counter() - start))
    return rates


def profile(people: int = 20) -> None:
    """Print where the time of the portraits goes."""
    recorder = cProfile.Profile()
    recorder.runcall(lambda: [_take(n) for n in range(people)])
    pstats.Stats(recorder).sort_stats("tottime").print_stats(18)


def memory(count: int, shots: int = 8) -> tuple[float, float]:
    """Peak memory in MB after the first tenth and after all of `count` portraits."""
    done, early = 0, 0.0
    for n in track(range(count // shots), description=f"{count} portraits"):
        done += _take(n, shots)
        if not early and done >= count / 10:
            early = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return early, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def groups_of(who: Person) -> dict[str, str]:
    """The groups that figures are told by, of each dimension in `BY`."""
    return {"age": age_group(who), "gender": gender_presentation(who), "skin": skin_group(who)}


def portraits(who: Person, looks: int = 2) -> Iterator[Picture]:
    """The undamaged portraits of a person before a judge: `looks` Looks of `SHOTS` Shots each."""
    for day in range(looks):
        worn = look(day, who, fix={"mask": None})
        if worn.glasses is not None and worn.glasses.style == "sunglasses":
            worn = worn.replace(glasses=None)
        for k in range(SHOTS):
            number = (who.number * looks + day) * SHOTS + k
            taken = shot(number, ranges={"head.yaw": (-40, 40)}, fix={"occluder": None}).replace(degrade=Degrade())
            yield render(who, worn, taken, size=SIZE)


def face_over(faces: Sequence[Face], box: Sequence[float]) -> Face | None:
    """The surest of the faces found that lies over the middle of the true one."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return next((f for f in faces if f.box[0] < x < f.box[2] and f.box[1] < y < f.box[3]), None)


def judge(n: int) -> tuple[dict[str, str], np.ndarray, np.ndarray]:
    """Person n's groups, the judge's vectors (2, SHOTS, 128; NaN where no face was found), and the yaw of each
    picture.
    """
    who = person(n, balance=BY)
    detector, encoder = HogDetector(), DlibFaceEncoder(threads=1)
    vectors = np.full((2 * SHOTS, encoder.dim), np.nan, np.float32)
    yaw = np.zeros(2 * SHOTS)
    for k, picture in enumerate(portraits(who)):
        yaw[k] = picture.truth.shot.head.yaw
        face = face_over(detector.detect(picture.image), picture.truth.face_box)
        if face is not None:
            vectors[k] = encoder.encode(align(picture.image, [face], encoder.chip.template))[0]
    return groups_of(who), vectors.reshape(2, SHOTS, -1), yaw.reshape(2, SHOTS)


def identity(evidence: Evidence, start: int, count: int, workers: int) -> None:
    """Add the figures of detection and recognition, over all people and by group."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        made = list(
            track(pool.map(judge, range(start, start + count)), total=count, description="people before the judge")
        )
    groups = [g for g, _, _ in made]
    vectors = np.stack([v for _, v, _ in made])
    yaw = np.stack([y for _, _, y in made])
    found = np.isfinite(vectors[..., 0])

    def hits(enrolled_day: int, probe_day: int) -> tuple[list[float], list[int]]:
        values, owners = [], []
        for i, k in zip(*np.nonzero(found[:, probe_day]), strict=True):
            distance = np.linalg.norm(vectors[:, enrolled_day] - vectors[i, probe_day, k], axis=2)
            if enrolled_day == probe_day:
                distance[i, k] = np.nan
            if np.isfinite(distance[i]).any():
                nearest = np.unravel_index(np.nanargmin(distance), distance.shape)[0]
                values.append(float(nearest == i))
                owners.append(int(i))
        return values, owners

    within = [hits(day, day) for day in range(2)]
    rows = {
        "detect_frontal": ([float(f) for f in found[np.abs(yaw) <= 20]], list(np.nonzero(np.abs(yaw) <= 20)[0])),
        "missed_faces": ([1.0 - f for f in found.ravel()], list(np.repeat(np.arange(count), 2 * SHOTS))),
        "rank1_same_look": ([v for w in within for v in w[0]], [i for w in within for i in w[1]]),
        "rank1_across_looks": hits(0, 1),
    }
    members: dict[str, np.ndarray] = {"": np.ones(count, bool)}
    for dimension in BY:
        for name in sorted({g[dimension] for g in groups}):
            members[f".{dimension}.{name}"] = np.array([g[dimension] == name for g in groups])

    for name, (values, owners) in rows.items():
        value, owner = np.array(values), np.array(owners)
        for suffix, member in members.items():
            mine = member[owner]
            low, high = bootstrap_ci(value[mine], owner[mine])
            note = (
                f"{int(mine.sum())} pictures; the rank is among all {count} people"
                if "rank1" in name
                else f"{int(mine.sum())} pictures"
            )
            evidence.add(
                f"world.{name}{suffix}",
                100 * value[mine].mean(),
                "%",
                n=int(member.sum()),
                ci95=(100 * low, 100 * high),
                note=note,
            )

    flat = vectors.reshape(count, 2 * SHOTS, -1)
    pairs = [(day * SHOTS + a, day * SHOTS + b) for day in range(2) for a in range(SHOTS) for b in range(a)]

    def error(sample: np.ndarray) -> float:
        people = sample.astype(int).ravel()
        same = np.concatenate([[np.linalg.norm(flat[i, a] - flat[i, b]) for a, b in pairs] for i in people])
        unique = np.unique(people)
        pool = flat[unique].reshape(-1, flat.shape[-1])
        owner = np.repeat(unique, 2 * SHOTS)
        good = np.isfinite(pool[:, 0])
        pool, owner = pool[good], owner[good]
        square = (pool**2).sum(1)
        distance = square[:, None] + square[None] - 2 * pool @ pool.T
        different = np.sqrt(np.maximum(distance[owner[:, None] < owner[None]], 0))
        return 100 * equal_error_rate(same[np.isfinite(same)], different)

    for suffix, member in members.items():
        people = np.flatnonzero(member).astype(float)
        low, high = bootstrap_ci(people, n=100 if suffix else 200, statistic=error)
        evidence.add(
            f"world.eer_same_look{suffix}",
            error(people),
            "%",
            n=len(people),
            ci95=(low, high),
            note="impostors of the same group" if suffix else "",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only",
        choices=("first", "speed", "memory", "identity", "profile"),
        help="one part; the figures of the others are kept",
    )
    parser.add_argument("--start", type=int, default=900_000, help="number of the first person before the judge")
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--pictures", type=int, default=10_000, help="portraits of the memory test")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    parts: dict[str, Callable[[], object]] = {}
    evidence = Evidence("world", seeds=[args.start])

    def first() -> None:
        cold, warm = first_picture()
        evidence.add("world.first_picture_s", cold, "s", n=1, note="new process, kernels compiled on the way")
        evidence.add(
            "world.later_start_s",
            float(np.median(warm)),
            "s",
            n=len(warm),
            ci95=(min(warm), max(warm)),
            note="median and range",
        )

    def speed() -> None:
        for name, shots in (("portraits_per_s_core", 12), ("portraits_per_s_core_4_shots", 4)):
            rates = throughput(40, shots)
            evidence.add(
                f"world.{name}",
                len(rates) / sum(1 / r for r in rates),
                "pictures/s",
                n=len(rates),
                ci95=bootstrap_ci(rates, statistic=lambda r: len(r) / (1 / r).sum()),
                note=f"128 px, 4 samples per pixel, with truth; {shots} pictures per Look, always new people",
            )

    def flat_memory() -> None:
        early, late = memory(args.pictures)
        evidence.add(
            "world.memory_growth",
            late / early,
            "x",
            n=args.pictures,
            note=f"peak memory at the end ({late:.0f} MB) over that after a tenth",
        )

    parts = {
        "first": first,
        "speed": speed,
        "memory": flat_memory,
        "identity": lambda: identity(evidence, args.start, args.people, args.workers),
    }
    if args.only == "profile":
        return profile()
    for name, part in parts.items():
        if args.only in (None, name):
            part()
    console = Console()
    console.print(evidence.summary(), highlight=False)
    if args.start >= 900_000:
        console.print(f"written: {evidence.write(update=args.only is not None)}")


if __name__ == "__main__":
    main()
