"""A person in a Look as one scene: all parts joined, bound to the body, with ambient occlusion, ready for any Shot.

Everything here depends on Person and Look alone and is kept for the next Shot of the same pair: pictures of one
person cost their
geometry once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import warp as wp
from scipy.spatial import cKDTree

from ipse.world import raster
from ipse.world.body import Rest, body
from ipse.world.clothes import clothes_parts, covered
from ipse.world.hair import hair_parts
from ipse.world.look import Look
from ipse.world.parts import LABEL, Material, Part
from ipse.world.person import Person
from ipse.world.skin import paint, texture_coordinates, tone_color
from ipse.world.worn import worn_parts

REGIONS = {"head": 0.40, "bust": 0.20, "person": -9.0}
"""Per region the template height (meters) below which geometry is left out, because no picture of that framing shows
it."""

_SKY = 13
"""Directions of the ambient occlusion."""


@lru_cache(maxsize=64)
def rest_body(person: Person) -> Rest:
    """The person's body before expression and pose."""
    b = body()
    macro = b.macro_weights(
        person.age, person.gender, person.muscle, person.weight, person.height, person.proportions, person.ancestry
    )
    return b.rest(macro, person.shape)


@lru_cache(maxsize=1)
def head_anchor() -> int:
    """A body vertex that moves with the head alone and with no expression: the crown."""
    return int(np.argmax(body().template[:13380, 1]))


@lru_cache(maxsize=1)
def _body_pieces() -> dict[str, np.ndarray]:
    """The body's triangles by surface: head skin, ears, body skin, mouth, eyes, teeth, tongue, lashes."""
    b = body()
    skin = b.triangles_of("body")
    corners = b.triangles[skin]
    mouth = (b.mask("inside_mouth")[corners] > 0.5).all(1)
    ears = (b.mask("ears")[corners] > 0.4).any(1) & ~mouth
    # The texture ends at the neck; below, the vertex color has the same tone.
    head = (b.template[corners, 1] > 0.585).all(1) & (np.abs(b.template[corners, 0]) < 0.13).all(1) & ~mouth & ~ears
    return {
        "head": skin[head],
        "ears": skin[ears],
        "mouth": skin[mouth],
        "body": skin[~(head | ears | mouth)],
        "eyes": b.triangles_of("helper-l-eye", "helper-r-eye"),
        "teeth": b.triangles_of("helper-upper-teeth", "helper-lower-teeth"),
        "tongue": b.triangles_of("helper-tongue"),
        "lashes": b.triangles_of("lashes"),
    }


def _piece(
    rest: Rest, triangles: np.ndarray, material: Material, label: str, color: np.ndarray, keep: np.ndarray | None = None
) -> Part:
    """Some of the body's own triangles as a part."""
    b = body()
    used, local = np.unique(b.triangles[triangles], return_inverse=True)
    return Part(
        vertices=rest.vertices[used],
        triangles=local.reshape(-1, 3).astype(np.int32),
        anchor=used.astype(np.int32),
        material=material,
        label=label,
        color=color[used] if color.ndim == 2 else color,
        coordinate=texture_coordinates(b.template[used]),
        keep=None if keep is None else keep[used],
        uv=b.corner_uv[triangles],
    )


