"""Geometry fitted to the body: points that ride on its surface, grids and swept profiles.

Where something sits is said once, on the template, as points inside triangles of the body (`Embedding`); every person's
rest vertices then carry those points to the same place of that person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.spatial import cKDTree

from ipse.world.body import Rest, body
from ipse.world.parts import Part

BODY_VERTICES = 13380
"""The first vertices of the table are the body's own skin; helpers and eyes follow."""
HEAD_CENTER = np.array([0.0, 0.735, 0.042])
"""Template point inside the skull that head shells are seen from."""


@dataclass(frozen=True)
class Embedding:
    """Points on the body's surface as weighted means of its vertices.

    Attributes:
        corners: (..., 6) int32 vertex numbers.
        weights: (..., 6) float32, summing to 1.
    """

    corners: np.ndarray
    weights: np.ndarray

    def at(self, vertices: np.ndarray) -> np.ndarray:
        """(..., 3) the points on a body with the given (V, 3) vertices."""
        return np.einsum("...k,...kc->...c", self.weights, vertices[self.corners]).astype(np.float32)

    @property
    def anchor(self) -> np.ndarray:
        """(...) int32: the heaviest corner, to take skinning weights from."""
        return np.take_along_axis(self.corners, self.weights.argmax(-1)[..., None], -1)[..., 0].astype(np.int32)


def embed(origins: np.ndarray, directions: np.ndarray, triangles: np.ndarray, guess: np.ndarray) -> Embedding:
    """Where rays leave the template's surface.

    Args:
        origins: (R, C, 3) or broadcastable, template meters.
        directions: (R, C, 3) unit vectors.
        triangles: (M, 3) the vertices of the surface's triangles.
        guess: (R, C, 3) points near the hits; the triangles around them are tried. Rows that are closed or nearly so
            give the best repair: a ray without a hit takes the mean of its row's next hits on either side.
    """
    b = body()
    shape = directions.shape[:-1]
    o = np.broadcast_to(origins, directions.shape).reshape(-1, 1, 3)
    d = directions.reshape(-1, 1, 3)
    corner = b.template[triangles].astype(np.float64)
    count = min(64, len(triangles))
    _, near = cKDTree(corner.mean(1)).query(guess.reshape(-1, 3), k=count)
    a, e1, e2 = corner[near, 0], corner[near, 1] - corner[near, 0], corner[near, 2] - corner[near, 0]
    # Möller and Trumbore (1997), every ray against its own candidates.
    h = np.cross(d, e2)
    det = (e1 * h).sum(-1)
    det = np.where(np.abs(det) < 1e-14, 1e-14, det)
    u = ((o - a) * h).sum(-1) / det
    q = np.cross(o - a, e1)
    v = (d * q).sum(-1) / det
    t = (e2 * q).sum(-1) / det
    hit = (u > -1e-6) & (v > -1e-6) & (u + v < 1 + 1e-6) & (t > 0)
    last = np.where(hit, t, -1.0).argmax(1)
    rows = np.arange(len(last))
    ok = hit[rows, last].reshape(shape)
    u, v = np.clip(u[rows, last], 0, 1), np.clip(v[rows, last], 0, 1)
    corners = triangles[near[rows, last]].reshape(*shape, 3)
    weights = np.stack([1 - u - v, u, v], -1).reshape(*shape, 3)
    six, share = np.concatenate([corners, corners], -1), np.concatenate([weights, 0 * weights], -1)
    columns = shape[1]
    for r, c in np.argwhere(~ok):
        left = next((k for k in range(1, columns) if ok[r, (c - k) % columns]), None)
        right = next((k for k in range(1, columns) if ok[r, (c + k) % columns]), None)
        if left is None or right is None:
            raise ValueError("a whole row of rays misses the body")
        i, j, w = (c - left) % columns, (c + right) % columns, left / (left + right)
        six[r, c] = np.concatenate([corners[r, i], corners[r, j]])
        share[r, c] = np.concatenate([weights[r, i] * (1 - w), weights[r, j] * w])
    return Embedding(six.astype(np.int32), share.astype(np.float32))


@lru_cache(maxsize=1)
def trunk_vertices() -> np.ndarray:
    """(V,) bool: vertices that move with trunk, shoulders, neck or head more than with arms and legs."""
    b = body()
    limbs = ("upperarm", "lowerarm", "wrist", "finger", "metacarpal", "lowerleg", "foot", "upperleg02")
    return (b.skin_weight * np.isin(b.skin_index, [i for i, n in enumerate(b.bones) if n.startswith(limbs)])).sum(
        1
    ) <= 0.45


