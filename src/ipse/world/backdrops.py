"""Backgrounds without depth: paper, walls and lights out of focus."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from ipse.world.brush import RGB, WOODS, Brush, Dice, above, clump, lit, mixed


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
    stains = np.asarray(clump(brush, dice, 0.6), np.float32) * (1 / 255) - 0.5
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
        tone = mixed(dice.pick(WOODS), color, 0.35)
        joint = lit(tone, 0.25)
        there = _joints(u[:1], wide, 0.006)
        grain = np.asarray(clump(brush, dice, 0.15, 0.12), np.float32) * (1 / 255) - 0.5
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
        brush.through(above(clump(brush, dice, 0.25), 0.5, 0.5, 0.5), lit(base, 0.6))
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
