"""The U-Net: what is under the noise of a latent, given its caption.

It predicts v (Salimans and Ho, 2022) at a step chosen by chance. The loss of a step is weighted by min(SNR + 1, γ) /
(SNR + 1): min-SNR (Hang et al., 2023) for v, with 1 added so that the last step, which has no signal, is learned too.

Some options make more of every step, for on a processor there are few. ``focus`` draws more steps where signal and
noise are about equal, which is where a face gets its shape. With ``features`` what is in the face counts more than
what is around it; the best prediction of each cell stays the same. With ``parts`` the middle of the network also learns
to tell the parts of the picture under the noise, as the world knows them: what other networks' features are to REPA (Yu
et al., 2025). What tells them is not kept. With ``often`` pictures with a rare fact come more often than others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPTextModel

from ipse._files import atomic_write
from ipse.diffusion.base import GUIDANCE
from ipse.diffusion.components import make_denoiser, make_scheduler, make_tokenizer
from ipse.diffusion.training.data import Corpus, drawn_captions, shortened
from ipse.diffusion.training.loop import Feed, Stage, pictures_of
from ipse.diffusion.training.recipe import StageRecipe, options_of, size_of, starting_with
from ipse.diffusion.training.vae import PartWeights
from ipse.errors import TrainingError
from ipse.faces.parts import LABELS
from ipse.images import contact_sheet
from ipse.training.samplers import ShuffledSampler

_JUDGED, _SHEET, _BATCH = 256, 16, 32
_STEPS = 20


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
    focus
        Share of the steps whose log SNR is drawn from a normal distribution around 0 with a deviation of 2, which is
        the logit-normal density of Esser et al. (2024, section 3.1); others are drawn evenly.
    features
        How many times as much eyes, brows and mouths count as what is around the face; see `PartWeights`.
    parts
        Weight of what the middle tells of parts; 0 for none.
    often
        How many times as often as others pictures with a fact are drawn, by names of `facts_of`.
    start
        Folder of a trained U-Net to begin with, or nothing.
    """

    drop: float = 0.1
    full: float = 0.5
    short: float = 0.2
    gamma: float = 5.0
    focus: float = 0.0
    features: float = 1.0
    parts: float = 0.0
    often: Mapping[str, int] = field(default_factory=dict)
    start: str = ""


