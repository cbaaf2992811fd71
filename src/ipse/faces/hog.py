"""The built-in face detector: dlib's HOG detector, made practical."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from ipse import images
from ipse.faces.contract import Face
from ipse.faces.search import SearchingDetector, face_within, scaled
from ipse.zoo import DLIB_FIVE_POINTS

if TYPE_CHECKING:
    import dlib

# dlib's detector slides a window of 80 px, so it finds no smaller face; one below this size hints that smaller ones
# are about.
_SMALL = 130
# Beyond twice its size an image shows the detector nothing new.
_MOST_ENLARGED = 2.0
# How much lower the one large face of a close crop may score: no tight crop of a face is overlooked with it, at the
# price of a face seen in one of ten close pictures of ears (recognition.utkface_detection and recognition.false_faces).
_CLOSE_ALLOWANCE = 0.75


class HogDetector(SearchingDetector):
    """dlib's frontal face detector (histograms of oriented gradients) with its five-point landmark predictor.

    Both are free of terms: the detector is part of dlib (Boost license), the predictor is in the public domain.

    A photograph is searched in at most four steps, and the later ones only where they can add something:

    1. at a bounded size (small pictures are enlarged, large ones shrunk), so time does not grow with the megapixels;
    2. at twice that size, where nothing was found or a face near the smallest findable size hints at more;
    3. turned by quarters, where nothing was found and ``turned`` asks for it;
    4. for one large face over the middle, as it is and with a margin around it, where nothing was found: close crops
       lack the surroundings the detector looks for.

    Parameters
    ----------
    max_side
        Longest side in pixels at which step 1 searches. Faces of 80 px and more at that size are found, half of that
        in step 2.
    small_faces
        When step 2 is taken: ``"auto"`` as above, ``"always"`` or ``"never"``.
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
        super().__init__(turned)
        self.max_side = max_side
        self.small_faces = small_faces
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

    def _search(self, image: np.ndarray, close: bool = False) -> list[Face]:
        if close:
            return self._search_at(image, 1.0, self.threshold - _CLOSE_ALLOWANCE, color=True)
        return self._search_at(image, self._scale(image), self.threshold)

    def _search_finer(self, image: np.ndarray, found: Sequence[Face]) -> list[Face]:
        scale = self._scale(image)
        finer = min(_MOST_ENLARGED, 2 * scale)
        smallest = min((face.box[3] - face.box[1] for face in found), default=0.0)
        wanted = self.small_faces == "always" or (self.small_faces == "auto" and smallest * scale < _SMALL)
        return self._search_at(image, finer, self.threshold) if wanted and finer > scale else []

    def _scale(self, image: np.ndarray) -> float:
        return min(_MOST_ENLARGED, self.max_side / max(image.shape[:2]))

    def _search_at(self, image: np.ndarray, scale: float, threshold: float, color: bool = False) -> list[Face]:
        height, width = image.shape[:2]
        view = images.resize(image, max(1, round(width * scale)), max(1, round(height * scale)))
        factor = np.array([width / view.shape[1], height / view.shape[0]])
        # Gray takes a third less time; in color a few more of the doubtful faces are found.
        searched = view if color else np.asarray(Image.fromarray(view).convert("L"))
        boxes, scores, _ = self._finder.run(searched, 0, threshold)
        faces = []
        for box, score in zip(boxes, scores, strict=True):
            points = np.array([(p.x, p.y) for p in self._predictor(view, box).parts()])
            corners = np.array([(box.left(), box.top()), (box.right(), box.bottom())])
            faces.append(face_within(scaled(corners, factor), score, scaled(points, factor), image.shape, "dlib5"))
        return [face for face in faces if face]
