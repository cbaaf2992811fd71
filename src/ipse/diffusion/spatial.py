"""Spatial control: where things shall be, by a ControlNet or a T2I-adapter, from conditions that the world knows.

Pictures of conditions are (3, H, W) of 0 to 1 at the size of the picture, black where nothing is known. `Control` and
`SideAdapter` go into `ipse.diffusion.trajectory.Denoiser` and `ipse.diffusion.tuning.denoising_loss` as ``spatial``.

Shapes: B rows of a batch, L tokens, C channels of the text.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, T2IAdapter
from PIL import Image, ImageDraw
from torch import Tensor

from ipse.errors import IpseError

# --- Pictures of conditions -------------------------------------------------------------------------------------------

# InstantID's: red and green eyes, blue nose, yellow and magenta corners of the mouth, each joined to the nose.
_FIVE_COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))
_NOSE = 2
_DIM = 0.6
# Pairs of COCO's keypoints that are joined, as OpenPose does it; 17 is the neck, in the middle of the shoulders.
_LIMBS = (
    *((17, 5), (5, 7), (7, 9), (17, 6), (6, 8), (8, 10), (17, 11), (11, 13), (13, 15), (17, 12), (12, 14), (14, 16)),
    *((17, 0), (0, 1), (1, 3), (0, 2), (2, 4)),
)
_SHOULDERS = [5, 6]
_HIDDEN = 0.4


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image, np.float32) / 255).permute(2, 0, 1).contiguous()


def _dot(draw: ImageDraw.ImageDraw, point: np.ndarray, radius: float, color: tuple[int, int, int]) -> None:
    x, y = (float(value) for value in point)
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)


def five_picture(points: np.ndarray, visible: np.ndarray, size: tuple[int, int]) -> Tensor:
    """The five points of a face, each in its color and joined to the nose (Wang et al., 2024, InstantID).

    Parameters
    ----------
    points
        (5, 2) pixels: eye, eye, nose, corner, corner of the mouth, the image's left first.
    visible
        (5,) bool.
    size
        Height and width.
    """
    image = Image.new("RGB", (size[1], size[0]))
    draw = ImageDraw.Draw(image)
    # Sizes of InstantID at 1024 pixels.
    width, radius = max(1, round(max(size) / 256)), max(1.0, max(size) / 102)
    for i, color in enumerate(_FIVE_COLORS):
        if i != _NOSE and visible[i] and visible[_NOSE]:
            dim = tuple(int(_DIM * channel) for channel in color)
            draw.line([tuple(map(float, points[i])), tuple(map(float, points[_NOSE]))], dim, width)
    for i, color in enumerate(_FIVE_COLORS):
        if visible[i]:
            _dot(draw, points[i], radius, color)
    return _tensor(image)


def dense_picture(points: np.ndarray, visible: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Dense landmarks as dots: (n, 2) pixels and (n,) bool; the hue goes around from the first to the last."""
    image = Image.new("RGB", (size[1], size[0]))
    draw = ImageDraw.Draw(image)
    radius = max(0.6, max(size) / 200)
    for i, point in enumerate(points):
        if visible[i]:
            _dot(draw, point, radius, _hue(i / len(points)))
    return _tensor(image)


def body_picture(points: np.ndarray, visible: np.ndarray, size: tuple[int, int]) -> Tensor:
    """The keypoints of a body as a figure of sticks, each limb in a hue of its own, as OpenPose draws them.

    Parameters
    ----------
    points
        (17, 2) pixels, in COCO's order.
    visible
        (17,) bool; what is hidden is drawn darker, so that front and back can be told apart.
    size
        Height and width.
    """
    points = np.concatenate([points, points[_SHOULDERS].mean(0, keepdims=True)])
    visible = np.append(visible, visible[_SHOULDERS].any())
    image = Image.new("RGB", (size[1], size[0]))
    draw = ImageDraw.Draw(image)
    width, radius = max(1, round(max(size) / 64)), max(1.0, max(size) / 80)

    def shade(share: float, seen: bool) -> tuple[int, int, int]:
        return tuple(int(channel if seen else _HIDDEN * channel) for channel in _hue(share))

    # What is seen comes over what is hidden.
    for seen in (False, True):
        for i, (a, b) in enumerate(_LIMBS):
            if bool(visible[a] and visible[b]) == seen:
                ends = [tuple(map(float, points[a])), tuple(map(float, points[b]))]
                draw.line(ends, shade(i / len(_LIMBS), seen), width)
        for i, point in enumerate(points):
            if bool(visible[i]) == seen:
                _dot(draw, point, radius, shade(i / len(points), seen))
    return _tensor(image)