class PartsTeller(nn.Module):
    """A U-Net whose middle also tells where the parts of the picture are.

    Parameters
    ----------
    unet
        Which.
    labels
        How many parts there are.
    """

    def __init__(self, unet: UNet2DConditionModel, labels: int) -> None:
        super().__init__()
        widths = unet.config.block_out_channels
        self.unet, self.fold = unet, 2 ** (len(widths) - 1)
        self.tell = nn.Sequential(
            nn.Conv2d(widths[-1], 2 * widths[-1], 1), nn.SiLU(), nn.Conv2d(2 * widths[-1], labels * self.fold**2, 1)
        )

    def forward(self, noisy: Tensor, steps: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The prediction (B, c, h, w), and logits of parts (B, labels, h, w)."""
        middle: list[Tensor] = []
        hook = self.unet.mid_block.register_forward_hook(lambda module, given, out: middle.append(out))
        try:
            predicted = self.unet(noisy, steps, encoder_hidden_states=context).sample
        finally:
            hook.remove()
        return predicted, nn.functional.pixel_shuffle(self.tell(middle[0]), self.fold)


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
        which = drawn_captions(count, options.full, draw)
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


def draw_steps(count: int, share: Tensor, focus: float, draw: np.random.Generator) -> Tensor:
    """(count,) steps of training by chance; see `DenoiserOptions.focus`.

    Parameters
    ----------
    count
        How many.
    share
        (T,) ``alphas_cumprod`` of all steps.
    focus, draw
        How many of them are drawn around equal signal and noise, and chance.
    """
    evenly = torch.from_numpy(draw.integers(0, len(share), count))
    if not focus:
        return evenly.to(share.device)
    # Falls from step to step; the last one has no signal.
    logs = torch.logit(share.double().cpu().clamp(1e-8, 1 - 1e-8)).flip(0)
    wanted = torch.from_numpy(2.0 * draw.standard_normal(count))
    near = (len(share) - 1 - torch.searchsorted(logs, wanted)).clamp(0, len(share) - 1)
    return torch.where(torch.from_numpy(draw.random(count) < focus), near, evenly).to(share.device)


def repeated(
    rows: npt.NDArray[np.int64], facts: Sequence[Mapping[str, str]], often: Mapping[str, int]
) -> npt.NDArray[np.int64]:
    """Rows of the folder, those with a fact as often as `DenoiserOptions.often` says.

    Raises
    ------
    TrainingError
        If none of them has the fact.
    """
    times = np.ones(len(rows), np.int64)
    for name, count in often.items():
        has = np.array([name in facts[row] for row in rows])
        if not has.any():
            raise TrainingError(f"No picture has the fact {name!r}.", "Change options.often of the recipe.")
        times[has] = np.maximum(times[has], count)
    return np.repeat(rows, times)


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
    parts
        (M, height, width) parts of all pictures of the corpus's folder, of `parts_of`, where the recipe needs them.
    facts
        (M,) what they show, of `facts_of`, where the recipe has pictures with some of them come more often.
    """

    name = "denoiser"

    def __init__(
        self,
        recipe: StageRecipe,
        corpus: Corpus,
        device: torch.device,
        vae: AutoencoderKL,
        text: CLIPTextModel,
        parts: npt.NDArray[np.uint8] | None = None,
        facts: Sequence[Mapping[str, str]] = (),
    ) -> None:
        super().__init__(recipe, corpus, device)
        self.options = options_of(DenoiserOptions, recipe)
        self.drawn = repeated(self.corpus.rows, facts, self.options.often)
        self.sampler = ShuffledSampler(len(self.drawn), recipe.batch, recipe.seed)
        self.vae, self.text = (part.to(device).eval().requires_grad_(False) for part in (vae, text))
        scale = 2 ** (len(vae.config.block_out_channels) - 1)
        sides = size_of(*(side // scale for side in recipe.pixels))
        fitting = {"size": sides, "context": text.config.hidden_size, "latent": vae.config.latent_channels}
        unet = make_denoiser(**fitting | dict(recipe.network))
        if self.options.start:
            begin_with(unet, self.options.start)
        self.parts = None if parts is None else Feed(parts, device)
        self.weigh = PartWeights(parts, self.options.features, recipe.pixels, device)
        self.network: nn.Module = PartsTeller(unet, len(LABELS)) if self.options.parts else unet
        self.latents = Feed(latents_of(corpus, self.vae, device), device)
        self.captions = Captions(corpus, self.options, device)
        self.scheduler = make_scheduler()
        self.share = self.scheduler.alphas_cumprod.to(device)

    def loss(self, rows: npt.NDArray[np.int64], draw: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """See the module and `Stage.loss`."""
        stored = self.drawn[rows]
        tokens = self.captions(stored, draw)
        steps = draw_steps(len(rows), self.share, self.options.focus, draw)
        return self._loss(self.network, stored, tokens, steps)

    def _loss(
        self, network: nn.Module, stored: npt.NDArray[np.int64], tokens: Tensor, steps: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        latents = self.latents(stored).float()
        with torch.no_grad():
            context = self.text(input_ids=tokens.long()).last_hidden_state
        noise = torch.randn_like(latents)
        noisy = self.scheduler.add_noise(latents, noise, steps)
        velocity = self.scheduler.get_velocity(latents, noise, steps)
        if not self.options.parts:
            predicted, missed = network(noisy, steps, encoder_hidden_states=context).sample, None
        else:
            predicted, told = network(noisy, steps, context)
            missed = nn.functional.cross_entropy(told.float(), self._shares(stored, told.shape[2:]))
        squares = (predicted.float() - velocity).square()
        counts = nn.functional.adaptive_avg_pool2d(self.weigh(stored), latents.shape[2:])
        weighed = (squares * counts).mean((1, 2, 3)) / counts.mean()
        loss = (weighed * velocity_weight(self.share[steps], self.options.gamma)).mean()
        if missed is None:
            return loss, {"mse": squares.mean()}
        return loss + self.options.parts * missed, {"mse": squares.mean(), "parts": missed}

    def _shares(self, stored: npt.NDArray[np.int64], cells: tuple[int, int]) -> Tensor:
        """(n, labels, h, w): how much of each cell of the latent each part has."""
        # Every second pixel of every second row: a cell still has many.
        shown = nn.functional.one_hot(self.parts(stored)[:, ::2, ::2].long(), len(LABELS)).permute(0, 3, 1, 2).float()
        return nn.functional.adaptive_avg_pool2d(shown, cells)

    def figures(self, network: nn.Module) -> dict[str, float]:
        """``mse`` and where it is told ``parts``: of up to 256 pictures of other people with their full captions, steps
        evenly spread.
        """
        rows = self.held_out.rows[:_JUDGED]
        steps = spread_steps(len(rows), len(self.share)).to(self.device)
        totals: dict[str, float] = {}
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            tokens = self.captions.full(part)
            _, told = self._loss(network, part, tokens, steps[start : start + _BATCH])
            for name, value in told.items():
                totals[name] = totals.get(name, 0.0) + float(value) * len(part)
        return {name: total / len(rows) for name, total in totals.items()}

    def sheet(self, network: nn.Module) -> Image.Image:
        """Pictures by captions of other people, always of the same noise."""
        rows = np.linspace(0, len(self.held_out) - 1, min(_SHEET, len(self.held_out))).astype(int)
        captions = self.held_out.captions(rows)
        pipeline = make_pipeline(self.vae, self.text, self._unet(network))
        pipeline.set_progress_bar_config(disable=True)
        generators = [torch.Generator().manual_seed(i) for i in range(len(captions))]
        images = pipeline(
            captions, num_inference_steps=_STEPS, guidance_scale=GUIDANCE["world"], generator=generators
        ).images
        return contact_sheet([np.asarray(image) for image in images], 8, gap=2)

    def finish(self, network: nn.Module, out: Path) -> None:
        """Write the folder ``weights`` of a `UNet2DConditionModel`."""
        self._unet(network).to(memory_format=torch.contiguous_format).save_pretrained(out / "weights")

    def _unet(self, network: nn.Module) -> UNet2DConditionModel:
        return network.unet if self.options.parts else network


def begin_with(unet: UNet2DConditionModel, folder: str | Path) -> None:
    """Give a U-Net the weights of another of the same shape, whose latents may have fewer channels.

    Channels of its latents come first, as in `ipse.diffusion.training.vae.begin_with_autoencoder`; it does not see the
    others yet, and has weights by chance for what it makes of them.

    Raises
    ------
    TrainingError
        If the folder holds none.
    """
    with starting_with(folder, "U-Net"):
        trained = UNet2DConditionModel.from_pretrained(folder, dtype=torch.float32)
        given, known = trained.state_dict(), trained.config.in_channels
        own = {name: unet.state_dict()[name].clone() for name in ("conv_in.weight", "conv_out.weight", "conv_out.bias")}
        if known < unet.config.in_channels:
            own["conv_in.weight"].zero_()
            for name, place in (("conv_in.weight", 1), ("conv_out.weight", 0), ("conv_out.bias", 0)):
                own[name].narrow(place, 0, known).copy_(given[name])
            given |= own
        unet.load_state_dict(given)


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
