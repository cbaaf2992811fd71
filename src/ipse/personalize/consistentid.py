"""ConsistentID (Huang et al., 2024): parts of the face are words of the prompt, and each word looks at its part.

A face vector and the features of the photograph make tokens that cross-attention sees beside the text, as in
IP-Adapter-FaceID-plus. Words for the parts of the face (face, eyes, nose, mouth, ears) are put behind the prompt, and
what an image encoder says of each part of the photograph is fused into the word for it. In training a loss binds the
attention to each of these words to the place of its part: the mean of its map, scaled to a largest value of 1, outside
of the part less the mean inside (0.01 times, as the project's code has it).

What it says of a part is the mean of its patches there, of one look at the whole portrait. Published weights take a
look at each part by itself, all else black.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ipse.catalogue import system
from ipse.diffusion import Base, layouts
from ipse.diffusion.adapters import Adapter, FaceResampler, FacialFusion, Resampler
from ipse.diffusion.attention import CROSS, Capture, fit_region
from ipse.errors import IpseError
from ipse.personalize.adapting import Adapting, Batch, Conditions, Options, Words
from ipse.personalize.references import REGIONS, Features


@dataclass(frozen=True)
class ConsistentIDOptions(Options):
    """How ConsistentID is trained.

    Attributes
    ----------
    localize
        Weight of the loss on where the words for parts look.
    """

    localize: float = 0.01


@system(
    name="ConsistentID",
    paper="ConsistentID: Portrait Generation with Multimodal Fine-Grained Identity Preserving",
    year=2024,
    arxiv="2404.16771",
    room="personalize",
    claim="Words for the parts of a face, fused with what each part looks like and bound to its place, keep details.",
    evidence=("personalize.consistentid.*",),
    works_means=(
        "against an adapter on one vector of the face, parts of the face are nearer to the person's, and so is the "
        "whole; without the loss on attention more of it falls outside of the parts, and parts are less near."
    ),
    status="experimental",
)
class ConsistentID(Adapting):
    """`Adapting` by face tokens and words for the parts of the face; see the module.

    ``network`` of its recipe: ``tokens``, ``hidden``, ``depth`` and ``heads`` of the face tokens, ``width`` of the
    resampler of parts, ``rank`` of the low-rank change of all attention.
    """

    name = "consistentid"
    features = ("vector", "patches", "regions")
    regions = ("masks",)
    options_kind = ConsistentIDOptions

    @classmethod
    def build(
        cls,
        base: Base,
        sizes: Mapping[str, int],
        *,
        tokens: int = 4,
        hidden: int = 512,
        depth: int = 1,
        heads: int = 4,
        width: int = 192,
        rank: int = 8,
    ) -> nn.Module:
        """See `Adapting.build`."""
        unet = base.pipeline.unet
        context = unet.config.cross_attention_dim
        face = FaceResampler(
            sizes["vector"], sizes["patches"], context, tokens, hidden, depth, heads, shortcut=False
        )  # fmt: skip
        adapter = Adapter.new(unet, face, rank=rank)
        adapter.fusion = FacialFusion(Resampler(sizes["regions"], width, context, 1, depth, heads), context)
        return adapter

    def published(self, path: Path) -> nn.Module:
        """ConsistentID for Stable Diffusion 1.5; the base needs the image encoder that it was trained with."""
        adapter = layouts.load(path, self.unet, layout="consistentid")
        self.features = ("vector", "patches", "region_patches")
        return adapter

    def condition(self, people: Sequence[Features], words: Words, strength: float) -> Conditions:
        """Face tokens beside the text, and the text with the words for the parts."""
        return self._conditions(people, words, strength)[0]

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The error of the prediction, and how far the words for parts look beside them."""
        acting, places, spoken = self._conditions(batch.people, batch.words, 1.0)
        if not self.options.localize:
            return self.error(self.predict(batch, acting), batch)
        capture = Capture(CROSS, heads=True)
        acting = replace(acting, handles=[*acting.handles, capture])
        error, parts = self.error(self.predict(batch, acting), batch)
        beside = self._beside(capture, places, spoken, batch.own["masks"])
        return error + self.options.localize * beside, parts | {"beside": beside}

    def _conditions(
        self, people: Sequence[Features], words: Words, strength: float
    ) -> tuple[Conditions, Tensor, Tensor]:
        """Conditions; and of each row (B, 5) where the words for parts stand, and which of them are spoken."""
        (person,) = people
        adapter = self.network
        tokens = adapter.tokens(person["vector"], person["patches"])
        handle = adapter.on(self.unet, tokens, strength=strength, lora=strength)
        text, places, spoken = self._spoken(person[self.features[-1]], words)
        return Conditions(torch.lerp(words.text, text, strength), [handle]), places, spoken

    def _spoken(self, regions: Tensor, words: Words) -> tuple[Tensor, Tensor, Tensor]:
        """Prompts with fused words for the parts that the photograph shows; others stay as they are."""
        if regions.ndim == 3:
            regions = regions[:, :, None]
        ids, places, room = self._with_parts(words.ids)
        (subject,) = words.subjects
        shown = regions.flatten(2).any(2)
        spoken = shown & (room & subject.any(1))[:, None]
        if not spoken.any():
            return words.text, places, spoken
        encoder = self.base.pipeline.text_encoder
        if encoder.config.hidden_size != words.text.shape[-1]:
            raise IpseError("ConsistentID needs a base with one text encoder.", "Use the world base or one of SD 1.5.")
        text = encoder(ids).last_hidden_state
        ends = torch.zeros_like(ids, dtype=torch.bool).scatter_(1, places, True)
        fused = self.network.fusion(text, ends, regions)
        told = torch.zeros_like(ends).scatter_(1, places, spoken)
        text = torch.where(told[:, :, None], fused, text)
        return torch.where(spoken.any(1)[:, None, None], text, words.text), places, spoken

    def _with_parts(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Prompts with the words for parts behind them, where the last tokens of these are, and which had room."""
        tokenizer = self.base.pipeline.tokenizer
        added, ends = [], []
        for word in REGIONS:
            added += tokenizer(f", {word}", add_special_tokens=False)["input_ids"]
            ends.append(len(added) - 1)
        limit, end = ids.shape[1], tokenizer.eos_token_id
        # The first token of the end; what comes after it is filling.
        length = (ids == end).int().argmax(1)
        room = length + len(added) < limit
        begin = torch.where(room, length, limit - 1 - len(added))
        where = begin[:, None] + torch.arange(len(added), device=ids.device)
        out = ids.scatter(1, where, torch.tensor(added, device=ids.device).expand(len(ids), -1))
        return torch.where(room[:, None], out, ids), where[:, ends], room

    @staticmethod
    def _beside(capture: Capture, places: Tensor, spoken: Tensor, masks: Tensor) -> Tensor:
        """Mean over layers, heads and parts of attention outside of a part less that inside."""
        counted = spoken & masks.flatten(2).any(2)
        if not counted.any():
            return masks.new_zeros(())
        total = []
        for (_, name), weights in capture.maps.items():
            rows, heads, pixels, _ = weights.shape
            index = places[:, None, None].expand(rows, heads, pixels, -1)
            maps = weights.gather(3, index)
            maps = maps / maps.amax(2, keepdim=True).clamp_min(1e-5)
            grid = capture.grid(name)
            inside = fit_region(masks, grid).flatten(2).transpose(1, 2)[:, None].to(maps)
            outside = 1 - inside
            mean_in = (maps * inside).sum(2) / inside.sum(2).clamp_min(1e-5)
            mean_out = (maps * outside).sum(2) / outside.sum(2).clamp_min(1e-5)
            total.append((mean_out - mean_in).mean(1)[counted].mean())
        return torch.stack(total).mean()
