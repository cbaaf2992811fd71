"""Measure synthetic data: a balanced evaluation set of faces (SIG) and the worth of variation for bodies (BEDLAM).

BEDLAM: one regressor, trained twice from each of three seeds: on the full variation of the world, and on the reduced
world (plain tight clothes, one light, one background) with the same people, poses, cameras, numbers of pictures and
steps. Both are judged on hard Shots (other light, occluders, noise, blur, cameras from above) of people number
900,000 and up, whom nothing was trained on or tuned to. `--only render` writes the pictures to `--cache` and goes on
where it stopped.

    python benchmarks/synth.py                          # everything; about an hour on one core
    python benchmarks/synth.py --only render            # the pictures of the bodies alone
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from ipse._files import atomic_write
from ipse.synth.bedlam import VARIATIONS, bedlam_records

TRAINED, PICTURES, SHARD = range(200), 12, 10
"""People of the training, pictures of each, and people per file."""
DEVELOPED = range(5000, 5020)
JUDGED, EACH = range(900_000, 900_080), 4
"""People of the judgment and hard pictures of each."""


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("render",), help="one part; the figures of the others are kept")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "ipse-bodies")
    args = parser.parse_args()
    render_bodies(args.cache)


if __name__ == "__main__":
    main()
