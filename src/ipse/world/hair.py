"""Hair of the head as geometry: strands grown from the scalp, combed, waved, lying on the person's head and shoulders.

All places are in head coordinates (`ipse.world.strands.Frame`): those of the template, so that brow, ear and nape have
the same numbers for everybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import warp as wp
from scipy.spatial import cKDTree

from ipse.world import growth, raster
from ipse.world.body import Rest, body
from ipse.world.derived import derived
from ipse.world.landmarks import DENSE_GROUPS, dense_vertices
from ipse.world.look import Look, hair_color
from ipse.world.parts import Material, Part
from ipse.world.person import Person
from ipse.world.skin import AXIS_Z, scalp, smoothstep, to_linear
from ipse.world.strands import (
    Frame,
    Roots,
    as_arrays,
    device_array,
    frame,
    obstacle,
    ribbons,
    scatter_roots,
    strand_colors,
    template_normals,
    unit,
)
from ipse.world.whiskers import beard_parts, lash_parts

_HAT_LINE = 0.783
"""Height of a hat's lower edge at the forehead."""
_TIE = np.array([0.0, 0.765, -0.048], np.float32)
"""Where tied hair is gathered."""


@dataclass(frozen=True)
class _Cut:
    """A hair style in numbers.

    Attributes:
        count: strands; `steps`: segments of each; `width`: of a strand near its root, meters.
        top, side: length on the crown and on the sides, meters.
        height, side_height: of the outermost layer above the scalp on the crown and on the sides, meters.
        rise: how steeply strands leave the scalp; 1 is 45 degrees.
        lateral, forward: how the crown is combed: away from the parting, and to the forehead (negative: to the back).
        back: how the sides are combed to the back.
        mess: random turn of single strands, radians.
        wave, coil: amplitude of flat waves and of coils, meters; `period`: their length along the strand.
        falls: whether hair that is long enough leaves the head and hangs.
    """

    count: int
    steps: int
    width: float
    top: float
    side: float
    height: float
    side_height: float
    rise: float = 0.7
    lateral: float = 0.8
    forward: float = 0.0
    back: float = 0.3
    mess: float = 0.15
    wave: float = 0.0
    coil: float = 0.0
    period: float = 0.06
    falls: bool = False


@lru_cache(maxsize=1)
def _scalp_roots() -> Roots:
    return Roots(**derived("scalp", lambda: as_arrays(find_scalp_roots())))


def find_scalp_roots() -> Roots:
    """Where hair can grow on the head."""
    return scatter_roots(lambda p: (scalp(p) > 0) & (p[..., 1] > 0.64) & (np.abs(p[..., 0]) < 0.12), 3600, 11)


def _cut(person: Person, look: Look) -> _Cut:
    style, length, volume = look.hair.style, look.hair.length_m, look.hair.volume
    curl = person.hair.curl
    fringe = look.hair.fringe
    if style == "buzz":
        reach = max(length, 0.004)
        length = reach + 0.006
        return _Cut(3600, 2, 0.0085, length, length, 0.7 * reach, 0.7 * reach, rise=0.8, forward=0.8, lateral=0.1)
    if style == "short":
        coil = 0.006 * float(smoothstep(0.4, 0.9, curl))
        # Short hair is cut closer at the sides.
        side = min(0.75 * length, 0.014 + 0.25 * length)
        height = (0.006 + 0.26 * length) * (0.45 + 1.1 * volume)
        return _Cut(
            2700,
            5,
            0.0062,
            1.15 * length,
            side,
            height,
            0.004 + 0.22 * height,
            rise=0.5 + 0.7 * volume + 0.8 * coil / 0.006,
            lateral=0.9,
            forward=-0.8 + 1.9 * fringe,
            back=0.35,
            mess=0.16 + 0.25 * curl,
            wave=0.003 * float(smoothstep(0.15, 0.5, curl)),
            coil=coil,
            period=0.03,
        )
    if style == "curly":
        return _Cut(
            1900,
            12,
            0.0062,
            0.92 * length,
            0.85 * length,
            (0.25 + 0.35 * volume) * min(length, 0.16),
            (0.2 + 0.32 * volume) * min(length, 0.16),
            rise=0.8 + 0.7 * volume,
            lateral=0.7,
            forward=-0.3 + 0.9 * fringe,
            back=0.2,
            mess=0.45,
            coil=0.008 + 0.004 * curl,
            period=0.058,
            falls=True,
        )
    height = 0.008 + 0.028 * volume
    if style == "wavy":
        return _Cut(
            1600,
            13,
            0.0100,
            length,
            length,
            height + 0.004,
            0.6 * height + 0.004,
            rise=0.5 + 0.5 * volume,
            lateral=1.0,
            forward=-0.35,
            back=0.25,
            mess=0.14,
            wave=0.009 + 0.004 * curl,
            period=0.085,
            falls=True,
        )
    wave = 0.001 + 0.012 * float(smoothstep(0.12, 0.7, curl))
    # Waves take more segments, and fewer strands for it.
    waved = wave > 0.004
    return _Cut(
        1550 if waved else 2250,
        14 if waved else 10,
        0.0100 if waved else 0.0085,
        length,
        length,
        height,
        0.6 * height,
        rise=0.4 + 0.5 * volume,
        lateral=1.0,
        forward=-0.3,
        back=0.3,
        mess=0.07,
        wave=wave,
        period=max(0.09, 0.26 * length),
        falls=True,
    )


