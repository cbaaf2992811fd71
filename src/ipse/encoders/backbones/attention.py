"""Blocks of attention for the slots of backbones, and what each costs where.

`slot_costs` counts what a block costs in every slot of a network; which places gain most is a matter of training, and
`ipse.training.placement` searches for those that are worth what they cost.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import nn
from torch.nn import functional

from ipse.errors import WeightsError


class SqueezeExcitation(nn.Module):
    """Channels weighed by a small network of their means (Hu et al., 2018)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(1, channels // reduction)
        self.squeeze = nn.Conv2d(channels, hidden, 1)
        self.excite = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Weigh (N, C, H, W)."""
        means = x.mean((2, 3), keepdim=True)
        return x * self.excite(functional.relu(self.squeeze(means))).sigmoid()


class EfficientChannel(nn.Module):
    """Channels weighed by their neighbors' means, a handful of weights in all (Wang et al., 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        kernel = int(abs(math.log2(channels) / 2 + 0.5)) | 1  # adaptive size of section 3.2, with gamma 2 and b 1
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Weigh (N, C, H, W)."""
        means = x.mean((2, 3)).unsqueeze(1)
        return x * self.conv(means).sigmoid().squeeze(1)[:, :, None, None]


class Spatial(nn.Module):
    """Places weighed by the mean and the maximum over channels around them (the second half of CBAM, 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Weigh (N, C, H, W)."""
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * self.conv(seen).sigmoid()


class NonLocal(nn.Module):
    """Every place looks at every other (Wang et al., 2018); starts as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = max(1, channels // 2)
        self.query = nn.Conv2d(channels, self.inner, 1)
        self.key = nn.Conv2d(channels, self.inner, 1)
        self.value = nn.Conv2d(channels, self.inner, 1)
        self.out = nn.Conv2d(self.inner, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend within (N, C, H, W)."""
        query, key, value = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        weights = (query.transpose(1, 2) @ key / math.sqrt(self.inner)).softmax(-1)
        seen = value @ weights.transpose(1, 2)
        return x + self.out(seen.unflatten(2, x.shape[2:]))


KINDS: dict[str, type[nn.Module]] = {
    "se": SqueezeExcitation,
    "eca": EfficientChannel,
    "spatial": Spatial,
    "nonlocal": NonLocal,
}
"""Blocks by name."""


def attention_block(kind: str, channels: int) -> nn.Module:
    """Build a block for a map of so many channels.

    Raises
    ------
    WeightsError
        For an unknown kind.
    """
    if kind not in KINDS:
        raise WeightsError(f"There is no attention {kind!r}.", f"There are {', '.join(KINDS)}.")
    return KINDS[kind](channels)


def multiply_adds(network: nn.Module, height: int, width: int) -> int:
    """Multiplications of one picture through a network, counted by torch's own counter."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    device = next(network.parameters()).device
    network = copy.deepcopy(network).eval()
    with torch.no_grad(), counter:
        network(torch.zeros(1, 3, height, width, device=device))
    return counter.get_total_flops() // 2


def slot_costs(network: nn.Module, kind: str, height: int, width: int) -> dict[str, dict[str, float]]:
    """What a block of one kind costs in each slot of a backbone.

    Parameters
    ----------
    network
        A `Backbone`; not changed.
    kind
        The block.
    height, width
        Of the pictures.

    Returns
    -------
    dict
        For each slot ``parameters``, ``multiply_adds`` (of one picture) and ``share``: of those of the network
        without it. Element-wise products are not counted, as usual.
    """
    plain = copy.deepcopy(network)
    plain.attention = nn.ModuleDict()
    base = multiply_adds(plain, height, width)
    costs = {}
    for slot in plain.slots:
        trial = copy.deepcopy(plain)
        trial.fill_slots({slot: kind})
        more = multiply_adds(trial, height, width) - base
        parameters = sum(p.numel() for p in trial.attention.parameters())
        costs[slot] = {"parameters": parameters, "multiply_adds": more, "share": more / base}
    return costs
