"""The suit: a close shell around the body from neck to feet that all garments are cut from and shaped on.

It is MakeHuman's helper mesh for tights, refined around neck and chest, where portraits look closely. `Places` says for
points of the template where on the body they are, in coordinates that tailors use (along the arm, away from the neck);
garments are cut by functions of them, so that a cut falls on the same place of every person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from ipse.world.body import Rest, body
from ipse.world.derived import derived
from ipse.world.skin import smoothstep

SHOULDER, ELBOW, WRIST = np.array([(0.168, 0.525, 0.015), (0.313, 0.349, 0.013), (0.431, 0.245, 0.176)])
"""Joints of the template's left arm, meters."""
ARM_M = float(np.linalg.norm(ELBOW - SHOULDER) + np.linalg.norm(WRIST - ELBOW))
"""Length of the template's arm from shoulder to wrist."""
NECK_Z = 0.018
"""Where the template's neck stands (x = 0)."""


@dataclass(frozen=True)
class Places:
    """Where points are on the template's body; every field is (N,).

    Attributes:
        x, y, z: the template point, meters.
        arm: 0..1, how much the arm's bones move it; `leg` and `head` likewise.
        along: meters from the shoulder joint toward the wrist; torso points lie at -0.2 and less.
        neck: meters from the root of the neck along the surface: negative up the neck, positive over the shoulders.
        turn: radians around the body, 0 in front, positive toward the person's left.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    arm: np.ndarray
    leg: np.ndarray
    head: np.ndarray
    along: np.ndarray
    neck: np.ndarray
    turn: np.ndarray


def places(points: np.ndarray, arm: np.ndarray, leg: np.ndarray, head: np.ndarray) -> Places:
    """`Places` of template points (N, 3) with given shares of arm, leg and head bones."""
    x, y, z = np.asarray(points, np.float64).T
    mirrored = np.stack([np.abs(x), y, z], 1)
    upper, lower = np.linalg.norm(ELBOW - SHOULDER), np.linalg.norm(WRIST - ELBOW)
    first = (mirrored - SHOULDER) @ (ELBOW - SHOULDER) / upper
    second = (mirrored - ELBOW) @ (WRIST - ELBOW) / lower
    along = np.where(second > 0, upper + second, np.minimum(first, upper))
    torso = smoothstep(0.5, 0.1, arm)
    along = along * (1 - torso) - 0.2 * torso
    ring = np.hypot(x, z - NECK_Z)
    fields = (x, y, z, arm, leg, head, along, (ring - 0.055) + (0.575 - y), np.arctan2(x, z - NECK_Z))
    return Places(*(f.astype(np.float32) for f in fields))


def bone_share(*prefixes: str) -> np.ndarray:
    """(V,) the share of bones with these name prefixes in every body vertex's skinning weights."""
    b = body()
    chosen = np.array([name.startswith(prefixes) for name in b.bones])
    return (b.skin_weight * chosen[b.skin_index]).sum(1).astype(np.float64)


def _shares() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        bone_share("upperarm", "lowerarm", "wrist", "finger", "metacarpal"),
        bone_share("upperleg", "lowerleg", "foot"),
        bone_share("head", "eye"),
    )


@lru_cache(maxsize=1)
def body_places() -> Places:
    """`Places` of all vertices of the body table."""
    return places(body().template, *_shares())


def nearest_anchor(points: np.ndarray, weights: sparse.csr_matrix) -> np.ndarray:
    """(N,) body vertices near template points (N, 3) whose skinning weights come nearest to the wanted ones (N, J).

    A vertex of a part takes its weights from one vertex of the body; where a refined mesh puts new vertices in between,
    the body's own dense surface offers one that moves almost alike. Vertices of the face are left out: they move with
    expressions.
    """
    b = body()
    usable = np.unique(b.triangles[b.triangles_of("body", "helper-tights", "helper-skirt")])
    usable = usable[b.template[usable, 1] < 0.63]
    _, near = cKDTree(b.template[usable]).query(points, k=16)
    near = usable[near]
    wanted = weights.toarray()
    dense = np.zeros((len(b.template), len(b.bones)), np.float32)
    np.add.at(dense, (np.arange(len(dense))[:, None], b.skin_index), b.skin_weight)
    error = np.abs(dense[near] - wanted[:, None]).sum(2) + 0.5 * np.linalg.norm(
        b.template[near] - points[:, None], axis=2
    )
    return near[np.arange(len(near)), error.argmin(1)].astype(np.int32)


