"""The U-Net: what is under the noise of a latent, given its caption.

It predicts v (Salimans and Ho, 2022) at a step chosen by chance. The loss of a step is weighted by min(SNR + 1, γ) /
(SNR + 1): min-SNR (Hang et al., 2023) for v, with 1 added so that the last step, which has no signal, is learned too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextModel

from ipse._files import atomic_write
from ipse.diffusion.components import make_denoiser, make_scheduler, make_tokenizer
from ipse.diffusion.training.data import CAPTIONS, Corpus, shortened
from ipse.diffusion.training.loop import Feed, Stage, pictures_of
from ipse.diffusion.training.recipe import StageRecipe, options_of, size_of
from ipse.images import contact_sheet

_JUDGED, _SHEET, _BATCH = 256, 16, 32
_STEPS, _GUIDANCE = 20, 3.0


@dataclass(frozen=True)
class DenoiserOptions:
    """How noise and captions are chosen.

    Attributes
    ----------
    drop
        How often there is no caption, for classifier-free guidance (Ho and Salimans, 2022).
    full
        How often the caption with every fact is taken rather than one of the others.
    short
        How often a caption is cut off at a comma or full stop.
    gamma
        Highest SNR + 1 that counts in full; see the module.
    """

    drop: float = 0.1
    full: float = 0.5
    short: float = 0.2
    gamma: float = 5.0


class Captions:
    """Captions of pictures as training draws them.

    Parameters
    ----------
    corpus
        Pictures with captions.
    options
        How they are chosen.
    device
        Where to.
    """

    def __init__(self, corpus: Corpus, options: DenoiserOptions, device: torch.device) -> None:
        self.options, self.device, self.feed = options, device, Feed(corpus.tokens, device)
        tokenizer = make_tokenizer()
        self.breaks = tokenizer.convert_tokens_to_ids([",</w>", ".</w>"])
        self.nothing = np.array(tokenizer("", padding="max_length")["input_ids"])

    def full(self, stored: npt.NDArray[np.int64]) -> Tensor:
        """(n, 77) tokens of the captions with every fact of some rows of the folder."""
        return self.feed(stored)[:, 0]

    def __call__(self, stored: npt.NDArray[np.int64], draw: np.random.Generator) -> Tensor:
        """(n, 77) tokens of a caption by chance of some rows of the folder: one of several, cut off, or none."""
        options, count = self.options, len(stored)
        others = draw.integers(1, CAPTIONS, count)
        which = np.where(draw.random(count) < options.full, 0, others)
        tokens = self.feed(stored)[torch.arange(count), torch.from_numpy(which)].cpu().numpy()
        short = draw.random(count) < options.short
        tokens[short] = shortened(tokens[short], self.breaks, draw)
        tokens[draw.random(count) < options.drop] = self.nothing
        return torch.from_numpy(tokens).to(self.device)


def velocity_weight(share: Tensor, gamma: float) -> Tensor:
    """What the squared error of a velocity counts at levels of noise with some ``alphas_cumprod``; see the module."""
    # SNR + 1, for signal and noise have squares that sum to 1.
    snr = 1 / (1 - share)
    return snr.clamp(max=gamma) / snr


def spread_steps(count: int, steps: int) -> Tensor:
    """(count,) steps from first to last, always the same, of which neighbors in the data see early and late ones."""
    spread = torch.linspace(0, steps - 1, count).round().long()
    return spread[torch.from_numpy(np.random.default_rng(0).permutation(count))]


class DenoiserStage(Stage):
    """Train a `UNet2DConditionModel` on the latents of a finished autoencoder.

    Parameters
    ----------
    recipe, corpus, device
        As in `Stage`.
    vae, text
        Finished.
    """

    name = "denoiser"

    def __init__(
        self, recipe: StageRecipe, corpus: Corpus, device: torch.device, vae: AutoencoderKL, text: CLIPTextModel
    ) -> None:
        super().__init__(recipe, corpus, device)
        self.options = options_of(DenoiserOptions, recipe)
        self.vae, self.text = (part.to(device).eval().requires_grad_(False) for part in (vae, text))
        scale = 2 ** (len(vae.config.block_out_channels) - 1)
        sides = size_of(*(side // scale for side in recipe.pixels))
        fitting = {"size": sides, "context": text.config.hidden_size}
        self.network: UNet2DConditionModel = make_denoiser(**fitting | dict(recipe.network))
        self.latents = Feed(latents_of(corpus, self.vae, device), device)
        self.captions = Captions(corpus, self.options, device)
        self.scheduler = make_scheduler()
        self.share = self.scheduler.alphas_cumprod.to(device)

    def loss(self, rows: npt.NDArray[np.int64], draw: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """See the module and `Stage.loss`."""
        stored = self.corpus.rows[rows]
        tokens = self.captions(stored, draw)
        steps = torch.from_numpy(draw.integers(0, len(self.share), len(rows))).to(self.device)
        return self._loss(self.network, self.latents(stored).float(), tokens, steps)

    def _loss(
        self, network: nn.Module, latents: Tensor, tokens: Tensor, steps: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            context = self.text(input_ids=tokens.long()).last_hidden_state
        noise = torch.randn_like(latents)
        noisy = self.scheduler.add_noise(latents, noise, steps)
        velocity = self.scheduler.get_velocity(latents, noise, steps)
        predicted = network(noisy, steps, encoder_hidden_states=context).sample
        plain = (predicted.float() - velocity).square().mean((1, 2, 3))
        return (plain * velocity_weight(self.share[steps], self.options.gamma)).mean(), {"mse": plain.mean()}

    def figures(self, network: nn.Module) -> dict[str, float]:
        """``loss``: of up to 256 pictures of other people with their full captions, steps evenly spread."""
        rows = self.held_out.rows[:_JUDGED]
        steps = spread_steps(len(rows), len(self.share)).to(self.device)
        total = 0.0
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            tokens = self.captions.full(part)
            loss, _ = self._loss(network, self.latents(part).float(), tokens, steps[start : start + _BATCH])
            total += float(loss) * len(part)
        return {"loss": total / len(rows)}

    def sheet(self, network: nn.Module) -> Image.Image:
        """Pictures by captions of other people, always of the same noise."""
        rows = np.linspace(0, len(self.held_out) - 1, min(_SHEET, len(self.held_out))).astype(int)
        captions = self.held_out.captions(rows)
        pipeline = make_pipeline(self.vae, self.text, network)
        pipeline.set_progress_bar_config(disable=True)
        generators = [torch.Generator().manual_seed(i) for i in range(len(captions))]
        images = pipeline(captions, num_inference_steps=_STEPS, guidance_scale=_GUIDANCE, generator=generators).images
        return contact_sheet([np.asarray(image) for image in images], 8, gap=2)

    def finish(self, network: nn.Module, out: Path) -> None:
        """Write the folder ``weights`` of a `UNet2DConditionModel`."""
        network.to(memory_format=torch.contiguous_format).save_pretrained(out / "weights")


def make_pipeline(
    vae: AutoencoderKL, text: CLIPTextModel, unet: UNet2DConditionModel, **more: nn.Module
) -> StableDiffusionPipeline:
    """A plain pipeline of the parts; `more` may hold an `image_encoder`."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=make_tokenizer(),
        unet=unet,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **more,
    )


