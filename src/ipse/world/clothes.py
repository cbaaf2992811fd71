"""Clothes and shoes: shells over the body, cut to sleeve, hem and neckline.

Every garment is shaped on the `suit` (and below the hips, where it hangs around both legs, on the `skirt`), each around
the one beneath; where it stops is a signed distance of `cuts`. Details - collars, lapels, cuffs, buttons, pockets - are
further shells a few millimeters out, with cuts of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ipse.world import raster
from ipse.world.body import Rest, body
from ipse.world.cuts import (
    WAIST_Y,
    above,
    below,
    both,
    bottom_field,
    bottom_hem,
    neckline,
    opening,
    outer_field,
    root,
    shoe_field,
    sleeveless,
    sleeves,
    top_field,
    top_hem,
    wedge,
    worn_open,
)
from ipse.world.look import PATTERNS, Garment, Look
from ipse.world.parts import Material, Part
from ipse.world.person import Person
from ipse.world.skin import smoothstep, to_linear
from ipse.world.skirt import COLUMNS, ROWS, skirt
from ipse.world.suit import ARM_M, ELBOW, SHOULDER, Drum, Places, Tube, body_places, outside, suit

LAP = 0.02
"""How far (meters of the template) what lies beneath reaches under the edge of what lies above."""
JOIN_Y = 0.095
"""Template height down to which a garment with a skirt is cut from the suit."""


@dataclass(frozen=True)
class _Cloth:
    """A garment in its shape: points on the suit, and on the skirt's grid if it has a lower part there.

    `field` and `grid_field` are its cuts, positive where there is cloth.
    """

    garment: Garment
    label: str
    points: np.ndarray
    normals: np.ndarray
    field: np.ndarray
    grid: np.ndarray | None = None
    grid_field: np.ndarray | None = None


@lru_cache(maxsize=1)
def _drum() -> Drum:
    return Drum(suit().places)


@lru_cache(maxsize=1)
def _limbs() -> tuple[list[Tube], list[Tube]]:
    """Rings of both arms and both legs."""
    place = suit().places
    arms = [Tube(place.along, place.arm * (side * place.x > 0), np.linspace(0.03, ARM_M, 10)) for side in (1, -1)]
    legs = [Tube(-place.y, place.leg * (side * place.x > 0), np.linspace(0.10, 0.79, 14)) for side in (1, -1)]
    return arms, legs


def _has_skirt(garment: Garment) -> bool:
    return garment.kind in ("skirt", "dress") or (
        garment.kind in ("coat", "jacket", "blazer") and top_hem(garment) < -0.02
    )


def _shape_top(garment: Garment, inner: np.ndarray, normals: np.ndarray, size: float, thick: float) -> np.ndarray:
    """A top, dress or outer garment on the suit: hung from chest and arms, at least `thick` meters over `inner`."""
    shell, place = suit(), suit().places
    fit, kind = garment.fit, garment.kind
    knit = kind in ("sweater", "hoodie")
    away = thick + size * 0.007 * fit
    # At the neck, on the shoulders and around armholes cloth lies close.
    near = smoothstep(0.0, 0.07, root(place))
    near *= 1 - 0.75 * smoothstep(0.46, 0.52, place.y) * smoothstep(0.14, 0.06, place.along)
    if sleeveless(garment):
        near = near * smoothstep(0.0, 0.06, sleeves(place, garment))
    least = thick * (0.4 + 0.6 * near)
    points = inner + (least + (away - thick) * near)[:, None] * normals
    points = _drum().fall(points, float(np.interp(fit, [0, 0.3, 0.6, 1], [0.9, 0.45, 0.16, 0.0])), 0.5 + 0.5 * fit)
    end = ARM_M * garment.sleeve
    fade = smoothstep(0.04, 0.12, place.along)
    if knit or kind == "jacket":
        # Gathered at the wrist.
        fade = fade * smoothstep(end, end - 0.05, place.along)
    for arm in _limbs()[0]:
        arm.hang(points, float(np.interp(fit, [0, 0.5, 1], [0.12, 0.03, -0.02])), fade)
    strength = 0.5 * near * (0.3 + 0.7 * fit)
    points = shell.smooth(points, normals, strength, 3 + int(6 * fit), "upper")
    return outside(points, inner, normals, least)


def _shape_bottom(garment: Garment, inner: np.ndarray, normals: np.ndarray, size: float) -> np.ndarray:
    """Trousers, shorts or leggings on the suit."""
    shell, place = suit(), suit().places
    if garment.kind == "leggings":
        return inner + 0.0015 * normals
    fit = garment.fit
    high = smoothstep(WAIST_Y + 0.06, WAIST_Y + 0.02, place.y)
    points = inner + ((0.003 + 0.006 * size * fit) * high)[:, None] * normals
    fade = smoothstep(-0.06, -0.16, place.y)
    for leg in _limbs()[1]:
        leg.hang(points, float(np.interp(fit, [0, 0.15, 0.4, 1], [0.2, 0.07, 0.03, -0.01])), fade)
    points = shell.smooth(points, normals, 0.5 * high, 3 + int(4 * fit), "lower")
    return outside(points, inner, normals, 0.003 * high)


def _shoe_points(base: np.ndarray, normals: np.ndarray, size: float) -> np.ndarray:
    """The suit around the shoes' uppers; above the ankles the suit itself."""
    shell, place = suit(), suit().places
    foot = smoothstep(-0.66, -0.74, place.y)
    points = base + (0.004 * size * foot)[:, None] * normals
    return outside(shell.smooth(points, normals, 0.5 * foot, 6, "feet"), base, normals, 0.003 * size * foot)


