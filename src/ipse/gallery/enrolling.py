"""From photographs to a person of the gallery: which face is meant, which pictures are of use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ipse.gallery.fuse import fuse
from ipse.gallery.gallery import Gallery
from ipse.gallery.index import FaceRecord, Photo
from ipse.gallery.rows import clean_name
from ipse.identity import Identity

# Faces below this serve nobody: they would draw strangers.
_USELESS = 0.02


@dataclass(frozen=True, eq=False)
class Used:
    """A face that stands for the person.

    Attributes
    ----------
    photo, face
        Where it is from.
    note
        What to know of it; empty if there is nothing.
    """

    photo: Photo
    face: FaceRecord
    note: str = ""


@dataclass(frozen=True, eq=False)
class Refused:
    """A photograph that was not used.

    Attributes
    ----------
    photo
        Which.
    reason
        A code for programs: that of an `ImageError`, or ``no-face``, ``several-faces``, ``poor``, ``odd-one-out``,
        ``other-person``, ``enrolled-before`` or ``video``.
    text
        What is wrong and what to do, for people.
    face
        The face in question, where there is one.
    """

    photo: Photo
    reason: str
    text: str
    face: FaceRecord | None = None


@dataclass(frozen=True, eq=False)
class Enrollment:
    """What became of one person's photographs.

    Attributes
    ----------
    name
        Who.
    used, refused
        The photographs.
    warnings
        What to look at, plain sentences.
    """

    name: str
    used: Sequence[Used]
    refused: Sequence[Refused]
    warnings: Sequence[str] = field(default=())


def prepare(
    name: str, photos: Sequence[Photo], gallery: Gallery, *, add: bool = False, largest: bool = False
) -> Enrollment:
    """Choose the faces to enroll; nothing is written.

    A photograph with several faces is used where the other photographs (or those enrolled before) show which is meant.

    Parameters
    ----------
    name
        Who is to be enrolled.
    photos
        Their photographs.
    gallery
        Where to.
    add
        Whether the person may be there already; the photographs must then look like those enrolled before.
    largest
        Take the largest face of a photograph with several.

    Raises
    ------
    GalleryError
        If the name is none (reason ``bad-name``).
    """
    name = clean_name(name)
    known = gallery.person(name) if add and name in gallery else None
    limit = gallery.encoder.threshold or gallery.threshold().value
    used: list[Used] = []
    refused: list[Refused] = []
    crowds: list[Photo] = []
    before = {entry.get("sha256") for entry in known.provenance} if known else set()
    for photo in photos:
        faces = photo.reading.faces
        if photo.reading.problem:
            refused.append(Refused(photo, photo.reading.reason, photo.reading.problem))
        elif photo.reading.step is not None:
            refused.append(Refused(photo, "video", "People are enrolled from photographs, not from videos."))
        elif not faces:
            refused.append(Refused(photo, "no-face", _no_face(photo)))
        elif photo.sha256 and photo.sha256 in before:
            refused.append(Refused(photo, "enrolled-before", "The same picture is enrolled already.", faces[0]))
        elif len(faces) == 1:
            used.append(Used(photo, faces[0]))
            before.add(photo.sha256)
        elif largest:
            used.append(Used(photo, max(faces, key=_area), f"The largest of {len(faces)} faces."))
            before.add(photo.sha256)
        else:
            crowds.append(photo)
    for one in [one for one in used if one.face.quality < _USELESS]:
        used.remove(one)
        refused.append(Refused(one.photo, "poor", " ".join(one.face.reasons) or "The face is too poor.", one.face))
    if known is not None:
        used, strangers = _like_before(used, known, limit)
        refused += strangers
    elif len(used) > 1:
        used, odd = _consistent(used, gallery, limit)
        refused += odd
    model = _model(used, known)
    for photo in crowds:
        meant = _meant(photo, model, limit, gallery.encoder.metric)
        if meant:
            used.append(Used(photo, meant, f"Of {len(photo.reading.faces)} faces, the one like the other photographs."))
        else:
            text = f"{len(photo.reading.faces)} faces, and it is not clear which is {name}. Crop it, or use --largest."
            refused.append(Refused(photo, "several-faces", text, photo.reading.faces[0]))
    return Enrollment(name, used, refused, _look_alikes(name, used, gallery, limit))


def commit(
    enrollments: Sequence[Enrollment], gallery: Gallery, *, consent: Mapping[str, Any] | None = None, add: bool = False
) -> int:
    """Write people into the gallery in one step: all of them or, on an error, none.

    Returns
    -------
    int
        How many templates were added.

    Raises
    ------
    GalleryError
        As `Gallery.enroll`.
    """
    identities, crops = [], {}
    for one in enrollments:
        if not one.used:
            continue
        encoder = gallery.encoder
        identities.append(
            Identity(
                one.name,
                np.stack([used.face.vector for used in one.used]),
                encoder.name,
                encoder.fingerprint,
                encoder.metric,
                np.array([used.face.quality for used in one.used], np.float32),
                [_provenance(used) for used in one.used],
                consent or {},
            )
        )
        crops[one.name] = [used.face.crop for used in one.used]
    return gallery.enroll_many(identities, crops={} if gallery.protected else crops, add=add)


def _no_face(photo: Photo) -> str:
    width, height = photo.reading.width, photo.reading.height
    if max(width, height) < 60:
        return f"No face was found: the picture has only {width}×{height} pixels."
    return "No face was found. It may be turned aside, covered, cut off, or smaller than about 1/40 of the picture."


def _area(face: FaceRecord) -> float:
    return (face.box[2] - face.box[0]) * (face.box[3] - face.box[1])


def _distances(a: np.ndarray, b: np.ndarray, metric: str) -> np.ndarray:
    if metric == "cosine":
        a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
        return 1 - a @ b.T
    return np.linalg.norm(a[:, None] - b[None], axis=2)


def _like_before(used: list[Used], known: Identity, limit: float | None) -> tuple[list[Used], list[Refused]]:
    good, strangers = [], []
    for one in used:
        distance = _distances(one.face.vector[None], known.templates, known.metric).min()
        if limit is None or distance <= limit:
            good.append(one)
        else:
            text = (
                f"It does not look like {known.name} as enrolled before (distance {distance:.2f}, over {limit:.2f}). "
                "If it is, enroll it with --anyway."
            )
            strangers.append(Refused(one.photo, "other-person", text, one.face))
    return good, strangers


def _consistent(used: list[Used], gallery: Gallery, limit: float | None) -> tuple[list[Used], list[Refused]]:
    vectors = np.stack([one.face.vector for one in used])
    fused = fuse(vectors, [one.face.quality for one in used], metric=gallery.encoder.metric, limit=limit)
    odd = [
        Refused(
            used[i].photo,
            "odd-one-out",
            "It does not look like the other photographs of this person: another person, or a bad picture. "
            "If it is right, enroll it with --anyway.",
            used[i].face,
        )
        for i in fused.rejected
    ]
    return [used[i] for i in fused.kept], odd


def _model(used: Sequence[Used], known: Identity | None) -> np.ndarray | None:
    vectors = [one.face.vector for one in used] + (list(known.templates) if known else [])
    return np.stack(vectors) if vectors else None


def _meant(photo: Photo, model: np.ndarray | None, limit: float | None, metric: str) -> FaceRecord | None:
    """The one face of a photograph that is like the model; None where none is, or two are."""
    if model is None or limit is None:
        return None
    faces = photo.reading.faces
    distances = _distances(np.stack([face.vector for face in faces]), model, metric).min(axis=1)
    near = np.flatnonzero(distances <= limit)
    return faces[int(near[0])] if len(near) == 1 else None


def _look_alikes(name: str, used: Sequence[Used], gallery: Gallery, limit: float | None) -> list[str]:
    """Whether somebody enrolled under another name looks the same."""
    if not used or limit is None:
        return []
    answers = gallery.search(np.stack([one.face.vector for one in used]), 2, threshold=limit)
    found = {
        match.name: match.distance
        for answer in answers
        for match in answer.matches
        if match.known and match.name != name
    }
    return [
        f"{name} looks like {other}, who is enrolled already (distance {distance:.2f}). Are they the same person?"
        for other, distance in found.items()
    ]


def _provenance(used: Used) -> dict[str, Any]:
    return {
        "source": str(used.photo.path).encode("utf-8", "replace").decode(),
        "sha256": used.photo.sha256,
        "box": [round(edge, 1) for edge in used.face.box],
        "date": datetime.fromtimestamp(Path(used.photo.path).stat().st_mtime, UTC).isoformat(timespec="seconds"),
    }


def anyway(enrollment: Enrollment) -> Enrollment:
    """The same with the photographs that only looked like somebody else."""
    wanted = ("odd-one-out", "other-person")
    more = [
        Used(r.photo, r.face, "Taken although it looks different.")
        for r in enrollment.refused
        if r.reason in wanted and r.face
    ]
    rest = [refused for refused in enrollment.refused if refused.reason not in wanted]
    return replace(enrollment, used=[*enrollment.used, *more], refused=rest)
