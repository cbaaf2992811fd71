"""ResNet-50 for re-identification, plain and with instance norm (IBN-Net, Pan et al., ECCV 2018)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from ipse.encoders.backbones.common import Backbone, ConvNorm, initialize, max_pool, neck, pooling

_DEPTHS = (3, 4, 6, 3)
_EXPANSION = 4


class _HalfInstance(nn.Module):
    """Instance norm on the first half of the channels, batch norm on the others: IBN-a."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.half = channels // 2
        self.instance = nn.InstanceNorm2d(self.half, affine=True)
        self.batch = nn.BatchNorm2d(channels - self.half)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.instance(x[:, : self.half]), self.batch(x[:, self.half :])], 1)


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, middle: int, stride: int, ibn_a: bool, ibn_b: bool) -> None:
        super().__init__()
        outputs = middle * _EXPANSION
        self.first = ConvNorm(inputs, middle, norm=_HalfInstance(middle) if ibn_a else None, act=nn.ReLU())
        self.second = ConvNorm(middle, middle, 3, stride, 1, act=nn.ReLU())
        self.third = ConvNorm(middle, outputs)
        self.shortcut = ConvNorm(inputs, outputs, 1, stride) if stride > 1 or inputs != outputs else nn.Identity()
        self.instance = nn.InstanceNorm2d(outputs, affine=True) if ibn_b else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.instance(self.third(self.second(self.first(x))) + self.shortcut(x)))


class ResNet(Backbone):
    """ResNet-50, of any width.

    Parameters
    ----------
    width
        Factor on all channels.
    ibn
        Empty, ``a`` (half of the first norm of each block, but in the last stage) or ``b`` (in the stem, and behind
        the last block of the first two stages).
    dim
        Length of the embedding, where the neck has one of its own.
    last_stride
        1 keeps the last map twice as fine, as re-identification likes it.
    neck_kind, pool
        See `ipse.encoders.backbones.common`.
    ceil_pool
        The pooling behind the stem pads at the far edges only, as in fast-reid; else all around.
    attention
        Slot → kind; the slots are ``stage1`` to ``stage4``, behind each stage.
    """

    def __init__(
        self,
        width: float = 1.0,
        ibn: str = "",
        dim: int = 512,
        last_stride: int = 2,
        neck_kind: str = "none",
        pool: str = "avg",
        ceil_pool: bool = False,
        attention: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        inputs = round(64 * width)
        self.ceil_pool = ceil_pool
        stem_norm = nn.InstanceNorm2d(inputs, affine=True) if ibn == "b" else None
        self.stem = ConvNorm(3, inputs, 7, 2, 3, norm=stem_norm, act=nn.ReLU())
        self.stages = nn.ModuleList()
        for stage, depth in enumerate(_DEPTHS):
            middle = round(64 * width) * 2**stage
            blocks = []
            for i in range(depth):
                stride = (1, 2, 2, last_stride)[stage] if i == 0 else 1
                behind = ibn == "b" and stage < 2 and i == depth - 1
                blocks.append(_Bottleneck(inputs, middle, stride, ibn == "a" and stage < 3, behind))
                inputs = middle * _EXPANSION
            self.stages.append(nn.Sequential(*blocks))
            self.slots[f"stage{stage + 1}"] = inputs
        self.pool = pooling(pool)
        self.neck, self.dim = neck(neck_kind, inputs, dim)
        initialize(self)
        self.fill_slots(attention)

    def feature_map(self, x: torch.Tensor) -> torch.Tensor:
        """See `Backbone.feature_map`; a 32nd of the picture's sides, or a 16th at `last_stride` 1."""
        x = self.stem(x)
        x = functional.max_pool2d(x, 3, 2, ceil_mode=True) if self.ceil_pool else max_pool(x)
        for i, stage in enumerate(self.stages):
            x = self.attend(f"stage{i + 1}", stage(x))
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed (N, 3, H, W) normalized floats as (N, dim)."""
        return self.neck(self.pool(self.feature_map(x)))


def resnet50(
    width: float = 1.0,
    dim: int = 512,
    last_stride: int = 2,
    neck: str = "none",
    pool: str = "avg",
    ceil_pool: bool = False,
    attention: Mapping[str, str] | None = None,
) -> ResNet:
    """ResNet-50 (He et al., 2016)."""
    return ResNet(width, "", dim, last_stride, neck, pool, ceil_pool, attention)


def resnet50_ibn_a(
    width: float = 1.0,
    dim: int = 512,
    last_stride: int = 2,
    neck: str = "none",
    pool: str = "avg",
    ceil_pool: bool = False,
    attention: Mapping[str, str] | None = None,
) -> ResNet:
    """ResNet-50 with IBN-a."""
    return ResNet(width, "a", dim, last_stride, neck, pool, ceil_pool, attention)


def resnet50_ibn_b(
    width: float = 1.0,
    dim: int = 512,
    last_stride: int = 2,
    neck: str = "none",
    pool: str = "avg",
    ceil_pool: bool = False,
    attention: Mapping[str, str] | None = None,
) -> ResNet:
    """ResNet-50 with IBN-b."""
    return ResNet(width, "b", dim, last_stride, neck, pool, ceil_pool, attention)
