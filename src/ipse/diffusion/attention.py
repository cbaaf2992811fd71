"""One mechanism for everything that reads or changes attention: adapters, prompt editing, masks, reference streams.

A `Handle` states what it does at one point of an attention layer; `attached` puts handles on the `Attention` layers of
a diffusers network for the time of a ``with`` block. A layer where no handle wants anything is computed by its own
processor, so that attached handles which are off change no bit.

Shapes: B rows of a batch, h heads, Q queries (pixels of the feature map), K keys (tokens, or pixels again), d
channels of one head, C channels of all heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, Literal

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor
from torch.nn import functional

from ipse.errors import IpseError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Part = Literal["q", "k", "v", "out"]
"""The linear maps of an attention layer."""


@dataclass(frozen=True)
class Layer:
    """One attention layer of a network.

    Attributes
    ----------
    index
        Position in ``unet.attn_processors``: the number that published adapters use. The middle block comes last.
    name
        Such as ``"mid_block.attentions.0.transformer_blocks.0.attn2"``.
    cross
        Whether keys come from the text (True) or from the picture itself.
    width
        Channels C of queries, keys and values.
    context
        Channels of what keys and values are made from.
    """

    index: int
    name: str
    cross: bool
    width: int
    context: int


def layers_of(unet: torch.nn.Module) -> list[Layer]:
    """List the attention layers of a diffusers network in the order of ``attn_processors``."""
    return [layer for layer, _ in _attention(unet)]


def _attention(unet: torch.nn.Module) -> list[tuple[Layer, Attention]]:
    found = []
    for index, key in enumerate(unet.attn_processors):
        name = key.removesuffix(".processor")
        attn = unet.get_submodule(name)
        layer = Layer(index, name, bool(attn.is_cross_attention), attn.to_q.out_features, attn.to_k.in_features)
        found.append((layer, attn))
    return found


@dataclass(frozen=True)
class Call:
    """One pass through one layer.

    Attributes
    ----------
    layer
        Which layer.
    step
        How many denoising steps came before in this run: distinct timesteps since the run's first.
    timestep
        What the network was told; of the first row where rows differ.
    grid
        Height and width of the feature map whose pixels are the queries.
    rows
        Batch size B.
    """

    layer: Layer
    step: int
    timestep: float
    grid: tuple[int, int]
    rows: int


@dataclass(frozen=True)
class Where:
    """Which layers and steps a handle acts on; the default is all.

    Attributes
    ----------
    kind
        ``"cross"`` or ``"self"`` attention; None for both.
    layers
        Positions or beginnings of names, such as ``(31, "up_blocks.1")``; None for all.
    steps
        Such as ``range(10)``; None for all.
    pixels
        The largest feature map, in pixels; None for any size.
    """

    kind: Literal["cross", "self"] | None = None
    layers: Sequence[int | str] | None = None
    steps: range | None = None
    pixels: int | None = None

    def covers(self, layer: Layer) -> bool:
        """Whether the layer is meant at some step and size."""
        if self.kind is not None and layer.cross != (self.kind == "cross"):
            return False
        return self.layers is None or any(
            layer.index == wanted if isinstance(wanted, int) else layer.name.startswith(wanted)
            for wanted in self.layers
        )

    def now(self, call: Call) -> bool:
        """Whether the step and size are meant, in a layer that `covers` says is."""
        return (self.steps is None or call.step in self.steps) and (
            self.pixels is None or math.prod(call.grid) <= self.pixels
        )


EVERYWHERE = Where()
"""All layers, all steps."""
CROSS = Where("cross")
"""All layers that look at the text, all steps."""


class Handle:
    """What may read or change attention. Override the points that matter; the others leave things as they are.

    The points come in this order: `context`, `project` (q, k, v), `heads`, `bias`, `weights`, `see`, `output`,
    `project` (out). Where several handles override one point, each gets what the handle before it gave.
    """

    where: Where = EVERYWHERE

    def covers(self, layer: Layer) -> bool:
        """Whether this handle may ever act on the layer."""
        return self.where.covers(layer)

    def wants(self, call: Call) -> bool:
        """Whether it acts now. Where no handle does, the layer's own processor runs."""
        return self.where.now(call)

    def context(self, call: Call, context: Tensor) -> Tensor:
        """(B, K, channels) that keys and values are made from."""
        return context

    def project(self, call: Call, part: Part, states: Tensor, out: Tensor) -> Tensor:
        """Result of a linear map, (B, n, C), given what it was applied to, (B, n, channels)."""
        return out

    def heads(self, call: Call, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, h, Q, d), keys and values (B, h, K, d)."""
        return query, key, value

    def bias(self, call: Call, query: Tensor, key: Tensor) -> Tensor | None:
        """What is added to the scores before the softmax: broadcastable to (B, h, Q, K), or None."""
        return None

    def weights(self, call: Call, weights: Tensor) -> Tensor:
        """Attention weights (B, h, Q, K), of which each row over K adds up to 1."""
        return weights

    def see(self, call: Call, weights: Tensor) -> None:
        """Read the weights (B, h, Q, K) that are used; the layer's result stays the same to the bit."""

    def output(self, call: Call, query: Tensor, out: Tensor) -> Tensor:
        """What attention gave, (B, Q, C), before the last linear map; queries are (B, h, Q, d)."""
        return out


