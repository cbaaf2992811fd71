"""Hair of the head as geometry: strands grown from the scalp, combed, waved, and lying on the person's own head and shoulders.

All places are in head coordinates (`ipse.world.strands.Frame`): those of the template, so that brow, ear and nape have the same
numbers for everybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ipse.world import raster
from ipse.world.body import Rest, body
from ipse.world.colors import GRAY_HAIR, WHITE_HAIR
from ipse.world.look import Look, hair_color
from ipse.world.parts import Material, Part
from ipse.world.person import Person
from ipse.world.skin import AXIS_Z, scalp, smoothstep, to_linear
from ipse.world.strands import (
    HEAD_CENTER,
    Frame,
    Obstacle,
    Roots,
    frame,
    obstacle,
    outward,
    ribbons,
    scatter_roots,
    unit,
)
from ipse.world.whiskers import beard_parts, lash_parts

_UNDER_HAT = 0.004
"""How far hair may stand off the scalp under a hat, meters."""
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
    return scatter_roots(lambda p: (scalp(p) > 0) & (p[..., 1] > 0.64) & (np.abs(p[..., 0]) < 0.12), 3600, 11)


def _cut(person: Person, look: Look) -> _Cut:
    style, length, volume = look.hair.style, look.hair.length_m, look.hair.volume
    curl = person.hair.curl
    fringe = look.hair.fringe
    if style == "buzz":
        reach = max(length, 0.004)
        return _Cut(3600, 2, 0.0055, reach, reach, 0.7 * reach, 0.7 * reach, rise=1.1, forward=0.8, lateral=0.1, mess=0.5)
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
            1450,
            13,
            0.0085,
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
            2100,
            9,
            0.0088,
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
    return _Cut(
        2250,
        10,
        0.0085,
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
        period=0.10,
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


def _plan(person: Person, look: Look, cut: _Cut, roots: Roots, place: np.ndarray, rng: np.random.Generator) -> _Strands:
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
        fringe = (azimuth < 52) & (point[:, 1] > 0.775) & (inside < behind * rng.uniform(0.6, 1.1, n)) & (point[:, 2] > 0.07)
        hem = 0.802 - 0.045 * look.hair.fringe + 0.012 * smoothstep(20, 55, azimuth) * -1 + rng.normal(0, 0.0025, n)
        way = (point[:, 1] - hem) * 1.25 + 0.35 * np.maximum(0.115 - point[:, 2], 0) + 0.006
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


_FACE_Y = np.array([0.30, 0.53, 0.60, 0.66, 0.72, 0.765, 0.785, 0.80, 0.815])
_FACE_AZIMUTH = np.array([8, 22, 40, 57, 64, 64, 50, 28, 0])
_TUCKED_AZIMUTH = np.array([8, 22, 62, 92, 102, 88, 50, 28, 0])
"""How close to the middle of the face hair may come, in degrees by height: falling free, and tucked behind the ears."""


def _grow(s: _Strands, cut: _Cut, look: Look, head: Obstacle, lower: list[Obstacle], margin: float, tucked: bool) -> np.ndarray:
    """(K + 1, N, 3) places along the strands."""
    steps = cut.steps
    share = np.linspace(0.6, 1.4, steps) if cut.falls else np.ones(steps)
    share /= share.sum()
    q = s.root.copy()
    path = [q]
    done = np.zeros(len(q), np.float32)
    heading = outward(q)
    opening = _TUCKED_AZIMUTH if tucked else _FACE_AZIMUTH
    cos, sin = np.cos(s.turn)[:, None], np.sin(s.turn)[:, None]
    scale = head.scale.mean()
    over = np.where(s.point[:, 0] > 0, 1, -1)
    front = np.abs(_azimuth(s.point)) + 3 * s.face < 100
    shaft = np.maximum(s.height / max(cut.rise, 0.2), 0.004)
    for k in range(steps):
        ds = s.length * share[k]
        done = done + ds
        n = outward(q)
        up = smoothstep(0.45, 0.9, n[:, 1])
        # How the crown is combed, and how the sides are.
        comb = np.empty_like(q)
        behind = smoothstep(0.05, 0.0, q[:, 2])
        comb[:, 0] = s.side * cut.lateral * up
        comb[:, 1] = -(1 - up)
        comb[:, 2] = up * (cut.forward * (1 - behind) - behind) - (1 - up) * cut.back * (q[:, 2] > 0)
        forward = s.fringe
        comb[forward] = np.stack(
            [0.35 * s.side[forward] * abs(look.hair.parting), np.full(forward.sum(), -0.6), np.full(forward.sum(), 0.9)], 1
        )
        comb -= n * np.einsum("ni,ni->n", comb, n)[:, None]
        comb = unit(comb)
        comb = comb * cos + np.cross(n, comb) * sin
        hang = smoothstep(0.725, 0.665, q[:, 1])[:, None] if cut.falls else 0.0
        fall = np.array([0, -1.0, 0], np.float32)
        comb = comb * (1 - hang) + hang * fall
        climb = cut.rise * np.exp(-(done - ds) / shaft)[:, None] * (1 - hang)
        d = unit(comb + climb * n)
        keep = 0.3 if k else 0.0
        d = unit(d * (1 - keep) + heading * keep)
        new = q + ds[:, None] * d
        # On the head hair lies at its layer's height; where it hangs, only the surface stops it.
        local, length, surface = head.distance(new)
        layer = surface + s.height * (1 - np.exp(-done / shaft)) / scale
        if cut.falls:
            free = smoothstep(0.72, 0.66, new[:, 1])
            aim = np.where(free > 0, np.maximum(layer * (1 - free) + length * free, surface + 0.003), layer)
        else:
            aim = layer
        new = head.center + local * (aim / length)[:, None] * head.scale
        if cut.falls:
            # Keep the face open.
            azimuth = _azimuth(new)
            least = np.interp(new[:, 1], _FACE_Y, opening) + s.face * smoothstep(0.80, 0.76, new[:, 1])
            shut = (np.abs(azimuth) < least) & (new[:, 1] < 0.812) & ~s.fringe & (new[:, 2] > AXIS_Z - 0.02)
            radius = np.hypot(new[:, 0], new[:, 2] - AXIS_Z)
            angle = np.radians(np.where(azimuth == 0, over, np.sign(azimuth)) * least)
            new[:, 0] = np.where(shut, AXIS_Z * 0 + radius * np.sin(angle), new[:, 0])
            new[:, 2] = np.where(shut, AXIS_Z + radius * np.cos(angle), new[:, 2])
            low = new[:, 1] < 0.66
            if low.any():
                chosen = np.flatnonzero(low)
                p = new[chosen]
                # Over the shoulder hair slides to the chest or to the back.
                near = smoothstep(0.62, 0.56, p[:, 1]) * smoothstep(0.05, 0.09, np.abs(p[:, 0]))
                target = np.where(front[chosen], 0.10, -0.07)
                p[:, 2] += near * np.clip(target - p[:, 2], -0.6 * ds[chosen], 0.6 * ds[chosen])
                p[:, 0] -= near * np.sign(p[:, 0]) * 0.25 * ds[chosen]
                for thing in lower:
                    p = thing.push(p, margin + 0.5 * s.height[chosen])
                new[chosen] = p
        move = new - q
        new = q + move * (ds / np.maximum(np.sqrt(np.einsum("ni,ni->n", move, move)), 1e-6))[:, None]
        heading = unit(new - q)
        q = new
        path.append(q)
    return np.stack(path).astype(np.float32)


def _bend(path: np.ndarray, s: _Strands, cut: _Cut, rng: np.random.Generator) -> np.ndarray:
    """Waves and coils on straight strands: sideways, and away from the head but never into it."""
    if cut.wave < 0.0005 and cut.coil < 0.0005:
        return path
    steps, n = len(path) - 1, path.shape[1]
    along = np.linspace(0, 1, steps + 1)[:, None] * s.length
    tangent = unit(np.gradient(path, axis=0))
    out = outward(path)
    across = unit(np.cross(tangent, out))
    grown = smoothstep(0, 0.035, along)[..., None]
    # Neighbors wave together, coils turn each on its own.
    phase = 35 * s.point[:, 0] + 22 * s.point[:, 1] + rng.normal(0, 0.5, n)
    angle = 2 * np.pi * along / (cut.period * rng.uniform(0.85, 1.15, n)) + phase
    path = path + grown * cut.wave * (np.sin(angle)[..., None] * across + (0.5 + 0.5 * np.cos(angle))[..., None] * out)
    if cut.coil:
        turn = 2 * np.pi * along / (cut.period * rng.uniform(0.8, 1.25, n)) + rng.uniform(0, 2 * np.pi, n)
        size = cut.coil * rng.uniform(0.6, 1.2, n)[:, None]
        path = path + grown * size * (np.sin(turn)[..., None] * across + (0.6 + np.cos(turn))[..., None] * out)
    return path.astype(np.float32)


def _press(path: np.ndarray, head: Obstacle) -> np.ndarray:
    """Hair under a hat: flat above its edge, free again below."""
    flat = path.reshape(-1, 3)
    local, length, surface = head.distance(flat)
    # At the back hats reach lower than at the forehead.
    edge = np.interp(flat[:, 2], [-0.03, 0.12], [_HAT_LINE - 0.035, _HAT_LINE])
    allowed = (_UNDER_HAT + 1.2 * np.maximum(edge - flat[:, 1], 0)) / head.scale.mean()
    pressed = head.center + local * (np.minimum(length, surface + allowed) / length)[:, None] * head.scale
    return np.where((flat[:, 1] > 0.70)[:, None], pressed, flat).reshape(path.shape).astype(np.float32)


def _across(path: np.ndarray, rng: np.random.Generator, twist: float) -> np.ndarray:
    """(K, N, 3) directions of the ribbons' widths: flat on the head, each strand turned a little."""
    tangent = unit(np.diff(path, axis=0))
    out = outward(path[:-1])
    across = unit(np.cross(tangent, out))
    up = np.cross(across, tangent)
    angle = rng.normal(0, twist, path.shape[1])[:, None]
    return across * np.cos(angle) + up * np.sin(angle)


