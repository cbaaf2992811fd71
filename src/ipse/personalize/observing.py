"""What judges see in pictures, remembered where that is asked for."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ipse.attributes.judge import Judge
from ipse.errors import DataError, ImageError, IpseError
from ipse.faces import Detector, Face, align
from ipse.images import read_image
from ipse.measure import personalization as measure

if TYPE_CHECKING:
    from ipse.encoders import Encoder

# Pictures that are looked at together.
_BATCH = 32
# Changes whenever the same picture would be seen otherwise.
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Seen:
    """What was seen in a picture.

    Attributes
    ----------
    problem
        Why it could not be read; empty if all is well.
    vectors
        (F, D) of the encoder, one for each face, the largest first.
    signals
        Numbers by name; see `ipse.measure.personalization.SIGNALS`.
    told
        What the judge tells, by attribute.
    features
        (K,) of the judge, or None.
    """

    problem: str = ""
    vectors: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)), repr=False)
    signals: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict, repr=False)
    told: Mapping[str, str] = field(default_factory=dict)
    features: npt.NDArray[np.float64] | None = field(default=None, repr=False)

    @property
    def faces(self) -> int:
        """How many were found."""
        return len(self.vectors)


class Observer:
    """Looks at pictures with the judges.

    Parameters
    ----------
    encoder
        Judges identity, by faces.
    detector
        Finds faces.
    judge
        Tells what pictures show; None for none.
    memory
        A SQLite file, made if there is none, that remembers by the content of pictures what was seen, so that it is
        looked for once; None for no memory. It holds vectors of faces: keep it as you keep the pictures.

    Raises
    ------
    IpseError
        If the encoder is not one of faces.
    DataError
        If the file cannot be used.
    """

    def __init__(
        self, encoder: Encoder, detector: Detector, judge: Judge | None = None, memory: str | Path | None = None
    ) -> None:
        if encoder.modality != "face":
            raise IpseError(f"{encoder.name} is for pictures of a {encoder.modality}.", "Name an encoder of faces.")
        self.encoder, self.detector, self.judge = encoder, detector, judge
        settings = json.dumps([_FORMAT, detector.name, self.judges])
        self._memory = None if memory is None else _Memory(Path(memory), settings)

    @property
    def judges(self) -> dict[str, str]:
        """Fingerprint by name."""
        found = {self.encoder.name: self.encoder.fingerprint}
        return found if self.judge is None else found | {self.judge.name: self.judge.fingerprint}

    def look(
        self, paths: Sequence[Path], on_progress: Callable[[int, int], None] = lambda done, total: None
    ) -> list[Seen]:
        """What is seen in each picture; none of them stops the others."""
        out: list[Seen] = []
        for start in range(0, len(paths), _BATCH):
            batch = paths[start : start + _BATCH]
            known = [self._memory.known(path) if self._memory else None for path in batch]
            new = iter(self._look([path for path, seen in zip(batch, known, strict=True) if seen is None]))
            for path, seen in zip(batch, known, strict=True):
                out.append(next(new) if seen is None else seen)
                if self._memory and seen is None and not out[-1].problem:
                    self._memory.keep(path, out[-1])
            on_progress(len(out), len(paths))
        return out

    def _look(self, paths: Sequence[Path]) -> list[Seen]:
        pictures: list[npt.NDArray[np.uint8]] = []
        faces: list[list[Face]] = []
        chips: list[npt.NDArray[np.uint8]] = []
        problems: dict[int, str] = {}
        for row, path in enumerate(paths):
            try:
                picture = read_image(path)
            except ImageError as error:
                problems[row] = str(error)
                continue
            found = sorted(self.detector.detect(picture), key=_area, reverse=True)
            pictures.append(picture)
            faces.append(found)
            if found:
                chips += list(align(picture, found, self.encoder.chip.template or "dlib150"))
        vectors = self.encoder.encode(chips).astype(np.float64)
        ends = np.cumsum([0, *map(len, faces)])
        told, features = {}, None
        if self.judge is not None:
            told, features = self.judge.tell(pictures, [found[0] if found else None for found in faces])
        seen = iter(
            Seen(
                "",
                vectors[ends[i] : ends[i + 1]],
                _signals(picture, faces[i]),
                {name: str(values[i]) for name, values in told.items()},
                None if features is None else features[i],
            )
            for i, picture in enumerate(pictures)
        )
        return [Seen(problems[row]) if row in problems else next(seen) for row in range(len(paths))]


class _Memory:
    """What was seen, by the sha256 of files and the judges who saw it."""

    def __init__(self, path: Path, settings: str) -> None:
        self._settings = settings
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
            # What was lost in a crash is looked for again.
            self._db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS seen (sha256 TEXT, settings TEXT, told TEXT, arrays BLOB, "
                "PRIMARY KEY (sha256, settings))"
            )
        except (OSError, sqlite3.Error) as error:
            raise DataError(f"{path} cannot remember pictures: {error}.", "Delete it: it will be made anew.") from error

    def known(self, path: Path) -> Seen | None:
        from safetensors.numpy import load

        try:
            key = self._key(path)
        except OSError:  # whoever reads it says what is wrong
            return None
        row = self._db.execute("SELECT told, arrays FROM seen WHERE sha256 = ? AND settings = ?", key).fetchone()
        if row is None:
            return None
        arrays = load(row[1])
        signals = {
            name.removeprefix("signal."): values for name, values in arrays.items() if name.startswith("signal.")
        }
        return Seen("", arrays["vectors"], signals, json.loads(row[0]), arrays.get("features"))

    def keep(self, path: Path, seen: Seen) -> None:
        from safetensors.numpy import save

        arrays = {"vectors": seen.vectors} | {f"signal.{name}": values for name, values in seen.signals.items()}
        if seen.features is not None:
            arrays["features"] = seen.features
        content = save({name: np.ascontiguousarray(values) for name, values in arrays.items()})
        row = (*self._key(path), json.dumps(dict(seen.told)), content)
        self._db.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)", row)

    def _key(self, path: Path) -> tuple[str, str]:
        return hashlib.sha256(path.read_bytes()).hexdigest(), self._settings


def _area(face: Face) -> float:
    return (face.box[2] - face.box[0]) * (face.box[3] - face.box[1])


def _signals(picture: npt.NDArray[np.uint8], faces: Sequence[Face]) -> dict[str, npt.NDArray[np.float64]]:
    found = {
        "background": measure.background_of(picture),
        "clothes": measure.clothes_of(picture),
        "layout": measure.layout_of(picture),
    }
    if faces:
        found |= {"pose": measure.pose_of(faces[0].landmarks), "light": measure.light_of(picture, faces[0].box)}
    return found