@lru_cache(maxsize=2)
def surface(ears: bool) -> np.ndarray:
    """(M, 3) triangles of the head, neck and trunk without arms, legs and the inside of the mouth; `ears` or not."""
    b = body()
    triangles = b.triangles[b.triangles_of("body")]
    out = ~trunk_vertices() | (b.mask("inside_mouth") > 0.5)
    if not ears:
        out |= b.mask("ears") > 0.3
    return triangles[~out[triangles].any(1)]


def azimuth_directions(azimuth: np.ndarray, polar: np.ndarray) -> np.ndarray:
    """(..., 3) unit vectors; azimuth 0 is the front, positive to the person's left; polar 0 is up. Radians."""
    azimuth, polar = np.broadcast_arrays(azimuth, polar)
    return np.stack([np.sin(polar) * np.sin(azimuth), np.cos(polar), np.sin(polar) * np.cos(azimuth)], -1)


@lru_cache(maxsize=1)
def _heights() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Azimuths, polar angles and the template height of the skull's surface there, to turn heights into angles."""
    azimuth, polar = np.linspace(-np.pi, np.pi, 37), np.radians(np.linspace(8, 122, 39))
    directions = azimuth_directions(azimuth[None, :-1], polar[:, None])
    points = embed(HEAD_CENTER, directions, surface(False), HEAD_CENTER + 0.095 * directions).at(body().template)
    return azimuth, polar, np.concatenate([points, points[:, :1]], 1)[..., 1]


def head_shell(
    line: Sequence[tuple[float, float]], rows: np.ndarray, azimuth: np.ndarray, ears: bool = False
) -> Embedding:
    """A grid on the skull, from the crown down to a line.

    Args:
        line: (azimuth in degrees 0..180, template height in meters) of the line's corners, the same on both sides.
        rows: (R,) 0 at the crown to 1 on the line.
        azimuth: (C,) radians, columns around the head.
        ears: whether the grid runs over the ears or below them.

    Returns:
        An embedding of shape (R, C).
    """
    at, polar, height = _heights()
    corner = np.array(line)
    goal = np.interp(np.abs(np.degrees(azimuth)), corner[:, 0], corner[:, 1])
    column = (azimuth + np.pi) / (2 * np.pi) * (len(at) - 1)
    i = np.clip(column.astype(int), 0, len(at) - 2)
    profile = height[:, i] + (height[:, i + 1] - height[:, i]) * (column - i)
    low = np.array([np.interp(-g, -np.minimum.accumulate(p), polar) for g, p in zip(goal, profile.T, strict=True)])
    directions = azimuth_directions(azimuth[None], np.maximum(rows, 1e-3)[:, None] * low[None])
    return embed(HEAD_CENTER, directions, surface(ears), HEAD_CENTER + 0.095 * directions)


@lru_cache(maxsize=1)
def crown() -> int:
    """The body vertex that moves with the head alone: its top."""
    return int(np.argmax(body().template[:BODY_VERTICES, 1]))


@lru_cache(maxsize=1)
def _width_vertices() -> tuple[np.ndarray, np.ndarray]:
    t = body().template[:BODY_VERTICES]
    side = (np.abs(t[:, 1] - 0.765) < 0.012) & (np.abs(t[:, 2] - 0.045) < 0.02)
    return np.flatnonzero(side & (t[:, 0] > 0.06)), np.flatnonzero(side & (t[:, 0] < -0.06))


def head_scale(rest: Rest) -> float:
    """Breadth of the skull over that of the template."""
    left, right = _width_vertices()
    t = body().template
    return float(
        (rest.vertices[left, 0].mean() - rest.vertices[right, 0].mean()) / (t[left, 0].mean() - t[right, 0].mean())
    )


@lru_cache(maxsize=1)
def _skin_tree() -> tuple[cKDTree, np.ndarray]:
    used = np.unique(surface(False))
    return cKDTree(body().template[used]), used


def nearest_vertices(points: np.ndarray) -> np.ndarray:
    """(...) int32: the head, neck or trunk vertex nearest to template points (..., 3)."""
    tree, used = _skin_tree()
    return used[tree.query(points)[1]].astype(np.int32)


_EAR_ROOT = np.array(
    [[0.0720, 0.7385, 0.0510], [0.0705, 0.7340, 0.0405], [0.0685, 0.7210, 0.0345], [0.0665, 0.7060, 0.0335]]
)
"""Template points at and behind the root of the left ear, from its top downward."""


@lru_cache(maxsize=2)
def _ear_vertices(sign: float) -> tuple[np.ndarray, np.ndarray]:
    b, root = body(), _EAR_ROOT * [sign, 1, 1]
    skin = np.unique(b.triangles[b.triangles_of("body")])
    near = skin[np.argsort(np.linalg.norm(b.template[skin][None] - root[:, None], axis=2), 1)[:, :6]]
    return near, root - b.template[near].mean(1)


