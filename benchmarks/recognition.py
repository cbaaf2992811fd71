"""Measure recognizing on real photographs: accuracy, who is overlooked, speed beside dlib, memory, and bad files.

The data are named by --shared, a folder with lfw/, utkface/, awe_ears/ and photos/; neither the package nor its tests
need them.

LFW: the aligned 112 px crops of folds 1 to 5 are padded by 56 px, doubled, and go the way of any photograph: detect
(as it comes, the face nearest the middle), align, encode. The threshold of a fold is chosen on the other folds; a pair
with an undetected face is an error. The detector's settings were chosen on UTKFace and on pictures without faces.
UTKFace: tight crops; whether a face is found, by group. Ears: whether a face is seen where there is none. Speed: our
calls and dlib's take turns in one run, on the same threads. Fuzzing: mutated files may be refused with our error, and
must not end, hang or bloat the process.

    python benchmarks/recognition.py --shared data              # everything; about half an hour on two cores
    python benchmarks/recognition.py --shared data --only lfw   # one part; the other figures in the file stay
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track
from scipy.stats import binomtest

from ipse.encoders import AveragedEncoder, DlibFaceEncoder, Encoder
from ipse.errors import ImageError, WeightsError
from ipse.faces import Detector, Face, HogDetector, align
from ipse.gallery.index import Listing, PhotoIndex, Reader
from ipse.images import read_image, resize
from ipse.measure.evidence import Evidence, bootstrap_ci
from ipse.zoo import DLIB_FACE_NETWORK, DLIB_FIVE_POINTS
from ipse.zoo.dlib_format import read_face_network

SEED = 0
_PAD = 56


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, get_context("spawn"))


# -- accuracy --------------------------------------------------------------------------------------------------------


def _dlib() -> Encoder:
    return DlibFaceEncoder(threads=1)


def lfw_photograph(path: str | Path) -> np.ndarray:
    """A crop of LFW as a photograph: with a margin, and twice as large."""
    padded = np.pad(read_image(path), ((_PAD, _PAD), (_PAD, _PAD), (0, 0)), mode="edge")
    return resize(padded, 2 * padded.shape[1], 2 * padded.shape[0])


def middle_face(image: np.ndarray, detector: Detector) -> list[Face]:
    """The face nearest the middle of an image, if any is found: others stand aside."""
    return sorted(detector.detect(image), key=lambda face: _off_middle(face, image))[:1]


def _lfw_vectors(paths: Sequence[str], make_encoder: Callable[[], Encoder]) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Path, plain and mirror-averaged vector of each crop; NaN where no face was found."""
    detector = HogDetector()
    encoder = make_encoder()
    both = AveragedEncoder(encoder)
    out = []
    for path in paths:
        image = lfw_photograph(path)
        faces = middle_face(image, detector)
        chips = align(image, faces, encoder.chip.template)
        nothing = np.full(encoder.dim, np.nan, np.float32)
        out.append((path, encoder.encode(chips)[0], both.encode(chips)[0]) if faces else (path, nothing, nothing))
    return out


def _off_middle(face: Face, image: np.ndarray) -> float:
    """How far a face's middle is from the image's, in pixels."""
    x0, y0, x1, y1 = face.box
    return float(np.hypot(x0 + x1 - image.shape[1], y0 + y1 - image.shape[0]) / 2)


def _in_parallel(
    what: str, work: Callable[[Sequence[str]], list], items: Sequence[str], workers: int, chunk: int = 50
) -> Iterator:
    with _pool(workers) as pool:
        waiting = [pool.submit(work, items[i : i + chunk]) for i in range(0, len(items), chunk)]
        for done in track(as_completed(waiting), total=len(waiting), description=what):
            yield from done.result()


