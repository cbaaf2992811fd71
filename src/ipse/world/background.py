"""Backgrounds made by a procedure from a seed, indoors and outdoors.

Scenes are drawn as flat polygons in perspective (`ipse.world.scenery`), roughened with noise, lit by a smooth field and
put out of focus: at the sizes and depths of field of pictures of people that is what a background is. Drawing happens
in sRGB bytes, where Pillow is fast; the result is linear light.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from ipse.world import scenery
from ipse.world.scenery import Brush, Dice
from ipse.world.shot import BACKGROUNDS, Background
from ipse.world.skin import to_linear

_LONGEST = 512
"""No scene is drawn larger than this; larger pictures enlarge it."""
_LINEAR = to_linear(np.arange(256, dtype=np.float32) / 255)

_DRAW: dict[str, Callable[[Brush, Dice, scenery.RGB], None]] = {
    "plain": scenery.plain,
    "gradient": scenery.gradient,
    "studio": scenery.studio,
    "room": scenery.room,
    "office": scenery.office,
    "shelf": scenery.shelf,
    "street": scenery.street,
    "park": scenery.park,
    "sky": scenery.sky,
    "wall": scenery.wall,
    "bokeh": scenery.bokeh,
}
# (surface roughness, unevenness of the light, corners darkened)
_FINISH: dict[str, tuple[float, float, float]] = {
    "plain": (0.25, 0.05, 0.05),
    "gradient": (0.2, 0.04, 0.05),
    "studio": (0.3, 0.04, 0.15),
    "room": (0.8, 0.22, 0.14),
    "office": (0.7, 0.18, 0.12),
    "shelf": (0.9, 0.26, 0.18),
    "street": (1.0, 0.14, 0.12),
    "park": (1.0, 0.12, 0.12),
    "sky": (0.2, 0.04, 0.08),
    "wall": (0.9, 0.20, 0.16),
    "bokeh": (0.3, 0.10, 0.2),
}


def background(spec: Background, width: int, height: int) -> np.ndarray:
    """(height, width, 3) float32, linear light: what stands behind the person.

    Higher than wide it shows the floor that a whole person stands on; otherwise it is framed for head and shoulders.
    The array is shared between calls and must not be written to.
    """
    return _background(spec, width, height)


@lru_cache(maxsize=16)
def _background(spec: Background, width: int, height: int) -> np.ndarray:
    rough, uneven, corners = _FINISH[spec.kind]
    dice = Dice(spec.seed, BACKGROUNDS.index(spec.kind))
    finish = Dice(spec.seed, 1000)
    longest = max(width, height)
    # Depth of field, in pixels of the picture; even a sharp background is no sharper than a lens.
    sigma = longest * (0.0022 + 0.085 * spec.blur**1.5)
    scale = min(_draw_scale(sigma), _LONGEST / longest)
    size = (max(round(width * scale), 8), max(round(height * scale), 8))
    brush = Brush(Image.new("RGB", size))
    _DRAW[spec.kind](brush, dice, spec.color.rgb)
    image = brush.image
    if rough:
        image = ImageChops.soft_light(image, _grain(size, longest, rough, finish))
    if size != (width, height):
        if scale == 2:
            image = image.reduce(2)
            radius = sigma
        else:
            image = image.filter(ImageFilter.GaussianBlur(sigma * scale))
            image = image.resize((width, height), Image.Resampling.BICUBIC)
            radius = 0.0
    else:
        radius = sigma
    if radius > 0.3:
        image = image.filter(ImageFilter.GaussianBlur(radius))
    out = _LINEAR[np.asarray(image)]
    out *= _light(width, height, uneven, corners, finish)[..., None]
    out.flags.writeable = False
    return out


def _draw_scale(sigma: float) -> float:
    """What is blurred need not be drawn finely."""
    return 2.0 if sigma < 0.9 else 1.0 if sigma < 2.5 else 0.5 if sigma < 6 else 0.25


@lru_cache(maxsize=1)
def _noise() -> np.ndarray:
    """(1024, 1024) float32 noise that wraps around: zero mean, unit deviation, stronger the coarser (1/f^0.7)."""
    rng = np.random.default_rng(11)
    spectrum = np.fft.rfft2(rng.standard_normal((1024, 1024)))
    f = np.hypot(np.fft.fftfreq(1024)[:, None], np.fft.rfftfreq(1024)[None])
    noise = np.fft.irfft2(spectrum / np.maximum(f, 4 / 1024) ** 0.7)
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


@lru_cache(maxsize=8)
def _grain_image(strength: int) -> Image.Image:
    bytes_ = np.clip(128 + 0.01 * strength * 22 * _noise(), 0, 255).astype(np.uint8)
    return Image.fromarray(bytes_)


def _grain(size: tuple[int, int], longest: int, rough: float, dice: Dice) -> Image.Image:
    """What surfaces have beyond their color, for soft light: gray 128 leaves the color."""
    field = _grain_image(round(100 * rough))
    # The same piece of the field at every size of the picture.
    zoom = 512 / max(size)
    x, y = dice(0, 1024 - 512), dice(0, 1024 - 512)
    box = (x, y, x + size[0] * zoom, y + size[1] * zoom)
    gray = field.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=1.5)
    return Image.merge("RGB", (gray, gray, gray))


@lru_cache(maxsize=8)
def _smooth_light() -> np.ndarray:
    """(64, 64) float32: wrapping smooth fields, -1..1."""
    rng = np.random.default_rng(5)
    spectrum = np.fft.rfft2(rng.standard_normal((64, 64)))
    f = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64)[None])
    field = np.fft.irfft2(spectrum * np.exp(-((f / 0.045) ** 2)))
    return np.clip(field / (2 * field.std()), -1, 1).astype(np.float32)


@lru_cache(maxsize=8)
def _corners(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2) * 2


def _light(width: int, height: int, uneven: float, corners: float, dice: Dice) -> np.ndarray:
    """(H, W) float32: lamps and windows out of sight, and the lens's fall-off."""
    i, j = int(dice(0, 48)), int(dice(0, 48))
    patch = Image.fromarray(_smooth_light()[i : i + 12, j : j + 12])
    field = np.asarray(patch.resize((width, height), Image.Resampling.BICUBIC))
    return (1 + uneven * field) * (1 - corners * _corners(width, height))


