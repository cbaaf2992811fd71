"""Glasses as geometry, fitted to the person's eyes, nose, cheeks and ears."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree

from ipse.world import raster
from ipse.world.body import Rest, body
from ipse.world.fitting import Embedding, Mesh, crown, ear_path, embed, grid, oval, smooth_path, surface, sweep
from ipse.world.look import Glasses
from ipse.world.parts import Material, Part
from ipse.world.skin import smoothstep, to_linear

_AROUND = 44
"""Points around one rim."""
_BASE_CURVE = 0.11
"""Radius of the lenses' outer surface, meters."""
_WRAP = np.tan(np.radians(6))
_SUNGLASSES_OPACITY = 0.97


@dataclass(frozen=True)
class _Frame:
    """A style of frame, lengths in meters at the template's size.

    Attributes:
        half_width, half_height: of a lens.
        gap: between the lenses.
        power: squareness of the outline: 2 an ellipse, 4 nearly a box.
        hinge, bridge: their height over the lens's middle, in half-heights.
        rim: factor on its thickness.
        drop: of the lens's middle below the eyes.
    """

    half_width: float
    half_height: float
    gap: float
    power: float
    hinge: float
    bridge: float
    rim: float = 1.0
    drop: float = 0.002


_FRAMES: dict[str, _Frame] = {
    "round": _Frame(0.0220, 0.0215, 0.018, 2.0, 0.30, 0.35),
    "rect": _Frame(0.0255, 0.0165, 0.017, 4.2, 0.55, 0.40),
    "aviator": _Frame(0.0275, 0.0235, 0.016, 2.5, 0.62, 0.62, 0.75, 0.005),
    "cateye": _Frame(0.0260, 0.0180, 0.017, 2.7, 0.85, 0.45),
    "halfrim": _Frame(0.0260, 0.0165, 0.017, 4.0, 0.60, 0.45),
    "sunglasses": _Frame(0.0290, 0.0225, 0.016, 2.9, 0.70, 0.50, 1.3),
}


def _outline(style: str, frame: _Frame) -> np.ndarray:
    """(_AROUND, 2) of the left lens, counterclockwise from the temple; x outward from the lens's middle, y up."""
    p = oval(2 * frame.half_width, 2 * frame.half_height, _AROUND, frame.power)
    x, y = p[:, 0] / frame.half_width, p[:, 1] / frame.half_height
    if style == "aviator":
        # A drop: flat on top, hanging out and down, cut back beside the nose.
        x = x - 0.30 * np.clip(-y, 0, 1) * np.clip(-x, 0, 1) + 0.06 * np.clip(-y, 0, 1) * (x > 0)
        y = np.where(y > 0, 0.82 * y, y)
    elif style == "cateye":
        y = y + 0.42 * smoothstep(0.25, 1.0, x) * (y > -0.2) - 0.12 * x
        x = x * np.where(y > 0, 1.06, 0.94)
    elif style in ("sunglasses", "rect", "halfrim"):
        # A little narrower below, and cut back beside the nose.
        x = x * (1 + 0.035 * y) - 0.12 * np.clip(-y, 0, 1) * np.clip(-x, 0, 1)
    return np.stack([x * frame.half_width, y * frame.half_height], 1)


@lru_cache(maxsize=1)
def _places() -> dict[str, Embedding | np.ndarray]:
    """Where glasses touch: a grid over eyes and nose, the sides of the head, the lashes; and the eyes."""
    b = body()
    face = surface(False)
    x, y = np.meshgrid(np.linspace(-0.068, 0.068, 35), np.linspace(0.674, 0.776, 26))
    plane = np.stack([x, y, np.zeros_like(x)], -1)
    ahead = np.broadcast_to([0.0, 0.0, 1.0], plane.shape)
    forward = face[b.template[face, 2].mean(1) > 0.04]
    guess = np.stack([x, y, 0.150 - 6.0 * x * x], -1)
    front = embed(plane, ahead, forward, guess)
    side_z = np.linspace(0.108, 0.030, 12)
    sides = {}
    for name, sign in (("left", 1.0), ("right", -1.0)):
        rows = np.stack([np.stack([np.zeros(12), np.full(12, h), side_z], 1) for h in (0.733, 0.742, 0.750)])
        direction = np.broadcast_to([sign, 0.0, 0.0], rows.shape)
        sides[f"{name}_side"] = embed(rows, direction, face, rows + 0.071 * direction)
    return {
        "face": front,
        **sides,
        "lashes": np.unique(b.triangles[b.triangles_of("lashes")]),
        "left_eye": np.unique(b.triangles[b.triangles_of("helper-l-eye")]),
        "right_eye": np.unique(b.triangles[b.triangles_of("helper-r-eye")]),
    }


