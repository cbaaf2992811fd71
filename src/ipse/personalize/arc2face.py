"""Arc2Face (Papantoniou et al., 2024): a face vector, and nothing else, says what a picture shows.

The vector, filled up with zeros, takes the place of the word "id" in "photo of a id person", and the text encoder and
the U-Net are trained on, on faces of many people, until that is all they need. There is no prompt. A vector that is
longer than the embedding of a token takes the place of several.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from ipse.catalogue import system
from ipse.diffusion import Base, layouts
from ipse.diffusion.adapters import face_prompt
from ipse.errors import IpseError
from ipse.personalize.adapting import Adapting, Conditions, Words
from ipse.personalize.references import Features


@system(
    name="Arc2Face",
    paper="Arc2Face: A Foundation Model of Human Faces",
    year=2024,
    arxiv="2403.11641",
    room="personalize",
    claim="Conditioned on a face vector alone, a fine-tuned base makes faces nearer to the person than adapters do.",
    evidence=("personalize.arc2face.*",),
    works_means=(
        "from the vector alone, nearer to the person than an adapter that mixes text and identity, in other poses and "
        "places; and a face encoder trained on its pictures is better than one trained on pictures of nobody."
    ),
    status="experimental",
)
class Arc2Face(Adapting):
    """`Adapting` that trains a copy of the base; see the module. Its strength is 0, which is the base, or 1."""

    name = "arc2face"
    features = ("vector",)
    prompted = False
    strengths = (1.0,)

    @classmethod
    def build(cls, base: Base, sizes: Mapping[str, int]) -> nn.Module:
        """See `Adapting.build`."""
        pipeline = base.pipeline
        copies = {"unet": copy.deepcopy(pipeline.unet), "text": copy.deepcopy(pipeline.text_encoder)}
        return nn.ModuleDict(copies).requires_grad_(True)

    def published(self, path: Path) -> nn.Module:
        """The folder of the project: ``arc2face`` with the U-Net and ``encoder`` with the text encoder, for SD 1.5."""
        unet = path / "arc2face" / "diffusion_pytorch_model.safetensors"
        text = path / "encoder" / "pytorch_model.bin"
        return nn.ModuleDict(
            {
                "unet": layouts.load(unet, self.base.pipeline.unet, layout="arc2face-unet"),
                "text": layouts.load(text, layout="arc2face-encoder"),
            }
        )

    @property
    def drawing(self) -> Base:
        """The base with the trained U-Net and text encoder in place of its own."""
        pipeline = self.base.pipeline
        parts = pipeline.components | {"unet": self.network["unet"], "text_encoder": self.network["text"]}
        own = type(pipeline)(**parts, requires_safety_checker=parts.get("safety_checker") is not None)
        own.set_progress_bar_config(disable=True)
        return replace(self.base, pipeline=own)

    @property
    def unet(self) -> nn.Module:
        """The trained U-Net."""
        return self.network["unet"]

    def condition(self, people: Sequence[Features], words: Words, strength: float) -> Conditions:
        """The face as a prompt; the empty prompt for nobody."""
        if strength not in (0, 1):
            raise IpseError(f"Arc2Face shows the face alone, or not at all: not by {strength}.", "Use strength 1.")
        (person,) = people
        encoder, tokenizer = self.network["text"], self.base.pipeline.tokenizer
        faces = face_prompt(encoder, tokenizer, person["vector"])
        ids = tokenizer("", padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt").input_ids
        nothing = encoder(ids.to(faces.device)).last_hidden_state
        known = person["vector"].any(1)[:, None, None]
        return Conditions(known * faces + ~known * nothing)