@dataclass
class _Strands:
    """What is decided per strand before it grows: `root` in head coordinates, template `point`, and the plan."""

    root: np.ndarray
    point: np.ndarray
    length: np.ndarray
    height: np.ndarray
    width: np.ndarray
    side: np.ndarray
    fringe: np.ndarray
    turn: np.ndarray
    edge: np.ndarray
    face: np.ndarray


def _azimuth(point: np.ndarray) -> np.ndarray:
    """Degrees around the head's axis, 0 in front, positive on the person's left."""
    return np.degrees(np.arctan2(point[..., 0], point[..., 2] - AXIS_Z))


def _plan(
    person: Person, look: Look, cut: _Cut, roots: Roots, place: np.ndarray, brow: float, rng: np.random.Generator
) -> _Strands:
    # `brow` is the height of the person's brows, which faces carry at very different heights of the skull.
    point, n = roots.point, len(roots.point)
    inside = scalp(point, person.hair.recession)
    edge = smoothstep(0.0, 0.016, inside)
    azimuth = np.abs(_azimuth(point))
    top = smoothstep(0.745, 0.80, point[:, 1])
    length = (cut.side + (cut.top - cut.side) * top) * rng.uniform(0.86, 1.06, n)
    if cut.falls:
        # What grows higher has a longer way down to the common hem.
        length += 1.15 * np.maximum(point[:, 1] - 0.74, 0) * min(1.0, cut.top / 0.2)
    layer = rng.uniform(0.1, 1, n) ** 0.8
    height = (cut.side_height + (cut.height - cut.side_height) * top) * layer * (0.45 + 0.55 * edge) + 0.002
    # The parting runs from the hairline to the crown; behind it hair falls to its own side.
    line = 0.045 * look.hair.parting * smoothstep(0.0, 0.06, point[:, 2])
    side = np.tanh((point[:, 0] - line + rng.normal(0, 0.003, n)) / 0.004)

    fringe = np.zeros(n, bool)
    if look.hair.style not in ("buzz", "tied") and look.hair.fringe > 0.12 and cut.top > 0.02:
        behind = np.interp(look.hair.fringe, [0.1, 1], [0.018, 0.05])
        fringe = (azimuth < 52) & (point[:, 1] > 0.775) & (point[:, 2] > 0.07)
        fringe &= inside < behind * rng.uniform(0.6, 1.1, n)
        hem = brow + 0.046 - 0.038 * look.hair.fringe - 0.012 * smoothstep(20, 55, azimuth) + rng.normal(0, 0.0025, n)
        way = np.maximum(place[:, 1] - hem, 0.004) * 1.15 + 0.35 * np.maximum(0.115 - point[:, 2], 0) + 0.006
        length = np.where(fringe, np.minimum(way, length * 1.3), length)
        height = np.where(fringe, height * 0.6, height)
    if not cut.falls:
        # A trimmed line around ears and nape.
        around = (azimuth > 66) & ~fringe
        length = np.where(around, np.minimum(length, np.maximum(inside * 1.05 + 0.003, 0.004)), length)
    face = rng.uniform(0, 1, n) ** 2 * 26
    return _Strands(
        root=place,
        point=point,
        length=length.astype(np.float32),
        height=height.astype(np.float32),
        width=(cut.width * rng.uniform(0.75, 1.25, n) * (0.5 + 0.5 * edge)).astype(np.float32),
        side=side.astype(np.float32),
        fringe=fringe,
        turn=rng.normal(0, cut.mess, n).astype(np.float32),
        edge=edge.astype(np.float32),
        face=face.astype(np.float32),
    )


