"""PhotoVerse (Chen et al., 2023): a person as a word of the prompt and as tokens beside it, and a loss on identity.

The text branch makes a pseudo-word of what an image encoder says of the photograph, in the place of the word for the
person; the image branch makes tokens that cross-attention sees beside the text, here by a resampler. Keys and values
of the text are changed by low-rank maps. In training, the two branches are mixed at random: with equal chances text
counts twice, or image tokens do, or both once. The picture that a prediction stands for is decoded where there is
little noise, and its face is to be the person's by the vector of a face encoder: `Adapting.unlike`, by ``likeness`` of
its recipe's options.

Formulas are from the abstract and from reports on the paper, not checked in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ipse.catalogue import system
from ipse.diffusion import Base
from ipse.diffusion.adapters import Adapter, Resampler, word_vectors
from ipse.diffusion.attention import CROSS, Call, Handle
from ipse.errors import IpseError
from ipse.personalize.adapting import Adapting, Batch, Conditions, Words
from ipse.personalize.references import Features

_FUSIONS = ((2.0, 0.0), (0.0, 2.0), (1.0, 1.0))


class Share(Handle):
    """What cross-attention finds in the text, times a factor; before what others add to it."""

    where = CROSS

    def __init__(self, share: float) -> None:
        self.share = share

    def wants(self, call: Call) -> bool:
        """Where it is not 1."""
        return self.share != 1.0

    def output(self, call: Call, query: Tensor, out: Tensor) -> Tensor:
        """Scaled."""
        return self.share * out


@system(
    name="PhotoVerse",
    paper="PhotoVerse: Tuning-Free Image Customization with Text-to-Image Diffusion Models",
    year=2023,
    arxiv="2309.05793",
    room="personalize",
    claim="One photograph and no tuning: a pseudo-word and image tokens together, trained with a loss on identity.",
    evidence=("personalize.photoverse.*",),
    works_means=(
        "both branches together are ahead of each alone in identity and prompt; the loss on identity raises the "
        "similarity to held-out pictures; nothing is optimized for a person."
    ),
    status="experimental",
)
class PhotoVerse(Adapting):
    """`Adapting` by a pseudo-word and image tokens; see the module.

    ``network`` of its recipe: ``tokens``, ``width``, ``depth`` and ``heads`` of the image branch, ``hidden`` of the
    text branch, ``rank`` of the change of keys and values.

    Attributes
    ----------
    text_share, image_share
        How much of the strength the branches get: 0 takes one of them out.
    """

    name = "photoverse"
    features = ("pooled", "patches")
    text_share = 1.0
    image_share = 1.0

    @classmethod
    def build(
        cls,
        base: Base,
        sizes: Mapping[str, int],
        *,
        tokens: int = 8,
        width: int = 192,
        depth: int = 2,
        heads: int = 4,
        hidden: int = 512,
        rank: int = 8,
    ) -> nn.Module:
        """See `Adapting.build`."""
        unet, words = base.pipeline.unet, base.pipeline.text_encoder.config.hidden_size
        if words != unet.config.cross_attention_dim:
            raise IpseError("PhotoVerse needs a base with one text encoder.", "Use the world base or one of SD 1.5.")
        image = Resampler(sizes["patches"], width, words, tokens, depth, heads)
        text = nn.Sequential(
            nn.LayerNorm(sizes["pooled"]), nn.Linear(sizes["pooled"], hidden), nn.GELU(), nn.Linear(hidden, words)
        )
        return nn.ModuleDict({"image": Adapter.new(unet, image, rank=rank, low_rank="text"), "text": text})

    def condition(self, people: Sequence[Features], words: Words, strength: float) -> Conditions:
        """Both branches as they are."""
        return self._fused(people, words, strength, (1.0, 1.0))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The error of the prediction by a random mixture of the branches, and how unlike the person its face is."""
        fusion = _FUSIONS[int(torch.randint(len(_FUSIONS), ()))]
        return self.error(self.predict(batch, self._fused(batch.people, batch.words, 1.0, fusion)), batch)

    def _fused(
        self, people: Sequence[Features], words: Words, strength: float, fusion: tuple[float, float]
    ) -> Conditions:
        (person,) = people
        text, image = fusion
        adapter = self.network["image"]
        tokens = adapter.tokens(person["patches"])
        share = image * self.image_share * strength
        handle = adapter.on(self.unet, tokens, strength=share, lora=strength)
        spoken = self._spoken(person, words, self.text_share * strength)
        return Conditions(spoken, [Share(text), handle])

    def _spoken(self, person: Features, words: Words, share: float) -> Tensor:
        """The prompts with the pseudo-word in the place of the last token for the person."""
        (subject,) = words.subjects
        last = subject & ~subject.roll(-1, 1) & person["pooled"].any(1)[:, None]
        if not share or not last.any():
            return words.text
        encoder = self.base.pipeline.text_encoder
        plain = encoder.get_input_embeddings()(words.ids[last])
        pseudo = self.network["text"](person["pooled"][last.any(1)])
        with word_vectors(encoder, torch.lerp(plain, pseudo.to(plain), share), last):
            return encoder(words.ids).last_hidden_state
