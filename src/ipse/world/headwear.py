"""Hats: caps, beanies, brimmed hats and helmets as shells over the person's own skull."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree

from ipse.world import raster
from ipse.world.body import Rest
from ipse.world.fitting import (
    HEAD_CENTER,
    Embedding,
    Mesh,
    crown,
    embed,
    grid,
    head_scale,
    head_shell,
    nearest_vertices,
    oval,
    smooth_path,
    surface,
    sweep,
)
from ipse.world.look import Hat
from ipse.world.parts import Material, Part
from ipse.world.skin import smoothstep, to_linear

_LINES: dict[str, tuple[tuple[float, float], ...]] = {
    "cap": ((0, 0.786), (45, 0.776), (90, 0.757), (135, 0.738), (180, 0.728)),
    "beanie": ((0, 0.777), (50, 0.766), (90, 0.747), (120, 0.728), (180, 0.704)),
    "brim": ((0, 0.788), (45, 0.780), (90, 0.762), (135, 0.744), (180, 0.734)),
    "helmet": ((0, 0.784), (50, 0.774), (90, 0.752), (125, 0.728), (180, 0.704)),
}
"""Per kind the lower edge: azimuth in degrees and template height; over the brows (0.755) and the ears (0.735)."""

_ROWS: dict[str, tuple[float, ...]] = {
    "cap": (0.0, 0.1, 0.22, 0.34, 0.46, 0.58, 0.70, 0.80, 0.90, 0.97, 1.0, 1.0),
    "beanie": (0.0, 0.08, 0.17, 0.27, 0.37, 0.47, 0.56, 0.64, 0.70, 0.74, 0.80, 0.90, 0.97, 1.0, 1.0),
    "brim": (0.0, 0.15, 0.30, 0.42, 0.50, 0.56, 0.62, 0.70, 0.79, 0.791, 0.88, 0.975, 0.976, 1.0),
    "helmet": (0.0, 0.09, 0.19, 0.30, 0.41, 0.52, 0.63, 0.74, 0.84, 0.93, 0.931, 1.0, 1.0),
}
"""Rows of each shell from the crown (0) to the edge (1); doubled ones make a sharp change of color or a rim."""


@lru_cache(maxsize=8)
def _azimuths(kind: str) -> np.ndarray:
    """Columns around the head, radians; a cap has three close together at each of its six seams."""
    if kind == "cap":
        seams = np.radians(np.arange(-180, 180, 60))
        steps = np.radians(np.array([-1.1, 0.0, 1.1, 11, 20, 30, 40, 49]))
        return (seams[:, None] + steps).ravel()
    return np.linspace(-np.pi, np.pi, 64 if kind == "beanie" else 48, endpoint=False)


@lru_cache(maxsize=8)
def _shell(kind: str) -> Embedding:
    return head_shell(_LINES[kind], np.array(_ROWS[kind]), _azimuths(kind))


@lru_cache(maxsize=1)
def _middle() -> Embedding:
    """Four points around the skull whose mean stands for its middle."""
    directions = np.array([[[1.0, 0, 0], [0, 0, 1], [-1, 0, 0], [0, 0, -1]]])
    return embed(HEAD_CENTER, directions, surface(False), HEAD_CENTER + 0.09 * directions)


def skull_center(rest: Rest) -> np.ndarray:
    """(3,) the middle of the person's skull, meters."""
    return _middle().at(rest.vertices)[0].mean(0)


@dataclass(frozen=True)
class _Base:
    """What a hat is built on.

    Attributes:
        center: (3,) the middle of the skull, meters.
        skull: (R, C, 3) the grid on the person's skull, meters.
        ray: (R, C, 3) unit vectors outward.
        rows: (R, 1) 0 at the crown to 1 on the hat's line.
        azimuth: (1, C) radians.
        size: of the head over the template's.
    """

    center: np.ndarray
    skull: np.ndarray
    ray: np.ndarray
    rows: np.ndarray
    azimuth: np.ndarray
    size: float


def hat_parts(hat: Hat, rest: Rest, number: int) -> list[Part]:
    """A cap, beanie, brimmed hat or helmet; it moves with the head alone. `number` varies how it sits."""
    kind, size = hat.kind, head_scale(rest)
    rows, azimuth = np.array(_ROWS[kind])[:, None], _azimuths(kind)[None]
    skull = _shell(kind).at(rest.vertices)
    skull[0] = skull[0].mean(0)
    center = skull_center(rest)
    ray = skull - center
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    rng = np.random.default_rng([number, 41])
    color = to_linear(hat.color.rgb)
    base = _Base(center, skull, ray, rows, azimuth, size)
    build = {"cap": _cap, "beanie": _beanie, "brim": _brim, "helmet": _helmet}[kind]
    mesh, material = build(base, color, rng)
    if kind == "helmet":
        _straps(mesh, skull, rest, azimuth[0], size)
    return [Part(material=material, label="hat", **mesh.joined())]