def body_parts(person: Person, look: Look, rest: Rest) -> list[Part]:
    """Skin, ears, eyes, mouth and lashes; skin under clothes is cut away so that it cannot poke through them."""
    b, pieces = body(), _body_pieces()
    tone = tone_color(person.skin.tone, person.skin.undertone)
    rng = np.random.default_rng([person.number, 2])
    color = np.repeat(tone[None], len(b.template), 0) * (1 + 0.03 * rng.standard_normal((len(b.template), 1)))
    color = color.astype(np.float32)
    color[b.mask("fingernails") > 0.3] *= np.array([1.1, 0.95, 0.95], np.float32)
    ears = color * np.array([1.0, 0.86, 0.85], np.float32)
    keep = -covered(person, look, rest)
    rough = 0.52 - 0.12 * person.skin.oiliness
    skin = Material(raster.BODY_SKIN, gloss=0.3 + 0.3 * person.skin.oiliness, roughness=rough)
    gum = np.array([0.30, 0.09, 0.08], np.float32) * (0.6 + 0.4 * float(tone.mean()) / 0.5)
    return [
        _piece(rest, pieces["head"], replace(skin, kind=raster.SKIN), "face", color, keep),
        _piece(rest, pieces["ears"], skin, "ears", ears),
        _piece(rest, pieces["body"], skin, "skin", color, keep),
        _cavity(_piece(rest, pieces["mouth"], Material(raster.MOUTH, gloss=0.3, roughness=0.3), "mouth", gum)),
        _piece(rest, pieces["eyes"], Material(raster.EYE), "eyes", np.ones(3, np.float32)),
        _teeth(_piece(rest, pieces["teeth"], Material(raster.TEETH, gloss=0.5, roughness=0.25), "mouth", _TOOTH)),
        _piece(
            rest,
            pieces["tongue"],
            Material(raster.MOUTH, gloss=0.5, roughness=0.35),
            "mouth",
            np.array([0.42, 0.14, 0.13], np.float32),
        ),
    ]


_TOOTH = np.array([0.62, 0.57, 0.47], np.float32)


@lru_cache(maxsize=1)
def _mouth_depth() -> np.ndarray:
    """(V,) 0 at the lips, 1 from seven millimeters behind them on: how far inside the mouth a vertex of its walls
    is.
    """
    b = body()
    wall = b.mask("inside_mouth") > 0.5
    skin = np.unique(b.triangles[_body_pieces()["head"]])
    rim = skin[wall[skin] | (b.mask("lips")[skin] > 0.3)]
    out = np.zeros(len(b.template), np.float32)
    inside = np.flatnonzero(wall)
    distance, _ = cKDTree(b.template[rim]).query(b.template[inside])
    out[inside] = np.clip(distance / 0.007, 0, 1)
    return out


def _cavity(part: Part) -> Part:
    """Walls of the mouth drawn back: shapes of the face do not move them, and they would show through thin cheeks."""
    back = np.array([0.0, 0.0, -0.009], np.float32) * _mouth_depth()[part.anchor][:, None]
    return replace(part, vertices=part.vertices + back)


def _teeth(part: Part) -> Part:
    """Teeth drawn in a little: the helper rows are wider than the narrowest jaws of the shape space."""
    center = part.vertices.mean(0)
    drawn = (part.vertices - center) * np.array([0.82, 0.92, 0.9], np.float32) + center
    return replace(part, vertices=drawn - np.array([0, 0, 0.006], np.float32))


@dataclass
class Scene:
    """Joined geometry on a device. `N` vertices, `M` triangles: `opaque` ones, the first `closed` of which show one
    side only, then `lenses`.
    """

    person: Person
    look: Look
    rest: Rest
    device: str
    rest_vertices: wp.array
    anchor: wp.array
    keep: wp.array
    surface: raster.Surface
    opaque: int
    lenses: int
    closed: int
    bone: wp.array
    weight: wp.array


#: Surfaces of which no picture shows the inner side.
_CLOSED = (raster.SKIN, raster.BODY_SKIN, raster.EYE)


