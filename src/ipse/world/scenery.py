"""What backgrounds show, drawn: rooms, offices, shelves, streets, parks, skies, walls and lights.

Scenes with depth are set up in meters before a pinhole camera: x right, y up from the floor, z away from the camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

RGB = tuple[float, float, float]
_T = TypeVar("_T")

_WALLS: tuple[RGB, ...] = (
    (0.86, 0.84, 0.80),
    (0.80, 0.76, 0.69),
    (0.76, 0.77, 0.77),
    (0.72, 0.75, 0.70),
    (0.74, 0.79, 0.82),
    (0.83, 0.77, 0.72),
    (0.62, 0.60, 0.58),
)
_WOODS: tuple[RGB, ...] = ((0.52, 0.36, 0.23), (0.66, 0.50, 0.34), (0.36, 0.24, 0.16), (0.74, 0.62, 0.47))
_CLOTHS: tuple[RGB, ...] = (
    (0.35, 0.37, 0.40),
    (0.60, 0.55, 0.48),
    (0.28, 0.34, 0.42),
    (0.45, 0.30, 0.26),
    (0.42, 0.44, 0.36),
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


def _bytes(color: RGB) -> tuple[int, int, int]:
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
        self.image.paste(_bytes(color), (0, 0, self.width, self.height))

    def flat(self, points: Sequence[tuple[float, float]], color: RGB) -> None:
        """A polygon in flat coordinates."""
        h, middle = self.height, self.width / 2
        self._draw.polygon([(middle + x * h, y * h) for x, y in points], _bytes(color))

    def band(self, top: float, bottom: float, color: RGB) -> None:
        """Everything between two heights."""
        self._draw.rectangle((0, top * self.height, self.width, bottom * self.height), fill=_bytes(color))

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: RGB) -> None:
        """An ellipse in flat coordinates."""
        h, middle = self.height, self.width / 2
        box = (middle + (x - rx) * h, (y - ry) * h, middle + (x + rx) * h, (y + ry) * h)
        self._draw.ellipse(box, fill=_bytes(color))

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
            self._draw.polygon(points, _bytes(color))

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
            Image.new("RGB", ramp.size, _bytes(lower)), Image.new("RGB", ramp.size, _bytes(upper)), ramp
        )
        self.image.paste(strip, (0, y0))

    def through(self, mask: Image.Image, color: RGB) -> None:
        """Paint through a mask of the image's size."""
        self.image.paste(_bytes(color), (0, 0, self.width, self.height), mask)

    def pool(self, x: float, y: float, radius: float, color: RGB, strength: float) -> None:
        """Light that falls off smoothly around a place."""
        h = self.height
        size = max(round(2 * radius * h), 2)
        glow = _glow(round(strength, 1)).resize((size, size), Image.Resampling.BILINEAR)
        left, top = round(self.width / 2 + (x - radius) * h), round((y - radius) * h)
        self.image.paste(_bytes(color), (left, top, left + size, top + size), glow)


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


def _clump(brush: Brush, dice: Dice, repeat: float, stretch: float = 1.0) -> Image.Image:
    """A piece of the clump field over the image: `repeat` tells how much of it, `stretch` widens it."""
    w = min(512 * repeat * brush.width / max(brush.width, brush.height) / stretch, 500)
    h = min(512 * repeat * brush.height / max(brush.width, brush.height), 500)
    x, y = dice(0, 511 - w), dice(0, 511 - h)
    return _clumps().resize(brush.image.size, Image.Resampling.BILINEAR, box=(x, y, x + w, y + h))


@lru_cache(maxsize=256)
def _step_table(threshold: float, softness: float, opacity: float) -> list[int]:
    ramp = (np.arange(256) / 255 - threshold) / softness + 0.5
    return (255 * opacity * np.clip(ramp, 0, 1)).astype(int).tolist()


def _step(field: Image.Image, threshold: float, softness: float, opacity: float = 1.0) -> Image.Image:
    """A mask of where a field exceeds a threshold (0..1), its edge as wide as `softness`."""
    return field.point(_step_table(round(threshold, 2), softness, opacity))


def plain(brush: Brush, dice: Dice, color: RGB) -> None:
    """One color."""
    brush.fill(color)


def gradient(brush: Brush, dice: Dice, color: RGB) -> None:
    """From a lighter to a darker shade, upright or slanted."""
    light, dark = mixed(lit(color, 1.15), (1, 1, 1), dice(0.1, 0.45)), lit(color, dice(0.35, 0.7))
    if dice.chance(0.35):
        light, dark = dark, light
    brush.fade(0, 1, light, dark)
    if dice.chance(0.5):
        brush.pool(dice(-0.4, 0.4), dice(0.1, 0.6), dice(0.5, 0.9), mixed(light, (1, 1, 1), 0.3), 0.5)


def studio(brush: Brush, dice: Dice, color: RGB) -> None:
    """A paper backdrop with a pool of light behind the person."""
    base = lit(color, dice(0.45, 0.8))
    brush.fill(base)
    if brush.tall:
        sweep = dice(0.68, 0.8)
        brush.fade(sweep - 0.06, sweep + 0.05, base, lit(color, 0.95))
        brush.fade(sweep + 0.05, 1, lit(color, 0.95), lit(color, 0.75))
    x, y = dice(-0.15, 0.15), dice(0.3, 0.5) * (0.8 if brush.tall else 1)
    brush.pool(x, y, dice(0.55, 0.85), mixed(lit(color, 1.25), (1, 1, 1), dice(0.05, 0.3)), dice(0.6, 0.95))
    brush.pool(x, y - 0.05, 0.35, mixed(lit(color, 1.3), (1, 1, 1), 0.35), dice(0.15, 0.45))