def _around(points: np.ndarray) -> np.ndarray:
    """(R, C, 2) pattern coordinates in meters: along the surface downward and around it."""
    down = np.linalg.norm(np.diff(points, axis=0, prepend=points[:1]), axis=-1).cumsum(0)
    across = np.linalg.norm(np.diff(points[-1], axis=0, prepend=points[-1:, :1][0]), axis=-1).cumsum()
    return np.stack([down, np.broadcast_to(across, down.shape)], -1)


def _cap(base: _Base, color: np.ndarray, rng: np.random.Generator) -> tuple[Mesh, Material]:
    skull, ray, rows, azimuth, size = base.skull, base.ray, base.rows, base.azimuth, base.size
    mesh = Mesh()
    front = np.cos(azimuth)
    # The front panels stand up; the last row turns in to the skin, so that no gap shows from below.
    offset = 0.0130 + 0.012 * smoothstep(0.0, 0.45, rows) * smoothstep(1.0, 0.6, rows) * smoothstep(0.1, 0.9, front)
    offset = offset + 0.004 * smoothstep(0.6, 0.0, rows)
    offset = np.broadcast_to(offset, skull.shape[:2]).copy()
    seam = np.arange(azimuth.shape[1]) % 8 == 1
    offset[1:-1, seam] -= 0.0012
    offset[-1] = 0.002
    points = skull + ray * (offset * size)[..., None]
    tone = np.ones((*points.shape[:2], 1), np.float32)
    tone[:, seam] = 0.62
    tone[-1] = 0.5
    mesh.add(points, grid(*points.shape[:2], wrap=True), crown(), (color * tone).reshape(-1, 3), _around(points))

    # The visor: an upper and a lower sheet around a curved edge, arched over its breadth.
    u = np.linspace(-1, 1, 17)
    angle = np.radians(64) * u
    column = np.interp(angle, azimuth[0], np.arange(azimuth.shape[1]))
    i = column.astype(int)
    edge = points[-2]
    inner = edge[i] + (edge[(i + 1) % len(edge)] - edge[i]) * (column - i)[:, None]
    reach = (0.066 + 0.008 * rng.random()) * size * np.cos(np.radians(72) * u) ** 0.75
    v = np.array([-0.06, 0.3, 0.6, 0.85, 0.97, 1.0, 0.97, 0.85, 0.6, 0.3, -0.06])
    thick = 0.0011 * size * np.array([1, 1, 1, 1, 1, 0, -1, -1, -1, -1, -1])
    slope = 0.22 + 0.22 * rng.random()
    sheet = np.repeat(inner[None], len(v), 0)
    sheet[..., 2] += v[:, None] * reach
    sheet[..., 0] += v[:, None] * 0.10 * (inner[:, 0] - inner[:, 0].mean())
    sheet[..., 1] += thick[:, None] - v[:, None] * (slope * reach + 0.010 * size * u**2)
    tone = np.where(np.arange(len(v)) > 5, 0.7, 1.0)[:, None, None] * np.ones((1, len(u), 1))
    mesh.add(sheet, grid(*sheet.shape[:2], flip=True), crown(), (color * tone).reshape(-1, 3), sheet[..., [0, 2]])

    # The button.
    a, p = np.linspace(0, 2 * np.pi, 9)[:-1], np.array([0.0, 0.5, 1.0, 1.4])
    r = 0.0075 * size
    dome = (
        np.stack([np.sin(p)[:, None] * np.sin(a), 0.7 * np.cos(p)[:, None] + 0 * a, np.sin(p)[:, None] * np.cos(a)], -1)
        * r
    )
    mesh.add(points[0, 0] + dome, grid(4, 8, wrap=True), crown(), color * 0.85)
    return mesh, Material(raster.CLOTH, roughness=0.8, sheen=0.15, fold=0.12, seed=float(rng.random() * 9))


