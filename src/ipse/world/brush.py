"""The brush that backgrounds are painted with: flat shapes, shapes in perspective, clumps and glows.

Places in scenes with depth are in meters before a pinhole camera: x right, y up from the floor, z away from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

RGB = tuple[float, float, float]
_T = TypeVar("_T")

WOODS: tuple[RGB, ...] = ((0.52, 0.36, 0.23), (0.66, 0.50, 0.34), (0.36, 0.24, 0.16), (0.74, 0.62, 0.47))
CLOTHS: tuple[RGB, ...] = (
    (0.35, 0.37, 0.40),
    (0.60, 0.55, 0.48),
    (0.28, 0.34, 0.42),
    (0.45, 0.30, 0.26),
    (0.42, 0.44, 0.36),
)

BOOKS: tuple[RGB, ...] = (
    (0.45, 0.13, 0.12),
    (0.16, 0.24, 0.40),
    (0.17, 0.30, 0.22),
    (0.80, 0.75, 0.64),
    (0.28, 0.18, 0.13),
    (0.62, 0.48, 0.24),
    (0.13, 0.13, 0.14),
    (0.86, 0.85, 0.82),
    (0.50, 0.36, 0.44),
    (0.30, 0.44, 0.52),
    (0.70, 0.34, 0.18),
)


class Dice:
    """Fast seeded choices."""

    def __init__(self, *seed: int) -> None:
        self._numbers = np.random.default_rng(seed).random(512).tolist()
        self._next = 0

    def __call__(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number from `low` to `high`."""
        self._next = (self._next + 1) % 512
        return low + (high - low) * self._numbers[self._next]

    def pick(self, items: Sequence[_T]) -> _T:
        """One of the items."""
        return items[min(int(self() * len(items)), len(items) - 1)]

    def chance(self, probability: float) -> bool:
        """True with a probability."""
        return self() < probability


def mixed(a: RGB, b: RGB, weight: float) -> RGB:
    """`a` at weight 0, `b` at weight 1."""
    (p, q, r), (x, y, z) = a, b
    return p + (x - p) * weight, q + (y - q) * weight, r + (z - r) * weight


def lit(color: RGB, factor: float) -> RGB:
    """A color in more or less light."""
    return color[0] * factor, color[1] * factor, color[2] * factor


def to_bytes(color: RGB) -> tuple[int, int, int]:
    """A color as Pillow takes it, 0..255."""
    r, g, b = (int(255 * c + 0.5) for c in color)
    return (r if r < 255 else 255, g if g < 255 else 255, b if b < 255 else 255)