_FACE_Y = (0.30, 0.53, 0.60, 0.66, 0.72, 0.765, 0.785, 0.80, 0.815)
_FREE = (8, 22, 40, 57, 64, 64, 50, 28, 0)
_TUCKED = (8, 22, 62, 92, 102, 88, 50, 28, 0)
"""How close to the middle of the face hair may come, in degrees by height: falling free, and tucked behind the ears."""


def _grow(
    s: _Strands,
    cut: _Cut,
    look: Look,
    brow: float,
    around: dict[str, growth.Surround],
    vertices: np.ndarray,
    tucked: bool,
) -> wp.array:
    """(K + 1, N) places along the strands."""
    comb = growth.Comb()
    comb.steps, comb.falls = cut.steps, int(cut.falls)
    comb.rise, comb.lateral, comb.forward, comb.back = cut.rise, cut.lateral, cut.forward, cut.back
    comb.sweep = abs(look.hair.parting)
    # Short hair combed to the forehead ends with the fringe.
    comb.brow = brow + (0.058 if cut.falls or cut.forward < 0 else 0.046 - 0.038 * look.hair.fringe)
    comb.shoulder = float(vertices[_shoulder(), 1].mean())
    # Room for clothes.
    comb.margin = 0.012 + 0.014 * (look.outer is not None) + {"hoodie": 0.02, "sweater": 0.006}.get(look.top.kind, 0.0)
    comb.opening = device_array(np.stack([_FACE_Y, _TUCKED if tucked else _FREE], 1), wp.vec2)
    comb.head, comb.neck, comb.torso = around["head"], around["neck"], around["torso"]
    front = np.abs(_azimuth(s.point)) + 3 * s.face < 100
    path = wp.empty((cut.steps + 1, len(s.root)), dtype=wp.vec3, device="cpu")
    wp.launch(
        growth.grow,
        len(s.root),
        [
            comb,
            device_array(s.root, wp.vec3),
            *(device_array(v) for v in (s.length, s.height, s.side, s.turn, s.face)),
            device_array(s.fringe, wp.int32),
            device_array(front, wp.int32),
        ],
        [path],
        device="cpu",
    )
    return path


def _bend(
    path: wp.array, s: _Strands, cut: _Cut, look: Look, head: growth.Surround, rng: np.random.Generator
) -> wp.array:
    """Waves and coils on grown strands, and the pressure of a hat."""
    n = len(s.root)
    # Neighbors wave together, coils turn each on its own.
    phase = 5.6 * s.point[:, 0] + 3.5 * s.point[:, 1] + rng.normal(0, 0.08, n)
    wave = np.stack([np.full(n, cut.wave), 1 / (cut.period * rng.uniform(0.85, 1.15, n)), phase], 1)
    size, turns = cut.coil * rng.uniform(0.6, 1.2, n), 1 / (cut.period * rng.uniform(0.8, 1.25, n))
    coil = np.stack([size, turns, rng.random(n)], 1)
    bent = wp.empty(path.shape, dtype=wp.vec3, device="cpu")
    hat = 0.0 if look.hat is None else _HAT_LINE
    wp.launch(
        growth.bend,
        path.shape,
        [path, device_array(s.length), device_array(wave, wp.vec3), device_array(coil, wp.vec3), head, hat],
        [bent],
        device="cpu",
    )
    return bent


@lru_cache(maxsize=1)
def _shoulder() -> np.ndarray:
    """Two vertices where the neck runs out into the shoulders."""
    b = body()
    used = np.unique(b.triangles[b.triangles_of("body")])
    return used[cKDTree(b.template[used]).query([[0.095, 0.575, 0.01], [-0.095, 0.575, 0.01]])[1]]


@lru_cache(maxsize=1)
def _spine() -> np.ndarray:
    """Vertices up the middle of the back, from the waist to the head: they move like the hair that hangs there."""
    b = body()
    used = np.unique(b.triangles[b.triangles_of("body")])
    p = b.template[used]
    middle = used[(np.abs(p[:, 0]) < 0.004) & (p[:, 2] < 0) & (p[:, 1] > 0.15) & (p[:, 1] < 0.73)]
    return middle[np.argsort(b.template[middle, 1])]


def _anchors(points: np.ndarray) -> np.ndarray:
    """Body vertices that points (N, 3) in head coordinates move with: the head, lower down ever more the back."""
    from ipse.world.scene import head_anchor

    if points[:, 1].min() > 0.67:
        return np.full(len(points), head_anchor(), np.int32)
    heights = body().template[_spine(), 1]
    y = np.interp(points[:, 1], [0.2, 0.48, 0.56, 0.67], [0.2, 0.50, 0.60, 0.725])
    nearest = np.searchsorted((heights[1:] + heights[:-1]) / 2, y)
    return np.where(points[:, 1] > 0.67, head_anchor(), _spine()[nearest]).astype(np.int32)


