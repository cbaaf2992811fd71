"""Backpacks and handbags, worn over the clothes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ipse.world import raster
from ipse.world.body import Rest
from ipse.world.fitting import (
    Clothes,
    Embedding,
    Mesh,
    embed,
    nearest_vertices,
    oval,
    smooth_path,
    surface,
    sweep,
    unit,
)
from ipse.world.look import Bag
from ipse.world.parts import Material, Part
from ipse.world.skin import to_linear

_SHOULDER_STRAP = np.array(
    [
        [0.060, 0.500, -0.060],
        [0.078, 0.545, -0.035],
        [0.088, 0.570, 0.000],
        [0.094, 0.565, 0.035],
        [0.098, 0.530, 0.080],
        [0.104, 0.480, 0.105],
        [0.112, 0.420, 0.110],
        [0.126, 0.360, 0.095],
        [0.140, 0.305, 0.055],
        [0.132, 0.265, 0.010],
        [0.105, 0.235, -0.030],
    ]
)
"""Template points near the trunk that the left strap of a backpack runs along, from the pack's top to its foot."""

_CROSS_STRAP = np.array(
    [
        [0.095, 0.200, 0.135],
        [0.085, 0.260, 0.140],
        [0.040, 0.340, 0.150],
        [0.000, 0.410, 0.130],
        [-0.045, 0.485, 0.110],
        [-0.075, 0.545, 0.060],
        [-0.082, 0.570, 0.010],
        [-0.065, 0.535, -0.040],
        [-0.020, 0.460, -0.050],
        [0.030, 0.370, -0.040],
        [0.080, 0.280, -0.030],
        [0.140, 0.200, 0.030],
    ]
)
"""Template points that a strap worn across runs along, from the bag over the right shoulder and the back to the bag."""


def _on_trunk(targets: np.ndarray) -> Embedding:
    """Embedding (1, N) of where rays from the spine to template points leave the trunk."""
    start = targets * [0.45, 0.0, 0.0] + np.stack(
        [0 * targets[:, 0], np.clip(targets[:, 1] - 0.05, 0.05, 0.44), 0.035 + 0 * targets[:, 0]], 1
    )
    return embed(start[None], unit(targets - start)[None], surface(True), targets[None])


@lru_cache(maxsize=1)
def _places() -> dict[str, Embedding | np.ndarray]:
    x, y = np.meshgrid(np.linspace(-0.11, 0.11, 9), np.linspace(0.17, 0.52, 12))
    start = np.stack([x, y, 0.04 + 0 * x], -1)
    direction = np.broadcast_to([0.0, 0.0, -1.0], start.shape)
    hips = np.array([[0.120, 0.140, 0.140]])
    return {
        "back": embed(start, direction, surface(True), start + [0, 0, -0.07]),
        "left": _on_trunk(_SHOULDER_STRAP),
        "right": _on_trunk(_SHOULDER_STRAP * [-1, 1, 1]),
        "across": _on_trunk(_CROSS_STRAP),
        "hip": embed(
            np.array([[[0.0, 0.140, 0.035]]]), unit(hips - [0.0, 0.140, 0.035])[None], surface(True), hips[None]
        ),
        "rigid_back": nearest_vertices(np.array([0.0, 0.40, -0.04])),
        "rigid_hip": nearest_vertices(np.array([0.08, 0.175, 0.11])),
    }


def _box(width: float, height: float, depth: float, top: float, rounds: float = 5.0) -> tuple[np.ndarray, np.ndarray]:
    """A box with rounded edges around the origin; its outline narrows by the factor `top` toward the upper end.

    Returns:
        Vertices and outward triangles.
    """
    t = np.array([-1.0, -0.98, -0.92, -0.75, -0.2, 0.4, 0.75, 0.92, 0.98, 1.0])
    path = np.stack([0 * t, t * height / 2, 0 * t], 1)
    bulge = (1 - np.abs(t) ** 7) ** (1 / 2.6)
    bulge[[0, -1]] = 0.62
    bulge = np.maximum(bulge, 0.62)
    taper = 1 + (top - 1) * np.clip(t, 0, 1) ** 2
    scale = np.stack([bulge * taper, bulge * taper], 1)
    return sweep(path, np.array([0.0, 0.0, 1.0]), oval(width, depth, 16, rounds), scale=scale)