def _depth(points: np.ndarray, face: cKDTree, z: np.ndarray) -> np.ndarray:
    """(N,) how far forward the face is near each of (N, 2) places: the largest z of the four nearest surface points."""
    return z[face.query(points, k=4)[1]].max(1)


def _relief(xy: np.ndarray, center_x: float, drop: float, tilt: float) -> np.ndarray:
    """Depth in the frame of points (N, 2) - x from the face's middle, y from the eyes - curved, wrapped and tilted."""
    out, y = np.abs(xy[:, 0]) - center_x, xy[:, 1] + drop
    return -(out**2 + y**2) / (2 * _BASE_CURVE) - _WRAP * out + np.tan(np.radians(tilt)) * y


@dataclass(frozen=True)
class _Fit:
    """Where a frame ends up: lens outline (N, 2) and its middle, distance from the eyes, tilt in degrees, cost."""

    outline: np.ndarray
    center_x: float
    drop: float
    z0: float
    tilt: float
    cost: float


def _fit(
    outline: np.ndarray,
    frame: _Frame,
    apart: float,
    scale: float,
    room: float,
    low: float,
    face: tuple[cKDTree, np.ndarray],
    lashes: np.ndarray,
    depth: float,
) -> _Fit:
    """Push a frame forward until brow, cheeks, nose and lashes are clear, at the tilt that keeps it close to the eyes.

    `room` (meters) is added between the lenses and `low` to their drop: an optician would try other frames, too.
    """
    half = outline[:, 0].max()
    center_x = max(apart / 2 + 0.001 * scale, half + (frame.gap / 2 + room) * scale)
    drop = (frame.drop + low) * scale
    contact = outline[::2] + [center_x, -drop]
    contact = np.concatenate([contact, contact * [-1, 1]])
    skin = _depth(contact, *face) + depth / 2 + 0.0014
    near = np.concatenate([contact, lashes[:, :2]])
    # The frame's reach in front of the eyes that skin and lashes ask for, but for its tilt.
    need = np.concatenate([skin, lashes[:, 2] + 0.0015]) - _relief(near, center_x, drop, 0.0)
    z0, tilt = min(((need - np.tan(np.radians(a)) * (near[:, 1] + drop)).max(), a) for a in (2.0, 6.0, 10.0, 14.0))
    shrunk = frame.half_width * scale - half
    return _Fit(outline, center_x, drop, z0, tilt, z0 + 0.35 * room + 0.45 * low + 1.2 * max(shrunk, 0))


def _beyond(side: np.ndarray, order: np.ndarray, z: float, gap: float, sign: float) -> float:
    """How far out the side of the head reaches at `z`, plus a gap; nothing in front of the temple."""
    points = side[order]
    reach = np.interp(z, points[:, 2], sign * points[:, 0])
    near = np.abs(points[:, 2] - z) < 0.012
    if near.any():
        reach = max(reach, float((sign * points[near, 0]).max()))
    return reach + gap