def _wear(person: Person, look: Look, rest: Rest) -> tuple[list[_Cloth], np.ndarray, np.ndarray]:
    """All garments from the skin outward, and the suit over the skin: points and normals."""
    shell, place = suit(), suit().places
    size = rest.height / 1.75
    base, normals = shell.over_skin(rest, 0.003 * size)
    worn: list[_Cloth] = []
    lower = base
    grid = None

    def around(garment: Garment, points: np.ndarray, seated: bool) -> np.ndarray:
        fit = garment.fit
        flare = {"coat": 0.2, "jacket": 0.0, "blazer": 0.0}.get(garment.kind, 0.15 + 0.75 * fit)
        return skirt().shape(
            rest,
            np.where((place.y < JOIN_Y - 0.04)[:, None], outside(points, lower, normals, 0.008), points)
            if seated
            else points,
            flare=flare,
            gap=0.004 * size,
            taper=0.12 * (1 - fit),
            pleats=(0.10 if garment.kind in ("skirt", "dress") else 0.02) * fit,
            phase=float(person.number % 7),
            seated=seated,
            under=grid,
        )

    if look.dress is None:
        garment = look.bottom
        if garment.kind == "skirt":
            grid = around(garment, base, False)
            none = np.full(len(base), -1.0)
            worn.append(_Cloth(garment, "bottom", base, normals, none, grid, skirt().places.y - bottom_hem(garment)))
        else:
            shod = _shoe_points(base, normals, size)
            lower = _shape_bottom(garment, base if garment.kind == "leggings" else shod, normals, size)
            worn.append(_Cloth(garment, "bottom", lower, normals, bottom_field(place, garment)))
    upper, label = (look.top, "top") if look.dress is None else (look.dress, "dress")
    under = np.where((smoothstep(0.2, 0.5, place.arm) < 0.5)[:, None], lower, base)
    points = _shape_top(upper, under, normals, size, 0.004 * size)
    field = top_field(place, upper)
    if label == "dress":
        grid = around(upper, points, True)
        field = both(field, above(place, JOIN_Y))
        worn.append(_Cloth(upper, label, points, normals, field, grid, skirt().places.y - top_hem(upper)))
    else:
        if look.bottom.kind == "skirt":
            # Tucked in.
            field = both(field, above(place, 0.135))
        worn.append(_Cloth(upper, label, points, normals, field))
    if look.outer is not None:
        garment = look.outer
        lower = points
        over = _shape_top(garment, points, normals, size, 0.007 * size)
        field = outer_field(place, garment)
        if _has_skirt(garment):
            low = around(garment, over, True)
            below_field = both(skirt().places.y - top_hem(garment), opening(skirt().places, garment))
            worn.append(_Cloth(garment, "coat", over, normals, both(field, above(place, JOIN_Y)), low, below_field))
        else:
            worn.append(_Cloth(garment, "coat", over, normals, field))
    return worn, base, normals