def ear_path(rest: Rest, sign: float) -> np.ndarray:
    """(4, 3) where a temple or a loop runs: over the ear's root and down behind it; `sign` 1 is the person's left."""
    near, shift = _ear_vertices(sign)
    return rest.vertices[near].mean(1) + shift


@lru_cache(maxsize=1)
def _jaw() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Skin vertices of the lower face, how far the jaw takes each (0..1 of the chin), and how much else moves it."""
    b = body()
    t = b.template
    skin = np.unique(surface(False))
    skin = skin[(t[skin, 1] > 0.59) & (t[skin, 1] < 0.75) & (t[skin, 2] > 0.0) & (b.mask("lips")[skin] < 0.1)]
    drop = b.action_offsets({"jawOpen": 1.0})[skin]
    chin = drop[np.argmin(np.linalg.norm(t[skin] - [0.0, 0.616, 0.137], axis=1))]
    share = drop @ chin / (chin @ chin)
    stray = np.linalg.norm(drop - share[:, None] * chin, axis=1) / np.linalg.norm(chin)
    for action in (
        "mouthSmileLeft",
        "mouthSmileRight",
        "mouthPucker",
        "mouthFunnel",
        "cheekPuff",
        "mouthLowerDownLeft",
        "mouthLowerDownRight",
    ):
        stray += 25 * np.linalg.norm(b.action_offsets({action: 1.0})[skin], axis=1)
    return skin, share, stray


def jaw_anchor(share: np.ndarray) -> np.ndarray:
    """(...) int32: for each share 0..1 a vertex that follows the jaw by it and hardly anything else of the face."""
    skin, moves, stray = _jaw()
    levels = np.linspace(0, 1, 25)
    best = np.array([skin[np.argmin(np.abs(moves - level) + stray)] for level in levels])
    best[0] = crown()
    return best[np.round(np.clip(share, 0, 1) * 24).astype(int)].astype(np.int32)


def tented(radius: np.ndarray, rounds: int, wrap: bool = False) -> np.ndarray:
    """Distances (R, C) of a surface from within, its hollows bridged as stretched cloth does; never below `radius`."""
    out = radius.copy()
    for _ in range(rounds):
        p = np.pad(out, ((1, 1), (0, 0)), mode="edge")
        mean = 0.25 * p[:-2] + 0.5 * out + 0.25 * p[2:]
        p = np.pad(mean, ((0, 0), (1, 1)), mode="wrap" if wrap else "edge")
        out = np.maximum(out, 0.25 * p[:, :-2] + 0.5 * mean + 0.25 * p[:, 2:])
    return out


def grid(rows: int, columns: int, wrap: bool = False, flip: bool = False) -> np.ndarray:
    """(M, 3) int32 triangles of a grid of vertices in row order.

    Seen from outside with rows going down and columns going right, normals point outward; `flip` turns them.
    """
    r, c = np.meshgrid(np.arange(rows - 1), np.arange(columns if wrap else columns - 1), indexing="ij")
    right = (c + 1) % columns
    a, b = r * columns + c, r * columns + right
    d, e = a + columns, b + columns
    out = np.stack([np.stack([a, d, e], -1), np.stack([a, e, b], -1)], 2).reshape(-1, 3)
    return (out[:, ::-1] if flip else out).astype(np.int32)


def unit(v: np.ndarray) -> np.ndarray:
    """Vectors (..., 3) at length 1."""
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12)


def sweep(
    path: np.ndarray, up: np.ndarray, profile: np.ndarray, closed: bool = False, scale: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """A profile carried along a path.

    Args:
        path: (N, 3) meters.
        up: (N, 3) or (3,): the profile's second axis, made perpendicular to the path.
        profile: (K, 2) meters, a closed outline around the path, across and up.
        closed: whether the path is; open ones are capped.
        scale: (N,) or (N, 2) factors on the profile along the path.

    Returns:
        Vertices (N * K, 3) or, with caps, (N * K + 2, 3), and triangles with outward normals.
    """
    n, k = len(path), len(profile)
    ahead = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    tangent = unit(ahead)
    side = unit(np.cross(tangent, np.broadcast_to(up, path.shape)))
    top = np.cross(side, tangent)
    p = np.broadcast_to(profile, (n, k, 2))
    if scale is not None:
        p = p * (scale[:, None, None] if scale.ndim == 1 else scale[:, None])
    vertices = (path[:, None] + side[:, None] * p[..., :1] + top[:, None] * p[..., 1:]).reshape(-1, 3)
    triangles = grid(n + 1, k, wrap=True) % (n * k) if closed else grid(n, k, wrap=True)
    x, y = profile[:, 0], profile[:, 1]
    # With this frame an outline that turns left has its outside where the grid's inside is.
    left = float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) > 0
    if not closed:
        ring = np.arange(k)
        nxt = (ring + 1) % k
        vertices = np.concatenate([vertices, path[:1], path[-1:]])
        start = np.stack([np.full(k, n * k), ring, nxt], 1)
        end = np.stack([np.full(k, n * k + 1), (n - 1) * k + nxt, (n - 1) * k + ring], 1)
        triangles = np.concatenate([triangles, start, end])
    return vertices.astype(np.float32), (triangles if left else triangles[:, ::-1]).astype(np.int32)


def oval(width: float, height: float, corners: int, power: float = 2.0) -> np.ndarray:
    """(corners, 2) outline of a superellipse of full width and height; `power` 2 is an ellipse, 4 nearly a box."""
    a = (np.arange(corners) + 0.5) * 2 * np.pi / corners
    c, s = np.cos(a), np.sin(a)
    return np.stack(
        [width / 2 * np.sign(c) * np.abs(c) ** (2 / power), height / 2 * np.sign(s) * np.abs(s) ** (2 / power)], 1
    )


def smooth_path(points: np.ndarray, count: int) -> np.ndarray:
    """(count, 3): a Catmull-Rom curve through points (N, 3), evenly in the parameter."""
    p = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    s = np.linspace(0, len(points) - 1, count)
    i = np.minimum(s.astype(int), len(points) - 2)
    t = (s - i)[:, None]
    a, b, c, d = p[i], p[i + 1], p[i + 2], p[i + 3]
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)


class Clothes:
    """The outside of what is worn on the trunk, for what lies over it."""

    def __init__(self, parts: Sequence[Part]) -> None:
        shells = [p for p in parts if p.label in ("top", "bottom", "dress", "coat")]
        on_trunk = trunk_vertices()
        kept = [on_trunk[p.anchor] & (True if p.keep is None else p.keep > -0.004) for p in shells]
        points = [p.vertices[k] for p, k in zip(shells, kept, strict=True)]
        # A far point keeps the tree from being empty.
        self._points = np.concatenate([*points, np.full((1, 3), -99.0)]).astype(np.float64)
        self._tree = cKDTree(self._points)

    def clear(self, points: np.ndarray, out: np.ndarray, gap: float) -> np.ndarray:
        """Points (..., 3), moved along the unit vectors `out` until they stand `gap` meters off the clothes."""
        p = np.asarray(points, np.float64)
        d = np.broadcast_to(out, p.shape)
        for reach in (0.10, 0.05):
            distance, near = self._tree.query(p, k=14, distance_upper_bound=reach)
            q = self._points[np.minimum(near, len(self._points) - 1)] - p[..., None, :]
            along = (q * d[..., None, :]).sum(-1)
            aside = np.sqrt(np.maximum((q * q).sum(-1) - along**2, 0))
            rise = np.where(np.isfinite(distance) & (aside < 0.026), along + gap, 0.0).max(-1)
            p = p + d * np.maximum(rise, 0)[..., None]
        return p


class Mesh:
    """Pieces of one material being put together."""

    def __init__(self) -> None:
        self._vertices: list[np.ndarray] = []
        self._triangles: list[np.ndarray] = []
        self._fields: dict[str, list[np.ndarray]] = {"anchor": [], "color": [], "coordinate": [], "keep": []}
        self._count = 0

    def add(
        self,
        vertices: np.ndarray,
        triangles: np.ndarray,
        anchor: np.ndarray | int,
        color: np.ndarray,
        coordinate: np.ndarray | None = None,
        keep: np.ndarray | None = None,
    ) -> None:
        """Add vertices (..., 3) with triangles into them; the fields are one for all vertices or one each."""
        v = np.asarray(vertices, np.float32).reshape(-1, 3)
        n = len(v)
        self._vertices.append(v)
        self._triangles.append(np.asarray(triangles, np.int32) + self._count)
        fields = {
            "anchor": np.broadcast_to(np.asarray(anchor, np.int32).reshape(-1), (n,)),
            "color": np.broadcast_to(np.asarray(color, np.float32).reshape(-1, 3), (n, 3)),
            "coordinate": np.zeros((n, 2), np.float32) if coordinate is None else np.reshape(coordinate, (n, 2)),
            "keep": np.zeros(n, np.float32) if keep is None else np.reshape(keep, n),
        }
        for name, value in fields.items():
            self._fields[name].append(value)
        self._count += n

    def joined(self) -> dict[str, np.ndarray]:
        """Arguments of `Part`: vertices, triangles, anchor, color, coordinate, keep."""
        fields = {name: np.concatenate(values) for name, values in self._fields.items()}
        return {"vertices": np.concatenate(self._vertices), "triangles": np.concatenate(self._triangles), **fields}
