"""KPR: a transformer that is shown whom of several people a box is about (Somers et al., ECCV 2024).

A box that holds two people does not say which of them is meant. Keypoints do: those of the person who is meant, and
those of the others. They become heat maps, one for each group of the person's keypoints and one for all that belongs to
others (`heat_maps`); patches of the maps become tokens, which are added to those of the picture. All else is a
part-based network. Every place of the last map is told to be of a part of the body or of nothing
(`KeypointPrompted.scores`), parts and the foreground are means weighed by that, and a part is visible where it is the
likeliest of any place. Two pictures are compared by the parts that both show; see
`ipse.gallery.visible_parts.VisibleParts`. Without keypoints the maps are zero, and the network is as good as without
them; so the prompt is a choice.

The groups of keypoints, the tokens that begin at zero, the pooling, the layers behind it, which embeddings are compared
and when a part is visible are those of the published code. There the transformer is a Swin, whose stages are joined
into one map; here it is `ipse.encoders.backbones.vit`. The width of the bells is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from ipse.catalogue import system
from ipse.encoders.backbones.common import neck
from ipse.encoders.backbones.vit import VisionTransformer
from ipse.errors import WeightsError

KEYPOINTS = 17
"""Of COCO, in its order."""

#: The maps of a person: which of the keypoints each has. One more map has those of others.
MAPS: dict[str, tuple[int, ...]] = {
    "head": (0, 1, 2, 3, 4),
    "left_arm": (7, 9),
    "right_arm": (8, 10),
    "left_leg": (13, 15),
    "right_leg": (14, 16),
    "torso": (5, 6, 11, 12),
}

PARTS = ("head", "upper body", "lower body", "legs", "feet")
"""The parts that have features of their own, from above to below."""


def prompts(target: npt.ArrayLike, size: Sequence[int], others: npt.ArrayLike | None = None) -> npt.NDArray[np.float32]:
    """What the network is told of who is meant.

    Parameters
    ----------
    target
        (N, 17, 3): x and y in pixels, and above 0 where the keypoint is known, of the people who are meant. Zeros where
        nobody is.
    size
        Height and width of the pictures.
    others
        (N, M, 3) keypoints of all others in the box, in any order.

    Returns
    -------
    numpy.ndarray
        (N, 17 + M, 3): shares of width and height, and 1 or 0; unknown keypoints, and those outside, are zeros.

    Raises
    ------
    WeightsError
        If shapes do not fit.
    """
    points = np.asarray(target, np.float32)
    if points.ndim != 3 or points.shape[1:] != (KEYPOINTS, 3):
        raise WeightsError(
            f"Keypoints of who is meant have the shape {points.shape}, not (N, {KEYPOINTS}, 3).",
            "Give x, y and whether it is known of all keypoints of COCO, in their order.",
        )
    if others is not None:
        more = np.asarray(others, np.float32)
        if more.ndim != 3 or len(more) != len(points) or more.shape[2] != 3:
            raise WeightsError(f"Keypoints of others have the shape {more.shape}, not ({len(points)}, M, 3).")
        points = np.concatenate([points, more], 1)
    shares = points[:, :, :2] / np.array([size[1], size[0]], np.float32)
    known = (points[:, :, 2] > 0) & (shares >= 0).all(2) & (shares < 1).all(2)
    return np.where(known[:, :, None], np.concatenate([shares, np.ones_like(shares[:, :, :1])], 2), 0)


def heat_maps(prompt: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Bells of height 1 around keypoints.

    Parameters
    ----------
    prompt
        (N, 17 + M, 3) as `prompts` gives them.
    size
        Height and width of the maps; a bell's deviation is a 22nd of the width.

    Returns
    -------
    torch.Tensor
        (N, 7, height, width): the maps of `MAPS`, and that of others.
    """
    height, width = size
    deviation = width / 22
    columns = torch.arange(width, device=prompt.device) + 0.5
    rows = torch.arange(height, device=prompt.device) + 0.5
    across = (-((columns - prompt[:, :, :1] * width) ** 2) / (2 * deviation**2)).exp() * prompt[:, :, 2:]
    down = (-((rows - prompt[:, :, 1:2] * height) ** 2) / (2 * deviation**2)).exp()
    groups = [*MAPS.values(), tuple(range(KEYPOINTS, prompt.shape[1]))]
    maps = prompt.new_zeros(len(prompt), len(groups), height, width)
    for number, group in enumerate(groups):
        for point in group:
            bell = down[:, point, :, None] * across[:, point, None]
            maps[:, number] = torch.maximum(maps[:, number], bell)
    return maps


