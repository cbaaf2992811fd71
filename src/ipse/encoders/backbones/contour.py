"""ContourReID: people told by the lines of their bodies, whatever colors they wear (Yang, Wu & Zheng, 2019).

Who changes clothes changes colors first. So the network sees a sketch, lines and nothing else: the borders of a
segmentation (`outline`), or where a picture changes fast (`edges`). Rays from the middle of the picture turn it into
polar coordinates, a row for each angle, and the angles are learned, so that rays gather where lines tell people apart
(`PolarTransform`). Rows of neighboring angles make a stripe, and every stripe weighs its channels in its own way, since
a line at the shoulder says something else than a line at the foot (`AngleSpecificExtractor`). Streams whose rays cover
the whole circle, what is above and what is below are put together into one embedding (`ContourNetwork`). Cross-entropy
and triplets train it, as `ipse.training.described` has them.

From the paper's abstract are the learned polar transformation, the extractor by angle, and streams that differ in the
range of their angles. That gaps between angles are what is learned, the two sketches, the form of the weights, the
ranges, the layers and their numbers are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from ipse.catalogue import system
from ipse.encoders.backbones.common import Backbone, neck
from ipse.encoders.backbones.iresnet import IResNet
from ipse.errors import WeightsError

Pictures = npt.NDArray[np.uint8]

# An optimizer with one rate for all moves a gap this much faster than a weight: some hundred steps are to be enough.
_PACE = 5.0
# The share of the pixels of a picture that are drawn as white as can be.
_BRIGHT = 0.02


def outline(parts: npt.NDArray[np.integer]) -> Pictures:
    """Draw the borders between the classes of a segmentation.

    Parameters
    ----------
    parts
        (N, height, width) classes, such as `ipse.training.data.Chips.parts`.

    Returns
    -------
    numpy.ndarray
        (N, height, width, 3) white lines on black.
    """
    lines = np.zeros(parts.shape, np.uint8)
    lines[:, 1:] |= parts[:, 1:] != parts[:, :-1]
    lines[:, :, 1:] |= parts[:, :, 1:] != parts[:, :, :-1]
    return np.repeat(255 * lines[..., None], 3, 3)


def edges(pictures: Pictures) -> Pictures:
    """Draw where pictures change fast, for pictures that nobody segmented; backgrounds and folds are drawn too.

    Parameters
    ----------
    pictures
        (N, height, width, 3).

    Returns
    -------
    numpy.ndarray
        (N, height, width, 3) the length of the gradient, in the color where it is longest; white are the largest two
        per cent of each picture.
    """
    out = np.empty_like(pictures)
    for picture, sketch in zip(pictures, out, strict=True):
        down, right = np.gradient(picture.astype(np.float32), axis=(0, 1))
        length = np.hypot(down, right).max(2)
        bright = max(float(np.quantile(length, 1 - _BRIGHT)), 1e-6)
        sketch[:] = np.clip(255 * length / bright, 0, 255)[..., None]
    return out


class PolarTransform(nn.Module):
    """Read pictures along rays from their middle, at angles that are learned.

    Angles divide a span, and what is learned are the gaps between them: they stay in order and within the span, and in
    the beginning they are even. Rays end on the ellipse that touches the picture's sides.

    Parameters
    ----------
    angles
        Rays.
    radii
        Points on each.
    span
        First and last angle in degrees: 0 is to the right, 90 is down, -90 up.
    learned
        False keeps angles even.
    """

    def __init__(self, angles: int, radii: int, span: Sequence[float] = (-180, 180), learned: bool = True) -> None:
        super().__init__()
        if not -360 <= span[0] < span[1] <= span[0] + 360:
            raise WeightsError(f"Rays cannot cover {tuple(span)} degrees.", "Give two angles, the smaller one first.")
        self.gaps = nn.Parameter(torch.zeros(angles), requires_grad=learned)
        self.radii, self.span = radii, tuple(span)

    @property
    def angles(self) -> torch.Tensor:
        """(angles,) radians, rising; each is in the middle of its share of the span."""
        shares = (_PACE * self.gaps).softmax(0)
        first, last = (math.radians(side) for side in self.span)
        return first + (last - first) * (shares.cumsum(0) - shares / 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C, angles, radii), from the middle outward."""
        angles = self.angles
        radii = (torch.arange(self.radii, device=x.device) + 0.5) / self.radii
        grid = torch.stack([angles.cos()[:, None] * radii, angles.sin()[:, None] * radii], 2)
        # Not `len`, which would fix the number of pictures in what is exported.
        grid = grid.to(x.dtype).expand(x.shape[0], -1, -1, -1)
        return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


