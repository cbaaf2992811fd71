"""Backgrounds indoors: living rooms, offices and shelves."""

from __future__ import annotations

import numpy as np

from ipse.world.brush import BOOKS, CLOTHS, RGB, WOODS, Brush, Dice, lit, mixed

_WALLS: tuple[RGB, ...] = (
    (0.86, 0.84, 0.80),
    (0.80, 0.76, 0.69),
    (0.76, 0.77, 0.77),
    (0.72, 0.75, 0.70),
    (0.74, 0.79, 0.82),
    (0.83, 0.77, 0.72),
    (0.62, 0.60, 0.58),
)


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
        cloth = lit(dice.pick(((0.86, 0.84, 0.78), *CLOTHS)), 1.05)
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
    frame = dice.pick(((0.12, 0.11, 0.10), (0.85, 0.84, 0.82), *WOODS))
    brush.upright(x - w + 0.02, x + w + 0.03, y - h - 0.03, y + h - 0.02, z - 0.005, (0.45, 0.43, 0.41))
    brush.upright(x - w, x + w, y - h, y + h, z - 0.02, frame)
    w, h = w - 0.03, h - 0.03
    brush.upright(x - w, x + w, y - h, y + h, z - 0.025, (0.88, 0.87, 0.83))
    w, h = w * 0.78, h * 0.78
    brush.upright(x - w, x + w, y - h, y + h, z - 0.03, mixed(color, dice.pick(CLOTHS), dice()))
    split = y + h * dice(-0.6, 0.5)
    brush.upright(x - w, x + w, y - h, split, z - 0.031, mixed(dice.pick(CLOTHS), (0.75, 0.7, 0.6), dice(0, 0.6)))
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
    wood = dice.pick(WOODS)
    floor = dice.pick((*WOODS, (0.62, 0.58, 0.53)))
    depth, left, right = dice(5.5, 7.5), -dice(1.8, 3.2), dice(1.8, 3.2)
    _shell(brush, dice, wall, floor, left, right, depth, dice(2.5, 2.9))
    _boards(brush, dice, floor, left, right, depth)
    if dice.chance(0.5):
        rug = mixed(color, dice.pick(CLOTHS), 0.5)
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
    sofa, x, z = mixed(color, dice.pick(CLOTHS), dice(0.2, 0.7)), dice(left * 0.5, right * 0.5), depth - 1.0
    what = dice()
    if what < 0.45:
        w = dice(0.8, 1.1)
        brush.box(x - w, x + w, 0.1, 0.85, z + 0.55, z + 0.85, lit(sofa, 0.95))
        brush.box(x - w, x + w, 0.1, 0.45, z, z + 0.6, sofa)
        for sign in (-1, 1):
            brush.box(x + sign * w - 0.1, x + sign * w + 0.1, 0.1, 0.62, z - 0.02, z + 0.8, lit(sofa, 0.88))
        for _ in range(2):
            a = x + dice(-0.8, 0.5) * w
            brush.upright(a, a + 0.4, 0.45, 0.8, z + 0.4, lit(dice.pick(CLOTHS), dice(1.0, 1.5)))
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
                a, a + dice(0.08, 0.2), h, h + dice(0.1, 0.35), z + 0.6, mixed(dice.pick(CLOTHS), color, dice())
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


def shelf(brush: Brush, dice: Dice, color: RGB) -> None:
    """Shelves full of books and things."""
    brush.usual_look(dice, 16)
    wood = dice.pick((*WOODS, (0.80, 0.78, 0.74), (0.20, 0.17, 0.15)))
    z, deep = dice(4.2, 5.4) if brush.tall else dice(1.9, 3.0), 0.28
    brush.fill(lit(wood, 0.35))
    brush.level(-6, 6, 0, 0.3, z + deep, dice.pick(WOODS))
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
                tone = lit(mixed(dice.pick(BOOKS), color, 0.15), dice(0.75, 1.15))
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