@dataclass(frozen=True)
class Body:
    """What the network says of N pictures.

    Attributes
    ----------
    whole
        (N, width) the mean of all places.
    foreground
        (N, D) features of the places that are of the person.
    parts
        (N, K, D) features of the parts.
    visible
        (N, K) which parts can be seen.
    scores
        (N, K + 1, h, w) logits of every place: nothing of the person, or one of the parts.
    """

    whole: torch.Tensor
    foreground: torch.Tensor
    parts: torch.Tensor
    visible: torch.Tensor
    scores: torch.Tensor


class Reduce(nn.Sequential):
    """A linear layer, batch norm and ReLU over (N, C) or (N, K, C)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map the last axis."""
        return super().forward(x.flatten(0, -2)).unflatten(0, x.shape[:-1])


@system(
    name="KPR",
    paper="Keypoint Promptable Re-Identification",
    year=2024,
    arxiv="2407.18112",
    room="encoders",
    claim="Keypoints that say whom of several people a box is about find that person again, where boxes alone cannot "
    "tell; without them the network is as good as others.",
    evidence=["reid.kpr.*"],
    works_means="On world boxes that hold two people: mAP with prompts is far above that of a part-based model that "
    "has none; the other person's keypoints in their place find the other person; and without prompts mAP is within "
    "2 points of that model's.",
    status="experimental",
)
class KeypointPrompted(VisionTransformer):
    """A part-based vision transformer that takes keypoints as a prompt.

    Parameters
    ----------
    width, depth, heads, size, patch, stride, drop
        As in `VisionTransformer`.
    dim
        D, of the features of a part and of the foreground.
    parts
        K, how many parts of the body have features.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        dim: int = 512,
        parts: int = len(PARTS),
        size: Sequence[int] = (256, 128),
        patch: int = 16,
        stride: int = 16,
        drop: float = 0.1,
    ) -> None:
        super().__init__(width, depth, heads, size=size, patch=patch, stride=stride, drop=drop)
        # There are no grids between layers here for blocks of attention to work on.
        self.slots = {}
        # Without a bias, no keypoints are the same as no prompt.
        self.prompts = nn.Conv2d(len(MAPS) + 1, width, patch, stride, bias=False)
        nn.init.zeros_(self.prompts.weight)
        self.scores = nn.Sequential(nn.BatchNorm2d(width), nn.Conv2d(width, parts + 1, 1))
        self.reduce = nn.ModuleDict({name: Reduce(width, dim) for name in ("foreground", "parts")})
        self.foreground, _ = neck("bn", dim, dim)
        self.parts, self.part_dim, self.dim = parts, dim, (parts + 1) * dim

    def feature_map(self, x: torch.Tensor, prompt: torch.Tensor | None = None) -> torch.Tensor:
        """See `Backbone.feature_map`; one place for each patch."""
        if tuple(x.shape[2:]) != self.size:
            raise WeightsError(f"This transformer takes pictures of {self.size} pixels, not {tuple(x.shape[2:])}.")
        if prompt is None:
            maps = x.new_zeros(len(x), len(MAPS) + 1, *self.size)
        else:
            maps = heat_maps(prompt, self.size)
        patches = (self.patches(x) + self.prompts(maps)).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)[:, 1:].transpose(1, 2).unflatten(2, self.grid)

    def body(self, x: torch.Tensor, prompt: torch.Tensor | None = None) -> Body:
        """All that is said of (N, 3, H, W) normalized floats; `prompt` as in `forward`."""
        grid = self.feature_map(x, prompt)
        scores = self.scores(grid)
        chances = scores.softmax(1)
        shares = torch.cat([chances[:, 1:].amax(1, keepdim=True), chances[:, 1:]], 1).flatten(2)
        means = shares @ grid.flatten(2).transpose(1, 2) / shares.sum(2, keepdim=True).clamp(min=1e-6)
        best = functional.one_hot(scores.argmax(1), self.parts + 1).amax((1, 2)).bool()
        return Body(
            grid.mean((2, 3)),
            self.reduce["foreground"](means[:, 0]),
            self.reduce["parts"](means[:, 1:]),
            best[:, 1:],
            scores,
        )

    def forward(self, x: torch.Tensor, prompt: torch.Tensor | None = None) -> torch.Tensor:
        """Embed (N, 3, H, W) normalized floats as (N, (K + 1) · D): the foreground, then the parts.

        Each has length 1; a part that cannot be seen is zeros.

        Parameters
        ----------
        x
            The pictures.
        prompt
            (N, 17 + M, 3) as `prompts` gives them; zeros, or None, where nobody is pointed at.
        """
        body = self.body(x, prompt)
        parts = functional.normalize(body.parts, dim=2) * body.visible[:, :, None]
        return torch.cat([functional.normalize(self.foreground(body.foreground))[:, None], parts], 1).flatten(1)