def weight_matrix(vertices: np.ndarray) -> sparse.csr_matrix:
    """(N, J) skinning weights of body vertices."""
    b = body()
    index, weight = b.skin_index[vertices], b.skin_weight[vertices]
    rows = np.repeat(np.arange(len(vertices)), index.shape[1])
    return sparse.csr_matrix((weight.ravel(), (rows, index.ravel())), shape=(len(vertices), len(b.bones)))


def refine(triangles: np.ndarray, count: int, chosen: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Split the chosen triangles (M,) bool in four, their neighbors so that no crack opens.

    New vertices lie by Loop's rule ("Smooth Subdivision Surfaces Based on Triangles", 1987), and vertices whose edges
    are all split move by it.

    Returns:
        (N, count) matrix from old to new vertices, and (M', 3) triangles.
    """
    corner = np.stack([triangles, np.roll(triangles, -1, 1)], 2)  # edge k runs from corner k to k + 1
    edges, edge_of = np.unique(np.sort(corner, 2).reshape(-1, 2), axis=0, return_inverse=True)
    edge_of = edge_of.reshape(-1, 3)
    split = np.zeros(len(edges), bool)
    split[edge_of[chosen]] = True
    uses = np.bincount(edge_of.ravel(), minlength=len(edges))
    number = np.full(len(edges), -1)
    number[split] = count + np.arange(split.sum())

    rows, columns, values = [], [], []

    def put(row: np.ndarray, column: np.ndarray, value: np.ndarray | float) -> None:
        rows.append(row)
        columns.append(column)
        values.append(np.broadcast_to(np.asarray(value, float), row.shape))

    inner = split & (uses == 2)
    for end in (0, 1):
        put(number[inner], edges[inner, end], 0.375)
        put(number[split & ~inner], edges[split & ~inner, end], 0.5)
    across = np.stack([triangles[:, 2], triangles[:, 0], triangles[:, 1]], 1)  # opposite of edge k
    here = inner[edge_of]
    put(number[edge_of[here]], across[here], 0.125)
    # Old vertices: moved where every edge around them is split and the mesh is closed.
    whole = np.ones(count, bool)
    whole[edges[~inner].ravel()] = False
    whole &= np.bincount(triangles.ravel(), minlength=count) > 0
    degree = np.maximum(np.bincount(edges.ravel(), minlength=count), 1)
    beta = (0.625 - (0.375 + 0.25 * np.cos(2 * np.pi / degree)) ** 2) / degree
    old = np.arange(count)
    put(old, old, np.where(whole, 1 - degree * beta, 1.0))
    for end in (0, 1):
        used = whole[edges[:, end]]
        put(edges[used, end], edges[used, 1 - end], beta[edges[used, end]])
    total = count + int(split.sum())
    matrix = sparse.csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(total, count)
    )

    out = []
    cuts = split[edge_of].sum(1)
    out.append(triangles[cuts == 0])
    t, m = triangles[cuts == 3], number[edge_of[cuts == 3]]
    out += [np.stack([t[:, k], m[:, k], m[:, k - 1]], 1) for k in range(3)] + [m]
    for k in range(3):
        one = (cuts == 1) & split[edge_of[:, k]]
        t, m = np.roll(triangles[one], -k, 1), number[edge_of[one, k]]
        out += [np.stack([t[:, 0], m, t[:, 2]], 1), np.stack([m, t[:, 1], t[:, 2]], 1)]
        two = (cuts == 2) & ~split[edge_of[:, k]]
        t, e = np.roll(triangles[two], -k, 1), np.roll(number[edge_of[two]], -k, 1)
        out += [
            np.stack([e[:, 1], t[:, 2], e[:, 2]], 1),
            np.stack([t[:, 0], t[:, 1], e[:, 1]], 1),
            np.stack([t[:, 0], e[:, 1], e[:, 2]], 1),
        ]
    return matrix, np.concatenate(out).astype(np.int32)


def vertex_averages(triangles: np.ndarray, count: int) -> sparse.csr_matrix:
    """(count, count) matrix that replaces every vertex by the mean of its neighbors."""
    corner = np.concatenate([triangles, np.roll(triangles, 1, 1)]).ravel()
    other = np.concatenate([np.roll(triangles, -1, 1), triangles]).ravel()
    matrix = sparse.csr_matrix((np.ones(len(corner), np.float32), (corner, other)), shape=(count, count))
    matrix.data[:] = 1.0
    return sparse.diags(1 / np.maximum(np.asarray(matrix.sum(1)).ravel(), 1)).astype(np.float32) @ matrix


class Suit:
    """The shell's mesh and what is known about it once for all people. Use `suit()`."""

    def __init__(self) -> None:
        b = body()
        chosen = b.triangles_of("helper-tights")
        self.source, local = np.unique(b.triangles[chosen], return_inverse=True)
        self.triangles: np.ndarray = local.reshape(-1, 3).astype(np.int32)
        self.matrix: sparse.csr_matrix = sparse.identity(len(self.source), format="csr")
        shares = _shares()
        # Twice around the neck, once over chest, shoulders and feet.
        for reach in (0.0, 1.0):
            point = self.matrix @ b.template[self.source]
            place = places(point, *(self.matrix @ share[self.source] for share in shares))
            near = (place.y > 0.38 + 0.1 * reach) & (np.abs(place.neck - 0.015) < 1 - 0.935 * reach)
            near &= (np.abs(place.x) < 0.24) & (place.arm < 1 - 0.6 * reach)
            near |= (place.y < -0.70) & (reach == 0)
            step, self.triangles = refine(self.triangles, len(point), near[self.triangles].all(1))
            self.matrix = (step @ self.matrix).tocsr()
        self.template: np.ndarray = self.matrix @ b.template[self.source]
        self.matrix = self.matrix.astype(np.float32)
        self.places = places(self.template, *(self.matrix @ share[self.source] for share in shares))
        self.average = vertex_averages(self.triangles, len(self.template))
        self.shoulder = int(np.linalg.norm(self.template - SHOULDER - (0, 0.04, 0), axis=1).argmin())
        rows = self.triangles.ravel()
        faces = np.repeat(np.arange(len(self.triangles)), 3)
        self._face_sum = sparse.csr_matrix(
            (np.ones(len(rows), np.float32), (rows, faces)), shape=(len(self.template), len(self.triangles))
        )
        self._contact()
        self.anchor: np.ndarray = derived("anchors", self.find_anchors)["anchor"]
        self._zones = {
            name: (rows, self.average[rows])
            for name, rows in (
                ("upper", np.flatnonzero((self.places.y > -0.12) | (self.places.arm > 0.2))),
                ("lower", np.flatnonzero((self.places.y < 0.22) & (self.places.arm < 0.2))),
                ("feet", np.flatnonzero(self.places.y < -0.65)),
                ("neck", np.flatnonzero((self.places.neck < 0.16) & (self.places.arm < 0.5))),
            )
        }

    def find_contact(self) -> dict[str, np.ndarray]:
        """Which triangle of the skin lies under each vertex of the suit (F, 3), where in it (F, 3), how far (F,)."""
        b = body()
        place = body_places()
        skin = b.triangles[b.triangles_of("body")]
        usable = (b.template[:, 1] < 0.70) & (place.along < ARM_M + 0.03)
        skin = skin[usable[skin].all(1)]
        corners = b.template[skin]
        _, near = cKDTree(corners.mean(1)).query(self.template, k=12)
        a, u, v = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        q = self.template[:, None] - a[near]
        uu, uv, vv = (np.einsum("nki,nki->nk", p[near], r[near]) for p, r in ((u, u), (u, v), (v, v)))
        qu, qv = np.einsum("nki,nki->nk", q, u[near]), np.einsum("nki,nki->nk", q, v[near])
        det = np.maximum(uu * vv - uv * uv, 1e-18)
        s, t = (vv * qu - uv * qv) / det, (uu * qv - uv * qu) / det
        w = np.clip(np.stack([1 - s - t, s, t], 2), 0, 1)
        w /= w.sum(2, keepdims=True)
        gap = np.linalg.norm(np.einsum("nkc,nkci->nki", w, corners[near]) - self.template[:, None], axis=2)
        best = gap.argmin(1)
        row = np.arange(len(self.template))
        return {
            "corners": skin[near[row, best]],
            "weights": w[row, best].astype(np.float32),
            "gap": gap[row, best].astype(np.float32),
        }

    def _contact(self) -> None:
        found = derived("contact", self.find_contact)
        self._skin = sparse.csr_matrix(
            (found["weights"].ravel(), found["corners"].ravel(), np.arange(0, found["corners"].size + 1, 3)),
            shape=(len(self.template), len(body().template)),
        )
        near_neck = smoothstep(0.15, 0.09, self.places.neck)
        self._collar = np.flatnonzero(near_neck > 0)
        self._level = near_neck[self._collar]
        # Bridges (between toes, under the arms) stay.
        self._bridge = smoothstep(0.014, 0.024, found["gap"])

    def find_anchors(self) -> dict[str, np.ndarray]:
        """The anchors (F,): the helper mesh's own vertices and, around the neck, what moves like the skin beneath."""
        weights = (self.matrix @ weight_matrix(self.source)).tolil()
        skin = self._skin[self._collar] @ weight_matrix(np.arange(len(body().template)))
        share = self._level[:, None]
        weights[self._collar] = skin.multiply(share) + weights[self._collar].multiply(1 - share)
        chosen = np.union1d(np.arange(len(self.source), len(self.template)), self._collar)
        anchor = np.zeros(len(self.template), np.int32)
        anchor[: len(self.source)] = self.source
        anchor[chosen] = nearest_anchor(self.template[chosen], weights.tocsr()[chosen])
        return {"anchor": anchor}

    def normals(self, points: np.ndarray) -> np.ndarray:
        """(F, 3) unit vertex normals of the suit with its vertices at `points` (F, 3)."""
        p = points[self.triangles]
        n = self._face_sum @ np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0])
        return n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-12)

    def over_skin(self, rest: Rest, gap: float) -> tuple[np.ndarray, np.ndarray]:
        """The suit on a person: points and normals (F, 3), about `gap` meters outside of the skin."""
        skin = self._skin @ rest.vertices
        helper = self.matrix @ rest.vertices[self.source]
        # The helper mesh stands off by a centimeter or two, and slides along the skin; its bridges are kept.
        back = (1 - self._bridge)[:, None] * (skin - helper)
        for _ in range(3):
            back = self.average @ back
        points = helper + back
        normals = self.normals(helper)
        height = np.einsum("ni,ni->n", points - skin, normals)
        points += np.maximum(gap - height, gap * self._bridge)[:, None] * normals
        # Around the neck it is taken as it is, because its rows are level there, and drawn straight to the skin.
        collar = self._collar
        near = cKDTree(skin[collar]).query(helper[collar])[1]
        height = np.einsum("ni,ni->n", helper[collar] - skin[collar][near], normals[collar])
        level = helper[collar] + np.minimum(gap - height, 0.012)[:, None] * normals[collar]
        points[collar] += self._level[:, None] * (level - points[collar])
        # Evens out the steps that single vertices leave, outward only.
        even = np.einsum("ni,ni->n", self.average @ points - points, normals)
        points += np.maximum(even, 0)[:, None] * normals
        return points, self.normals(points)

    def smooth(
        self, points: np.ndarray, normals: np.ndarray, weight: np.ndarray | float, times: int, zone: str
    ) -> np.ndarray:
        """`points` (F, 3) of a zone drawn toward their neighbors' mean, by `weight` (F,) 0..1, a number of times.

        They move along `normals` only: sliding sideways would bend hems and patterns. Zones are ``upper``, ``lower``,
        ``feet`` and ``neck``.
        """
        rows, average = self._zones[zone]
        points = points.copy()
        n = normals[rows]
        w = (weight[rows] if isinstance(weight, np.ndarray) else np.float32(weight)) * np.ones(len(rows), np.float32)
        for _ in range(times):
            move = np.einsum("ni,ni->n", average @ points - points[rows], n)
            points[rows] += (w * move)[:, None] * n
        return points


