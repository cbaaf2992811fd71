"""Face detectors out of ONNX files: the output layouts of SCRFD and of YuNet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ipse import images
from ipse.errors import WeightsError
from ipse.faces.contract import Face
from ipse.faces.search import SearchingDetector, face_within, scaled
from ipse.zoo import Network, Weights

# Both networks look at images in steps of at most 32 px, so sides are multiples of it.
_STEP = 32

# Candidates: scores (n,), boxes (n, 4) as x0, y0, x1, y1, landmarks (n, 5, 2), in pixels of the network's input.
_Candidates = tuple[np.ndarray, np.ndarray, np.ndarray]


def _cells(stride: int, height: int, width: int, anchors: int) -> np.ndarray:
    """Column and row of each candidate of a level, (rows · columns · anchors, 2)."""
    rows, columns = np.mgrid[: height // stride, : width // stride]
    return np.stack([columns, rows], -1).reshape(-1, 1, 2).repeat(anchors, 1).reshape(-1, 2).astype(np.float32)


def _decode_scrfd(outputs: dict[str, np.ndarray], height: int, width: int) -> _Candidates:
    """SCRFD (Guo et al. 2021): for each level scores, then for each level distances to the box's sides, then landmarks.

    Distances and landmarks are counted from the corner of the cell in units of the stride.
    """
    values = list(outputs.values())
    levels = len(values) // 3
    anchors = 2 if levels == 3 else 1
    found = []
    for level in range(levels):
        stride = 8 * 2**level
        corner = _cells(stride, height, width, anchors) * stride
        score, distance, offset = (values[level + kind * levels] for kind in range(3))
        distance, offset = distance.reshape(-1, 4) * stride, offset.reshape(-1, 5, 2) * stride
        boxes = np.concatenate([corner - distance[:, :2], corner + distance[:, 2:]], 1)
        found.append((score.reshape(-1), boxes, corner[:, None] + offset))
    return _joined(found)


def _decode_yunet(outputs: dict[str, np.ndarray], height: int, width: int) -> _Candidates:
    """YuNet (Wu et al. 2023): ``cls_S``, ``obj_S``, ``bbox_S`` and ``kps_S`` for the strides S = 8, 16, 32.

    The score is the geometric mean of class and objectness. Box centers and landmarks are counted from the corner of
    the cell in units of the stride, box sides are given as logarithms.
    """
    found = []
    for stride in (8, 16, 32):
        cell = _cells(stride, height, width, 1)
        score = np.sqrt(outputs[f"cls_{stride}"].clip(0, 1) * outputs[f"obj_{stride}"].clip(0, 1)).reshape(-1)
        box = outputs[f"bbox_{stride}"].reshape(-1, 4)
        center, half = (cell + box[:, :2]) * stride, np.exp(box[:, 2:].clip(max=20)) * stride / 2
        landmarks = (cell[:, None] + outputs[f"kps_{stride}"].reshape(-1, 5, 2)) * stride
        found.append((score, np.concatenate([center - half, center + half], 1), landmarks))
    return _joined(found)


def _joined(levels: Sequence[_Candidates]) -> _Candidates:
    scores, boxes, landmarks = (np.concatenate(parts) for parts in zip(*levels, strict=True))
    return scores, boxes, landmarks


@dataclass(frozen=True)
class _Layout:
    """How a kind of detector wants its input and what its output means."""

    color: Literal["rgb", "bgr"]
    mean: float
    scale: float
    threshold: float
    decode: Callable[[dict[str, np.ndarray], int, int], _Candidates]


_LAYOUTS = {
    "scrfd": _Layout("rgb", 127.5, 128.0, 0.5, _decode_scrfd),
    "yunet": _Layout("bgr", 0.0, 1.0, 0.7, _decode_yunet),
}


def _layout_of(names: Sequence[str], widths: Sequence[object]) -> str | None:
    """The layout of a model with outputs of these names and last dimensions."""
    levels, rest = divmod(len(names), 3)
    if rest == 0 and list(widths) == [1] * levels + [4] * levels + [10] * levels:
        return "scrfd" if levels in (3, 5) else None
    wanted = {f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32)}
    return "yunet" if set(names) == wanted else None


class OnnxDetector(SearchingDetector):
    """A face detector read from an ONNX file, with SCRFD's or YuNet's outputs; which one is read off the file.

    The image is fitted into the network's input (enlarged or shrunk), the rest of which stays black. Scores lie in 0–1.

    Parameters
    ----------
    path
        The ``.onnx`` file, with boxes and five landmarks among its outputs.
    side
        Side in pixels of the square input, rounded up to a multiple of 32, for files that leave it free.
    threshold
        Lowest score that counts as a face; None for 0.5 (SCRFD) or 0.7 (YuNet).
    turned
        Also look for faces that lie on their side or stand on their head.
    threads
        CPU threads per call; None reads ``OMP_NUM_THREADS``, and without it uses all cores.

    Raises
    ------
    WeightsError
        If the file is missing, cannot be run, or has neither layout.
    """

    def __init__(
        self,
        path: str | Path,
        side: int = 640,
        threshold: float | None = None,
        turned: bool = False,
        threads: int | None = None,
    ) -> None:
        super().__init__(turned)
        path = Path(path)
        self.name = path.stem
        self._network = Network(Weights(name=path.name, file=str(path), license="").path(), path.name, threads)
        outputs = self._network.outputs
        layout = _layout_of([o.name for o in outputs], [o.shape[-1] if o.shape else None for o in outputs])
        inputs = self._network.inputs
        if layout is None or len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type != "tensor(float)":
            raise WeightsError(
                f"{path.name} has neither SCRFD's nor YuNet's outputs: {[(o.name, o.shape) for o in outputs]}.",
                "Export the detector with scores, boxes and five landmarks at the strides 8, 16 and 32.",
            )
        self._input = inputs[0].name
        self._layout = _LAYOUTS[layout]
        self.threshold = self._layout.threshold if threshold is None else threshold
        free = -(-side // _STEP) * _STEP
        self._height, self._width = (size if isinstance(size, int) else free for size in inputs[0].shape[2:])

    def _search(self, image: np.ndarray, close: bool = False) -> list[Face]:
        height, width = image.shape[:2]
        scale = min(self._height / height, self._width / width)
        view = images.resize(image, max(1, round(width * scale)), max(1, round(height * scale)))
        canvas = np.zeros((self._height, self._width, 3), np.uint8)
        canvas[: view.shape[0], : view.shape[1]] = view
        pixels = canvas[..., ::-1] if self._layout.color == "bgr" else canvas
        normal = (pixels - np.float32(self._layout.mean)) / np.float32(self._layout.scale)
        feed = {self._input: np.ascontiguousarray(normal.transpose(2, 0, 1)[None])}
        scores, boxes, landmarks = self._layout.decode(self._network.run(feed), self._height, self._width)
        factor = np.array([width / view.shape[1], height / view.shape[0]])
        chosen = np.flatnonzero(scores >= self.threshold)
        corners, points = scaled(boxes[chosen].reshape(-1, 2, 2), factor), scaled(landmarks[chosen], factor)
        faces = map(
            face_within, corners, scores[chosen], points, [image.shape] * len(chosen), ["arcface5"] * len(chosen)
        )
        return [face for face in faces if face]
