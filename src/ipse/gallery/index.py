"""From photographs to vectors: every face in a folder, found once and remembered.

`PhotoIndex` is a file that knows the faces of every photograph and video it has seen, by the hash of their content: a
folder that has not changed is read in no time, a renamed file is not read again, a run that was killed goes on where it
stopped. `Reader` does the work on one file: decode, detect, align, judge, encode.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from ipse import images
from ipse.encoders import DlibFaceEncoder, Encoder
from ipse.errors import DataError, ImageError
from ipse.faces import Detector, Face, HogDetector, align, assess
from ipse.gallery.video import sampled_frames
from ipse.images import IMAGE_SUFFIXES

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".3gp"})
"""File name endings, lower case, that are taken for videos."""

# Pictures that phones and cameras write but that cannot be read: said file by file, not counted among the others.
_UNREADABLE_SUFFIXES = frozenset({".heic", ".heif"})

# Changes whenever the same file would give other rows.
_FORMAT = 2
# A JPEG beyond this is decoded at half its size: the detector would not find smaller faces in the whole.
_ENOUGH_PIXELS = 10_000_000
# How much crops show around the face's box.
_CROP_PAD = 0.35
# Photographs that a process reads before it encodes their faces together.
_CHUNK = 8
# Faces of a video that are encoded together; chips are large, and videos long.
_VIDEO_BATCH = 32
# Below this many files, starting processes costs more than it saves.
_FEW = 16
# What is no property of the content, and so is tried again the next time.
_PASSING = frozenset({"missing", "unreadable", "directory", "needs-pyav", "failed", "changed"})


@dataclass(frozen=True, eq=False)
class FaceRecord:
    """A face in a photograph or in a frame of a video.

    Attributes
    ----------
    box
        (left, top, right, bottom) in pixels of the picture as it was read.
    score
        The detector's.
    quality
        0–1, see `ipse.faces.Quality`.
    reasons
        Why the face is poor, in plain sentences.
    vector
        (D,) float32.
    crop
        The face as a small JPEG.
    time
        Seconds from the start of a video; None in a photograph.
    """

    box: tuple[float, float, float, float]
    score: float
    quality: float
    reasons: tuple[str, ...]
    vector: npt.NDArray[np.float32]
    crop: bytes
    time: float | None = None


@dataclass(frozen=True, eq=False)
class Reading:
    """What is in one file.

    Attributes
    ----------
    width, height
        Of the picture as it was read, pixels; 0 where it could not be.
    seconds
        Length of a video; None for a photograph.
    step
        Seconds between the frames that were looked at; None for a photograph.
    reason, problem
        Why the file could not be used: a code for programs and a sentence for people; empty if all is well.
    faces
        Surest first; in a video by time.
    """

    width: int = 0
    height: int = 0
    seconds: float | None = None
    step: float | None = None
    reason: str = ""
    problem: str = ""
    faces: Sequence[FaceRecord] = ()


@dataclass(frozen=True, eq=False)
class Photo:
    """A file and what is in it.

    Attributes
    ----------
    path
        The file.
    sha256
        Of its content; empty where it could not be read.
    reading
        What is in it.
    """

    path: Path
    sha256: str
    reading: Reading


@dataclass(frozen=True)
class Entry:
    """A file to be read, or the reason why a place cannot be looked at.

    Attributes
    ----------
    path
        File or folder.
    kind
        ``"photo"``, ``"video"`` or ``"problem"``.
    problem
        For a problem, what it is.
    """

    path: Path
    kind: Literal["photo", "video", "problem"]
    problem: str = ""


@dataclass
class Listing:
    """Photographs and videos named by the user: files, and all that is in folders and their subfolders.

    Iterating walks anew, in the same order on every machine; it never raises. Files that are neither photographs nor
    videos by their name are counted in `others` (by suffix), except where they were named themselves.

    Attributes
    ----------
    places
        Files and folders.
    others
        How many files of other kinds the last walk passed over, by suffix.
    """

    places: Sequence[Path]
    others: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Entry]:
        self.others = Counter()
        seen: set[str] = set()
        for place in self.places:
            for entry in self._walk(place) if place.is_dir() else [Entry(place, _kind(place) or "photo")]:
                # One file named twice, or by its folder too.
                key = os.path.abspath(entry.path)
                if len(self.places) == 1 or key not in seen:
                    yield entry
                if len(self.places) > 1:
                    seen.add(key)

    def _walk(self, root: Path) -> Iterator[Entry]:
        barred: list[Entry] = []

        def cannot_list(error: OSError) -> None:
            text = f"The folder cannot be opened: {error.strerror}. Check its permissions."
            barred.append(Entry(Path(error.filename), "problem", text))

        for parent, folders, files in os.walk(root, onerror=cannot_list):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield from barred
            barred.clear()
            for name in sorted(files):
                if name.startswith("."):
                    continue
                path = Path(parent, name)
                kind = _kind(path)
                if kind:
                    yield Entry(path, kind)
                else:
                    self.others[path.suffix.lower()] += 1
        yield from barred


def _kind(path: Path) -> Literal["photo", "video"] | None:
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return "video"
    return "photo" if suffix in IMAGE_SUFFIXES or suffix in _UNREADABLE_SUFFIXES else None


class Reader:
    """Finds and encodes the faces of files. It can be sent to other processes.

    With an encoder of bodies, every picture is taken for the crop of one body.

    Parameters
    ----------
    encoder
        By default `DlibFaceEncoder` on one thread.
    detector
        By default `HogDetector`.
    every
        Seconds between the frames of a video that are looked at.
    crop_side
        Side in pixels of the crops that are kept: small for reports, larger where they may be encoded again.
    """

    def __init__(
        self,
        encoder: Encoder | None = None,
        detector: Detector | None = None,
        *,
        every: float = 1.0,
        crop_side: int = 112,
    ) -> None:
        if not every > 0:
            raise ValueError(f"Frames of a video are some time apart, not {every} s.")
        self.encoder = encoder or DlibFaceEncoder(threads=1)
        self.detector = detector or HogDetector()
        self.every = every
        self.crop_side = crop_side

    @property
    def settings(self) -> str:
        """What decides the result besides the file; equal settings give equal readings."""
        options = _options(self.detector)
        ours = [_FORMAT, self.encoder.fingerprint, self.detector.name, options, self.every, self.crop_side]
        return json.dumps(ours, sort_keys=True)

    def read(self, entry: Entry) -> Reading:
        """What is in one file; see `read_all`."""
        return self.read_all([entry])[0]

    def read_all(self, entries: Sequence[Entry]) -> list[Reading]:
        """What is in some files; their faces are encoded together.

        No content of a file raises an error: what is wrong is said in the reading.
        """
        read = [self._read(entry) for entry in entries]
        vectors = iter(self.encoder.encode([chip for _, chips in read for chip in chips]))
        return [
            replace(reading, faces=[replace(face, vector=next(vectors)) for face in reading.faces])
            if chips
            else reading
            for reading, chips in read
        ]

    def _read(self, entry: Entry) -> tuple[Reading, list[np.ndarray]]:
        """A photograph's reading whose faces have no vectors yet, and their chips; a video's is complete."""
        try:
            if entry.kind == "problem":
                raise ImageError(entry.problem, reason="unreadable")
            if entry.kind == "video":
                return self._read_video(entry.path), []
            image = decoded(entry.path)
            faces, chips = self._faces(image, None)
            return Reading(image.shape[1], image.shape[0], faces=faces), chips
        except ImageError as error:
            return Reading(reason=error.reason, problem=_about_the_file(str(error), entry.path)), []
        except Exception as error:
            # One file must not stop the run of a hundred thousand; what is wrong with it is still said.
            return Reading(reason="failed", problem=f"Reading it failed: {type(error).__name__}: {error}."), []

    def _read_video(self, path: Path) -> Reading:
        width = height = 0
        seconds = 0.0
        faces: list[FaceRecord] = []
        waiting: list[FaceRecord] = []
        chips: list[np.ndarray] = []

        def encode() -> None:
            faces.extend(replace(f, vector=v) for f, v in zip(waiting, self.encoder.encode(chips), strict=True))
            waiting.clear()
            chips.clear()

        for time, image in sampled_frames(path, self.every):
            height, width = image.shape[:2]
            seconds = time
            more, more_chips = self._faces(image, time)
            waiting += more
            chips += more_chips
            if len(chips) >= _VIDEO_BATCH:
                encode()
        encode()
        return Reading(width, height, seconds + self.every, self.every, faces=faces)

    def _faces(self, image: np.ndarray, time: float | None) -> tuple[list[FaceRecord], list[np.ndarray]]:
        if self.encoder.modality == "body":
            return self._body(image, time)
        records, chips = [], []
        template = self.encoder.chip.template or "dlib150"
        for face in self.detector.detect(image):
            near, moved = _surroundings(image, face)
            chip = align(near, [moved], template)
            chips.append(chip[0])
            quality = assess(near, [moved], chip if template == "dlib150" else None)[0]
            empty = np.empty(0, np.float32)
            crop = face_crop(near, moved, self.crop_side)
            records.append(FaceRecord(face.box, face.score, quality.overall, quality.reasons, empty, crop, time))
        return records, chips

    def _body(self, image: np.ndarray, time: float | None) -> tuple[list[FaceRecord], list[np.ndarray]]:
        """The whole picture as one body: nothing here finds bodies, so pictures are crops of them."""
        height, width = image.shape[:2]
        whole = Face((0.0, 0.0, width - 1.0, height - 1.0), 1.0, np.empty((0, 2), np.float32))
        crop = face_crop(image, whole, self.crop_side)
        record = FaceRecord(whole.box, whole.score, 1.0, (), np.empty(0, np.float32), crop, time)
        return [record], [images.resize(image, self.encoder.chip.width, self.encoder.chip.height)]


def _options(detector: Detector) -> dict[str, object]:
    """What a detector was made with, and the detectors inside it."""
    public = {k: v for k, v in vars(detector).items() if not k.startswith("_")}
    inside = {k: _options(v) for k, v in public.items() if isinstance(v, Detector)}
    return {k: v for k, v in public.items() if isinstance(v, int | float | str | None)} | inside


def decoded(path: Path) -> np.ndarray:
    """A photograph as an (H, W, 3) uint8 RGB array, huge JPEGs decoded smaller.

    Raises
    ------
    ImageError
        If the file cannot be used.
    """
    try:
        return images.read_image(path, max_pixels=_ENOUGH_PIXELS)
    except ImageError as error:
        if error.reason != "too-large":
            raise
    return images.read_image(path)


def _about_the_file(message: str, path: Path) -> str:
    """A message that holds for any file of the same content."""
    return message.replace(str(path), "The file")


def _surroundings(image: np.ndarray, face: Face) -> tuple[np.ndarray, Face]:
    """The part of an image around a face, and the face there: what follows need not touch the whole photograph."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = face.box
    reach = max(x1 - x0, y1 - y0)
    # Whole steps of 32 keep the grid on which `align` halves the image.
    left, top = (max(0, int(v - reach)) // 32 * 32 for v in (x0, y0))
    right, bottom = min(width, int(x1 + reach) + 1), min(height, int(y1 + reach) + 1)
    offset = np.array([left, top], np.float32)
    box = (x0 - left, y0 - top, x1 - left, y1 - top)
    return image[top:bottom, left:right], replace(face, box=box, landmarks=face.landmarks - offset)


def face_crop(image: np.ndarray, face: Face, side: int) -> bytes:
    """A face with some of what is around it, as a square JPEG of `side` pixels."""
    x0, y0, x1, y1 = face.box
    middle, half = ((x0 + x1) / 2, (y0 + y1) / 2), max(x1 - x0, y1 - y0) * (0.5 + _CROP_PAD)
    square = (middle[0] - half, middle[1] - half, middle[0] + half, middle[1] + half)
    cut = images.resize(images.crop(image, square, fill=128), side, side)
    out = io.BytesIO()
    Image.fromarray(cut).save(out, "JPEG", quality=85)
    return out.getvalue()


_SCHEMA = """
CREATE TABLE IF NOT EXISTS contents (
    sha256 TEXT PRIMARY KEY, settings TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    seconds REAL, step REAL, reason TEXT NOT NULL, problem TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS faces (
    sha256 TEXT NOT NULL, time REAL, x0 REAL, y0 REAL, x1 REAL, y1 REAL, score REAL, quality REAL, reasons TEXT,
    vector BLOB NOT NULL, crop BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS faces_of_content ON faces (sha256);
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY, size INTEGER, modified INTEGER, sha256 TEXT NOT NULL, reason TEXT NOT NULL,
    problem TEXT NOT NULL, run INTEGER NOT NULL, place INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS files_of_run ON files (run, place);
CREATE INDEX IF NOT EXISTS files_of_content ON files (sha256);
"""


class PhotoIndex:
    """The faces of all photographs and videos seen so far.

    One SQLite file. Work is stored as it is done, so that a killed process loses the last few files only; several
    processes may use it at once. It holds faces: keep it as you keep the photographs.

    Parameters
    ----------
    path
        The file, made if there is none; None keeps everything in memory.
    reader
        What reads files. What another reader with other settings found is read again.

    Raises
    ------
    DataError
        If the file cannot be opened or is no index.
    """

    def __init__(self, path: str | os.PathLike[str] | None, reader: Reader) -> None:
        self.path = None if path is None else Path(path)
        self.reader = reader
        try:
            self._db = sqlite3.connect(":memory:" if path is None else os.fspath(path), timeout=60)
            # What is deleted is overwritten.
            self._db.execute("PRAGMA secure_delete = ON")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise DataError(
                f"{path} cannot be used as an index of photographs: {error}.", "Delete it: it will be made anew."
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> PhotoIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(
        self,
        listing: Iterable[Entry],
        *,
        workers: int | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Read what is new or has changed.

        Parameters
        ----------
        listing
            Files; walked twice, so it must not be an iterator.
        workers
            Processes that read; None for one per core. A few files are read in this process.
        on_progress
            Called with the number of files done and of all.

        Returns
        -------
        int
            The number of this run, to be handed to `photos`.
        """
        total = sum(1 for _ in listing)
        workers = workers or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()) or 1
        run = 1 + (self._db.execute("SELECT max(run) FROM files").fetchone()[0] or 0)
        state = _Progress(total, on_progress)
        tasks = self._unknown(listing, run, state)
        with _Pool(self.reader, 1 if total <= _FEW else workers) as pool:
            for done in pool.run(tasks):
                for task, reading in done:
                    self._store(task, reading, run)
                self._db.commit()
                state.add(len(done))
        self._db.commit()
        return run

    def photos(self, run: int) -> Iterator[Photo]:
        """What a run has seen, in the order of its listing."""
        rows = self._db.execute(
            "SELECT f.path, f.sha256, f.reason, f.problem, c.width, c.height, c.seconds, c.step, c.reason, c.problem "
            "FROM files f LEFT JOIN contents c ON c.sha256 = f.sha256 WHERE f.run = ? ORDER BY f.place",
            (run,),
        )
        for path, sha256, reason, problem, width, height, seconds, step, content_reason, content_problem in rows:
            reading = Reading(
                width or 0,
                height or 0,
                seconds,
                step,
                reason or content_reason or "",
                problem or content_problem or "",
                self._faces(sha256) if sha256 else (),
            )
            yield Photo(Path(os.fsdecode(path)), sha256, reading)

    def _faces(self, sha256: str) -> list[FaceRecord]:
        rows = self._db.execute(
            "SELECT x0, y0, x1, y1, score, quality, reasons, vector, crop, time FROM faces WHERE sha256 = ? "
            "ORDER BY rowid",
            (sha256,),
        )
        return [
            FaceRecord(
                (x0, y0, x1, y1),
                score,
                quality,
                tuple(json.loads(reasons)),
                np.frombuffer(vector, np.float32),
                crop,
                time,
            )
            for x0, y0, x1, y1, score, quality, reasons, vector, crop, time in rows
        ]

    def drop_missing(self, folder: str | os.PathLike[str], run: int) -> None:
        """Forget the files of a folder that a run has not seen any more, and their faces."""
        prefix = os.fsencode(os.path.join(os.path.abspath(folder), ""))
        self._db.execute("DELETE FROM files WHERE run < ? AND substr(path, 1, ?) = ?", (run, len(prefix), prefix))
        self._drop_orphans()

    def drop_people(self, is_one_of_them: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.bool_]]) -> int:
        """Drop every file that shows certain people, overwriting what was stored; they are read again when asked for.

        Parameters
        ----------
        is_one_of_them
            Maps (N, D) vectors to (N,) bool.

        Returns
        -------
        int
            How many files were dropped.
        """
        gone: set[str] = set()
        rows = self._db.execute("SELECT sha256, vector FROM faces")
        while batch := rows.fetchmany(4096):
            hit = is_one_of_them(np.stack([np.frombuffer(vector, np.float32) for _, vector in batch]))
            gone.update(sha256 for (sha256, _), is_hit in zip(batch, hit, strict=True) if is_hit)
        for sha256 in gone:
            self._db.execute("DELETE FROM files WHERE sha256 = ?", (sha256,))
        self._drop_orphans()
        # Pages that are free already are overwritten too.
        self._db.execute("VACUUM")
        return len(gone)

    def _drop_orphans(self) -> None:
        for table in ("contents", "faces"):
            self._db.execute(f"DELETE FROM {table} WHERE sha256 NOT IN (SELECT sha256 FROM files)")
        self._db.commit()

    def _unknown(self, listing: Iterable[Entry], run: int, state: _Progress) -> Iterator[_Task]:
        """The files whose content is not known; all others are noted as seen in this run."""
        for place, entry in enumerate(listing):
            path = os.fsencode(os.path.abspath(entry.path))
            if entry.kind == "problem":
                self._note(path, None, "", "unreadable", entry.problem, run, place)
                state.add(1)
                continue
            try:
                status = entry.path.stat()
            except OSError as error:
                missing = isinstance(error, FileNotFoundError)
                text = "The file does not exist." if missing else f"The file cannot be read: {error.strerror}."
                self._note(path, None, "", "missing" if missing else "unreadable", text, run, place)
                state.add(1)
                continue
            stamp = (status.st_size, status.st_mtime_ns)
            known = self._db.execute("SELECT size, modified, sha256 FROM files WHERE path = ?", (path,)).fetchone()
            sha256 = known[2] if known and known[:2] == stamp else ""
            if not sha256:
                try:
                    sha256 = _sha256(entry.path)
                except OSError as error:
                    text = f"The file cannot be read: {error.strerror}. Check its permissions."
                    self._note(path, stamp, "", "unreadable", text, run, place)
                    state.add(1)
                    continue
            if self._is_known(sha256):
                self._note(path, stamp, sha256, "", "", run, place)
                state.add(1)
            else:
                yield _Task(entry, path, stamp, sha256, place)

    def _is_known(self, sha256: str) -> bool:
        row = self._db.execute("SELECT settings FROM contents WHERE sha256 = ?", (sha256,)).fetchone()
        return row is not None and row[0] == self.reader.settings

    def _note(
        self, path: bytes, stamp: tuple[int, int] | None, sha256: str, reason: str, problem: str, run: int, place: int
    ) -> None:
        size, modified = stamp or (None, None)
        self._db.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (path, size, modified, sha256, reason, problem, run, place),
        )

    def _store(self, task: _Task, reading: Reading, run: int) -> None:
        if reading.reason in _PASSING:
            self._note(task.path, None, "", reading.reason, reading.problem, run, task.place)
            return
        self._db.execute("DELETE FROM faces WHERE sha256 = ?", (task.sha256,))
        self._db.execute(
            "INSERT OR REPLACE INTO contents VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                task.sha256,
                self.reader.settings,
                reading.width,
                reading.height,
                reading.seconds,
                reading.step,
                reading.reason,
                reading.problem,
            ),
        )
        self._db.executemany(
            "INSERT INTO faces VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    task.sha256,
                    face.time,
                    *map(float, face.box),
                    face.score,
                    face.quality,
                    json.dumps(face.reasons),
                    np.asarray(face.vector, np.float32).tobytes(),
                    face.crop,
                )
                for face in reading.faces
            ],
        )
        self._note(task.path, task.stamp, task.sha256, "", "", run, task.place)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass
class _Progress:
    total: int
    tell: Callable[[int, int], None] | None
    done: int = 0

    def add(self, count: int) -> None:
        self.done += count
        if self.tell:
            self.tell(self.done, self.total)


@dataclass(frozen=True)
class _Task:
    entry: Entry
    path: bytes
    stamp: tuple[int, int]
    sha256: str
    place: int


_Done = list[tuple[_Task, Reading]]


class _Pool:
    """Reads chunks of files in this process or in several, holding only as many as are being worked on."""

    def __init__(self, reader: Reader, workers: int) -> None:
        self._reader = reader
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def run(self, tasks: Iterator[_Task]) -> Iterator[_Done]:
        if self._workers == 1:
            for chunk in _chunks(tasks):
                yield list(zip(chunk, self._reader.read_all([task.entry for task in chunk]), strict=True))
            return
        waiting: dict[Future[list[Reading]], list[_Task]] = {}
        chunks = _chunks(tasks)
        while True:
            for chunk in islice(chunks, 2 * self._workers - len(waiting)):
                waiting[self._submit(chunk)] = chunk
            if not waiting:
                return
            ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in ready:
                chunk = waiting.pop(future)
                try:
                    yield list(zip(chunk, future.result(), strict=True))
                except BrokenProcessPool:
                    # A process died, and took the others' work with it: go on one by one to find out over which file.
                    self._pool = None
                    suspects = [task for tasks_of in (chunk, *waiting.values()) for task in tasks_of]
                    waiting.clear()
                    yield self._one_by_one(suspects)
                    break

    def _submit(self, chunk: Sequence[_Task]) -> Future[list[Reading]]:
        if self._pool is None:
            self._pool = _processes(self._workers, self._reader)
        return self._pool.submit(_read_in_worker, [task.entry for task in chunk])

    def _one_by_one(self, tasks: Sequence[_Task]) -> _Done:
        done = []
        pool: ProcessPoolExecutor | None = None
        try:
            for task in tasks:
                pool = pool or _processes(1, self._reader)
                try:
                    reading = pool.submit(_read_in_worker, [task.entry]).result()[0]
                except BrokenProcessPool:
                    pool = None
                    text = "Reading it ended the process: out of memory, or a fault in a library. Try a smaller copy."
                    reading = Reading(reason="crashed", problem=text)
                done.append((task, reading))
        finally:
            if pool:
                pool.shutdown()
        return done


def _chunks(tasks: Iterator[_Task]) -> Iterator[list[_Task]]:
    """Photographs in groups; a video is work enough by itself."""
    chunk: list[_Task] = []
    for task in tasks:
        if task.entry.kind == "video":
            yield [task]
            continue
        chunk.append(task)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


_reader: Reader | None = None


def _start_worker(reader: Reader) -> None:
    global _reader
    _reader = reader


def _read_in_worker(entries: Sequence[Entry]) -> list[Reading]:
    assert _reader is not None
    return _reader.read_all(entries)


def _processes(count: int, reader: Reader) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, get_context("spawn"), _start_worker, (reader,))
