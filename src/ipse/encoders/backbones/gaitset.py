"""GaitSet: a walk is a set of silhouettes, whatever their order and number (Chao et al., 2019).

Every silhouette goes through the same layers, and the maps of a walk become one by their maximum (set pooling, section
3.2). A second line of layers adds up what the set says at each depth (multilayer global pipeline, section 3.4). Both
last maps are cut into stripes of several heights, and every stripe, mean plus maximum, has a linear layer of its own
(horizontal pyramid mapping, section 3.3).

Layers are those of the authors' code, sections those of the journal's version (arXiv 2102.03247), read in a summary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from ipse.encoders.backbones.common import Backbone, ConvNorm, initialize, neck
from ipse.encoders.gait import HEIGHT, WIDTH
from ipse.errors import WeightsError


class GaitSet(Backbone):
    """From strips of silhouettes, as `ipse.encoders.gait.strip` makes them, to embeddings.

    The published network has 32, 64 and 128 channels, parts of 256 numbers and no norms, and takes 80,000 steps. This
    one is narrow and has norms, behind every layer and behind the parts, so that some hundred steps are enough.

    Parameters
    ----------
    channels
        Of the three pairs of layers; a maximum over 2 × 2 pixels stands behind the first and the second.
    bins
        Stripes of equal height that a map is cut into, one after the other; divisors of 16.
    part
        Numbers of a stripe: the embedding has 2 × sum(bins) × part.
    drawn
        Silhouettes that a training step looks at, drawn by chance (their code draws 30); 0 for all of them.

    Raises
    ------
    WeightsError
        If the map cannot be cut so.
    """

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 64),
        bins: Sequence[int] = (1, 2, 4, 8, 16),
        part: int = 16,
        drawn: int = 0,
    ) -> None:
        super().__init__()
        rows = HEIGHT // 4
        if not bins or any(bin < 1 or rows % bin for bin in bins) or len(channels) != 3:
            raise WeightsError(
                f"A map of {rows} rows cannot be cut into {list(bins)} stripes, or {list(channels)} are not three.",
                f"Give divisors of {rows} as `bins`, and three `channels`.",
            )
        self.bins, self.drawn = tuple(bins), drawn
        first, second, third = channels

        def layer(inputs: int, outputs: int, kernel: int = 3) -> ConvNorm:
            return ConvNorm(inputs, outputs, kernel, 1, kernel // 2, act=nn.LeakyReLU(inplace=True))

        self.frames = nn.ModuleList(
            nn.Sequential(layer(inputs, outputs, kernel), layer(outputs, outputs))
            for inputs, outputs, kernel in ((1, first, 5), (first, second, 3), (second, third, 3))
        )
        self.walk = nn.ModuleList(
            nn.Sequential(layer(inputs, outputs), layer(outputs, outputs))
            for inputs, outputs in ((first, second), (second, third))
        )
        self.parts = nn.Parameter(torch.empty(2 * sum(bins), third, part))
        initialize(self)
        nn.init.xavier_uniform_(self.parts)
        self.neck, self.dim = neck("bn", self.parts.shape[0] * part, 0)

    def feature_map(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 2 × channels, 16, 11): the set's map, and that of the global pipeline."""
        # A strip is gray; its frames stand side by side.
        frames = x[:, 0].unflatten(2, (-1, WIDTH)).transpose(1, 2)
        if self.training and 0 < self.drawn < frames.shape[1]:
            frames = frames[:, torch.randperm(frames.shape[1], device=x.device)[: self.drawn]]
        count = frames.shape[1]

        def pooled(maps: torch.Tensor) -> torch.Tensor:
            return maps.unflatten(0, (-1, count)).amax(1)

        one, two, three = self.frames
        shallow = functional.max_pool2d(one(frames.flatten(0, 1)[:, None]), 2)
        deep = functional.max_pool2d(two(shallow), 2)
        whole = functional.max_pool2d(self.walk[0](pooled(shallow)), 2)
        found = pooled(three(deep))
        return torch.cat([found, found + self.walk[1](whole + pooled(deep))], 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed (N, 3, 64, frames × 44) normalized floats as (N, dim)."""
        stripes = []
        for maps in self.feature_map(x).chunk(2, 1):
            for bins in self.bins:
                rows = maps.unflatten(2, (bins, -1)).flatten(3)
                stripes.append(rows.mean(3) + rows.amax(3))
        parts = torch.einsum("ncp,pcd->npd", torch.cat(stripes, 2), self.parts)
        return self.neck(parts.flatten(1))
