"""Measure the world base: whether its pictures show what their captions say, and look like renderings.

The judge is the classifier of recipes/base/judge.yaml, trained on people that the base never saw (see
`ipse.diffusion.training.data.for_judge`). Captions are those of 1,000 portraits of people from number 900,000 on, whom
neither has seen, with every fact; each makes one picture by 20 steps. An attribute counts where the caption's facts
have it; its accuracy is the mean over its classes, so that what is common does not hide what is rare. What is not said
is not there: a full caption that names no hat is one of a bare head. Beside each figure is what the judge makes of the
renderings themselves. Classes that differ in degree only are taken together: shades of brown hair, how far a head is
turned.

Fréchet: in the features of the judge, the distance from the pictures to 1,000 renderings of other people, over the
distance from the captions' own renderings to those. Detection: the HOG detector, on pictures whose captions face the
camera. Diversity: the distance by dlib's face network of two seeds of one caption, beside that of two people who are
rendered with the same age group, gender and skin tone.

    python benchmarks/base.py --judge runs/judge/base-judge.safetensors             # an hour on one thread
    python benchmarks/base.py --judge FILE --base FOLDER --people 100 --dry         # a look; writes no figures
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from ipse._files import atomic_write
from ipse.attributes.judge import PictureJudge
from ipse.diffusion import Base, load_base
from ipse.encoders import DlibFaceEncoder
from ipse.faces import HogDetector, align
from ipse.images import contact_sheet, read_image, save_png
from ipse.measure import Evidence, bootstrap_ci
from ipse.measure.frechet import frechet
from ipse.world.dataset import read_dataset, write_dataset
from ipse.world.recipe import Recipe

ROOT = Path(__file__).parents[1]
JUDGED = 900_000
STEPS = 20


@dataclass(frozen=True)
class Rendered:
    """Portraits of the world: (N, 128, 128, 3) pictures, full captions, and what they show."""

    images: npt.NDArray[np.uint8]
    captions: list[str]
    facts: list[dict[str, str]]


def rendered(folder: Path, start: int, people: int, workers: int) -> Rendered:
    """One portrait of each of some people, made once."""
    recipe = Recipe.load(ROOT / "recipes" / "world" / "faces.yaml")
    # People of one balanced set: the same groups in each.
    write_dataset(recipe, folder, people=people, looks=1, shots=1, start=start, workers=workers)
    table = read_dataset(folder).table(["image", "captions", "facts"])
    return Rendered(
        np.stack([read_image(image["bytes"]) for image in table["image"].to_pylist()]),
        [captions[0] for captions in table["captions"].to_pylist()],
        [json.loads(text) for text in table["facts"].to_pylist()],
    )


def generated(base: Base, captions: list[str], folder: Path, seed: int) -> npt.NDArray[np.uint8]:
    """One picture for each caption (N, H, W, 3), made once; a run that was stopped goes on."""
    home = folder / f"{base.fingerprint[:16]}-{STEPS}-{seed}"
    pictures = []
    for number, caption in enumerate(track(captions, description=f"pictures, seed {seed}")):
        path = home / f"{number:05d}.npy"
        if not path.exists():
            (picture,) = base.generate(caption, seed=seed * 1_000_000 + number, steps=STEPS)
            with atomic_write(path) as file:
                np.save(file, picture.image)
        pictures.append(np.load(path))
    return np.stack(pictures)


def balanced(hits: npt.NDArray[np.bool_], true: npt.NDArray[np.str_]) -> float:
    """Share of hits, in the mean over classes."""
    return float(np.mean([hits[true == c].mean() for c in np.unique(true)]))


def prompts(
    evidence: Evidence, judge: PictureJudge, made: npt.NDArray[np.uint8], real: Rendered, others: Rendered
) -> None:
    """Add the figures that the judge gives."""
    told, features = judge.tell(made)
    told_real, features_real = judge.tell(real.images)
    _, features_others = judge.tell(others.images)
    means = {}
    for name in judge.classes:
        true = judge.truth(name, real.facts)
        said = true != ""
        hits, hits_real = ((x[name] == true)[said] for x in (told, told_real))
        pairs = np.stack([hits, np.unique(true[said], return_inverse=True)[1]], 1)
        interval = bootstrap_ci(
            pairs, statistic=lambda rows: balanced(rows[:, 0].astype(bool), rows[:, 1].astype(str)), n=500
        )
        means[name] = 100 * balanced(hits, true[said])
        evidence.add(
            f"base.prompt_accuracy.{name}",
            means[name],
            "%",
            n=int(said.sum()),
            ci95=(100 * interval[0], 100 * interval[1]),
            against=("renderings", 100 * balanced(hits_real, true[said])),
            note=f"mean over {len(np.unique(true[said]))} classes",
        )
    evidence.add("base.prompt_accuracy_mean", float(np.mean(list(means.values()))), "%", n=len(made))
    worst = min(means, key=means.__getitem__)
    evidence.add("base.prompt_accuracy_min", means[worst], "%", n=len(made), note=worst)
    least = frechet(features_real, features_others)
    evidence.add(
        "base.frechet_ratio",
        frechet(features, features_others) / least,
        n=len(made),
        note=f"over the distance {least:.3g} of two disjoint sets of renderings",
    )


def faces(
    evidence: Evidence, first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8], real: Rendered, seed: int = 0
) -> None:
    """Add the figures of detection and of diversity; `second` shows the first captions once more."""
    detector, encoder = HogDetector(), DlibFaceEncoder(threads=1)

    def look(images: npt.NDArray[np.uint8], what: str) -> npt.NDArray[np.float32]:
        """(N, 128) vectors, NaN where there is no face."""
        out = np.full((len(images), encoder.dim), np.nan, np.float32)
        for i, image in enumerate(track(images, description=what)):
            if found := detector.detect(image):
                out[i] = encoder.encode(align(image, [found[0]], encoder.chip.template))[0]
        return out

    one, two, true = look(first, "faces"), look(second, "faces of another seed"), look(real.images, "rendered faces")
    frontal = np.array([fact.get("head") == "facing the camera" for fact in real.facts])
    found, found_real = (100 * np.isfinite(x[frontal, 0]) for x in (one, true))
    evidence.add(
        "base.detect_frontal",
        float(found.mean()),
        "%",
        n=int(frontal.sum()),
        ci95=bootstrap_ci(found),
        against=("renderings", float(found_real.mean())),
    )
    apart = np.linalg.norm(one[: len(two)] - two, axis=1)
    apart = apart[np.isfinite(apart)]
    groups = [tuple(fact.get(name, "") for name in ("age_group", "gender", "skin_tone")) for fact in real.facts]
    draw, rows = np.random.default_rng(seed), []
    for group in sorted(set(groups)):
        members = draw.permutation([i for i, g in enumerate(groups) if g == group and np.isfinite(true[i, 0])])
        rows += [np.linalg.norm(true[a] - true[b]) for a, b in zip(members[::2], members[1::2], strict=False)]
    evidence.add(
        "base.seed_distance",
        float(apart.mean()),
        n=len(apart),
        ci95=bootstrap_ci(apart),
        against=("two rendered people of one group", float(np.mean(rows))),
        note="by dlib's face network, where 0.6 is its threshold for another person",
    )


def cost(evidence: Evidence, base: Base, caption: str, trials: int = 10) -> None:
    """Add seconds per picture on one thread, and the size of the weights."""
    import torch

    torch.set_num_threads(1)
    list(base.generate(caption, steps=STEPS))
    seconds = []
    for number in range(trials):
        start = time.perf_counter()
        list(base.generate(caption, seed=number, steps=STEPS))
        seconds.append(time.perf_counter() - start)
    evidence.add(
        "base.seconds_per_picture",
        float(np.median(seconds)),
        "s",
        n=trials,
        note=f"{STEPS} steps with guidance, one thread, median",
    )
    evidence.add("base.weights_mb", base.record["bytes"] / 1e6, "MB", n=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judge", type=Path, required=True, help="weights of the judge")
    parser.add_argument("--base", default="world")
    parser.add_argument("--people", type=int, default=1000, help="captions, and renderings of each set")
    parser.add_argument("--work", type=Path, default=Path("out/base-benchmark"), help="folder of pictures made once")
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    parser.add_argument("--sheet", type=Path, help="a PNG with 64 of the pictures")
    parser.add_argument("--dry", action="store_true", help="print the figures and write none")
    options = parser.parse_args()

    base = load_base(options.base, device="cpu")
    judge = PictureJudge(options.judge)
    real = rendered(options.work / "captions", JUDGED, options.people, options.workers)
    # Far from the first, so that sets of any size have nobody in common.
    others = rendered(options.work / "others", JUDGED + 50_000, options.people, options.workers)
    made = generated(base, real.captions, options.work, 0)
    again = generated(base, real.captions[: options.people // 4], options.work, 1)

    evidence = Evidence("base", seeds=[0, 1])
    prompts(evidence, judge, made, real, others)
    faces(evidence, made, again, real)
    cost(evidence, base, real.captions[0])
    if options.sheet:
        save_png(contact_sheet(list(made[:64]), 8, gap=2), options.sheet, {"Description": "Made by the world base."})
    Console().print(evidence.summary())
    if not options.dry:
        # Benchmarks of the handles write their figures into the same file.
        evidence.write(update=True)


if __name__ == "__main__":
    main()
