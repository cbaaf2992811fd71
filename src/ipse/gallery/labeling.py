"""Questions about faces: which few to ask so that everybody gets a name, and what the answers make of a gallery."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ipse._files import atomic_write
from ipse.errors import DataError
from ipse.gallery.aspl import Question, SelfPacedLabels
from ipse.gallery.gallery import Gallery
from ipse.gallery.index import FaceRecord, Photo
from ipse.images import contact_sheet

ANSWERS = "answers.jsonl"
"""The name of the file of answers in a gallery's folder."""

# Height of a face in a question's picture.
_CELL = 280
# Faces below this quality teach nothing.
_USELESS = 0.02


@dataclass(frozen=True, eq=False)
class Sight:
    """A face that may be asked about.

    Attributes
    ----------
    photo, face
        Where it is from.
    key
        The same in every run: the photograph's checksum and the face's number.
    """

    photo: Photo
    face: FaceRecord
    key: str


@dataclass(frozen=True, eq=False)
class Asked:
    """A question: whether `sight` shows `person`.

    Attributes
    ----------
    sight
        The face in question.
    person
        Who it may be; None where it is nobody who is known, so that the question is for a name.
    beside
        A crop of the person to compare with, JPEG; None where none is kept.
    source
        Where that is from; empty if not known.
    """

    sight: Sight
    person: str | None
    beside: bytes | None = None
    source: str = ""

    def picture(self) -> Image.Image:
        """Both faces side by side."""
        crops, labels = [self.sight.face.crop], [self.sight.photo.path.name]
        if self.beside is not None:
            crops.append(self.beside)
            labels.append(Path(self.source).name)
        title = f"{self.person}?" if self.person else "Who is this?"
        images = [np.asarray(Image.open(io.BytesIO(crop)).convert("RGB")) for crop in crops]
        return contact_sheet(images, len(images), labels, title=title, cell=(_CELL, _CELL))


