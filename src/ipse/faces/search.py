"""What all detectors share: a second look where nothing was found, and one answer per face."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from ipse import images
from ipse.faces.align import check_image
from ipse.faces.contract import Face, LandmarkScheme

# Where nothing was found, the image is taken for a close crop and looked at once more as it is and with this fraction
# of its longer side added all around, both at this size in pixels.
_MARGINS, _CLOSE_SIDE = (0.0, 0.5), 448
# A close crop holds one face, over its middle, whose box is at least this fraction of the longer side; anything else is
# a chance likeness.
_CLOSE = 0.3
# Boxes that share more than this fraction of the smaller one are the same face: a face can be found at two sizes, one
# box within the other.
_SAME_FACE = 0.5


class SearchingDetector(ABC):
    """A detector that looks again, in another way, where it found nothing.

    An image without a face may be a close crop: it is searched again, with a margin too, because detectors look for the
    surroundings of a face, but only for one large face over its middle, which may then be a less likely one. With
    `turned`, images are also searched on their side and on their head.

    Parameters
    ----------
    turned
        Search images without an upright face turned by quarters.
    """

    name: str

    def __init__(self, turned: bool) -> None:
        self.turned = turned

    def detect(self, image: np.ndarray) -> list[Face]:
        """Find the faces of an image; see `Detector.detect`."""
        check_image(image)
        turns = (1, 2, 3) if self.turned else ()
        # Only where no search finds anything is a less likely face considered.
        for search in (self._search_all, self._search_close):
            if faces := search(image):
                return keep_best(faces)
            for quarters in turns:
                found = search(np.ascontiguousarray(np.rot90(image, quarters)))
                faces += [_turn_back(face, quarters, image.shape[1], image.shape[0]) for face in found]
            if faces:
                return keep_best(faces)
        return []

    def _search_all(self, image: np.ndarray) -> list[Face]:
        faces = self._search(image)
        return faces + self._search_finer(image, faces)

    def _search_close(self, image: np.ndarray) -> list[Face]:
        height, width = image.shape[:2]
        faces = []
        for share in _MARGINS:
            margin = share * max(height, width)
            scale = _CLOSE_SIDE / (max(height, width) + 2 * margin)
            small = images.resize(image, max(1, round(width * scale)), max(1, round(height * scale)))
            edge = round(margin * scale)
            framed = np.pad(small, ((edge, edge), (edge, edge), (0, 0)), mode="edge")
            faces += [_moved(face, edge, small.shape, image.shape) for face in self._search(framed, close=True)]
        return keep_best([face for face in faces if face and _fills(face, image.shape)])[:1]

    @abstractmethod
    def _search(self, image: np.ndarray, close: bool = False) -> list[Face]:
        """Search an upright image once.

        `close` says that it may be a close crop, brought to a good size: the best of what is found is taken, even if it
        is somewhat less likely a face than is asked for elsewhere.
        """

    def _search_finer(self, image: np.ndarray, found: Sequence[Face]) -> list[Face]:
        """Search again for smaller faces, given what was found; detectors that see them at once have nothing to add."""
        return []


def scaled(points: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Places of (..., 2) points after an image was resized by factors for x and y (pixel centers are whole numbers)."""
    return (points + 0.5) * factor - 0.5


def face_within(
    corners: np.ndarray, score: float, landmarks: np.ndarray, shape: Sequence[int], scheme: LandmarkScheme
) -> Face | None:
    """A face from (2, 2) box corners, cut at the border of an image of that shape; None where nothing is left of it."""
    (x0, y0), (x1, y1) = corners.clip(0, [shape[1] - 1, shape[0] - 1]).tolist()
    if x1 <= x0 or y1 <= y0:
        return None
    return Face((x0, y0, x1, y1), float(score), landmarks.astype(np.float32), scheme)


def _moved(face: Face, edge: int, small: Sequence[int], shape: Sequence[int]) -> Face | None:
    """A face found with a margin around a resized image, in the coordinates of the image itself."""
    factor = np.array([shape[1] / small[1], shape[0] / small[0]])
    corners, landmarks = (scaled(points - edge, factor) for points in (np.reshape(face.box, (2, 2)), face.landmarks))
    return face_within(corners, face.score, landmarks, shape, face.scheme)


def _fills(face: Face, shape: Sequence[int]) -> bool:
    """Whether a face is what an image of that shape is a close crop of."""
    (x0, y0, x1, y1), (height, width) = face.box, shape[:2]
    return x0 < width / 2 < x1 and y0 < height / 2 < y1 and y1 - y0 >= _CLOSE * max(height, width)


def _turn_back(face: Face, quarters: int, width: int, height: int) -> Face:
    """A face found in ``np.rot90(image, quarters)``, in the coordinates of the image of that width and height."""
    points = np.concatenate([np.reshape(face.box, (2, 2)), face.landmarks])
    for turn in range(quarters, 0, -1):
        across = width if turn % 2 else height  # width of the image before its last quarter turn
        points = np.stack([across - 1 - points[:, 1], points[:, 0]], -1)
    (x0, y0), (x1, y1) = points[:2].min(0).tolist(), points[:2].max(0).tolist()
    return Face((x0, y0, x1, y1), face.score, points[2:].astype(np.float32), face.scheme)


def keep_best(faces: Sequence[Face]) -> list[Face]:
    """Drop every face that is a surer one again; surest first."""
    if not faces:
        return []
    ranked = sorted(faces, key=lambda face: -face.score)
    boxes = np.array([face.box for face in ranked])
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    dropped = np.zeros(len(ranked), bool)
    for index, box in enumerate(boxes):
        if dropped[index]:
            continue
        shared = (np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])).clip(0).prod(1)
        again = shared > _SAME_FACE * np.minimum(area, area[index])
        dropped |= again & (np.arange(len(ranked)) > index)
    return [face for face, gone in zip(ranked, dropped, strict=True) if not gone]