def strand_colors(
    mean: tuple[float, float, float], gray: float, count: int, rng: np.random.Generator
) -> np.ndarray:
    """(count, 3) linear colors around an sRGB color; with `gray` > 0 some are gray and the others the darker for it."""
    base = to_linear(mean)
    color = base * np.exp(rng.normal(0, 0.12, (count, 1))) * np.exp(rng.normal(0, 0.025, (count, 3)))
    share = gray * (1 - gray) * 4
    if share > 0.02:
        white = to_linear(WHITE_HAIR if gray > 0.7 else GRAY_HAIR)
        lean = np.clip(rng.normal(0, 0.45 * share, (count, 1)), -0.6, 0.85)
        color = np.where(lean > 0, color + lean * (white - color), color * (1 + 0.8 * lean))
    return color.astype(np.float32)


@lru_cache(maxsize=1)
def _spine() -> np.ndarray:
    """Vertices down the middle of the nape and back, from the head to the waist: they move like what hangs above them."""
    b = body()
    used = np.unique(b.triangles[b.triangles_of("body")])
    p = b.template[used]
    middle = used[(np.abs(p[:, 0]) < 0.004) & (p[:, 2] < 0) & (p[:, 1] > 0.15) & (p[:, 1] < 0.73)]
    return middle[np.argsort(b.template[middle, 1])]