def _hue(share: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(share, 1, 1)
    return round(255 * red), round(255 * green), round(255 * blue)


def parts_picture(parts: np.ndarray, classes: int) -> Tensor:
    """A segmentation (H, W), class 0 black and each other in a color of its own."""
    # Neighbors in number are far apart in hue: steps of the golden ratio.
    colors = [(0, 0, 0), *(_hue(i * 0.618034 % 1) for i in range(1, classes))]
    return torch.tensor(colors, dtype=torch.float32)[torch.from_numpy(parts.astype(np.int64))].permute(2, 0, 1) / 255


def depth_picture(depth: np.ndarray) -> Tensor:
    """Depth (H, W) in meters, 0 for the background: the nearest is white, the farthest dark gray."""
    known = depth > 0
    out = np.zeros(depth.shape, np.float32)
    if known.any():
        near, far = depth[known].min(), depth[known].max()
        out[known] = 1 - 0.9 * (depth[known] - near) / max(far - near, 1e-6)
    return torch.from_numpy(out).expand(3, -1, -1).contiguous()


def normals_picture(normals: np.ndarray) -> Tensor:
    """Normals (H, W, 3) of length 1, or 0 for the background: (n + 1) / 2 in each channel."""
    known = np.linalg.norm(normals, axis=2, keepdims=True) > 0.5
    return torch.from_numpy(np.where(known, (normals + 1) / 2, 0).astype(np.float32)).permute(2, 0, 1).contiguous()


def _parts_of(truth: Any) -> Tensor:
    from ipse.faces.parts import LABELS

    return parts_picture(truth.parts, len(LABELS))


CONDITIONS: Mapping[str, Callable[[Any], Tensor]] = {
    "five": lambda truth: five_picture(truth.five, truth.five_visible, truth.parts.shape),
    "dense": lambda truth: dense_picture(truth.dense, truth.dense_visible, truth.parts.shape),
    "parts": _parts_of,
    "depth": lambda truth: depth_picture(truth.depth),
    "normals": lambda truth: normals_picture(truth.normals),
    "body": lambda truth: body_picture(truth.keypoints - 0.5, truth.keypoints_visible, truth.parts.shape),
}
"""Kinds of conditions: from the `Truth` of a picture of `ipse.world` to a picture (3, H, W)."""


def condition(truth: Any, kind: str) -> Tensor:
    """The picture of a condition, (3, H, W).

    Parameters
    ----------
    truth
        Of a picture of `ipse.world`.
    kind
        One of `CONDITIONS`.
    """
    if kind not in CONDITIONS:
        raise IpseError(f"There is no condition {kind!r}.", f"There are {', '.join(CONDITIONS)}.")
    return CONDITIONS[kind](truth)


# --- Networks that read them ------------------------------------------------------------------------------------------

Added = Mapping[str, Tensor] | None
# Levels of noise of Stable Diffusion, SDXL and the world base.
_TIMESTEPS = 1000


def _rows(given: Tensor, latents: Tensor) -> Tensor:
    if len(latents) % len(given):
        raise IpseError(
            f"There are {len(latents)} rows and conditions for {len(given)}.", "Give one for each row, or a single one."
        )
    # Classifier-free guidance runs the batch twice, one behind the other.
    return given.to(latents).repeat(len(latents) // len(given), 1, 1, 1)


@dataclass
class Control:
    """A ControlNet with its picture (Zhang et al., 2023).

    Attributes
    ----------
    network
        Such as `control_for` makes, or a published one for the base.
    picture
        (B or 1, 3, H, W) of 0 to 1.
    strength
        0 is off to the bit.
    text
        (B or 1, n, C) for the ControlNet in place of the prompt: InstantID gives it the identity tokens. With
        classifier-free guidance, both halves.
    levels
        Share of the way at which it begins and stops: 0 is noise, 1 the picture.
    """

    network: ControlNetModel
    picture: Tensor
    strength: float = 1.0
    text: Tensor | None = None
    levels: tuple[float, float] = (0.0, 1.0)

    def __call__(self, latents: Tensor, timestep: Tensor, text: Tensor, added: Added) -> dict[str, Any]:
        """What the U-Net takes beside its own features."""
        # Training draws a level for each row; then all count.
        share = 1 - float(timestep) / _TIMESTEPS if timestep.ndim == 0 else None
        if not self.strength or (share is not None and not self.levels[0] <= share <= self.levels[1]):
            return {}
        own = text
        if self.text is not None:
            own = self.text.to(text).repeat_interleave(len(latents) // len(self.text), 0)
        down, mid = self.network(
            latents,
            timestep,
            encoder_hidden_states=own,
            controlnet_cond=_rows(self.picture, latents),
            conditioning_scale=self.strength,
            added_cond_kwargs=added,
            return_dict=False,
        )
        return {"down_block_additional_residuals": tuple(down), "mid_block_additional_residual": mid}


@dataclass
class SideAdapter:
    """A T2I-adapter with its picture (Mou et al., 2023): a small network that reads the picture once.

    Attributes
    ----------
    network
        Such as `side_adapter_for` makes, or a published one for the base.
    picture, strength
        As in `Control`.
    """

    network: T2IAdapter
    picture: Tensor
    strength: float = 1.0

    def __call__(self, latents: Tensor, timestep: Tensor, text: Tensor, added: Added) -> dict[str, Any]:
        """What the U-Net takes beside its own features."""
        if not self.strength:
            return {}
        features = self.network(_rows(self.picture, latents))
        return {"down_intrablock_additional_residuals": [self.strength * feature for feature in features]}


@dataclass
class Together:
    """Several controls at once; what they say is added.

    Attributes
    ----------
    controls
        Any of `Control` and `SideAdapter`.
    """

    controls: Sequence[Control | SideAdapter]

    def __call__(self, latents: Tensor, timestep: Tensor, text: Tensor, added: Added) -> dict[str, Any]:
        """The sums."""
        total: dict[str, Any] = {}
        for control in self.controls:
            for key, value in control(latents, timestep, text, added).items():
                if key not in total:
                    total[key] = value
                elif isinstance(value, Tensor):
                    total[key] = total[key] + value
                else:
                    total[key] = type(value)(a + b for a, b in zip(total[key], value, strict=True))
        return total


@contextmanager
def controlled(unet: torch.nn.Module, control: Control | SideAdapter | Together | None) -> Iterator[None]:
    """Let a control act whenever a network is called within a ``with`` block, also by a stock pipeline.

    Parameters
    ----------
    unet
        A `UNet2DConditionModel`.
    control
        What acts; None for nothing.
    """

    def ask(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        latents, timestep = (*args, *(kwargs[name] for name in ("sample", "timestep")[len(args) :]))
        timestep = torch.as_tensor(timestep, device=latents.device)
        extra = control(latents, timestep, kwargs["encoder_hidden_states"], kwargs.get("added_cond_kwargs"))
        return args, {**kwargs, **extra}

    hook = unet.register_forward_pre_hook(ask, with_kwargs=True) if control is not None else None
    try:
        yield
    finally:
        if hook is not None:
            hook.remove()


def control_for(unet: torch.nn.Module, *, seed: int = 0) -> ControlNetModel:
    """A ControlNet to train: the U-Net's encoder again, which adds nothing at first.

    Parameters
    ----------
    unet
        A `UNet2DConditionModel` whose latents are an eighth of the picture's size.
    seed
        Of the part that reads the picture.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ControlNetModel.from_unet(unet)


def side_adapter_for(unet: torch.nn.Module, *, seed: int = 0) -> T2IAdapter:
    """A T2I-adapter to train.

    Parameters
    ----------
    unet
        A `UNet2DConditionModel` of Stable Diffusion's shape (each stage of half the size), whose latents are an
        eighth of the picture's size.
    seed
        Of its weights.
    """
    channels = list(unet.config.block_out_channels)
    # In SDXL the first stage has no attention, and what it gets is of half the size; the last goes to the middle.
    xl = not getattr(unet.down_blocks[0], "has_cross_attention", False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return T2IAdapter(
            in_channels=3,
            channels=[*channels, channels[-1]] if xl else channels,
            downscale_factor=16 if xl else 8,
            adapter_type="full_adapter_xl" if xl else "full_adapter",
        )
