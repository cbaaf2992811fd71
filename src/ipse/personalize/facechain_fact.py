"""FaceChain-FACT (Yu et al., 2024): who somebody is, learned apart from all else that a picture shows.

Three things keep them apart. What is shown of a person are the places of a face encoder's last feature map, fine and of
nobody's pose or light in particular, for the encoder was trained to tell people apart. The adapter comes before each
cross-attention layer: pixels look at each other and at the places of the face, and what they gain, times a gate that is
closed at first, is added to them. And two rules of training: what is added outside of the face is to be zero (Face
Adapting Increment Regularization, FAIR), so that the base decides there; and the face is dropped, and shuffled with
others of the same person, more and more often as training goes on.

Structure and gates are those of the project's published code (facechain_adapter); the two rules are from the abstract,
so that their weights and pace are our own. The gates open `_GAIN` times as fast, for our trainings are so short that
they would hardly leave zero; they begin there all the same. There, the adapter stands before the norm of the
cross-attention, and here behind it, where handles are; a norm of its own follows either way. The encoder is ours, whose
feature map stands for the tokens of a transformer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from ipse.catalogue import system
from ipse.diffusion import Base
from ipse.diffusion.attention import CROSS, Call, Handle, Layer, Part, attend, fit_region, layers_of, split_heads
from ipse.errors import IpseError
from ipse.personalize.adapting import Adapting, Batch, Conditions, Options, Words
from ipse.personalize.references import Features

# An optimizer's step is about its rate, whatever the gradient: without this the sum of all rates bounds the gates.
_GAIN = 10.0


@dataclass(frozen=True)
class FactOptions(Options):
    """As `Options`, which hold for the end of training.

    Attributes
    ----------
    fair
        Weight of the mean square of what is added outside of the face.
    curriculum
        Share of the training after which faces are dropped and shuffled as often as `drop_person` and `same` say; at
        its beginning every reference is the picture itself, and none is dropped for it alone.
    """

    fair: float = 1.0
    curriculum: float = 0.5


class GatedLayer(nn.Module):
    """Gated self-attention of pixels and the places of a face, and a gated feed-forward part.

    Parameters
    ----------
    layer
        The cross-attention layer that it stands before.
    heads
        Of that layer.
    """

    def __init__(self, layer: Layer, heads: int) -> None:
        super().__init__()
        width = layer.width
        self.heads = heads
        self.linear = nn.Linear(layer.context, width)
        self.norm_attend, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.to_out = nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 8 * width), nn.Linear(4 * width, width)
        self.alpha_attend, self.alpha_feed = (nn.Parameter(torch.zeros(())) for _ in range(2))

    def forward(self, pixels: Tensor, face: Tensor, strength: float) -> Tensor:
        """What pixels (B, Q, width) gain from the places of a face (B, m, context): (B, Q, width)."""
        both = self.norm_attend(torch.cat([pixels, self.linear(face)], 1))
        query = split_heads(self.to_q(both[:, : pixels.shape[1]]), self.heads)
        seen = self.to_out(attend(query, self.to_k(both), self.to_v(both)))
        gain = strength * (_GAIN * self.alpha_attend).tanh() * seen
        wide, gate = self.widen(self.norm_feed(pixels + gain)).chunk(2, -1)
        return gain + strength * (_GAIN * self.alpha_feed).tanh() * self.narrow(wide * functional.gelu(gate))


class FactNetwork(nn.Module):
    """Tokens of the places of a face, and a `GatedLayer` for each cross-attention layer.

    Parameters
    ----------
    unet
        What it is for.
    inputs, places
        Channels of the places, and how many a photograph has.
    """

    def __init__(self, unet: nn.Module, inputs: int, places: int) -> None:
        super().__init__()
        context = unet.config.cross_attention_dim
        self.linear, self.norm = nn.Linear(inputs, context), nn.LayerNorm(context)
        self.position = nn.Parameter(0.02 * torch.randn(places, context))
        self.layers = nn.ModuleDict(
            {
                str(layer.index): GatedLayer(layer, unet.get_submodule(layer.name).heads)
                for layer in layers_of(unet)
                if layer.cross
            }
        )

    def tokens(self, local: Tensor) -> Tensor:
        """(B, m, inputs) places of one or more photographs as (B, m, context)."""
        photographs, rest = divmod(local.shape[1], len(self.position))
        if rest:
            raise IpseError(
                f"A face has {local.shape[1]} places here, and the adapter was trained on {len(self.position)}.",
                "Set `places` in the recipe's network to those of the encoder.",
            )
        return self.norm(self.linear(local)) + self.position.repeat(photographs, 1)


class Gated(Handle):
    """Adds what pixels gain from the face before each cross-attention layer looks at the text.

    Parameters
    ----------
    network, unet
        What gains, and what it is attached to.
    tokens
        (B, m, C) of `FactNetwork.tokens`.
    strength
        Of both gates; 0 is off to the bit.

    Attributes
    ----------
    gains
        What was added, with height and width of its feature map, where gradients are on: FAIR makes it small.
    """

    where = CROSS

    def __init__(self, network: FactNetwork, unet: nn.Module, tokens: Tensor, strength: float) -> None:
        self.network, self.unet, self.tokens, self.strength = network, unet, tokens, strength
        self.gains: list[tuple[Tensor, tuple[int, int]]] = []
        self._gain = tokens

    def wants(self, call: Call) -> bool:
        """Whether there is any strength."""
        return bool(self.strength)

    def project(self, call: Call, part: Part, states: Tensor, out: Tensor) -> Tensor:
        """The query is of pixels with what they gain, and so is what the layer is added to."""
        if part == "q":
            tokens = self.tokens.to(states).repeat_interleave(call.rows // len(self.tokens), 0)
            self._gain = self.network.layers[str(call.layer.index)](states, tokens, self.strength)
            if torch.is_grad_enabled():
                self.gains.append((self._gain, call.grid))
            return out + functional.linear(self._gain, self.unet.get_submodule(call.layer.name).to_q.weight)
        return out + self._gain if part == "out" else out


def fair(gains: Sequence[tuple[Tensor, tuple[int, int]]], face: Tensor) -> Tensor:
    """Face Adapting Increment Regularization: the mean square of what is added outside of the face.

    Parameters
    ----------
    gains
        See `Gated`.
    face
        (B, H, W) of 0 to 1: where it is.
    """
    outside = [(gain, 1 - fit_region(face, grid).flatten(1)) for gain, grid in gains]
    return torch.stack([(share * gain.square().mean(-1)).mean() for gain, share in outside]).mean()


@system(
    name="FaceChain-FACT",
    paper="FaceChain-FACT: Face Adapter with Decoupled Training for Identity-preserved Personalization",
    year=2024,
    arxiv="2410.12312",
    room="personalize",
    claim=(
        "Controllability and fidelity in text-to-image generation and inpainting, with little effect on what the base "
        "can do."
    ),
    evidence=("personalize.facechain-fact.*",),
    works_means=(
        "with FAIR the adapter changes less outside of the face than without, the scene's words are met as by the base "
        "within a tolerance, and similarity is not lower; shuffled references of one person give more different poses; "
        "inpainting works."
    ),
    status="experimental",
)
class FaceChainFact(Adapting):
    """`Adapting` by gated self-attention on the places of a face; see the module.

    ``network`` of its recipe: ``places``, how many the encoder sees in a face.
    """

    name = "facechain-fact"
    features = ("local",)
    regions = ("face",)
    options_kind = FactOptions

    @classmethod
    def build(cls, base: Base, sizes: Mapping[str, int], *, places: int = 16) -> nn.Module:
        """See `Adapting.build`."""
        return FactNetwork(base.pipeline.unet, sizes["local"], places)

    def condition(self, people: Sequence[Features], words: Words, strength: float) -> Conditions:
        """Gated layers that look at the places of the face; the text is as it was."""
        (person,) = people
        return Conditions(words.text, [Gated(self.network, self.unet, self.network.tokens(person["local"]), strength)])

    def options_at(self, progress: float) -> FactOptions:
        """Drop and shuffle more and more often."""
        options = self.options
        share = min(1.0, progress / options.curriculum) if options.curriculum else 1.0
        return replace(options, same=1 - share * (1 - options.same), drop_person=share * options.drop_person)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The error of the prediction, and FAIR."""
        acting = self.condition(batch.people, batch.words, 1.0)
        loss, told = self.error(self.predict(batch, acting), batch)
        (gated,) = acting.handles
        outside = fair(gated.gains, batch.own["face"])
        return loss + self.options.fair * outside, told | {"outside": outside}