def _strap(
    mesh: Mesh,
    path: np.ndarray,
    out: np.ndarray,
    widths: np.ndarray,
    thick: float,
    anchor: np.ndarray,
    color: np.ndarray,
) -> None:
    """A flat band along a path, its broad side outward."""
    section = oval(1.0, thick, 6, 3.0)
    vertices, triangles = sweep(path, out, section, scale=np.stack([widths, np.ones_like(widths)], 1))
    mesh.add(vertices, triangles, np.concatenate([np.repeat(anchor, 6), anchor[[0, -1]]]), color)


def _smooth(values: np.ndarray, rounds: int) -> np.ndarray:
    """Rows (N, 3) averaged with their neighbors; the ends stay."""
    v = values.copy()
    for _ in range(rounds):
        v[1:-1] = 0.25 * v[:-2] + 0.5 * v[1:-1] + 0.25 * v[2:]
    return v


def _over(
    path: np.ndarray, spine: np.ndarray, clothes: Clothes, gap: float, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """A band's middle line over the clothes, (count, 3), and the directions outward along it."""
    fine = smooth_path(path, count)
    # Outward: across the line, away from the spine.
    away = fine - spine
    tangent = unit(np.gradient(fine, axis=0))
    out = unit(away - (away * tangent).sum(1, keepdims=True) * tangent)
    laid = clothes.clear(fine, out, gap)
    lift = ((laid - fine) * out).sum(1, keepdims=True)
    lift = np.maximum(lift, gap)
    lift = np.maximum(lift, _smooth(lift, 6))
    return fine + out * lift, out


def backpack_parts(bag: Bag, clothes: Clothes, rest: Rest, number: int) -> list[Part]:
    """A backpack with pockets and two shoulder straps."""
    places = _places()
    rng = np.random.default_rng([number, 44])
    v, color = rest.vertices, to_linear(bag.color.rgb)
    back = places["back"].at(v)
    trunk = float(back[-1, :, 1].mean() - back[0, :, 1].mean()) / 0.35
    broad = float(np.ptp(back[8, :, 0])) / 0.22
    width = (0.285 + 0.03 * rng.random()) * np.clip(broad, 0.75, 1.15)
    height = (0.41 + 0.05 * rng.random()) * np.clip(trunk, 0.72, 1.1)
    depth = (0.13 + 0.04 * rng.random()) * np.clip(trunk, 0.75, 1.1)
    away = np.array([0.0, 0.0, -1.0])
    contact = clothes.clear(back.reshape(-1, 3), away, 0.004).reshape(back.shape)
    # The pack leans on the back's two most outstanding heights.
    profile, level = contact[..., 2].min(1), contact[..., 1].mean(1)
    top = profile[6:].min(), level[6:].mean()
    foot = profile[:6].min(), level[:6].mean()
    lean = np.clip((top[0] - foot[0]) / (top[1] - foot[1]), -0.12, 0.12)
    plane = (profile - lean * (level - level.mean())).min()
    middle = np.array([back[..., 0].mean(), level[-1] + 0.01 * trunk - height / 2, 0.0])
    middle[2] = plane + lean * (middle[1] - level.mean()) - depth / 2 - 0.002
    turn = np.array([[1, 0, 0], [0, 1, 0], [0, lean, 1.0]])
    rigid = places["rigid_back"]
    mesh = Mesh()

    def put(points: np.ndarray, triangles: np.ndarray, at: tuple[float, float, float], tint: np.ndarray) -> None:
        mesh.add((points + np.array(at)) @ turn.T + middle, triangles, rigid, tint)

    put(*_box(width, height, depth, 0.86), (0, 0, 0), color)
    put(*_box(0.78 * width, 0.46 * height, 0.34 * depth, 0.95), (0, -0.20 * height, -0.58 * depth), color * 0.86)
    for sign in (1.0, -1.0):
        put(
            *_box(0.10 * width, 0.38 * height, 0.62 * depth, 0.9),
            (sign * 0.50 * width, -0.26 * height, 0.0),
            color * 0.8,
        )
    # Zippers: one around the main compartment, one over the pocket.
    dark = 0.35 * color + 0.006
    a = np.linspace(-0.25 * np.pi, 1.25 * np.pi, 21)
    for w, h, y, z in ((0.455, 0.40, 0.02, -0.33), (0.36, 0.03, 0.005, -0.765)):
        arc = np.stack([w * width * np.cos(a), y * height + h * height * np.sin(a), z * depth + 0 * a], 1)
        if h > 0.1:
            arc[:, 0] *= 1.06 - 0.10 * np.clip(np.sin(a), 0, 1)
        points, triangles = sweep(arc, np.array([0.0, 0.0, 1.0]), oval(0.006, 0.010, 4))
        if h > 0.1:
            put(points, triangles, (0, 0, 0), dark)
    flat = np.stack([np.linspace(-0.34, 0.34, 5) * width, np.full(5, -0.02 * height), np.full(5, -0.745 * depth)], 1)
    put(*sweep(flat, np.array([0.0, 0.0, 1.0]), oval(0.007, 0.010, 4)), (0, 0, 0), dark)
    a = np.linspace(0, np.pi, 11)
    loop = np.stack(
        [0.11 * width * np.cos(a), 0.495 * height + 0.065 * height * np.sin(a), np.full(11, 0.30 * depth)], 1
    )
    put(*sweep(loop, np.array([0.0, 0.0, 1.0]), oval(0.010, 0.022, 6)), (0, 0, 0), dark)

    for side, sign in (("left", 1.0), ("right", -1.0)):
        skin = places[side].at(v)[0]
        spine = np.stack(
            [
                0.3 * (skin[:, 0] + middle[0]),
                np.minimum(skin[:, 1], skin[0, 1] - 0.10 * trunk),
                0 * skin[:, 2] + skin[:, 2].mean(),
            ],
            1,
        )
        count = 32
        path, out = _over(skin, smooth_path(spine, count), clothes, 0.007, count)
        hooks = (
            np.array(
                [
                    [sign * 0.20 * width, 0.40 * height, 0.50 * depth],
                    [sign * 0.40 * width, -0.40 * height, 0.42 * depth],
                ]
            )
            @ turn.T
            + middle
        )
        # Both ends are sewn to the pack.
        ease = np.clip(1 - np.arange(count) / 6, 0, 1)[:, None] ** 2
        path = path + ease * (hooks[0] - path[0]) + ease[::-1] * (hooks[1] - path[-1])
        t = np.linspace(0, 1, count)
        widths = np.interp(t, [0, 0.1, 0.6, 0.68, 1], [0.045, 0.056, 0.050, 0.027, 0.025]) * np.clip(broad, 0.8, 1.1)
        anchor = places[side].anchor[0][np.round(t * (len(skin) - 1)).astype(int)]
        anchor[[0, 1, -2, -1]] = rigid
        _strap(mesh, path, out, widths, 0.009, anchor, color * 0.72)
    cloth = Material(raster.CLOTH, gloss=0.5, roughness=0.6, fold=0.10, seed=float(rng.random() * 9))
    return [Part(material=cloth, label="bag", **mesh.joined())]


def handbag_parts(bag: Bag, clothes: Clothes, rest: Rest, number: int) -> list[Part]:
    """A handbag at the left hip, its strap across the chest, handles on top."""
    places = _places()
    rng = np.random.default_rng([number, 45])
    v, color = rest.vertices, to_linear(bag.color.rgb)
    grown = rest.height / 1.70
    width = (0.24 + 0.06 * rng.random()) * grown
    height = (0.17 + 0.04 * rng.random()) * grown
    depth = (0.075 + 0.025 * rng.random()) * grown
    hip = places["hip"].at(v)[0, 0]
    strap = places["across"].at(v)[0]
    spine = np.array([strap[:, 0].mean() * 0.2, 0.0, 0.5 * (strap[0, 2] + strap[-1, 2])])
    out = unit((hip - spine) * [1, 0, 1])
    along = np.cross(out, [0.0, 1.0, 0.0])
    # The bag hangs against the hip with its broad side: clear the whole side, not its middle alone.
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, 5) * width, np.linspace(-0.5, 0.5, 5) * height)
    back = hip + x[..., None] * along + y[..., None] * [0, 1.0, 0]
    cleared = clothes.clear(back.reshape(-1, 3), out, 0.004).reshape(-1, 3)
    stand = max(float(((cleared - hip) @ out).max()), 0.004)
    middle = hip + out * (stand + depth / 2)
    frame = np.stack([along, [0.0, 1.0, 0.0], out], 1)
    rigid = places["rigid_hip"]
    mesh = Mesh()

    def put(points: np.ndarray, triangles: np.ndarray, tint: np.ndarray) -> None:
        mesh.add(points @ frame.T + middle, triangles if np.linalg.det(frame) > 0 else triangles[:, ::-1], rigid, tint)

    # Wider below than above, as bags that stand are.
    put(*_box(width, height, depth, 0.84, 6.0), color)
    flap, triangles = _box(0.90 * width, 0.52 * height, 0.14 * depth, 0.95, 5.0)
    put(flap + [0, 0.20 * height, 0.50 * depth], triangles, color * 0.8)
    gold = np.array([0.62, 0.45, 0.18], np.float32)
    clasp, triangles = _box(0.10 * width, 0.10 * height, 0.10 * depth, 1.0)
    put(clasp + [0, 0.0, 0.59 * depth], triangles, gold)
    a = np.linspace(0, np.pi, 13)
    for z in (0.22, -0.22):
        arc = np.stack([0.24 * width * np.cos(a), 0.47 * height + 0.34 * height * np.sin(a), np.full(13, z * depth)], 1)
        put(*sweep(arc, np.array([0.0, 0.0, 1.0]), oval(0.009 * grown, 0.011 * grown, 6)), color * 0.7)

    count = 48
    core = np.stack(
        [
            0.25 * strap[:, 0],
            np.minimum(strap[:, 1], strap[:, 1].max() - 0.10 * grown),
            0 * strap[:, 2] + strap[:, 2].mean(),
        ],
        1,
    )
    path, away = _over(strap, smooth_path(core, count), clothes, 0.004, count)
    hooks = np.array([[-0.44 * width, 0.46 * height, 0.0], [0.44 * width, 0.46 * height, 0.0]]) @ frame.T + middle
    if np.linalg.norm(hooks[0] - path[0]) > np.linalg.norm(hooks[1] - path[0]):
        hooks = hooks[::-1]
    ease = np.clip(1 - np.arange(count) / 8, 0, 1)[:, None] ** 1.5
    path = path + ease * (hooks[0] - path[0]) + ease[::-1] * (hooks[1] - path[-1])
    anchor = places["across"].anchor[0][np.round(np.linspace(0, len(strap) - 1, count)).astype(int)]
    anchor[[0, 1, -2, -1]] = rigid
    _strap(mesh, path, away, np.full(count, 0.020 * grown), 0.005, anchor, color * 0.75)
    leather = Material(raster.HARD, gloss=0.35, roughness=0.45)
    return [Part(material=leather, label="bag", **mesh.joined())]


def bag_parts(bag: Bag, clothes: Clothes, rest: Rest, number: int) -> list[Part]:
    """The bag of a Look; `number`, the person's, varies its size."""
    return (backpack_parts if bag.kind == "backpack" else handbag_parts)(bag, clothes, rest, number)