_FOLD = {"jeans": 0.32, "leggings": 0.08, "sweater": 0.3, "hoodie": 0.36, "coat": 0.28, "blazer": 0.22, "skirt": 0.25}
_SHEEN = {"sweater": 0.45, "hoodie": 0.3, "coat": 0.25, "blazer": 0.12, "blouse": 0.1, "leggings": 0.06}
_GLOSS = {"blouse": 0.6, "leggings": 0.5, "jacket": 0.7, "dress": 0.35}


def _material(garment: Garment, seed: float) -> Material:
    kind = garment.kind
    return Material(
        raster.CLOTH,
        gloss=_GLOSS.get(kind, 0.15),
        roughness=0.5 if kind in _GLOSS else 0.8,
        pattern=PATTERNS.index(garment.pattern),
        scale=1 / garment.scale_m,
        second=tuple(float(c) for c in to_linear(garment.color2.rgb)),
        sheen=_SHEEN.get(kind, 0.12),
        fold=_FOLD.get(kind, 0.3) * (1.1 + 0.9 * garment.fit),
        seed=seed,
    )


def _ripple(angle: np.ndarray) -> np.ndarray:
    """A turn in radians folded back and forth (front, side, back, side), so that patterns meet without a seam."""
    return np.abs((angle + np.pi / 2) % (2 * np.pi) - np.pi) - np.pi / 2


class _Measure(NamedTuple):
    """What a person's garments share: the body's size over a tall adult's, shoulder height, a quarter of the girth."""

    size: float
    shoulder: float
    quarter: float


def _measure(base: np.ndarray, size: float) -> _Measure:
    place = suit().places
    torso = base[(place.arm < 0.1) & (place.y > 0.0) & (place.y < 0.4)]
    around = np.hypot(torso[:, 0], torso[:, 2] - torso[:, 2].mean()).mean()
    return _Measure(size, float(base[suit().shoulder, 1]), float(around * np.pi / 2))


def _turns(place: Places) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What pattern coordinates need of a mesh: turn around body and around arm, folded, and the arm's share."""
    upper = (ELBOW - SHOULDER) / np.linalg.norm(ELBOW - SHOULDER)
    across = (np.abs(place.x) - SHOULDER[0]) * -upper[1] + (place.y - SHOULDER[1]) * upper[0]
    bend = np.maximum(place.along - np.linalg.norm(ELBOW - SHOULDER), 0)
    around = np.sign(place.x) * _ripple(np.arctan2(place.z - SHOULDER[2] - 0.7 * bend, across))
    return (
        _ripple(place.turn) / (np.pi / 2),
        around / (np.pi / 2),
        smoothstep(0.4, 1.0, place.arm) * smoothstep(0.0, 0.08, place.along),
    )


@lru_cache(maxsize=1)
def _suit_turns() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return _turns(suit().places)


@lru_cache(maxsize=1)
def _skirt_turns() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return _turns(skirt().places)


def _coordinates(on_grid: bool, used: np.ndarray, height: np.ndarray, measure: _Measure, period: float) -> np.ndarray:
    """(N, 2) pattern coordinates in meters: around the body and up; around the arm and toward the wrist on sleeves."""
    turn, arm_turn, arm = (f[used] for f in (_skirt_turns() if on_grid else _suit_turns()))
    along = (skirt() if on_grid else suit()).places.along[used]
    # A whole number of periods from side to side, so that the pattern meets itself there.
    around = turn * max(round(measure.quarter / period), 1) * period
    around = around + arm * (arm_turn * max(round(measure.quarter / 3 / period), 1) * period - around)
    return np.stack([around, height + arm * (measure.shoulder - along * measure.size - height)], 1)


def _piece(
    cloth: _Cloth,
    field: np.ndarray,
    material: Material,
    color: np.ndarray,
    measure: _Measure,
    points: np.ndarray | None = None,
    on_grid: bool = False,
) -> list[Part]:
    """The triangles of suit or grid that `field` leaves, as a part; none if nothing is left."""
    mesh = skirt() if on_grid else suit()
    if points is None:
        points = cloth.grid if on_grid else cloth.points
    left = (field > 0)[mesh.triangles].any(1)
    if not left.any():
        return []
    used, local = np.unique(mesh.triangles[left], return_inverse=True)
    coordinate = _coordinates(on_grid, used, points[used, 1], measure, 1 / material.scale)
    return [
        Part(
            vertices=points[used].astype(np.float32),
            triangles=local.reshape(-1, 3).astype(np.int32),
            anchor=mesh.anchor[used],
            material=material,
            label=cloth.label,
            color=(color[used] if color.ndim == 2 else color).astype(np.float32),
            coordinate=coordinate.astype(np.float32),
            keep=field[used].astype(np.float32),
        )
    ]


