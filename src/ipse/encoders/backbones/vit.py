"""Vision transformers for re-identification, with the overlapping patches and side information of TransReID.

Dosovitskiy et al., ICLR 2021; He et al., "TransReID", ICCV 2021, sections 3.1 and 3.3.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from ipse.encoders.backbones.common import Backbone, neck
from ipse.errors import WeightsError


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        parts = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        return self.out(seen.transpose(1, 2).reshape(batch, tokens, width))


class _Layer(nn.Module):
    """A layer with norms first; in training its branches are left out for some pictures (stochastic depth)."""

    def __init__(self, width: int, heads: int, ratio: float, drop: float) -> None:
        super().__init__()
        hidden = int(width * ratio)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            OrderedDict(first=nn.Linear(width, hidden), act=nn.GELU(), second=nn.Linear(hidden, width))
        )
        self.drop = drop

    def _keep(self, branch: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.drop:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.drop
        return branch * kept / (1 - self.drop)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self._keep(self.attention(self.norm1(x)))
        return x + self._keep(self.mlp(self.norm2(x)))


class VisionTransformer(Backbone):
    """A vision transformer.

    Parameters
    ----------
    width, depth, heads, ratio
        Length of a token, number of layers and of heads, and how much wider a layer is inside.
    size
        Height and width of the picture.
    patch, stride
        Sides of a patch and steps between patches; a stride below the patch makes them overlap.
    cameras, views
        How many there are, for side information; 0 or 1 for none.
    side_weight
        Weight of the side information (TransReID's λ).
    drop
        Stochastic depth of the last layer; earlier layers have less.
    neck_kind
        See `ipse.encoders.backbones.common`.
    dim
        Length of the embedding, where the neck has one of its own.
    attention
        Slot → kind; the slots are ``stage1`` to ``stage4``, behind each quarter of the layers, on the patches' grid.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        ratio: float = 4.0,
        size: Sequence[int] = (256, 128),
        patch: int = 16,
        stride: int = 16,
        cameras: int = 0,
        views: int = 0,
        side_weight: float = 3.0,
        drop: float = 0.1,
        neck_kind: str = "none",
        dim: int = 512,
        attention: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.size = tuple(size)
        self.grid = tuple((side - patch) // stride + 1 for side in size)
        self.cameras, self.views, self.side_weight = max(cameras, 1), max(views, 1), side_weight
        self.patches = nn.Conv2d(3, width, patch, stride)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1] + 1, width))
        self.side = None
        if self.cameras * self.views > 1:
            self.side = nn.Parameter(torch.zeros(self.cameras * self.views, 1, width))
        self.layers = nn.ModuleList(_Layer(width, heads, ratio, drop * i / max(1, depth - 1)) for i in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.neck, self.dim = neck(neck_kind, width, dim)
        for parameter in (self.token, self.positions, self.side):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.layers.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.ends = {-(-depth * (i + 1) // 4) - 1: f"stage{i + 1}" for i in range(4)}
        self.slots = dict.fromkeys(self.ends.values(), width)
        self.fill_slots(attention)

    def _side(self, camera: torch.Tensor | None, view: torch.Tensor | None) -> torch.Tensor | float:
        """Embedding of camera and view; of a picture taken by neither known, their mean."""
        if self.side is None:
            return 0.0
        if camera is None and view is None:
            return self.side_weight * self.side.mean(0, keepdim=True)
        number = (0 if camera is None else camera * self.views) + (0 if view is None else view)
        return self.side_weight * self.side[number]

    def _tokens(self, x: torch.Tensor, camera: torch.Tensor | None, view: torch.Tensor | None) -> torch.Tensor:
        if tuple(x.shape[2:]) != self.size:
            raise WeightsError(f"This transformer takes pictures of {self.size} pixels, not {tuple(x.shape[2:])}.")
        patches = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], 1) + self.positions + self._side(camera, view)
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i in self.ends and self.ends[i] in self.attention:
                grid = self.attend(self.ends[i], x[:, 1:].transpose(1, 2).unflatten(2, self.grid))
                x = torch.cat([x[:, :1], grid.flatten(2).transpose(1, 2)], 1)
        return self.norm(x)

    def feature_map(self, x: torch.Tensor) -> torch.Tensor:
        """See `Backbone.feature_map`; one place for each patch."""
        return self._tokens(x, None, None)[:, 1:].transpose(1, 2).unflatten(2, self.grid)

    def forward(
        self, x: torch.Tensor, camera: torch.Tensor | None = None, view: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Embed (N, 3, H, W) normalized floats as (N, dim); `camera` and `view` are (N,) numbers from 0."""
        return self.neck(self._tokens(x, camera, view)[:, 0])


def vit_small(**options: object) -> VisionTransformer:
    """ViT-S: 12 layers of 384, 6 heads; options as in `VisionTransformer`."""
    return VisionTransformer(384, 12, 6, **options)


def vit_base(**options: object) -> VisionTransformer:
    """ViT-B: 12 layers of 768, 12 heads; options as in `VisionTransformer`."""
    return VisionTransformer(768, 12, 12, **options)
