"""Reference attention: the picture looks at the keys and values of a second stream.

The second stream may be the same network run on another picture, at the same steps (MasaCtrl) or once for all
(reference-only); another network of the same shape (AnimateAnyone's ReferenceNet, a garment network of virtual
try-on); or the other rows of the same batch (StyleAligned, StoryDiffusion, ConsiStory).

Shapes are those of `ipse.diffusion.attention`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ipse.diffusion.attention import Call, Handle, Where, fit_region
from ipse.errors import IpseError

SELF = Where("self")
"""All layers in which the picture looks at itself, all steps."""

# As in ipse.diffusion.attention: what may not be seen has no share that floats would show.
_SHUT = math.log(1.5e-8)


class Record(Handle):
    """Keep what self-attention makes keys and values from, so that another stream can look at it.

    The result of the network stays the same to the bit.

    Parameters
    ----------
    where
        Layers and steps to keep; of both networks, if there are two, the layers must have the same names.
    rows
        Rows of the batch to keep; all by default.

    Attributes
    ----------
    states
        By (step, name of the layer): (rows, K, channels).
    """

    def __init__(self, where: Where = SELF, *, rows: slice = slice(None)) -> None:
        self.where = where
        self.rows = rows
        self.states: dict[tuple[int, str], Tensor] = {}
        self.grids: dict[str, tuple[int, int]] = {}

    def context(self, call: Call, context: Tensor) -> Tensor:
        """Kept, and handed on."""
        self.states[call.step, call.layer.name] = context[self.rows]
        self.grids[call.layer.name] = call.grid
        return context

    def clear(self) -> None:
        """Forget what was kept."""
        self.states.clear()


class Reference(Handle):
    """Look at a recorded stream, beside the picture itself or instead.

    Parameters
    ----------
    record
        Of the second stream; recorded before, or at the same time by running the second stream first at every step.
    instead
        Look at nothing else: queries of this picture, keys and values of the other (MasaCtrl, Cao et al., 2023).
    strength
        By how much the weight of the reference is multiplied before normalization; 0 is off to the bit.
    region
        (H, W) of 0 to 1: what of the reference may be seen; None for all.
    step
        Look at the record of this step always, for references that were run once; None for the same step.
    rows
        Rows of the batch that look; all by default.
    where
        Layers and steps. MasaCtrl begins after a few steps and in the decoder.
    """

    def __init__(
        self,
        record: Record,
        *,
        instead: bool = False,
        strength: float = 1.0,
        region: Tensor | None = None,
        step: int | None = None,
        rows: slice = slice(None),
        where: Where = SELF,
    ) -> None:
        self.record = record
        self.instead = instead
        self.strength = strength
        self.region = region
        self.step = step
        self.rows = rows
        self.where = where
        self._keys = slice(0, 0)

    def wants(self, call: Call) -> bool:
        """Whether it has any strength now."""
        return bool(self.strength) and self.where.now(call)

    def context(self, call: Call, context: Tensor) -> Tensor:
        """With the reference."""
        step = call.step if self.step is None else self.step
        kept = self.record.states.get((step, call.layer.name))
        if kept is None:
            raise IpseError(
                f"Nothing was recorded at step {step} in {call.layer.name}.",
                "Run the reference inside `with attached(unet, record):` first, or name the step of its record.",
            )
        if call.rows % len(kept):
            raise IpseError(
                f"The network runs {call.rows} rows and the reference has {len(kept)}.",
                "Record one row, or as many as are run; with classifier-free guidance, both halves.",
            )
        kept = kept.to(context).repeat_interleave(call.rows // len(kept), 0)
        self._keys = slice(0 if self.instead else context.shape[1], None)
        if not self.instead:
            return torch.cat([context, kept], 1)
        if kept.shape != context.shape:
            raise IpseError(
                "A reference of another size cannot be looked at instead of the picture.", "Use instead=False."
            )
        replaced = context.clone()
        replaced[self.rows] = kept[self.rows]
        return replaced

    def bias(self, call: Call, query: Tensor, key: Tensor) -> Tensor | None:
        """Logarithm of strength and region at the keys of the reference."""
        if self.strength == 1 and self.region is None and (self.instead or self.rows == slice(None)):
            return None
        end = self._keys.start + math.prod(self.record.grids[call.layer.name])
        share = query.new_full((end - self._keys.start,), math.log(self.strength))
        if self.region is not None:
            fitted = fit_region(self.region.to(query), self.record.grids[call.layer.name])
            share = share + fitted.flatten().log().clamp_min(_SHUT)
        bias = query.new_zeros(call.rows, 1, 1, key.shape[2])
        if not self.instead:
            bias[..., self._keys.start : end] = _SHUT
        bias[self.rows, ..., self._keys.start : end] = share
        return bias


class Shared(Handle):
    """Rows of one batch look at each other, so that they show the same person (StyleAligned, StoryDiffusion).

    Parameters
    ----------
    groups
        The batch is so many groups of rows, one behind the other, which do not see each other: 2 with
        classifier-free guidance in diffusers' pipelines.
    sources
        Rows of a group that the others see; all by default (ConsiStory's anchors).
    regions
        (rows of a group, H, W) of 0 to 1: what may be seen of each, such as where the person is.
    where
        Layers and steps.
    """

    def __init__(
        self,
        *,
        groups: int = 1,
        sources: tuple[int, ...] | None = None,
        regions: Tensor | None = None,
        where: Where = SELF,
    ) -> None:
        self.groups = groups
        self.sources = sources
        self.regions = regions
        self.where = where
        self._own = 0

    def _seen(self, call: Call) -> tuple[int, tuple[int, ...]]:
        if call.rows % self.groups:
            raise IpseError(
                f"{call.rows} rows do not fall into {self.groups} groups.",
                "Use groups=2 with classifier-free guidance, and 1 without.",
            )
        size = call.rows // self.groups
        return size, tuple(range(size)) if self.sources is None else self.sources

    def context(self, call: Call, context: Tensor) -> Tensor:
        """Each row's own, then those of the sources of its group."""
        size, sources = self._seen(call)
        self._own = context.shape[1]
        grouped = context.unflatten(0, (self.groups, size))
        seen = grouped[:, list(sources)].flatten(1, 2)
        return torch.cat([context, seen.repeat_interleave(size, 0)], 1)

    def bias(self, call: Call, query: Tensor, key: Tensor) -> Tensor:
        """Regions, and no row sees itself twice."""
        size, sources = self._seen(call)
        pixels = math.prod(call.grid)
        share = query.new_zeros(size, len(sources), pixels)
        if self.regions is not None:
            fitted = fit_region(self.regions.to(query), call.grid).flatten(1)
            share = share + fitted[list(sources)].log().clamp_min(_SHUT)
        for place, source in enumerate(sources):
            share[source, place] = _SHUT
        bias = query.new_zeros(call.rows, 1, 1, key.shape[2])
        bias[..., self._own : self._own + len(sources) * pixels] = share.flatten(1).repeat(self.groups, 1)[
            :, None, None
        ]
        return bias
