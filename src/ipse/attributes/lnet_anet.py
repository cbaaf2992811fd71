"""LNet+ANet: find the face by what tags taught a network to look at, then tell its attributes by linear classifiers.

Liu et al., "Deep Learning Face Attributes in the Wild", ICCV 2015, which also gave the 40 attributes of CelebA
(`ipse.attributes.CELEBA`). As there,

- *LNet* is trained on tags of whole pictures ("glasses", "beard"), never on boxes. What its last map responds to is
  where faces are. Two such networks go from coarse to fine: the first looks at the picture, the second at the window
  that the first one found (section 2.1).
- *ANet* is trained to tell identities. Patches of the face are embedded by it, a linear SVM per attribute scores each
  patch, and the scores of a face are averaged (section 2.2).

Unlike there, no other program proposes windows: all rectangles of the map are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional

from ipse.catalogue import system
from ipse.encoders.backbones import Backbone
from ipse.errors import DataError
from ipse.measure.verification import best_threshold

Pictures = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.float64]
"""(N, 4) left, top, right, bottom in pixels, edges of pixels at whole numbers."""

# Windows have corners on a grid of so many cells a side.
_GRID = 16
# What the fine network sees around the window that the coarse one found, and ANet around the face: shares of the longer
# side that are added on each side.
_COARSE, _AROUND = 0.3, 0.25
# A patch is this share of the side of the region around the face.
_PATCH = 8 / 9
_BATCH = 128


def best_windows(scores: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int64]:
    """The rectangles with the largest sums.

    Parameters
    ----------
    scores
        (N, H, W), above 0 where a face is likelier than not.

    Returns
    -------
    numpy.ndarray
        (N, 4) left, top, right, bottom in cells, the last two exclusive.
    """
    _, height, width = scores.shape
    top, bottom = np.triu_indices(height + 1, 1)
    left, right = np.triu_indices(width + 1, 1)
    windows = np.empty((len(scores), 4), np.int64)
    for start in range(0, len(scores), _BATCH):
        block = scores[start : start + _BATCH]
        # Sums of all that is above and to the left, so that every rectangle takes four of them.
        total = np.zeros((len(block), height + 1, width + 1))
        total[:, 1:, 1:] = block.cumsum(1).cumsum(2)
        rows = total[:, bottom] - total[:, top]
        sums = rows[:, :, right] - rows[:, :, left]
        row, column = np.divmod(sums.reshape(len(block), -1).argmax(1), len(left))
        windows[start : start + _BATCH] = np.stack([left[column], top[row], right[column], bottom[row]], 1)
    return windows


def cut_squares(pictures: Sequence[Pictures], boxes: Boxes, side: int, around: float) -> Pictures:
    """Squares around boxes; black beyond the picture.

    Parameters
    ----------
    pictures
        N of (H, W, 3), each of any size.
    boxes
        (N, 4).
    side
        Of a cut in pixels.
    around
        Share of the longer side of a box that is added on each side.

    Returns
    -------
    numpy.ndarray
        (N, side, side, 3).
    """
    cuts = np.empty((len(pictures), side, side, 3), np.uint8)
    for i, (picture, square) in enumerate(zip(pictures, _squares(boxes, around), strict=True)):
        cuts[i] = Image.fromarray(picture).transform(
            (side, side), Image.Transform.EXTENT, tuple(square), Image.Resampling.BILINEAR
        )
    return cuts


def _squares(boxes: Boxes, around: float) -> Boxes:
    half = (boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True) * (1 + 2 * around) / 2
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.concatenate([middle - half, middle + half], 1)


class LNet:
    """Find faces by the response maps of networks that were trained on tags of whole pictures.

    Parameters
    ----------
    networks
        From coarse to fine, each with a `feature_map`; see `ipse.encoders.backbones`. `ipse train encoder` trains them
        by the task ``attributes``, whose network has them as ``trunk``.
    side
        Of the squares that they see.
    mean, std
        They see (pixel - mean) / std.
    """

    def __init__(self, networks: Sequence[Backbone], side: int, mean: float = 127.5, std: float = 127.5) -> None:
        self.networks = [network.eval() for network in networks]
        self.side, self.mean, self.std = side, mean, std
        self.levels: list[tuple[float, float]] = []

    def responses(self, network: Backbone, squares: Pictures) -> npt.NDArray[np.float64]:
        """(N, 16, 16) mean over channels of what the last map responds to (N, side, side, 3) squares."""
        maps = []
        with torch.inference_mode():
            for start in range(0, len(squares), _BATCH):
                pixels = torch.from_numpy(squares[start : start + _BATCH]).permute(0, 3, 1, 2).float()
                response = network.feature_map((pixels - self.mean) / self.std).clamp(min=0).mean(1, keepdim=True)
                maps.append(functional.interpolate(response, (_GRID, _GRID), mode="bilinear")[:, 0])
        return torch.cat(maps).double().numpy()

    def fit(self, faces: Sequence[Pictures], backgrounds: Sequence[Pictures]) -> Self:
        """Find how each network responds to backgrounds, and which peak parts pictures with a face from those without.

        Neither takes boxes (section 2.1).

        Parameters
        ----------
        faces, backgrounds
            Pictures of one face each, and of none.
        """
        self.levels = []
        for network in self.networks:
            of_faces, of_backgrounds = (
                self.responses(network, self._seen(pictures)[0]) for pictures in (faces, backgrounds)
            )
            threshold = -best_threshold(-of_faces.max((1, 2)), -of_backgrounds.max((1, 2)))
            self.levels.append((float(of_backgrounds.mean()), threshold))
        return self

    def locate(self, pictures: Sequence[Pictures], looks: int | None = None) -> tuple[Boxes, npt.NDArray[np.float64]]:
        """Where the face of each picture is.

        Parameters
        ----------
        pictures
            N of (H, W, 3), each of any size.
        looks
            How many of the networks look; None for all.

        Returns
        -------
        tuple
            (N, 4) boxes: what responds more than half as much over the backgrounds' mean as the peak does; and (N,)
            scores: by how much the peak is above that which parts faces from backgrounds.

        Raises
        ------
        DataError
            Before `fit`.
        """
        if not self.levels:
            raise DataError(
                "LNet does not know its responses to backgrounds yet.", "Call fit with pictures of faces and of none."
            )
        last = (looks or len(self.networks)) - 1
        squares, corners, sides = self._seen(pictures, last)
        responses, (rest, threshold) = self.responses(self.networks[last], squares), self.levels[last]
        peaks = responses.max((1, 2))
        windows = best_windows(responses - (rest + peaks)[:, None, None] / 2)
        return np.tile(corners, 2) + windows / _GRID * np.tile(sides, 2), peaks - threshold

    def _seen(self, pictures: Sequence[Pictures], look: int | None = None) -> tuple[Pictures, Boxes, Boxes]:
        """What a network sees, by default the next one to be fitted; and its corners (N, 2) and sides (N, 2) in pixels.

        The first sees whole pictures, each other one the surroundings of the window that the one before it found.
        """
        look = len(self.levels) if look is None else look
        if look:
            boxes, _ = self.locate(pictures, look)
            squares = _squares(boxes, _COARSE)
            seen = cut_squares(pictures, boxes, self.side, _COARSE)
        else:
            sizes = np.array([picture.shape[1::-1] for picture in pictures], np.float64)
            squares = np.concatenate([np.zeros_like(sizes), sizes], 1)
            seen = np.stack([_square(picture, self.side) for picture in pictures])
        return seen, squares[:, :2], squares[:, 2:] - squares[:, :2]


def _square(picture: Pictures, side: int) -> Pictures:
    """The whole picture, squeezed into a square."""
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BILINEAR))


class ANet:
    """Attributes of faces from the embedding of identities, by a linear SVM each.

    Parameters
    ----------
    encode
        Maps (N, side, side, 3) chips to (N, D) vectors: an encoder's `encode`.
    side
        Of its chips.
    cost
        Of an error of the SVM (scikit-learn's C).
    """

    def __init__(self, encode: Callable[[Pictures], npt.NDArray[np.float32]], side: int, cost: float = 0.01) -> None:
        self.encode, self.side, self.cost = encode, side, cost
        self.classifiers: dict[str, Any] = {}

    def features(self, pictures: Sequence[Pictures], boxes: Boxes) -> npt.NDArray[np.float32]:
        """(N, 5, D) embeddings of the corners and the middle of the region around each face."""
        whole = round(self.side / _PATCH)
        regions = cut_squares(pictures, boxes, whole, _AROUND)
        far, half = whole - self.side, (whole - self.side) // 2
        patches = [
            self.encode(np.ascontiguousarray(regions[:, y : y + self.side, x : x + self.side]))
            for y, x in ((half, half), (0, 0), (0, far), (far, 0), (far, far))
        ]
        return np.stack(patches, 1)

    def fit(self, features: npt.NDArray[np.float32], labels: Mapping[str, npt.ArrayLike]) -> Self:
        """Learn attributes.

        Parameters
        ----------
        features
            (N, 5, D).
        labels
            Name of an attribute → (N,) 1 where a face has it, 0 where not, NaN where nobody knows.

        Raises
        ------
        DataError
            If an attribute has only faces of one kind.
        """
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import LinearSVC

        for name, values in labels.items():
            truth = np.asarray(values, np.float64)
            known = ~np.isnan(truth)
            if len(np.unique(truth[known])) != 2:
                raise DataError(
                    f"All faces whose {name} is known are alike, so it cannot be learned.",
                    "Add faces with it and without it, or leave it out.",
                )
            # Every patch is an example of its own.
            rows = features[known]
            model = make_pipeline(StandardScaler(), LinearSVC(C=self.cost, class_weight="balanced"))
            self.classifiers[name] = model.fit(rows.reshape(-1, rows.shape[2]), np.repeat(truth[known], rows.shape[1]))
        return self

    def scores(self, features: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float64]]:
        """By attribute, (N,) mean signed distances of (N, 5, D) patches: above 0 where a face has it."""
        flat = features.reshape(-1, features.shape[2])
        return {
            name: model.decision_function(flat).reshape(features.shape[:2]).mean(1)
            for name, model in self.classifiers.items()
        }


@system(
    name="LNet+ANet",
    paper="Deep Learning Face Attributes in the Wild",
    year=2015,
    arxiv="1411.7766",
    room="attributes",
    claim="A network trained on tags of pictures finds faces by its responses, and features trained on identities tell "
    "attributes linearly.",
    evidence=["systems.lnet.*"],
    works_means="On world people outside the training: boxes from tags alone overlap the true ones more than windows "
    "by chance and than the mean box do; with few labels, features of identity tell attributes better by linear "
    "classifiers than features of other things in the picture and those of a random network. Not shown: boxes of the "
    "coarse network overlap more than both, those of the fine one less, whether it begins with the coarse one's "
    "filters or not.",
    status="experimental",
)
class LNetANet:
    """Tell attributes of the one face in each picture.

    Parameters
    ----------
    lnet, anet
        The two parts, the first fitted.
    """

    def __init__(self, lnet: LNet, anet: ANet) -> None:
        self.lnet, self.anet = lnet, anet

    def fit(self, pictures: Sequence[Pictures], labels: Mapping[str, npt.ArrayLike]) -> Self:
        """Learn attributes of N pictures; `labels` as in `ANet.fit`. No boxes are needed."""
        self.anet.fit(self.anet.features(pictures, self.lnet.locate(pictures)[0]), labels)
        return self

    def scores(self, pictures: Sequence[Pictures]) -> tuple[Boxes, dict[str, npt.NDArray[np.float64]]]:
        """(N, 4) boxes, and by attribute (N,) scores, above 0 where a face has it."""
        boxes, _ = self.lnet.locate(pictures)
        return boxes, self.anet.scores(self.anet.features(pictures, boxes))
