"""IResNet that parts its last map: what says who somebody is, and what says where the picture is from."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from ipse.encoders.backbones.attention import SqueezeExcitation
from ipse.encoders.backbones.iresnet import IResNet


class SplitIResNet(IResNet):
    """An IResNet with a gate before its last layer; the embedding is made of what the gate lets through.

    Parameters
    ----------
    **options
        As of `IResNet`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gate = SqueezeExcitation(self.norm.num_features, reduction=4)

    def split(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, dim) embeddings, and (N, dim) by how much each would move if nothing were held back.

        Both are in one space, so that the second can be added to the first.
        """
        whole = self.feature_map(x)
        kept = self.gate(whole)
        embeddings = self.neck(self.dropout(kept.flatten(1)))
        # The last layer is for identity alone: what is held back is seen through it, and does not move it.
        linear, norm = self.neck.linear, self.neck.norm
        moved = functional.linear((whole - kept).flatten(1), linear.weight.detach())
        return embeddings, moved / (norm.running_var + norm.eps).sqrt()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed (N, 3, H, W) normalized floats as (N, dim)."""
        return self.split(x)[0]
