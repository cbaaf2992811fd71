"""IResNet: the residual network of ArcFace (Deng et al., CVPR 2019, section 3.1), with norms before convolutions."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import nn

from ipse.encoders.backbones.common import Backbone, ConvNorm
from ipse.errors import WeightsError


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.first = ConvNorm(inputs, outputs, 3, 1, 1, act=nn.PReLU(outputs))
        self.second = ConvNorm(outputs, outputs, 3, stride, 1)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else ConvNorm(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(self.norm(x))) + self.shortcut(x)


class IResNet(Backbone):
    """IResNet of any depth and width.

    Parameters
    ----------
    depths
        Blocks of the four stages.
    width
        Factor on all channels.
    dim
        Length of the embedding.
    size
        Height and width of the chip, multiples of 16; the last layer has weights for every place.
    dropout
        Before the last layer, in training.
    stem
        Stride of the first filter: 1 in the paper. 2 costs a third as much, for networks that a CPU trains and runs.
    attention
        Slot → kind; the slots are ``stage1`` to ``stage4``, behind each stage.
    """

    def __init__(
        self,
        depths: Sequence[int],
        width: float = 1.0,
        dim: int = 512,
        size: Sequence[int] = (112, 112),
        dropout: float = 0.0,
        stem: int = 1,
        attention: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        if size[0] % 16 or size[1] % 16:
            raise WeightsError(f"IResNet takes chips whose sides are multiples of 16, not {tuple(size)}.")
        inputs = round(64 * width)
        self.stem = ConvNorm(3, inputs, 3, stem, 1, act=nn.PReLU(inputs))
        self.stages = nn.ModuleList()
        for stage, depth in enumerate(depths):
            outputs = round(64 * width) * 2**stage
            blocks = [_Block(outputs if i else inputs, outputs, 1 if i else 2) for i in range(depth)]
            self.stages.append(nn.Sequential(*blocks))
            self.slots[f"stage{stage + 1}"] = inputs = outputs
        self.norm = nn.BatchNorm2d(inputs)
        self.dropout = nn.Dropout(dropout)
        down = 16 * stem
        places = math.ceil(size[0] / down) * math.ceil(size[1] / down)
        head = OrderedDict(linear=nn.Linear(inputs * places, dim), norm=nn.BatchNorm1d(dim))
        self.neck = nn.Sequential(head)
        # A gain here would only undo the cosine's normalization.
        self.neck.norm.weight.requires_grad_(False)
        self.dim = dim
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.1)
        self.fill_slots(attention)

    def feature_map(self, x: torch.Tensor) -> torch.Tensor:
        """See `Backbone.feature_map`; a sixteenth of the chip's sides, less behind a stem with a stride."""
        return self.norm(self.stage_maps(x)[-1])

    def stage_maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        """What each of the four stages says, (N, C, h, w), each with half the places along a side."""
        x, maps = self.stem(x), []
        for i, stage in enumerate(self.stages):
            x = self.attend(f"stage{i + 1}", stage(x))
            maps.append(x)
        return maps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed (N, 3, H, W) normalized floats as (N, dim)."""
        return self.neck(self.dropout(self.feature_map(x).flatten(1)))


iresnet18 = partial(IResNet, (2, 2, 2, 2))
iresnet50 = partial(IResNet, (3, 4, 14, 3))
iresnet100 = partial(IResNet, (3, 13, 30, 3))