def _part(
    path: wp.array,
    width: np.ndarray,
    profile: tuple[float, float, float, float],
    place: Frame,
    colors: np.ndarray,
    twist: np.ndarray,
    gloss: float,
) -> Part:
    """Strands as a part; `profile` is their relative width at 0, 0.2, 0.6 and 1 of the length."""
    steps = path.shape[0] - 1
    x = np.arange(steps) / steps
    drawn = ribbons(path, width, np.interp(x, [0, 0.2, 0.6, 1.0], profile), twist)
    shade = np.interp(np.arange(steps + 1) / steps, [0, 0.25, 1], [0.72, 0.95, 1.12]).astype(np.float32)
    return Part(
        vertices=place.back(drawn.vertices),
        triangles=drawn.triangles,
        anchor=_anchors(path.numpy().reshape(-1, 3))[drawn.step * path.shape[1] + drawn.strand],
        material=Material(raster.HAIR, gloss=gloss, roughness=0.35),
        label="hair",
        color=colors[drawn.strand] * shade[drawn.step][:, None],
        coordinate=drawn.coordinate,
        toward=drawn.toward,
    )


def _combed_back(s: _Strands, look: Look, head: growth.Surround, rng: np.random.Generator) -> wp.array:
    """Strands combed over the head to where they are tied, (K + 1, N)."""
    n = len(s.root)
    rise = (0.002 + (0.3 + 0.7 * look.hair.volume) * 0.012 * rng.uniform(0.1, 1, n)) * (0.4 + 0.6 * s.edge)
    path = wp.empty((8, n), dtype=wp.vec3, device="cpu")
    roots = device_array(s.root, wp.vec3)
    wp.launch(growth.gather, n, [head, roots, device_array(rise), wp.vec3(*_TIE)], [path], device="cpu")
    return path


def _tail(
    look: Look, around: dict[str, growth.Surround], knot: np.ndarray, scale: float, rng: np.random.Generator
) -> wp.array:
    """What hangs from the `knot`, or is wound to a bun there, (K + 1, M)."""
    count, steps = 420, 10
    total = look.hair.length_m - 0.12
    if total > 0.2 and rng.random() < 0.4:
        # A bun: strands wound around a ball.
        size = (0.026 + 0.05 * min(total, 0.4)) / scale
        pole = unit(rng.normal(0, 1, (count, 3)))
        first = unit(np.cross(pole, [0.3, 1.0, 0.2]))
        turn = (np.linspace(0, 2.4, steps + 1)[:, None] + rng.uniform(0, 2 * np.pi, count))[..., None]
        ring = np.cos(turn) * first + np.sin(turn) * np.cross(pole, first)
        middle = knot - np.array([0, 0, 0.5 * size])
        return device_array(middle + ring * (size * rng.uniform(0.8, 1.0, count))[:, None], wp.vec3)
    spread = rng.normal(0, 0.5, (count, 2)).clip(-1, 1)
    length = max(total, 0.08) * rng.uniform(0.75, 1.05, count) / scale
    root = knot + np.stack([spread[:, 0] * 0.012, spread[:, 1] * 0.012, np.zeros(count)], 1)
    heading = unit(np.stack([spread[:, 0] * 0.35, 0.15 + spread[:, 1] * 0.35, -np.ones(count)], 1))
    path = wp.empty((steps + 1, count), dtype=wp.vec3, device="cpu")
    wp.launch(
        growth.hang,
        count,
        [
            *(around[k] for k in ("head", "neck", "torso")),
            device_array(root, wp.vec3),
            device_array(heading, wp.vec3),
            device_array(length),
            device_array(0.02 + 0.012 * rng.random(count)),
        ],
        [path],
        device="cpu",
    )
    return path


@lru_cache(maxsize=1)
def _scalp_triangles() -> tuple[np.ndarray, np.ndarray]:
    """Vertices (S,) of the scalp and its surroundings, and triangles (M, 3) into them."""
    b = body()
    triangles = b.triangles[b.triangles_of("body")]
    corner = b.template[triangles]
    inside = (scalp(corner) > 0).any(1) & (corner[..., 1].min(1) > 0.63) & (np.abs(corner[..., 0]).max(1) < 0.12)
    inside &= ~(b.mask("ears")[triangles] > 0.3).any(1)
    used, local = np.unique(triangles[inside], return_inverse=True)
    return used.astype(np.int32), local.reshape(-1, 3).astype(np.int32)


