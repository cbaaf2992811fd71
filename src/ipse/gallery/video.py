"""Videos: frames at even times, and when a person is to be seen."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipse.errors import ImageError
from ipse.images import resize

# Longest side at which frames are looked at.
_SIDE = 1280
# A face is followed from one frame to the next while its boxes share this much of their union.
_OVERLAP = 0.2


def sampled_frames(path: str | os.PathLike[str], every: float = 1.0) -> Iterator[tuple[float, npt.NDArray[np.uint8]]]:
    """Walk over a video.

    Parameters
    ----------
    path
        The file.
    every
        Seconds between the frames given; the first frame is always among them.

    Yields
    ------
    tuple
        The time in seconds from the start, and the frame as (H, W, 3) uint8 RGB, at most 1280 pixels long.

    Raises
    ------
    ImageError
        If PyAV is not installed (reason ``needs-pyav``), or the file is missing, empty or not a video. A video that is
        cut short gives the frames before the cut.
    """
    try:
        import av
    except ImportError as error:
        raise ImageError(
            "Videos are read by PyAV, which is not installed.", "Run: pip install 'ipse[video]'", reason="needs-pyav"
        ) from error
    path = Path(path)
    due, count = 0.0, 0
    try:
        with av.open(os.fspath(path)) as container:
            if not container.streams.video:
                raise ImageError(f"{path} holds no pictures, only sound.", reason="not-an-image")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            start = None
            for frame in container.decode(stream):
                if frame.time is None:
                    continue
                start = frame.time if start is None else start
                time = frame.time - start
                if time + 1e-6 < due:
                    continue
                # A gap in the times is not made up for by frames of one moment.
                due = max(due + every, time + every / 2)
                count += 1
                yield time, _fitted(frame.to_ndarray(format="rgb24"))
    except av.FFmpegError as error:
        if count:
            return
        if path.exists() and not path.stat().st_size:
            raise ImageError(f"{path} is empty.", "Copy or download it again.", reason="empty") from error
        raise ImageError(
            f"{path} is not a video that can be read: {error.strerror}.",
            "Play it to see if it is whole.",
            reason="corrupt",
        ) from error
    if not count:
        raise ImageError(f"{path} holds no frames.", "Play it to see if it is whole.", reason="no-pixels")


def _fitted(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    height, width = frame.shape[:2]
    scale = _SIDE / max(height, width)
    if scale >= 1:
        return frame
    return resize(frame, max(1, round(width * scale)), max(1, round(height * scale)))


@dataclass(frozen=True)
class Span:
    """A stretch of a video, in seconds from its start."""

    start: float
    end: float

    def __str__(self) -> str:
        return f"{clock(self.start)}–{clock(self.end)}"


def clock(seconds: float) -> str:
    """Seconds as minutes and seconds, with hours where there are any: ``1:05``, ``2:00:07``."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def merged_spans(spans: Sequence[Span], gap: float) -> list[Span]:
    """Spans in order, those that overlap or are at most `gap` seconds apart made one."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda span: span.start):
        if merged and span.start - merged[-1].end <= gap:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return merged


def tracks(
    times: Sequence[float],
    boxes: npt.ArrayLike,
    vectors: npt.NDArray[np.float32],
    *,
    step: float,
    near: float,
) -> list[list[int]]:
    """Follow faces through the frames of a video, by their place and their likeness.

    Parameters
    ----------
    times
        (N,) ascending: of the frame each face is in.
    boxes
        (N, 4) left, top, right, bottom.
    vectors
        (N, D).
    step
        Seconds between frames; a face may be missing from one of them.
    near
        Distance (Euclidean, of the vectors as they are) below which two faces may be one person's.

    Returns
    -------
    list of lists
        The faces of each track, by index, in order of time.
    """
    corners = np.reshape(np.asarray(boxes, np.float64), (-1, 4))
    open_tracks: list[list[int]] = []
    closed: list[list[int]] = []
    for index, time in enumerate(times):
        best, best_distance = None, np.inf
        still = []
        for track in open_tracks:
            last = track[-1]
            if time - times[last] > 2.5 * step:
                closed.append(track)
                continue
            still.append(track)
            if times[last] == time:
                continue
            distance = float(np.linalg.norm(vectors[index] - vectors[last]))
            # In the same place even a blurred or turned face is the same one; elsewhere it must be alike.
            limit = near if _overlap(corners[index], corners[last]) > _OVERLAP else 0.75 * near
            if distance < min(limit, best_distance):
                best, best_distance = track, distance
        open_tracks = still
        if best is None:
            open_tracks.append([index])
        else:
            best.append(index)
    return sorted(closed + open_tracks, key=lambda track: track[0])


def _overlap(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    shared = float((np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])).clip(0).prod())
    return shared / max(float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - shared, 1e-9)
