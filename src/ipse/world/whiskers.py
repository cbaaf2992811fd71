"""Beards and eyelashes as geometry: short strands that follow the face's expressions."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import warp as wp
from scipy.spatial import cKDTree

from ipse.world import raster
from ipse.world.body import Rest, body
from ipse.world.derived import derived
from ipse.world.look import Look, beard_color
from ipse.world.parts import Material, Part
from ipse.world.person import Person
from ipse.world.skin import beard_zone, smoothstep, to_linear
from ipse.world.strands import Roots, as_arrays, device_array, frame, ribbons, scatter_roots, strand_colors, unit

_LID = np.array(
    [
        (0.0218, 0.7300, 0.1393),
        (0.0235, 0.7310, 0.1395),
        (0.0270, 0.7325, 0.1407),
        (0.0311, 0.7332, 0.1411),
        (0.0349, 0.7330, 0.1408),
        (0.0384, 0.7324, 0.1401),
        (0.0410, 0.7317, 0.1390),
        (0.0428, 0.7307, 0.1379),
        (0.0434, 0.7301, 0.1373),
    ]
)
"""The margin of the left upper lid on the template, from the nose outward."""


@lru_cache(maxsize=1)
def _chin_roots() -> Roots:
    return Roots(**derived("chin", lambda: as_arrays(find_chin_roots())))


def find_chin_roots() -> Roots:
    """Where a beard can grow."""

    def wanted(p: np.ndarray) -> np.ndarray:
        return (np.maximum(beard_zone(p, "full"), beard_zone(p, "goatee")) > 0.2) & (p[..., 1] > 0.595)

    return scatter_roots(wanted, 2600, 12, candidates=7000)


def beard_parts(person: Person, look: Look, rest: Rest) -> list[Part]:
    """The beard of a person in a Look; stubble is painted on the skin instead."""
    style, reach = look.beard.style, look.beard.length_m
    if style in ("none", "stubble") or person.beard_density < 0.02 or reach < 0.002:
        return []
    rng = np.random.default_rng([person.number, 4])
    roots = _chin_roots()
    chance = rng.random(len(roots.point))
    grows = beard_zone(roots.point, style) > 0.25 + 0.5 * chance
    roots = roots[grows & (rng.random(len(roots.point)) < 0.45 + 0.65 * person.beard_density)]
    x, y = roots.point[:, 0], roots.point[:, 1]
    n, steps = len(x), 3
    if not n:
        return []
    place = frame(rest)
    root = roots.on(place.to(rest.vertices))

    lip = (y > 0.666) & (np.abs(x) < 0.036)
    chin = smoothstep(0.69, 0.63, y)
    length = (0.004 + (0.25 + 0.75 * chin) * reach) * rng.uniform(0.75, 1.1, n)
    # A moustache is kept out of the mouth.
    length = np.where(lip, np.minimum(length, 0.006 + 0.25 * np.abs(x)), length) / place.scale
    comb = np.stack([0.25 * np.sign(x), -np.ones(n), 0.05 + 0.25 * chin], 1)
    comb[lip] = np.stack([1.1 * np.tanh(x[lip] / 0.006), np.full(lip.sum(), -0.75), np.full(lip.sum(), 0.1)], 1)
    comb = unit(comb) + rng.normal(0, 0.14 + 0.25 * person.hair.curl, (n, 3))
    bend = 0.25 * person.hair.curl * rng.normal(0, 1, (steps, n, 3))
    path = [root.astype(np.float32)]
    for k in range(steps):
        away = max(0.75 - 0.33 * k, 0.12)
        d = unit(away * roots.normal + comb + bend[k])
        path.append(path[-1] + (d * (length / steps)[:, None]).astype(np.float32))
    way = np.stack(path)
    # Broad enough to hide the skin together.
    width = 0.0042 * rng.uniform(0.7, 1.2, n) / place.scale
    drawn = ribbons(device_array(way, wp.vec3), width, np.array([0.75, 1.0, 0.7]), rng.normal(0, 0.5, n), roots.normal)
    colors = strand_colors(beard_color(person).rgb, person.hair.gray, n, rng)
    shade = np.interp(drawn.step, [0, steps], [0.75, 1.1])[:, None]
    return [
        Part(
            vertices=place.back(drawn.vertices),
            triangles=drawn.triangles,
            anchor=roots.anchor[drawn.strand],
            material=Material(raster.HAIR, gloss=0.45, roughness=0.4),
            label="beard",
            color=(colors[drawn.strand] * shade).astype(np.float32),
            coordinate=drawn.coordinate,
            toward=drawn.toward,
        )
    ]


@lru_cache(maxsize=1)
def _lid_vertices() -> np.ndarray:
    """(2, 9) body vertices of the margins of the left and the right upper lid, from the nose outward."""
    b = body()
    used = np.unique(b.triangles[b.triangles_of("body")])
    tree = cKDTree(b.template[used])
    return np.stack([used[tree.query(_LID * (side, 1, 1))[1]] for side in (1, -1)])


def lash_parts(person: Person, rest: Rest) -> list[Part]:
    """The upper eyelashes, longest at the outer third, bent upward."""
    each, steps = 34, 3
    place = frame(rest)
    vertices = place.to(rest.vertices)
    at = np.linspace(0.35, 7.9, each)
    low = at.astype(int)
    t = (at - low)[:, None]
    u = at / 8
    length = (0.0035 + 0.0055 * person.lashes) * (0.55 + 0.6 * np.sin(np.pi * np.clip(0.15 + 0.8 * u, 0, 1)))
    rng = np.random.default_rng([person.number, 5])
    paths, anchors = [], []
    for lid, side in zip(_lid_vertices(), (1.0, -1.0), strict=True):
        root = vertices[lid[low]] * (1 - t) + vertices[lid[low + 1]] * t
        fan = (u - 0.42) * 1.5 + rng.normal(0, 0.08, each)
        way = [root]
        for k in range(steps):
            d = unit(np.stack([side * fan, np.full(each, -0.25 + 0.55 * k), 0.9 - 0.5 * np.abs(fan)], 1))
            way.append(way[-1] + d * (length / steps)[:, None])
        paths.append(np.stack(way))
        anchors.append(np.where(t[:, 0] < 0.5, lid[low], lid[low + 1]))
    path = np.concatenate(paths, 1).astype(np.float32)
    width = np.full(2 * each, 0.0009 * (0.7 + 0.5 * person.lashes))
    facing = np.tile([0.0, 0.8, 0.6], (2 * each, 1))
    twist = rng.normal(0, 0.3, 2 * each)
    drawn = ribbons(device_array(path, wp.vec3), width, np.array([1.0, 0.8, 0.45]), twist, facing)
    return [
        Part(
            vertices=place.back(drawn.vertices),
            triangles=drawn.triangles,
            anchor=np.concatenate(anchors)[drawn.strand].astype(np.int32),
            material=Material(raster.LASH, gloss=0.15, roughness=0.5),
            label="eyes",
            color=to_linear(beard_color(person).rgb) * 0.25,
            coordinate=drawn.coordinate,
            toward=drawn.toward,
        )
    ]