@torch.no_grad()
def latents_of(
    corpus: Corpus,
    vae: AutoencoderKL,
    device: torch.device,
    on_encode: Callable[[int, int], None] = lambda done, total: None,
) -> npt.NDArray[np.float16]:
    """Latents of all pictures of a corpus's folder (M, 4, h, w), encoded once and mapped into memory.

    Parameters
    ----------
    corpus
        Pictures.
    vae
        Finished, on the device.
    device
        Where it runs.
    on_encode
        Called with the pictures encoded and their number, where they are not there yet.
    """
    digest = hashlib.sha256(corpus.fingerprint.encode())
    # Whatever decodes them, latents are the encoder's.
    for name, value in [*vae.encoder.state_dict().items(), *vae.quant_conv.state_dict().items()]:
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    path = corpus.folder / f"latents-{digest.hexdigest()[:24]}.npy"
    if not path.exists():
        feed, count, parts = Feed(corpus.pixels, device), len(corpus.pixels), []
        for start in range(0, count, _BATCH):
            rows = np.arange(start, min(start + _BATCH, count))
            parts.append(vae.encode(pictures_of(feed(rows))).latent_dist.mode().cpu())
            on_encode(int(rows[-1]) + 1, count)
        with atomic_write(path) as file:
            np.save(file, torch.cat(parts).numpy().astype(np.float16) * np.float16(vae.config.scaling_factor))
    return np.load(path, mmap_mode="r")
