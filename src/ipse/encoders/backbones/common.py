"""What all backbones share: the contract, slots for attention, and how a feature map becomes an embedding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from ipse.encoders.backbones.attention import attention_block
from ipse.errors import WeightsError


class Backbone(nn.Module, ABC):
    """A network from pictures to embeddings.

    It maps (N, 3, H, W) normalized floats to (N, `dim`).

    Attributes
    ----------
    dim
        Length of an embedding.
    slots
        Names of the places where a block of attention can go, each with the number of channels there.
    """

    dim: int
    slots: dict[str, int]

    def __init__(self) -> None:
        super().__init__()
        self.slots = {}
        self.attention = nn.ModuleDict()

    def fill_slots(self, attention: Mapping[str, str] | None) -> None:
        """Put blocks of attention into slots: slot name → kind, as in `ipse.encoders.backbones.attention`.

        Raises
        ------
        WeightsError
            For a slot or a kind that there is not.
        """
        for slot, kind in (attention or {}).items():
            if slot not in self.slots:
                raise WeightsError(f"There is no slot {slot!r} for attention.", f"There are {', '.join(self.slots)}.")
            self.attention[slot] = attention_block(kind, self.slots[slot])

    def attend(self, slot: str, x: torch.Tensor) -> torch.Tensor:
        """Run the slot's block over (N, C, H, W), if there is one."""
        return self.attention[slot](x) if slot in self.attention else x

    @abstractmethod
    def feature_map(self, x: torch.Tensor) -> torch.Tensor:
        """The last (N, C, h, w) map before pooling."""


class GeM(nn.Module):
    """Generalized-mean pooling (Radenović et al., 2018, eq. 3) over a map, with a learned exponent; (N, C)."""

    def __init__(self, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor([p]))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool (N, C, H, W) to (N, C)."""
        return x.clamp(min=self.eps).pow(self.p).mean((2, 3)).pow(1 / self.p)


class AveragePool(nn.Module):
    """The mean over a map; (N, C)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool (N, C, H, W) to (N, C)."""
        return x.mean((2, 3))


def pooling(kind: str) -> nn.Module:
    """``avg`` or ``gem``."""
    if kind not in ("avg", "gem"):
        raise WeightsError(f"There is no pooling {kind!r}.", "Use avg or gem.")
    return GeM() if kind == "gem" else AveragePool()


def neck(kind: str, channels: int, dim: int) -> tuple[nn.Module, int]:
    """What stands between the pooled features and the embedding, and the embedding's length.

    ``none``: nothing. ``fc``: linear, batch norm, ReLU (as torchreid's). ``bn``: batch norm whose bias stays zero, the
    BNNeck of Luo et al. 2019. ``linear_bn``: a linear layer without bias, then that batch norm.
    """
    if kind == "none":
        return nn.Identity(), channels
    if kind == "bn":
        return nn.Sequential(OrderedDict(norm=_frozen_bias(channels))), channels
    if kind == "fc":
        layers = OrderedDict(linear=nn.Linear(channels, dim), norm=nn.BatchNorm1d(dim), relu=nn.ReLU())
        return nn.Sequential(layers), dim
    if kind == "linear_bn":
        return nn.Sequential(OrderedDict(linear=nn.Linear(channels, dim, bias=False), norm=_frozen_bias(dim))), dim
    raise WeightsError(f"There is no neck {kind!r}.", "Use none, fc, bn or linear_bn.")


def _frozen_bias(channels: int) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(channels)
    norm.bias.requires_grad_(False)
    return norm


class ConvNorm(nn.Sequential):
    """Convolution without bias, then a norm, then perhaps an activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 1,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        norm: nn.Module | None = None,
        act: nn.Module | None = None,
    ) -> None:
        layers = OrderedDict(
            conv=nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
            norm=norm if norm is not None else nn.BatchNorm2d(outputs),
        )
        if act is not None:
            layers["act"] = act
        super().__init__(layers)


def initialize(network: nn.Module) -> None:
    """He's initialization of convolutions (fan out), unit norms, small linear layers."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def max_pool(x: torch.Tensor) -> torch.Tensor:
    """The 3 × 3 maximum at stride 2 that stands behind the stems of re-identification networks."""
    return functional.max_pool2d(x, 3, 2, 1)
