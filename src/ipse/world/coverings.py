"""What is laid over face, head and neck: face mask, headscarf, scarf."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ipse.world import raster
from ipse.world.body import Rest, body
from ipse.world.fitting import (
    BODY_VERTICES,
    HEAD_CENTER,
    Clothes,
    Embedding,
    Mesh,
    azimuth_directions,
    crown,
    ear_path,
    embed,
    grid,
    head_scale,
    jaw_anchor,
    nearest_vertices,
    oval,
    smooth_path,
    surface,
    sweep,
    tented,
    unit,
)
from ipse.world.parts import Material, Part
from ipse.world.skin import smoothstep, to_linear
from ipse.world.values import Color

_MASK_CENTER = np.array([0.0, 0.664, 0.060])
_MASK_ROWS = np.array(
    [
        0.0,
        0.035,
        0.07,
        0.15,
        0.24,
        0.33,
        0.335,
        0.42,
        0.48,
        0.485,
        0.56,
        0.63,
        0.635,
        0.72,
        0.80,
        0.87,
        0.93,
        0.975,
        1.0,
    ]
)
_PLEATS = (0.332, 0.482, 0.632)


@lru_cache(maxsize=1)
def _mask_places() -> tuple[Embedding, np.ndarray, np.ndarray, np.ndarray]:
    """The mask's grid on the face, its anchors, its columns' azimuths (radians), and skin vertices with their cells."""
    azimuth = np.radians(np.linspace(-74, 74, 25))
    degrees = np.abs(np.degrees(azimuth))
    top = np.radians(np.interp(degrees, [0, 8, 18, 35, 74], [27.5, 26.5, 22.0, 17.0, 13.0]))
    bottom = np.radians(np.interp(degrees, [0, 25, 50, 74], [-50.0, -46.0, -33.0, -22.0]))
    rows = _MASK_ROWS[:, None]
    elevation = top + (bottom - top) * rows
    directions = azimuth_directions(np.broadcast_to(azimuth, elevation.shape), np.pi / 2 - elevation)
    points = embed(_MASK_CENTER, directions, surface(False), _MASK_CENTER + 0.085 * directions)
    # Noses and chins are sharper than the grid: each skin vertex below it holds up the four grid points around it.
    b = body()
    skin = np.unique(surface(False))
    way = b.template[skin] - _MASK_CENTER
    turn, rise = np.arctan2(way[:, 0], way[:, 2]), np.arcsin(way[:, 1] / np.linalg.norm(way, axis=1))
    column = np.interp(turn, azimuth, np.arange(len(azimuth)), -1, -1)
    upper, lower = np.interp(turn, azimuth, top), np.interp(turn, azimuth, bottom)
    row = np.interp((upper - rise) / (upper - lower), _MASK_ROWS, np.arange(len(_MASK_ROWS)), -1, -1)
    under = (column > 0) & (row > 0) & (column < len(azimuth) - 1) & (row < len(_MASK_ROWS) - 1) & (way[:, 2] > -0.02)
    props = np.stack([skin[under], row[under].astype(int), column[under].astype(int)])
    share = smoothstep(0.22, 0.88, rows) * (1 - 0.85 * smoothstep(22, 70, degrees))
    return points, jaw_anchor(share), azimuth, props


def mask_parts(color: Color, rest: Rest) -> list[Part]:
    """A surgical mask: stretched from the bridge of the nose to under the chin, pleated, with loops around the ears.

    It follows the opening jaw, and no other expression.
    """
    places, anchor, azimuth, (under, row, column) = _mask_places()
    size = head_scale(rest)
    skin = places.at(rest.vertices)
    template = places.at(body().template)
    edges = (skin[:, 0] + skin[:, -1]).mean(0) / 2
    center = edges + (_MASK_CENTER - (template[:, 0] + template[:, -1]).mean(0) / 2) * size
    ray = skin - center
    radius = np.linalg.norm(ray, axis=-1)
    ray = ray / radius[..., None]
    reach = np.linalg.norm(rest.vertices[under] - center, axis=1)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        np.maximum.at(radius, (row + down, column + right), reach)
    rows = _MASK_ROWS[:, None]
    border = np.minimum(smoothstep(0.0, 0.10, rows), smoothstep(1.0, 0.93, rows)) * smoothstep(
        1.0, 0.86, np.abs(azimuth) / azimuth[-1]
    )
    lift = 0.0018 + 0.0035 * border
    # Each pleat is a step outward that runs back over the next stretch of cloth.
    fold = np.zeros_like(rows)
    for start in _PLEATS:
        fold = fold + np.where(rows > start, np.clip(1 - (rows - start) / 0.14, 0, 1), 0)
    lift = lift + 0.0021 * fold * border
    # The wire over the nose.
    lift = lift + 0.0012 * np.exp(-0.5 * ((rows - 0.035) / 0.02) ** 2) * smoothstep(0.55, 0.3, np.abs(azimuth))
    points = center + ray * (tented(radius, 14) + lift * size)[..., None]
    tone = np.ones((*points.shape[:2], 1), np.float32)
    for start in _PLEATS:
        tone[np.flatnonzero(start < _MASK_ROWS)[0] - 1] = 0.66
    tone[0] = tone[-1] = 0.88
    tint = to_linear(color.rgb)
    mesh = Mesh()
    mesh.add(points, grid(*points.shape[:2]), anchor.reshape(-1), (tint * tone).reshape(-1, 3))
    loop = np.array([0.85, 0.85, 0.84], np.float32) if tint.mean() > 0.1 else tint
    for column, sign in ((-1, 1.0), (0, -1.0)):
        ear = ear_path(rest, sign)
        out = np.array([sign * 0.004 * size, 0.0, 0.0])
        upper, lower = points[1, column], points[-3, column]
        path = np.concatenate(
            [
                upper[None],
                ear[:1] + out,
                ear[1:] + 0.3 * out,
                (ear[-1:] + lower) / 2 + 1.2 * out + [0, -0.004, 0],
                lower[None],
            ]
        )
        vertices, triangles = sweep(smooth_path(path, 22), np.array([0.0, 0.0, 1.0]), oval(0.0022, 0.0022, 5))
        mesh.add(vertices, triangles, crown(), loop)
    cloth = Material(raster.CLOTH, roughness=0.9, sheen=0.1, fold=0.05)
    return [Part(material=cloth, label="mask", **mesh.joined())]


_HOOD_COLUMNS, _HOOD_ROWS, _DRAPE_ROWS = 48, 18, 7
_OPENING = (0.0, 0.703, 0.0605, 0.092)
"""The face opening of a headscarf on the template seen from the front: middle x and y, half-width, half-height."""


@lru_cache(maxsize=1)
def _headscarf_places() -> dict[str, Embedding | np.ndarray]:
    azimuth = np.linspace(-np.pi, np.pi, _HOOD_COLUMNS, endpoint=False)
    degrees = np.abs(np.degrees(azimuth))
    low = np.radians(np.interp(degrees, [0, 35, 60, 90, 120, 180], [149, 147, 138, 128, 124, 118]))
    rows = np.linspace(0.002, 1, _HOOD_ROWS) ** 0.9
    directions = azimuth_directions(azimuth[None], rows[:, None] * low)
    hood = embed(HEAD_CENTER, directions, surface(True), HEAD_CENTER + 0.10 * directions)
    template = hood.at(body().template)
    # Ears are finer than the grid: each of their vertices holds up the four grid points around it.
    bd = body()
    ear = np.flatnonzero(bd.mask("ears")[:BODY_VERTICES] > 0.3)
    way = bd.template[ear] - HEAD_CENTER
    turn = np.arctan2(way[:, 0], way[:, 2])
    column = ((turn + np.pi) / (2 * np.pi) * _HOOD_COLUMNS).astype(int) % _HOOD_COLUMNS
    polar = np.arccos(way[:, 1] / np.linalg.norm(way, axis=1)) / low[column]
    row = np.interp(polar, rows, np.arange(_HOOD_ROWS)).astype(int)
    inside = row < _HOOD_ROWS - 1
    x, y, a, b = _OPENING
    out = np.hypot((template[..., 0] - x) / a, (template[..., 1] - y) / b) - 1
    keep = np.where(template[..., 2] > 0.02, out, 1.0).astype(np.float32)
    hem_target = np.stack(
        [
            0.132 * np.sin(azimuth),
            0.450 + 0.105 * np.sin(azimuth) ** 2 - 0.01 * np.cos(azimuth),
            0.03 + 0.10 * np.cos(azimuth),
        ],
        -1,
    )[None]
    start = np.array([0.0, 0.43, 0.03])
    hem = embed(start, unit(hem_target - start), surface(True), hem_target)
    turn = np.linspace(-np.pi, np.pi, 48, endpoint=False)
    rim_target = np.stack([x + a * np.sin(turn), y + b * np.cos(turn), 0.10 + 0 * turn], -1)
    # The opening is a cylinder seen from the front: follow it back to the skin.
    rim_target[:, 2] = np.interp(
        np.abs(np.degrees(turn)), [0, 40, 70, 100, 130, 155, 180], [0.142, 0.110, 0.084, 0.078, 0.083, 0.104, 0.122]
    )
    inner = np.array([0.0, 0.705, 0.04])
    rim = embed(inner, unit(rim_target - inner)[None], surface(False), rim_target[None])
    share = (
        smoothstep(0.68, 0.615, template[..., 1])
        * smoothstep(0.055, 0.02, np.abs(template[..., 0]))
        * (template[..., 2] > 0.04)
    )
    anchor = jaw_anchor(share)
    rim_points = rim.at(body().template)[0]
    rim_share = smoothstep(0.68, 0.615, rim_points[:, 1]) * smoothstep(0.055, 0.02, np.abs(rim_points[:, 0]))
    # Between jaw and shoulders the cloth shares the neck's turn: its weights are
    # those of the neck inside it, and at the hem those of the hem.
    w = np.linspace(0, 1, _DRAPE_ROWS + 1)[1:, None]
    neck = np.stack(
        np.broadcast_arrays(
            0.05 * np.sin(azimuth), 0.625 - 0.085 * w + 0.02 * np.cos(azimuth + np.pi), 0.025 + 0.05 * np.cos(azimuth)
        ),
        -1,
    )
    low = smoothstep(0.45, 1.0, w)[..., None]
    drape_anchor = nearest_vertices(neck + (hem.at(body().template)[0] - neck) * low)
    return {
        "hood": hood,
        "keep": keep,
        "anchor": anchor,
        "hem": hem,
        "rim": rim,
        "rim_anchor": jaw_anchor(rim_share),
        "drape_anchor": drape_anchor,
        "azimuth": azimuth,
        "ears": np.stack([ear, row, column])[:, inside],
    }


def headscarf_parts(color: Color, clothes: Clothes, rest: Rest, number: int) -> list[Part]:
    """A scarf over hair, ears and neck that frames the face and falls on the shoulders."""
    places, size = _headscarf_places(), head_scale(rest)
    rng = np.random.default_rng([number, 42])
    azimuth, keep = places["azimuth"], places["keep"]
    skin = places["hood"].at(rest.vertices)
    skin[0] = skin[0].mean(0)
    row = int(0.55 * _HOOD_ROWS)
    center = skin[row].mean(0)
    ray = skin - center
    radius = np.linalg.norm(ray, axis=-1)
    ray = ray / radius[..., None]
    ear, row, column = places["ears"]
    reach = np.linalg.norm(rest.vertices[ear] - center, axis=1)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        np.maximum.at(radius, (row + down, (column + right) % _HOOD_COLUMNS), reach)
    # Close to the skin along the face, with room for hair behind.
    free = smoothstep(0.0, 0.35, keep)
    down = np.linspace(0, 1, _HOOD_ROWS)[:, None]
    back = smoothstep(0.2, -0.6, np.cos(azimuth)) * smoothstep(0.95, 0.4, down) * smoothstep(0.0, 0.4, down)
    lift = 0.0045 + 0.0095 * free + 0.008 * back
    full = tented(radius, 30, wrap=True)
    radius = radius + (full - radius) * smoothstep(0.03, 0.4, keep)
    points = center + ray * (radius + lift * size)[..., None]
    drift = rng.uniform(0, 2 * np.pi, 4)
    swirl = 0.0016 * size * free * np.sin(9 * keep + 3 * azimuth + drift[0]) * smoothstep(0.1, 0.5, keep)
    points += ray * swirl[..., None]
    points[0] = points[0].mean(0)

    hem = places["hem"].at(rest.vertices)[0]
    spine = np.array([hem[:, 0].mean(), 0.0, hem[:, 2].mean()])
    out = hem * [1, 0, 1] - spine
    out = out / np.linalg.norm(out, axis=1, keepdims=True)
    hem = hem + (out + [0, 1.0, 0]) * 0.007
    last = points[-1]
    w = np.linspace(0, 1, _DRAPE_ROWS + 1)[1:, None, None]
    knee = last + (hem - last) * [0.50, 0.62, 0.50]
    drape = (1 - w) ** 2 * last + 2 * w * (1 - w) * knee + w**2 * hem
    ripple = np.sin(6 * azimuth + 4 * w[..., 0] + drift[1]) + 0.6 * np.sin(10 * azimuth - 5 * w[..., 0] + drift[2])
    drape = drape + out * (0.0075 * size * np.sin(np.pi * np.clip(w[..., 0] * 0.8, 0, 1)) * ripple)[..., None]
    drape = clothes.clear(drape, unit(out + [0, 0.8, 0]), 0.007)
    under = drape[-1] - (out * 0.3 + [0, 1.0, 0]) * 0.006
    points = np.concatenate([points, drape, under[None]])
    rows, columns = points.shape[:2]
    anchor = np.concatenate([places["anchor"], places["drape_anchor"], places["drape_anchor"][-1:]])
    keep = np.concatenate([keep, np.ones((_DRAPE_ROWS + 1, columns), np.float32)])
    tint = to_linear(color.rgb)
    # Hollows between the folds are darker than the coarse ambient occlusion makes them.
    tone = np.ones((rows, columns))
    tone[_HOOD_ROWS : rows - 1] += 0.10 * ripple * np.clip(2 * w[..., 0], 0, 1)
    mesh = Mesh()
    mesh.add(points, grid(rows, columns, wrap=True), anchor.reshape(-1), tint * tone.reshape(-1, 1), keep=keep)

    rim = places["rim"].at(rest.vertices)[0]
    away = unit(rim - center)
    band, triangles = sweep(rim + away * 0.0050 * size, away, oval(0.013 * size, 0.0115 * size, 6), closed=True)
    mesh.add(band, triangles, np.repeat(places["rim_anchor"], 6), tint * 0.94)
    cloth = Material(raster.CLOTH, roughness=0.8, sheen=0.25, fold=0.28, seed=float(rng.random() * 9))
    return [Part(material=cloth, label="hat", **mesh.joined())]


_RING = 40


@lru_cache(maxsize=1)
def _scarf_places() -> dict[str, Embedding | np.ndarray]:
    azimuth = np.linspace(-np.pi, np.pi, _RING, endpoint=False)
    rings = []
    for front, back in ((0.592, 0.612), (0.566, 0.600)):
        height = (front + back) / 2 + (front - back) / 2 * np.cos(azimuth)
        start = np.stack([0 * azimuth, height, 0.022 + 0 * azimuth], -1)
        rings.append((start, azimuth_directions(azimuth, np.full(_RING, np.pi / 2))))
    start, direction = np.stack([r[0] for r in rings]), np.stack([r[1] for r in rings])
    ring = embed(start, direction, surface(False), start + 0.055 * direction)
    ends = []
    for x0, x1, low in ((0.022, 0.052, 0.285), (-0.020, -0.045, 0.335)):
        y = np.linspace(0.565, low, 12)
        x = np.interp(y, [low, 0.565], [x1, x0])
        ends.append(np.stack([x, y, np.full(12, 0.03)], -1))
    start = np.stack(ends)
    direction = np.broadcast_to([0.0, 0.0, 1.0], start.shape)
    fall = embed(start, direction, surface(False), start + [0, 0, 0.09])
    return {"ring": ring, "fall": fall, "azimuth": azimuth}


def scarf_parts(color: Color, clothes: Clothes, rest: Rest, number: int) -> list[Part]:
    """A scarf wound around the neck, with two ends hanging down the chest."""
    places = _scarf_places()
    rng = np.random.default_rng([number, 43])
    tint = to_linear(color.rgb)
    rings = places["ring"].at(rest.vertices)
    azimuth = places["azimuth"]
    size = float(np.ptp(rings[0, :, 0])) / 0.105
    mesh = Mesh()
    for k, (ring, thick) in enumerate(zip(rings, (0.021, 0.025), strict=True)):
        center = ring.mean(0)
        out = (ring - center) * [1, 0, 1]
        out = out / np.linalg.norm(out, axis=1, keepdims=True)
        swing = 1 + 0.18 * np.sin(azimuth + rng.uniform(0, 6.3)) + 0.10 * np.sin(3 * azimuth + rng.uniform(0, 6.3))
        path = ring + out * (0.55 + 0.35 * k) * thick * size
        path[:, 1] += (0.006 * np.sin(2 * azimuth + rng.uniform(0, 6.3)) + 0.004 - 0.004 * k) * size
        path = clothes.clear(path, unit(out + [0, 0.6, 0]), 0.55 * thick * size)
        corners = 12
        theta = np.arange(corners) * 2 * np.pi / corners
        # Twisted folds: the outline's lobes turn while the roll goes around.
        lobes = (
            1
            + 0.16 * np.sin(3 * theta[None] + 4 * azimuth[:, None] + rng.uniform(0, 6.3))
            + 0.08 * np.sin(5 * theta[None] - 3 * azimuth[:, None])
        )
        a = thick * size * swing[:, None] * lobes
        vertices = (
            path[:, None]
            + out[:, None] * (0.85 * a * np.cos(theta))[..., None]
            + np.array([0, 1.0, 0]) * (1.15 * a * np.sin(theta))[..., None]
        )
        triangles = grid(_RING + 1, corners, wrap=True) % (_RING * corners)
        anchor = np.repeat(places["ring"].anchor[k], corners)
        shade = 0.8 + 0.2 * np.clip((lobes - 0.85) / 0.25, 0, 1)
        coordinate = np.stack(
            [np.broadcast_to(azimuth[:, None] * 0.06, a.shape), np.broadcast_to(theta * thick, a.shape)], -1
        )
        mesh.add(vertices, triangles, anchor, (tint * shade[..., None]).reshape(-1, 3), coordinate)
    for k, end in enumerate(places["fall"].at(rest.vertices)):
        path = clothes.clear(end + [0.0, 0.0, 0.008], np.array([0.0, 0.0, 1.0]), 0.012)
        # Cloth hangs straight down from where the chest stands out most.
        path[:, 2] = np.maximum.accumulate(path[:, 2])
        path[0, 2] = min(path[0, 2], path[1, 2])
        across = np.linspace(-1, 1, 9)
        width = np.linspace(0.030, 0.046, 12)[:, None] * size
        wave = 0.0035 * size * np.cos(1.7 * np.pi * across + rng.uniform(0, 6.3)) * np.linspace(1, 0.6, 12)[:, None]
        front = path[:, None] + np.stack([width * across, 0 * wave, wave + 0.003], -1)
        back = front - [0, 0, 0.006]
        sheet = np.concatenate([front, back[:, ::-1]], 1)
        columns = sheet.shape[1]
        fringe = np.where(np.arange(columns) % 2 == 0, 0.026, 0.004) * size
        sheet = np.concatenate([sheet, sheet[-1:] - np.stack([0 * fringe, fringe, 0 * fringe], -1)])
        anchor = np.repeat(np.append(places["fall"].anchor[k], places["fall"].anchor[k, -1])[:, None], columns, 1)
        shade = np.where(np.arange(13) == 12, 0.8, 1.0)[:, None, None] * np.ones((1, columns, 1))
        mesh.add(sheet, grid(13, columns, wrap=True), anchor.reshape(-1), (tint * shade).reshape(-1, 3), sheet[..., :2])
    wool = Material(raster.CLOTH, roughness=0.9, sheen=0.4, fold=0.22, seed=float(rng.random() * 9))
    return [Part(material=wool, label="scarf", **mesh.joined())]