def _overrides(handle: Handle, point: str) -> bool:
    return getattr(type(handle), point) is not getattr(Handle, point)


class _Clock:
    """Counts the denoising steps of a network and knows the size of its latent."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.falling: bool | None = None
        self.timestep = math.nan
        self.step = 0
        self.size = (1, 1)

    def tick(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sample = args[0] if args else kwargs["sample"]
        timestep = args[1] if len(args) > 1 else kwargs["timestep"]
        now = float(timestep.flatten()[0] if isinstance(timestep, Tensor) else timestep)
        self.size = (sample.shape[-2], sample.shape[-1])
        if self.first is None or now == self.first:
            self.first, self.step, self.falling = now, 0, None
        elif now != self.timestep:
            falling = now < self.timestep
            if self.falling not in (None, falling):
                # Within a run, noise only falls or only grows.
                self.first, self.step, falling = now, 0, None
            else:
                self.step += 1
            self.falling = falling
        self.timestep = now

    def grid(self, queries: int) -> tuple[int, int]:
        """The feature map with so many pixels; each stage of the network halves the size, rounding up."""
        height, width = self.size
        while height * width > queries:
            height, width = math.ceil(height / 2), math.ceil(width / 2)
        return height, width


def split_heads(states: Tensor, heads: int) -> Tensor:
    """(B, n, C) as (B, heads, n, C / heads)."""
    return states.view(states.shape[0], -1, heads, states.shape[-1] // heads).transpose(1, 2)


def _merge(states: Tensor) -> Tensor:
    """(B, heads, n, d) as (B, n, heads · d)."""
    return states.transpose(1, 2).flatten(2)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of given heads: queries (B, h, Q, d), keys and values (B, K, h · d); returns (B, Q, h · d)."""
    heads = query.shape[1]
    return _merge(functional.scaled_dot_product_attention(query, split_heads(key, heads), split_heads(value, heads)))


