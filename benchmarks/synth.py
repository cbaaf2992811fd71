"""Measure synthetic data: a balanced evaluation set of faces (SIG) and the worth of variation for bodies (BEDLAM).

SIG: two sets of people number 900,000 and up, alike but for what filtered them: the public-domain face network, and the
colors of thumbnails (`PixelEncoder`), in which no network has a part. The network is judged on the second, for the
first was made to please it. To plant a bias, noise is added to the network's vectors of one group of skin and gender.

BEDLAM: one regressor, trained twice from each of three seeds: on the full variation of the world, and on the reduced
world (plain tight clothes, one light, one background) with the same people, poses, cameras, numbers of pictures and
steps. Both are judged on hard Shots (other light, occluders, noise, blur, cameras from above) of people number
900,000 and up, whom nothing was trained on or tuned to. `--only render` writes the pictures to `--cache` and goes on
where it stopped.

    python benchmarks/synth.py                          # everything; about an hour on one core
    python benchmarks/synth.py --only sig               # the evaluation sets alone
    python benchmarks/synth.py --only render            # the pictures of the bodies alone
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from ipse._files import atomic_write
from ipse.encoders import DlibFaceEncoder, Encoder
from ipse.measure.evidence import Evidence, bootstrap_ci
from ipse.synth import sig
from ipse.synth.bedlam import VARIATIONS, aligned_joint_errors, bedlam_clip, bedlam_records, joint_errors

ROOT = Path(__file__).parents[1]
TRAINED, PICTURES, SHARD = range(80), 12, 10
"""People of the training, pictures of each, and people per file."""
DEVELOPED = range(5000, 5020)
JUDGED, EACH = range(900_000, 900_080), 4
"""People of the judgment and hard pictures of each."""
STEPS = 240
FMR = 0.001
NOISE = 0.015
"""Standard deviation, per dimension, of the noise that plants a bias; chosen to lose about half of the mated pairs."""


def evaluation_set(folder: Path, plan: sig.SigPlan, encoder: Encoder) -> tuple[list[dict], float, sig.SigSummary]:
    """A set, its manifest, and the highest similarity of two identities, measured anew from the files."""
    made = sig.make_set(plan, folder, encoder=encoder)
    rows = sig.read_set(folder)
    first = [row for row in rows if row["yaw"] == plan.poses[0]]
    vectors = encoder.encode(sig.chips(folder, first, encoder)[0])
    alike = sig.similarity(encoder, vectors, vectors)[np.triu_indices(len(vectors), 1)]
    return rows, float(alike.max()), made


def measure_sig(evidence: Evidence, cache: Path, identities: int) -> None:
    """Add the figures of the evaluation sets, of the network judged on one, and of planted biases."""
    network = DlibFaceEncoder(threads=1)
    plan = sig.SigPlan(identities, max_similarity=0.9, start=900_000)
    sets = {}
    for name, encoder in (("pixels", sig.PixelEncoder()), ("network", network)):
        rows, highest, made = evaluation_set(cache / name, plan, encoder)
        sets[name] = rows
        sizes = list(sig.cell_sizes(rows).values())
        suffix = "" if name == "network" else "_pixels"
        evidence.add(
            f"synth.sig.balance{suffix}",
            max(sizes) - min(sizes),
            "pictures",
            n=made.identities,
            note=f"largest difference between {len(sizes)} cells of skin group x gender x age group x pose; "
            f"{made.pictures} pictures, {min(sizes)} to {max(sizes)} in a cell",
        )
        evidence.add(
            f"synth.sig.max_similarity{suffix}",
            highest,
            n=made.identities,
            against=("limit", plan.max_similarity),
            note=f"1 - d^2/2 between first pictures, by {encoder.name}, measured again from the files; of "
            f"{sum(made.tried.values())} people tried {made.tried['alike']} were too alike and {made.tried['unseen']} "
            "had a picture in which no face was found",
        )

    audits = {name: sig.audit(cache / name, network, fmr=FMR) for name in sets}
    for name, suffix in (("pixels", ""), ("network", "_of_filter")):
        found = audits[name]
        assert found.held_out == (name == "pixels")
        evidence.add(
            f"synth.sig.eer{suffix}",
            100 * found.eer,
            "%",
            n=found.people,
            ci95=(100 * found.eer_ci95[0], 100 * found.eer_ci95[1]),
            note=f"{found.encoder}; {len(found.mated)} mated and {len(found.non_mated)} non-mated pairs, one Look a "
            f"person; median distances {np.median(found.mated):.3f} and {np.median(found.non_mated):.3f}; the set was "
            + ("filtered without a network" if found.held_out else "filtered by this network: not independent"),
        )
    found = audits["pixels"]
    for column in sig.GROUPINGS:
        for group, rate in found.by[column].items():
            low, high = rate.ci95 or (rate.rate, rate.rate)
            evidence.add(
                f"synth.sig.fnmr.{group}",
                100 * rate.rate,
                "%",
                n=rate.people,
                ci95=(100 * low, 100 * high),
                against=("everybody", 100 * found.fnmr.rate),
                note=f"{found.encoder}, one threshold for all at a false match rate of {FMR:g}; {rate.pairs} pairs",
            )
    plant(evidence, cache / "pixels", sets["pixels"], network, found)


def plant(evidence: Evidence, folder: Path, rows: list[dict], network: Encoder, fair: sig.Audit) -> None:
    """Plant a bias in each group in turn, and add how the audit changes there and elsewhere."""
    faces, seen = sig.chips(folder, rows, network)
    vectors = np.full((len(rows), network.dim), np.nan, np.float32)
    vectors[seen] = network.encode(faces)
    noise = NOISE * np.random.default_rng(0).normal(size=vectors.shape)
    of_row = np.array([row["group"] for row in rows])
    of_pair = fair.pair_groups["group"]
    for planted in fair.by["group"]:
        wrapped = vectors + noise * (of_row == planted)[:, None]
        found = sig.audit_vectors(rows, wrapped, "biased", held_out=True, fmr=FMR)
        change = found.pairs - fair.pairs
        here = of_pair == planted
        changes = {group: 100 * change[of_pair == group].mean() for group in fair.by["group"]}
        worst = max((group for group in changes if group != planted), key=lambda group: changes[group])
        low, high = bootstrap_ci(change[here], fair.pair_people[here])
        evidence.add(
            f"synth.sig.planted_bias.{planted}",
            changes[planted],
            "points",
            n=len(np.unique(fair.pair_people[here])),
            ci95=(100 * low, 100 * high),
            against=(f"largest change of another group, {worst}", changes[worst]),
            note=f"change of the false non-match rate where the vectors of this group got noise of {NOISE} per "
            "dimension; one threshold for all, set anew",
        )


def pack(cache: Path, name: str, people: range, pictures: int, variation: str, hard: bool) -> None:
    """Render people to one file, unless it is there."""
    path = cache / f"{name}-{people.start:06d}.npz"
    if path.exists():
        return
    records = list(bedlam_records(0, people, pictures=pictures, variation=variation, hard=hard))
    with atomic_write(path) as file:
        np.savez_compressed(
            file,
            images=np.stack([r.image for r in records]),
            joints=np.stack([r.camera_joints for r in records]).astype(np.float32),
            body=np.array([[r.body["stature_m"], r.body["weight"], r.body["gender"]] for r in records], np.float32),
            person=np.array([r.person for r in records]),
        )


def render_bodies(cache: Path) -> None:
    """Write all pictures of the bodies; both worlds grow together."""
    jobs = [("judged", JUDGED[i : i + SHARD], EACH, "full", True) for i in range(0, len(JUDGED), SHARD)]
    jobs += [("developed", DEVELOPED[i : i + SHARD], EACH, "full", True) for i in range(0, len(DEVELOPED), SHARD)]
    jobs += [
        (variation, TRAINED[i : i + SHARD], PICTURES, variation, False)
        for i in range(0, len(TRAINED), SHARD)
        for variation in VARIATIONS
    ]
    for job in track(jobs, "Rendering bodies", console=Console(stderr=True)):
        pack(cache, *job)


def load(cache: Path, name: str) -> dict[str, np.ndarray]:
    """All files of one kind, joined."""
    parts = [np.load(path) for path in sorted(cache.glob(f"{name}-*.npz"))]
    if not parts:
        raise SystemExit(f"There are no pictures of bodies in {cache}; make them with --only render first.")
    return {key: np.concatenate([part[key] for part in parts]) for key in ("images", "joints", "body", "person")}


def measure_bedlam(evidence: Evidence, cache: Path, judged: str, seeds: Sequence[int], steps: int) -> None:
    """Train on both worlds from every seed and add the errors on the judged pictures, in millimeters."""
    import torch

    from ipse.synth.hmr import predict, train_regressor

    torch.set_num_threads(1)
    test, worlds = load(cache, judged), {name: load(cache, name) for name in VARIATIONS}
    common = np.intersect1d(*[np.unique(world["person"]) for world in worlds.values()])
    errors: dict[str, list[np.ndarray]] = {}
    for seed in seeds:
        for variation, world in worlds.items():
            mine = np.isin(world["person"], common)
            # A training takes minutes, so what it predicted is kept.
            kept = cache / f"predicted-{judged}-{variation}-{len(common)}-{steps}-{seed}.npz"
            if not kept.exists():
                model = train_regressor(
                    world["images"][mine], world["joints"][mine], world["body"][mine], seed=seed, steps=steps
                )
                joints, body = predict(model, test["images"])
                with atomic_write(kept) as file:
                    np.savez(file, joints=joints, body=body)
            joints, body = (np.load(kept)[name] for name in ("joints", "body"))
            errors.setdefault(f"mpjpe_{variation}", []).append(1000 * joint_errors(joints, test["joints"]))
            errors.setdefault(f"pa_mpjpe_{variation}", []).append(1000 * aligned_joint_errors(joints, test["joints"]))
            errors.setdefault(f"stature_{variation}", []).append(1000 * np.abs(body[:, 0] - test["body"][:, 0]))
            print(variation, seed, *(f"{name} {values[-1].mean():.1f}" for name, values in errors.items()), flush=True)
    mean_pose = worlds["full"]["joints"].mean(0, keepdims=True).repeat(len(test["joints"]), 0)
    trained = f"{len(common)} people, {mine.sum()} pictures, {steps} steps of 64"
    people = len(np.unique(test["person"]))
    note = f"mean of {len(seeds)} training seed(s); trained on {trained}; judged on {len(test['person'])} hard pictures"
    evidence.add(
        "synth.bedlam.mpjpe_mean_pose",
        1000 * joint_errors(mean_pose, test["joints"]).mean(),
        "mm",
        n=people,
        note="always the mean pose of the training: what a regressor that sees nothing would reach",
    )
    for name, values in errors.items():
        per_picture = np.mean(values, 0)
        evidence.add(
            f"synth.bedlam.{name}",
            per_picture.mean(),
            "mm",
            n=people,
            ci95=bootstrap_ci(per_picture, test["person"]),
            note=f"{note}; by seed {', '.join(f'{v.mean():.1f}' for v in values)}",
        )
    for name, measured in (("claim", "mpjpe"), ("claim_pa", "pa_mpjpe")):
        full, reduced = (np.array(errors[f"{measured}_{variation}"]) for variation in VARIATIONS)
        gain = (reduced - full).mean(0)
        evidence.add(
            f"synth.bedlam.{name}",
            gain.mean(),
            "mm",
            n=people,
            ci95=bootstrap_ci(gain, test["person"]),
            against=(f"{measured} of the reduced world", reduced.mean()),
            note="error of the reduced world minus that of the full one, paired by picture, interval over people; "
            f"above 0 the full variation is better; by seed {', '.join(f'{v:.1f}' for v in (reduced - full).mean(1))}",
        )


def measure_repeat(evidence: Evidence) -> None:
    """Render the same records in a new process and add the share that is equal, byte for byte."""
    import subprocess
    import sys

    code = "import sys; sys.path.insert(0, 'benchmarks'); import synth; print(synth.digest())"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout.split()
        for _ in range(2)
    ]
    equal = [a == b for a, b in zip(*runs, strict=True)]
    evidence.add(
        "synth.bedlam.reproducible",
        100 * float(np.mean(equal)),
        "%",
        n=len(equal),
        note="records of stills and a video whose pictures and labels are equal, byte for byte, in another process",
    )


def digest() -> str:
    """Checksums of some records, pictures and labels: stills of both worlds, and a video."""
    records = [r for v in VARIATIONS for r in bedlam_records(5, range(10, 13), pictures=2, variation=v, hard=True)]
    records += bedlam_clip(5, 10, seconds=0.2)
    return "\n".join(hashlib.sha256(pickle.dumps(vars(record))).hexdigest() for record in records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", choices=("sig", "render", "bedlam", "repeat"), help="one part; the figures of the others are kept"
    )
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "ipse-bodies")
    parser.add_argument("--identities", type=int, default=3, help="in each cell of the evaluation sets")
    parser.add_argument("--seeds", type=int, default=3, help="trainings in each world")
    parser.add_argument("--steps", type=int, default=STEPS, help="of the regressors' training")
    parser.add_argument(
        "--judged", choices=("judged", "developed"), default="judged", help="on whom; others write nothing"
    )
    args = parser.parse_args()
    evidence = Evidence("synth", seeds=range(args.seeds))
    parts = {
        "sig": lambda: measure_sig(evidence, args.cache / "sig", args.identities),
        "render": lambda: render_bodies(args.cache),
        "bedlam": lambda: measure_bedlam(evidence, args.cache, args.judged, range(args.seeds), args.steps),
        "repeat": lambda: measure_repeat(evidence),
    }
    for name, part in parts.items():
        if args.only in (None, name):
            part()
    console = Console()
    console.print(evidence.summary(), highlight=False)
    if evidence.figures and args.judged == "judged":
        console.print(f"written: {evidence.write(update=args.only is not None)}")


if __name__ == "__main__":
    main()
