"""Balanced evaluation sets of faces, and the audit of encoders with them (SIG; Nzalasse et al. 2024).

A grid of skin group × gender × age group holds the same number of identities in each cell, and every identity the same
poses. An identity that looks too much like one that is already in, or whose face is not found in all of its pictures,
is left out and replaced by the next one of its cell. `make_set` writes the set, `audit` measures an encoder on it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipse._files import atomic_write
from ipse.catalogue import system
from ipse.encoders import ChipSpec, DlibFaceEncoder, Encoder
from ipse.encoders.contract import fingerprint_of
from ipse.errors import DataError, WorldError
from ipse.faces import Detector, HogDetector, align
from ipse.images import contact_sheet, read_image, resize, rgb_to_lab, save_png
from ipse.measure.evidence import bootstrap_ci
from ipse.measure.verification import (
    GroupRate,
    bootstrap_pairs,
    equal_error_rate,
    fnmr_by_group,
    threshold_at_far,
)
from ipse.world.look import Look, look
from ipse.world.person import (
    AGE_GROUPS,
    GENDER_GROUPS,
    SKIN_GROUPS,
    Person,
    age_group,
    gender_presentation,
    person,
    skin_group,
)
from ipse.world.render import render
from ipse.world.shot import Degrade, shot
from ipse.world.version import VERSION

GRID = ("age", "gender", "skin")
CELLS = len(AGE_GROUPS) * len(GENDER_GROUPS) * len(SKIN_GROUPS)
"""Cells of the grid: 30."""

POSES = (0.0, -30.0, 30.0)
"""Yaw of the face in each picture of an identity, degrees; as in ControlFace10k there are three."""

GROUPINGS = ("group", "skin_group", "gender", "age_group")
"""Columns of the manifest that an audit tells apart; `group` is skin group and gender."""

MANIFEST, LOG, PLAN = "metadata.jsonl", "candidates.jsonl", "sig.json"

# Identities tried for a place in a cell before the threshold is said to be too strict.
_TRIES = 40
#: What every picture leaves to chance is light, background and expression; the rest is the pose's or set here.
_FIXED = {"head.pitch": 0.0, "head.roll": 0.0, "camera.elevation_deg": 0.0, "occluder": None}
_BARE = {"mask": None, "hat": None, "scarf": None}


class PixelEncoder(Encoder):
    """The colors of an aligned face in 16 × 16 fields: a measure of likeness that no network has a part in.

    It learned nothing and needs no weights, so a set filtered by it can be judged by any network. It sees skin, hair
    and light more than features: two faces that it finds alike are alike in a thumbnail.
    """

    name = "pixels-16"
    dim = 3 * 16 * 16
    modality = "face"
    metric = "cosine"
    chip = ChipSpec(150, 150, "dlib150")
    fingerprint = fingerprint_of("pixels-16/1", chip)
    license = "nothing learned"

    def _encode(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        small = np.stack([rgb_to_lab(resize(chip, 16, 16)) for chip in batch])
        # Overall brightness is the light's.
        small[..., 0] -= small[..., 0].mean((1, 2), keepdims=True)
        return small.reshape(len(batch), -1)


def similarity(encoder: Encoder, ours: npt.NDArray[np.floating], theirs: npt.NDArray[np.floating]) -> npt.NDArray[Any]:
    """(N, M) similarity of vectors (N, D) and (M, D): 1 − d²/2, which is the cosine where vectors have length 1."""
    if encoder.metric == "cosine":
        return ours @ theirs.T
    return 1 - distances(ours, theirs) ** 2 / 2


def distances(ours: npt.NDArray[np.floating], theirs: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """(N, M) Euclidean distances of vectors (N, D) and (M, D)."""
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return np.sqrt(np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0))


@dataclass(frozen=True)
class SigPlan:
    """What a set is made of. Equal plans make equal sets.

    Attributes
    ----------
    identities_per_cell
        In each of the 30 cells of skin group × gender × age group.
    poses
        Yaw of the face in each picture, degrees from -45 to 45; the first picture is the one that identities are
        compared by.
    max_similarity
        The most that the first pictures of two identities may have in common; see `similarity`.
    start
        No person below this number is in the set.
    size
        Side of the pictures in pixels.

    Raises
    ------
    WorldError
        When constructed with anything that cannot be.
    """

    identities_per_cell: int = 2
    poses: tuple[float, ...] = POSES
    max_similarity: float = 0.9
    start: int = 0
    size: int = 192

    def __post_init__(self) -> None:
        object.__setattr__(self, "poses", tuple(float(yaw) for yaw in self.poses))
        if self.identities_per_cell < 1:
            raise WorldError(f"There cannot be {self.identities_per_cell} identities in a cell.", "Ask for at least 1.")
        if len(set(self.poses)) < len(self.poses) or not self.poses or max(map(abs, self.poses)) > 45:
            raise WorldError(
                f"The poses {list(self.poses)} cannot be.", "Give different yaws from -45 to 45, such as 0,-30,30."
            )
        if not -1 <= self.max_similarity <= 1:
            raise WorldError(f"The highest similarity is {self.max_similarity}.", "It is a number from -1 to 1.")
        if self.start < 0:
            raise WorldError(f"There is no person number {self.start}.", "Numbers start at 0.")
        if not 96 <= self.size <= 1024:
            raise WorldError(f"A face cannot be judged on {self.size} pixels.", "Choose a size from 96 to 1024.")


@dataclass(frozen=True)
class SigSummary:
    """What `make_set` made.

    Attributes
    ----------
    folder
        Where it is.
    identities, pictures
        How many.
    tried
        Candidates, by what became of them: ``accepted``, ``alike`` (too similar to one that was in) or ``unseen``
        (no face found in one of its pictures).
    unseen
        Candidates whose face was not found, by ``group``.
    max_similarity
        The highest between two identities of the set.
    """

    folder: Path
    identities: int
    pictures: int
    tried: dict[str, int]
    unseen: dict[str, int] = field(repr=False)
    max_similarity: float = float("nan")


@system(
    name="SIG",
    paper="SIG: A Synthetic Identity Generation Pipeline for Generating Evaluation Datasets for Face Recognition",
    year=2024,
    arxiv="2409.08345",
    room="synth",
    claim="A controlled pipeline makes evaluation sets of faces that do not exist, balanced over groups, gender and "
    "age, with set poses, and shows how encoders treat the groups.",
    evidence=("synth.sig.*",),
    works_means="One command emits a set with a manifest in which the cells of group, age and pose are exactly equal "
    "and no two identities are more similar than the threshold; an encoder that had no part in filtering separates "
    "mated from non-mated pairs; a bias planted in an encoder shows in its group and in no other.",
)
def make_set(
    plan: SigPlan,
    out: str | os.PathLike[str],
    *,
    encoder: Encoder | None = None,
    detector: Detector | None = None,
    progress: bool = True,
) -> SigSummary:
    """Write an evaluation set; a run that was cut off is taken up again by the same call.

    The folder holds ``images/<person>/<yaw>.png``, the manifest ``metadata.jsonl`` (which Hugging Face `datasets`
    reads as an image folder), ``candidates.jsonl`` (what became of everybody who was tried), ``sig.json`` (the plan),
    a card ``README.md`` and ``examples.png``.

    Parameters
    ----------
    plan
        What to make.
    out
        The folder.
    encoder
        What identities are compared by; by default the public-domain face network. An encoder that is audited with
        the set should be another.
    detector
        By default `HogDetector`.
    progress
        Show a bar on the error stream.

    Raises
    ------
    DataError
        If the folder holds something else or cannot be written, or if the threshold leaves too few people.
    """
    judge, finder = encoder or DlibFaceEncoder(threads=1), detector or HogDetector()
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _same_plan(folder, _described(plan, judge, finder))
        return _make(plan, folder, judge, finder, progress)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be written: {error.strerror or error}.",
            "Choose a folder that you may write to, with space left; the same call goes on where this one stopped.",
        ) from error


def _described(plan: SigPlan, judge: Encoder, finder: Detector) -> dict[str, Any]:
    filtered = {"encoder": judge.name, "fingerprint": judge.fingerprint, "detector": finder.name}
    return json.loads(json.dumps(asdict(plan) | filtered | {"world_version": VERSION}))


def _same_plan(folder: Path, ours: dict[str, Any]) -> None:
    path = folder / PLAN
    if not path.exists():
        if any(folder.iterdir()):
            raise DataError(f"{folder} is not empty and holds no evaluation set.", "Choose another folder.")
        _write(path, json.dumps(ours, indent=2) + "\n")
        return
    theirs = json.loads(path.read_text())
    if theirs != ours:
        named = "; ".join(f"{k} is {theirs.get(k)!r} there" for k in ours if theirs.get(k) != ours[k])
        raise DataError(f"{folder} holds another set: {named}.", "Choose another folder, or remove this one.")


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file that are whole: the last one of a run that was killed may not be."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return found


def _make(plan: SigPlan, folder: Path, judge: Encoder, finder: Detector, progress: bool) -> SigSummary:
    from rich.console import Console
    from rich.progress import Progress

    log = _lines(folder / LOG)
    _write(folder / LOG, "".join(json.dumps(entry) + "\n" for entry in log))
    decided = {entry["person"]: entry for entry in log}
    numbers: list[int] = []
    vectors: list[npt.NDArray[np.float32]] = []
    rows: list[dict[str, Any]] = []
    places = [cell for _ in range(plan.identities_per_cell) for cell in range(CELLS)]
    # Persons of one cell are 30 numbers apart: see `ipse.world.person`.
    following = {cell: plan.start + cell for cell in range(CELLS)}
    bar = Progress(console=Console(stderr=True), disable=not progress)
    with bar, open(folder / LOG, "a", encoding="utf-8") as file:
        task = bar.add_task("Identities", total=len(places))
        for cell in places:
            for _ in range(_TRIES):
                number = following[cell]
                following[cell] += CELLS
                candidate = _candidate(plan, folder, number, decided.get(number), judge, finder, numbers, vectors)
                if number not in decided:
                    file.write(json.dumps(candidate.entry) + "\n")
                    file.flush()
                    decided[number] = candidate.entry
                if candidate.entry["outcome"] == "accepted":
                    break
            else:
                raise DataError(
                    f"{_TRIES} people in a row were no new identity of the group {candidate.entry['group']}, "
                    f"{candidate.entry['age_group']}.",
                    f"Raise the highest similarity above {plan.max_similarity:g}, or ask for fewer identities.",
                )
            numbers.append(number)
            vectors.append(candidate.vector)
            rows += candidate.rows
            bar.advance(task)
    _write(folder / MANIFEST, "".join(json.dumps(row) + "\n" for row in rows))
    used = [decided[n] for n in decided if n < following[(n - plan.start) % CELLS]]
    alike = similarity(judge, np.stack(vectors), np.stack(vectors))
    np.fill_diagonal(alike, -np.inf)
    summary = SigSummary(
        folder,
        len(numbers),
        len(rows),
        {name: sum(entry["outcome"] == name for entry in used) for name in ("accepted", "alike", "unseen")},
        dict(sorted(Counter(entry["group"] for entry in used if entry["outcome"] == "unseen").items())),
        float(alike.max()),
    )
    save_png(_examples(folder, rows, len(plan.poses)), folder / "examples.png")
    _write(folder / "README.md", _card(plan, judge, summary, rows))
    return summary


@dataclass
class _Candidate:
    entry: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    vector: Any = None


def _candidate(
    plan: SigPlan,
    folder: Path,
    number: int,
    before: Mapping[str, Any] | None,
    judge: Encoder,
    finder: Detector,
    numbers: Sequence[int],
    vectors: Sequence[npt.NDArray[np.float32]],
) -> _Candidate:
    """Try one person: pictures on disk and an entry for the log; from the disk alone where an earlier run did it."""
    who = person(number, balance=GRID)
    about = {
        "person": number,
        "group": f"{skin_group(who)}-{gender_presentation(who)}",
        "skin_group": skin_group(who),
        "gender": gender_presentation(who),
        "age_group": age_group(who),
        "age": round(who.age, 2),
        "skin_tone": round(who.skin.tone, 3),
    }
    if before is not None and before["outcome"] != "accepted":
        return _Candidate(dict(before))
    # Pictures that were lost since are rendered again.
    worn = _worn(who)
    made = _Candidate(about | {"outcome": "accepted", "similarity": None, "to": None})
    for index, yaw in enumerate(plan.poses):
        name = f"images/{number:07d}/{yaw:+03.0f}.png"
        taken = shot(number * 1000 + index, fix=_FIXED | {"head.yaw": yaw}).replace(degrade=Degrade())
        fresh = before is None or not (folder / name).exists()
        image = render(who, worn, taken, size=plan.size).image if fresh else read_image(folder / name)
        box, chip = _face(image, judge, finder)
        if chip is None:
            return _Candidate(made.entry | {"outcome": "unseen"})
        if index == 0:
            made.vector = judge.encode(chip[None])[0]
            if vectors:
                alike = similarity(judge, made.vector[None], np.stack(vectors))[0]
                nearest = int(alike.argmax())
                made.entry |= {"similarity": round(float(alike[nearest]), 6), "to": numbers[nearest]}
                if alike[nearest] >= plan.max_similarity:
                    return _Candidate(made.entry | {"outcome": "alike"})
        if fresh:
            save_png(image, folder / name, {"Software": "ipse", "World": VERSION, "Person": number})
        made.rows.append(
            {
                "file_name": name,
                **about,
                "yaw": yaw,
                "look": 0,
                "shot": number * 1000 + index,
                "face_box": [round(x, 1) for x in box],
                "sha256": hashlib.sha256(image.tobytes()).hexdigest(),
                "world_version": VERSION,
            }
        )
    return made


def _worn(who: Person) -> Look:
    """What the identity wears in all pictures; nothing hides the face."""
    worn = look(0, who, fix=_BARE)
    dark = worn.glasses is not None and worn.glasses.style == "sunglasses"
    return worn.replace(glasses=None) if dark else worn


def _face(image: npt.NDArray[np.uint8], judge: Encoder, finder: Detector) -> tuple[tuple[float, ...], Any]:
    """Box and chip of the face in the middle; the chip is None where there is none."""
    height, width = image.shape[:2]
    for found in finder.detect(image):
        x0, y0, x1, y1 = found.box
        if x0 < width / 2 < x1 and y0 < height / 2 < y1:
            return found.box, align(image, [found], judge.chip.template or "dlib150")[0]
    return (), None


def _examples(folder: Path, rows: Sequence[Mapping[str, Any]], poses: int) -> Any:
    """One identity of every cell in all poses."""
    shown = rows[: CELLS * poses]
    labels = [f"{r['person']}: {r['age']:.0f}, {r['yaw']:+.0f}°\n{r['group']}" for r in shown]
    return contact_sheet([folder / r["file_name"] for r in shown], 5 * poses, labels, cell=(96, 96))


def _card(plan: SigPlan, judge: Encoder, summary: SigSummary, rows: Sequence[Mapping[str, Any]]) -> str:
    unseen = ", ".join(f"{count} {group}" for group, count in summary.unseen.items()) or "nobody"
    lines = [
        "---",
        "pretty_name: balanced evaluation faces",
        "license: other",
        "license_name: generated-no-third-party-rights",
        "tags: [synthetic, faces, evaluation, ipse]",
        "---",
        "",
        "# Balanced evaluation faces",
        "",
        f"{summary.pictures:,} pictures of {summary.identities:,} people who do not exist: {plan.identities_per_cell} "
        f"in each of {CELLS} cells (skin group × gender × age group), each at yaw "
        + ", ".join(f"{yaw:+.0f}°" for yaw in plan.poses)
        + ". For testing face recognition, not for training it.",
        "",
        "![Examples](examples.png)",
        "",
        "| group | " + " | ".join(AGE_GROUPS) + " |",
        "| --- |" + " ---: |" * len(AGE_GROUPS),
    ]
    counts = Counter((row["group"], row["age_group"]) for row in rows)
    for group in sorted({row["group"] for row in rows}):
        lines.append(f"| {group} | " + " | ".join(str(counts[group, age]) for age in AGE_GROUPS) + " |")
    lines += [
        "",
        f"Of {sum(summary.tried.values()):,} people tried, {summary.tried['alike']:,} were left out for their likeness "
        f"to one who was in (the limit is {plan.max_similarity:g} between first pictures, by `{judge.name}`; the "
        f"highest in the set is {summary.max_similarity:.4f}), and {summary.tried['unseen']:,} because their face was "
        f"not found in all poses ({unseen}). `candidates.jsonl` says what became of each.",
        "",
        "`metadata.jsonl` has one line a picture: `file_name`, `person`, `group`, `skin_group`, `gender`, `age_group`, "
        "`age` (years), `skin_tone` (Monk scale, 1 lightest to 10 darkest), `yaw` (degrees, positive to the right "
        "edge), `look`, `shot`, `face_box` (pixels), `sha256` (of the RGB values), `world_version`.",
        "",
        "## Limits",
        "",
        f"- `{judge.name}` chose who is in: that it tells these people apart is no merit of it. Judge it on a set "
        "filtered by another.",
        "- Faces that the detector misses are not in the set, so it cannot show who is missed; the counts above do.",
        "- A person wears the same things in all pictures; light, background and expression differ.",
        "- Rendered faces are not photographs: an error rate here ranks groups and encoders, it is not that of a "
        "system in use.",
        "- Gender is how a body reads, in two values; skin groups are ranges of the Monk scale.",
        "",
    ]
    return "\n".join(lines)


def read_set(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The manifest of a set, checked against its plan: one row per picture.

    Raises
    ------
    DataError
        If there is no whole set, or pictures are missing.
    """
    place = Path(folder)
    if not (place / MANIFEST).exists() or not (place / PLAN).exists():
        raise DataError(f"There is no whole evaluation set in {place}.", "`ipse synth sig --out FOLDER` makes one.")
    rows = _lines(place / MANIFEST)
    plan = json.loads((place / PLAN).read_text())
    wanted = CELLS * plan["identities_per_cell"] * len(plan["poses"])
    missing = [row["file_name"] for row in rows if not (place / row["file_name"]).is_file()]
    if len(rows) != wanted or missing:
        about = f"{missing[0]} is missing" if missing else f"{len(rows)} of {wanted} pictures are listed"
        raise DataError(f"The set in {place} is damaged: {about}.", "Run the command that made it again.")
    return rows


