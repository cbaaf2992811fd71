"""MobileFaceNet (Chen et al., 2018): inverted residuals that shrink early, a depthwise layer in place of pooling."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from ipse.encoders.backbones.common import Backbone, ConvNorm, initialize
from ipse.errors import WeightsError


class _Bottleneck(nn.Module):
    """Widen, filter each channel, narrow again."""

    def __init__(self, inputs: int, outputs: int, middle: int, stride: int) -> None:
        super().__init__()
        self.widen = ConvNorm(inputs, middle, act=nn.PReLU(middle))
        self.filter = ConvNorm(middle, middle, 3, stride, 1, groups=middle, act=nn.PReLU(middle))
        self.narrow = ConvNorm(middle, outputs)
        self.residual = stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.narrow(self.filter(self.widen(x)))
        return x + out if self.residual else out


class MobileFaceNet(Backbone):
    """MobileFaceNet of any width.

    Parameters
    ----------
    dim
        Length of the embedding.
    scale
        Factor on the channels between bottlenecks, not on those inside: 1 in the paper, 2 in InsightFace's `mbf`.
    width
        Factor on all channels.
    blocks
        Residual bottlenecks of the four stages; the first stage has a filter alone where it is 1.
    size
        Height and width of the picture, multiples of 16; the last filter has weights for every place.
    attention
        Slot → kind; the slots are ``stage1`` to ``stage4``, behind each stage.
    """

    def __init__(
        self,
        dim: int = 512,
        scale: int = 2,
        width: float = 1.0,
        blocks: Sequence[int] = (1, 4, 6, 2),
        size: Sequence[int] = (112, 112),
        attention: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        if size[0] % 16 or size[1] % 16:
            raise WeightsError(f"MobileFaceNet takes pictures whose sides are multiples of 16, not {tuple(size)}.")

        def channels(count: int) -> int:
            return round(count * width)

        small, large, tail = channels(64) * scale, channels(128) * scale, channels(512)
        self.stem = ConvNorm(3, small, 3, 2, 1, act=nn.PReLU(small))
        if blocks[0] == 1:
            first: nn.Module = ConvNorm(small, small, 3, 1, 1, groups=channels(64), act=nn.PReLU(small))
        else:
            first = nn.Sequential(*(_Bottleneck(small, small, channels(128), 1) for _ in range(blocks[0])))
        # Channels of each further stage: coming in, going out, inside its first bottleneck and inside the others.
        plan = (
            (small, small, channels(128), channels(128)),
            (small, large, channels(256), channels(256)),
            (large, large, channels(512), channels(256)),
        )
        self.stages = nn.ModuleList([first])
        for count, (inputs, outputs, down, middle) in zip(blocks[1:], plan, strict=True):
            stage = OrderedDict(
                down=_Bottleneck(inputs, outputs, down, 2),
                residuals=nn.Sequential(*(_Bottleneck(outputs, outputs, middle, 1) for _ in range(count))),
            )
            self.stages.append(nn.Sequential(stage))
        self.tail = ConvNorm(large, tail, act=nn.PReLU(tail))
        places = (size[0] // 16, size[1] // 16)
        self.pool = ConvNorm(tail, tail, places, groups=tail)
        self.neck = nn.Sequential(OrderedDict(linear=nn.Linear(tail, dim, bias=False), norm=nn.BatchNorm1d(dim)))
        self.dim = dim
        initialize(self)
        self.slots = {"stage1": small, "stage2": small, "stage3": large, "stage4": large}
        self.fill_slots(attention)

    def feature_map(self, x: torch.Tensor) -> torch.Tensor:
        """See `Backbone.feature_map`; a sixteenth of the picture's sides."""
        x = self.stem(x)
        for i, stage in enumerate(self.stages):
            x = self.attend(f"stage{i + 1}", stage(x))
        return self.tail(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed (N, 3, H, W) normalized floats as (N, dim)."""
        return self.neck(self.pool(self.feature_map(x)).flatten(1))


def mobilefacenet(
    dim: int = 512,
    scale: int = 2,
    width: float = 1.0,
    blocks: Sequence[int] = (1, 4, 6, 2),
    size: Sequence[int] = (112, 112),
    attention: Mapping[str, str] | None = None,
) -> MobileFaceNet:
    """MobileFaceNet; by default InsightFace's `mbf`."""
    return MobileFaceNet(dim, scale, width, blocks, size, attention)
