"""What all detectors share: a second look where nothing was found, and one answer per face."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from ipse import images
from ipse.faces.align import check_image
from ipse.faces.contract import Face, LandmarkScheme

# A close crop is searched with this fraction of its longer side added all around, at this size in pixels.
_MARGIN = 0.5
_MARGIN_SIDE = 448
# It holds one face, whose box is at least this fraction of the longer side; what is smaller is a chance likeness.
_CLOSE = 0.4
# Boxes that share more than this fraction of the smaller one are the same face: a face can be found at two sizes, one
# box within the other.
_SAME_FACE = 0.5


class SearchingDetector(ABC):
    """A detector that looks again, in another way, where it found nothing.

    Close crops are given a margin, because detectors look for the surroundings of a face too, and searched for one
    large face, which may then be a less likely one. With `turned`, images are also searched on their side and on
    their head.

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
        faces = self._upright(image)
        for quarters in (1, 2, 3) if self.turned and not faces else ():
            turned = self._upright(np.ascontiguousarray(np.rot90(image, quarters)))
            faces += [_turn_back(face, quarters, image.shape[1], image.shape[0]) for face in turned]
        return keep_best(faces)

    def _upright(self, image: np.ndarray) -> list[Face]:
        faces = self._search(image) or self._search_with_margin(image)
        return faces + self._search_finer(image, faces)

    def _search_with_margin(self, image: np.ndarray) -> list[Face]:
        height, width = image.shape[:2]
        margin = _MARGIN * max(height, width)
        scale = _MARGIN_SIDE / (max(height, width) + 2 * margin)
        small = images.resize(image, max(1, round(width * scale)), max(1, round(height * scale)))
        edge = round(margin * scale)
        faces = self._search(np.pad(small, ((edge, edge), (edge, edge), (0, 0)), mode="edge"), close=True)
        large = [face for face in faces if face.box[3] - face.box[1] >= _CLOSE * max(small.shape)]
        best = keep_best(large)[:1]
        return [clipped for face in best if (clipped := _moved(face, edge, small.shape, image.shape))]

    @abstractmethod
    def _search(self, image: np.ndarray, close: bool = False) -> list[Face]:
        """Search an upright image once.

        `close` says that it is a close crop with a margin, brought to a good size: the best of what is found is
        taken, even if it is somewhat less likely a face than is asked for elsewhere.
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
