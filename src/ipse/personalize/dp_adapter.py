"""DP-Adapter (Wang et al., 2025): one path for where the person is seen, one for where the text is, mixed by region.

What is sensitive to the photograph is the face; the rest of the picture is sensitive to the text. Two decoupled
adapters on the vector of a face encoder act each in its region and learn there: the Identity-Enhancing Adapter in the
face, the Textual-Consistency Adapter in the rest, which it also has to leave as the base would have it, which reads
nothing but the text. Fine-grained feature-level blending puts the features of the two together in every cross-attention
layer: m · visual + (1 − m) · textual, where m is how much of a pixel is face.

In training m is known. When a picture is made, each layer tells it by its own query: a linear map was trained beside
the adapters to find the face at that depth. So the picture needs no second pass, and no mask from outside.

The abstract was read, no formulas: the regions, the paths and their blending are its; how a region is found in making a
picture, the form of both adapters and the weights are our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ipse.catalogue import system
from ipse.diffusion import Base
from ipse.diffusion.adapters import Adapter, MlpProjection
from ipse.diffusion.attention import CROSS, Call, Handle, attend, fit_region, layers_of
from ipse.personalize.adapting import Adapting, Batch, Conditions, Options, Words
from ipse.personalize.references import Features


@dataclass(frozen=True)
class PathOptions(Options):
    """Options of training.

    Attributes
    ----------
    consistency
        Weight of the squared distance to the base's prediction outside of the face.
    region
        Weight of the error of finding the face.
    """

    consistency: float = 1.0
    region: float = 0.1


class PathNetwork(nn.Module):
    """The two adapters, and what finds the face in each layer.

    Parameters
    ----------
    unet
        What they are for.
    inputs
        Length of the vector.
    tokens, text_tokens
        Of the Identity-Enhancing and of the Textual-Consistency Adapter.
    hidden
        Of `MlpProjection`.
    """

    def __init__(self, unet: nn.Module, inputs: int, tokens: int, text_tokens: int, hidden: int) -> None:
        super().__init__()
        context = unet.config.cross_attention_dim
        self.visual, self.textual = (
            Adapter.new(unet, MlpProjection(inputs, context, count, hidden)) for count in (tokens, text_tokens)
        )
        self.region = nn.ModuleDict(
            {str(layer.index): nn.Linear(layer.width, 1) for layer in layers_of(unet) if layer.cross}
        )
        for finder in self.region.values():
            nn.init.zeros_(finder.weight)
            nn.init.zeros_(finder.bias)


class TwoPaths(Handle):
    """Blends the features of two adapters by region, in each cross-attention layer.

    Parameters
    ----------
    network
        See `PathNetwork`.
    visual, textual
        (B, n, C) tokens of the two adapters.
    strength
        Of both; 0 is off to the bit.
    face
        (B, H, W) of 0 to 1: where the face is; None has each layer find it.

    Attributes
    ----------
    found
        (B, Q) logits of the face, with height and width of the feature map, where gradients are on.
    """

    where = CROSS

    def __init__(
        self, network: PathNetwork, visual: Tensor, textual: Tensor, strength: float, face: Tensor | None = None
    ) -> None:
        self.network, self.tokens, self.strength, self.face = network, (visual, textual), strength, face
        self.found: list[tuple[Tensor, tuple[int, int]]] = []

    def wants(self, call: Call) -> bool:
        """Whether there is any strength."""
        return bool(self.strength)

    def output(self, call: Call, query: Tensor, out: Tensor) -> Tensor:
        """M · visual + (1 − m) · textual, each of them what was found in the text and in the path's tokens."""
        index = str(call.layer.index)
        logits = self.network.region[index](query.transpose(1, 2).flatten(2))[..., 0]
        if torch.is_grad_enabled():
            self.found.append((logits, call.grid))
        share = logits.sigmoid() if self.face is None else fit_region(self.face, call.grid).flatten(1)
        added = []
        for adapter, tokens in zip((self.network.visual, self.network.textual), self.tokens, strict=True):
            own, seen = adapter.layers[index], tokens.to(out).repeat_interleave(call.rows // len(tokens), 0)
            added.append(attend(query, own.to_k(seen), own.to_v(seen)))
        visual, textual = added
        share = share.to(out)[..., None]
        return out + self.strength * (share * visual + (1 - share) * textual)


def region_error(found: Sequence[tuple[Tensor, tuple[int, int]]], face: Tensor) -> Tensor:
    """Cross-entropy of the face that layers found; see `TwoPaths`. `face` is (B, H, W) of 0 to 1."""
    errors = [
        functional.binary_cross_entropy_with_logits(logits, fit_region(face, grid).flatten(1)) for logits, grid in found
    ]
    return torch.stack(errors).mean()


@system(
    name="DP-Adapter",
    paper=(
        "DP-Adapter: Dual-Pathway Adapter for Boosting Fidelity and Text Consistency in Customizable Human Image "
        "Generation"
    ),
    year=2025,
    arxiv="2502.13999",
    room="personalize",
    claim="High fidelity of the identity and consistency with the text together, by two paths blended by region.",
    evidence=("personalize.dp-adapter.*",),
    works_means=(
        "against one adapter at all strengths, a point above its curve of similarity and prompt accuracy; features "
        "outside of the face are nearer to the base's."
    ),
    status="experimental",
)
class DPAdapter(Adapting):
    """`Adapting` by two adapters, each in its region; see the module.

    ``network`` of its recipe: ``tokens`` and ``text_tokens`` of the two adapters, ``hidden`` (width of their hidden
    layers), and ``scale``, by which vectors of length 1 are multiplied.
    """

    name = "dp-adapter"
    features = ("vector",)
    regions = ("face",)
    options_kind = PathOptions

    @classmethod
    def build(
        cls,
        base: Base,
        sizes: Mapping[str, int],
        *,
        tokens: int = 8,
        text_tokens: int = 2,
        hidden: int = 512,
        scale: float = 16.0,
    ) -> nn.Module:
        """See `Adapting.build`."""
        network = PathNetwork(base.pipeline.unet, sizes["vector"], tokens, text_tokens, hidden)
        network.scale = scale
        return network

    def condition(self, people: Sequence[Features], words: Words, strength: float) -> Conditions:
        """Both paths, blended by the face that the layers find."""
        return Conditions(words.text, [self.paths(people, strength)])

    def paths(self, people: Sequence[Features], strength: float, face: Tensor | None = None) -> TwoPaths:
        """Both paths for a person; see `TwoPaths`."""
        (person,) = people
        vector = self.network.scale * person["vector"]
        visual, textual = (adapter.tokens(vector) for adapter in (self.network.visual, self.network.textual))
        return TwoPaths(self.network, visual, textual, strength, face)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The error of the prediction, its distance to the base's outside of the face, and that of the region."""
        face = batch.own["face"]
        paths = self.paths(batch.people, 1.0, face)
        predicted = self.predict(batch, Conditions(batch.words.text, [paths]))
        loss, told = self.error(predicted, batch)
        with torch.no_grad():
            plain = self.predict(batch, Conditions(batch.words.text))
        outside = 1 - fit_region(face, predicted.shape[-2:])
        apart = (outside[:, None] * (predicted - plain).square()).mean()
        region = region_error(paths.found, face)
        options = self.options
        total = loss + options.consistency * apart + options.region * region
        return total, told | {"outside": apart, "region": region}
