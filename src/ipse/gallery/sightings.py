"""Who is where: the faces of photographs and videos, looked up in a gallery."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from ipse.gallery.fuse import fuse
from ipse.gallery.gallery import Gallery
from ipse.gallery.index import FaceRecord, Photo, Reading
from ipse.gallery.values import Answer
from ipse.gallery.video import Span, merged_spans, tracks
from ipse.identity import Metric

# Photographs whose faces are looked up in one go.
_BATCH = 256
# A person who is out of sight for this many sampled frames has not left.
_GAP = 2
# Two frames of one face in a video are farther apart than two good photographs are; used where there is no threshold.
_NEAR = {"l2": 0.6, "cosine": 0.6}


@dataclass(frozen=True, eq=False)
class Sighting:
    """Somebody in a photograph, or through a stretch of a video.

    Attributes
    ----------
    face
        The face; of a video, the best one.
    vector
        (D,) what was looked up: the face's, or all frames' of a video fused.
    answer
        Who it is.
    spans
        When they are to be seen in a video; empty for a photograph.
    frames
        How many faces went into it.
    """

    face: FaceRecord
    vector: npt.NDArray[np.float32]
    answer: Answer
    spans: tuple[Span, ...] = ()
    frames: int = 1

    def to_json(self) -> dict[str, Any]:
        """The sighting as JSON values."""
        return {
            "name": self.answer.name,
            "known": self.answer.known,
            "distance": round(self.answer.nearest.distance, 4) if self.answer.nearest else None,
            "nearest": [{"name": m.name, "distance": round(m.distance, 4)} for m in self.answer.matches],
            "box": [round(edge, 1) for edge in self.face.box],
            "quality": round(self.face.quality, 3),
            "reasons": list(self.face.reasons),
            **({"spans": [[round(s.start, 2), round(s.end, 2)] for s in self.spans]} if self.spans else {}),
        }


def sightings(
    photos: Iterable[Photo], gallery: Gallery, *, ranks: int = 3, threshold: float | None = None
) -> Iterator[tuple[Photo, list[Sighting]]]:
    """Look up the faces of photographs and videos, many at a time.

    Parameters
    ----------
    photos
        Such as `ipse.gallery.PhotoIndex.photos` gives.
    gallery
        Where to look.
    ranks
        How many people each answer names.
    threshold
        The distance up to which somebody is known; by default the gallery's.

    Yields
    ------
    tuple
        Each photograph with those who are in it.

    Raises
    ------
    FingerprintMismatch, GalleryError
        See `Gallery.search`.
    """
    source = iter(photos)
    near = gallery.threshold().value or _NEAR[gallery.encoder.metric]
    while batch := list(islice(source, _BATCH)):
        groups = [(photo, group) for photo in batch for group in appearances(photo.reading, near)]
        vectors = [vector_of(group, gallery.encoder.metric) for _, group in groups]
        answers = gallery.search(np.stack(vectors), ranks, threshold=threshold) if vectors else []
        seen: dict[int, list[Sighting]] = {id(photo): [] for photo in batch}
        for (photo, group), vector, answer in zip(groups, vectors, answers, strict=True):
            seen[id(photo)].append(_sighting(group, vector, answer, photo.reading.step))
        for photo in batch:
            yield photo, _by_person(seen[id(photo)], photo.reading.step)


def appearances(reading: Reading, near: float) -> list[list[FaceRecord]]:
    """Faces that are certainly one person's: each by itself in a photograph, followed through the frames of a video.

    Parameters
    ----------
    reading
        What is in a file.
    near
        See `ipse.gallery.video.tracks`.
    """
    faces = list(reading.faces)
    if reading.step is None or not faces:
        return [[face] for face in faces]
    times = [face.time or 0.0 for face in faces]
    followed = tracks(
        times, [face.box for face in faces], np.stack([face.vector for face in faces]), step=reading.step, near=near
    )
    return [[faces[i] for i in track] for track in followed]


def vector_of(group: list[FaceRecord], metric: Metric) -> npt.NDArray[np.float32]:
    """The (D,) vector of one appearance: a face's own, or that of all frames fused."""
    if len(group) == 1:
        return group[0].vector
    vectors, quality = np.stack([face.vector for face in group]), np.array([face.quality for face in group])
    return fuse(vectors, quality, metric=metric).vector


def _sighting(group: list[FaceRecord], vector: npt.NDArray[np.float32], answer: Answer, step: float | None) -> Sighting:
    best = max(group, key=lambda face: face.quality)
    if step is None:
        return Sighting(best, vector, answer)
    span = Span(group[0].time or 0.0, (group[-1].time or 0.0) + step)
    return Sighting(best, vector, answer, (span,), len(group))


def _by_person(found: list[Sighting], step: float | None) -> list[Sighting]:
    """The sightings of a video with those of one known person made one; a photograph's as they are."""
    if step is None:
        return found
    people: dict[str, list[Sighting]] = {}
    merged = []
    for sighting in found:
        if sighting.answer.known:
            people.setdefault(sighting.answer.name, []).append(sighting)
        else:
            merged.append(sighting)
    for of_one in people.values():
        best = min(of_one, key=lambda sighting: sighting.answer.matches[0].distance)
        spans = merged_spans([span for sighting in of_one for span in sighting.spans], _GAP * step)
        frames = sum(sighting.frames for sighting in of_one)
        merged.append(Sighting(best.face, best.vector, best.answer, tuple(spans), frames))
    return sorted(merged, key=lambda sighting: sighting.spans[0].start)
