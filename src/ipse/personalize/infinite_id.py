"""Infinite-ID (Wu et al., 2024): identity is learned with the text off, and meets the text when pictures are made.

In training the text's cross-attention is off: what a layer finds in tokens of the face takes the place of what it finds
in the text, so that nothing of the identity is left to words. The tokens are those of a face encoder's vector and of an
image encoder's features, side by side.

A picture is made by two streams from the same noise: the base with the text alone, and one with text and face. In the
second, cross-attention adds what it finds in both, and self-attention sees the keys and values of both streams (mixed
attention). Those of the identity are first moved to where those of the text are, in the mean over tokens or pixels and
no further (AdaIN-mean, x − μ(x) + μ(y)): the identity is in what is left. A picture costs two of the base.

The abstract was read; formulas are as public notes on the paper give them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from ipse.catalogue import system
from ipse.diffusion import Base, Generated
from ipse.diffusion.adapters import Adapted, Adapter, MlpProjection, Resampler
from ipse.diffusion.attention import EVERYWHERE, Call, attached, attend
from ipse.diffusion.reference import Record, Reference
from ipse.personalize.adapting import Adapting, Batch, Conditions, Fitted, Options, Words
from ipse.personalize.contract import marked
from ipse.personalize.references import Features


def adain_mean(own: Tensor, other: Tensor) -> Tensor:
    """Features (B, n, C) moved so that their mean over n is that of others (B, m, C); nothing else of them changes."""
    return own - own.mean(1, keepdim=True) + other.mean(1, keepdim=True)


class FaceMapper(nn.Module):
    """Tokens of an image encoder's features, and of a face encoder's vector.

    Parameters
    ----------
    inputs, features
        Length of the vector, channels of the features.
    context
        Channels C.
    tokens, patch_tokens
        How many of each.
    hidden
        Of `MlpProjection`.
    width, depth, heads
        Of `Resampler`.
    """

    def __init__(
        self, inputs: int, features: int, context: int, *, tokens: int, patch_tokens: int, hidden: int, width: int,
        depth: int, heads: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.face = MlpProjection(inputs, context, tokens, hidden)
        self.image = Resampler(features, width, context, patch_tokens, depth, heads)

    def forward(self, vector: Tensor, patches: Tensor) -> Tensor:
        """(B, inputs) and (B, m, features) as (B, patch_tokens + tokens, C)."""
        return torch.cat([self.image(patches), self.face(vector)], 1)


class _Identity(Adapted):
    """Tokens of the face in place of the text, or beside it and aligned to it."""

    def __init__(self, adapter: Adapter, tokens: Tensor, strength: float, *, text: bool, aligned: bool) -> None:
        super().__init__(adapter, tokens, None, strength, 0.0, None, EVERYWHERE)
        self.text, self.aligned = text, aligned
        self._of_text: tuple[Tensor, Tensor] | None = None

    def heads(self, call: Call, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As they are; keys and values of the text are what those of the face are aligned to."""
        self._of_text = key.transpose(1, 2).flatten(2), value.transpose(1, 2).flatten(2)
        return query, key, value

    def output(self, call: Call, query: Tensor, out: Tensor) -> Tensor:
        """What is found in the face, alone or added."""
        own = self.adapter.layers[str(call.layer.index)]
        tokens = self.tokens.to(out).repeat_interleave(call.rows // len(self.tokens), 0)
        pair = own.to_k(tokens), own.to_v(tokens)
        if self.aligned:
            pair = tuple(adain_mean(ours, theirs) for ours, theirs in zip(pair, self._of_text, strict=True))
        found = attend(query, *pair)
        return out + self.strength * found if self.text else found


class Mixed(Reference):
    """Mixed attention: a stream sees itself, aligned to the recorded stream, and that stream."""

    def heads(self, call: Call, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The stream's own keys and values, which come first, aligned to the recorded ones, which come last."""
        return query, *(self._aligned(states, prod(call.grid)) for states in (key, value))

    @staticmethod
    def _aligned(states: Tensor, pixels: int) -> Tensor:
        own, other = states[:, :, :pixels], states[:, :, -pixels:]
        moved = adain_mean(own.flatten(0, 1), other.flatten(0, 1)).view_as(own)
        return torch.cat([moved, states[:, :, pixels:]], 2)


@dataclass(frozen=True)
class DecouplingOptions(Options):
    """Options of training.

    Attributes
    ----------
    text
        Let the text act in training as well: what the paper is measured against.
    """

    text: bool = False


@system(
    name="Infinite-ID",
    paper="Infinite-ID: Identity-preserved Personalization via ID-semantics Decoupling Paradigm",
    year=2024,
    arxiv="2403.11781",
    room="personalize",
    claim="Identity learned with the text off and merged with it by mixed attention is nearer to the person, and the "
    "prompt is kept.",
    evidence=("personalize.infinite-id.*",),
    works_means=(
        "trained with the text off, nearer to the person than trained with it; mixed attention with AdaIN-mean brings "
        "prompt accuracy back to within tolerance of the base, which adding both attentions does not."
    ),
    status="experimental",
)
class InfiniteID(Adapting):
    """`Adapting` with the text off in training and two streams after it; see the module.

    ``network`` of its recipe: ``tokens`` and ``hidden`` of the face vector, by ``scale`` of which it is multiplied;
    ``patch_tokens``, ``width``, ``depth`` and ``heads`` of the image features.

    Attributes
    ----------
    mixing
        Whether the streams are mixed and aligned; otherwise both cross-attentions are added and no more.
    """

    name = "infinite-id"
    features = ("vector", "patches")
    options_kind = DecouplingOptions
    mixing = True

    @classmethod
    def build(
        cls,
        base: Base,
        sizes: Mapping[str, int],
        *,
        tokens: int = 4,
        hidden: int = 512,
        patch_tokens: int = 16,
        width: int = 192,
        depth: int = 2,
        heads: int = 4,
        scale: float = 16.0,
    ) -> nn.Module:
        """See `Adapting.build`."""
        unet = base.pipeline.unet
        mapper = FaceMapper(
            sizes["vector"], sizes["patches"], unet.config.cross_attention_dim, tokens=tokens,
            patch_tokens=patch_tokens, hidden=hidden, width=width, depth=depth, heads=heads,
        )  # fmt: skip
        adapter = Adapter.new(unet, mapper)
        adapter.scale = scale
        return adapter

    def condition(self, people: Sequence[Features], words: Words, strength: float) -> Conditions:
        """The second stream's cross-attention, which adds text and face."""
        return Conditions(words.text, [self._identity(people, strength, text=True, aligned=self.mixing)])

    def predict(self, batch: Batch, acting: Conditions | None = None) -> Tensor:
        """What the network says with the text off, unless other conditions are given."""
        if acting is not None:
            return super().predict(batch, acting)
        with attached(self.unet, self._identity(batch.people, 1.0, text=self.options.text, aligned=False)):
            return self.unet(batch.noisy, batch.steps, encoder_hidden_states=batch.words.text).sample

    def _identity(self, people: Sequence[Features], strength: float, *, text: bool, aligned: bool) -> _Identity:
        (person,) = people
        tokens = self.network.tokens(self.network.scale * person["vector"], person["patches"])
        return _Identity(self.network, tokens, strength, text=text, aligned=aligned)

    @property
    def paints(self) -> bool:
        """Only where nothing is mixed: there is no picture of the text alone within a mask."""
        return not self.mixing

    def fitted(self, people: Sequence[Features], photographs: Sequence[Sequence[str]]) -> Fitted:
        """With two streams."""
        return _TwoStreams(self, people, photographs)


class _TwoStreams(Fitted):
    """Makes each picture after one of the text alone, whose self-attention it sees."""

    def generate(self, prompt: str, n: int = 1, seed: int = 0, strength: float = 1.0) -> Iterator[Generated]:
        """See `ipse.personalize.contract.Personalized`."""
        method, unet = self.method, self.method.unet
        if not strength or not method.mixing:
            yield from super().generate(prompt, n, seed, strength)
            return
        method.base.check(n, seed, method.steps)
        text = marked(prompt)[0]
        for number in range(seed, seed + n):
            record = Record()
            with attached(unet, record), torch.no_grad():
                next(method.base.generate(text, 1, number, method.steps, method.guidance))
            with attached(unet, Mixed(record)):
                (picture,) = super().generate(prompt, 1, number, strength)
            yield picture
