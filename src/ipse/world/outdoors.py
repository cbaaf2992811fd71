"""Backgrounds outdoors: skies, parks and streets."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from ipse.world.brush import BOOKS, RGB, Brush, Dice, above, clump, lit, mixed


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
    clouds = clump(brush, dice, dice(0.3, 0.6), dice(1.3, 2.2))
    brush.through(above(clouds, 1 - cover, 0.5, 0.85), mixed((0.92, 0.92, 0.93), lower, 0.2))
    brush.through(above(clouds, 1 - 0.45 * cover, 0.5, 0.55), mixed((0.72, 0.74, 0.79), lower, 0.3))
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
    # The crown's outline follows the leaves.
    soft = crown.filter(ImageFilter.BoxBlur(max(0.1 * wide * h, 1)))
    field = leaves.getchannel("A").crop((left, top, right, bottom))
    shown = above(ImageChops.add(soft, field, scale=2), 0.58, 0.12)
    brush.image.paste(leaves.crop((left, top, right, bottom)), (left, top), shown)


def _leaves(field: Image.Image, green: RGB) -> Image.Image:
    """Foliage over the whole picture: RGB of leaves in shade, in light and in the sun; as alpha, how near they are."""
    ramp = np.clip((np.arange(256) / 255 - np.array([[0.45], [0.72]])) / 0.22 + 0.5, 0, 1)[..., None]
    shade, light, sun = (
        np.array(c) for c in (lit(green, 0.55), green, lit(mixed(green, (0.72, 0.74, 0.38), 0.25), 1.12))
    )
    table = shade + (light - shade) * ramp[0] + 0.8 * (sun - light) * ramp[1]
    table = np.clip(255 * table, 0, 255).astype(int)
    return Image.merge("RGBA", (*(field.point(table[:, c].tolist()) for c in range(3)), field))


def park(brush: Brush, dice: Dice, color: RGB) -> None:
    """Trees, grass, a path, sky between the leaves."""
    brush.usual_look(dice, 10)
    upper, lower = _sky_colors(dice)
    horizon = brush.horizon
    brush.fade(0, horizon + 0.02, upper, lower)
    season = dice.pick(((0.30, 0.42, 0.18), (0.24, 0.38, 0.19), (0.38, 0.45, 0.20), (0.58, 0.40, 0.16)))
    leaves = clump(brush, dice, 0.8)
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
    brush.through(ImageChops.multiply(tops, above(leaves, 0.5, 0.4, 0.7)), lit(far, 1.08))
    grass = mixed(season if season[1] > season[0] else (0.40, 0.42, 0.20), (0.45, 0.52, 0.25), 0.4)
    brush.fade(horizon, 1, mixed(grass, lower, 0.15), lit(grass, 0.85))
    below = above(clump(brush, dice, 0.9, 3.0), 0.5, 0.5, 0.5)
    below.paste(0, (0, 0, brush.width, max(line, 0)))
    brush.through(below, lit(grass, 0.62))
    if dice.chance(0.6):
        x, w = dice(-2, 2), dice(0.9, 1.6)
        sand = dice.pick(((0.66, 0.60, 0.50), (0.52, 0.51, 0.49)))
        brush.solid(((x - w, 0, 1.0), (x + w, 0, 1.0), (x * 2 + w, 0, 40), (x * 2 - w, 0, 40)), sand)
    if dice.chance(0.6):
        shadow = above(clump(brush, dice, 0.35, 3.0), 0.6, 0.2, 0.45)
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
    brush.side(x, 2.9, 3.3, z0, z1, lit(dice.pick(BOOKS), 0.9))
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
    leaves = _leaves(clump(brush, dice, 0.9), lit((0.27, 0.36, 0.18), dice(0.8, 1.2)))
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