class Labeling:
    """A conversation about the faces of photographs, which can be broken off and taken up again.

    The people of the gallery are what is known at first. Every answer is stored at once.

    Parameters
    ----------
    gallery
        Who is known; not changed here.
    photos
        What was read. Faces that are in the gallery already are not asked about, nor are those of videos.
    answers
        File of earlier answers, made with the first one.

    Raises
    ------
    DataError
        If the file holds something else than answers.
    """

    def __init__(self, gallery: Gallery, photos: Sequence[Photo], answers: str | Path) -> None:
        self.gallery, self.path = gallery, Path(answers)
        self._templates: list[tuple[str, int, str]] = []
        known, enrolled = [], set()
        for name in gallery.names():
            person = gallery.person(name)
            known += list(person.templates)
            for number, origin in enumerate(person.provenance or [{}] * len(person.templates)):
                self._templates.append((name, number, str(origin.get("source", ""))))
                enrolled.add((origin.get("sha256"), tuple(origin.get("box", ()))))
        self.sights = [
            Sight(photo, face, f"{photo.sha256[:16]}:{number}")
            for photo in photos
            if photo.reading.step is None
            for number, face in enumerate(photo.reading.faces)
            if face.quality >= _USELESS and (photo.sha256, box_of(face)) not in enrolled
        ]
        self._crops = {name: gallery.crops(name) for name in dict.fromkeys(name for name, _, _ in self._templates)}
        vectors = [*known, *(sight.face.vector for sight in self.sights)]
        # People are impatient: what can be sure is so from the start.
        self.machine = SelfPacedLabels(np.stack(vectors), pace=0.5, growth=0.25) if vectors else None
        for row, (name, _, _) in enumerate(self._templates):
            self.machine.tell(row, name)
        self._row = {sight.key: row for row, sight in enumerate(self.sights, len(self._templates))}
        self._denied: dict[int, set[str]] = {}
        self._skipped: set[int] = set()
        self._current: Question | None = None
        for told in _read(self.path):
            row = self._row.get(told["face"])
            if row is not None:
                self._take(row, told["person"], told["same"])

    @property
    def open(self) -> int:
        """How many faces have neither an answer nor a label that is sure."""
        return 0 if self.machine is None else sum(label is None for label in self.machine.labels)

    def ask(self) -> Asked | None:
        """The next question, or None where nothing is left that is worth one."""
        if self.machine is None or not self.sights:
            return None
        if not self.machine.people:
            first = [sight for sight in self.sights if self._row[sight.key] not in self._skipped]
            return Asked(max(first, key=lambda sight: sight.face.quality), None) if first else None
        row = self._current.row if self._current else -1
        if row < 0 or row in self._skipped or self.machine.answered[row]:
            # Anew for every face: somebody new changes what all others are asked.
            self.machine.learn()
            self._current = next(iter(self.machine.ask(1, sorted(self._skipped))), None)
            if self._current is None:
                return None
            row = self._current.row
        left = [name for name in self._current.guesses if name not in self._denied.get(row, ())]
        sight = self.sights[row - len(self._templates)]
        return self._beside(sight, row, str(left[0])) if left else Asked(sight, None)

    def _beside(self, sight: Sight, row: int, name: str) -> Asked:
        """The question with the nearest face of the person that there is a picture of."""
        theirs = self.machine.rows_of(name)
        order = theirs[np.argsort(-self.machine.likeness(row, theirs), kind="stable")]
        for other in order:
            if other >= len(self._templates):
                found = self.sights[other - len(self._templates)]
                return Asked(sight, name, found.face.crop, str(found.photo.path))
            who, number, source = self._templates[other]
            if self._crops[who][number] is not None:
                return Asked(sight, name, self._crops[who][number], source)
        return Asked(sight, name)

    def answer(self, asked: Asked, same: bool) -> None:
        """Say whether the face is of the person, and store it."""
        if asked.person is None:
            raise DataError("This question is for a name.", "Answer it by `name`.")
        self._store(asked.sight, asked.person, same)

    def name(self, asked: Asked, person: str) -> None:
        """Say who it is, and store it; somebody new becomes known."""
        self._store(asked.sight, person, True)

    def skip(self, asked: Asked) -> None:
        """Do not ask about this face again before the next run."""
        self._skipped.add(self._row[asked.sight.key])

    def new_name(self) -> str:
        """A name that nobody has yet, such as ``Person 3``."""
        taken, number = set(self.machine.people if self.machine else ()), 1
        while f"Person {number}" in taken:
            number += 1
        return f"Person {number}"

    def named(self) -> dict[str, list[Sight]]:
        """By name, the faces that answers gave to each person."""
        return self._listed(answered=True)

    def sure(self) -> dict[str, list[Sight]]:
        """By name, the faces that nobody was asked about and that the classifiers are sure of."""
        return self._listed(answered=False)

    def _listed(self, *, answered: bool) -> dict[str, list[Sight]]:
        found: dict[str, list[Sight]] = {}
        if self.machine is not None:
            first = len(self._templates)
            labels, told = self.machine.labels[first:], self.machine.answered[first:]
            for sight, label, was in zip(self.sights, labels, told, strict=True):
                if label is not None and bool(was) == answered:
                    found.setdefault(str(label), []).append(sight)
        return found

    def _store(self, sight: Sight, person: str, same: bool) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"face": sight.key, "person": person, "same": same}) + "\n")
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror or error}.", "Make room.") from error
        self._take(self._row[sight.key], person, same)

    def _take(self, row: int, person: str, same: bool) -> None:
        if same:
            self.machine.tell(row, person)
        else:
            self._denied.setdefault(row, set()).add(person)


def box_of(face: FaceRecord) -> tuple[float, ...]:
    """A face's box as the gallery's provenance has it."""
    return tuple(round(edge, 1) for edge in face.box)


def forget_answers(path: str | Path, names: Sequence[str]) -> None:
    """Remove every answer that names one of some people from a file of answers."""
    path = Path(path)
    if path.exists():
        kept = [told for told in _read(path) if told["person"] not in names]
        with atomic_write(path) as file:
            file.write("".join(json.dumps(told) + "\n" for told in kept).encode())


def _read(path: Path) -> list[dict]:
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            told = json.loads(line)
            found.append({"face": str(told["face"]), "person": str(told["person"]), "same": bool(told["same"])})
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"Line {number} of {path} is no answer ({error!r}).", "Remove that line.") from error
    return found