def _details(cloth: _Cloth, material: Material, color: np.ndarray, measure: _Measure, hidden: np.ndarray) -> list[Part]:
    """Collars, lapels, ribs, plackets, pockets: shells over the garment."""
    garment, kind = cloth.garment, cloth.garment.kind
    shell, place = suit(), suit().places
    plain = replace(material, pattern=0)
    parts: list[Part] = []

    def band(
        field: np.ndarray, lift: np.ndarray | float, tint: float = 1.0, of: Material = material, smooth: int = 0
    ) -> None:
        points = cloth.points + (np.asarray(lift) * measure.size * np.ones(len(place.x)))[:, None] * cloth.normals
        if smooth:
            points = outside(shell.smooth(points, cloth.normals, 0.5, smooth, "neck"), points, cloth.normals, 0.0)
        parts.extend(
            _piece(cloth, both(field, 0.002 - LAP - hidden), of, np.clip(color * tint, 0, 0.95), measure, points)
        )

    line = neckline(place, garment)
    front = np.cos(place.turn) > 0
    hem = top_hem(garment)
    cuff = sleeves(place, garment)
    neck = root(place)
    if kind in ("tshirt", "sweater", "hoodie", "tanktop") and garment.neckline != "turtle":
        width = 0.011 if kind in ("tshirt", "tanktop") else 0.018
        band(both(line, width - line), 0.0022, 0.86, plain)
    if garment.neckline == "turtle":
        # The fold that is turned down.
        band(
            both(neckline(place, garment), 0.006 - place.neck),
            0.006 + 0.003 * smoothstep(-0.045, 0.0, place.neck),
            0.97,
            smooth=2,
        )
    if kind in ("sweater", "hoodie"):
        band(both(cuff, 0.045 - cuff, place.along), 0.0015, 0.9, plain)
        band(both(above(place, hem), hem + 0.045 - place.y, 0.3 - place.arm), 0.0015, 0.9, plain)
    if kind == "hoodie":
        back = smoothstep(0.8, 2.3, np.abs(place.turn))
        rim = 0.026 + 0.105 * back - neck
        edge = both(neck + 0.010 + 0.016 * back, rim, np.abs(place.turn) - 0.45)
        band(edge, 0.003 + 0.036 * back * smoothstep(-0.03, 0.03, neck) * smoothstep(0.0, 0.04, rim), 0.97, smooth=3)
        pocket = both(place.y - 0.085, 0.215 - place.y, 0.105 - np.abs(place.x) - 0.35 * np.maximum(place.y - 0.14, 0))
        band(np.where(front, pocket, -1.0), 0.004, 0.95)
        for side in (-1, 1):
            cord = both(0.0035 - np.abs(place.x - side * 0.03), place.y - 0.43, neck - 0.004)
            band(np.where(front, cord, -1.0), 0.005, 1.0, replace(plain, second=plain.second))
    if kind in ("shirt", "blouse", "dress") and garment.neckline == "collar":
        # A stand around the neck, and the leaf folded over it.
        top = place.neck + 0.026
        spread = wedge(place, 0.492, 0.45)
        band(both(top, 0.006 - neck, spread), 0.0025, 0.93)
        lower = 0.030 + 0.062 * smoothstep(1.35, 0.45, np.abs(place.turn)) - neck
        leaf_edge = np.where(front & (place.y < 0.55), np.abs(place.x) - 0.014 - 0.75 * (0.55 - place.y), 1.0)
        band(both(top, lower, spread, leaf_edge), 0.0045 + 0.006 * smoothstep(-0.02, 0.03, neck), 1.0, smooth=2)
    if kind in ("shirt", "blouse"):
        placket = both(0.015 - np.abs(place.x), cloth.field)
        band(np.where(front, placket, -1.0), 0.0018, 0.9)
        if garment.sleeve > 0.85:
            band(both(cuff, 0.055 - cuff, place.along), 0.002, 0.93)
    if kind in ("coat", "jacket", "blazer"):
        edge = opening(place, garment)
        if garment.neckline == "crew":
            band(both(place.neck + 0.022, 0.012 - neck, edge), 0.003, 0.95)
        else:
            button = {"blazer": 0.235, "coat": 0.36, "jacket": 0.40}[kind]
            widest = {"blazer": 0.052, "coat": 0.065, "jacket": 0.05}[kind]
            width = widest * smoothstep(button, button + 0.16, place.y)
            notch = np.abs(place.y - 0.500 - 0.25 * (np.abs(place.x) - 0.06)) - 0.004
            lapel = both(edge, width - edge, place.y - button, 0.508 - place.y)
            band(np.where(front, both(lapel, np.where(edge > 0.45 * widest, notch, 1.0)), -1.0), 0.004, 0.86)
            collar = both(place.neck + 0.016, 0.052 - neck, edge, place.y - 0.502)
            band(collar, 0.006 + 0.005 * smoothstep(-0.02, 0.04, neck), 0.9, smooth=2)
    return parts