def _window(brush: Brush, dice: Dice, x0: float, x1: float, y0: float, y1: float, z: float) -> None:
    """A window in the wall at `z`: bright outside, frame, bars, perhaps curtains."""
    frame = (0.90, 0.90, 0.88)
    brush.upright(x0 - 0.07, x1 + 0.07, y0 - 0.1, y1 + 0.07, z - 0.01, lit(frame, 0.82))
    sky = dice.pick(((0.93, 0.96, 1.0), (0.80, 0.89, 0.98), (1.0, 0.97, 0.90)))
    steps = 5
    for k in range(steps):
        a, b = y0 + (y1 - y0) * k / steps, y0 + (y1 - y0) * (k + 1) / steps
        tone = mixed((0.45, 0.52, 0.36), sky, min(1, (k + 0.6) / steps * 1.7))
        brush.upright(x0, x1, a, b, z - 0.012, tone)
    bars = dice.pick((1, 2, 3))
    for k in range(bars + 1):
        x = x0 + (x1 - x0) * k / bars
        brush.upright(x - 0.025, x + 0.025, y0, y1, z - 0.02, frame)
    middle = y0 + (y1 - y0) * dice(0.5, 0.7)
    brush.upright(x0, x1, middle - 0.02, middle + 0.02, z - 0.02, frame)
    if dice.chance(0.55):
        cloth = lit(dice.pick(((0.86, 0.84, 0.78), *_CLOTHS)), 1.05)
        for start, sign in ((x0 - 0.35, 1), (x1 + 0.35, -1)):
            for k in range(5):
                a = start + sign * 0.11 * k
                brush.upright(
                    min(a, a + sign * 0.11),
                    max(a, a + sign * 0.11),
                    y0 - 0.6,
                    y1 + 0.15,
                    z - 0.06,
                    lit(cloth, (0.86, 1.05, 0.93, 1.1, 0.8)[k]),
                )


def _picture(brush: Brush, dice: Dice, x: float, y: float, z: float, color: RGB) -> None:
    """A framed picture, its middle at x, y."""
    w, h = dice(0.18, 0.45), dice(0.2, 0.4)
    frame = dice.pick(((0.12, 0.11, 0.10), (0.85, 0.84, 0.82), *_WOODS))
    brush.upright(x - w + 0.02, x + w + 0.03, y - h - 0.03, y + h - 0.02, z - 0.005, (0.45, 0.43, 0.41))
    brush.upright(x - w, x + w, y - h, y + h, z - 0.02, frame)
    w, h = w - 0.03, h - 0.03
    brush.upright(x - w, x + w, y - h, y + h, z - 0.025, (0.88, 0.87, 0.83))
    w, h = w * 0.78, h * 0.78
    brush.upright(x - w, x + w, y - h, y + h, z - 0.03, mixed(color, dice.pick(_CLOTHS), dice()))
    split = y + h * dice(-0.6, 0.5)
    brush.upright(x - w, x + w, y - h, split, z - 0.031, mixed(dice.pick(_CLOTHS), (0.75, 0.7, 0.6), dice(0, 0.6)))
    a = x + w * dice(-0.8, 0.2)
    brush.upright(
        a, a + w * dice(0.3, 0.7), y - h * 0.8, y + h * dice(-0.2, 0.7), z - 0.032, lit(color, dice(0.5, 1.2))
    )


def _plant(brush: Brush, dice: Dice, x: float, y: float, z: float, size: float) -> None:
    """A potted plant that stands at x, z on a surface at y."""
    pot = dice.pick(((0.62, 0.36, 0.25), (0.82, 0.81, 0.78), (0.25, 0.25, 0.26)))
    brush.upright(x - 0.14 * size, x + 0.14 * size, y, y + 0.28 * size, z, pot)
    green = mixed((0.20, 0.34, 0.16), (0.40, 0.50, 0.25), dice())
    cx, cy, scale = brush.at(x, y + 0.3 * size, z)
    for _ in range(16):
        angle, reach = dice(-1.3, 1.3), dice(0.25, 0.75) * size * scale
        tip = (cx + np.sin(angle) * reach, cy - np.cos(angle) * reach)
        across = 0.07 * size * scale * dice(0.6, 1.5)
        mid = ((cx + tip[0]) / 2, (cy + tip[1]) / 2)
        nx, ny = np.cos(angle) * across, np.sin(angle) * across
        brush.flat(((cx, cy), (mid[0] + nx, mid[1] + ny), tip, (mid[0] - nx, mid[1] - ny)), lit(green, dice(0.6, 1.35)))


def _shell(
    brush: Brush, dice: Dice, wall: RGB, floor: RGB, left: float, right: float, depth: float, top: float
) -> None:
    """A room's back and side walls, ceiling, floor and baseboards."""
    near = 0.3
    brush.fill(lit(wall, 0.8))
    brush.level(left, right, top, near, depth, lit((0.90, 0.89, 0.87), 0.9))
    brush.level(left, right, 0, near, depth, floor)
    bright = dice(-1, 1)
    steps = 7
    for k in range(steps):
        a, b = left + (right - left) * k / steps, left + (right - left) * (k + 1) / steps
        brush.upright(a, b + 0.01, 0, top, depth, lit(wall, 1 + 0.09 * bright * (2 * k / (steps - 1) - 1)))
    for x, shade in ((left, 0.92 - 0.12 * bright), (right, 0.92 + 0.12 * bright)):
        for k in range(4):
            a, b = near + (depth - near) * k / 4, near + (depth - near) * (k + 1) / 4
            brush.side(x, 0, top, a, b, lit(wall, shade * (1.06 - 0.03 * k)))
        brush.side(x, 0, 0.11, near, depth, lit((0.88, 0.87, 0.85), shade))
    brush.upright(left, right, 0, 0.11, depth - 0.01, (0.86, 0.85, 0.83))
    brush.level(left, right, 0.001, depth - 0.12, depth, lit(floor, 0.7))


