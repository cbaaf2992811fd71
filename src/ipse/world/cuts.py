"""Where garments end: necklines, sleeves, hems and openings as signed distances on the body.

Every function takes `Places` and returns (N,) meters of the template, positive where there is cloth. Interpolated over
a mesh, the zero line is the edge of the cloth.
"""

from __future__ import annotations

from functools import reduce

import numpy as np

from ipse.world.look import Garment
from ipse.world.skin import smoothstep
from ipse.world.suit import ARM_M, SHOULDER, Places

WAIST_Y = 0.150
"""Template height of the upper edge of trousers and skirts."""
ANKLE_Y = -0.742
"""Template height of the upper edge of low shoes."""
TOES_Z = 0.115
"""Where the toes begin on the template."""
FAR = 1.0
"""A distance that never cuts."""


def both(*fields: np.ndarray) -> np.ndarray:
    """Cloth where all fields have cloth."""
    return reduce(np.minimum, fields)


def sleeveless(garment: Garment) -> bool:
    """Whether the garment ends at the shoulder."""
    return garment.kind in ("tanktop", "vest") or (garment.kind == "dress" and garment.sleeve < 0.1)


def top_hem(garment: Garment) -> float:
    """Template height of the lower edge of a top, dress or outer garment."""
    if garment.kind == "dress":
        return float(np.interp(garment.length, [0, 0.5, 1], [-0.13, -0.40, -0.70]))
    if garment.kind in ("coat", "jacket", "blazer", "vest"):
        return 0.15 - 0.71 * garment.length
    return float(np.interp(garment.length, [0, 1], [0.235, -0.03]))


def bottom_hem(garment: Garment) -> float:
    """Template height of the lower edge of trousers or skirt."""
    ankle = -0.70 if garment.kind == "skirt" else -0.768
    return float(np.interp(garment.length, [0, 0.5, 1], [-0.12, -0.40, ankle]))


def root(place: Places) -> np.ndarray:
    """Distance from the line where the neck meets the body: front lower than back."""
    return place.neck - (0.006 + 0.040 * (0.5 + 0.5 * np.cos(place.turn)) ** 1.5)


def wedge(place: Places, bottom: float, slope: float, round_: float = 0.0) -> np.ndarray:
    """Outside of a V in front that starts at height `bottom` and widens by `slope` meters to each side per meter up."""
    across = np.sqrt(place.x**2 + round_**2) - round_
    field = (across - slope * (place.y - bottom)) / np.hypot(1, slope)
    return np.where(np.cos(place.turn) > -0.1, field, FAR)


def neckline(place: Places, garment: Garment) -> np.ndarray:
    """The upper edge of tops and dresses."""
    base = root(place)
    kind, style = garment.kind, garment.neckline
    if kind == "tanktop":
        base = base - 0.014 - 0.008 * np.abs(np.sin(place.turn))
    if style == "turtle":
        return place.neck + 0.030 - 0.009 * np.cos(place.turn)
    if style == "vee":
        return both(base - 0.004, wedge(place, 0.455 if kind != "tanktop" else 0.44, 0.62, 0.012))
    if style == "round":
        return both(base - 0.008, _scoop(place, 0.094, 0.100, 0.588))
    if style == "collar":
        return both(base + 0.006, wedge(place, 0.492, 0.45))
    return both(base + 0.004, _scoop(place, 0.076, 0.060, 0.602))


def _scoop(place: Places, across: float, down: float, height: float) -> np.ndarray:
    """Outside of an ellipse on the chest around (0, `height`) with these half axes."""
    field = np.hypot(place.x / across, (place.y - height) / down) - 1
    return np.where(np.cos(place.turn) > -0.1, min(across, down) * field, FAR)


def armhole(place: Places, out: float = 0.0) -> np.ndarray:
    """The edge of a sleeveless garment around the shoulder, moved `out` meters toward the arm."""
    x = np.abs(place.x) - SHOULDER[0]
    ring = np.sqrt(x * x + (place.y - SHOULDER[1]) ** 2 + (place.z - SHOULDER[2]) ** 2) - (0.066 - out)
    return both(np.where(np.abs(place.x) > SHOULDER[0] + 0.02, -np.abs(ring), ring), 0.15 * (0.45 - place.arm))


def sleeves(place: Places, garment: Garment) -> np.ndarray:
    """The lower edge of the sleeves."""
    if sleeveless(garment):
        return armhole(place, 0.012 if garment.kind == "vest" else 0.0)
    return max(0.045, (ARM_M - 0.006) * garment.sleeve) - place.along


def above(place: Places, height: float) -> np.ndarray:
    """Torso and legs above a height, and all of the arms."""
    return place.y - height + FAR * smoothstep(0.2, 0.5, place.arm)


def below(place: Places, height: float) -> np.ndarray:
    """Torso and legs below a height, nothing of the arms."""
    return height - place.y - FAR * smoothstep(0.2, 0.5, place.arm)


def top_field(place: Places, garment: Garment) -> np.ndarray:
    """Where a top or the upper part of a dress is."""
    return both(neckline(place, garment), sleeves(place, garment), above(place, top_hem(garment)))


def bottom_field(place: Places, garment: Garment) -> np.ndarray:
    """Where trousers, shorts, leggings or a skirt are."""
    return both(below(place, WAIST_Y), place.y - bottom_hem(garment))


def worn_open(garment: Garment) -> bool:
    """Whether the front of an outer garment is left open."""
    return garment.kind == "jacket" or (garment.kind == "coat" and garment.fit >= 0.5)


def opening(place: Places, garment: Garment) -> np.ndarray:
    """The front of an outer garment, left open or with a V between the lapels."""
    kind = garment.kind
    if kind == "blazer":
        return both(wedge(place, 0.235, 0.30), _below_button(place, 0.235, 0.16))
    if kind == "vest":
        return both(wedge(place, 0.30, 0.34), _below_button(place, 0.10, 0.25))
    if not worn_open(garment):
        return wedge(place, 0.36, 0.34)
    gap = 0.026 + 0.05 * smoothstep(0.35, 0.56, place.y) + 0.035 * smoothstep(0.2, -0.4, place.y)
    return np.where(np.cos(place.turn) > 0, np.abs(place.x) - gap, FAR)


def _below_button(place: Places, height: float, slope: float) -> np.ndarray:
    field = np.abs(place.x) - slope * (height - place.y)
    return np.where((np.cos(place.turn) > 0) & (place.y < height), field, FAR)


def outer_field(place: Places, garment: Garment) -> np.ndarray:
    """Where coat, jacket, blazer or vest are."""
    neck = root(place) + (0.012 if garment.kind != "vest" else -0.006)
    return both(neck, opening(place, garment), sleeves(place, garment), above(place, top_hem(garment)))


def shoe_field(place: Places, low: bool) -> np.ndarray:
    """Where shoes are; `low` ones leave the instep bare."""
    if low:
        edge = ANKLE_Y - 0.018 - 0.40 * np.maximum(place.z - 0.02, 0) - place.y
        # The toes are always inside.
        return np.where(place.y < -0.7, np.maximum(edge, place.z - TOES_Z), edge)
    return ANKLE_Y + 0.012 * smoothstep(0.0, -0.05, place.z) - 0.01 * smoothstep(0.02, 0.07, place.z) - place.y
