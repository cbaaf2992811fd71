"""How KPR learns: other people pasted into boxes with their keypoints, and losses of parts (Somers et al., ECCV 2024).

BIPO, batch-wise inter-person occlusion (`occlude`): somebody else of the batch is cut out and pasted over a picture.
What is under it no longer counts as the person, keypoints there are no longer known, and the keypoints of who was
pasted are told as those of others. Some prompts lose keypoints and some are left out, so that the network does without.

`PromptedParts` sums GiLt (BPBreID, Somers et al., WACV 2023) and the parts: who it is, told by the features of all
places, of the foreground and of all parts side by side; triplets by the mean distance over parts; and of which part
every place is. Weights, margin, chances and where somebody is pasted are those of the published code, whose parts are
told by a network; here every pixel of the person is of the part of its nearest keypoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from ipse.encoders.backbones.common import neck
from ipse.encoders.backbones.kpr import KEYPOINTS, PARTS, KeypointPrompted, Reduce, prompts
from ipse.errors import TrainingError
from ipse.images import read_image, resize
from ipse.training.augment import Geometry
from ipse.training.data import WorldRows
from ipse.training.learning import Learner, Parts, Pictures
from ipse.training.losses import Softmax, Triplet
from ipse.training.recipe import TrainRecipe
from ipse.training.samplers import IdentitySampler

Points = npt.NDArray[np.float32]

# Of which of `PARTS` the pixels around each keypoint are: elbows are as high as the upper body, wrists as the lower.
_PART_OF = np.array([0] * 5 + [1] * 4 + [2] * 4 + [3] * 2 + [4] * 2)
# Which keypoint each becomes in a mirror image.
_MIRROR = np.array([0, *(side for i in range(1, KEYPOINTS, 2) for side in (i + 1, i))])
# Classes of the world's segmentation that are not the person.
_BACKGROUND, _OCCLUDER = 0, 20


@dataclass(frozen=True)
class Boxes:
    """Pictures of one person each, and where they are.

    Attributes
    ----------
    pictures
        (N, height, width, 3).
    people, looks, shots
        (N,) numbers.
    parts
        (N, height, width): 0 where the person is not, from 1 on the number of one of `PARTS`.
    points
        (N, 17, 3): x and y in pixels, and 1 where the keypoint can be seen.
    """

    pictures: Pictures = field(repr=False)
    people: npt.NDArray[np.int64]
    looks: npt.NDArray[np.int64]
    shots: npt.NDArray[np.int64]
    parts: npt.NDArray[np.uint8] = field(repr=False)
    points: Points = field(repr=False)

    def __len__(self) -> int:
        return len(self.pictures)

    def choose(self, rows: npt.NDArray[np.integer]) -> Boxes:
        """Some of them."""
        return Boxes(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @property
    def days(self) -> npt.NDArray[np.int64]:
        """(N,) numbers of people in one Look."""
        return self.people * (self.looks.max(initial=0) + 1) + self.looks


def part_map(mask: npt.NDArray[np.bool_], points: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """(H, W) of (H, W) where the person is, and (17, 2) keypoints: 0, or 1 plus the part of the nearest keypoint."""
    rows, columns = np.nonzero(mask)
    pixels = np.stack([columns, rows], 1) + 0.5
    nearest = ((pixels[:, None] - points[None, :, :2]) ** 2).sum(2).argmin(1)
    found = np.zeros(mask.shape, np.uint8)
    found[rows, columns] = 1 + _PART_OF[nearest]
    return found


def read_boxes(
    source: str | Path,
    size: tuple[int, int] = (128, 64),
    files: slice = slice(None),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Boxes:
    """Read whole bodies that ``ipse world dataset`` wrote with parts.

    Parameters
    ----------
    source
        The folder.
    size
        Height and width that pictures are brought to.
    files
        Which of its files, by name.
    progress
        Called with the pictures read and their number.

    Raises
    ------
    DataError
        If there is nothing to read, keypoints or parts are missing, or people are there who are for judging only.
    """
    columns = ["image", "parts", "keypoints", "keypoints_visible", "person", "look", "shot"]
    found = WorldRows.open(source, columns, "Render it with `truth: [parts]` and whole bodies.", files)
    total = len(found)
    pictures, parts = np.empty((total, *size, 3), np.uint8), np.empty((total, *size), np.uint8)
    points, numbers = np.empty((total, KEYPOINTS, 3), np.float32), np.empty((3, total), np.int64)
    for i, row in enumerate(found):
        picture = read_image(row["image"]["bytes"])
        pictures[i] = resize(picture, size[1], size[0])
        classes = read_image(row["parts"]["bytes"])[..., 0]
        # Classes must not be mixed: the nearest pixel's.
        y, x = ((np.arange(n) + 0.5) * old / n for n, old in zip(size, classes.shape, strict=True))
        classes = classes[np.ix_(y.astype(int), x.astype(int))]
        scale = np.array([size[1] / picture.shape[1], size[0] / picture.shape[0]])
        points[i, :, :2] = np.array(row["keypoints"]) * scale
        points[i, :, 2] = row["keypoints_visible"]
        parts[i] = part_map((classes != _BACKGROUND) & (classes != _OCCLUDER), points[i])
        numbers[:, i] = row["person"], row["look"], row["shot"]
        progress(i + 1, total)
    return Boxes(pictures, *numbers, parts, points)


def _hidden(points: Points, mask: npt.NDArray[np.bool_]) -> Points:
    """(P, 3) points, unknown where they lie on the mask or outside."""
    x, y = np.floor(points[:, :2]).astype(int).T
    height, width = mask.shape
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    covered = mask[y.clip(0, height - 1), x.clip(0, width - 1)]
    found = points.copy()
    found[:, 2] *= inside & ~covered
    return found


def shifted(array: npt.NDArray[np.uint8], right: int, down: int) -> npt.NDArray[np.uint8]:
    """(H, W, ...) moved by whole pixels; zeros come in."""
    out = np.zeros_like(array)
    height, width = array.shape[:2]
    to = slice(max(0, down), height + min(0, down)), slice(max(0, right), width + min(0, right))
    of = slice(max(0, -down), height + min(0, -down)), slice(max(0, -right), width + min(0, -right))
    out[to] = array[of]
    return out


def paste(two: Boxes, right: int, down: int, *, behind: bool = False) -> Boxes:
    """Paste a person into the picture of another.

    Parameters
    ----------
    two
        Who is there and who comes.
    right, down
        By how many pixels the second is moved.
    behind
        Paste behind the person who is there.

    Returns
    -------
    Boxes
        The picture twice, in the first row with what can still be seen of who was there, in the second of who came.
    """
    picture, there = two.pictures[0].copy(), two.parts[0].copy()
    came = shifted(two.parts[1], right, down)
    front = (there > 0) & behind
    came[front] = 0
    on = came > 0
    picture[on] = shifted(two.pictures[1], right, down)[on]
    there[on] = 0
    guest = two.points[1] + np.array([right, down, 0], np.float32)
    points = np.stack([_hidden(two.points[0], on), _hidden(guest, front)])
    return replace(two, pictures=np.stack([picture] * 2), parts=np.stack([there, came]), points=points)


def occlude(
    boxes: Boxes, labels: npt.NDArray[np.integer], chance: float, draw: np.random.Generator
) -> tuple[Boxes, Points]:
    """BIPO: paste others of the batch over some of its people.

    Parameters
    ----------
    boxes
        A batch.
    labels
        (N,) who they are; nobody is pasted over pictures of the same label.
    chance
        For a picture.
    draw
        Chance.

    Returns
    -------
    tuple
        The batch, and (N, 17, 3) keypoints of who was pasted, unknown where nobody was.
    """
    height, width = boxes.pictures.shape[1:3]
    pictures, parts, points = boxes.pictures.copy(), boxes.parts.copy(), boxes.points.copy()
    others = np.zeros_like(points)
    for i in np.flatnonzero(draw.random(len(boxes)) < chance):
        strangers = np.flatnonzero(labels != labels[i])
        # The middle of who is pasted comes anywhere across, and lower than the middle of the picture.
        right = round(draw.uniform(-0.5, 0.5) * width)
        down = round(draw.uniform(0.05, 0.25) * height)
        if len(strangers):
            both = paste(boxes.choose(np.array([i, draw.choice(strangers)])), right, down)
            pictures[i], parts[i] = both.pictures[0], both.parts[0]
            points[i], others[i] = both.points
    return replace(boxes, pictures=pictures, parts=parts, points=points), others


@dataclass(frozen=True)
class Chances:
    """How often what happens in training.

    Attributes
    ----------
    occluded
        Somebody is pasted over a picture.
    unprompted
        A prompt is left out; 1 trains the part-based network without prompts.
    thinned
        A prompt loses half of its keypoints.
    """

    occluded: float = 0.2
    unprompted: float = 0.3
    thinned: float = 0.2


class PromptedParts(Learner):
    """Learn people by parts, with prompts.

    Parameters
    ----------
    recipe
        ``batch``, ``augment`` and the rest as in other trainings of identity; its network is ``kpr``, and its losses
        are not asked for.
    boxes
        The pictures, such as `read_boxes` gives them.
    labels
        (N,) who is on them.
    chances
        See `Chances`.
    placed
        Weight of telling of which part a place is.

    Raises
    ------
    TrainingError
        If lengths differ, or the network takes no prompts.
    """

    def __init__(
        self,
        recipe: TrainRecipe,
        boxes: Boxes,
        labels: npt.ArrayLike,
        chances: Chances = Chances(),
        placed: float = 0.35,
    ) -> None:
        super().__init__(recipe)
        names, numbers = np.unique(np.asarray(labels), return_inverse=True)
        if len(boxes) != len(numbers):
            raise TrainingError(f"There are {len(boxes)} pictures and {len(numbers)} labels.")
        network = self.network
        if not isinstance(network, KeypointPrompted) or network.parts != len(PARTS):
            raise TrainingError(
                f"This training needs a network with prompts and {len(PARTS)} parts, not {recipe.network}.",
                "Set `backbone: kpr`.",
            )
        self.boxes, self.chances, self.placed = boxes, chances, placed
        self.numbers = numbers
        plan, dim = recipe.batch, network.part_dim
        self.sampler = IdentitySampler(numbers, plan.people, plan.each, None, recipe.seed, plan.alone)
        # What only training needs; the foreground's neck is the network's own.
        self.whole = Reduce(network.norm.normalized_shape[0], dim)
        self.necks = nn.ModuleDict({"whole": neck("bn", dim, dim)[0], "parts": neck("bn", len(PARTS) * dim, 0)[0]})
        lengths = {"whole": dim, "foreground": dim, "parts": len(PARTS) * dim}
        self.identity = nn.ModuleDict({name: Softmax(length, len(names)) for name, length in lengths.items()})
        self.triplet = Triplet("batch_hard", margin=0.3)

    def _prompt(self, points: Points, others: Points, draw: np.random.Generator) -> npt.NDArray[np.float32]:
        """Prompts of a batch, some thinned and some left out."""
        prompt = prompts(points, self.boxes.pictures.shape[1:3], others)
        thin = draw.random(len(prompt)) < self.chances.thinned
        kept = ~thin[:, None] | (draw.random(prompt.shape[:2]) < 0.5)
        told = draw.random(len(prompt)) >= self.chances.unprompted
        return prompt * (kept & told[:, None])[:, :, None]

    def loss(self, step: int) -> tuple[torch.Tensor, Parts]:
        """GiLt and the places' parts, of a batch."""
        draw = np.random.default_rng([self.recipe.seed, step])
        rows = self.sampler.batch(step)
        labels = self.numbers[rows]
        boxes, others = occlude(self.boxes.choose(rows), labels, self.chances.occluded, draw)
        pixels, maps = self.moved(boxes.pictures)
        points, parts = boxes.points, torch.from_numpy(boxes.parts)[:, None].float()
        if maps is not None:
            points, others = _moved(points, maps), _moved(others, maps)
            parts = Geometry.move_pictures(parts, maps, "nearest")
        body = self.network.body(pixels, torch.from_numpy(self._prompt(points, others, draw)))
        truth = torch.from_numpy(labels)
        features = {
            "whole": self.necks["whole"](self.whole(body.whole)),
            "foreground": self.network.foreground(body.foreground),
            "parts": self.necks["parts"](body.parts.flatten(1)),
        }
        told = {name: self.identity[name](feature, truth) for name, feature in features.items()}
        each = body.parts.transpose(0, 1)
        told["triplet"] = self.triplet.of_distances(torch.cdist(each, each).mean(0), truth)
        places = functional.interpolate(parts, self.network.grid, mode="nearest-exact")[:, 0].round().long()
        told["places"] = functional.cross_entropy(body.scores, places, label_smoothing=0.1)
        loss = sum(value for name, value in told.items() if name != "places") + self.placed * told["places"]
        return loss, {name: value.detach() for name, value in told.items()}


def _moved(points: Points, maps: torch.Tensor) -> Points:
    """(N, 17, 3) points where `maps` take them; in mirror images left points become right ones."""
    # Maps are between middles of pixels, points count from the outer corner.
    places = Geometry.move_points(torch.from_numpy(points[:, :, :2] - 0.5), maps).numpy() + 0.5
    moved = np.concatenate([places, points[:, :, 2:]], 2)
    mirrored = Geometry.mirrored(maps).numpy()
    return np.where(mirrored[:, None, None], moved[:, _MIRROR], moved).astype(np.float32)