def _buttons(cloth: _Cloth, size: float, color: np.ndarray, hidden: np.ndarray) -> list[Part]:
    """Small discs down the front of shirts, blazers, closed coats and vests."""
    garment, kind = cloth.garment, cloth.garment.kind
    heights = {
        "shirt": np.arange(0.47, 0.02, -0.075),
        "blouse": np.arange(0.43, 0.05, -0.075),
        "blazer": np.array([0.225, 0.135]),
        "coat": np.arange(0.34, 0.10, -0.10) if garment.fit < 0.5 else np.array([]),
        "vest": np.arange(0.28, 0.12, -0.055),
    }.get(kind, np.array([]))
    place = suit().places
    front = np.flatnonzero(
        (np.cos(place.turn) > 0) & (np.abs(place.x) < 0.02) & (cloth.field > 0.012) & (hidden < -0.004)
    )
    heights = heights[(heights > top_hem(garment) + 0.02)]
    if len(front) == 0 or len(heights) == 0 or (kind == "blouse" and garment.neckline != "collar"):
        return []
    gap = np.abs(place.y[front][None] - heights[:, None]) + 0.5 * np.abs(place.x[front])[None]
    at = front[gap.argmin(1)[gap.min(1) < 0.02]]
    at = np.unique(at)
    radius = (0.009 if kind in ("coat", "blazer") else 0.0055) * size
    turn = np.arange(8) / 8 * 2 * np.pi
    normal = cloth.normals[at]
    side = np.cross([0.0, 1.0, 0.0], normal)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(normal, side)
    middle = cloth.points[at] + 0.004 * size * normal
    ring = middle[:, None] + radius * (np.cos(turn)[:, None] * side[:, None] + np.sin(turn)[:, None] * up[:, None])
    vertices = np.concatenate([ring.reshape(-1, 3), middle + 0.001 * normal])
    k = np.arange(len(at))[:, None]
    fan = np.stack(
        [k * 8 + np.arange(8), k * 8 + (np.arange(8) + 1) % 8, np.broadcast_to(len(at) * 8 + k, (len(at), 8))], 2
    )
    return [
        Part(
            vertices=vertices.astype(np.float32),
            triangles=fan.reshape(-1, 3).astype(np.int32),
            anchor=np.concatenate([np.repeat(suit().anchor[at], 8), suit().anchor[at]]),
            material=Material(raster.HARD, gloss=0.4, roughness=0.35),
            label=cloth.label,
            color=color.astype(np.float32),
        )
    ]


def _shoes(look: Look, base: np.ndarray, normals: np.ndarray, measure: _Measure, legs: np.ndarray) -> list[Part]:
    """Shoes around both feet, and their soles."""
    place = suit().places
    low = look.dress is not None or look.bottom.kind == "skirt"
    points = _shoe_points(base, normals, measure.size)
    field = both(shoe_field(place, low), -legs)
    color = to_linear(look.shoes.rgb)
    cloth = _Cloth(look.top, "shoes", points, normals, field)
    upper = Material(raster.HARD, gloss=0.35, roughness=0.45)
    # The sole: the lowest part of the shell, wider and flat.
    level = -0.803 if not low else -0.812
    parts = _piece(cloth, both(field, place.y - level), upper, color, measure)
    flat = points + np.array([1.0, 0.0, 1.0]) * normals * 0.005 * measure.size
    pressed = np.minimum(flat[:, 1] - 0.012 * measure.size, -0.008 * measure.size)
    flat[:, 1] = np.where(place.y < level, pressed, flat[:, 1])
    sole = (
        np.array([0.75, 0.75, 0.73]) if not low and color.mean() < 0.7 and look.shoes.name != "black" else 0.5 * color
    )
    parts += _piece(
        cloth, level + 0.006 - place.y, Material(raster.HARD, gloss=0.15, roughness=0.6), sole, measure, flat
    )
    return parts