def _anchors(points: np.ndarray) -> np.ndarray:
    """Body vertices that points (N, 3) in head coordinates move with: the head, lower down ever more the back."""
    from ipse.world.scene import head_anchor

    heights = body().template[_spine(), 1]
    y = np.interp(points[:, 1], [0.2, 0.48, 0.56, 0.67], [0.2, 0.50, 0.60, 0.725])
    nearest = np.searchsorted((heights[1:] + heights[:-1]) / 2, y)
    return np.where(points[:, 1] > 0.67, head_anchor(), _spine()[nearest]).astype(np.int32)


def _part(
    path: np.ndarray, width: np.ndarray, place: Frame, colors: np.ndarray, rng: np.random.Generator, twist: float, gloss: float
) -> Part:
    drawn = ribbons(path, width, _across(path, rng, twist))
    steps = len(path) - 1
    shade = np.interp(drawn.step, [0, 0.25 * steps, steps], [0.72, 0.95, 1.12])[:, None]
    return Part(
        vertices=place.back(drawn.vertices),
        triangles=drawn.triangles,
        anchor=_anchors(drawn.vertices),
        material=Material(raster.HAIR, gloss=gloss, roughness=0.35),
        label="hair",
        color=(colors[drawn.strand] * shade).astype(np.float32),
        coordinate=drawn.coordinate,
        toward=drawn.toward,
    )


