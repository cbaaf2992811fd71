"""MADE: a transformer that is told what a person looks like, except for the clothes (Peng et al., 2024).

Somebody changes clothes, and stays a woman of forty with dark skin. So what an attribute recognizer says of a picture
goes into the network as one more token, with all that is about clothes and colors set to zero (`Description`). The
network has three stages. At the end of each its class token is taken out; the second and the third stage begin with a
class token of their own and with the description, embedded once for each, so that it meets features of several depths.
A learned weighted sum of the three class tokens is, behind a batch norm, the embedding.

Stages, tokens and layers are those of the published code, whose network is EVA-02 with 12 layers in stages of 5, 5
and 2. Here they stand on `ipse.encoders.backbones.vit`, without weights to begin with: class tokens are then nearly the
same whatever the picture, and losses that compare embeddings soon made them entirely so, with nothing left to learn
from. Behind the batch norm, the BNNeck of Luo et al. (2019), what all pictures share is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from ipse.catalogue import system
from ipse.encoders.backbones.vit import VisionTransformer
from ipse.errors import WeightsError


@dataclass(frozen=True)
class Description:
    """What is told of a person, as numbers in a fixed order.

    Attributes
    ----------
    widths
        Name of an attribute → how many numbers tell it, such as the chances of its values.
    masked
        Attributes that are always zero: clothes, their kind and color.

    Raises
    ------
    WeightsError
        If an attribute is masked that there is not.
    """

    widths: Mapping[str, int]
    masked: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        if strange := sorted(self.masked - set(self.widths)):
            raise WeightsError(f"There is no attribute {strange[0]!r} to mask.", f"There are {', '.join(self.widths)}.")

    @property
    def size(self) -> int:
        """Numbers in all."""
        return sum(self.widths.values())

    def vectors(self, told: Mapping[str, npt.ArrayLike]) -> npt.NDArray[np.float32]:
        """(N, size) of (N, width) numbers of each attribute that is not masked.

        Raises
        ------
        WeightsError
            If one is missing or has another width.
        """
        count = len(np.asarray(next(iter(told.values()))))
        columns = []
        for name, width in self.widths.items():
            values = np.zeros((count, width), np.float32)
            if name not in self.masked:
                given = np.asarray(told[name], np.float32) if name in told else None
                if given is None or given.shape != values.shape:
                    raise WeightsError(
                        f"The attribute {name} is told by {None if given is None else given.shape} numbers, not by "
                        f"{values.shape}.",
                        "Give chances of all its values, or mask it.",
                    )
                values = given
            columns.append(values)
        return np.concatenate(columns, 1)


class _Residual(nn.Module):
    """Two layers beside their input, each with its norm behind."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.norm2(functional.relu(self.second(self.norm1(functional.relu(self.first(x))))))


class _Head(nn.Module):
    """A class token on its way out of a stage."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp(self.norm(x))


@system(
    name="MADE",
    paper="Masked Attribute Description Embedding for Cloth-Changing Person Re-identification",
    year=2024,
    arxiv="2401.05646",
    room="encoders",
    claim="A transformer that is told a person's attributes, with those of the clothes masked, finds people again who "
    "changed their clothes.",
    evidence=["reid.made.*"],
    works_means="On world bodies in other Looks, attributes predicted: mAP and rank-1 are above those of the same "
    "transformer without attributes and with unmasked ones, over three training seeds.",
    status="experimental",
)
class MadeTransformer(VisionTransformer):
    """A vision transformer with a description in its later stages.

    Parameters
    ----------
    width, heads, size, patch, stride, drop
        As in `VisionTransformer`.
    depths
        Layers of the three stages.
    description
        Numbers in a description.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        description: int,
        depths: Sequence[int] = (5, 5, 2),
        size: Sequence[int] = (256, 128),
        patch: int = 16,
        stride: int = 16,
        drop: float = 0.1,
    ) -> None:
        if len(depths) != 3:
            raise WeightsError(f"MADE has three stages, not {len(depths)}.", "Give three numbers of layers.")
        super().__init__(width, sum(depths), heads, size=size, patch=patch, stride=stride, drop=drop, neck_kind="bn")
        self.depths, self.description = tuple(depths), description
        self.tokens = nn.Parameter(torch.empty(2, 1, 1, width))
        nn.init.trunc_normal_(self.tokens, std=0.02)
        self.embeddings = nn.ModuleList(
            nn.Sequential(nn.Linear(description, width), nn.ReLU(), nn.LayerNorm(width), _Residual(width))
            for _ in range(2)
        )
        self.heads_out = nn.ModuleList([_Head(width), _Head(width), nn.LayerNorm(width)])
        self.sum = nn.Linear(3, 1)
        # In the beginning the mean of the three.
        nn.init.constant_(self.sum.weight, 1 / 3)
        nn.init.zeros_(self.sum.bias)
        # There are no grids between layers here for blocks of attention to work on.
        self.slots = {}

    def _grid(self, x: torch.Tensor) -> torch.Tensor:
        if tuple(x.shape[2:]) != self.size:
            raise WeightsError(f"This transformer takes pictures of {self.size} pixels, not {tuple(x.shape[2:])}.")
        return self.patches(x).flatten(2).transpose(1, 2)

    def _stages(self, x: torch.Tensor, description: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, 3, width) class tokens, and the (N, places, width) tokens of the last layer."""
        patches, count = self._grid(x), len(x)
        if description is None:
            description = x.new_zeros(count, self.description)
        x = torch.cat([self.token.expand(count, -1, -1), patches], 1) + self.positions
        layers, classes, front = iter(self.layers), [], 1
        for stage, depth in enumerate(self.depths):
            if stage:
                told = self.embeddings[stage - 1](description)[:, None]
                x = torch.cat([self.tokens[stage - 1].expand(count, -1, -1), told, x[:, front:]], 1)
                front = 2
            for _ in range(depth):
                x = next(layers)(x)
            classes.append(self.heads_out[stage](x[:, 0]))
        return torch.stack(classes, 1), x[:, front:]

    def feature_map(self, x: torch.Tensor, description: torch.Tensor | None = None) -> torch.Tensor:
        """See `Backbone.feature_map`; one place for each patch."""
        return self._stages(x, description)[1].transpose(1, 2).unflatten(2, self.grid)

    def forward(self, x: torch.Tensor, description: torch.Tensor | None = None) -> torch.Tensor:
        """Embed (N, 3, H, W) normalized floats as (N, dim).

        Parameters
        ----------
        x
            The pictures.
        description
            (N, `description`) as `Description.vectors` gives them; None where nothing is told.
        """
        classes, _ = self._stages(x, description)
        return self.neck(self.norm(self.sum(classes.transpose(1, 2))[..., 0]))
