"""IResNet with exits: after a stage a picture has an embedding already, and the first numbers of it are one too."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ipse.encoders.backbones.iresnet import IResNet
from ipse.errors import WeightsError


class NestedIResNet(IResNet):
    """An IResNet that can be left early and whose embeddings can be cut short.

    Parameters
    ----------
    pairs
        (stage, numbers) of every slice that is meant to be used, small to large; stages count from 1, and the last pair
        is the whole network with all its `dim` numbers.
    **options
        As of `IResNet`.

    Raises
    ------
    WeightsError
        If the pairs do not grow, or do not end with the whole.
    """

    def __init__(self, pairs: Sequence[Sequence[int]], **options: Any) -> None:
        super().__init__(**options)
        self.pairs = tuple((int(stage), int(size)) for stage, size in pairs)
        grows = all(a[0] <= b[0] and a[1] <= b[1] for a, b in zip(self.pairs, self.pairs[1:], strict=False))
        if not self.pairs or not grows or self.pairs[-1] != (len(self.stages), self.dim) or self.pairs[0][0] < 1:
            raise WeightsError(
                f"The pairs of stages and numbers {list(self.pairs)} are no nested slices.",
                f"Give them small to large, the last one ({len(self.stages)}, {self.dim}).",
            )
        heads = {}
        for stage in sorted({stage for stage, _ in self.pairs} - {len(self.stages)}):
            channels = self.slots[f"stage{stage}"]
            last = nn.BatchNorm1d(self.dim)
            last.weight.requires_grad_(False)
            layers = OrderedDict(norm=nn.BatchNorm1d(channels), linear=nn.Linear(channels, self.dim), last=last)
            heads[str(stage)] = nn.Sequential(layers)
        self.heads = nn.ModuleDict(heads)

    def exits(self, x: torch.Tensor, last: int | None = None) -> dict[int, torch.Tensor]:
        """(N, dim) embeddings by stage, of those in `pairs`; nothing after the stage `last` is computed."""
        last = len(self.stages) if last is None else last
        found = {}
        x = self.stem(x)
        for stage, blocks in enumerate(self.stages[:last], 1):
            x = self.attend(f"stage{stage}", blocks(x))
            if str(stage) in self.heads:
                found[stage] = self.heads[str(stage)](x.mean((2, 3)))
        if last == len(self.stages):
            found[last] = self.neck(self.dropout(self.norm(x).flatten(1)))
        return found

    def slices(self, x: torch.Tensor, upto: int | None = None) -> list[torch.Tensor]:
        """Embeddings of the slices in `pairs`, (N, numbers) each; the first `upto` of them at their lower cost."""
        pairs = self.pairs[:upto]
        found = self.exits(x, pairs[-1][0])
        return [found[stage][:, :size] for stage, size in pairs]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed (N, 3, H, W) normalized floats as (N, dim) by the whole network; its exits are not computed."""
        return IResNet.forward(self, x)
