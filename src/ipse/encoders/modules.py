"""Encoders as torch modules, for training against them and for guarding against them."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ipse.encoders.contract import ChipSpec
from ipse.zoo.dlib_format import Block, Conv, FaceNetwork


class DlibFaceModule(nn.Module):
    """dlib's face network with gradients; maps (N, 3, 150, 150) float RGB in 0–1 to (N, 128).

    The weights are parameters, so they can be tuned, frozen, saved and moved like those of any module.
    """

    def __init__(self, network: FaceNetwork) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(network.mean)[:, None, None])
        self.scale = network.scale
        self.stem = _conv(network.stem)
        self.blocks = nn.ModuleList(_Residual(block) for block in network.blocks)
        self.head = nn.Linear(*network.head.shape, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor(network.head.T))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embed (N, 3, 150, 150) float RGB images in 0–1 as (N, 128)."""
        x = (images * 255 - self.mean) / self.scale
        x = functional.max_pool2d(functional.relu(self.stem(x)), 3, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class FlipAverage(nn.Module):
    """The mean of what a module gives for images and for their mirror images; of length 1 where `unit` is set."""

    def __init__(self, inside: nn.Module, unit: bool) -> None:
        super().__init__()
        self.inside = inside
        self.unit = unit

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embed (N, 3, height, width) float RGB images in 0–1."""
        mean = (self.inside(images) + self.inside(images.flip(3))) / 2
        return functional.normalize(mean) if self.unit else mean


class _Residual(nn.Module):
    def __init__(self, block: Block) -> None:
        super().__init__()
        self.first = _conv(block.first)
        self.second = _conv(block.second)
        self.down = block.down

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = self.second(functional.relu(self.first(x)))
        if self.down:
            x = functional.avg_pool2d(x, 2)
            x = functional.pad(x, (0, 0, 0, 0, 0, branch.shape[1] - x.shape[1]))
            branch = functional.pad(branch, (0, x.shape[3] - branch.shape[3], 0, x.shape[2] - branch.shape[2]))
        return functional.relu(branch + x)


def _conv(layer: Conv) -> nn.Conv2d:
    outputs, inputs, size, _ = layer.weight.shape
    conv = nn.Conv2d(inputs, outputs, size, layer.stride, layer.pad)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor(layer.weight))
        conv.bias.copy_(torch.tensor(layer.bias))
    return conv


class ChipEmbedding(nn.Module):
    """A network behind the preprocessing of its chip: (N, 3, height, width) float RGB in 0–1 to (N, D)."""

    def __init__(self, network: nn.Module, chip: ChipSpec, unit: bool) -> None:
        super().__init__()
        self.network = network
        self.bgr = chip.color == "bgr"
        self.unit = unit
        self.register_buffer("mean", torch.tensor(chip.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(chip.std)[:, None, None], persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embed (N, 3, height, width) float RGB images in 0–1."""
        embeddings = self.network(self._normal(images))
        return functional.normalize(embeddings) if self.unit else embeddings

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        """What the network says of each place, (N, C, h, w), before it says one thing of the whole."""
        return self.network.feature_map(self._normal(images))

    def stage_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """What each stage of an IResNet says of each place; images may have any size from 32 pixels."""
        return self.network.stage_maps(self._normal(images))

    def _normal(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.flip(1) if self.bgr else images
        return (pixels * 255 - self.mean) / self.std