def _boards(brush: Brush, dice: Dice, floor: RGB, left: float, right: float, depth: float) -> None:
    """Floor boards that run away from the camera, or tiles."""
    if dice.chance(0.6):
        step = dice(0.16, 0.3)
        for k in range(int((right - left) / step)):
            if k % 2 or dice.chance(0.4):
                x = left + k * step
                brush.level(x, x + step, 0.001, 0.3, depth, lit(floor, dice(0.86, 1.1)))
    else:
        step = dice(0.6, 0.9)
        for k in range(int(depth / step) + 1):
            brush.level(left, right, 0.001, k * step, k * step + 0.03, lit(floor, 0.82))
        for k in range(int((right - left) / step)):
            brush.level(left + k * step, left + k * step + 0.03, 0.001, 0.3, depth, lit(floor, 0.82))


def room(brush: Brush, dice: Dice, color: RGB) -> None:
    """A living room: walls, window, door, pictures, sofa, lamp, plant."""
    brush.usual_look(dice, 24)
    wall = mixed(dice.pick(_WALLS), color, 0.22)
    wood = dice.pick(_WOODS)
    floor = dice.pick((*_WOODS, (0.62, 0.58, 0.53)))
    depth, left, right = dice(5.5, 7.5), -dice(1.8, 3.2), dice(1.8, 3.2)
    _shell(brush, dice, wall, floor, left, right, depth, dice(2.5, 2.9))
    _boards(brush, dice, floor, left, right, depth)
    if dice.chance(0.5):
        rug = mixed(color, dice.pick(_CLOTHS), 0.5)
        brush.level(left * 0.6, right * 0.6, 0.005, depth - 2.6, depth - 0.9, rug)
        brush.level(left * 0.55, right * 0.55, 0.006, depth - 2.5, depth - 1.0, lit(rug, 1.2))
    # The back wall in three places: window or door, pictures, furniture before it.
    places = [left * 0.62, 0.0, right * 0.62]
    for x in places:
        what = dice()
        if what < 0.34:
            w = dice(0.45, 0.75)
            _window(brush, dice, x - w, x + w, dice(0.8, 1.0), dice(2.0, 2.3), depth)
        elif what < 0.5:
            door = dice.pick((lit(wood, 1.1), (0.86, 0.85, 0.82), (0.70, 0.70, 0.68)))
            brush.upright(x - 0.52, x + 0.52, 0, 2.16, depth - 0.01, lit(door, 0.84))
            brush.upright(x - 0.45, x + 0.45, 0, 2.08, depth - 0.02, door)
            for a, b in ((0.2, 0.95), (1.1, 1.9)):
                brush.upright(x - 0.3, x + 0.3, a, b, depth - 0.021, lit(door, 0.9))
            brush.upright(x + 0.33, x + 0.41, 0.98, 1.04, depth - 0.05, (0.45, 0.43, 0.38))
        elif what < 0.82:
            _picture(brush, dice, x, dice(1.45, 1.75), depth, color)
            if dice.chance(0.4):
                _picture(brush, dice, x + dice(0.5, 0.8), dice(1.45, 1.75), depth, color)
    sofa, x, z = mixed(color, dice.pick(_CLOTHS), dice(0.2, 0.7)), dice(left * 0.5, right * 0.5), depth - 1.0
    what = dice()
    if what < 0.45:
        w = dice(0.8, 1.1)
        brush.box(x - w, x + w, 0.1, 0.85, z + 0.55, z + 0.85, lit(sofa, 0.95))
        brush.box(x - w, x + w, 0.1, 0.45, z, z + 0.6, sofa)
        for sign in (-1, 1):
            brush.box(x + sign * w - 0.1, x + sign * w + 0.1, 0.1, 0.62, z - 0.02, z + 0.8, lit(sofa, 0.88))
        for _ in range(2):
            a = x + dice(-0.8, 0.5) * w
            brush.upright(a, a + 0.4, 0.45, 0.8, z + 0.4, lit(dice.pick(_CLOTHS), dice(1.0, 1.5)))
    elif what < 0.8:
        w, h = dice(0.5, 0.9), dice(0.7, 1.1)
        brush.box(x - w, x + w, 0, h, z + 0.4, depth, wood)
        for k in (-1, 0, 1):
            brush.upright(
                x + k * w * 0.66 - w * 0.3, x + k * w * 0.66 + w * 0.3, 0.1, h - 0.06, z + 0.39, lit(wood, 0.88)
            )
        for _ in range(3):
            a = x + dice(-0.8, 0.7) * w
            brush.upright(
                a, a + dice(0.08, 0.2), h, h + dice(0.1, 0.35), z + 0.6, mixed(dice.pick(_CLOTHS), color, dice())
            )
    if dice.chance(0.6):
        lx, lz = dice.pick((left + 0.5, right - 0.5)), depth - dice(0.5, 1.2)
        brush.upright(lx - 0.015, lx + 0.015, 0, 1.35, lz, (0.2, 0.19, 0.18))
        shade = mixed((1.0, 0.92, 0.76), (0.95, 0.93, 0.9), dice())
        brush.solid(((lx - 0.24, 1.3, lz), (lx + 0.24, 1.3, lz), (lx + 0.15, 1.66, lz), (lx - 0.15, 1.66, lz)), shade)
        cx, cy, scale = brush.at(lx, 1.5, lz)
        brush.pool(cx, cy, 0.9 * scale, (1.0, 0.93, 0.8), 0.4)
    if dice.chance(0.55):
        _plant(brush, dice, dice.pick((left + 0.45, right - 0.45)), 0, depth - dice(0.4, 1.5), dice(0.8, 1.7))


