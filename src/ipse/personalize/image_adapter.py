"""A plain decoupled adapter on the features of an image encoder: the other baseline.

The face, cut as a portrait, goes through the base's image encoder. Learned queries gather what its second last layer
says in a few tokens, which each cross-attention layer attends to beside the text (IP-Adapter "plus", Ye et al., 2023).
An image encoder tells clothes and light as well as who it is, so that more of the photograph is copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from ipse.catalogue import system
from ipse.diffusion import Base, layouts
from ipse.diffusion.adapters import Adapter, LinearProjection, Resampler
from ipse.personalize.adapting import Adapting, Conditions, Words
from ipse.personalize.references import Features


@system(
    name="IP-Adapter",
    paper="IP-Adapter: Text Compatible Image Prompt Adapter for Text-to-Image Diffusion Models",
    year=2023,
    arxiv="2308.06721",
    room="personalize",
    claim="Decoupled cross-attention lets a frozen base take a picture beside its text by a small adapter.",
    evidence=("personalize.image-adapter.*",),
    works_means="pictures are nearer to the reference than strangers are; the baseline for methods on face features.",
    status="experimental",
)
class ImageAdapter(Adapting):
    """`Adapting` on the features of the base's image encoder; see the module.

    ``network`` of its recipe: ``tokens``, and ``width``, ``depth`` and ``heads`` of the resampler.
    """

    name = "image-adapter"
    features = ("patches",)

    @classmethod
    def build(
        cls, base: Base, sizes: Mapping[str, int], *, tokens: int = 16, width: int = 192, depth: int = 2, heads: int = 4
    ) -> nn.Module:
        """See `Adapting.build`."""
        unet = base.pipeline.unet
        context = unet.config.cross_attention_dim
        return Adapter.new(unet, Resampler(sizes["patches"], width, context, tokens, depth, heads))

    def published(self, path: Path) -> nn.Module:
        """IP-Adapter or IP-Adapter plus for Stable Diffusion 1.5 or SDXL; the base needs their image encoder."""
        adapter = layouts.load(path, self.unet)
        if not isinstance(adapter, Adapter) or not isinstance(adapter.projection, LinearProjection | Resampler):
            return super().published(path)
        if isinstance(adapter.projection, LinearProjection):
            self.features = ("pooled",)
        return adapter

    def condition(self, people: Sequence[Features], words: Words, strength: float) -> Conditions:
        """Tokens of the picture beside those of the text, in every cross-attention layer (equation 5 of the paper)."""
        (person,) = people
        tokens = self.network.tokens(person[self.features[0]])
        return Conditions(words.text, [self.network.on(self.unet, tokens, strength=strength)])
