"""What hair of every kind is made of: roots on the skin, a body to lie on, and ribbons to draw.

A strand here stands for a lock of some hundred hairs. Roots are places on the template's triangles, so that one set
serves everybody; strands are grown in head coordinates (`Frame`): the person's head moved and scaled onto the
template's, where "above the brow" means the same place for a child and for an elder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import warp as wp
from scipy.spatial import cKDTree

from ipse.world import growth
from ipse.world.body import Rest, body
from ipse.world.colors import GRAY_HAIR, WHITE_HAIR
from ipse.world.derived import derived
from ipse.world.skin import blurred, to_linear

HEAD_CENTER = np.array([0.0, 0.745, 0.055], np.float32)
"""Middle of the template's cranium, meters."""

_AZIMUTHS, _ELEVATIONS = 72, 36


def unit(v: np.ndarray) -> np.ndarray:
    """(..., 3) vectors scaled to length 1; zero stays zero."""
    return v / np.maximum(np.sqrt(np.einsum("...i,...i->...", v, v)), 1e-9)[..., None]


@dataclass(frozen=True)
class Frame:
    """Head coordinates of a person: `(point - origin) / scale + HEAD_CENTER`.

    Attributes:
        origin: (3,) meters, the middle of the person's cranium.
        scale: size of the person's head over the template's.
    """

    origin: np.ndarray
    scale: float

    def to(self, points: np.ndarray) -> np.ndarray:
        """World points to head coordinates."""
        return ((points - self.origin) / self.scale + HEAD_CENTER).astype(np.float32)

    def back(self, points: np.ndarray) -> np.ndarray:
        """Head coordinates to world points."""
        return ((points - HEAD_CENTER) * self.scale + self.origin).astype(np.float32)


@lru_cache(maxsize=1)
def _cranium() -> np.ndarray:
    """Vertices of the head above the mouth, without ears and the inside of the mouth."""
    b = body()
    used = np.unique(b.triangles[b.triangles_of("body")])
    p = b.template[used]
    return used[(p[:, 1] > 0.69) & (b.mask("ears")[used] < 0.05) & (b.mask("inside_mouth")[used] < 0.05)]


def frame(rest: Rest) -> Frame:
    """The head coordinates of a person."""
    chosen = _cranium()
    here, there = rest.vertices[chosen], body().template[chosen]
    scale = float(np.sqrt(here.var(0).sum() / there.var(0).sum()))
    return Frame(here.mean(0) - (there.mean(0) - HEAD_CENTER) * scale, scale)


@dataclass(frozen=True)
class Roots:
    """Places on the template's skin, in an order whose every beginning covers the skin evenly.

    Attributes:
        corners: (N, 3) int32 vertices of the triangle each root lies on.
        weights: (N, 3) float32 barycentric weights of the corners.
        point: (N, 3) float32 place on the template.
        normal: (N, 3) float32 smooth normal of the template there.
    """

    corners: np.ndarray
    weights: np.ndarray
    point: np.ndarray
    normal: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> Roots:
        return Roots(self.corners[chosen], self.weights[chosen], self.point[chosen], self.normal[chosen])

    def on(self, vertices: np.ndarray) -> np.ndarray:
        """(N, 3) places of the roots on moved body vertices."""
        return np.einsum("nk,nki->ni", self.weights, vertices[self.corners])

    @property
    def anchor(self) -> np.ndarray:
        """(N,) the body vertex nearest to each root."""
        return self.corners[np.arange(len(self.corners)), self.weights.argmax(1)]


@lru_cache(maxsize=1)
def template_normals() -> np.ndarray:
    """(V, 3) smooth normals of the template's skin; zero at what is not skin."""
    b = body()
    normals = np.zeros_like(b.template)
    t = b.triangles[b.triangles_of("body")]
    a, c, d = (b.template[t[:, k]] for k in range(3))
    face = np.cross(c - a, d - a)
    for k in range(3):
        np.add.at(normals, t[:, k], face)
    return unit(normals)


def as_arrays(roots: Roots) -> dict[str, np.ndarray]:
    """What `Roots` are made of, by name."""
    return {field.name: getattr(roots, field.name) for field in fields(roots)}