def outside(points: np.ndarray, inner: np.ndarray, normals: np.ndarray, gap: np.ndarray | float) -> np.ndarray:
    """`points` moved along `normals` until they lie at least `gap` meters outside of `inner`; all (F, 3)."""
    height = np.einsum("ni,ni->n", points - inner, normals)
    return points + np.maximum(gap - height, 0)[:, None] * normals


@lru_cache(maxsize=1)
def suit() -> Suit:
    """The suit, made once per process."""
    return Suit()


class Tube:
    """Rings around an arm or a leg: lets cloth hang from the widest place above instead of clinging."""

    def __init__(self, where: np.ndarray, share: np.ndarray, rings: Sequence[float]) -> None:
        """`where` (F,) is the place along the limb in template meters, `share` (F,) the limb's share in each vertex."""
        at = np.asarray(rings, np.float32)
        self._limb = np.flatnonzero(share > 0.01)
        where, share = where[self._limb], share[self._limb]
        self._share = share.astype(np.float32)
        weight = np.exp(-0.5 * ((where[None] - at[:, None]) / (0.6 * np.diff(at).mean())) ** 2) * (share > 0.5)
        self._mean = weight / np.maximum(weight.sum(1, keepdims=True), 1e-9)
        position = np.interp(where, at, np.arange(len(at))).astype(np.float32)
        self._low = np.minimum(position.astype(int), len(at) - 2)
        self._part = position - self._low

    def _read(self, rings: np.ndarray) -> np.ndarray:
        part = self._part if rings.ndim == 1 else self._part[:, None]
        return rings[self._low] * (1 - part) + rings[self._low + 1] * part

    def hang(self, points: np.ndarray, taper: float, fade: np.ndarray) -> None:
        """Widen the limb, in place, so that its rings shrink by no more than `taper` meters per meter along.

        Args:
            points: (F, 3) of the suit.
            taper: meters per meter; negative widens toward the hand or foot.
            fade: (F,) 0..1, how much of it is done.
        """
        limb = points[self._limb]
        center = self._mean @ limb
        away = limb - self._read(center)
        radius = self._mean @ np.linalg.norm(away, axis=1)
        wide = radius.copy()
        step = np.linalg.norm(np.diff(center, axis=0), axis=1)
        for k in range(1, len(wide)):
            wide[k] = max(wide[k], wide[k - 1] - taper * step[k - 1])
        grow = self._read(wide / np.maximum(radius, 1e-6)) - 1
        points[self._limb] = limb + (grow * self._share * fade[self._limb])[:, None] * away


