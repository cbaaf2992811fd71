"""OSNet: omni-scale features (Zhou et al., ICCV 2019), and its forms with instance norm (TPAMI 2021)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from ipse.catalogue import system
from ipse.encoders.backbones.attention import SqueezeExcitation
from ipse.encoders.backbones.common import Backbone, ConvNorm, initialize, max_pool, neck, pooling

# Channels behind the stem and the three stages at width 1.
_CHANNELS = (64, 256, 384, 512)
# Where instance norm stands within the residual, found by the search of the TPAMI paper (table 3).
_AIN_PLACES = ((True, True), (False, True), (True, False))


class _LightConv(nn.Sequential):
    """A 1 × 1 convolution, then a depthwise 3 × 3 one: the paper's Lite 3 × 3 (figure 3b)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            OrderedDict(
                point=nn.Conv2d(inputs, outputs, 1, bias=False),
                depth=nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs, bias=False),
                norm=nn.BatchNorm2d(outputs),
                act=nn.ReLU(),
            )
        )


class _Block(nn.Module):
    """The omni-scale residual block (figure 4).

    `inside` puts instance norm on the residual in place of its batch norm; `after` on the sum.
    """

    def __init__(
        self, inputs: int, outputs: int, inside: bool = False, after: bool = False, streams: int = 4, gate: bool = True
    ) -> None:
        super().__init__()
        middle = outputs // 4
        self.reduce = ConvNorm(inputs, middle, act=nn.ReLU())
        # Stream t has t light convolutions and sees 2t + 1 pixels.
        self.streams = nn.ModuleList(
            nn.Sequential(*(_LightConv(middle, middle) for _ in range(depth))) for depth in range(1, streams + 1)
        )
        # The unified aggregation gate weighs the channels of all streams with one small network (eq. 3).
        self.gate = SqueezeExcitation(middle) if gate else nn.Identity()
        self.expand = ConvNorm(middle, outputs, norm=nn.InstanceNorm2d(outputs, affine=True) if inside else None)
        self.shortcut = ConvNorm(inputs, outputs) if inputs != outputs else nn.Identity()
        self.instance = nn.InstanceNorm2d(outputs, affine=True) if after else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        reduced = self.reduce(x)
        fused = sum(self.gate(stream(reduced)) for stream in self.streams)
        return functional.relu(self.instance(self.expand(fused) + self.shortcut(x)))


@system(
    name="OSNet",
    paper="Learning Generalisable Omni-Scale Representations for Person Re-Identification",
    year=2021,
    arxiv="1910.06827",
    room="encoders",
    claim="Streams of several scales, weighed by one gate, re-identify people well with few parameters; instance norm "
    "in searched places carries over to other data.",
    evidence=["systems.osnet.*"],
    works_means="Published weights give the published outputs (a test); on world people outside the training, streams "
    "with the gate beat one scale and a plain sum in mAP at equal parameters, and instance norm raises mAP on pictures "
    "of another kind. On bodies the gate is ahead of a sum, and instance norm of batch norm; not shown: after the few "
    "hundred steps of a comparison one scale, whose blocks are shallow, is far ahead of all streams, as on faces.",
    status="experimental",
)
class OSNet(Backbone):
    """OSNet of any width and any placing of instance norm.

    Parameters
    ----------
    width
        Factor on all channels; published: 0.25, 0.5, 0.75 and 1.
    dim
        Length of the embedding, where the neck has one of its own.
    stem_instance
        Instance norm instead of batch norm behind the first convolution.
    inside
        For each stage and block, instance norm on the residual (OSNet-AIN).
    after
        For each stage, instance norm behind its blocks' sums (OSNet-IBN).
    neck, pool
        See `ipse.encoders.backbones.common`.
    streams, gate
        Scales of a block, and whether the gate weighs them; 1 and False are ablations of the ICCV paper.
    attention
        Slot → kind; the slots are ``stage1`` to ``stage3``, behind each stage.
    """

    def __init__(
        self,
        width: float = 1.0,
        dim: int = 512,
        stem_instance: bool = False,
        inside: Sequence[Sequence[bool]] = ((False, False),) * 3,
        after: Sequence[bool] = (False,) * 3,
        neck_kind: str = "fc",
        pool: str = "avg",
        streams: int = 4,
        gate: bool = True,
        attention: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        first, *rest = (round(channels * width) for channels in _CHANNELS)
        norm = nn.InstanceNorm2d(first, affine=True) if stem_instance else None
        self.stem = ConvNorm(3, first, 7, 2, 3, norm=norm, act=nn.ReLU())
        self.stages = nn.ModuleList()
        inputs = first
        for outputs, places, behind in zip(rest, inside, after, strict=True):
            blocks = [
                _Block(outputs if i else inputs, outputs, place, behind, streams, gate)
                for i, place in enumerate(places)
            ]
            self.stages.append(nn.Sequential(*blocks))
            inputs = outputs
        self.transitions = nn.ModuleList(ConvNorm(channels, channels, act=nn.ReLU()) for channels in rest[:-1])
        self.tail = ConvNorm(inputs, inputs, act=nn.ReLU())
        self.pool = pooling(pool)
        self.neck, self.dim = neck(neck_kind, inputs, dim)
        initialize(self)
        self.slots = {f"stage{i + 1}": channels for i, channels in enumerate(rest)}
        self.fill_slots(attention)

    def feature_map(self, x: torch.Tensor) -> torch.Tensor:
        """See `Backbone.feature_map`; a sixteenth of the picture's sides."""
        x = max_pool(self.stem(x))
        for i, stage in enumerate(self.stages):
            x = self.attend(f"stage{i + 1}", stage(x))
            if i < len(self.transitions):
                x = functional.avg_pool2d(self.transitions[i](x), 2)
        return self.tail(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed (N, 3, H, W) normalized floats as (N, dim)."""
        return self.neck(self.pool(self.feature_map(x)))


def osnet(
    width: float = 1.0,
    dim: int = 512,
    neck: str = "fc",
    pool: str = "avg",
    streams: int = 4,
    gate: bool = True,
    attention: Mapping[str, str] | None = None,
) -> OSNet:
    """OSNet as in the ICCV paper."""
    return OSNet(width, dim, neck_kind=neck, pool=pool, streams=streams, gate=gate, attention=attention)


def osnet_ibn(
    width: float = 1.0,
    dim: int = 512,
    neck: str = "fc",
    pool: str = "avg",
    attention: Mapping[str, str] | None = None,
) -> OSNet:
    """OSNet with instance norm in the stem and behind the first stage's blocks."""
    return OSNet(width, dim, True, after=(True, False, False), neck_kind=neck, pool=pool, attention=attention)


def osnet_ain(
    width: float = 1.0,
    dim: int = 512,
    neck: str = "fc",
    pool: str = "avg",
    attention: Mapping[str, str] | None = None,
) -> OSNet:
    """OSNet with instance norm where the TPAMI paper's search put it."""
    return OSNet(width, dim, True, inside=_AIN_PLACES, neck_kind=neck, pool=pool, attention=attention)