def scatter_roots(wanted: Callable[[np.ndarray], np.ndarray], count: int, seed: int, candidates: int = 9000) -> Roots:
    """At most `count` roots on the head's skin where `wanted` (template points to bool) holds.

    Farthest-point order: each root is the candidate farthest from all before it.
    """
    b = body()
    rng = np.random.default_rng(seed)
    triangles = b.triangles[b.triangles_of("body")]
    hidden = ((b.mask("ears") > 0.3) | (b.mask("inside_mouth") > 0.3))[triangles].any(1)
    corner = b.template[triangles]
    near = corner[..., 1].max(1) > 0.58
    triangles, corner = triangles[near & ~hidden], corner[near & ~hidden]
    some = wanted(corner).any(1) | wanted(corner.mean(1))
    triangles, corner = triangles[some], corner[some]
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)
    pick = rng.choice(len(triangles), candidates, p=area / area.sum())
    u, v = np.sqrt(rng.random(candidates)), rng.random(candidates)
    weights = np.stack([1 - u, u * (1 - v), u * v], 1).astype(np.float32)
    point = np.einsum("nk,nki->ni", weights, corner[pick])
    keep = np.flatnonzero(wanted(point))
    pick, weights, point = pick[keep], weights[keep], point[keep]
    order = np.empty(min(count, len(point)), int)
    gap = np.full(len(point), np.inf)
    order[0] = 0
    for k in range(1, len(order)):
        d = point - point[order[k - 1]]
        np.minimum(gap, np.einsum("ni,ni->n", d, d), out=gap)
        order[k] = gap.argmax()
    corners, weights = triangles[pick[order]].astype(np.int32), weights[order]
    normal = unit(np.einsum("nk,nki->ni", weights, template_normals()[corners]))
    return Roots(corners, weights, point[order].astype(np.float32), normal.astype(np.float32))


@dataclass(frozen=True)
class _Outline:
    """Where rays from a center leave a part of the template: one triangle place per direction."""

    corners: np.ndarray
    weights: np.ndarray
    center: np.ndarray
    stretch: np.ndarray
    even: np.ndarray
    mean: np.ndarray
    spread: np.ndarray