def clothes_parts(person: Person, look: Look, rest: Rest) -> list[Part]:
    """The garments and shoes of a Look, in the rest pose."""
    worn, base, normals = _wear(person, look, rest)
    size = rest.height / 1.75
    measure = _measure(base, size)
    place, grid_place = suit().places, skirt().places
    parts: list[Part] = []
    for k, cloth in enumerate(worn):
        hidden = np.full(len(base), -1.0)
        grid_hidden = np.full(ROWS * COLUMNS, -1.0)
        for over in worn[k + 1 :]:
            hidden = np.maximum(hidden, over.field - LAP)
            if over.grid_field is not None:
                # The suit's own cut at the hips is no edge: the grid goes on.
                lower = np.maximum(over.field, _grid_cover(over, place))
                hidden = np.maximum(hidden, lower - LAP)
                grid_hidden = np.maximum(grid_hidden, both(over.grid_field, 0.11 - grid_place.y) - 0.03)
        color = to_linear(cloth.garment.color.rgb)
        material = _material(cloth.garment, float((person.number * 37 + k * 11) % 1000))
        own = color
        if cloth.garment.kind == "jeans":
            worn_out = (
                np.exp(-(((np.abs(place.x) - 0.14) / 0.05) ** 2)) * (place.z > 0) * smoothstep(-0.55, -0.3, place.y)
            )
            own = np.clip(color * (1 + 0.35 * worn_out * smoothstep(0.0, -0.15, place.y))[:, None], 0, 0.9)
        parts += _piece(cloth, both(cloth.field, -hidden), material, own, measure)
        if cloth.grid is not None:
            parts += _piece(cloth, both(cloth.grid_field, -grid_hidden), material, color, measure, on_grid=True)
        if cloth.label != "bottom":
            parts += _details(cloth, material, color, measure, hidden)
            bright = 0.75 * np.ones(3) if cloth.garment.kind in ("shirt", "blouse") else 0.25 * color + 0.01
            parts += _buttons(cloth, size, bright, hidden)
    trousers = np.full(len(base), -1.0)
    if look.dress is None and look.bottom.kind not in ("skirt", "leggings"):
        trousers = bottom_field(place, look.bottom) - LAP
    return parts + _shoes(look, base, normals, measure, trousers)


def _grid_cover(cloth: _Cloth, place: Places) -> np.ndarray:
    """Where the lower part of a coat or dress hides the body or the suit, at any points."""
    garment = cloth.garment
    if garment.kind == "skirt":
        return both(below(place, 0.12), place.y - bottom_hem(garment) - 0.04)
    field = both(below(place, 0.12), place.y - top_hem(garment) - 0.04)
    if garment.kind == "dress":
        return field
    # Between the fronts of an open coat one sees the legs from all sides.
    bottom = 0.0 if worn_open(garment) else -9.0
    return both(field, opening(place, garment) - 0.02, place.y - bottom)


def covered(person: Person, look: Look, rest: Rest) -> np.ndarray:
    """(V,) float32: positive at body vertices that lie safely under cloth, negative elsewhere."""
    place = body_places()
    fields = []
    if look.dress is None:
        worn = [(look.top, top_field)]
        if look.bottom.kind != "skirt":
            worn.append((look.bottom, bottom_field))
    else:
        worn = [(look.dress, top_field)]
    if look.outer is not None:
        worn.append((look.outer, outer_field))
    for garment, field in worn:
        # Around the neck skin and cloth may slide along each other.
        slide = 0.004 + 0.02 * smoothstep(1.7, 2.4, np.abs(place.turn))
        fields.append(field(place, garment) - 0.012 - slide * smoothstep(0.12, 0.05, place.neck))
    for garment in (look.bottom if look.dress is None else look.dress, look.outer):
        if garment is not None and _has_skirt(garment):
            blank = np.empty(0)
            fields.append(_grid_cover(_Cloth(garment, "", blank, blank, blank), place))
    low = look.dress is not None or look.bottom.kind == "skirt"
    fields.append(shoe_field(place, low) - 0.008)
    under = np.max(fields, axis=0)
    head = (place.head > 0.25) | (body().template[:, 1] > 0.605)
    return np.where(head, -1.0, under).astype(np.float32)