class AngleSpecificExtractor(nn.Module):
    """Stripes of neighboring angles, each with its own weights of channels.

    Parameters
    ----------
    channels
        Of the polar map.
    stripes
        How many; they divide its angles.
    """

    def __init__(self, channels: int, stripes: int) -> None:
        super().__init__()
        self.stripes = stripes
        self.weight = nn.Parameter(torch.empty(stripes, channels, channels))
        self.bias = nn.Parameter(torch.zeros(stripes, channels))
        nn.init.normal_(self.weight, std=channels**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, angles, radii) to (N, stripes · C)."""
        means = x.unflatten(2, (self.stripes, -1)).mean((3, 4)).transpose(1, 2)
        weights = torch.einsum("nsc,scd->nsd", means, self.weight) + self.bias
        return (means * weights.sigmoid()).flatten(1)


class _Stream(nn.Module):
    """A polar picture, its map, and its stripes."""

    def __init__(self, polar: PolarTransform, trunk: IResNet, stripes: int) -> None:
        super().__init__()
        self.polar, self.trunk = polar, trunk
        # Stripes stand in the place of the trunk's own last layer.
        self.trunk.neck = nn.Identity()
        self.stripes = AngleSpecificExtractor(trunk.norm.num_features, stripes)

    def map(self, x: torch.Tensor) -> torch.Tensor:
        return self.trunk.feature_map(self.polar(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.stripes(self.map(x))


@system(
    name="ContourReID",
    paper="Person Re-identification by Contour Sketch under Moderate Clothing Change",
    year=2019,
    arxiv="2002.02295",
    room="encoders",
    claim="From contour sketches that are read along rays at learned angles, people are recognized who moderately "
    "changed their clothes, where colors mislead.",
    evidence=["reid.contour.*"],
    works_means="On world bodies in the same garments with colors by chance, over three training seeds: mAP in other "
    "colors is above that of an encoder of colors, in the same colors it is below; learned angles are ahead of even "
    "ones; and both encoders together are ahead of each.",
    status="experimental",
)
class ContourNetwork(Backbone):
    """Embed sketches by streams of learned rays.

    Parameters
    ----------
    spans
        First and last angle of the rays of each stream, in degrees; see `PolarTransform`.
    angles, radii
        Of a polar picture, multiples of 16.
    stripes
        Of neighboring angles, in each stream.
    depths, width, stem
        Of the `IResNet` that reads a polar picture; every stream has its own.
    dim
        Length of the embedding.
    learned
        False keeps angles even.

    Raises
    ------
    WeightsError
        If spans or sizes cannot be, or stripes do not divide what is left of the angles.
    """

    def __init__(
        self,
        spans: Sequence[Sequence[float]] = ((-180, 180), (-150, -30), (30, 150)),
        angles: int = 64,
        radii: int = 32,
        stripes: int = 4,
        depths: Sequence[int] = (1, 1, 1),
        width: float = 0.25,
        stem: int = 2,
        dim: int = 128,
        learned: bool = True,
    ) -> None:
        super().__init__()
        left = angles // (stem * 2 ** len(depths))
        if not spans or not stripes or left % stripes or not left:
            raise WeightsError(
                f"{left} rows of angles are left of {angles}; they do not divide into {stripes} stripes.",
                "Give more angles or fewer stripes, and at least one span.",
            )
        self.streams = nn.ModuleList(
            _Stream(
                PolarTransform(angles, radii, span, learned),
                IResNet(depths, width, size=(angles, radii), stem=stem),
                stripes,
            )
            for span in spans
        )
        channels = stripes * self.streams[0].trunk.norm.num_features
        self.neck, self.dim = neck("linear_bn", channels * len(spans), dim)

    def feature_map(self, x: torch.Tensor) -> torch.Tensor:
        """See `Backbone.feature_map`; the channels of all streams, places by angle and radius."""
        return torch.cat([stream.map(x) for stream in self.streams], 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed (N, 3, H, W) normalized floats of sketches as (N, dim)."""
        return self.neck(torch.cat([stream(x) for stream in self.streams], 1))