def glasses_parts(glasses: Glasses, rest: Rest) -> list[Part]:
    """Frame and lenses; everything moves with the head alone."""
    places, frame = _places(), _FRAMES[glasses.style]
    v = rest.vertices
    left, right = v[places["left_eye"]].mean(0), v[places["right_eye"]].mean(0)
    middle = (left + right) / 2
    apart = left[0] - right[0]
    points = places["face"].at(v).reshape(-1, 3) - middle
    face = cKDTree(points[:, :2]), points[:, 2]
    sides = {s: places[f"{s}_side"].at(v) - middle for s in ("left", "right")}
    breadth = sides["left"][..., 0].max() - sides["right"][..., 0].min()
    scale = 0.5 * (apart / 0.062 + breadth / 0.148)

    rim = (0.0019 + 0.0036 * glasses.thickness) * frame.rim
    depth = 0.0024 + 0.0016 * glasses.thickness
    lashes = v[places["lashes"]][::5] - middle
    full = _outline(glasses.style, frame) * scale
    fit = min(
        (
            _fit(full * size, frame, apart, scale, room, low, face, lashes, depth)
            for size in (1.0, 0.88)
            for room in (0.0, 0.004)
            for low in (0.0, 0.004, 0.008)
        ),
        key=lambda f: f.cost,
    )
    outline, center_x, drop, z0, tilt = fit.outline, fit.center_x, fit.drop, fit.z0, fit.tilt
    half_width, half_height = outline[:, 0].max(), outline[:, 1].max()

    def place(xy: np.ndarray) -> np.ndarray:
        return np.concatenate([xy, (z0 + _relief(xy, center_x, drop, tilt))[:, None]], 1)

    frame_mesh, lens_mesh = Mesh(), Mesh()
    color = to_linear(glasses.color.rgb)
    dark = np.array([0.030, 0.032, 0.036], np.float32)
    clear = np.array([0.30, 0.33, 0.33], np.float32)
    lens_color = clear + (dark - clear) * min(1.0, 2.5 * glasses.tint)
    anchor = crown()
    section = oval(rim, depth, 6, 2.6)
    half = glasses.style == "halfrim"
    angle = (np.arange(_AROUND) + 0.5) * 2 * np.pi / _AROUND
    upper = np.flatnonzero((angle < np.radians(196)) | (angle > np.radians(344)))
    upper = upper[np.argsort((angle[upper] + np.radians(20)) % (2 * np.pi))]
    for sign in (1.0, -1.0):
        flip = np.array([sign, 1.0])
        loop = place((outline + [center_x, -drop]) * flip) + middle
        path = loop[upper] if half else loop
        forward = np.array([0.0, np.sin(np.radians(-tilt)), 1.0])
        frame_mesh.add(*sweep(path, forward, section, closed=not half), anchor, color)

        rings = [place((outline * r + [center_x, -drop]) * flip) + middle for r in (1.0, 0.66, 0.33)]
        hub = place(np.array([[center_x, -drop]]) * flip) + middle
        lens = np.concatenate([*rings, hub])
        k = np.arange(_AROUND)
        fan = np.stack([2 * _AROUND + k, 2 * _AROUND + (k + 1) % _AROUND, np.full(_AROUND, 3 * _AROUND)], 1)
        triangles = np.concatenate([grid(3, _AROUND, wrap=True, flip=True), fan])
        lens_mesh.add(lens, triangles if sign > 0 else triangles[:, ::-1], anchor, lens_color)

        # End piece and temple: from the rim outward, back along the head, over the ear's root and down behind it.
        name = "left" if sign > 0 else "right"
        corner = np.array([[center_x + half_width * 0.985, -drop + frame.hinge * half_height]])
        start = place(corner * flip)[0]
        ear = ear_path(rest, sign) - middle
        side = sides[name].reshape(-1, 3)
        order = np.argsort(side[:, 2])
        hinge_x = max(abs(start[0]) + 0.004, _beyond(side, order, start[2] - 0.012, 0.003, sign))
        hinge = np.array([sign * hinge_x, start[1], start[2] - 0.004])
        steps = np.linspace(0, 1, 7)[:, None]
        run = hinge + (ear[0] - hinge) * steps
        run[:, 0] = [sign * max(abs(p[0]), _beyond(side, order, p[2], 0.0022, sign)) for p in run]
        path = np.concatenate([start[None], run, ear[1:]])
        height = np.full(18, 1.0)
        height[:3] = 1.35
        thick = np.array([0.0017 + 0.0008 * glasses.thickness, 0.0026 + 0.0042 * glasses.thickness * frame.rim])
        widths = np.stack([np.ones(18), height], 1)
        frame_mesh.add(
            *sweep(smooth_path(path, 18) + middle, np.array([0.0, 1.0, 0.0]), oval(*thick, 6, 3.0), scale=widths),
            anchor,
            color,
        )

    # The bridge: an arch over the nose, at least as far forward as the nose is there; aviators have a bar above it.
    for level in (frame.bridge, 0.80) if glasses.style == "aviator" else (frame.bridge,):
        y = level * half_height
        nasal = outline[outline[:, 0] < 0]
        inner = center_x + nasal[np.argmin(np.abs(nasal[:, 1] - y)), 0]
        x = np.linspace(-inner, inner, 11)
        bow = 1 - (x / inner) ** 2
        xy = np.stack([x, np.full(11, y - drop)], 1)
        arch = place(xy)
        over = _depth(xy[3:8], *face).max() + depth / 2 + 0.0008
        arch[:, 2] += np.clip(over - arch[5, 2], 0.001, 0.012) * bow
        arch[:, 1] += 0.0022 * scale * bow * (level == frame.bridge)
        thin = oval(depth, max(rim * 0.95, 0.0022), 6, 2.6)
        frame_mesh.add(*sweep(arch + middle, np.array([0.0, 1.0, 0.0]), thin), anchor, color)

    opacity = 0.03 + 0.95 * glasses.tint
    if glasses.style == "sunglasses":
        opacity = max(opacity, _SUNGLASSES_OPACITY)
    hard = Material(raster.HARD, gloss=0.8, roughness=0.25)
    return [
        Part(material=hard, label="glasses", **frame_mesh.joined()),
        Part(material=Material(raster.LENS, opacity=float(opacity)), label="glasses", **lens_mesh.joined()),
    ]