def cell_sizes(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, float], int]:
    """Pictures by group, age group and pose, every cell of the grid included."""
    poses = sorted({row["yaw"] for row in rows})
    counts = Counter((row["group"], row["age_group"], row["yaw"]) for row in rows)
    return {
        (f"{skin}-{gender}", age, yaw): counts[f"{skin}-{gender}", age, yaw]
        for skin in SKIN_GROUPS
        for gender in GENDER_GROUPS
        for age in AGE_GROUPS
        for yaw in poses
    }


def chips(
    folder: str | os.PathLike[str],
    rows: Sequence[Mapping[str, Any]],
    encoder: Encoder,
    detector: Detector | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """The aligned faces of a set: (F, height, width, 3) of those found, and (N,) which of the rows they are."""
    finder = detector or HogDetector()
    found, seen = [], np.zeros(len(rows), bool)
    for index, row in enumerate(rows):
        _, chip = _face(read_image(Path(folder) / row["file_name"]), encoder, finder)
        if chip is not None:
            found.append(chip)
            seen[index] = True
        on_progress(index + 1, len(rows))
    size = (0, encoder.chip.height, encoder.chip.width, 3)
    return (np.stack(found) if found else np.empty(size, np.uint8)), seen


@dataclass(frozen=True)
class Audit:
    """What an encoder does on an evaluation set.

    Attributes
    ----------
    encoder
        Its name.
    held_out
        Whether the set was filtered by another encoder.
    pictures, people, missed
        How many there are, and in how many pictures no face was found.
    mated, non_mated
        Distances of all pairs of one person and of two.
    eer, eer_ci95
        Equal error rate, 0–1, of pairs in which both faces were found, with its 95 % interval over people.
    fmr, threshold
        The false match rate asked for, and the largest distance accepted at it, over all people.
    fnmr
        False non-match rate of everybody at that threshold; a face that was not found does not match.
    by
        The same in each group, by column of the manifest.
    pairs
        (M,) 0 or 1 for each mated pair: whether it is missed at the threshold; `pair_people` (M,) says whose it is, and
        `pair_groups` (M,) by column of the manifest of which group.
    """

    encoder: str
    held_out: bool
    pictures: int
    people: int
    missed: int
    mated: npt.NDArray[np.float64] = field(repr=False)
    non_mated: npt.NDArray[np.float64] = field(repr=False)
    eer: float
    eer_ci95: tuple[float, float]
    fmr: float
    threshold: float
    fnmr: GroupRate
    by: dict[str, dict[str, GroupRate]]
    pairs: npt.NDArray[np.float64] = field(repr=False)
    pair_people: npt.NDArray[np.int64] = field(repr=False)
    pair_groups: dict[str, npt.NDArray[np.str_]] = field(repr=False)

    def excess(self, column: str, group: str) -> tuple[float, tuple[float, float]]:
        """How much more often a group is missed than everybody else, with the 95 % interval over people.

        Of the sixteen groups of an audit, one stands out by chance every other time.

        Parameters
        ----------
        column, group
            Such as ``group`` and ``dark-female``.

        Returns
        -------
        tuple
            The difference of the two false non-match rates, -1 to 1, and the ends of its interval.
        """
        mine = (self.pair_groups[column] == group).astype(float)
        table = np.stack([self.pairs, mine], 1)

        def difference(sample: npt.NDArray[Any]) -> float:
            inside = sample[:, 1] > 0
            if not inside.any() or inside.all():
                return 0.0
            return float(sample[inside, 0].mean() - sample[~inside, 0].mean())

        return difference(table), bootstrap_ci(table, self.pair_people, 1000, statistic=difference)

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values, without the distances."""

        def plain(rate: GroupRate) -> dict[str, Any]:
            return {"fnmr": rate.rate, "ci95": rate.ci95, "pairs": rate.pairs, "people": rate.people}

        def compared(column: str, group: str, rate: GroupRate) -> dict[str, Any]:
            more, interval = self.excess(column, group)
            return plain(rate) | {"more_than_others": more, "more_than_others_ci95": interval}

        return {
            "encoder": self.encoder,
            "held_out": self.held_out,
            "pictures": self.pictures,
            "people": self.people,
            "missed": self.missed,
            "eer": self.eer,
            "eer_ci95": self.eer_ci95,
            "fmr": self.fmr,
            "threshold": self.threshold,
            "all": plain(self.fnmr),
            "by": {
                column: {group: compared(column, group, rate) for group, rate in found.items()}
                for column, found in self.by.items()
            },
        }


def audit(
    folder: str | os.PathLike[str],
    encoder: Encoder | None = None,
    *,
    detector: Detector | None = None,
    fmr: float = 1e-3,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Audit:
    """Measure an encoder on an evaluation set, over all and by group.

    Parameters
    ----------
    folder
        That `make_set` wrote.
    encoder
        By default the public-domain face network.
    detector
        By default `HogDetector`.
    fmr
        False match rate that sets the one threshold for everybody.
    on_progress
        Called with the number of pictures read and their total.

    Raises
    ------
    DataError
        If there is no whole set, or too few pairs for the rate.
    """
    rows = read_set(folder)
    judge = encoder or DlibFaceEncoder(threads=1)
    faces, seen = chips(folder, rows, judge, detector, on_progress)
    vectors = np.full((len(rows), judge.dim), np.nan, np.float32)
    vectors[seen] = judge.encode(faces)
    plan = json.loads((Path(folder) / PLAN).read_text())
    return audit_vectors(rows, vectors, judge.name, held_out=plan["fingerprint"] != judge.fingerprint, fmr=fmr)


def audit_vectors(
    rows: Sequence[Mapping[str, Any]],
    vectors: npt.NDArray[np.floating],
    name: str,
    *,
    held_out: bool,
    fmr: float = 1e-3,
) -> Audit:
    """The audit of vectors (N, D), NaN where no face was found, of the pictures in `rows`; see `audit`."""
    people = np.array([row["person"] for row in rows])
    between = distances(vectors, vectors)
    one, other = np.triu_indices(len(rows), 1)
    alike = people[one] == people[other]
    distance = between[one, other]
    known = np.isfinite(distance)
    mated, non_mated = distance[alike & known], distance[~alike & known]
    try:
        threshold = threshold_at_far(non_mated, fmr)
        eer = equal_error_rate(mated, non_mated)
    except ValueError as error:
        raise DataError(
            f"The set is too small for this audit: {error}", "Make a larger one, or ask for a higher rate."
        ) from error
    pairs = np.stack([people[one], people[other]], 1)
    interval = bootstrap_pairs(
        mated, people[one][alike & known], non_mated, pairs[~alike & known], equal_error_rate, 100
    )
    # A face that was not found matches nobody.
    same = np.where(known, distance, np.inf)[alike]
    whose, first = people[one][alike], one[alike]
    groups = {column: np.array([rows[i][column] for i in first]) for column in GROUPINGS}
    return Audit(
        encoder=name,
        held_out=held_out,
        pictures=len(rows),
        people=len(np.unique(people)),
        missed=int(np.isnan(vectors[:, 0]).sum()),
        mated=mated,
        non_mated=non_mated,
        eer=eer,
        eer_ci95=interval,
        fmr=fmr,
        threshold=threshold,
        fnmr=fnmr_by_group(same, np.full(len(same), "all"), whose, threshold)["all"],
        by={column: _in_order(fnmr_by_group(same, group, whose, threshold)) for column, group in groups.items()},
        pairs=(same > threshold).astype(float),
        pair_people=whose,
        pair_groups=groups,
    )


def _in_order(rates: dict[str, GroupRate]) -> dict[str, GroupRate]:
    """Groups from light to dark and from young to old, and not by their letters."""
    order = [*SKIN_GROUPS, *GENDER_GROUPS, *AGE_GROUPS]
    return {
        group: rates[group] for group in sorted(rates, key=lambda group: [order.index(p) for p in group.split("-")])
    }


def plot_audit(found: Audit, path: str | os.PathLike[str]) -> Path:
    """Draw the distances of mated and non-mated pairs and the miss rates of the groups, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    scores, groups = figure.subplots(1, 2)
    edges = np.linspace(0, max(found.mated.max(), found.non_mated.max()), 60)
    for values, label in ((found.mated, "one person"), (found.non_mated, "two people")):
        scores.hist(values, edges, density=True, alpha=0.6, label=f"{label} ({len(values):,} pairs)")
    scores.axvline(found.threshold, color="black", linestyle="--", label=f"threshold at FMR {found.fmr:g}")
    scores.set(xlabel="distance", ylabel="density", title=f"{found.encoder}: equal error rate {found.eer:.1%}")
    scores.legend(fontsize=8)
    bars = [(group, rate) for column in GROUPINGS for group, rate in found.by[column].items()]
    for place, (_, rate) in enumerate(bars):
        low, high = rate.ci95 or (rate.rate, rate.rate)
        ends = np.maximum([[rate.rate - low], [high - rate.rate]], 0)
        groups.errorbar(100 * rate.rate, place, xerr=100 * ends, fmt="o", color="C0")
    groups.axvline(100 * found.fnmr.rate, color="gray", linestyle=":", label="everybody")
    groups.set_yticks(range(len(bars)), [group for group, _ in bars], fontsize=8)
    groups.invert_yaxis()
    groups.set(xlabel="missed pairs of one person, % (95 % over people)", title="By group, one threshold for all")
    groups.legend(fontsize=8)
    place = Path(path)
    try:
        with atomic_write(place) as file:
            figure.savefig(file, format="png", dpi=120)
    except OSError as error:
        raise DataError(f"{place} cannot be written: {error.strerror or error}.", "Choose another place.") from error
    return place


def controlface(folder: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The pictures of a copy of ControlFace10k, in the columns of a manifest.

    Its files are called ``r<race>_g<gender>_a<age>_o<orientation>_c<characters>.png`` and lie in a folder
    ``identity-<uuid>`` for each identity (the data set's card).

    Raises
    ------
    DataError
        If there are no such files.
    """
    import re

    races = ("African", "Asian", "Caucasian", "Indian")
    genders = ("female", "male")
    form = re.compile(r"r([0-3])_g([01])_a(\d+)_o(\d+)_c?\w+\.(?:png|jpe?g)$", re.IGNORECASE)
    place, some = Path(folder), False
    for path in sorted(place.rglob("identity-*/*")):
        read = form.match(path.name)
        if read:
            some = True
            race, gender = races[int(read[1])], genders[int(read[2])]
            yield {
                "file_name": path.relative_to(place).as_posix(),
                "person": path.parent.name.removeprefix("identity-"),
                "group": f"{race}-{gender}",
                "race": race,
                "gender": gender,
                "age": int(read[3]),
                "orientation": int(read[4]),
            }
    if not some:
        raise DataError(f"There is no copy of ControlFace10k in {place}.", "Name the folder that holds its groups.")