def _profile(steps: int, root: float, tip: float) -> np.ndarray:
    """(K, 1) relative width along a strand."""
    x = np.arange(steps)[:, None] / steps
    return np.interp(x, [0, 0.2, 0.6, 1.0], [root, 1.0, 0.9, tip]).astype(np.float32)


def _tied(
    person: Person, look: Look, s: _Strands, head: Obstacle, lower: list[Obstacle], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Strands combed to where they are gathered, (K + 1, N, 3), and those of the tail or bun (T + 1, M, 3)."""
    steps, n = 7, len(s.root)
    volume = look.hair.volume
    t = np.linspace(0, 1, steps + 1)[:, None, None]
    start, _, _ = head.distance(s.root)
    local, _, _ = head.distance(_TIE[None])
    a, b = unit(start), unit(local)
    angle = np.arccos(np.clip((a * b).sum(-1), -1, 1))[:, None]
    safe = np.maximum(np.sin(angle), 0.05)
    way = unit((np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / safe)
    flat = (head.center + way * head.scale).reshape(-1, 3)
    _, length, surface = head.distance(flat)
    rise = (0.002 + (0.3 + 0.7 * volume) * 0.012 * rng.uniform(0.1, 1, n)) * (0.4 + 0.6 * s.edge)
    bulge = np.sin(np.pi * np.clip(t[..., 0], 0, 0.85)) ** 0.6 * rise + 0.01 * t[..., 0] ** 4
    radius = surface.reshape(steps + 1, n) + bulge / head.scale.mean()
    path = head.center + way * radius[..., None] * head.scale
    path[0] = s.root

    count, tail_steps = 420, 10
    _, length, surface = head.distance(_TIE[None])
    knot = head.center + local[0] * (surface[0] + 0.018) / length[0] * head.scale
    back = np.array([0.0, 0.0, -1.0])
    spread = rng.normal(0, 1, (count, 2)) * 0.5
    spread *= np.minimum(1, 1 / np.maximum(np.hypot(*spread.T), 1e-6))[:, None]
    total = look.hair.length_m - 0.12
    if total > 0.2 and rng.random() < 0.4:
        # A bun: strands wound around a ball.
        size = 0.026 + 0.05 * min(total, 0.4)
        middle = knot + back * size * 0.75
        pole = unit(rng.normal(0, 1, (count, 3)))
        first = unit(np.cross(pole, [0.3, 1.0, 0.2]))
        turn = np.linspace(0, 2.4, tail_steps + 1)[:, None] + rng.uniform(0, 2 * np.pi, count)
        second = np.cross(pole, first)
        ring = np.cos(turn)[..., None] * first + np.sin(turn)[..., None] * second
        tail = middle + ring * (size * rng.uniform(0.8, 1.0, count))[:, None]
        return path.astype(np.float32), tail.astype(np.float32)
    lengths = max(total, 0.08) * rng.uniform(0.75, 1.05, count)
    q = knot + np.stack([spread[:, 0] * 0.012, spread[:, 1] * 0.012, np.zeros(count)], 1)
    d = unit(np.stack([spread[:, 0] * 0.35, 0.15 + spread[:, 1] * 0.35, -np.ones(count)], 1))
    tail = [q]
    for _ in range(tail_steps):
        ds = lengths / tail_steps
        # Gravity bends the tail within some five centimeters.
        d = unit(d + np.array([0, -1.0, 0]) * (ds / 0.035)[:, None])
        q = q + d * ds[:, None]
        q = head.push(q.astype(np.float32), 0.006)
        for thing in lower:
            q = thing.push(q, 0.02 + 0.012 * rng.random())
        tail.append(q)
    return path.astype(np.float32), np.stack(tail).astype(np.float32)


def _scalp_hair(person: Person, look: Look, rest: Rest) -> list[Part]:
    cut = _cut(person, look)
    rng = np.random.default_rng([person.number, 3])
    roots = _scalp_roots()
    roots = roots[np.arange(min(cut.count, len(roots.point)))]
    thin = rng.random(len(roots.point)) < 0.55 + 0.6 * person.hair.density
    roots = roots[thin & (scalp(roots.point, person.hair.recession) > 0.003 * rng.random(len(roots.point)))]
    if not len(roots.point):
        return []
    place = frame(rest)
    vertices = place.to(rest.vertices)
    head = obstacle("head", vertices, 1.0)
    # A person's lengths are in meters of the world, growth is in head coordinates.
    s = _plan(person, look, cut, roots, roots.on(vertices), rng)
    s.length = (s.length / place.scale).astype(np.float32)
    colors = strand_colors(
        hair_color(person, look).rgb, 0.0 if look.hair.color is not None else person.hair.gray, len(s.root), rng
    )
    lower: list[Obstacle] = []
    if cut.falls:
        lower = [obstacle("neck", vertices), obstacle("torso", vertices)]
    margin = (0.012 + 0.014 * (look.outer is not None) + 0.006 * (look.top.kind in ("hoodie", "sweater"))) / place.scale
    gloss = 0.9 - 0.5 * person.hair.curl
    parts = []
    if look.hair.style == "tied":
        path, tail = _tied(person, look, s, head, lower, rng)
        tail_colors = colors[rng.integers(len(colors), size=tail.shape[1])]
        tail_width = 0.0085 * _profile(len(tail) - 1, 1.0, 0.3) * np.ones(tail.shape[1], np.float32)
        if look.hat is None or look.hat.kind not in ("beanie", "helmet"):
            parts.append(_part(tail, tail_width, place, tail_colors, rng, 0.5, gloss))
    else:
        tucked = cut.falls and rng.random() < 0.35
        path = _grow(s, cut, look, head, lower, margin, tucked)
        path = _bend(path, s, cut, rng)
    if look.hat is not None:
        path = _press(path, head)
    width = _profile(len(path) - 1, 0.75, 0.35) * s.width
    parts.append(_part(path, width, place, colors, rng, 0.25, gloss))
    return parts


def hair_parts(person: Person, look: Look, rest: Rest) -> list[Part]:
    """The hair, beard and lashes of a person in a Look, in the rest pose."""
    parts = beard_parts(person, look, rest) + lash_parts(person, rest)
    covered = look.hat is not None and look.hat.kind == "headscarf"
    if look.hair.style != "bald" and not covered:
        parts = _scalp_hair(person, look, rest) + parts
    return parts