def _beanie(base: _Base, color: np.ndarray, rng: np.random.Generator) -> tuple[Mesh, Material]:
    skull, ray, rows, azimuth, size = base.skull, base.ray, base.rows, base.azimuth, base.size
    mesh = Mesh()
    slouch = rng.random()
    offset = 0.0120 + 0.006 * smoothstep(0.75, 0.0, rows) + 0.004 * slouch * smoothstep(0.7, 0.3, rows)
    # The fold-over stands out from 0.7 down, with a round upper and lower edge.
    t = rows[:, 0]
    fold = np.interp(t, [0.0, 0.699, 0.7, 0.74, 0.97, 1.0], [0, 0, 0.0, 0.0055, 0.0055, 0.003])
    offset = np.broadcast_to(offset + fold[:, None], skull.shape[:2]).copy()
    ribs = np.cos(azimuth[0] * azimuth.shape[1] / 2)
    offset += 0.0007 * ribs * np.where(t > 0.7, 1.0, 0.8 * np.clip(t / 0.4, 0, 1))[:, None]
    offset[-1] = 0.0015
    points = skull + ray * (offset * size)[..., None]
    top = smoothstep(0.66, 0.0, rows) * size
    points[..., 1] += top * (0.006 + 0.016 * slouch)
    points[..., 2] -= top * 0.030 * slouch
    wave = (
        0.0025
        * slouch
        * np.sin(3 * azimuth + 6 * rng.random())
        * smoothstep(0.66, 0.4, rows)
        * smoothstep(0.0, 0.3, rows)
    )
    points += ray * (wave * size)[..., None]
    tone = np.ones((*points.shape[:2], 1), np.float32)
    tone[8] = 0.55
    tone[-1] = 0.5
    tone = tone * (1 + 0.05 * ribs[None, :, None])
    mesh.add(points, grid(*points.shape[:2], wrap=True), crown(), (color * tone).reshape(-1, 3), _around(points))
    knit = Material(
        raster.CLOTH,
        roughness=0.9,
        pattern=raster.STRIPES,
        scale=210.0,
        second=tuple(float(c) for c in 0.72 * color),
        sheen=0.5,
        fold=0.18 + 0.12 * slouch,
        seed=float(rng.random() * 9),
    )
    return mesh, knit


def _brim(base: _Base, color: np.ndarray, rng: np.random.Generator) -> tuple[Mesh, Material]:
    skull, ray, rows, azimuth, size = base.skull, base.ray, base.rows, base.azimuth, base.size
    mesh = Mesh()
    t = rows[:, 0]
    rim = skull[-1] + ray[-1] * 0.012 * size
    # The crown's walls rise nearly straight from the rim to a shoulder, over which the top lies pinched.
    top = skull[0, 0] + [0.0, 0.022 * size, 0.0]
    wall = np.clip((1 - t) / 0.5, 0, 1)
    rise = wall[:, None] * (top[1] - rim[:, 1])[None] * 0.97
    middle = rim.mean(0)
    inward = np.interp(t, [0.0, 0.30, 0.42, 0.50, 0.56, 0.62, 1.0], [0.0, 0.52, 0.72, 0.81, 0.85, 0.88, 1.0])
    points = middle + (rim - middle) * inward[:, None, None]
    points[..., 1] = rim[None, :, 1] + rise
    points[0] = points[0].mean(0)
    pinch = smoothstep(0.022 * size, 0.0, np.abs(points[..., 0] - middle[0])) * smoothstep(0.45, 0.25, t)[:, None]
    points[..., 1] -= 0.014 * size * pinch
    points[..., 1] += 0.004 * size * smoothstep(0.56, 0.42, t)[:, None]
    # Never inside the head, whose back stands out further than the rim does.
    out = points - base.center
    reach = np.linalg.norm(out, axis=-1)
    out = out / reach[..., None]
    near = cKDTree(ray.reshape(-1, 3)).query(out, k=3)[1]
    radius = np.linalg.norm(skull - base.center, axis=-1).ravel()[near].max(-1)
    points += out * np.maximum(radius + 0.0115 * size - reach, 0)[..., None]
    # A band in a darker or a lighter tone than the felt.
    band = (t > 0.79) & (t < 0.9755)
    light = float(color.mean())
    contrast = color * 0.35 if light > 0.12 else color * 0.5 + 0.09
    tint = np.where(band[:, None, None], contrast, color) * np.ones((*points.shape[:2], 1))
    points[band] += ray[band] * 0.0012 * size
    mesh.add(points, grid(*points.shape[:2], wrap=True), crown(), tint.reshape(-1, 3), _around(points))

    width = (0.052 + 0.016 * rng.random()) * size
    v = np.array([0.0, 0.3, 0.6, 0.85, 0.97, 1.0, 0.97, 0.85, 0.6, 0.3, 0.0, -0.14])
    thick = 0.0011 * size * np.array([1, 1, 1, 1, 1, 0, -1, -1, -1, -1, -1, -1])
    out = points[-1] - middle
    out[:, 1] = 0
    out /= np.linalg.norm(out, axis=-1, keepdims=True)
    sheet = points[-1] + v[:, None, None] * width * out
    # Dips in front and behind, turned up at the sides.
    bend = 0.010 * np.sin(azimuth[0]) ** 2 - 0.012 * np.cos(azimuth[0]) ** 2
    sheet[..., 1] += thick[:, None] + np.abs(v[:, None]) ** 1.5 * bend * size
    tone = np.where(np.arange(len(v)) > 5, 0.75, 1.0)[:, None, None] * np.ones((1, sheet.shape[1], 1))
    mesh.add(sheet, grid(*sheet.shape[:2], wrap=True), crown(), (color * tone).reshape(-1, 3), sheet[..., [0, 2]])
    return mesh, Material(raster.CLOTH, roughness=0.85, sheen=0.25, fold=0.05, seed=float(rng.random() * 9))


