"""The joint encoder: pictures and captions into one space, by CLIP's objective (Radford et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel

from ipse.diffusion.components import make_joint, make_tokenizer, squared
from ipse.diffusion.training.data import Corpus, drawn_captions, up_to_end
from ipse.diffusion.training.loop import Feed, Stage, pictures_of
from ipse.diffusion.training.recipe import StageRecipe, options_of
from ipse.training.samplers import IdentitySampler

# CLIP's: a logarithm of the scale above this makes training unstable.
_HOTTEST = float(np.log(100))
_JUDGED = 512


@dataclass(frozen=True)
class JointOptions:
    """How batches are made.

    Attributes
    ----------
    each
        Pictures of a person in a batch. They differ in what a caption tells of the day and of the moment only, so that
        the encoder cannot tell captions apart by age, gender and skin alone.
    full
        How often the caption with every fact is taken rather than one of the others, which may be true of several
        pictures of a batch.
    shift
        Pictures are shifted by up to so many pixels.
    """

    each: int = 4
    full: float = 0.7
    shift: int = 4


class JointStage(Stage):
    """Train a `CLIPModel`."""

    name = "joint"

    def __init__(self, recipe: StageRecipe, corpus: Corpus, device: torch.device) -> None:
        super().__init__(recipe, corpus, device)
        self.options = options_of(JointOptions, recipe)
        self.network: CLIPModel = make_joint(**{"size": max(recipe.pixels)} | dict(recipe.network))
        people, each = recipe.batch // self.options.each, self.options.each
        self.sampler = IdentitySampler(self.corpus.person, people, each, seed=recipe.seed, alone="drop")
        self.pixels, self.tokens = Feed(corpus.pixels, device), Feed(corpus.tokens, device)
        self.end = make_tokenizer().eos_token_id

    def loss(self, rows: npt.NDArray[np.int64], draw: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of pictures among captions and of captions among pictures; see `Stage.loss`."""
        options, stored = self.options, self.corpus.rows[rows]
        which = torch.from_numpy(drawn_captions(len(rows), options.full, draw)).to(self.device)
        tokens = self.tokens(stored)[torch.arange(len(rows), device=self.device), which]
        pictures = functional.pad(pictures_of(self.pixels(stored)), (options.shift,) * 4, mode="replicate")
        y, x = draw.integers(0, 2 * options.shift + 1, 2)
        height, width = self.recipe.pixels
        pictures = pictures[..., y : y + height, x : x + width]
        images, texts = embed_images(self.network, pictures), embed_texts(self.network, tokens, self.end)
        with torch.no_grad():
            self.network.logit_scale.clamp_(max=_HOTTEST)
        logits = self.network.logit_scale.exp() * images @ texts.T
        target = torch.arange(len(rows), device=self.device)
        loss = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
        return loss, {"accuracy": (logits.argmax(1) == target).float().mean()}

    def figures(self, network: nn.Module) -> dict[str, float]:
        """``top1``: how often the right one is first among the captions of up to 512 pictures of other people."""
        rows = self.held_out.rows[:_JUDGED]
        images, texts = [], []
        for part in np.array_split(rows, max(1, len(rows) // 64)):
            images.append(embed_images(network, pictures_of(self.pixels(part))))
            texts.append(embed_texts(network, self.tokens(part)[:, 0], self.end))
        right = (torch.cat(images) @ torch.cat(texts).T).argmax(1).cpu().numpy() == np.arange(len(rows))
        return {"top1": float(right.mean())}

    def sheet(self, network: nn.Module) -> None:
        """There is nothing to see."""
        return None

    def finish(self, network: nn.Module, out: Path) -> None:
        """Write the folder ``weights`` of a `CLIPModel`."""
        network.save_pretrained(out / "weights")


def embed_images(network: CLIPModel, pictures: Tensor) -> Tensor:
    """(n, 3, H, W) of -1 to 1 as (n, dim) of length 1."""
    seen = squared(pictures, network.config.vision_config.image_size)
    pooled = network.vision_model(pixel_values=seen).pooler_output
    return functional.normalize(network.visual_projection(pooled), dim=-1)


def embed_texts(network: CLIPModel, tokens: Tensor, end: int) -> Tensor:
    """(n, 77) tokens, filled up with the token `end`, as (n, dim) of length 1."""
    pooled = network.text_model(input_ids=up_to_end(tokens, end)).pooler_output
    return functional.normalize(network.text_projection(pooled), dim=-1)
