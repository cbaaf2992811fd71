"""The decoder, made sharp: what a latent leaves open is drawn as pictures have it, and not as their mean.

As the first stage of latent diffusion (Rombach et al., 2022, appendix G) after VQGAN (Esser et al., 2021): to the loss
of the autoencoder come the distance in the features of a network (LPIPS, Zhang et al., 2018; here the face encoder that
comes with ipse, unit features of its stages) and a discriminator of patches (Isola et al., 2017) with a hinge loss,
weighted by what both losses ask of the last layer. The encoder stays as it is, so latents stay, and denoisers that were
trained on them. Latents get a little noise, for what a denoiser makes is not quite what an encoder makes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from ipse.diffusion.training.data import Corpus
from ipse.diffusion.training.denoiser import latents_of
from ipse.diffusion.training.loop import Feed, Stage, pictures_of
from ipse.diffusion.training.recipe import StageRecipe, options_of
from ipse.diffusion.training.vae import PartWeights, Perceptual, beside, gradient_difference, psnr_each

_JUDGED, _SHEET, _BATCH = 128, 16, 16
# So that no step is the discriminator's alone.
_MOST = 100.0


@dataclass(frozen=True)
class DecoderOptions:
    """What the loss is made of, and what is shown.

    Attributes
    ----------
    crop
        Side of the square crops that most steps see, in pixels.
    whole
        Share of the steps that see whole pictures.
    gradient
        Weight of the differences of neighbors.
    perceptual
        Weight of the distance in the features of the face encoder.
    adversarial
        Weight of the discriminator's loss, of what makes its gradient at the last layer as large as the others'.
    begin
        Share of the steps after which the discriminator counts; it learns from the first.
    noise
        Highest standard deviation of the noise that latents get.
    features
        How many times as much eyes, brows and mouths count in the pixels.
    """

    crop: int = 64
    whole: float = 0.2
    gradient: float = 1.0
    perceptual: float = 1.0
    adversarial: float = 0.3
    begin: float = 0.2
    noise: float = 0.1
    features: float = 1.0


class Patches(nn.Sequential):
    """A discriminator of patches: (N, 3, H, W) pictures to (N, 1, h, w), higher where they look real.

    Parameters
    ----------
    width
        Channels of the first layer.
    """

    def __init__(self, width: int = 32) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Conv2d(4 * width, 1, 3, 1, 1))


class DecoderStage(Stage):
    """Train the decoder of a finished `AutoencoderKL`, and a discriminator beside it.

    Parameters
    ----------
    recipe, corpus, device
        As in `Stage`.
    vae
        Finished.
    parts
        As in `VaeStage`.
    """

    name = "decoder"

    def __init__(
        self,
        recipe: StageRecipe,
        corpus: Corpus,
        device: torch.device,
        vae: AutoencoderKL,
        parts: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        super().__init__(recipe, corpus, device)
        self.options = options_of(DecoderOptions, recipe)
        self.vae = vae.to(device).eval().requires_grad_(False)
        self.latents = Feed(latents_of(corpus, self.vae, device), device)
        self.pixels = Feed(corpus.pixels, device)
        self.weigh = PartWeights(parts, self.options.features, recipe.pixels, device)
        self.perceptual = Perceptual().to(device).eval()
        self.trained_with = (self.perceptual.fingerprint,)
        decoder = nn.Sequential(vae.post_quant_conv, vae.decoder).requires_grad_(True)
        self.network: nn.ModuleDict = nn.ModuleDict({"decoder": decoder, "patches": Patches(**dict(recipe.network))})

    def loss(self, rows: npt.NDArray[np.int64], draw: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """See the module and `Stage.loss`."""
        options, stored = self.options, self.corpus.rows[rows]
        latents, pixels = self.latents(stored).float(), self.pixels(stored)
        weight = self.weigh(stored)
        height, width = latents.shape[-2:]
        scale = self.recipe.pixels[0] // height
        if draw.random() < options.whole:
            # As dear as a step on crops.
            count = max(1, len(rows) * options.crop**2 // (scale**2 * height * width))
            latents, pixels, weight = latents[:count], pixels[:count], weight[:count]
        else:
            side = options.crop // scale
            top, left = draw.integers(0, [height - side + 1, width - side + 1])
            latents = latents[:, :, top : top + side, left : left + side]
            down, across = (slice(scale * start, scale * (start + side)) for start in (top, left))
            pixels, weight = pixels[:, down, across], weight[:, :, down, across]
        pictures = pictures_of(pixels)
        spread = options.noise * torch.rand(len(latents), 1, 1, 1, device=latents.device)
        decoder, patches = self.network["decoder"], self.network["patches"]
        decoded = decoder(latents / self.vae.config.scaling_factor + spread * torch.randn_like(latents))
        l1 = ((decoded - pictures).abs() * weight).mean()
        edges = gradient_difference(decoded, pictures, weight)
        perceptual = self.perceptual(decoded, pictures)
        near = l1 + options.gradient * edges + options.perceptual * perceptual
        # The decoder's gradient goes through the discriminator and leaves it; the discriminator's ends at the picture.
        frozen = {name: value.detach() for name, value in patches.named_parameters()}
        fooled = -torch.func.functional_call(patches, frozen, (decoded,)).mean()
        told = functional.relu(1 - patches(pictures)).mean() + functional.relu(1 + patches(decoded.detach())).mean()
        balance = self._balance(near, fooled) if self.progress >= options.begin else torch.zeros_like(near)
        total = near + options.adversarial * balance * fooled + told
        return total, {"l1": l1, "edges": edges, "perceptual": perceptual, "fooled": fooled, "told": told}

    def _balance(self, near: Tensor, fooled: Tensor) -> Tensor:
        """What makes the gradients of both losses equally large at the last layer (Esser et al., equation 7)."""
        last = self.network["decoder"][1].conv_out.weight
        near_there, fooled_there = (torch.autograd.grad(x, last, retain_graph=True)[0].norm() for x in (near, fooled))
        return (near_there / (fooled_there + 1e-6)).clamp(max=_MOST)

    def _decoded(self, network: nn.Module, rows: npt.NDArray[np.int64]) -> Tensor:
        return network["decoder"](self.latents(rows).float() / self.vae.config.scaling_factor).clamp(-1, 1)

    def figures(self, network: nn.Module) -> dict[str, float]:
        """Of up to 128 pictures of other people: ``psnr`` in dB, and ``perceptual``, the distance in features."""
        ratios, distances = [], []
        rows = self.held_out.rows[:_JUDGED]
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            pictures, decoded = pictures_of(self.pixels(part)), self._decoded(network, part)
            ratios.append(psnr_each(decoded, pictures))
            distances.append(self.perceptual(decoded, pictures) * len(part))
        return {"psnr": float(torch.cat(ratios).mean()), "perceptual": float(sum(distances)) / len(rows)}

    def sheet(self, network: nn.Module) -> Image.Image:
        """Pictures of other people, each beside what is decoded."""
        rows = self.held_out.rows[:_SHEET]
        return beside(pictures_of(self.pixels(rows)), self._decoded(network, rows))

    def finish(self, network: nn.Module, out: Path) -> None:
        """Write the folder ``weights`` of an `AutoencoderKL`: the encoder that was given, and this decoder."""
        self.vae.post_quant_conv, self.vae.decoder = network["decoder"]
        self.vae.to(memory_format=torch.contiguous_format).save_pretrained(out / "weights")
