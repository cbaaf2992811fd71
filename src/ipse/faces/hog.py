"""The built-in face detector: dlib's HOG detector, made practical."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from ipse import images
from ipse.faces.align import check_image
from ipse.faces.contract import Face, keep_best
from ipse.zoo import DLIB_FIVE_POINTS

if TYPE_CHECKING:
    import dlib

# dlib's detector slides a window of 80 px, so it finds no smaller face; one below this size hints that smaller ones
# are about.
_SMALL = 130
# Beyond twice its size an image shows the detector nothing new.
_MOST_ENLARGED = 2.0
# A close crop is searched with this fraction of its longer side added all around, and at this size.
_MARGIN = 0.5
_MARGIN_SIDE = 448
# Boxes that share more than this of their union are the same face.
_SAME_FACE = 0.4


class HogDetector:
    """dlib's frontal face detector (histograms of oriented gradients) with its five-point landmark predictor.

    Both are free of terms: the detector is part of dlib (Boost license), the predictor is in the public domain.

    A photograph is searched in at most four steps, and the later ones only where they can add something:

    1. at a bounded size (small pictures are enlarged, large ones shrunk), so time does not grow with the megapixels;
    2. with a margin around it, where nothing was found: close crops lack the surroundings the detector looks for;
    3. at twice the size of step 1, where nothing was found or a face near the smallest findable size hints at more;
    4. turned by quarters, where nothing was found and ``turned`` asks for it.

    Parameters
    ----------
    max_side
        Longest side in pixels at which step 1 searches. Faces of 80 px and more at that size are found, half of that
        in step 3.
    small_faces
        When step 3 is taken: ``"auto"`` as above, ``"always"`` or ``"never"``.
    turned
        Also look for faces that lie on their side or stand on their head.
    threshold
        Lowest detector score that counts as a face; 0 is dlib's own choice, lower finds more faces and more false ones.

    Raises
    ------
    WeightsError
        The landmark file is missing or damaged.
    """

    name = "dlib-hog"

    def __init__(
        self,
        max_side: int = 800,
        small_faces: Literal["auto", "always", "never"] = "auto",
        turned: bool = False,
        threshold: float = 0.0,
    ) -> None:
        self.max_side = max_side
        self.small_faces = small_faces
        self.turned = turned
        self.threshold = threshold
        self._predictor_path = str(DLIB_FIVE_POINTS.checked_path())

    @cached_property
    def _finder(self) -> dlib.fhog_object_detector:
        import dlib

        return dlib.get_frontal_face_detector()

    @cached_property
    def _predictor(self) -> dlib.shape_predictor:
        import dlib

        return dlib.shape_predictor(self._predictor_path)

    def __getstate__(self) -> dict[str, object]:
        # dlib's objects are made again where the detector is sent to: pickling them would copy nine megabytes.
        return {key: value for key, value in self.__dict__.items() if key not in ("_finder", "_predictor")}

    def detect(self, image: np.ndarray) -> list[Face]:
        """Find the faces of an image; see `Detector.detect`."""
        check_image(image)
        faces = self._detect_upright(image)
        for quarters in (1, 2, 3) if self.turned and not faces else ():
            turned = self._detect_upright(np.ascontiguousarray(np.rot90(image, quarters)))
            faces += [_turn_back(face, quarters, image.shape[1], image.shape[0]) for face in turned]
        return keep_best(faces, _SAME_FACE)

    def _detect_upright(self, image: np.ndarray) -> list[Face]:
        side = max(image.shape[:2])
        scale = min(_MOST_ENLARGED, self.max_side / side)
        faces = self._search(image, scale)
        if not faces:
            margin = round(_MARGIN * side)
            wide = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
            faces = self._search(wide, _MARGIN_SIDE / max(wide.shape), margin)
        finer = min(_MOST_ENLARGED, 2 * scale)
        smallest = min((face.box[3] - face.box[1] for face in faces), default=0.0)
        if finer > scale and (
            self.small_faces == "always" or (self.small_faces == "auto" and smallest * scale < _SMALL)
        ):
            faces += self._search(image, finer)
        return faces

    def _search(self, image: np.ndarray, scale: float, margin: int = 0) -> list[Face]:
        """Search an image at one scale; coordinates are given without the margin that was added to it."""
        height, width = image.shape[:2]
        view = images.resize(image, max(1, round(width * scale)), max(1, round(height * scale)))
        boxes, scores, _ = self._finder.run(view, 0, self.threshold)
        to_image = np.array([width / view.shape[1], height / view.shape[0]])
        limit = np.array([width, height]) - 2 * margin - 1
        faces = []
        for box, score in zip(boxes, scores, strict=True):
            points = np.array([(p.x, p.y) for p in self._predictor(view, box).parts()])
            corners = np.array([(box.left(), box.top()), (box.right(), box.bottom())])
            landmarks, corners = ((place + 0.5) * to_image - 0.5 - margin for place in (points, corners))
            (x0, y0), (x1, y1) = corners.clip(0, limit).tolist()
            if x1 > x0 and y1 > y0:
                faces.append(Face((x0, y0, x1, y1), score, landmarks.astype(np.float32)))
        return faces


def _turn_back(face: Face, quarters: int, width: int, height: int) -> Face:
    """A face found in ``np.rot90(image, quarters)``, in the coordinates of the image of that width and height."""
    points = np.concatenate([np.reshape(face.box, (2, 2)), face.landmarks])
    for turn in range(quarters):
        # One quarter back: the turned image's rows run along the columns of the one before it, from the right.
        across = width if (quarters - turn) % 2 else height
        points = np.stack([across - 1 - points[:, 1], points[:, 0]], -1)
    (x0, y0), (x1, y1) = points[:2].min(0).tolist(), points[:2].max(0).tolist()
    return Face((x0, y0, x1, y1), face.score, points[2:].astype(np.float32), face.scheme)