def _cap(person: Person, look: Look, rest: Rest, lift: float, color: np.ndarray) -> Part:
    """The shadowy ground of the hair, a thin shell over the scalp: no skin shows between strands."""
    used, triangles = _scalp_triangles()
    point = body().template[used]
    n = len(used)
    return Part(
        vertices=(rest.vertices[used] + lift * template_normals()[used]).astype(np.float32),
        triangles=triangles,
        anchor=_anchors(point),
        material=Material(raster.HAIR, gloss=0.1, roughness=0.6),
        label="hair",
        color=color,
        coordinate=np.stack([40 * point[:, 1], 0.5 + 3 * point[:, 0]], 1).astype(np.float32),
        toward=np.arange(n, dtype=np.int32),
        keep=(scalp(point, person.hair.recession) - 0.007).astype(np.float32),
    )


def _scalp_hair(person: Person, look: Look, rest: Rest) -> list[Part]:
    cut = _cut(person, look)
    rng = np.random.default_rng([person.number, 3])
    roots = _scalp_roots()
    count = min(cut.count, len(roots.point))
    grows = rng.random(count) < 0.55 + 0.6 * person.hair.density
    grows &= scalp(roots.point[:count], person.hair.recession) > 0.003 * rng.random(count)
    roots = roots[np.flatnonzero(grows)]
    if not len(roots.point):
        return []
    place = frame(rest)
    vertices = place.to(rest.vertices)
    around = {
        "head": obstacle("head", vertices, 1.0),
        "neck": obstacle("neck", vertices),
        "torso": obstacle("torso", vertices),
    }
    # A person's lengths are in meters of the world, growth is in head coordinates.
    brow = float(vertices[dense_vertices()[DENSE_GROUPS["brows"]], 1].max())
    s = _plan(person, look, cut, roots, roots.on(vertices), brow, rng)
    s.length = (s.length / place.scale).astype(np.float32)
    gray = person.hair.gray if look.hair.color is None else 0.0
    mean = hair_color(person, look).rgb
    colors = strand_colors(mean, gray, len(s.root), rng)
    gloss = 0.9 - 0.5 * person.hair.curl
    # Strands on edge would stick out of a hat.
    twist = rng.normal(0, 0.12 + 0.5 * cut.mess, len(s.root)) * (1.0 if look.hat is None else 0.25)
    tied = look.hair.style == "tied"
    if tied:
        path = _combed_back(s, look, around["head"], rng)
    else:
        path = _grow(s, cut, look, brow, around, vertices, _tucked(person, look))
    path = _bend(path, s, cut, look, around["head"], rng)
    if cut.falls and not tied:
        # A strand that found no way down past the shoulder is not drawn.
        places = path.numpy()
        found = np.abs(places[..., 0]).max(0) < 0.122 + s.height + 2 * (cut.wave + cut.coil)
        path = device_array(places[:, found], wp.vec3)
        colors, s.width, twist = colors[found], s.width[found], twist[found]
    lift = 0.0012 if look.hair.style != "buzz" else 0.35 * look.hair.length_m
    parts = [_cap(person, look, rest, lift, to_linear(mean) * 0.62)]
    parts.append(_part(path, s.width, (0.75, 1.0, 0.9, 0.35), place, colors, twist, gloss))
    if tied and (look.hat is None or look.hat.kind not in ("beanie", "helmet")):
        knot = path.numpy()[-1].mean(0) + np.array([0.0, 0.0, -0.012])
        tail = _tail(look, around, knot, place.scale, rng)
        pick = rng.integers(len(colors), size=tail.shape[1])
        twist = rng.normal(0, 0.5, tail.shape[1])
        width = np.full(tail.shape[1], 0.0085)
        parts.append(_part(tail, width, (1.0, 1.0, 0.8, 0.3), place, colors[pick], twist, gloss))
    return parts


def _tucked(person: Person, look: Look) -> bool:
    """Whether long hair is worn behind the ears: chance of the person and the Look."""
    return np.random.default_rng([person.number, int(1e6 * look.hair.length_m)]).random() < 0.35


def hair_parts(person: Person, look: Look, rest: Rest) -> list[Part]:
    """The hair, beard and lashes of a person in a Look, in the rest pose."""
    parts = beard_parts(person, look, rest) + lash_parts(person, rest)
    covered = look.hat is not None and look.hat.kind == "headscarf"
    if look.hair.style != "bald" and not covered:
        parts = _scalp_hair(person, look, rest) + parts
    return parts