def _angles(point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Azimuth (0 in front) and elevation of points (N, 3), radians."""
    return np.arctan2(point[:, 0], point[:, 2]), np.arctan2(point[:, 1], np.hypot(point[:, 0], point[:, 2]))


def _looked_up(grid: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Bilinear values (N,) of a grid (R, C) at fractional places; columns wrap around, rows end at the edges."""
    rows = rows.clip(0, len(grid) - 1)
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, across = rows - top, columns - left
    bottom, right = np.minimum(top + 1, len(grid) - 1), (left + 1) % grid.shape[1]
    left = left % grid.shape[1]
    above = grid[top, left] * (1 - across) + grid[top, right] * across
    below = grid[bottom, left] * (1 - across) + grid[bottom, right] * across
    return above * (1 - down) + below * down


@lru_cache(maxsize=1)
def _directions() -> np.ndarray:
    """(rows x columns, 3) unit vectors of the grid of distances."""
    azimuth = (np.arange(_AZIMUTHS) + 0.5) / _AZIMUTHS * 2 * np.pi - np.pi
    elevation = (np.arange(_ELEVATIONS) + 0.5) / _ELEVATIONS * np.pi - np.pi / 2
    e, a = np.meshgrid(elevation, azimuth, indexing="ij")
    return np.stack([np.cos(e) * np.sin(a), np.sin(e), np.cos(e) * np.cos(a)], -1).reshape(-1, 3)


OUTLINED = {
    "head": (0.64, 1.0, 1.0, HEAD_CENTER, (1.0, 1.0, 1.0)),
    # Stretching makes a tall tube flat, so that it is seen whole from one center.
    "neck": (0.555, 0.665, 0.075, (0.0, 0.61, 0.025), (1.0, 4.0, 1.0)),
    "torso": (0.05, 0.60, 0.205, (0.0, 0.44, 0.02), (1.0, 1.6, 1.0)),
}
"""Parts of the template that rays can be cast at: the head with ears, the neck, the torso without arms. Each with its
lowest and highest place and half its width in meters, the center of the rays and the stretch along each axis."""


@lru_cache(maxsize=3)
def _outline(part: str) -> _Outline:
    found = derived(f"outline/{part}", lambda: find_outline(part))
    _, _, _, center, stretch = OUTLINED[part]
    place = np.einsum("nk,nki->ni", found["weights"], body().template[found["corners"]])[found["even"]]
    center, stretch = np.array(center, np.float32), np.array(stretch, np.float32)
    return _Outline(found["corners"], found["weights"], center, stretch, found["even"], place.mean(0), place.std(0))


def find_outline(part: str) -> dict[str, np.ndarray]:
    """`corners`, `weights` and `even` of the outline of a part (a key of `OUTLINED`)."""
    b = body()
    low, high, width, center, stretch = OUTLINED[part]
    center, stretch = np.array(center, np.float32), np.array(stretch, np.float32)
    triangles = b.triangles[b.triangles_of("body")]
    corner = b.template[triangles]
    inside = (corner[..., 1].min(1) > low) & (corner[..., 1].max(1) < high) & (np.abs(corner[..., 0]).max(1) < width)
    inside &= ~(b.mask("inside_mouth")[triangles] > 0.3).any(1)
    triangles, corner = triangles[inside], corner[inside]
    rng = np.random.default_rng(3)
    u, v = np.sqrt(rng.random((len(triangles), 48))), rng.random((len(triangles), 48))
    weights = np.stack([1 - u, u * (1 - v), u * v], -1)
    point = ((np.einsum("tsk,tki->tsi", weights, corner) - center) / stretch).reshape(-1, 3)
    owner = np.repeat(np.arange(len(triangles)), 48)
    radius = np.linalg.norm(point, axis=1)
    azimuth, elevation = _angles(point)
    column = ((azimuth / (2 * np.pi) + 0.5) * _AZIMUTHS).astype(int) % _AZIMUTHS
    row = ((elevation / np.pi + 0.5) * _ELEVATIONS).astype(int).clip(0, _ELEVATIONS - 1)
    cell = row * _AZIMUTHS + column
    best = np.full(_ELEVATIONS * _AZIMUTHS, -1)
    order = np.argsort(radius)
    best[cell[order]] = order
    # Directions that no surface meets (into the neck, the arm holes) take their nearest neighbor's.
    grid = _directions()
    known = np.flatnonzero(best >= 0)
    best = best[known[cKDTree(grid[known]).query(grid)[1]]]
    corners, weights = triangles[owner[best]], weights.reshape(-1, 3)[best].astype(np.float32)
    # One direction in so many that rows near the poles do not count more; of the head what is above the jaw.
    kept = (rng.random(len(grid)) < np.sqrt(1 - grid[:, 1] ** 2)) & ((grid[:, 1] > -0.35) | (part != "head"))
    return {"corners": corners, "weights": weights, "even": np.flatnonzero(kept)}


def obstacle(part: str, vertices: np.ndarray, smooth: float = 0.7) -> growth.Surround:
    """What hair lies on: the `head`, `neck` or `torso` as a distance from a center per direction.

    Args:
        part: which of the three.
        vertices: (V, 3) the person's body in head coordinates.
        smooth: blur of the distances, in grid cells of 5 degrees.
    """
    o = _outline(part)
    point = np.einsum("nk,nki->ni", o.weights, vertices[o.corners])
    # Center and scale come from evenly spread directions, for the mesh is dense in the face and sparse on the crown.
    even = point[o.even]
    scale = even.std(0) / o.spread
    center = even.mean(0) + (o.center - o.mean) * scale
    scale = scale * o.stretch
    point = (point - center) / scale
    radius = np.sqrt(np.einsum("ni,ni->n", point, point))
    # This skull's points lie in other directions than the template's: look up against the shift.
    azimuth, elevation = _angles(2 * _directions() - point / radius[:, None])
    rows = (elevation / np.pi + 0.5) * _ELEVATIONS - 0.5
    columns = (azimuth / (2 * np.pi) + 0.5) * _AZIMUTHS - 0.5
    radius = _looked_up(radius.reshape(_ELEVATIONS, _AZIMUTHS), rows, columns).reshape(_ELEVATIONS, _AZIMUTHS)
    # Over the poles the distances go on as they are there.
    reach = int(4 * smooth) + 1
    radius = blurred(np.pad(radius, ((reach, reach), (0, 0)), mode="edge"), smooth)[reach:-reach]
    made = growth.Surround()
    made.center, made.scale, made.size = wp.vec3(*center.tolist()), wp.vec3(*scale.tolist()), float(scale.mean())
    made.radius = wp.array(radius, dtype=wp.float32, device="cpu")
    return made


@dataclass
class Ribbons:
    """Triangles drawn along strands: see `ribbons`."""

    vertices: np.ndarray
    triangles: np.ndarray
    toward: np.ndarray
    coordinate: np.ndarray
    strand: np.ndarray
    step: np.ndarray


@lru_cache(maxsize=16)
def _strips(count: int, steps: int) -> tuple[np.ndarray, ...]:
    """Triangles, toward, strand, step and coordinate of `count` ribbons: `steps` pairs of vertices, then a tip."""
    size = 2 * steps + 1
    k = np.arange(steps - 1)
    left, right = 2 * k, 2 * k + 1
    one = np.concatenate(
        [
            np.stack([left, right, right + 2], 1),
            np.stack([left, right + 2, left + 2], 1),
            [[2 * steps - 2, 2 * steps - 1, 2 * steps]],
        ]
    )
    toward = np.minimum(np.arange(size) + 2, size - 1)
    start = np.arange(count) * size
    strand = np.repeat(np.arange(count), size)
    step = np.tile(np.minimum(np.arange(size) // 2, steps), count)
    side = np.tile(np.append(np.tile([0.02, 0.98], steps), 0.5), count)
    return (
        (start[:, None, None] + one).reshape(-1, 3).astype(np.int32),
        (start[:, None] + toward).ravel().astype(np.int32),
        strand,
        step,
        np.stack([step / steps, strand + side], 1).astype(np.float32),
    )


def device_array(values: np.ndarray, kind: type = wp.float32) -> wp.array:
    """A numpy array for the kernels, which run on the CPU."""
    dtype = np.int32 if kind is wp.int32 else np.float32
    return wp.array(np.ascontiguousarray(values, dtype), dtype=kind, device="cpu")


def ribbons(
    path: wp.array, width: np.ndarray, profile: np.ndarray, twist: np.ndarray, out: np.ndarray | None = None
) -> Ribbons:
    """Flat ribbons that end in a point.

    Args:
        path: (K + 1, N) vectors, places along N strands.
        width: (N,) in the path's unit.
        profile: (K,) relative width along a strand, without the tip.
        twist: (N,) radians that each ribbon is turned about itself.
        out: (N, 3) what the ribbons face; None is away from the head.

    Returns:
        vertices in the order of strands; `coordinate` holds the place along the strand, 0 at the root and 1 at the tip,
        and the number of the strand plus the place across it (0..1); `strand` and `step` tell each vertex's own.
    """
    steps, count = path.shape[0] - 1, path.shape[1]
    triangles, toward, strand, step, coordinate = _strips(count, steps)
    vertices = wp.empty((count, 2 * steps + 1), dtype=wp.vec3, device="cpu")
    facing = device_array(np.zeros((0, 3)) if out is None else out, wp.vec3)
    wp.launch(
        growth.draw,
        (count, steps + 1),
        [path, device_array(width), device_array(profile), device_array(twist), facing],
        [vertices],
        device="cpu",
    )
    return Ribbons(vertices.numpy().reshape(-1, 3), triangles, toward, coordinate, strand, step)


def strand_colors(mean: tuple[float, float, float], gray: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 3) linear colors around an sRGB color; with `gray` > 0 some are gray and the others the darker for it."""
    base = to_linear(mean)
    color = base * np.exp(rng.normal(0, 0.12, (count, 1))) * np.exp(rng.normal(0, 0.025, (count, 3)))
    share = gray * (1 - gray) * 4
    if share > 0.02:
        white = to_linear(WHITE_HAIR if gray > 0.7 else GRAY_HAIR)
        lean = np.clip(rng.normal(0, 0.22 * share, (count, 1)), -0.6, 0.85)
        color = np.where(lean > 0, color + lean * (white - color), color * (1 + 0.8 * lean))
    return color.astype(np.float32)