def join(parts: list[Part], texture: np.ndarray, texture_label: np.ndarray, cut: float, device: str) -> dict:
    """Concatenate parts, leaving out triangles wholly below template height `cut`; arrays on `device`."""
    b = body()
    # First what shows its outer side only, lenses last.
    parts = sorted(parts, key=lambda p: (p.material.kind not in _CLOSED) + (p.material.kind == raster.LENS))
    materials: list[list[float]] = []
    fields: dict[str, list[np.ndarray]] = {
        k: [] for k in ("rest", "anchor", "keep", "color", "coordinate", "toward", "tri", "uv", "material", "label")
    }
    offset = lenses = closed = 0
    for part in parts:
        triangles = np.asarray(part.triangles, np.int32)
        chosen = (b.template[part.anchor, 1] > cut)[triangles].any(1)
        if not chosen.any():
            continue
        triangles = triangles[chosen]
        needed = np.zeros(len(part.vertices), bool)
        needed[triangles] = True
        if part.toward is not None:
            needed[part.toward[needed]] = True
        used = np.flatnonzero(needed)
        new = np.full(len(part.vertices), -1, np.int32)
        new[used] = np.arange(len(used)) + offset
        n, m = len(used), len(triangles)
        fields["rest"].append(part.vertices[used].astype(np.float32))
        fields["anchor"].append(part.anchor[used].astype(np.int32))
        fields["keep"].append(np.zeros(n, np.float32) if part.keep is None else part.keep[used].astype(np.float32))
        fields["color"].append(np.broadcast_to(part.color[used] if part.color.ndim == 2 else part.color, (n, 3)))
        fields["coordinate"].append(np.zeros((n, 2)) if part.coordinate is None else part.coordinate[used])
        fields["toward"].append(new[used] if part.toward is None else new[part.toward[used]])
        fields["tri"].append(new[triangles])
        fields["uv"].append(np.full((m, 3, 2), -1.0) if part.uv is None else part.uv[chosen])
        fields["material"].append(np.full(m, len(materials)))
        # The head's skin takes its class from the texture.
        label = -1 if part.material.kind == raster.SKIN else LABEL[part.label]
        fields["label"].append(np.full(m, label))
        materials.append(part.material.row())
        offset += n
        lenses += m if part.material.kind == raster.LENS else 0
        closed += m if part.material.kind in _CLOSED else 0
    joined = {k: np.concatenate(v) for k, v in fields.items()}

    surface = raster.Surface()
    surface.triangles = wp.array(joined["tri"].astype(np.int32), dtype=wp.vec3i, device=device)
    surface.material = wp.array(joined["material"].astype(np.int32), dtype=wp.int32, device=device)
    surface.label = wp.array(joined["label"].astype(np.int32), dtype=wp.int32, device=device)
    surface.color = wp.array(joined["color"].astype(np.float32), dtype=wp.vec3, device=device)
    surface.coordinate = wp.array(joined["coordinate"].astype(np.float32), dtype=wp.vec2, device=device)
    surface.uv = wp.array(joined["uv"].astype(np.float32), dtype=wp.vec2, device=device)
    surface.toward = wp.array(joined["toward"].astype(np.int32), dtype=wp.int32, device=device)
    surface.rest = wp.array(joined["rest"], dtype=wp.vec3, device=device)
    surface.materials = wp.array(np.array(materials, np.float32), dtype=wp.float32, device=device)
    surface.texture = wp.array(texture, dtype=wp.vec4, device=device)
    surface.texture_label = wp.array(texture_label, dtype=wp.int32, device=device)
    return {
        "surface": surface,
        "rest_vertices": surface.rest,
        "anchor": wp.array(joined["anchor"], dtype=wp.int32, device=device),
        "keep": wp.array(joined["keep"], dtype=wp.float32, device=device),
        "opaque": len(joined["tri"]) - lenses,
        "lenses": lenses,
        "closed": closed,
    }


def sky_directions(count: int) -> np.ndarray:
    """`count` unit vectors, evenly over the sphere (Fibonacci lattice). Light comes from the ground too, only less."""
    y = 1 - 2 * (np.arange(count) + 0.5) / count
    phi = np.arange(count) * np.pi * (3 - np.sqrt(5))
    r = np.sqrt(1 - y * y)
    return np.stack([r * np.cos(phi), y, r * np.sin(phi)], 1)


