"""Augmentations in batches, on the device: one geometric map, then kornia's changes of light and detail.

Everything is drawn from torch's generator, which the loop sets before every step, so a step always sees the same.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from kornia import augmentation
from kornia.geometry.transform import warp_affine
from torch import nn
from torch.nn import functional

from ipse.errors import TrainingError


class Geometry(nn.Module):
    """Turn, scale, shift and mirror pictures, with their points and maps; what comes in repeats the edge.

    Parameters
    ----------
    turn
        Largest angle, degrees.
    scale
        Largest change of size, as a share.
    shift
        Largest shift, as a share of the side.
    flip
        Chance of a mirror image.
    """

    def __init__(self, turn: float = 0.0, scale: float = 0.0, shift: float = 0.0, flip: float = 0.0) -> None:
        super().__init__()
        self.turn, self.scale, self.shift, self.flip = math.radians(turn), scale, shift, flip

    def draw(self, count: int, height: int, width: int) -> torch.Tensor:
        """(count, 2, 3) maps from the pixels of old pictures to those of new ones."""
        turn, scale, right, down = (2 * torch.rand(4, count) - 1) * torch.tensor(
            [[self.turn], [self.scale], [self.shift * width], [self.shift * height]]
        )
        mirror = torch.where(torch.rand(count) < self.flip, -1.0, 1.0)
        factor = torch.exp(scale)
        a, b = factor * turn.cos(), factor * turn.sin()
        linear = torch.stack([torch.stack([a * mirror, -b], 1), torch.stack([b * mirror, a], 1)], 1)
        middle = torch.tensor([(width - 1) / 2, (height - 1) / 2])
        offset = middle + torch.stack([right, down], 1) - linear @ middle
        return torch.cat([linear, offset[:, :, None]], 2)

    @staticmethod
    def mirrored(maps: torch.Tensor) -> torch.Tensor:
        """(count,) whether a map mirrors."""
        return torch.linalg.det(maps[:, :, :2].cpu()) < 0

    @staticmethod
    def move_points(points: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """(N, P, 2) points under (N, 2, 3) maps."""
        return points @ maps[:, :, :2].transpose(1, 2) + maps[:, None, :, 2]

    @staticmethod
    def move_pictures(pictures: torch.Tensor, maps: torch.Tensor, mode: str = "bilinear") -> torch.Tensor:
        """(N, C, H, W) pictures under (N, 2, 3) maps; ``nearest`` for classes."""
        size = (pictures.shape[2], pictures.shape[3])
        return warp_affine(pictures, maps.to(pictures), size, mode, "border", align_corners=True)


class LowResolution(nn.Module):
    """Some pictures as seen from afar: made small, then large again.

    Parameters
    ----------
    smallest
        The least share of the size that is left.
    p
        Chance for a picture.
    """

    def __init__(self, smallest: float = 0.25, p: float = 0.3) -> None:
        super().__init__()
        self.smallest, self.p = smallest, p

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Change some of (N, 3, H, W); those of a batch that are changed share one size."""
        chosen = torch.rand(len(pictures)) < self.p
        share = self.smallest + (1 - self.smallest) * torch.rand(()).item()
        if not chosen.any():
            return pictures
        chosen = chosen.to(pictures.device)
        size = [max(4, round(side * share)) for side in pictures.shape[2:]]
        small = functional.interpolate(pictures[chosen], size, mode="bilinear", antialias=True)
        pictures = pictures.clone()
        pictures[chosen] = functional.interpolate(small, pictures.shape[2:], mode="bilinear")
        return pictures


def _color(
    brightness: float = 0.3, contrast: float = 0.3, saturation: float = 0.3, hue: float = 0.03, p: float = 0.8
) -> nn.Module:
    return augmentation.ColorJiggle(brightness, contrast, saturation, hue, p=p)


def _gamma(low: float = 0.6, high: float = 1.6, p: float = 0.3) -> nn.Module:
    return augmentation.RandomGamma((low, high), (1.0, 1.0), p=p)


def _temperature(p: float = 0.3) -> nn.Module:
    return augmentation.RandomPlanckianJitter("blackbody", p=p)


def _gray(p: float = 0.05) -> nn.Module:
    return augmentation.RandomGrayscale(p=p)


def _blur(largest: float = 2.0, p: float = 0.2) -> nn.Module:
    return augmentation.RandomGaussianBlur((7, 7), (0.2, largest), p=p)


def _motion(size: int = 7, p: float = 0.1) -> nn.Module:
    return augmentation.RandomMotionBlur(size, 180.0, (-0.5, 0.5), p=p)


def _noise(std: float = 0.03, p: float = 0.2) -> nn.Module:
    return augmentation.RandomGaussianNoise(0.0, std, p=p)


def _jpeg(low: float = 20.0, high: float = 90.0, p: float = 0.2) -> nn.Module:
    return augmentation.RandomJPEG((low, high), p=p)


def _erase(low: float = 0.02, high: float = 0.3, p: float = 0.5) -> nn.Module:
    return augmentation.RandomErasing((low, high), (0.3, 3.3), p=p)


#: Changes of light and detail in the order in which they happen to a picture; options are those of the functions.
CHANGES = {
    "color": _color,
    "gamma": _gamma,
    "temperature": _temperature,
    "gray": _gray,
    "blur": _blur,
    "motion": _motion,
    "low_resolution": LowResolution,
    "noise": _noise,
    "jpeg": _jpeg,
    "erase": _erase,
}


class Augmentation(nn.Module):
    """What happens to pictures in training.

    Parameters
    ----------
    plan
        ``geometry`` and any of `CHANGES`, each with its options; what is not named does not happen.

    Raises
    ------
    TrainingError
        For an unknown change or option.
    """

    def __init__(self, plan: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__()
        known = {"geometry": Geometry, **CHANGES}
        for name, options in plan.items():
            if name not in known:
                raise TrainingError(f"There is no augmentation {name!r}.", f"There are {', '.join(known)}.")
            try:
                inspect.signature(known[name]).bind(**(options or {}))
            except TypeError as error:
                raise TrainingError(f"The augmentation {name} does not take {dict(options)}: {error}.") from error
        self.geometry = Geometry(**(plan.get("geometry") or {}))
        self.moves = bool(plan.get("geometry"))
        self.changes = nn.ModuleList(change(**(plan[name] or {})) for name, change in CHANGES.items() if name in plan)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Change (N, 3, H, W) floats in 0–1; also gives the (N, 2, 3) map of their pixels, None where none moved."""
        maps = None
        if self.moves:
            maps = self.geometry.draw(len(pictures), *pictures.shape[2:])
            pictures = self.geometry.move_pictures(pictures, maps)
        for change in self.changes:
            pictures = change(pictures)
        return pictures.clamp(0, 1), maps
