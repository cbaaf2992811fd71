"""The autoencoder: pictures to latents an eighth their side, and back.

The loss is L1 of pixels, L1 of their differences at several scales, which keeps edges sharp without a network for
perception, more L1 of what tells colors from grays, which are few numbers and much of a description, and a light KL
divergence, which keeps latents smooth enough to be denoised. Eyes and mouths are few pixels and most of what
people look at, so the world's parts weigh the first two. It begins as the linear code of mean colors: from chance, a
thousand steps brought shapes, and no colors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from ipse.diffusion.components import make_vae
from ipse.diffusion.training.data import Corpus
from ipse.diffusion.training.loop import Feed, Stage, pictures_of, shown
from ipse.diffusion.training.recipe import StageRecipe, options_of, starting_with
from ipse.encoders import ShippedEncoder
from ipse.errors import TrainingError
from ipse.faces.parts import LABELS
from ipse.images import contact_sheet

_JUDGED, _SHEET, _BATCH = 128, 16, 16
_ENCODER = "face-world"
# Rows: light, red to blue, green to purple; and by what each has a spread near 1.
_OPPONENTS = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [1 / 2, 0, -1 / 2], [-1 / 4, 1 / 2, -1 / 4]])
_SPREAD = torch.tensor([2.0, 5.0, 8.0])
# Logarithm of the variance of the noise that latents begin with.
_LITTLE = -5.0
# How much of the extra weight a part gets.
_CLOSER = {"eyes": 1, "brows": 1, "lips": 1, "mouth": 1, "glasses": 1 / 4, "face": 1 / 8, "skin": 1 / 8}
# Latents of so many pictures tell their mean and spread.
_MEASURED = 512


@dataclass(frozen=True)
class VaeOptions:
    """What the loss is made of, and what is shown.

    Attributes
    ----------
    crop
        Side of the square crops that most steps see, in pixels: they cost less and teach as much.
    whole
        Share of the steps that see whole pictures, so that norms fit those too.
    gradient
        Weight of the differences of neighbors, at four scales.
    color
        Weight of the differences of colors, over squares of 4 × 4 pixels.
    kl
        Weight of the KL divergence per number of the latent.
    features
        How many times as much eyes, brows and mouths count as what is around the face.
    perceptual
        Weight of the distance in the features of the face encoder, which few pixels decide; see `Perceptual`.
    start
        Folder of a trained autoencoder to begin with, or nothing; see `begin_with_autoencoder`.
    """

    crop: int = 64
    whole: float = 0.2
    gradient: float = 1.0
    color: float = 1.0
    kl: float = 3e-4
    features: float = 1.0
    perceptual: float = 0.0
    start: str = ""


class VaeStage(Stage):
    """Train an `AutoencoderKL`.

    Parameters
    ----------
    recipe, corpus, device
        As in `Stage`.
    parts
        (M, height, width) parts of all pictures of the corpus's folder, of `parts_of`; None where all count the same.
    """

    name = "vae"

    def __init__(
        self, recipe: StageRecipe, corpus: Corpus, device: torch.device, parts: npt.NDArray[np.uint8] | None = None
    ) -> None:
        super().__init__(recipe, corpus, device)
        self.options = options_of(VaeOptions, recipe)
        self.network: AutoencoderKL = make_vae(**{"size": recipe.size} | dict(recipe.network))
        if self.options.start:
            begin_with_autoencoder(self.network, self.options.start)
        else:
            begin_with_mean_colors(self.network)
        self.perceptual = Perceptual().to(device).eval() if self.options.perceptual else None
        told = {*trained_with_at(self.options.start), *([self.perceptual.fingerprint] if self.perceptual else [])}
        self.trained_with = tuple(sorted(told))
        self.pixels = Feed(corpus.pixels, device)
        self.weigh = PartWeights(parts, self.options.features, recipe.pixels, device)

    def loss(self, rows: npt.NDArray[np.int64], draw: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """See the module and `Stage.loss`."""
        options, (height, width) = self.options, self.recipe.pixels
        stored = self.corpus.rows[rows]
        if draw.random() < options.whole:
            # As dear as a step on crops.
            stored = stored[: max(1, len(rows) * options.crop**2 // (height * width))]
            rectangle = slice(None), slice(None), slice(None)
        else:
            top, left = draw.integers(0, [height - options.crop + 1, width - options.crop + 1])
            rectangle = slice(None), slice(top, top + options.crop), slice(left, left + options.crop)
        pictures = pictures_of(self.pixels(stored)[rectangle])
        weight = self.weigh(stored)[rectangle[0], :, *rectangle[1:]]
        posterior = self.network.encode(pictures).latent_dist
        decoded = self.network.decode(posterior.sample()).sample
        l1 = ((decoded - pictures).abs() * weight).mean()
        edges = gradient_difference(decoded, pictures, weight)
        color = color_difference(decoded, pictures)
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        total = l1 + options.gradient * edges + options.color * color + options.kl * kl
        told = {"l1": l1, "edges": edges, "color": color, "kl": kl}
        if self.perceptual is not None:
            told["perceptual"] = self.perceptual(decoded, pictures)
            total = total + options.perceptual * told["perceptual"]
        return total, told

    def figures(self, network: nn.Module) -> dict[str, float]:
        """``psnr``: of up to 128 pictures of other people, in dB; ``std``: of their latents."""
        ratios, latents = [], []
        rows = self.held_out.rows[:_JUDGED]
        for start in range(0, len(rows), _BATCH):
            pictures = pictures_of(self.pixels(rows[start : start + _BATCH]))
            latent = network.encode(pictures).latent_dist.mode()
            decoded = network.decode(latent).sample.clamp(-1, 1)
            ratios.append(psnr_each(decoded, pictures))
            latents.append(latent)
        return {"psnr": float(torch.cat(ratios).mean()), "std": float(torch.cat(latents).std())}

    def sheet(self, network: nn.Module) -> Image.Image:
        """Pictures of other people, each beside what came back."""
        pictures = pictures_of(self.pixels(self.held_out.rows[:_SHEET]))
        decoded = network.decode(network.encode(pictures).latent_dist.mode()).sample
        return beside(pictures, decoded)

    def finish(self, network: nn.Module, out: Path) -> None:
        """Write the folder ``weights`` of an `AutoencoderKL` whose latents have mean 0 and variance 1."""
        rows, parts = self.corpus.rows, []
        some = rows[np.linspace(0, len(rows) - 1, min(len(rows), _MEASURED)).astype(int)]
        for start in range(0, len(some), _BATCH):
            parts.append(network.encode(pictures_of(self.pixels(some[start : start + _BATCH]))).latent_dist.mode())
        latents = torch.cat(parts)
        standardize(network, latents.mean((0, 2, 3)), latents.std((0, 2, 3)))
        network.to(memory_format=torch.contiguous_format).save_pretrained(out / "weights")


def psnr_each(decoded: Tensor, pictures: Tensor) -> Tensor:
    """(n,) peak signal-to-noise ratios in dB, of (n, 3, H, W) in -1 to 1."""
    return -10 * ((decoded - pictures) / 2).square().mean((1, 2, 3)).clamp(min=1e-10).log10()


def beside(pictures: Tensor, decoded: Tensor) -> Image.Image:
    """A sheet of (n, 3, H, W) pictures, each beside what is decoded."""
    pairs = [image for pair in zip(shown(pictures), shown(decoded), strict=True) for image in pair]
    return contact_sheet(pairs, 8, gap=2)


class Perceptual(nn.Module):
    """The distance of pictures in what the stages of an encoder say of each place, in unit features."""

    def __init__(self) -> None:
        super().__init__()
        encoder = ShippedEncoder(_ENCODER)
        self.encoder, self.fingerprint = encoder.torch_module().requires_grad_(False), encoder.fingerprint

    def forward(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """Of (n, 3, H, W) in -1 to 1: one number, the mean over pictures and places, summed over stages."""
        count = len(ours)
        total = torch.zeros((), device=ours.device)
        for told in self.encoder.stage_maps((torch.cat([ours, theirs]) + 1) / 2):
            unit = functional.normalize(told, dim=1)
            total = total + (unit[:count] - unit[count:]).square().sum(1).mean()
        return total


def trained_with_at(start: str) -> list[str]:
    """Fingerprints of encoders that weights to begin with were trained with, where a record beside them tells."""
    record = Path(start).parent / "record.json"
    return json.loads(record.read_text()).get("trained_with", []) if start and record.is_file() else []


class PartWeights:
    """How much each pixel counts.

    Parameters
    ----------
    parts
        As in `VaeStage`.
    features
        How many times as much eyes, brows and mouths count as what is around the face; glasses and skin come between.
    size
        Height and width of a picture in pixels.
    device
        Where to.
    """

    def __init__(
        self, parts: npt.NDArray[np.uint8] | None, features: float, size: tuple[int, int], device: torch.device
    ) -> None:
        self.parts, self.size, self.device = None if parts is None else Feed(parts, device), size, device
        extra = torch.tensor([_CLOSER.get(label, 0) for label in LABELS], dtype=torch.float32, device=device)
        self.weights = 1 + (features - 1) * extra

    def __call__(self, stored: npt.NDArray[np.int64]) -> Tensor:
        """(n, 1, H, W), for rows counted within the folder; 1 everywhere if no parts are known."""
        if self.parts is None:
            return torch.ones(len(stored), 1, *self.size, device=self.device)
        return self.weights[self.parts(stored).long()][:, None]


def gradient_difference(ours: Tensor, theirs: Tensor, weight: Tensor, scales: int = 4) -> Tensor:
    """Mean L1 between differences of neighbors of (n, 3, H, W) pictures, each scale half as large as the last.

    `weight`, (n, 1, H, W), tells how much a pixel counts.
    """
    total = torch.zeros((), device=ours.device)
    apart = ours - theirs
    for scale in range(scales):
        if scale:
            apart, weight = functional.avg_pool2d(apart, 2), functional.avg_pool2d(weight, 2)
        across, down = apart.diff(dim=-1).abs(), apart.diff(dim=-2).abs()
        total = total + (across * weight[..., 1:]).mean() + (down * weight[..., 1:, :]).mean()
    return total / scales


def color_difference(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean L1 between mean colors of 4 × 4 pixels of (n, 3, H, W) pictures: red to blue and green to purple."""
    apart = functional.avg_pool2d(ours - theirs, 4)
    return torch.einsum("oc,nchw->nohw", _OPPONENTS[1:].to(apart), apart).abs().mean()