class Brush:
    """Draws on an image, flat and in perspective.

    Flat coordinates are in image heights: x from the middle to the right, y from the top down. `tall` pictures show a
    whole person and the floor, others head and shoulders.
    """

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self._draw = ImageDraw.Draw(image)
        self.width, self.height = image.size
        self.aspect = self.width / self.height
        self.tall = self.aspect < 0.8
        self.look(2.2, 0.5, 0.0, 1.55)

    def look(self, focal: float, horizon: float, yaw: float, eye: float) -> None:
        """Set the camera: focal length and horizon in image heights, yaw to the right in degrees, height in meters."""
        self.focal, self.horizon, self.eye = focal, horizon, eye
        self._cos, self._sin = float(np.cos(np.radians(yaw))), float(np.sin(np.radians(yaw)))

    def usual_look(self, dice: Dice, yaw: float) -> None:
        """A camera as people are photographed: from farther with the floor in view when tall."""
        turn = dice(-yaw, yaw)
        if self.tall:
            self.look(dice(1.6, 2.3), dice(0.22, 0.36), turn, 1.5)
        else:
            self.look(dice(1.5, 2.8), dice(0.44, 0.58), turn, 1.5)

    def fill(self, color: RGB) -> None:
        """Paint everything."""
        self.image.paste(to_bytes(color), (0, 0, self.width, self.height))

    def flat(self, points: Sequence[tuple[float, float]], color: RGB) -> None:
        """A polygon in flat coordinates."""
        h, middle = self.height, self.width / 2
        self._draw.polygon([(middle + x * h, y * h) for x, y in points], to_bytes(color))

    def band(self, top: float, bottom: float, color: RGB) -> None:
        """Everything between two heights."""
        self._draw.rectangle((0, top * self.height, self.width, bottom * self.height), fill=to_bytes(color))

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: RGB) -> None:
        """An ellipse in flat coordinates."""
        h, middle = self.height, self.width / 2
        box = (middle + (x - rx) * h, (y - ry) * h, middle + (x + rx) * h, (y + ry) * h)
        self._draw.ellipse(box, fill=to_bytes(color))

    def at(self, x: float, y: float, z: float) -> tuple[float, float, float]:
        """Flat coordinates of a place in meters, and image heights per meter there."""
        depth = max(self._cos * z + self._sin * x, 0.2)
        scale = self.focal / depth
        return (self._cos * x - self._sin * z) * scale, self.horizon + (self.eye - y) * scale, scale

    def solid(self, corners: Sequence[tuple[float, float, float]], color: RGB) -> None:
        """A polygon in meters, cut at the camera."""
        c, s, near = self._cos, self._sin, 0.25
        seen = [(c * x - s * z, y, c * z + s * x) for x, y, z in corners]
        behind = sum(z < near for _, _, z in seen)
        if behind == len(seen):
            return
        if behind:
            cut = []
            for (ax, ay, az), (bx, by, bz) in zip(seen, seen[1:] + seen[:1], strict=True):
                if az >= near:
                    cut.append((ax, ay, az))
                if (az < near) != (bz < near):
                    t = (near - az) / (bz - az)
                    cut.append((ax + t * (bx - ax), ay + t * (by - ay), near))
            seen = cut
        h, eye = self.height, self.eye
        middle, level, f = self.width / 2, self.horizon * h, self.focal * h
        points = [(middle + f * x / z, level + f * (eye - y) / z) for x, y, z in seen]
        xs = [x for x, _ in points]
        # Pillow would scan what lies beside the picture, too.
        if max(xs) > 0 and min(xs) < self.width:
            self._draw.polygon(points, to_bytes(color))

    def upright(self, x0: float, x1: float, y0: float, y1: float, z: float, color: RGB) -> None:
        """A rectangle that faces the camera's zero yaw."""
        self.solid(((x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)), color)

    def side(self, x: float, y0: float, y1: float, z0: float, z1: float, color: RGB) -> None:
        """A rectangle that faces sideways."""
        self.solid(((x, y0, z0), (x, y0, z1), (x, y1, z1), (x, y1, z0)), color)

    def level(self, x0: float, x1: float, y: float, z0: float, z1: float, color: RGB) -> None:
        """A level rectangle: floor, table top, ceiling."""
        self.solid(((x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)), color)

    def box(self, x0: float, x1: float, y0: float, y1: float, z0: float, z1: float, color: RGB) -> None:
        """A block: top, the side that shows, front."""
        camera = self._sin * 0.0
        if y1 < self.eye:
            self.level(x0, x1, y1, z0, z1, lit(color, 1.18))
        if x0 > camera:
            self.side(x0, y0, y1, z0, z1, lit(color, 0.66))
        elif x1 < camera:
            self.side(x1, y0, y1, z0, z1, lit(color, 0.80))
        self.upright(x0, x1, y0, y1, z0, color)

    def fade(self, top: float, bottom: float, upper: RGB, lower: RGB) -> None:
        """A vertical transition between two heights."""
        y0, y1 = max(round(top * self.height), 0), min(round(bottom * self.height), self.height)
        if y1 <= y0:
            return
        ramp = _ramp().resize((self.width, y1 - y0), Image.Resampling.BILINEAR)
        strip = Image.composite(
            Image.new("RGB", ramp.size, to_bytes(lower)), Image.new("RGB", ramp.size, to_bytes(upper)), ramp
        )
        self.image.paste(strip, (0, y0))

    def through(self, mask: Image.Image, color: RGB) -> None:
        """Paint through a mask of the image's size."""
        self.image.paste(to_bytes(color), (0, 0, self.width, self.height), mask)

    def pool(self, x: float, y: float, radius: float, color: RGB, strength: float) -> None:
        """Light that falls off smoothly around a place."""
        h = self.height
        size = max(round(2 * radius * h), 2)
        glow = _glow(round(strength, 1)).resize((size, size), Image.Resampling.BILINEAR)
        left, top = round(self.width / 2 + (x - radius) * h), round((y - radius) * h)
        self.image.paste(to_bytes(color), (left, top, left + size, top + size), glow)


@lru_cache(maxsize=1)
def _ramp() -> Image.Image:
    return Image.fromarray(np.arange(256, dtype=np.uint8)[:, None])


@lru_cache(maxsize=16)
def _glow(strength: float) -> Image.Image:
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    return Image.fromarray((255 * strength * np.clip(1 - np.hypot(x, y), 0, 1) ** 1.5).astype(np.uint8))


@lru_cache(maxsize=1)
def _clumps() -> Image.Image:
    """(512, 512) wrapping noise with features at all sizes, bytes spread evenly over 0..255: clouds, leaves, stains."""
    rng = np.random.default_rng(7)
    spectrum = np.fft.rfft2(rng.standard_normal((512, 512)))
    f = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512)[None])
    field = np.fft.irfft2(spectrum / np.maximum(f, 3 / 512) ** 1.35)
    rank = np.empty(field.size)
    rank[field.ravel().argsort()] = np.linspace(0, 255.99, field.size)
    return Image.fromarray(rank.reshape(field.shape).astype(np.uint8))


def clump(brush: Brush, dice: Dice, repeat: float, stretch: float = 1.0) -> Image.Image:
    """A piece of the clump field over the image: `repeat` tells how much of it, `stretch` widens it."""
    w = min(512 * repeat * brush.width / max(brush.width, brush.height) / stretch, 500)
    h = min(512 * repeat * brush.height / max(brush.width, brush.height), 500)
    x, y = dice(0, 511 - w), dice(0, 511 - h)
    return _clumps().resize(brush.image.size, Image.Resampling.BILINEAR, box=(x, y, x + w, y + h))


@lru_cache(maxsize=256)
def _step_table(threshold: float, softness: float, opacity: float) -> list[int]:
    ramp = (np.arange(256) / 255 - threshold) / softness + 0.5
    return (255 * opacity * np.clip(ramp, 0, 1)).astype(int).tolist()


def above(field: Image.Image, threshold: float, softness: float, opacity: float = 1.0) -> Image.Image:
    """A mask of where a field exceeds a threshold (0..1), its edge as wide as `softness`."""
    return field.point(_step_table(round(threshold, 2), softness, opacity))
