"""A plain decoupled adapter on the vector of a face encoder: a baseline that others are measured against.

The vector becomes a few tokens, by a hidden layer and a norm; each cross-attention layer of the base attends to them
by keys and values of their own, and adds what it finds to what it finds in the text (IP-Adapter, Ye et al., 2023, whose
FaceID variant takes the vector of a face). Nothing else is trained, and the base stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from ipse.catalogue import system
from ipse.diffusion import Base, layouts
from ipse.diffusion.adapters import Adapter, MlpProjection
from ipse.personalize.adapting import Adapting, Conditions, Words
from ipse.personalize.references import Features


@system(
    name="IP-Adapter on faces",
    paper="IP-Adapter: Text Compatible Image Prompt Adapter for Text-to-Image Diffusion Models",
    year=2023,
    arxiv="2308.06721",
    room="personalize",
    claim="Decoupled cross-attention lets a frozen base take an identity beside its text by a small adapter.",
    evidence=("personalize.face-adapter.*",),
    works_means="rank-1 of the true person far above chance at a small cost of the prompt; the baseline of the room.",
    status="experimental",
)
class FaceAdapter(Adapting):
    """`Adapting` on the face vector; see the module.

    ``network`` of its recipe: ``tokens``, ``hidden`` (width of the projection's hidden layer), and ``scale``, by which
    vectors of length 1 are multiplied.
    """

    name = "face-adapter"
    features = ("vector",)

    @classmethod
    def build(
        cls, base: Base, sizes: Mapping[str, int], *, tokens: int = 4, hidden: int = 512, scale: float = 16.0
    ) -> nn.Module:
        """See `Adapting.build`."""
        unet = base.pipeline.unet
        projection = MlpProjection(sizes["vector"], unet.config.cross_attention_dim, tokens, hidden)
        adapter = Adapter.new(unet, projection)
        adapter.scale = scale
        return adapter

    def published(self, path: Path) -> nn.Module:
        """IP-Adapter-FaceID for Stable Diffusion 1.5 or SDXL, whose low-rank changes go along."""
        adapter = layouts.load(path, self.unet, layout="ip-adapter-faceid")
        adapter.scale = 1.0
        return adapter

    def condition(self, people: Sequence[Features], words: Words, strength: float) -> Conditions:
        """Tokens of the person beside those of the text, in every cross-attention layer (equation 5 of the paper)."""
        (person,) = people
        tokens = self.network.tokens(self.network.scale * person["vector"])
        return Conditions(words.text, [self.network.on(self.unet, tokens, strength=strength, lora=strength)])