def office(brush: Brush, dice: Dice, color: RGB) -> None:
    """An office: ceiling lights, windows or boards, desks with screens, cabinets."""
    brush.usual_look(dice, 22)
    wall = mixed(dice.pick(((0.82, 0.83, 0.83), (0.78, 0.78, 0.75), (0.72, 0.76, 0.79))), color, 0.14)
    floor = dice.pick(((0.40, 0.42, 0.45), (0.52, 0.50, 0.47), (0.34, 0.36, 0.38), (0.62, 0.60, 0.57)))
    depth, left, right, top = dice(7, 10), -dice(2.5, 4), dice(2.5, 4), 2.7
    _shell(brush, dice, wall, floor, left, right, depth, top)
    for z in np.arange(1.2, depth - 0.5, 1.2):
        for x in np.arange(left + 0.6, right - 0.6, 1.7):
            lamp = dice.chance(0.6)
            brush.level(x, x + 1.1, top - 0.01, z, z + 0.45, (1.0, 1.0, 0.97) if lamp else (0.80, 0.80, 0.79))
    what = dice()
    if what < 0.5:
        x = left + 0.25
        while x < right - 1:
            w = dice(1.1, 1.5)
            tone = dice.pick(((0.82, 0.90, 0.97), (0.90, 0.94, 0.98)))
            brush.upright(x, x + w, 0.85, 2.35, depth - 0.01, tone)
            for _ in range(3):
                a = x + dice(0, 0.8) * w
                brush.upright(
                    a, min(a + dice(0.2, 0.5), x + w), 0.85, dice(1.1, 2.0), depth - 0.011, lit(tone, dice(0.72, 0.9))
                )
            if dice.chance(0.5):
                for y in np.arange(dice(1.2, 1.8), 2.35, 0.11):
                    brush.upright(x, x + w, y, y + 0.045, depth - 0.02, (0.86, 0.86, 0.84))
            brush.upright(x + w, x + w + 0.1, 0.85, 2.35, depth - 0.02, (0.6, 0.61, 0.62))
            x += w + 0.1
    elif what < 0.75:
        x = dice(left * 0.5, 0)
        brush.upright(x - 0.04, x + 1.84, 0.96, 2.14, depth - 0.01, (0.62, 0.63, 0.64))
        brush.upright(x, x + 1.8, 1.0, 2.1, depth - 0.02, (0.95, 0.96, 0.96))
        for k in range(6):
            a, y = x + 0.15 + 0.05 * dice(), 1.95 - 0.14 * k
            ink = dice.pick(((0.15, 0.2, 0.5), (0.5, 0.12, 0.12), (0.15, 0.15, 0.17)))
            brush.upright(a, a + dice(0.4, 1.4), y, y + 0.025, depth - 0.03, ink)
    else:
        for x in (left * 0.7, left * 0.1, right * 0.5):
            _picture(brush, dice, x, 1.6, depth, color)
    cabinet = dice.pick(((0.55, 0.57, 0.59), (0.75, 0.75, 0.73), (0.50, 0.40, 0.30)))
    x = dice.pick((left + 0.1, right - 1.0))
    brush.box(x, x + 0.9, 0, dice(1.2, 2.0), depth - 0.5, depth, cabinet)
    for y in (0.35, 0.75, 1.12):
        brush.upright(x + 0.05, x + 0.85, y, y + 0.02, depth - 0.51, lit(cabinet, 0.6))
    desk = dice.pick(((0.80, 0.78, 0.74), (0.62, 0.48, 0.34), (0.35, 0.33, 0.32)))
    for z in (depth - 1.7, depth - 3.4):
        for x in (left * 0.55 + dice(-0.4, 0.4), right * 0.5 + dice(-0.4, 0.4)):
            if dice.chance(0.2):
                continue
            if dice.chance(0.5):
                panel = mixed(color, (0.5, 0.52, 0.54), 0.55)
                brush.box(x - 0.85, x + 0.85, 0.3, 1.2, z + 0.72, z + 0.76, panel)
            brush.box(x - 0.8, x + 0.8, 0.70, 0.74, z, z + 0.7, desk)
            for sign in (-1, 1):
                brush.upright(x + sign * 0.74 - 0.03, x + sign * 0.74 + 0.03, 0, 0.7, z + 0.05, lit(desk, 0.55))
            a = x + dice(-0.4, 0.2)
            screen = dice.pick(((0.07, 0.07, 0.08), (0.55, 0.68, 0.82), (0.80, 0.84, 0.88)))
            brush.upright(a + 0.2, a + 0.3, 0.74, 0.95, z + 0.4, (0.15, 0.15, 0.16))
            brush.upright(a - 0.04, a + 0.54, 0.88, 1.24, z + 0.39, (0.09, 0.09, 0.10))
            brush.upright(a - 0.01, a + 0.51, 0.91, 1.21, z + 0.38, screen)
            if dice.chance(0.5):
                b = x + dice(-0.5, 0.5)
                chair = mixed((0.13, 0.13, 0.15), color, 0.3)
                brush.box(b - 0.25, b + 0.25, 0.42, 0.50, z - 0.5, z - 0.05, chair)
                brush.upright(b - 0.22, b + 0.22, 0.55, 1.05, z - 0.5, chair)
                brush.upright(b - 0.03, b + 0.03, 0.1, 0.5, z - 0.25, (0.2, 0.2, 0.21))
    if dice.chance(0.5):
        _plant(brush, dice, dice.pick((left + 0.5, right - 0.5)), 0, depth - dice(0.6, 2), dice(0.9, 1.6))


