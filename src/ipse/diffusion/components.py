"""The parts of the world base: Stable Diffusion's own classes at small size.

Everything here has random weights; `ipse.diffusion.training` trains it. What is written against these classes runs on
Stable Diffusion 1.5 and SDXL as well.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import Any

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

TOKENS = 77
"""Tokens of a prompt, as Stable Diffusion has them; the longest caption of the world needs them all."""

_START, _END = "<|startoftext|>", "<|endoftext|>"


@lru_cache(1)
def words() -> tuple[str, ...]:
    """The words that captions of the world are made of, in lower case: what the world base can know.

    They are a file and not read from the world, for a token's number must stay what it was when weights were trained.
    """
    return tuple(files("ipse.diffusion").joinpath("words.txt").read_text(encoding="utf-8").split())


@lru_cache(1)
def vocabulary() -> tuple[dict[str, int], tuple[tuple[str, str], ...]]:
    """Byte-pair encoding with one token for each of `words`; any other text falls into parts of words and bytes.

    Returns
    -------
    tuple
        Number of each token, and the pairs that are merged, first ones first: the content of ``vocab.json`` and of
        ``merges.txt`` of a CLIP tokenizer.
    """
    spelled = [[*word[:-1], f"{word[-1]}</w>"] for word in words()]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for parts in spelled for pair in pairwise(parts)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelled = [_merged(parts, best) for parts in spelled]
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges), _START, _END]
    return {token: number for number, token in enumerate(tokens)}, tuple(merges)


def _merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for part in parts:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return out


def make_tokenizer() -> CLIPTokenizer:
    """The tokenizer of the world base."""
    numbers, merges = vocabulary()
    return CLIPTokenizer(
        vocab=dict(numbers),
        merges=list(merges),
        unk_token=_END,
        bos_token=_START,
        eos_token=_END,
        pad_token=_END,
        model_max_length=TOKENS,
    )


def make_joint(
    width: int = 192,
    text_layers: int = 4,
    image_layers: int = 6,
    heads: int = 4,
    patch: int = 16,
    size: int = 128,
    dim: int = 192,
) -> CLIPModel:
    """An encoder of pictures and of captions into one space (CLIP, Radford et al., 2021).

    Parameters
    ----------
    width
        Channels of both transformers; those of the text are what the U-Net attends to.
    text_layers, image_layers, heads
        Of the transformers.
    patch, size
        Side of a patch and of a picture in pixels; see `squared` for pictures that are no squares.
    dim
        Length of the embeddings.
    """
    numbers, _ = vocabulary()
    both = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": heads, "projection_dim": dim}
    ends = {"bos_token_id": numbers[_START], "eos_token_id": numbers[_END], "pad_token_id": numbers[_END]}
    text = both | ends | {"num_hidden_layers": text_layers, "vocab_size": len(numbers)}
    text |= {"max_position_embeddings": TOKENS}
    image = both | {"num_hidden_layers": image_layers, "patch_size": patch, "image_size": size}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=image, projection_dim=dim))


def squared(pictures: Tensor, side: int, gray: float = 0.0) -> Tensor:
    """Pictures as an image encoder takes them: squares, with gray on both sides of what is higher than wide.

    Parameters
    ----------
    pictures
        (n, 3, H, W).
    side
        Of the encoder's pictures, in pixels.
    gray
        The middle of what pixels can be: 0 of -1 to 1, 0.5 of 0 to 1.

    Returns
    -------
    Tensor
        (n, 3, side, side).
    """
    height, width = pictures.shape[-2:]
    if max(height, width) != side:
        height, width = (max(1, round(one * side / max(height, width))) for one in (height, width))
        pictures = functional.interpolate(pictures, (height, width), mode="bilinear", antialias=True)
    above, before = (side - height) // 2, (side - width) // 2
    return functional.pad(pictures, (before, side - width - before, above, side - height - above), value=gray)


def make_vae(
    channels: tuple[int, ...] = (32, 64, 96, 128),
    layers: int = 1,
    size: int | tuple[int, int] = 128,
    groups: int = 8,
    latent: int = 4,
) -> AutoencoderKL:
    """A variational autoencoder: (N, 3, H, W) in -1 to 1 to (N, `latent`, H / 8, W / 8) and back.

    There is no attention in the middle, so that it works on crops as on whole pictures.

    Parameters
    ----------
    channels
        Of each level; each but the last halves the picture.
    layers
        Residual blocks of a level; the decoder has one more.
    size
        Of a picture in pixels: a number for squares, or height and width.
    groups
        Of channels that are normed together.
    latent
        Channels of the latent.
    """
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=latent,
        block_out_channels=tuple(channels),
        layers_per_block=layers,
        norm_num_groups=groups,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        mid_block_add_attention=False,
        sample_size=size,
        scaling_factor=1.0,  # the last step of its training makes latents of unit variance
    )


def make_denoiser(
    channels: tuple[int, ...] = (80, 128, 160),
    layers: int = 1,
    heads: int = 4,
    context: int = 192,
    size: int | tuple[int, int] = 16,
    latent: int = 4,
) -> UNet2DConditionModel:
    """A U-Net that attends to a text at every level but the last and in the middle, as Stable Diffusion's does.

    Parameters
    ----------
    channels, layers, heads
        Of each level; residual blocks of a level; attention heads.
    context
        Channels of the text encoder.
    size
        Of the latent: a number for squares, or height and width.
    latent
        Channels of the latent.
    """
    return UNet2DConditionModel(
        sample_size=size,
        in_channels=latent,
        out_channels=latent,
        layers_per_block=layers,
        block_out_channels=tuple(channels),
        down_block_types=(*("CrossAttnDownBlock2D",) * (len(channels) - 1), "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * (len(channels) - 1)),
        cross_attention_dim=context,
        # diffusers takes it for the number of heads.
        attention_head_dim=heads,
        norm_num_groups=16,
    )


def make_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise, brought to zero signal at the last step (Lin et al., 2024).

    With a rest of signal, as Stable Diffusion leaves it, a network learns to read the mean color of the picture from
    its noise, and sampling, which starts without it, gives gray where a caption says a black or a white background.
    Where there is no signal noise tells nothing about the picture, so the network predicts v (Salimans and Ho, 2022),
    and sampling starts at the very last step.
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )


def parameters(network: Any) -> int:
    """Number of parameters of a network."""
    return sum(p.numel() for p in network.parameters())