def _helmet(base: _Base, color: np.ndarray, rng: np.random.Generator) -> tuple[Mesh, Material]:
    skull, ray, rows, size = base.skull, base.ray, base.rows, base.size
    mesh = Mesh()
    t = rows[:, 0]
    offset = 0.018 + 0.008 * smoothstep(0.9, 0.2, rows) * np.ones(skull.shape[:2])
    # Three ridges from front to back.
    across = skull[..., 0] - skull[0, 0, 0]
    for x in (-0.034, 0.0, 0.034):
        ridge = np.exp(-0.5 * ((across - x * size) / (0.0075 * size)) ** 2)
        offset = offset + 0.0035 * ridge * smoothstep(0.88, 0.7, rows)
    offset[-3:-1] += 0.003
    offset[-1] = 0.002
    points = skull + ray * (offset * size)[..., None]
    dark = np.array([0.02, 0.02, 0.022], np.float32)
    edge = (t > 0.9305)[:, None, None]
    tint = np.where(edge, dark, color) * np.ones((*points.shape[:2], 1))
    mesh.add(points, grid(*points.shape[:2], wrap=True), crown(), tint.reshape(-1, 3), _around(points))
    return mesh, Material(raster.HARD, gloss=0.9, roughness=0.22)


_STRAPS = np.array(
    [
        [
            [0.0725, 0.715, 0.078],
            [0.0690, 0.690, 0.074],
            [0.0620, 0.662, 0.078],
            [0.0490, 0.632, 0.088],
            [0.0260, 0.612, 0.108],
            [0.0, 0.606, 0.118],
        ],
        [
            [0.0700, 0.715, 0.026],
            [0.0640, 0.695, 0.030],
            [0.0600, 0.672, 0.046],
            [0.0570, 0.652, 0.068],
            [0.0490, 0.632, 0.088],
            [0.0490, 0.632, 0.088],
        ],
    ]
)
"""Template points that the straps on the person's left run along: in front of the ear to the chin, and behind it."""


@lru_cache(maxsize=1)
def _strap_vertices() -> np.ndarray:
    """(2 straps, 2 sides, 6 points) the body vertices nearest to the straps' points."""
    return np.stack([nearest_vertices(_STRAPS * [sign, 1, 1]) for sign in (1.0, -1.0)], 1)


def _straps(mesh: Mesh, skull: np.ndarray, rest: Rest, azimuth: np.ndarray, size: float) -> None:
    """Chin straps: rigid at the helmet, following the jaw at the chin."""
    dark = np.array([0.02, 0.02, 0.022], np.float32)
    middle = skull.mean((0, 1))
    for strap, angle in ((0, 66.0), (1, 118.0)):
        for side, sign in ((0, 1.0), (1, -1.0)):
            vertices = _strap_vertices()[strap, side]
            on_skin = rest.vertices[vertices] if strap == 0 else rest.vertices[vertices[:-1]]
            start = skull[-1, np.argmin(np.abs(np.degrees(azimuth) - sign * angle))]
            path = smooth_path(np.concatenate([start[None], on_skin]), 15)
            out = path - middle
            out[:, 1] *= 0.6
            out /= np.linalg.norm(out, axis=1, keepdims=True)
            path = path + out * 0.0042 * size
            points, triangles = sweep(path, out, oval(0.013 * size, 0.0018, 6, 3.0))
            anchor = np.where(
                np.linspace(0, 1, 15) < 0.45,
                crown(),
                vertices[np.linspace(0, len(on_skin) - 1, 15).round().astype(int)],
            )
            mesh.add(points, triangles, np.concatenate([np.repeat(anchor, 6), anchor[[0, -1]]]), dark)
