"""Identity adapters: tokens of a person beside the tokens of the text, by decoupled cross-attention.

An `Adapter` holds a projection, from what an encoder says of a person to tokens, and for each attention layer the
keys and values of those tokens (IP-Adapter, Ye et al., 2023). `Adapter.on` makes a handle of it for
`ipse.diffusion.attention.attached`; any number may act at once, each with its own strength and region.

Shapes: B people or rows, n identity tokens, C channels of the text (768 for Stable Diffusion 1.5, 2048 for SDXL).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ipse.diffusion.attention import (
    EVERYWHERE,
    Call,
    Handle,
    Layer,
    Part,
    Where,
    attend,
    fit_region,
    layers_of,
    places,
    split_heads,
)
from ipse.errors import FingerprintMismatch, IpseError

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPVisionModelWithProjection, PreTrainedTokenizerBase

    from ipse.encoders import Encoder

# --- Projections: what an encoder says of a person, as tokens ---------------------------------------------------------


class LinearProjection(nn.Module):
    """A pooled vector as tokens by one linear map and a norm (IP-Adapter).

    Parameters
    ----------
    inputs
        Length of the vector.
    context
        Channels C.
    tokens
        How many tokens n.
    """

    def __init__(self, inputs: int, context: int, tokens: int = 4) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, tokens * context)
        self.norm = nn.LayerNorm(context)

    def forward(self, vector: Tensor) -> Tensor:
        """(B, inputs) as (B, n, C)."""
        return self.norm(self.linear(vector).unflatten(1, (-1, self.norm.normalized_shape[0])))


class MlpProjection(nn.Module):
    """A pooled vector as tokens by a hidden layer and a norm (IP-Adapter-FaceID).

    Parameters
    ----------
    inputs, context, tokens
        As in `LinearProjection`.
    hidden
        Width of the hidden layer.
    """

    def __init__(self, inputs: int, context: int, tokens: int = 4, hidden: int = 1024) -> None:
        super().__init__()
        self.widen = nn.Linear(inputs, hidden)
        self.narrow = nn.Linear(hidden, tokens * context)
        self.norm = nn.LayerNorm(context)

    def forward(self, vector: Tensor) -> Tensor:
        """(B, inputs) as (B, n, C)."""
        tokens = self.narrow(functional.gelu(self.widen(vector)))
        return self.norm(tokens.unflatten(1, (-1, self.norm.normalized_shape[0])))


class PerceiverAttention(nn.Module):
    """Latents look at features, and at themselves (Alayrac et al., 2022, Flamingo's resampler).

    Parameters
    ----------
    width
        Channels of the latents.
    heads
        Of attention.
    inner
        Channels of all heads; by default `width`.
    features
        Channels of the features; by default `width`.
    own
        Whether the latents also look at themselves; needs features of their width.
    """

    def __init__(
        self, width: int, heads: int, *, inner: int | None = None, features: int | None = None, own: bool = True
    ) -> None:
        super().__init__()
        self.heads = heads
        self.own = own
        inner = inner or width
        self.norm_features = nn.LayerNorm(features or width)
        self.norm_latents = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(features or width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        """Features (B, m, features) and latents (B, n, width); returns what is added to the latents."""
        features, latents = self.norm_features(features), self.norm_latents(latents)
        seen = torch.cat([features, latents], 1) if self.own else features
        key, value = self.to_kv(seen).chunk(2, -1)
        return self.to_out(attend(split_heads(self.to_q(latents), self.heads), key, value))


def _feed(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, 4 * width, bias=False),
        nn.GELU(),
        nn.Linear(4 * width, width, bias=False),
    )


class PerceiverBlock(nn.Module):
    """Attention of latents and a feed-forward part, each added to the latents."""

    def __init__(self, width: int, heads: int, inner: int | None = None) -> None:
        super().__init__()
        self.attend = PerceiverAttention(width, heads, inner=inner)
        self.feed = _feed(width)

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        """As `PerceiverAttention`, but returns the new latents."""
        latents = self.attend(features, latents) + latents
        return self.feed(latents) + latents


class Resampler(nn.Module):
    """Any number of features as n tokens, by learned queries (IP-Adapter-plus, InstantID).

    Parameters
    ----------
    inputs
        Channels of the features.
    width
        Channels within.
    context, tokens
        As in `LinearProjection`.
    depth, heads
        Of the blocks.
    inner
        Channels of all heads; by default `width`.
    """

    def __init__(
        self, inputs: int, width: int, context: int, tokens: int = 16, depth: int = 4, heads: int = 12,
        inner: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, tokens, width) / width**0.5)
        self.proj_in = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(PerceiverBlock(width, heads, inner) for _ in range(depth))
        self.proj_out = nn.Linear(width, context)
        self.norm_out = nn.LayerNorm(context)

    def forward(self, features: Tensor) -> Tensor:
        """(B, m, inputs), or (B, inputs) for a single one, as (B, n, C)."""
        features = self.proj_in(features[:, None] if features.ndim == 2 else features)
        latents = self.latents.expand(len(features), -1, -1)
        for block in self.blocks:
            latents = block(features, latents)
        return self.norm_out(self.proj_out(latents))


class FinalResampler(Resampler):
    """MasterWeaver's: blocks add once, and the tokens look at each other at the end (Wei et al., 2024)."""

    def __init__(
        self, inputs: int, width: int, context: int, tokens: int = 16, depth: int = 1, heads: int = 12,
        inner: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(inputs, width, context, tokens, depth, heads, inner)
        self.final = PerceiverAttention(context, heads, inner=inner, own=False)

    def forward(self, features: Tensor) -> Tensor:
        """(B, m, inputs) as (B, n, C)."""
        features = self.proj_in(features)
        latents = self.latents.expand(len(features), -1, -1)
        for block in self.blocks:
            latents = block.feed(block.attend(features, latents)) + latents
        tokens = self.norm_out(self.proj_out(latents))
        return self.final(tokens, tokens) + tokens


class FaceResampler(nn.Module):
    """Tokens of a face vector that look at an image's features (IP-Adapter-FaceID-plus; PhotoMaker v2's Q-Former).

    Parameters
    ----------
    inputs, context, tokens, hidden
        As in `MlpProjection`.
    features
        Channels of the image's features.
    depth, heads
        Of the blocks.
    inner
        Channels of all heads; by default `context`.
    shortcut
        Add the tokens of the vector alone to the result: version 2 of FaceID-plus, and PhotoMaker v2.
    """

    def __init__(
        self, inputs: int, features: int, context: int, tokens: int = 4, hidden: int = 1024, depth: int = 4,
        heads: int = 12, inner: int | None = None, *, shortcut: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.shortcut = shortcut
        self.vector = MlpProjection(inputs, context, tokens, hidden)
        self.proj_in = nn.Linear(features, context)
        self.blocks = nn.ModuleList(PerceiverBlock(context, heads, inner) for _ in range(depth))
        self.proj_out = nn.Linear(context, context)
        self.norm_out = nn.LayerNorm(context)

    def forward(self, vector: Tensor, features: Tensor, image_strength: float = 1.0) -> Tensor:
        """Vector (B, inputs) and features (B, m, features) as (B, n, C); the strength needs the shortcut."""
        tokens = self.vector(vector)
        features, latents = self.proj_in(features), tokens
        for block in self.blocks:
            latents = block(features, latents)
        out = self.norm_out(self.proj_out(latents))
        return tokens + image_strength * out if self.shortcut else out


def _leaky(inputs: int, first: int, second: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, first),
        nn.LayerNorm(first),
        nn.LeakyReLU(),
        nn.Linear(first, second),
        nn.LayerNorm(second),
        nn.LeakyReLU(),
        nn.Linear(second, outputs),
    )


class LevelsProjection(nn.Module):
    """A vector and features of several depths of an image encoder as tokens (PuLID v1, Guo et al., 2024).

    Parameters
    ----------
    inputs
        Length of the vector: a face vector and a pooled image vector, one behind the other.
    features
        Channels of the features.
    context
        Channels C.
    tokens
        Of the vector; each of the `levels` adds one.
    """

    def __init__(self, inputs: int, features: int, context: int, tokens: int = 5, levels: int = 5) -> None:
        super().__init__()
        wide = tokens * context
        self.vector = _leaky(inputs, min(wide // 4, 1024), min(wide // 2, 1024), wide)
        self.pooled = nn.ModuleList(_leaky(*[features] * 3, context) for _ in range(levels))
        self.patches = nn.ModuleList(_leaky(*[features] * 3, context) for _ in range(levels))
        self.context = context

    def forward(self, vector: Tensor, features: Sequence[Tensor]) -> Tensor:
        """(B, inputs) and levels of (B, 1 + m, features), the pooled one first, as (B, tokens + levels, C)."""
        tokens = [self.vector(vector).unflatten(1, (-1, self.context))]
        for pooled, patches, level in zip(self.pooled, self.patches, features, strict=True):
            tokens.append(pooled(level[:, :1]) + patches(level[:, 1:]).mean(1, keepdim=True))
        return torch.cat(tokens, 1)


class LevelsResampler(nn.Module):
    """Learned queries and a vector's tokens look at deeper and deeper features (PuLID v1.1's IDFormer).

    Parameters
    ----------
    inputs, features, context
        As in `LevelsProjection`.
    width
        Channels within.
    tokens
        Of the result.
    vector_tokens
        Of the vector.
    depth
        Blocks of all levels together.
    heads, levels
        Of the blocks, of the features.
    hidden
        Width of the hidden layers of the vector.
    """

    def __init__(
        self, inputs: int, features: int, width: int, context: int, tokens: int = 32, vector_tokens: int = 5,
        depth: int = 10, heads: int = 16, levels: int = 5, hidden: int = 1024,
    ) -> None:  # fmt: skip
        super().__init__()
        self.width = width
        self.latents = nn.Parameter(torch.randn(1, tokens, width) / width**0.5)
        self.vector = _leaky(inputs, hidden, hidden, vector_tokens * width)
        self.levels = nn.ModuleList(_leaky(*[features] * 3, width) for _ in range(levels))
        self.blocks = nn.ModuleList(PerceiverBlock(width, heads) for _ in range(depth))
        self.proj_out = nn.Parameter(torch.randn(width, context) / width**0.5)

    def forward(self, vector: Tensor, features: Sequence[Tensor]) -> Tensor:
        """(B, inputs) and levels of (B, m, features) as (B, n, C)."""
        own = self.vector(vector).unflatten(1, (-1, self.width))
        latents = torch.cat([self.latents.expand(len(vector), -1, -1), own], 1)
        each = len(self.blocks) // len(self.levels)
        for i, (mapping, level) in enumerate(zip(self.levels, features, strict=True)):
            seen = torch.cat([own, mapping(level)], 1)
            for block in self.blocks[i * each : (i + 1) * each]:
                latents = block(seen, latents)
        return latents[:, : self.latents.shape[1]] @ self.proj_out


class CodeProjection(nn.Module):
    """A code of many vectors as tokens, each of a range of them: StyleGAN's W+ (Li et al., 2024, W+ Adapter).

    Parameters
    ----------
    inputs
        Channels of a vector of the code.
    context
        Channels C.
    ends
        Where the ranges end; one token each.
    """

    def __init__(self, inputs: int, context: int, ends: Sequence[int] = (4, 8, 12, 18)) -> None:
        super().__init__()
        self.spans = list(zip([0, *ends], ends, strict=False))
        self.linear = nn.ModuleList(nn.Linear(inputs * (end - start), context, bias=False) for start, end in self.spans)
        self.norm = nn.LayerNorm(context)

    def forward(self, code: Tensor) -> Tensor:
        """(B, vectors, inputs) as (B, n, C)."""
        tokens = [
            linear(code[:, start:end].flatten(1)) for linear, (start, end) in zip(self.linear, self.spans, strict=True)
        ]
        return self.norm(torch.stack(tokens, 1))


# --- Identity within the prompt ---------------------------------------------------------------------------------------


class Fuser(nn.Module):
    """Mixes identity vectors into the words of the prompt that stand for the person (PhotoMaker, Li et al., 2023).

    Parameters
    ----------
    width
        Channels C.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = self._mlp(2 * width, width)
        self.second = self._mlp(width, width)
        self.norm = nn.LayerNorm(width)

    @staticmethod
    def _mlp(inputs: int, width: int) -> nn.Sequential:
        return nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, prompt: Tensor, identity: Tensor, words: Tensor) -> Tensor:
        """Fuse.

        Parameters
        ----------
        prompt
            (B, L, C), encoded.
        identity
            (B, m, C); m at least as large as the words of any row. Further ones are left out.
        words
            (B, L) bool: the tokens to fuse with, in the order of `identity`.

        Returns
        -------
        Tensor
            (B, L, C); other tokens are as they were.
        """
        count = words.sum(1)
        if int(count.max()) > identity.shape[1]:
            raise IpseError(
                f"The prompt has {int(count.max())} places for an identity of {identity.shape[1]} vectors.",
                "Repeat the class word as many times as there are pictures (times the adapter's tokens).",
            )
        used = torch.arange(identity.shape[1], device=words.device) < count[:, None]
        theirs = prompt[words]
        fused = self.first(torch.cat([theirs, identity[used].to(prompt)], -1)) + theirs
        out = prompt.clone()
        out[words] = self.norm(self.second(fused) + fused)
        return out


class PhotoFusion(nn.Module):
    """PhotoMaker's identity encoder: photographs of a person fused into the prompt.

    Parameters
    ----------
    vision
        CLIP's image encoder, fine-tuned.
    second
        Channels of the second text encoder, beside the ``projection_dim`` of `vision`.
    qformer
        Version 2: tokens of face vectors that look at the image; version 1 (None) takes the pooled image.
    """

    def __init__(
        self, vision: CLIPVisionModelWithProjection, second: int, qformer: FaceResampler | None = None
    ) -> None:
        super().__init__()
        self.vision = vision
        self.second = nn.Linear(vision.config.hidden_size, second, bias=False)
        self.qformer = qformer
        self.fuser = Fuser(vision.config.projection_dim + second)

    def forward(self, prompt: Tensor, words: Tensor, photos: Tensor, vectors: Tensor | None = None) -> Tensor:
        """Fuse.

        Parameters
        ----------
        prompt, words
            As in `Fuser`: the class word, once for each photograph (times the tokens of version 2).
        photos
            (B, m, 3, height, width), as CLIP wants them.
        vectors
            (B, m, inputs) face vectors, for version 2.
        """
        seen = self.vision.vision_model(photos.flatten(0, 1))
        if self.qformer is not None:
            if vectors is None:
                raise IpseError(
                    "This adapter needs the face vectors of the photographs.", "Give `vectors`, one for each photo."
                )
            identity = self.qformer(vectors.flatten(0, 1), seen.last_hidden_state)
        else:
            pooled = seen.pooler_output
            identity = torch.cat([self.vision.visual_projection(pooled), self.second(pooled)], -1)[:, None]
        return self.fuser(prompt, identity.reshape(len(photos), -1, identity.shape[-1]), words)


class FacialFusion(nn.Module):
    """ConsistentID's facial encoder: features of face regions fused into the words that name them (Huang et al., 2024).

    Parameters
    ----------
    resampler
        From the features of one region to one token.
    width
        Channels C.
    """

    def __init__(self, resampler: Resampler, width: int) -> None:
        super().__init__()
        self.resampler = resampler
        self.fuser = Fuser(width)

    def forward(self, prompt: Tensor, words: Tensor, features: Tensor) -> Tensor:
        """Prompt (B, L, C), words (B, L), features of regions (B, regions, m, channels); returns the new prompt."""
        tokens = self.resampler(features.flatten(0, 1)).reshape(len(features), -1, prompt.shape[-1])
        return self.fuser(prompt, tokens, words)


@contextmanager
def word_vectors(text_encoder: CLIPTextModel, vectors: Tensor, words: Tensor) -> Iterator[None]:
    """Put vectors in place of word embeddings, for the calls within a ``with`` block.

    Parameters
    ----------
    text_encoder
        A CLIP text model of transformers.
    vectors
        (number of words, width).
    words
        (B, L) bool, which tokens of the prompt; the vectors go to them in order.
    """

    def replace(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        out = out.clone()
        out[words] = vectors.to(out)
        return out

    hook = text_encoder.get_input_embeddings().register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()


def face_prompt(text_encoder: CLIPTextModel, tokenizer: PreTrainedTokenizerBase, vectors: Tensor) -> Tensor:
    """Prompts that are a face and nothing else (Arc2Face, Papantoniou et al., 2024).

    The face vector, filled up with zeros, takes the place of "id" in "photo of a id person". Where it is longer than
    the embedding of a token, it takes the place of several, and "id" is repeated until there are so many.

    Parameters
    ----------
    text_encoder, tokenizer
        Arc2Face's fine-tuned encoder, Stable Diffusion 1.5's tokenizer.
    vectors
        (B, D) face vectors of length 1.

    Returns
    -------
    Tensor
        (B, L, C) for ``prompt_embeds``.
    """
    width = text_encoder.config.hidden_size
    needed = math.ceil(vectors.shape[1] / width)
    times = math.ceil(needed / len(places(tokenizer, "id", "id")))
    prompt = f"photo of a {' '.join(['id'] * times)} person"
    tokens = places(tokenizer, prompt, "id")
    if needed > len(tokens):
        raise IpseError(
            f"Face vectors of {vectors.shape[1]} numbers do not fit a text encoder of width {width}.",
            "Use Arc2Face's own encoder and 512-number ArcFace vectors.",
        )
    ids = tokenizer(
        prompt, padding="max_length", truncation=True, max_length=tokenizer.model_max_length, return_tensors="pt"
    ).input_ids.expand(len(vectors), -1)
    words = torch.zeros_like(ids, dtype=torch.bool)
    words[:, tokens[:needed]] = True
    filled = functional.pad(vectors, (0, needed * width - vectors.shape[1])).reshape(-1, width)
    with word_vectors(text_encoder, filled, words.to(vectors.device)):
        return text_encoder(ids.to(vectors.device)).last_hidden_state


# --- Attention of the tokens ------------------------------------------------------------------------------------------


class LowRank(nn.Module):
    """What low-rank adaptation adds to a linear map: up(down(x)); zero at first (Hu et al., 2021)."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=False)
        nn.init.normal_(self.down.weight, std=1 / rank)
        nn.init.zeros_(self.up.weight)

    def forward(self, states: Tensor) -> Tensor:
        """(…, inputs) to (…, outputs)."""
        return self.up(self.down(states))


class AdapterLayer(nn.Module):
    """What an adapter has for one attention layer.

    Parameters
    ----------
    layer
        Which.
    tokens
        Whether it has keys and values for identity tokens.
    query
        Whether they are asked by a query of their own, made from what the text's attention gave (W+ Adapter).
    rank
        Of the low-rank change of the layer's own linear maps; 0 for none (FaceID, PhotoMaker).
    parts
        Which of them.
    """

    def __init__(
        self,
        layer: Layer,
        *,
        tokens: bool,
        query: bool = False,
        rank: int = 0,
        parts: Sequence[Part] = ("q", "k", "v", "out"),
    ) -> None:
        super().__init__()
        width, context = layer.width, layer.context
        self.to_k = nn.Linear(context, width, bias=False) if tokens else None
        self.to_v = nn.Linear(context, width, bias=False) if tokens else None
        self.to_q = nn.Linear(width, width, bias=False) if tokens and query else None
        sizes = {"q": width, "k": context, "v": context, "out": width}
        self.lora = nn.ModuleDict({part: LowRank(sizes[part], width, rank) for part in parts} if rank else {})


Strength = float | Mapping[int | str, float]
"""One for all layers, or by position or beginning of the name, of which the first that fits counts; others get 0."""


class Adapter(nn.Module):
    """Identity for a diffusion network that stays as it is.

    Parameters
    ----------
    layers
        By position in ``unet.attn_processors``; see `new` for making them.
    projection
        From encodings to tokens; None for adapters that act through the prompt alone.
    fusion
        What fuses an identity into the prompt (`PhotoFusion`, `FacialFusion`); None without.
    blocks
        Cross-attention of a transformer such as FLUX; see `ipse.diffusion.layouts`.

    Attributes
    ----------
    layout
        The published layout that it was read from and is written in; see `ipse.diffusion.layouts`.
    encoder
        Name and fingerprint of the encoder that it was trained with; None where a published file does not say.
    """

    def __init__(
        self,
        layers: Mapping[int, AdapterLayer],
        projection: nn.Module | None = None,
        fusion: nn.Module | None = None,
        blocks: nn.ModuleList | None = None,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({str(index): layer for index, layer in layers.items()})
        self.projection = projection
        self.fusion = fusion
        self.blocks = blocks
        self.layout: str | None = None
        self.encoder: tuple[str, str] | None = None

    @classmethod
    def new(
        cls,
        unet: nn.Module,
        projection: nn.Module,
        *,
        query: bool = False,
        rank: int = 0,
        low_rank: Literal["all", "text"] = "all",
    ) -> Adapter:
        """An adapter to train: keys and values begin as those of the text, as in IP-Adapter.

        Parameters
        ----------
        unet
            The network; its weights are copied, not kept.
        projection
            Such as `MlpProjection`; its tokens have the channels of the text.
        query, rank
            As in `AdapterLayer`.
        low_rank
            What changes by low rank: all linear maps of all layers, or the keys and values of the text.
        """
        layers = {}
        parts: tuple[Part, ...] = ("q", "k", "v", "out") if low_rank == "all" else ("k", "v")
        for layer in layers_of(unet):
            if layer.cross or (rank and low_rank == "all"):
                own = AdapterLayer(layer, tokens=layer.cross, query=query, rank=rank, parts=parts)
                layers[layer.index] = own
                attn = unet.get_submodule(layer.name)
                pairs = ((own.to_k, attn.to_k), (own.to_v, attn.to_v), (own.to_q, attn.to_q))
                for mine, theirs in pairs:
                    if mine is not None:
                        mine.weight.data.copy_(theirs.weight)
        return cls(layers, projection)

    def tokens(self, *encodings: Tensor | Sequence[Tensor], **options: float) -> Tensor:
        """What the projection makes of encodings: (B, n, C). See its ``forward`` for what it takes."""
        if self.projection is None:
            raise IpseError(
                f"An adapter of the layout {self.layout} has no identity tokens.", "Use its `fusion` with the prompt."
            )
        return self.projection(*encodings, **options)

    def check_encoder(self, encoder: Encoder) -> None:
        """Make sure that encodings are of the encoder that the adapter was trained with.

        Raises
        ------
        FingerprintMismatch
            If they are of another. An adapter without a record takes any.
        """
        if self.encoder is not None and encoder.fingerprint != self.encoder[1]:
            raise FingerprintMismatch(self.encoder, (encoder.name, encoder.fingerprint))

    def on(
        self,
        unet: nn.Module,
        tokens: Tensor | None = None,
        *,
        negative: Tensor | None = None,
        strength: Strength = 1.0,
        lora: float = 1.0,
        region: Tensor | None = None,
        where: Where = EVERYWHERE,
    ) -> Adapted:
        """Make a handle for `ipse.diffusion.attention.attached`.

        Parameters
        ----------
        unet
            The network that it will be attached to.
        tokens
            (B, n, C) of the people, one row for each prompt; None uses the low-rank part alone.
        negative
            (B, n, C) of nobody: the projection of zeros. Give it with classifier-free guidance, where diffusers'
            pipelines run a batch of the negative prompts and then the prompts.
        strength
            Of the tokens. 0 is off, to the bit if there is no low-rank part.
        lora
            Strength of the low-rank part, if there is one.
        region
            (H, W) of 0 to 1, where the person is; None for everywhere.
        where
            Layers and steps.

        Raises
        ------
        IpseError
            If the adapter is for another network, or tokens have other channels.
        """
        self._check(unet, tokens)
        return Adapted(self, tokens, negative, strength, lora, region, where)

    def _check(self, unet: nn.Module, tokens: Tensor | None) -> None:
        layers = {layer.index: layer for layer in layers_of(unet)}
        for index, own in self.layers.items():
            theirs = layers.get(int(index))
            fits = theirs is not None and (own.to_k is None or own.to_k.weight.shape == (theirs.width, theirs.context))
            if not fits or (own.to_k is not None and not theirs.cross):
                ours = [layer for layer in self.layers.values() if layer.to_k is not None]
                made_for = f"{len(ours)} layers of {ours[0].to_k.in_features} channels" if ours else "other layers"
                cross = [layer for layer in layers.values() if layer.cross]
                raise IpseError(
                    f"This adapter is made for a network with {made_for}; this one has {len(cross)} of "
                    f"{cross[0].context if cross else 0}.",
                    "Load the base that the adapter was trained on (`ipse adapter inspect` names it), or an adapter "
                    "for this base.",
                )
        if self.blocks is not None:
            raise IpseError(
                "This adapter is made for a FLUX transformer, which has no attention layers of a U-Net.",
                "Use an adapter for Stable Diffusion 1.5 or SDXL.",
            )
        context = next((own.to_k.in_features for own in self.layers.values() if own.to_k is not None), None)
        if tokens is not None and tokens.shape[-1] != context:
            raise IpseError(
                f"Identity tokens of {tokens.shape[-1]} channels do not fit an adapter of {context}.",
                "Make them by this adapter's `tokens`.",
            )


class Adapted(Handle):
    """The handle of `Adapter.on`."""

    def __init__(
        self,
        adapter: Adapter,
        tokens: Tensor | None,
        negative: Tensor | None,
        strength: Strength,
        lora: float,
        region: Tensor | None,
        where: Where,
    ) -> None:
        self.adapter = adapter
        self.tokens = tokens if negative is None or tokens is None else torch.cat([negative, tokens])
        self.strength = strength
        self.lora = lora
        self.region = region
        self.where = where

    def covers(self, layer: Layer) -> bool:
        """Whether the adapter has something for the layer."""
        return self.where.covers(layer) and str(layer.index) in self.adapter.layers

    def wants(self, call: Call) -> bool:
        """Whether that has any strength now."""
        own = self.adapter.layers[str(call.layer.index)]
        return self.where.now(call) and bool(self._strength(call.layer, own) or (own.lora and self.lora))

    def _strength(self, layer: Layer, own: AdapterLayer) -> float:
        if own.to_k is None or self.tokens is None:
            return 0.0
        if not isinstance(self.strength, Mapping):
            return self.strength
        fitting = (
            value
            for wanted, value in self.strength.items()
            if (wanted == layer.index if isinstance(wanted, int) else layer.name.startswith(wanted))
        )
        return next(fitting, 0.0)

    def project(self, call: Call, part: Part, states: Tensor, out: Tensor) -> Tensor:
        """With the low-rank part."""
        own = self.adapter.layers[str(call.layer.index)]
        return out + self.lora * own.lora[part](states) if part in own.lora and self.lora else out

    def output(self, call: Call, query: Tensor, out: Tensor) -> Tensor:
        """Z = softmax(Q Kᵀ) V + strength · softmax(Q K'ᵀ) V' (IP-Adapter, equation 5)."""
        own = self.adapter.layers[str(call.layer.index)]
        strength = self._strength(call.layer, own)
        if not strength:
            return out
        if call.rows % len(self.tokens):
            raise IpseError(
                f"The network runs {call.rows} rows and there are identity tokens for {len(self.tokens)}.",
                "Give one row of tokens for each prompt, and `negative` tokens with classifier-free guidance.",
            )
        # Pipelines repeat each prompt for its pictures before they go on to the next.
        tokens = self.tokens.to(out).repeat_interleave(call.rows // len(self.tokens), 0)
        if own.to_q is not None:
            query = split_heads(own.to_q(out), query.shape[1])
        added = attend(query, own.to_k(tokens), own.to_v(tokens))
        if self.region is not None:
            added = added * fit_region(self.region.to(out), call.grid).flatten()[:, None]
        return out + strength * added