_BOOKS: tuple[RGB, ...] = (
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


def shelf(brush: Brush, dice: Dice, color: RGB) -> None:
    """Shelves full of books and things."""
    brush.usual_look(dice, 16)
    wood = dice.pick((*_WOODS, (0.80, 0.78, 0.74), (0.20, 0.17, 0.15)))
    z, deep = dice(4.2, 5.4) if brush.tall else dice(1.9, 3.0), 0.28
    brush.fill(lit(wood, 0.35))
    brush.level(-6, 6, 0, 0.3, z + deep, dice.pick(_WOODS))
    reach = 0.65 * brush.aspect * z / brush.focal + 0.8 * abs(brush._sin) * z
    low, high = (0.08, 2.6) if brush.tall else (brush.eye - 0.75 * z / brush.focal, brush.eye + 0.75 * z / brush.focal)
    step, wide = dice(0.30, 0.40), dice(0.8, 1.3)
    # Books narrower than a pixel would only cost time.
    finest = 1.2 * z / (brush.focal * brush.height)
    # Cut to what the picture shows of the wall.
    offset = -brush._sin / brush._cos * -z
    brush.upright(offset - reach, offset + reach, low, high, z + deep, lit(wood, 0.45))
    y = low - dice(0, step) * (not brush.tall)
    while y < high:
        x = offset - reach
        while x < offset + reach:
            kind = dice()
            if kind < 0.86:
                w, h = max(dice(0.022, 0.07), finest), step * dice(0.55, 0.86)
                tone = lit(mixed(dice.pick(_BOOKS), color, 0.15), dice(0.75, 1.15))
                brush.upright(x, x + w, y, y + h, z + 0.04, tone)
                if kind < 0.22:
                    brush.upright(
                        x, x + w, y + h * 0.7, y + h * 0.78, z + 0.035, lit(tone, 1.6 if tone[0] < 0.5 else 0.5)
                    )
                x += w + 0.003
            elif kind < 0.93:
                x += dice(0.05, 0.25)
            else:
                w = dice(0.1, 0.2)
                tone = mixed(color, dice.pick(((0.8, 0.78, 0.74), (0.3, 0.3, 0.32), (0.6, 0.45, 0.3))), dice())
                brush.box(x, x + w, y, y + step * dice(0.3, 0.6), z + 0.05, z + 0.2, tone)
                x += w + 0.03
        brush.upright(offset - reach, offset + reach, y - 0.03, y, z, wood)
        brush.upright(offset - reach, offset + reach, y - 0.075, y - 0.03, z + 0.03, lit(wood, 0.3))
        y += step
    x = offset - reach + dice(0, wide)
    while x < offset + reach:
        brush.upright(x, x + 0.035, low - step, high, z - 0.005, lit(wood, 0.95))
        x += wide


def _sky_colors(dice: Dice) -> tuple[RGB, RGB]:
    return dice.pick(
        (
            ((0.25, 0.47, 0.78), (0.68, 0.80, 0.91)),
            ((0.38, 0.58, 0.82), (0.80, 0.86, 0.91)),
            ((0.62, 0.67, 0.73), (0.80, 0.82, 0.83)),
            ((0.52, 0.58, 0.72), (0.95, 0.80, 0.66)),
        )
    )


def sky(brush: Brush, dice: Dice, color: RGB) -> None:
    """Sky with clouds, sometimes over a far horizon."""
    upper, lower = _sky_colors(dice)
    upper = mixed(upper, color, 0.10)
    brush.fade(0, 1, upper, lower)
    cover = dice(0.1, 0.6)
    clouds = _clump(brush, dice, dice(0.3, 0.6), dice(1.3, 2.2))
    brush.through(_step(clouds, 1 - cover, 0.5, 0.85), mixed((0.92, 0.92, 0.93), lower, 0.2))
    brush.through(_step(clouds, 1 - 0.45 * cover, 0.5, 0.55), mixed((0.72, 0.74, 0.79), lower, 0.3))
    if dice.chance(0.5) or brush.tall:
        y = dice(0.78, 0.92)
        haze = mixed(lower, (0.36, 0.42, 0.40), 0.5)
        hills = [(-0.6 * brush.aspect, 1.0)]
        hills += [(brush.aspect * (k / 12 - 0.5) * 1.1, y - dice(0, 0.05)) for k in range(13)]
        brush.flat([*hills, (0.6 * brush.aspect, 1.0)], haze)
        brush.fade(y + 0.02, 1, lit(haze, 0.85), (0.36, 0.38, 0.28))


def _tree(brush: Brush, dice: Dice, x: float, z: float, tall: float, leaves: Image.Image) -> None:
    """A tree: trunk, and a crown cut from `leaves`, which is as large as the picture."""
    cx, base, scale = brush.at(x, 0, z)
    height, wide = tall * scale, tall * scale * dice(0.30, 0.42)
    trunk = lit((0.30, 0.24, 0.18), dice(0.7, 1.2))
    t = 0.025 * height
    brush.flat(
        ((cx - t, base), (cx + t, base), (cx + 0.6 * t, base - 0.6 * height), (cx - 0.6 * t, base - 0.6 * height)),
        trunk,
    )
    h, middle = brush.height, brush.width / 2
    left, top = max(int(middle + (cx - 1.5 * wide) * h), 0), max(int((base - height * 1.15) * h), 0)
    right, bottom = min(int(middle + (cx + 1.5 * wide) * h), brush.width), min(int((base - 0.2 * height) * h), h)
    balls = [(dice(-0.7, 0.7) * wide, dice(0.45, 0.9) * height, wide * dice(0.35, 0.65)) for _ in range(9)]
    if right - left < 3 or bottom - top < 3:
        return
    crown = Image.new("L", (right - left, bottom - top))
    pen = ImageDraw.Draw(crown)
    for dx, up, r in balls:
        ex, ey = middle + (cx + dx) * h - left, (base - up) * h - top
        pen.ellipse((ex - r * h, ey - 0.85 * r * h, ex + r * h, ey + 0.85 * r * h), fill=255)
    shown = ImageChops.multiply(crown, leaves.getchannel("A").crop((left, top, right, bottom)))
    brush.image.paste(leaves.crop((left, top, right, bottom)), (left, top), shown)


def _leaves(field: Image.Image, green: RGB) -> Image.Image:
    """Foliage in RGBA over the whole picture: leaves in shade, in light and in the sun, gaps between them."""
    ramp = np.clip((np.arange(256) / 255 - np.array([[0.45], [0.72]])) / 0.22 + 0.5, 0, 1)[..., None]
    shade, light, sun = (
        np.array(c) for c in (lit(green, 0.55), green, lit(mixed(green, (0.8, 0.82, 0.35), 0.25), 1.35))
    )
    table = shade + (light - shade) * ramp[0] + 0.8 * (sun - light) * ramp[1]
    table = np.clip(255 * table, 0, 255).astype(int)
    return Image.merge("RGBA", (*(field.point(table[:, c].tolist()) for c in range(3)), _step(field, 0.12, 0.25)))


def park(brush: Brush, dice: Dice, color: RGB) -> None:
    """Trees, grass, a path, sky between the leaves."""
    brush.usual_look(dice, 10)
    upper, lower = _sky_colors(dice)
    horizon = brush.horizon
    brush.fade(0, horizon + 0.02, upper, lower)
    season = dice.pick(((0.30, 0.42, 0.18), (0.24, 0.38, 0.19), (0.38, 0.45, 0.20), (0.58, 0.40, 0.16)))
    leaves = _clump(brush, dice, 0.8)
    far = mixed(season, lower, 0.35)
    # The far edge of trees: round crowns with the texture of leaves.
    tops = Image.new("L", brush.image.size)
    pen, h, middle = ImageDraw.Draw(tops), brush.height, brush.width / 2
    line = round((horizon + 0.02) * h)
    for k in range(20):
        ex, r = middle + brush.aspect * (k / 19 - 0.5) * 1.15 * h, dice(0.05, 0.11) * h
        ey = (horizon - dice(0.0, 0.11)) * h
        pen.ellipse((ex - r, ey - r, ex + r, line + r), fill=255)
    brush.through(tops, lit(far, 0.75))
    brush.through(ImageChops.multiply(tops, _step(leaves, 0.5, 0.4, 0.7)), lit(far, 1.08))
    grass = mixed(season if season[1] > season[0] else (0.40, 0.42, 0.20), (0.45, 0.52, 0.25), 0.4)
    brush.fade(horizon, 1, mixed(grass, lower, 0.15), lit(grass, 0.85))
    below = _step(_clump(brush, dice, 0.9, 3.0), 0.5, 0.5, 0.5)
    below.paste(0, (0, 0, brush.width, max(line, 0)))
    brush.through(below, lit(grass, 0.62))
    if dice.chance(0.6):
        x, w = dice(-2, 2), dice(0.9, 1.6)
        sand = dice.pick(((0.66, 0.60, 0.50), (0.52, 0.51, 0.49)))
        brush.solid(((x - w, 0, 1.0), (x + w, 0, 1.0), (x * 2 + w, 0, 40), (x * 2 - w, 0, 40)), sand)
    if dice.chance(0.6):
        shadow = _step(_clump(brush, dice, 0.35, 3.0), 0.6, 0.2, 0.45)
        shadow.paste(0, (0, 0, brush.width, max(line, 0)))
        brush.through(shadow, (0.08, 0.11, 0.07))
    kinds = [_leaves(leaves, lit(mixed(season, (0.28, 0.40, 0.2), dice()), dice(0.8, 1.15))) for _ in range(2)]
    kinds.append(_leaves(leaves, lit(mixed(mixed(season, (0.28, 0.40, 0.2), dice()), lower, 0.18), dice(0.9, 1.1))))
    for z in sorted((dice(7, 32) for _ in range(5)), reverse=True):
        x = dice(-0.6, 0.6) * brush.aspect * z / brush.focal
        _tree(brush, dice, x, z, dice(5, 10), kinds[2] if z > 22 else dice.pick(kinds[:2]))
    if dice.chance(0.4):
        x, z = dice(-1.5, 1.5), dice(6, 9)
        brush.box(x - 0.8, x + 0.8, 0.42, 0.48, z, z + 0.4, (0.42, 0.30, 0.2))
        brush.upright(x - 0.8, x + 0.8, 0.6, 0.85, z + 0.4, (0.45, 0.32, 0.22))


def _front(brush: Brush, dice: Dice, x: float, z0: float, z1: float, height: float, tone: RGB, glass: RGB) -> None:
    """A house front along the street."""
    brush.side(x, 0, height, z0, z1, tone)
    brush.side(x, 0, 3.3, z0, z1, lit(tone, 0.7))
    bays = max(int((z1 - z0) / dice(2.0, 3.0)), 1) if z0 < 35 else 1
    floors = min(int((height - 3.6) / 3.1), 5)
    bay = (z1 - z0) / bays
    for k in range(bays):
        z = z0 + k * bay
        shop = dice.pick((lit(glass, 0.5), (0.85, 0.75, 0.55), lit(glass, 0.9), (0.16, 0.15, 0.15)))
        brush.side(x, 0.3, 2.7, z + 0.15 * bay, z + 0.85 * bay, shop)
        for level in range(floors):
            y = 4.1 + 3.1 * level
            brush.side(x, y, y + 1.7, z + 0.28 * bay, z + 0.72 * bay, lit(glass, dice(0.55, 1.2)))
            if z0 < 10:
                brush.side(x, y - 0.12, y, z + 0.24 * bay, z + 0.76 * bay, lit(tone, 1.15))
    brush.side(x, 2.9, 3.3, z0, z1, lit(dice.pick(_BOOKS), 0.9))
    brush.side(x, height - 0.4, height, z0, z1, lit(tone, 0.8))


def _car(brush: Brush, dice: Dice, x: float, z: float) -> None:
    paint = dice.pick(
        ((0.12, 0.12, 0.13), (0.75, 0.76, 0.77), (0.45, 0.47, 0.50), (0.45, 0.08, 0.08), (0.14, 0.20, 0.34))
    )
    brush.level(x - 1.0, x + 1.0, 0.01, z - 0.1, z + 4.3, (0.10, 0.10, 0.11))
    brush.box(x - 0.86, x + 0.86, 0.3, 0.85, z, z + 4.2, paint)
    brush.box(x - 0.72, x + 0.72, 0.85, 1.42, z + 0.7, z + 3.2, (0.10, 0.12, 0.14))
    brush.level(x - 0.66, x + 0.66, 1.43, z + 0.9, z + 3.0, lit(paint, 1.2))
    lamp = dice.pick(((0.75, 0.10, 0.08), (0.95, 0.95, 0.90)))
    for sign in (-1, 1):
        brush.upright(x + sign * 0.66 - 0.14, x + sign * 0.66 + 0.14, 0.58, 0.74, z - 0.01, lamp)
        brush.upright(x + sign * 0.66 - 0.12, x + sign * 0.66 + 0.12, 0.02, 0.34, z - 0.01, (0.05, 0.05, 0.05))


def street(brush: Brush, dice: Dice, color: RGB) -> None:
    """A street between houses, with cars, lamps and trees."""
    brush.usual_look(dice, 14)
    upper, lower = _sky_colors(dice)
    brush.fade(0, brush.horizon + 0.05, upper, lower)
    glass = mixed((0.30, 0.36, 0.42), upper, 0.3)
    asphalt = lit((0.36, 0.36, 0.37), dice(0.8, 1.25))
    paving = lit((0.58, 0.56, 0.53), dice(0.85, 1.1))
    left, right = -dice(4.5, 7.5), dice(4.5, 7.5)
    brush.level(-60, 60, 0, 0.3, 300, paving)
    a, b = left + dice(1.8, 2.6), right - dice(1.8, 2.6)
    brush.level(a, b, 0.001, 0.3, 300, asphalt)
    for x in (a, b):
        brush.level(x - 0.12, x + 0.12, 0.05, 0.3, 200, lit(paving, 1.2))
    middle = (a + b) / 2
    for z in np.arange(2, 50, 5.0):
        brush.level(middle - 0.07, middle + 0.07, 0.01, z, z + 2.2, (0.82, 0.81, 0.78))
    brush.upright(-60, 60, 0, dice(9, 16), 150, mixed((0.50, 0.49, 0.49), lower, 0.45))
    tones = ((0.62, 0.52, 0.43), (0.55, 0.36, 0.29), (0.70, 0.67, 0.61), (0.50, 0.50, 0.51), (0.76, 0.68, 0.55))
    sunny = dice.chance(0.5)
    for x, shade in ((left, 1.0 if sunny else 0.7), (right, 0.7 if sunny else 1.0)):
        edges = [dice(-8, 1)]
        while edges[-1] < 85:
            edges.append(edges[-1] + dice(8, 17))
        for z0, z1 in reversed(list(pairwise(edges))):
            haze = min(z0 / 160, 0.45) if z0 > 0 else 0.0
            tone = mixed(lit(mixed(dice.pick(tones), color, 0.12), shade * dice(0.9, 1.1)), lower, haze)
            height = dice(8, 19)
            if z0 > 3:
                out = 12 if x > 0 else -12
                brush.upright(min(x, x + out), max(x, x + out), 0, height, z0, lit(tone, 0.85))
            _front(brush, dice, x, max(z0, 0.3), z1, height, tone, mixed(lit(glass, shade), lower, haze))
    leaves = _leaves(_clump(brush, dice, 0.9), lit((0.27, 0.36, 0.18), dice(0.8, 1.2)))
    things = [(dice(14, 40), "tree") for _ in range(2) if dice.chance(0.5)]
    things += [(dice(7, 34), "car") for _ in range(3)]
    things += [(z, "lamp") for z in (10.0, 22.0, 36.0)]
    for z, what in sorted(things, reverse=True):
        near = dice.chance(0.5)
        if what == "tree":
            _tree(brush, dice, a - 0.6 if near else b + 0.6, z, dice(4, 7), leaves)
        elif what == "car":
            _car(brush, dice, a + 1.1 if near else b - 1.1, z)
        else:
            x = a - 0.4
            brush.upright(x - 0.06, x + 0.06, 0, 5, z, (0.18, 0.19, 0.20))
            brush.upright(x, x + 1.2, 4.9, 5.0, z, (0.18, 0.19, 0.20))


def _grid(brush: Brush, dice: Dice) -> tuple[np.ndarray, np.ndarray]:
    """Meters along (H, W) and up (H, W) a wall that is seen a little from the side; float32."""
    x = (np.arange(brush.width, dtype=np.float32) + 0.5) / brush.height - brush.aspect / 2
    y = (np.arange(brush.height, dtype=np.float32) + 0.5) / brush.height - 0.5
    size = dice(2.2, 3.2) if brush.tall else dice(0.9, 1.8)
    nearer = size / (1 + dice(-0.35, 0.35) * x / max(brush.aspect, 1))
    along = nearer * x + dice(0, 10)
    return np.broadcast_to(along, (brush.height, brush.width)), y[:, None] * nearer + dice(0, 10)


def _joints(along: np.ndarray, period: float, width: float) -> np.ndarray:
    """0 in the joints of a row of things, 1 in the things."""
    inside = along % period
    return np.minimum(np.minimum(inside, period - inside) * (1 / width), 1)


def _hash(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Numbers 0..1 that differ between whole-number places."""
    h = a.astype(np.int32) * 7919 + b.astype(np.int32) * 10007
    return _lottery()[h & 1023]


@lru_cache(maxsize=1)
def _lottery() -> np.ndarray:
    return np.random.default_rng(13).random(1024, dtype=np.float32)


def wall(brush: Brush, dice: Dice, color: RGB) -> None:
    """A wall of brick, plaster, concrete, boards or tiles."""
    kind = dice.pick(("brick", "plaster", "concrete", "boards", "tiles"))
    u, v = _grid(brush, dice)
    stains = np.asarray(_clump(brush, dice, 0.6), np.float32) * (1 / 255) - 0.5
    joint: RGB = (0.0, 0.0, 0.0)
    # What is between the things, how much of a thing is there (0..1), its color and its light.
    there: np.ndarray | float = 1.0
    if kind == "brick":
        row = np.floor(v * (1 / 0.075))
        along = u + 0.12 * (row % 2)
        there = np.minimum(_joints(along, 0.24, 0.010), _joints(v, 0.075, 0.010))
        joint = (0.62, 0.60, 0.56)
        tone = mixed(dice.pick(((0.55, 0.30, 0.22), (0.48, 0.36, 0.29), (0.62, 0.56, 0.50))), color, 0.4)
        light = (0.72 + 0.5 * _hash(row, along * (1 / 0.24))) * (1 + 0.10 * stains)
    elif kind == "boards":
        wide = dice(0.10, 0.22)
        board = u[0] * (1 / wide)
        tone = mixed(dice.pick(_WOODS), color, 0.35)
        joint = lit(tone, 0.25)
        there = _joints(u[:1], wide, 0.006)
        grain = np.asarray(_clump(brush, dice, 0.15, 0.12), np.float32) * (1 / 255) - 0.5
        light = (0.78 + 0.35 * _hash(board, board)) * (1 + 0.26 * grain)
    elif kind == "tiles":
        side = dice(0.10, 0.30)
        there = np.minimum(_joints(u, side, 0.005), _joints(v, side, 0.005))
        joint, tone = (0.70, 0.69, 0.67), mixed((0.85, 0.85, 0.85), color, 0.65)
        light = 0.92 + 0.14 * _hash(u * (1 / side), v * (1 / side))
    elif kind == "concrete":
        there = np.minimum(_joints(u, 1.2, 0.008), _joints(v, 0.9, 0.008))
        tone = mixed((0.60, 0.59, 0.57), color, 0.25)
        joint, light = lit(tone, 0.6), 1 + 0.2 * stains
    else:
        tone, light = mixed(color, (0.8, 0.8, 0.8), 0.15), 1 + 0.18 * stains
    thing = there * light * np.float32(255)
    gap = (1 - there) * np.float32(255)
    channels = np.empty((brush.height, brush.width, 3), np.uint8)
    for c in range(3):
        channels[..., c] = np.clip(thing * np.float32(tone[c]) + gap * np.float32(joint[c]), 0, 255)
    brush.image.paste(Image.fromarray(channels))
    if brush.tall:
        y = dice(0.74, 0.86)
        ground = dice.pick(((0.46, 0.45, 0.44), (0.58, 0.56, 0.52), (0.42, 0.34, 0.27)))
        brush.fade(y, 1, lit(ground, 0.8), ground)
        brush.band(y - 0.004, y + 0.004, lit(ground, 0.45))


def bokeh(brush: Brush, dice: Dice, color: RGB) -> None:
    """Lights far out of focus, at night or through leaves."""
    night = dice.chance(0.65)
    if night:
        base = mixed((0.10, 0.11, 0.16), color, 0.22)
        brush.fade(0, 1, lit(base, 1.2), lit(base, 1.9))
        lamps: tuple[RGB, ...] = ((1.0, 0.78, 0.42), (1.0, 0.90, 0.72), (0.95, 0.42, 0.25), (0.55, 0.72, 1.0), color)
    else:
        base = mixed((0.25, 0.34, 0.17), color, 0.25)
        brush.fade(0, 1, lit(base, 1.6), lit(base, 0.9))
        brush.through(_step(_clump(brush, dice, 0.25), 0.5, 0.5, 0.5), lit(base, 0.6))
        lamps = ((0.86, 0.90, 0.62), (0.95, 0.96, 0.88), (0.70, 0.80, 0.45), color)
    for _ in range(6):
        brush.pool(dice(-0.6, 0.6) * brush.aspect, dice(0, 1), dice(0.2, 0.5), dice.pick(lamps), 0.35)
    size = dice(0.025, 0.06)
    middle = dice(0.3, 0.6)
    # Discs add up where they overlap.
    layers = [Brush(Image.new("RGB", brush.image.size)) for _ in range(2)]
    for k in range(30):
        x, y = dice(-0.55, 0.55) * brush.aspect, middle + (dice() + dice() - 1) * 0.5
        r, lamp = size * dice(0.6, 1.25), lit(dice.pick(lamps), dice(0.2, 0.8))
        layers[k % 2].ellipse(x, y, r, r, lamp)
        layers[k % 2].ellipse(x, y, 0.86 * r, 0.86 * r, lit(lamp, 0.82))
    lights = ImageChops.add(layers[0].image, layers[1].image).filter(ImageFilter.GaussianBlur(brush.height / 256))
    brush.image.paste(ImageChops.screen(brush.image, lights))
