"""Landmarks: seventy points of a face (the five of alignment among them), which of them show, and a segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from ipse.encoders.backbones.common import ConvNorm, initialize
from ipse.encoders.backbones.iresnet import IResNet
from ipse.errors import TrainingError
from ipse.faces.landmarks import POINTS, five_of
from ipse.training.augment import Geometry
from ipse.training.data import Chips
from ipse.training.recipe import TrainRecipe
from ipse.training.tasks.common import Run, Targets, Task, begin_with

MIRROR: npt.NDArray[np.int64] = np.array(
    [
        *range(16, -1, -1),
        *range(26, 16, -1),
        *(27, 28, 29, 30, 35, 34, 33, 32, 31),
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
        *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
        *(64, 63, 62, 61, 60, 67, 66, 65),
        *(69, 68),
    ]
)
"""(70,) which point of the mirror image each point becomes."""

# A grid of the network covers so many pixels of the chip.
_CELL = 4


class LandmarkNetwork(nn.Module):
    """IResNet's stages, then back up to a quarter of the chip, with heads for points, their visibility and parts.

    It maps (N, 3, H, W) normalized floats to ``points`` (N, 70, 2) in shares of width and height (0 and 1 at the edges
    of the chip), ``visible`` (N, 70) logits, and ``parts`` (N, C, H/4, W/4) logits. The way up joins what coarse stages
    know with where fine ones saw it (feature pyramid, Lin et al., 2017). Points are the means of heat maps, so they
    fall between cells (integral regression, Sun et al., 2018); in training ``heat``, the logarithms of these maps
    (N, 70, H/4, W/4), is told as well.

    Parameters
    ----------
    classes
        C, of the segmentation.
    depths, width
        Of the stages, as in `IResNet`; their stem has a stride of 2. They can begin with those of another network.
    neck
        Channels of the way up.
    """

    def __init__(
        self, classes: int = 21, depths: Sequence[int] = (1, 2, 3, 2), width: float = 0.25, neck: int = 48
    ) -> None:
        super().__init__()
        # All of it but its head; no parameter of the stages depends on the size.
        whole = IResNet(depths, width, dim=1, size=(32, 32), stem=2)
        self.stem, self.stages = whole.stem, whole.stages
        channels = list(whole.slots.values())
        self.across = nn.ModuleList(nn.Conv2d(count, neck, 1) for count in channels)
        self.join = nn.ModuleList(ConvNorm(neck, neck, 3, 1, 1, act=nn.ReLU()) for _ in channels[1:])
        self.heat = nn.Conv2d(neck, POINTS, 1)
        self.parts = nn.Conv2d(neck, classes, 1)
        self.visible = nn.Linear(channels[-1], POINTS)
        for fresh in (self.across, self.join, self.heat, self.parts, self.visible):
            initialize(fresh)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """See the class."""
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        fine = self.across[-1](x)
        for level in reversed(range(len(self.join))):
            side = self.across[level](maps[level])
            fine = self.join[level](side + functional.interpolate(fine, size=side.shape[2:], mode="bilinear"))
        heat = self.heat(fine)
        height, width = heat.shape[2:]
        logarithms = heat.float().flatten(2).log_softmax(2).unflatten(2, (height, width))
        chances = logarithms.exp()
        columns = (torch.arange(width, device=x.device) + 0.5) / width
        rows = (torch.arange(height, device=x.device) + 0.5) / height
        points = torch.stack([(chances.sum(2) * columns).sum(2), (chances.sum(3) * rows).sum(2)], 2)
        told = {"points": points, "visible": self.visible(x.mean((2, 3))), "parts": self.parts(fine)}
        return told | {"heat": logarithms} if self.training else told


def _bells(places: torch.Tensor, cells: int) -> torch.Tensor:
    """(..., cells) chances of a normal distribution one cell wide around (...) places from 0 to 1."""
    middles = (torch.arange(cells, device=places.device) + 0.5) / cells
    return (-(((places[..., None] - middles) * cells) ** 2) / 2).softmax(-1)


class LandmarksTask(Task):
    """Train `LandmarkNetwork`; the recipe's ``network`` has its options, without a backbone."""

    def __init__(self, recipe: TrainRecipe, chips: Chips) -> None:
        super().__init__()
        if recipe.cut.size[0] % 16 or recipe.cut.size[1] % 16:
            raise TrainingError(f"Landmarks need chips whose sides are multiples of 16, not {recipe.cut.size}.")
        if not recipe.cut.parts:
            raise TrainingError(
                "Landmarks are trained with the segmentation.", "Set `parts: true` in the recipe's cut."
            )
        chips.column("dense")
        try:
            self.network = LandmarkNetwork(**recipe.network)
        except TypeError as error:
            raise TrainingError(f"The network cannot be made with {dict(recipe.network)}: {error}.") from error
        if recipe.start:
            begin_with(self.network, recipe.start)
        height, width = recipe.cut.size
        self.register_buffer("sides", torch.tensor([width, height], dtype=torch.float32))

    def targets(self, chips: Chips, rows: npt.NDArray[np.int64]) -> Targets:
        """See `Task.targets`: points in pixels, whether they show, and classes of pixels."""
        return {
            "dense": torch.from_numpy(chips.column("dense")[rows]),
            "visible": torch.from_numpy(chips.column("dense_visible")[rows]),
            "parts": torch.from_numpy(chips.parts(rows)),
        }

    def move(self, targets: Targets, maps: torch.Tensor) -> Targets:
        """Points and parts go with the pixels; in mirror images left points become right ones."""
        maps = maps.to(targets["dense"].device)
        mirrored = Geometry.mirrored(maps).to(maps.device)
        points, visible = Geometry.move_points(targets["dense"], maps), targets["visible"]
        points = torch.where(mirrored[:, None, None], points[:, MIRROR], points)
        visible = torch.where(mirrored[:, None], visible[:, MIRROR], visible)
        parts = Geometry.move_pictures(targets["parts"][:, None].float(), maps, "nearest")[:, 0]
        return {"dense": points, "visible": visible, "parts": parts.round().to(torch.uint8)}

    def forward(self, pixels: torch.Tensor, targets: Targets) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """L1 of points in pixels; cross-entropy of their heat maps, of visibility and of parts."""
        told = self.network(pixels)
        true = (targets["dense"] + 0.5) / self.sides
        inside = ((true > -0.02) & (true < 1.02)).all(2)
        errors = ((told["points"] - true) * self.sides).abs().sum(2)
        # A point that is hidden is guessed from the others, which teaches less about what it looks like.
        weights = inside * (0.3 + 0.7 * targets["visible"])
        points = (errors * weights).sum() / weights.sum().clamp(min=1)
        # The mean alone lets heat be wide, and its tails shake the point; a bell of one cell around the truth does not
        # (Nibali et al., 2018, section 3.3).
        columns, rows = (_bells(true[..., axis], told["heat"].shape[3 - axis]) for axis in (0, 1))
        surprise = -torch.einsum("npy,npx,npyx->np", rows, columns, told["heat"])
        heat = (surprise * weights).sum() / weights.sum().clamp(min=1)
        visible = functional.binary_cross_entropy_with_logits(told["visible"].float(), targets["visible"].float())
        small = targets["parts"][:, _CELL // 2 :: _CELL, _CELL // 2 :: _CELL].long()
        parts = functional.cross_entropy(told["parts"].float(), small)
        logs = {"points": points, "heat": heat, "visible": visible, "parts": parts}
        return points + heat + visible + parts, {name: value.detach() for name, value in logs.items()}

    def judge(self, network: nn.Module, chips: Chips, run: Run) -> dict[str, float]:
        """Mean error of visible points over the distance of the outer corners of the eyes; agreement of the rest."""
        told = run(network, chips)
        true, visible = chips.column("dense"), chips.column("dense_visible")
        found = told["points"] * self.sides.cpu().numpy() - 0.5
        eyes = np.linalg.norm(true[:, 36] - true[:, 45], axis=1)
        usable = eyes > 0.05 * chips.cut.size[1]  # of a face from the side the eyes coincide
        errors = np.linalg.norm(found - true, axis=2) / np.maximum(eyes, 1e-6)[:, None]
        shown = visible & usable[:, None]
        five = np.linalg.norm(five_of(found) - five_of(true), axis=2) / np.maximum(eyes, 1e-6)[:, None]
        figures = {
            "nme": float(errors[shown].mean()),
            "nme_five": float(five[usable].mean()),
            "visible_accuracy": float(((told["visible"] > 0) == visible).mean()),
        }
        chosen = told["parts"].argmax(1)
        small = chips.parts(np.arange(len(chips)))[:, _CELL // 2 :: _CELL, _CELL // 2 :: _CELL]
        classes = np.unique(small)
        overlaps = [((chosen == c) & (small == c)).sum() / ((chosen == c) | (small == c)).sum() for c in classes]
        return figures | {"parts_iou": float(np.mean(overlaps))}

    def contract(self) -> dict[str, Any]:
        """See `Task.contract`."""
        return {
            "outputs": {
                "points": {"kind": "points", "count": POINTS, "unit": "share of the chip's width and height"},
                "visible": {"kind": "logits"},
                "parts": {"kind": "map", "cell": _CELL},
            }
        }