def _accuracy(distance: np.ndarray, same: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Whether each pair is judged rightly by the threshold best on the other folds; NaN distances are errors."""
    right = np.zeros(len(distance), bool)
    there = np.isfinite(distance)
    for test in np.unique(fold):
        train = (fold != test) & there
        candidates = np.sort(distance[train])
        hits = [np.mean((distance[train] <= t) == same[train]) for t in candidates]
        threshold = candidates[int(np.argmax(hits))]
        mine = fold == test
        right[mine] = there[mine] & ((distance[mine] <= threshold) == same[mine])
    return right


def _tar(distance: np.ndarray, same: np.ndarray, far: float) -> float:
    """The share of same pairs accepted, undetected ones not, at the threshold that accepts `far` of the others."""
    impostors = np.sort(distance[~same & np.isfinite(distance)])
    if not len(impostors):
        return np.nan
    threshold = impostors[int(far * len(impostors))]
    return float(np.mean(distance[same] < threshold)) if same.any() else np.nan


def lfw(
    evidence: Evidence,
    shared: Path,
    workers: int,
    prefix: str = "recognition.lfw",
    make_encoder: Callable[[], Encoder] = _dlib,
) -> None:
    """Add accuracy, TAR at FAR 1 % and detection failures of an encoder, which is made anew in every process."""
    with open(shared / "lfw" / "pairs.csv", newline="") as file:
        pairs = list(csv.DictReader(file))
    names = sorted({pair[side] for pair in pairs for side in "ab"})
    root = shared / "lfw" / "images"
    work = partial(_lfw_vectors, make_encoder=make_encoder)
    found = _in_parallel("LFW", work, [str(root / name) for name in names], workers)
    vectors = {str(Path(path).relative_to(root)): (plain, both) for path, plain, both in found}
    same = np.array([pair["same"] == "1" for pair in pairs])
    fold = np.array([int(pair["fold"]) for pair in pairs])
    person = np.array([pair["a"].split("/")[0] for pair in pairs])
    missed = sum(not np.isfinite(plain[0]) for plain, _ in vectors.values())
    evidence.add(f"{prefix}_detection_failures", missed, "pictures", n=len(names), note="each makes its pairs errors")
    for kind, name, note in ((0, "", "one look at each face"), (1, "_flip", "averaged with the mirror image")):
        distance = np.array(
            [np.linalg.norm(vectors[pair["a"]][kind] - vectors[pair["b"]][kind]) for pair in pairs], np.float64
        )
        right = _accuracy(distance, same, fold)
        low, high = bootstrap_ci(right.astype(float), person)
        evidence.add(
            f"{prefix}_accuracy{name}", 100 * right.mean(), "%", n=len(np.unique(person)),
            ci95=(100 * low, 100 * high), note=f"{len(pairs)} pairs, {note}; undetected faces are errors",
        )  # fmt: skip
        rows = np.stack([distance, same], 1)

        def tar(sample: np.ndarray) -> float:
            return 100 * _tar(sample[:, 0], sample[:, 1] == 1, 0.01)

        low, high = bootstrap_ci(rows, person, statistic=tar, n=500)
        evidence.add(f"{prefix}_tar_far1{name}", tar(rows), "%", n=len(np.unique(person)), ci95=(low, high), note=note)


_AGES = ((3, "0-2"), (13, "3-12"), (20, "13-19"), (40, "20-39"), (60, "40-59"), (999, "60+"))


def _scores(paths: Sequence[str]) -> list[tuple[str, float | None]]:
    """Path and score of the surest face of each picture; None where no face was found."""
    detector = HogDetector()
    faces = [(path, detector.detect(read_image(path))) for path in paths]
    return [(path, found[0].score if found else None) for path, found in faces]


def utkface(evidence: Evidence, shared: Path, workers: int, sample: int) -> None:
    """Add how many faces are found, over all and by group, and how often one is seen where there is none."""
    files = sorted(str(path) for path in (shared / "utkface").glob("*.jpg") if len(path.name.split("_")) == 4)
    chosen = random.Random(SEED).sample(files, min(sample, len(files)))
    scores = dict(_in_parallel("UTKFace", _scores, chosen, workers))
    genders, races = ("male", "female"), ("white", "black", "asian", "indian", "other")
    groups: dict[str, list[float | None]] = {}
    for path, score in scores.items():
        age, gender, race = (int(part) for part in Path(path).name.split("_")[:3])
        band = next(label for top, label in _AGES if age < top)
        for group in ("", f".gender.{genders[gender]}", f".race.{races[race]}", f".age.{band}"):
            groups.setdefault(group, []).append(score)
    whole = "tight crops of 128 px, as they are; how sure a lone large face must be was chosen on pictures of this set"
    for group, found in sorted(groups.items()):
        for figure, hits, note in (
            ("detection", [score is not None for score in found], whole),
            ("detection_sure", [score is not None and score >= 0 for score in found], "from dlib's own limit on"),
        ):
            evidence.add(
                f"recognition.utkface_{figure}{group}", 100 * float(np.mean(hits)), "%", n=len(hits),
                ci95=_share_ci(sum(hits), len(hits)), note=note if not group else "",
            )  # fmt: skip
    ears = sorted(str(path) for path in (shared / "awe_ears").glob("*/*.png"))
    seen = [score is not None for _, score in _in_parallel("ears", _scores, ears, workers)]
    people = np.array([Path(path).parent.name for path in ears])
    low, high = bootstrap_ci(np.array(seen, float), people)
    evidence.add(
        "recognition.false_faces", 100 * float(np.mean(seen)), "%", n=len(np.unique(people)),
        ci95=(100 * low, 100 * high), note=f"{len(ears)} close pictures of ears in which a face was seen",
    )  # fmt: skip


def _share_ci(hits: int, count: int) -> tuple[float, float]:
    """The exact 95 % interval of a share (Clopper and Pearson 1934), in per cent: it has a width even at 100 %."""
    interval = binomtest(hits, count).proportion_ci(0.95)
    return 100 * interval.low, 100 * interval.high


# -- speed -----------------------------------------------------------------------------------------------------------


def _some_chips(shared: Path, count: int) -> np.ndarray:
    detector = HogDetector(small_faces="never")
    chips: list[np.ndarray] = []
    for path in sorted((shared / "photos").rglob("*.jpg")):
        image = read_image(path)
        chips += list(align(image, detector.detect(image)))
    return np.stack([chips[i % len(chips)] for i in range(count)])


def encode_speed(evidence: Evidence, shared: Path, rounds: int = 7, count: int = 32) -> None:
    """Add encoding beside dlib's, one thread each, in turns."""
    import dlib

    chips = _some_chips(shared, count)
    ours = DlibFaceEncoder(threads=1)
    theirs = dlib.face_recognition_model_v1(str(DLIB_FACE_NETWORK.path()))
    ours.encode(chips[:2])
    theirs.compute_face_descriptor(chips[0])
    our_ms, their_ms = [], []
    for _ in track(range(rounds), description="encoding"):
        start = time.process_time()
        mine = ours.encode(chips)
        our_ms.append(1000 * (time.process_time() - start) / count)
        start = time.process_time()
        their = [theirs.compute_face_descriptor(chip) for chip in chips[: count // 4]]
        their_ms.append(1000 * (time.process_time() - start) / len(their))
        assert np.abs(mine[: len(their)] - np.array(their)).max() < 1e-3
    ratios = np.array(their_ms) / np.array(our_ms)
    evidence.add(
        "recognition.encode_speedup_vs_dlib", float(np.median(ratios)), "x", n=rounds,
        ci95=(float(ratios.min()), float(ratios.max())),
        note=f"processor time, one thread each: ours in batches of {ours.batch_size}, dlib's one by one as its Python "
        "call takes them; median and range of runs in turns; the vectors are equal",
    )  # fmt: skip
    evidence.add(
        "recognition.encode_ms", float(np.median(our_ms)), "ms/face", n=rounds,
        against=("dlib", float(np.median(their_ms))), note="one thread",
    )  # fmt: skip


_dlib_parts: tuple | None = None


def _dlib_photo(path: str, upsample: int) -> int:
    """The faces of a photograph by dlib's Python calls, as the package face_recognition makes them."""
    import dlib

    global _dlib_parts
    if _dlib_parts is None:
        _dlib_parts = (
            dlib.get_frontal_face_detector(),
            dlib.shape_predictor(str(DLIB_FIVE_POINTS.path())),
            dlib.face_recognition_model_v1(str(DLIB_FACE_NETWORK.path())),
        )
    find, points, network = _dlib_parts
    image = np.array(Image.open(path).convert("RGB"))
    return len([network.compute_face_descriptor(image, points(image, box)) for box in find(image, upsample)])


def _by_dlib(files: Sequence[str], upsample: int, workers: int) -> tuple[float, int]:
    start = time.perf_counter()
    with _pool(workers) as pool:
        faces = sum(pool.map(_dlib_photo, files, [upsample] * len(files)))
    return time.perf_counter() - start, faces


def _by_ipse(folder: Path, workers: int) -> tuple[float, int]:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch, PhotoIndex(Path(scratch, "index.sqlite"), Reader()) as index:
        run = index.update(Listing([folder]), workers=workers)
        faces = sum(len(photo.reading.faces) for photo in index.photos(run))
    return time.perf_counter() - start, faces


def index_speed(evidence: Evidence, shared: Path, workers: int, rounds: int = 3, copies: int = 8) -> None:
    """Add indexing of a folder beside the same by dlib's Python calls, each in as many processes."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sources = [p for p in sorted((shared / "photos").rglob("*")) if p.suffix in (".jpg", ".jpeg", ".png")] * copies
        for number, source in enumerate(sources):
            # Equal files would be read once.
            (folder / f"{number:03}{source.suffix}").write_bytes(source.read_bytes() + number.to_bytes(2, "big"))
        files = sorted(str(path) for path in folder.iterdir())
        times: dict[str, list[float]] = {"ours": [], "as face_recognition": [], "without enlarging": []}
        faces = {}
        for _ in track(range(rounds), description="indexing"):
            for name, run in (
                ("ours", lambda: _by_ipse(folder, workers)),
                ("as face_recognition", lambda: _by_dlib(files, 1, workers)),
                ("without enlarging", lambda: _by_dlib(files, 0, workers)),
            ):
                seconds, faces[name] = run()
                times[name].append(seconds)
    ours = np.array(times["ours"])
    said = {
        "as face_recognition": "on the whole photograph enlarged once, as face_recognition does by default",
        "without enlarging": "on the whole photograph as it is, which overlooks more small faces",
    }
    for figure, name in (
        ("recognition.index_speedup_vs_dlib", "as face_recognition"),
        ("recognition.index_speedup_vs_dlib_without_enlarging", "without enlarging"),
    ):
        ratios = np.array(times[name]) / ours
        evidence.add(
            figure, float(np.median(ratios)), "x", n=len(files), ci95=(float(ratios.min()), float(ratios.max())),
            note=f"{workers} processes each, one thread a process, start included; median and range of {rounds} "
            f"runs in turns. dlib's Python calls {said[name]}: {faces[name]} faces; ours, written to the index with "
            f"crops and quality: {faces['ours']}",
        )  # fmt: skip
    evidence.add(
        "recognition.index_photos_per_s", len(files) / float(np.median(ours)), "photos/s", n=len(files),
        note=f"{workers} processes, photographs of 0.1 to 3 megapixels, {faces['ours']} faces",
    )  # fmt: skip


# -- memory ----------------------------------------------------------------------------------------------------------

_INDEX_FOLDER = """
import resource, sys
from pathlib import Path
from ipse.gallery.index import Listing, PhotoIndex, Reader
if __name__ == "__main__":
    folder, file, workers = sys.argv[1:]
    with PhotoIndex(file, Reader()) as index:
        run = index.update(Listing([Path(folder)]), workers=int(workers))
        faces = sum(len(photo.reading.faces) for photo in index.photos(run))
    parts = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(faces, *parts)
"""


def memory(evidence: Evidence, shared: Path, workers: int, few: int = 40, many: int = 400) -> None:
    """Add the growth of peak memory with the size of the folder."""
    peaks, done = [], []
    source = read_image(shared / "photos" / "more" / "two_people.jpg")
    small = resize(source, 480, round(480 * source.shape[0] / source.shape[1]))
    for count in (few, many):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch, "photos")
            folder.mkdir()
            for number in range(count):
                out = io.BytesIO()
                Image.fromarray(small).save(out, "JPEG", quality=90)
                (folder / f"{number:05}.jpg").write_bytes(out.getvalue() + number.to_bytes(3, "big"))
            script = Path(scratch, "run.py")
            script.write_text(_INDEX_FOLDER)
            command = [sys.executable, str(script), str(folder), str(Path(scratch, "index")), str(workers)]
            faces, main, child = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
            peaks.append(float(main) + workers * float(child))
            done.append(int(faces))
    evidence.add(
        "recognition.index_memory_growth", peaks[1] / peaks[0], "x", n=many,
        note=f"peak memory of all processes for {many} photographs ({peaks[1]:.0f} MB, {done[1]} faces) over that for "
        f"{few} ({peaks[0]:.0f} MB)",
    )  # fmt: skip


# -- fuzzing ---------------------------------------------------------------------------------------------------------

_SLOW, _BLOATED_KB = 10, 1_500_000
_LAYERS = re.compile(rb"con_4|affine_|relu_|max_pool_2|avg_pool_2|add_prev_|fc_2|input_rgb")


class _Hang(BaseException):
    pass


def _on_alarm(*_: object) -> None:
    raise _Hang


def _mutated(data: bytes, rng: random.Random, places: Sequence[int] = ()) -> bytes:
    """A file with some bytes overwritten, cut out, repeated, or its end cut off; near `places` where they are given."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not out:
            break
        near = rng.choice(places) + rng.randint(-64, 64) if places else rng.randrange(len(out))
        if not places and rng.random() < 0.5:
            near = rng.randrange(min(len(out), 128))  # headers decide most
        at = min(len(out) - 1, max(0, near))
        size = rng.randint(1, 8)
        kind = rng.randrange(6)
        if kind == 0:
            out[at : at + size] = rng.randbytes(len(out[at : at + size]))
        elif kind == 1:
            out[at : at + size] = bytes([rng.choice((0, 1, 8, 0x7F, 0x80, 0x88, 0xFF))] * len(out[at : at + size]))
        elif kind == 2:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 3:
            del out[at : at + rng.randint(1, 200)]
        elif kind == 4:
            out[at:at] = out[at : at + rng.randint(1, 200)]
        elif rng.random() < 0.3:
            del out[at:]
    return bytes(out)


def _image_seeds() -> list[bytes]:
    """A small picture in every format that is read, and in the forms that break readers."""
    y, x = np.mgrid[:48, :64]
    rgb = np.stack([x * 4, y * 5, (x * y) % 256], 2).astype(np.uint8)
    picture = Image.fromarray(rgb)
    gray16 = Image.fromarray((x * y * 20).astype(np.uint16))
    forms: list[tuple[Image.Image, str, dict]] = [
        (picture, "JPEG", {}), (picture, "JPEG", {"progressive": True}), (picture.convert("CMYK"), "JPEG", {}),
        (picture, "PNG", {}), (gray16, "PNG", {}), (picture.convert("P"), "PNG", {}),
        (picture.convert("RGBA"), "PNG", {}),
        (picture, "GIF", {"save_all": True, "append_images": [picture.rotate(90)]}), (picture, "WEBP", {}),
        (picture, "WEBP", {"lossless": True}), (picture, "TIFF", {}), (picture, "TIFF", {"compression": "tiff_lzw"}),
        (gray16, "TIFF", {}), (picture, "BMP", {}), (picture, "PPM", {}), (picture, "JPEG2000", {}),
        (picture, "AVIF", {}),
        (picture, "TGA", {}), (picture, "ICO", {}), (picture, "PCX", {}), (picture, "SGI", {}),
    ]  # fmt: skip
    seeds = []
    for image, kind, options in forms:
        out = io.BytesIO()
        image.save(out, kind, **options)
        seeds.append(out.getvalue())
    return seeds


def _fuzz_some(reader: str, numbers: Sequence[int]) -> tuple[int, list[str]]:
    """How many inputs were refused, and what failed, of the mutated inputs with these numbers."""
    signal.signal(signal.SIGALRM, _on_alarm)
    network = DLIB_FACE_NETWORK.read() if reader == "weights" else b""
    places = [*(match.start() for match in _LAYERS.finditer(network)), 0, 40, 200, len(network) - 4]
    seeds = _image_seeds() if reader == "images" else [network]
    refused, failures = 0, []
    for number in numbers:
        rng = random.Random(number)
        data = _mutated(rng.choice(seeds), rng, places if reader == "weights" else ())
        signal.alarm(_SLOW)
        try:
            (read_image if reader == "images" else read_face_network)(data)
        except (ImageError, WeightsError):
            refused += 1
        except _Hang:
            failures.append(f"{reader} {number}: over {_SLOW} s")
        except BaseException as error:
            failures.append(f"{reader} {number}: {error!r:.200}")
        finally:
            signal.alarm(0)
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > _BLOATED_KB:
        failures.append(f"{reader} {numbers[0]} to {numbers[-1]}: over {_BLOATED_KB // 1000} MB")
    return refused, failures


def _fuzz(reader: str, count: int, workers: int) -> tuple[int, list[str]]:
    """Mutated inputs in processes of their own, so that a crash ends one of them and is counted."""
    refused, failures = 0, []
    chunks = [list(range(start, min(start + 250, count))) for start in range(0, count, 250)]
    queue = [(chunk, True) for chunk in chunks]
    with Console().status(f"fuzzing the reader of {reader}"):
        while queue:
            batch, queue = queue, []
            pool = _pool(workers)
            futures = {pool.submit(_fuzz_some, reader, chunk): chunk for chunk, _ in batch}
            for future, chunk in futures.items():
                try:
                    more, failed = future.result()
                    refused += more
                    failures += failed
                except BrokenProcessPool:
                    if len(chunk) == 1:
                        failures.append(f"{reader} {chunk[0]}: the process ended")
                    else:
                        half = len(chunk) // 2
                        queue += [(chunk[:half], True), (chunk[half:], True)]
            pool.shutdown()
    return refused, failures


def fuzz(evidence: Evidence, count: int, workers: int) -> None:
    """Add the number of mutated inputs that one of the two readers did not survive."""
    results = {reader: _fuzz(reader, count, workers) for reader in ("images", "weights")}
    failures = [failure for _, failed in results.values() for failure in failed]
    for failure in failures:
        Console().print(failure)
    refused = ", ".join(f"{100 * n / count:.0f} % of the {reader}" for reader, (n, _) in results.items())
    evidence.add(
        "recognition.fuzz_failures", len(failures), "inputs", n=2 * count,
        note=f"mutated images of 21 kinds and weight files, {count:,} each: other errors than ours, crashes, over "
        f"{_SLOW} s, over {_BLOATED_KB // 1000} MB; refused were {refused}, the others were read",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("lfw", "utkface", "fuzz", "memory", "encode", "index")
    parser.add_argument("--shared", type=Path, required=True, help="the folder of the data")
    parser.add_argument("--only", choices=parts, nargs="+", default=parts, help="these parts; other figures stay")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sample", type=int, default=4000, help="pictures of UTKFace")
    parser.add_argument("--inputs", type=int, default=10_000, help="mutated inputs for each reader")
    args = parser.parse_args()
    evidence = Evidence("recognition", seeds=[SEED])
    shared, workers = args.shared, args.workers
    work: dict[str, Callable[[], None]] = {
        "lfw": lambda: lfw(evidence, shared, workers),
        "utkface": lambda: utkface(evidence, shared, workers, args.sample),
        "fuzz": lambda: fuzz(evidence, args.inputs, workers),
        "memory": lambda: memory(evidence, shared, workers),
        "encode": lambda: encode_speed(evidence, shared),
        "index": lambda: index_speed(evidence, shared, workers),
    }
    for part in args.only:
        work[part]()
    console = Console()
    console.print(evidence.summary(), highlight=False)
    console.print(f"written: {evidence.write(update=True)}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