class _Processor:
    """Stands in for a layer's processor and asks the handles."""

    def __init__(self, layer: Layer, inner: Any, clock: _Clock) -> None:
        self.layer = layer
        self.inner = inner
        self.clock = clock
        self.handles: list[Handle] = []

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        queries = math.prod(hidden_states.shape[2:]) if hidden_states.ndim == 4 else hidden_states.shape[1]
        clock = self.clock
        call = Call(self.layer, clock.step, clock.timestep, clock.grid(queries), len(hidden_states))
        active = [handle for handle in self.handles if handle.wants(call)]
        if not active:
            return self.inner(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        return self._handled(call, active, attn, hidden_states, encoder_hidden_states, attention_mask, temb)

    def _handled(
        self,
        call: Call,
        active: list[Handle],
        attn: Attention,
        states: Tensor,
        context: Tensor | None,
        mask: Tensor | None,
        temb: Tensor | None,
    ) -> Tensor:
        # The same operations in the same order as diffusers' AttnProcessor2_0, so that equal parts give equal bits.
        residual = states
        if attn.spatial_norm is not None:
            states = attn.spatial_norm(states, temb)
        shape = states.shape
        if len(shape) == 4:
            states = states.flatten(2).transpose(1, 2)
        if mask is not None:
            keys = (states if context is None else context).shape[1]
            mask = attn.prepare_attention_mask(mask, keys, call.rows).view(call.rows, attn.heads, -1, keys)
        if attn.group_norm is not None:
            states = attn.group_norm(states.transpose(1, 2)).transpose(1, 2)
        if context is None:
            context = states
        elif attn.norm_cross:
            context = attn.norm_encoder_hidden_states(context)
        for handle in active:
            context = handle.context(call, context)

        def project(part: Part, linear: torch.nn.Module, inputs: Tensor) -> Tensor:
            out = linear(inputs)
            for handle in active:
                out = handle.project(call, part, inputs, out)
            return out

        query = split_heads(project("q", attn.to_q, states), attn.heads)
        key = split_heads(project("k", attn.to_k, context), attn.heads)
        value = split_heads(project("v", attn.to_v, context), attn.heads)
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        for handle in active:
            query, key, value = handle.heads(call, query, key, value)
        for handle in active:
            extra = handle.bias(call, query, key)
            if extra is not None:
                mask = extra.to(query.dtype) if mask is None else mask + extra.to(query.dtype)

        changed = any(_overrides(handle, "weights") for handle in active)
        weights = None
        if changed or any(_overrides(handle, "see") for handle in active):
            weights = _weights(query, key, mask)
        if changed:
            for handle in active:
                weights = handle.weights(call, weights)
            out = weights @ value
        else:
            out = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        if weights is not None:
            for handle in active:
                handle.see(call, weights)
        out = _merge(out).to(query.dtype)
        for handle in active:
            out = handle.output(call, query, out)

        out = attn.to_out[1](project("out", attn.to_out[0], out))
        if len(shape) == 4:
            out = out.transpose(-1, -2).reshape(shape)
        if attn.residual_connection:
            out = out + residual
        return out / attn.rescale_output_factor


def _weights(query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over the keys of the scaled scores, in the type of the queries; (B, h, Q, K)."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores + mask
    return scores.float().softmax(-1).to(query.dtype)


@contextmanager
def attached(unet: torch.nn.Module, *handles: Handle) -> Iterator[None]:
    """Put handles on a network's attention for the time of a ``with`` block.

    Blocks may be nested; then all handles act. The network's weights and its own processors are not changed.

    Parameters
    ----------
    unet
        A `UNet2DConditionModel`, or another diffusers network of `Attention` layers (`ControlNetModel`).
    handles
        In the order in which they act.

    Raises
    ------
    IpseError
        If a layer that a handle covers has a processor of its own kind, such as that of ``pipe.load_ip_adapter``.
    """
    layers = _attention(unet)
    for layer, attn in layers:
        plain = isinstance(attn.processor, AttnProcessor | AttnProcessor2_0 | _Processor)
        if not plain and any(handle.covers(layer) for handle in handles):
            raise IpseError(
                f"The layer {layer.name} is run by {type(attn.processor).__name__}, which handles cannot work with.",
                "Unload what put it there (pipe.unload_ip_adapter()), or unet.set_default_attn_processor().",
            )
    running = [attn.processor.clock for _, attn in layers if isinstance(attn.processor, _Processor)]
    clock = running[0] if running else _Clock()
    hook = unet.register_forward_pre_hook(clock.tick, with_kwargs=True) if not running else None
    mine: list[tuple[Attention, _Processor, Handle]] = []
    try:
        for layer, attn in layers:
            for handle in handles:
                if handle.covers(layer):
                    if not isinstance(attn.processor, _Processor):
                        attn.processor = _Processor(layer, attn.processor, clock)
                    attn.processor.handles.append(handle)
                    mine.append((attn, attn.processor, handle))
        yield
    finally:
        for attn, processor, handle in mine:
            # By identity: handles may hold tensors, which no equality decides.
            del processor.handles[[one is handle for one in processor.handles].index(True)]
            if not processor.handles and attn.processor is processor:
                attn.processor = processor.inner
        if hook is not None:
            hook.remove()


class Capture(Handle):
    """Keep attention weights; the result of the network stays the same to the bit.

    Weights keep their gradients where gradients are on, so that losses on attention can be built on them.

    Parameters
    ----------
    where
        Layers and steps to keep.
    rows
        Rows of the batch to keep; all by default. With classifier-free guidance in a diffusers pipeline, the rows
        of the prompt are the second half.
    heads
        Keep each head; otherwise their mean.

    Attributes
    ----------
    maps
        By (step, name of the layer): (rows, Q, K), or (rows, h, Q, K) with `heads`.
    """

    def __init__(self, where: Where = CROSS, *, rows: slice = slice(None), heads: bool = False) -> None:
        self.where = where
        self.rows = rows
        self.keep_heads = heads
        self.maps: dict[tuple[int, str], Tensor] = {}
        self._calls: dict[tuple[int, str], Call] = {}

    def see(self, call: Call, weights: Tensor) -> None:
        """Keep them."""
        kept = weights[self.rows]
        self.maps[call.step, call.layer.name] = kept if self.keep_heads else kept.mean(1)
        self._calls[call.step, call.layer.name] = call

    def clear(self) -> None:
        """Forget what was kept."""
        self.maps.clear()
        self._calls.clear()

    def grid(self, name: str) -> tuple[int, int]:
        """Height and width of the feature map of a layer that was kept."""
        return next(call.grid for (_, kept), call in self._calls.items() if kept == name)

    def average(self, grid: tuple[int, int], where: Where = EVERYWHERE) -> Tensor:
        """Mean over heads, kept layers and kept steps, as maps over the picture.

        Parameters
        ----------
        grid
            Height H and width W of the maps; smaller feature maps are enlarged bilinearly.
        where
            Layers and steps to use, among those kept; all must have the same number of keys.

        Returns
        -------
        Tensor
            (rows, K, H, W).

        Raises
        ------
        IpseError
            If nothing was kept there.
        """
        total, count = None, 0
        for place, weights in self.maps.items():
            call = self._calls[place]
            if not where.covers(call.layer) or not where.now(call):
                continue
            mean = weights.mean(1) if self.keep_heads else weights
            maps = mean.transpose(1, 2).unflatten(2, call.grid).float()
            if call.grid != grid:
                maps = functional.interpolate(maps, grid, mode="bilinear")
            total, count = maps if total is None else total + maps, count + 1
        if total is None:
            raise IpseError(
                "No attention was captured there.",
                "Run the network inside `with attached(unet, capture):` and ask for layers and steps that it keeps.",
            )
        return total / count

    def region(
        self, tokens: Sequence[int], grid: tuple[int, int], *, threshold: float = 0.3, where: Where = EVERYWHERE
    ) -> Tensor:
        """Where the picture attends to some tokens, as in Prompt-to-Prompt's local blend (Hertz et al., 2022).

        Parameters
        ----------
        tokens
            Positions in the prompt, see `places`.
        grid, where
            As in `average`.
        threshold
            Share of a map's largest value above which a pixel belongs to the region.

        Returns
        -------
        Tensor
            (rows, H, W) of zeros and ones.
        """
        maps = self.average(grid, where)[:, list(tokens)].mean(1)
        return (maps > threshold * maps.amax((1, 2), keepdim=True)).float()


Change = Callable[[Call, Tensor], Tensor]
"""From attention weights (B, h, Q, K) to those that shall be used instead."""


class Edit(Handle):
    """Change attention weights.

    Parameters
    ----------
    change
        Such as `from_rows`, `from_capture` or `scaled`, or a function of yours.
    where
        Layers and steps.
    """

    def __init__(self, change: Change, where: Where = CROSS) -> None:
        self.change = change
        self.where = where

    def weights(self, call: Call, weights: Tensor) -> Tensor:
        """Changed."""
        return self.change(call, weights)


def from_rows(source: int, target: int, mapping: Tensor | None = None) -> Change:
    """One row of the batch gets the weights of another (Prompt-to-Prompt, Hertz et al., 2022).

    Parameters
    ----------
    source, target
        Rows of the batch.
    mapping
        (K of the source, K of the target), see `align`; None keeps the tokens as they are.
    """

    def change(call: Call, weights: Tensor) -> Tensor:
        taken = weights[source]
        if mapping is not None:
            taken = taken @ mapping.to(taken)
        rows = list(weights.unbind(0))
        rows[target] = taken
        return torch.stack(rows)

    return change


def from_capture(capture: Capture) -> Change:
    """The weights that a capture kept at the same step and layer; its rows must be as many as the batch's."""

    def change(call: Call, weights: Tensor) -> Tensor:
        kept = capture.maps.get((call.step, call.layer.name))
        if kept is None:
            raise IpseError(
                f"Nothing was captured at step {call.step} in {call.layer.name}.",
                "Capture the same layers and steps first.",
            )
        return (kept if kept.ndim == 4 else kept[:, None]).to(weights).expand_as(weights)

    return change


def scaled(scales: Tensor) -> Change:
    """Each token's weight times a factor, (K,): Prompt-to-Prompt's attention re-weighting; not normalized again."""
    return lambda call, weights: weights * scales.to(weights)


def blended(change: Change, amount: float | Tensor) -> Change:
    """Between the own weights (amount 0) and changed ones (1); a tensor is broadcast to (B, h, Q, K)."""

    def change_in_part(call: Call, weights: Tensor) -> Tensor:
        share = amount.to(weights) if isinstance(amount, Tensor) else amount
        return weights + share * (change(call, weights) - weights)

    return change_in_part


def fit_region(region: Tensor, grid: tuple[int, int]) -> Tensor:
    """A map (…, H, W) of 0 to 1 at the size of a feature map: the mean over each pixel's area."""
    flat = region.float().reshape(-1, 1, *region.shape[-2:])
    fitted = functional.interpolate(flat, grid, mode="area").reshape(*region.shape[:-2], *grid)
    return fitted.to(region.dtype) if region.is_floating_point() else fitted


# e^-18: no share of the attention that floats would show, and no NaN where all keys are shut out.
_NOTHING = 1.5e-8


@dataclass(eq=False)
class Regions(Handle):
    """Bind tokens to regions of the picture, and keep regions apart.

    The score of a token is multiplied, before normalization, by its region's value at the pixel (Couairon et al.,
    2023; a soft form of dense diffusion's masks). In self-attention, pixels see those of their own region alone.

    Attributes
    ----------
    tokens
        For each region, positions in the prompt; see `places`.
    maps
        (regions, H, W) of 0 to 1, of any size; for instance masks of `ipse.world`'s parts, or `Capture.region`.
    where
        Layers and steps. Without a kind both cross- and self-attention are bound.
    rows
        Rows of the batch; see `Capture`.
    """

    tokens: Sequence[Sequence[int]]
    maps: Tensor
    where: Where = CROSS
    rows: slice = field(default_factory=lambda: slice(None))

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.maps):
            raise IpseError(
                f"There are {len(self.maps)} regions and tokens for {len(self.tokens)}.",
                "Give the positions of the tokens of each region; an empty list binds none.",
            )

    def bias(self, call: Call, query: Tensor, key: Tensor) -> Tensor:
        """Logarithm of how much of a token may be seen at a pixel: (B, 1, Q, K)."""
        maps = fit_region(self.maps.to(query.device), call.grid).flatten(1)
        if call.layer.cross:
            share = maps.new_ones(maps.shape[1], key.shape[2])
            for tokens, region in zip(self.tokens, maps, strict=True):
                share[:, list(tokens)] = region[:, None]
        else:
            with_rest = torch.cat([maps, (1 - maps.sum(0, keepdim=True)).clamp_min(0)])
            share = with_rest.T @ with_rest
            # Keys beyond the picture's own (of a reference stream) stay open.
            share = functional.pad(share, (0, key.shape[2] - share.shape[1]), value=1.0)
        bias = share.new_zeros(call.rows, 1, *share.shape)
        bias[self.rows] = share.clamp(_NOTHING, 1).log()
        return bias


def places(tokenizer: PreTrainedTokenizerBase, prompt: str, words: str) -> list[int]:
    """Positions, in the padded prompt, of the tokens that spell a word or phrase, wherever it stands in the prompt.

    Parameters
    ----------
    tokenizer
        Of the base's text encoder.
    prompt
        As it is given to the pipeline.
    words
        A word or phrase of the prompt; only whole words are found, upper and lower case are one.

    Raises
    ------
    IpseError
        If the phrase is not in the prompt, or stands beyond the tokenizer's limit.
    """
    ids = _ids(tokenizer, prompt)
    spelled = _words(tokenizer, ids)
    wanted = [word for _, word in _words(tokenizer, _ids(tokenizer, words))]
    found = []
    for start in range(len(spelled) - len(wanted) + 1):
        if [word for _, word in spelled[start : start + len(wanted)]] == wanted:
            found += [place for tokens, _ in spelled[start : start + len(wanted)] for place in tokens]
    if not wanted or not found:
        raise IpseError(
            f"{words!r} is not among the first {len(ids)} tokens of the prompt {prompt!r}.",
            "Name words of the prompt, as whole words.",
        )
    return found


def _ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    return tokenizer(prompt, padding="max_length", truncation=True, max_length=tokenizer.model_max_length)["input_ids"]


def _words(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[tuple[list[int], tuple[int, ...]]]:
    """The words of a prompt: positions of their tokens, and the tokens.

    A word ends at a token with CLIP's end mark. Tokenizers without such marks have one token for a word.
    """
    marked = any(token.endswith("</w>") for token in tokenizer.convert_ids_to_tokens(list(ids)))
    special = set(tokenizer.all_special_ids)
    words: list[tuple[list[int], tuple[int, ...]]] = []
    current: list[int] = []
    for place, (number, token) in enumerate(zip(ids, tokenizer.convert_ids_to_tokens(list(ids)), strict=True)):
        # An unknown word's token is special, too, but no padding: it is counted by its place among the words.
        if number in special and number != tokenizer.unk_token_id:
            continue
        current.append(place)
        if not marked or token.endswith("</w>"):
            words.append((current, tuple(ids[at] for at in current)))
            current = []
    return words


def align(tokenizer: PreTrainedTokenizerBase, source: str, target: str) -> tuple[Tensor, Tensor]:
    """Which token of one prompt became which of another (Prompt-to-Prompt's word swap and refinement).

    Tokens that both prompts have in the same order correspond; replaced ones are spread evenly over their
    replacement; added ones have no source.

    Returns
    -------
    tuple
        A mapping (K, K): the target's weights are the source's times it. And (K,), 1 where a target's token has a
        source and 0 where it was added; `blended` by it leaves added tokens their own weights.
    """
    before, after = _ids(tokenizer, source), _ids(tokenizer, target)
    mapping = torch.zeros(len(before), len(after))
    for tag, i0, i1, j0, j1 in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "equal" or (tag == "replace" and i1 - i0 == j1 - j0):
            mapping[range(i0, i1), range(j0, j1)] = 1
        elif tag == "replace":
            # Each source token's weight is shared among the replacement, so that what a pixel attends stays the same.
            mapping[i0:i1, j0:j1] = 1 / (j1 - j0)
    return mapping, (mapping.sum(0) > 0).float()
