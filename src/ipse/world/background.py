"""Backgrounds made by a procedure from a seed, indoors and outdoors.

Scenes are drawn as flat polygons in perspective (`ipse.world.brush`), roughened with noise, lit by a smooth field and
put out of focus: at the sizes and depths of field of pictures of people that is what a background is. Drawing happens
in sRGB bytes, where Pillow is fast; the result is linear light.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from ipse.world import backdrops, indoors, outdoors
from ipse.world.brush import RGB, Brush, Dice
from ipse.world.shot import BACKGROUNDS, Background
from ipse.world.skin import to_linear

_LONGEST = 512
"""No scene is drawn larger than this; larger pictures enlarge it."""
_LINEAR = to_linear(np.arange(256, dtype=np.float32) / 255)

_DRAW: dict[str, Callable[[Brush, Dice, RGB], None]] = {
    "plain": backdrops.plain,
    "gradient": backdrops.gradient,
    "studio": backdrops.studio,
    "room": indoors.room,
    "office": indoors.office,
    "shelf": indoors.shelf,
    "street": outdoors.street,
    "park": outdoors.park,
    "sky": outdoors.sky,
    "wall": backdrops.wall,
    "bokeh": backdrops.bokeh,
}
# (surface roughness, unevenness of the light, corners darkened, finest scale to draw at)
_FINISH: dict[str, tuple[float, float, float, float]] = {
    "plain": (0.15, 0.05, 0.05, 0.125),
    "gradient": (0.12, 0.04, 0.05, 0.25),
    "studio": (0.15, 0.04, 0.15, 0.25),
    "room": (0.4, 0.22, 0.14, 1.5),
    "office": (0.35, 0.18, 0.12, 1.5),
    "shelf": (0.4, 0.26, 0.18, 1.5),
    "street": (0.35, 0.14, 0.12, 1.5),
    "park": (0.45, 0.12, 0.12, 1.0),
    "sky": (0.2, 0.04, 0.08, 1.0),
    "wall": (0.45, 0.20, 0.16, 1.0),
    "bokeh": (0.3, 0.10, 0.2, 1.0),
}


def background(spec: Background, width: int, height: int) -> np.ndarray:
    """(height, width, 3) float32, linear light: what stands behind the person.

    Higher than wide it shows the floor that a whole person stands on; otherwise it is framed for head and shoulders.
    The array is shared between calls and must not be written to.
    """
    return _background(spec, width, height)


@lru_cache(maxsize=16)
def _background(spec: Background, width: int, height: int) -> np.ndarray:
    rough, uneven, corners, finest = _FINISH[spec.kind]
    dice = Dice(spec.seed, BACKGROUNDS.index(spec.kind))
    place = dice(), dice(), dice(), dice()
    longest = max(width, height)
    # Depth of field, in pixels of the picture; even a sharp background is no sharper than a lens.
    sigma = longest * (0.0045 + 0.083 * spec.blur**1.5)
    scale = min(_draw_scale(sigma), finest, _LONGEST / longest)
    size = (max(round(width * scale), 8), max(round(height * scale), 8))
    brush = Brush(Image.new("RGB", size))
    _DRAW[spec.kind](brush, dice, spec.color.rgb)
    image = brush.image
    if scale < 1:
        image = image.filter(ImageFilter.GaussianBlur(sigma * scale))
    if scale != 1:
        image = image.resize((width, height), Image.Resampling.BICUBIC if scale < 1 else Image.Resampling.BILINEAR)
    # What is out of focus has no grain but the sensor's.
    rough = max(rough * (1 - 3 * spec.blur), 0.1)
    image = ImageChops.soft_light(image, _grain((width, height), rough, place[0], place[1]))
    if scale == 1 or (scale > 1 and sigma > 0.7):
        # At a pixel or two a box looks like the three that make a Gaussian, for a third of the time.
        image = image.filter(ImageFilter.BoxBlur((math.sqrt(12 * sigma**2 + 1) - 1) / 2))
    out = np.take(_LINEAR, np.asarray(image))
    light = _light(width, height, uneven, corners, place[2], place[3])
    for c in range(3):
        out[..., c] *= light
    out.flags.writeable = False
    return out


def _draw_scale(sigma: float) -> float:
    """What is blurred need not be drawn finely."""
    return 1.5 if sigma < 0.9 else 1.0 if sigma < 2.2 else 0.5 if sigma < 5 else 0.25


@lru_cache(maxsize=1)
def _noise() -> np.ndarray:
    """(1024, 1024) float32 noise that wraps around: zero mean, unit deviation, stronger the coarser (1/f^0.7)."""
    rng = np.random.default_rng(11)
    spectrum = np.fft.rfft2(rng.standard_normal((1024, 1024)))
    f = np.hypot(np.fft.fftfreq(1024)[:, None], np.fft.rfftfreq(1024)[None])
    noise = np.fft.irfft2(spectrum / np.maximum(f, 4 / 1024) ** 0.7)
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


@lru_cache(maxsize=64)
def _grain_image(strength: int, side: int) -> Image.Image:
    """The noise as gray pictures for soft light, where 128 changes nothing; `side` pixels high and wide."""
    gray = Image.fromarray(np.clip(128 + 1.1 * strength * _noise(), 0, 255).astype(np.uint8))
    if side != 1024:
        gray = gray.resize((side, side), Image.Resampling.BOX)
    return Image.merge("RGB", (gray, gray, gray))


def _grain(size: tuple[int, int], rough: float, u: float, v: float) -> Image.Image:
    """What surfaces have beyond their color: about the same piece of the noise at every size of the picture."""
    side = 64
    while side < 2 * max(size):
        side *= 2
    x, y = (round(t * (side - n - 1)) for t, n in zip((u, v), size, strict=True))
    return _grain_image(round(20 * rough), side).crop((x, y, x + size[0], y + size[1]))


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


def _light(width: int, height: int, uneven: float, corners: float, u: float, v: float) -> np.ndarray:
    """(H, W) float32: lamps and windows out of sight, and the lens's fall-off."""
    i, j = int(u * 48), int(v * 48)
    patch = Image.fromarray(_smooth_light()[i : i + 12, j : j + 12])
    field = np.asarray(patch.resize((width, height), Image.Resampling.BILINEAR))
    return (1 + uneven * field) * (1 - corners * _corners(width, height))