class Drum:
    """A grid of radii around the torso, for cloth that falls from chest and belly and spans hollows."""

    TURNS = 48

    def __init__(self, place: Places) -> None:
        self.heights = np.linspace(0.47, -0.07, 19)
        fade = smoothstep(0.5, 0.2, place.arm) * smoothstep(0.47, 0.40, place.y) * smoothstep(-0.14, -0.06, place.y)
        # Only these vertices are moved.
        self._torso = np.flatnonzero(fade > 0)
        self._fade = fade[self._torso].astype(np.float32)
        turns = (np.arange(self.TURNS) + 0.5) / self.TURNS * 2 * np.pi - np.pi
        torso = np.flatnonzero((place.arm < 0.4) & (place.y < 0.5) & (place.y > -0.25))
        gap = np.abs((place.turn[torso] - turns[:, None] + np.pi) % (2 * np.pi) - np.pi) / (2 * np.pi / self.TURNS)
        around = np.exp(-0.5 * gap**2).astype(np.float32)
        rings = []
        for height in self.heights:
            weight = around * np.exp(-0.5 * ((place.y[torso] - height) / 0.03) ** 2)
            weight[weight < 0.01 * weight.max(1, keepdims=True)] = 0
            rings.append(sparse.csr_matrix(weight / np.maximum(weight.sum(1, keepdims=True), 1e-12)))
        rings = sparse.vstack(rings, "csr")
        self._mean = sparse.csr_matrix(
            (rings.data, torso[rings.indices], rings.indptr), shape=(rings.shape[0], len(place.y))
        )
        self._column = (((place.turn + np.pi) / (2 * np.pi) * self.TURNS - 0.5) % self.TURNS)[self._torso]
        row = np.clip(np.interp(-place.y, -self.heights, np.arange(19)), 0, 17.999)
        self._row = row[self._torso].astype(np.float32)

    def fall(self, points: np.ndarray, taper: float, span: float) -> np.ndarray:
        """Move torso points outward.

        Args:
            points: (F, 3).
            taper: the radius may shrink by this many meters per meter downward.
            span: 0..1, how much hollows (between the breasts, along the spine) are bridged.
        """
        grid = self._mean @ points
        center = grid.reshape(19, self.TURNS, 3).mean(1)
        away = grid.reshape(19, self.TURNS, 3) - center[:, None]
        r = np.hypot(away[..., 0], away[..., 2])
        wide = r.copy()
        for k in range(1, 6):
            chord = 0.5 * (np.roll(r, k, 1) + np.roll(r, -k, 1)) * np.cos(2 * np.pi * k / self.TURNS)
            wide = np.maximum(wide, r + span * (chord - r))
        drop = -np.diff(center[:, 1])
        for k in range(1, len(wide)):
            wide[k] = np.maximum(wide[k], wide[k - 1] - taper * max(drop[k - 1], 0))
        more = wide - r
        more = (np.roll(more, 1, 1) + 2 * more + np.roll(more, -1, 1)) / 4
        low, part = self._row.astype(int), self._row % 1
        left, side = self._column.astype(int) % self.TURNS, self._column % 1
        right = (left + 1) % self.TURNS
        grow = (more[low, left] * (1 - side) + more[low, right] * side) * (1 - part)
        grow += (more[low + 1, left] * (1 - side) + more[low + 1, right] * side) * part
        middle = center[low] * (1 - part[:, None]) + center[low + 1] * part[:, None]
        out = (points[self._torso] - middle) * np.array([1, 0, 1], np.float32)
        out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-6)
        moved = points.copy()
        moved[self._torso] += (grow * self._fade)[:, None] * out
        return moved
