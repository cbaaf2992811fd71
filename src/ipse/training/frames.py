"""Pictures of people out of video, and nothing about who they are: what training without labels is given.

What is known of a picture is the camera, the video and the frame it was cut from. `read_frames` does not read the
people's numbers that file names may hold, and puts pictures into an order that tells nothing about them either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipse.errors import DataError, TrainingError
from ipse.images import image_files, read_image, resize

# The number before the camera, which says who somebody is, is no group of the pattern: nobody can read it from a match.
_NAME = re.compile(r"-?\d+_c(?P<camera>\d+)s(?P<sequence>\d+)_(?P<frame>\d+)_(?P<box>\d+)")


@dataclass(frozen=True)
class Frames:
    """People cut from frames.

    Attributes
    ----------
    pictures
        (N, height, width, 3).
    camera, video, frame
        (N,) numbers: which camera, which of its videos, and the frame, counted in the video.
    """

    pictures: npt.NDArray[np.uint8] = field(repr=False)
    camera: npt.NDArray[np.int64]
    video: npt.NDArray[np.int64]
    frame: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        lengths = {len(values) for values in (self.pictures, self.camera, self.video, self.frame)}
        if len(lengths) > 1:
            raise TrainingError(f"Pictures, cameras, videos and frames have different lengths: {sorted(lengths)}.")

    def __len__(self) -> int:
        return len(self.pictures)

    def choose(self, rows: npt.NDArray[np.intp]) -> Frames:
        """Some of them."""
        return Frames(self.pictures[rows], self.camera[rows], self.video[rows], self.frame[rows])

    def pairs(self, gap: int) -> list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
        """Rows of each frame with those of the next frame of its video in which somebody was found.

        Parameters
        ----------
        gap
            The most frames between the two.
        """
        order = np.lexsort((self.frame, self.video, self.camera))
        keys = np.stack([self.camera, self.video, self.frame])[:, order]
        groups = np.split(order, np.flatnonzero((np.diff(keys) != 0).any(0)) + 1)
        found = []
        for a, b in pairwise(groups):
            same = self.camera[a[0]] == self.camera[b[0]] and self.video[a[0]] == self.video[b[0]]
            if same and self.frame[b[0]] - self.frame[a[0]] <= gap:
                found.append((a, b))
        return found


def read_frames(folder: str | Path, size: tuple[int, int]) -> Frames:
    """Pictures named as those of Market-1501, such as ``0002_c1s1_000451_03.jpg``, without the people's numbers.

    Parameters
    ----------
    folder
        With the pictures.
    size
        Height and width that they are brought to.

    Raises
    ------
    DataError
        If the folder is missing or holds none.
    """
    place = Path(folder)
    if not place.is_dir():
        raise DataError(f"There is no data folder {place}.", "Name a folder of pictures of a Market-1501 layout.")
    told = [(path, found) for path in image_files(place) if (found := _NAME.match(path.name))]
    if not told:
        raise DataError(
            f"{place} holds no pictures named like 0002_c1s1_000451_03.jpg.",
            "Name a folder of pictures of a Market-1501 layout.",
        )
    numbers = np.array([[int(found[name]) for name in ("camera", "sequence", "frame", "box")] for _, found in told])
    # In the order of their names pictures of one person would stand together.
    order = np.lexsort(numbers.T[::-1])
    pictures = np.stack([resize(read_image(told[i][0]), size[1], size[0]) for i in order])
    camera, video, frame, _ = numbers[order].T
    return Frames(pictures, camera, video, frame)