def orthographic(direction: np.ndarray, low: np.ndarray, high: np.ndarray, size: int) -> np.ndarray:
    """Rows (3, 4) that map the box `low`..`high` into a depth map of `size` samples, seen from `direction`; the
    third row is
    nearness in meters.
    """
    z = -direction / np.linalg.norm(direction)
    x = np.cross(z, [0.0, 1.0, 0.0] if abs(z[1]) < 0.95 else [1.0, 0.0, 0.0])
    x /= np.linalg.norm(x)
    axes = np.stack([x, np.cross(z, x), z])
    corners = np.array(
        [[(low, high)[i][0], (low, high)[j][1], (low, high)[k][2]] for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    )
    p = corners @ axes.T
    lo, hi = p.min(0), p.max(0)
    scale = (size - 2) / max(hi[0] - lo[0], hi[1] - lo[1])
    rows = np.concatenate([axes, np.zeros((3, 1))], 1)
    rows[:2] *= scale
    rows[:2, 3] = 1 - lo[:2] * scale
    rows[2] *= -1
    rows[2, 3] = hi[2] + 0.1
    return rows.astype(np.float32)


def depth_map(scene: Scene, vertices: wp.array, rows: np.ndarray, size: int) -> tuple[wp.array, wp.array]:
    """The scene's orthographic depth keys (size, size), and the matrix on the device."""
    matrix = wp.array(rows, dtype=wp.vec4, device=scene.device)
    screen = wp.empty(vertices.shape, dtype=wp.vec3, device=scene.device)
    wp.launch(raster.project, vertices.shape, [vertices, matrix, 0], [screen], device=scene.device)
    keys = wp.full((size, size), raster.NO_KEY, dtype=wp.int64, device=scene.device)
    wp.launch(
        raster.rasterize,
        scene.opaque,
        [screen, scene.surface.triangles, scene.keep, scene.closed],
        [keys],
        device=scene.device,
    )
    return keys, matrix


def vertex_normals(scene: Scene, vertices: wp.array) -> wp.array:
    """Area-weighted vertex normals, not normalized."""
    normals = wp.zeros(vertices.shape, dtype=wp.vec3, device=scene.device)
    wp.launch(
        raster.add_normals,
        scene.surface.triangles.shape[0],
        [vertices, scene.surface.triangles],
        [normals],
        device=scene.device,
    )
    return normals


def _visibility(scene: Scene) -> wp.array:
    """Ambient visibility 0..1 of every vertex in the rest pose, from depth maps in many directions."""
    rest = scene.rest_vertices
    points = rest.numpy()
    low, high = points.min(0), points.max(0)
    normals = vertex_normals(scene, rest)
    seen = wp.zeros(rest.shape, dtype=wp.float32, device=scene.device)
    total = wp.zeros(rest.shape, dtype=wp.float32, device=scene.device)
    size = 144
    bias = 1.6 * float(np.linalg.norm(high - low)) / size
    for d in sky_directions(_SKY):
        keys, matrix = depth_map(scene, rest, orthographic(d, low, high, size), size)
        wp.launch(
            raster.occlude,
            rest.shape,
            [rest, normals, matrix, wp.vec3(*d), bias, keys],
            [seen, total],
            device=scene.device,
        )
    # The prior keeps a vertex that few directions reach from turning black by their accident.
    open_ = (seen.numpy() + 0.12) / (total.numpy() + 0.12)
    return wp.array(open_.astype(np.float32), dtype=wp.float32, device=scene.device)


@lru_cache(maxsize=4)
def scene(person: Person, look: Look, region: str, device: str) -> Scene:
    """The scene of one person in one Look for a region of the body (a key of `REGIONS`)."""
    rest = rest_body(person)
    parts = body_parts(person, look, rest)
    garments = clothes_parts(person, look, rest)
    parts += garments + hair_parts(person, look, rest) + worn_parts(person, look, rest, garments)
    texture, texture_label = paint(person, look)
    b = body()
    made = Scene(
        person=person,
        look=look,
        rest=rest,
        device=device,
        bone=wp.array(b.skin_index, dtype=wp.int32, device=device),
        weight=wp.array(b.skin_weight, dtype=wp.float32, device=device),
        **join(parts, texture, texture_label, REGIONS[region], device),
    )
    made.surface.visibility = _visibility(made)
    return made