@torch.no_grad()
def begin_with_mean_colors(vae: AutoencoderKL) -> None:
    """Make an autoencoder of random weights encode and decode the mean colors of its 8 × 8 squares.

    Residual blocks begin as identities, and convolutions on the way pass some channels on: for light and each of two
    opponent colors its value, the negative of it, 1 and -1. Of four such channels group norm keeps the mean at 0 and
    the scale bounded, and SiLU(x) - SiLU(-x) = x. All other channels begin with the random weights they have.

    Parameters
    ----------
    vae
        Changed in place.

    Raises
    ------
    TrainingError
        If the channels that a group norm takes together cannot be parted in fours.
    """
    signs = torch.tensor([1.0, -1.0, 0.0, 0.0])
    ones = torch.tensor([0.0, 0.0, 1.0, -1.0]).repeat(3)
    passed = len(ones)
    together = [channels / vae.config.norm_num_groups for channels in vae.config.block_out_channels]
    if any(count % len(signs) for count in together):
        message = f"Group norms of the autoencoder take {together} channels together, which cannot be parted in fours."
        raise TrainingError(message, f"Make network.channels multiples of {4 * vae.config.norm_num_groups}.")

    def point(convolution: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
        rows, columns = weight.shape
        convolution.weight[:rows], convolution.bias[:rows] = 0, bias
        middle = convolution.weight.shape[-1] // 2
        convolution.weight[:rows, :columns, middle, middle] = weight

    opponents = _OPPONENTS * _SPREAD[:, None]
    point(vae.encoder.conv_in, torch.einsum("oc,s->osc", opponents, signs).reshape(passed, 3), ones)
    point(vae.decoder.conv_in, torch.einsum("oc,s->osc", torch.eye(3), signs).reshape(passed, 3), ones)
    same, nothing = torch.eye(passed), torch.zeros(passed)
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            module.conv2.weight.zero_()
            module.conv2.bias.zero_()
            if module.conv_shortcut is not None:
                point(module.conv_shortcut, same, nothing)
        elif isinstance(module, Upsample2D):
            point(module.conv, same, nothing)
        elif isinstance(module, Downsample2D):
            # It pads at the right and below: the first four of nine are the square that becomes one.
            module.conv.weight[:passed], module.conv.bias[:passed] = 0, 0
            module.conv.weight[range(passed), range(passed), :2, :2] = 1 / 4
    latents = vae.config.latent_channels
    halves = torch.einsum("oc,s->ocs", torch.eye(3), signs).reshape(3, passed)
    point(vae.encoder.conv_out, halves, torch.zeros(3))
    pixels = torch.linalg.inv(opponents)
    point(vae.decoder.conv_out, torch.einsum("oc,s->ocs", pixels, signs).reshape(3, passed), torch.zeros(3))
    for convolution in (vae.quant_conv, vae.post_quant_conv):
        point(convolution, torch.eye(convolution.weight.shape[0]), torch.zeros(convolution.weight.shape[0]))
    # Little noise, so that what is passed on arrives.
    vae.encoder.conv_out.weight[latents:] /= 10
    vae.encoder.conv_out.bias[latents:] = _LITTLE


@torch.no_grad()
def begin_with_autoencoder(vae: AutoencoderKL, folder: str | Path) -> None:
    """Give an autoencoder the weights of another whose latent may have fewer channels.

    Its channels come first and mean what they meant, so that a denoiser of them has less to learn; the others are read
    from the same features by weights by chance, and the decoder makes nothing of them yet.

    Parameters
    ----------
    vae
        Changed in place.
    folder
        Of an `AutoencoderKL` that is otherwise of the same shape.

    Raises
    ------
    TrainingError
        If the folder holds none.
    """
    with starting_with(folder, "autoencoder"):
        trained = AutoencoderKL.from_pretrained(folder, dtype=torch.float32)
        given, old, new = trained.state_dict(), trained.config.latent_channels, vae.config.latent_channels
        if old > new:
            raise ValueError(f"its latent has {old} channels, and {new} are wanted")
        # Encoders tell means, then logarithms of variances.
        places = torch.cat([torch.arange(old), new + torch.arange(old)])
        wide = {
            "encoder.conv_out.weight": (places,),
            "encoder.conv_out.bias": (places,),
            "quant_conv.weight": (places[:, None], places),
            "quant_conv.bias": (places,),
            "post_quant_conv.weight": (slice(old), slice(old)),
            "post_quant_conv.bias": (slice(old),),
            "decoder.conv_in.weight": (slice(None), slice(old)),
        }
        state = vae.state_dict()
        if given.keys() != state.keys():
            raise ValueError("its layers are others")
        for name in ("quant_conv", "post_quant_conv"):
            state[f"{name}.weight"].copy_(torch.eye(len(state[f"{name}.weight"]))[..., None, None])
            state[f"{name}.bias"].zero_()
        state["encoder.conv_out.bias"][new:] = _LITTLE
        state["encoder.conv_out.weight"][new:] /= 10
        state["decoder.conv_in.weight"].zero_()
        for name, values in given.items():
            state[name][wide.get(name, (...,))] = values


@torch.no_grad()
def standardize(vae: AutoencoderKL, mean: Tensor, std: Tensor) -> None:
    """Make latents (z - mean) / std, channel by channel, and decode them as before.

    Its 1 × 1 convolutions before and after the latent take this up, so `scaling_factor` stays 1 and no code that uses
    the autoencoder needs to know.

    Parameters
    ----------
    vae
        Changed in place.
    mean, std
        (channels,) of its latents.
    """
    before, after = vae.quant_conv, vae.post_quant_conv
    channels = len(mean)
    # Its outputs are the means of the latents and the logarithms of their variances.
    before.weight[:channels] /= std[:, None, None, None]
    before.bias[:channels] = (before.bias[:channels] - mean) / std
    before.bias[channels:] -= 2 * std.log()
    after.bias += (after.weight[:, :, 0, 0] * mean).sum(1)
    after.weight *= std[None, :, None, None]
