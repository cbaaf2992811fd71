"""Skirts and the lower part of coats and dresses: a grid of rows and columns around both legs.

It is MakeHuman's helper mesh for skirts, whose own skinning weights share the middle columns between both legs.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from ipse.world.body import Rest, body
from ipse.world.skin import smoothstep
from ipse.world.suit import Places, nearest_anchor, places, suit, weight_matrix

ROWS, COLUMNS = 20, 72


class Skirt:
    """The grid's mesh, `ROWS` x `COLUMNS` vertices in row order from the waist down. Use `skirt()`."""

    def __init__(self) -> None:
        b = body()
        vertices, local = np.unique(b.triangles[b.triangles_of("helper-skirt")], return_inverse=True)
        triangles = local.reshape(-1, 3)
        point = b.template[vertices]
        edges = np.sort(np.concatenate([triangles, np.roll(triangles, -1, 1)], 0).reshape(2, -1).T, 1)
        count = len(vertices)
        graph = sparse.csr_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
        unique, uses = np.unique(edges, axis=0, return_counts=True)
        rim = np.unique(unique[uses == 1])
        level = dijkstra(graph, False, rim[point[rim, 1] > 0], unweighted=True, min_only=True)
        half = COLUMNS // 2
        rows = []
        for k in range(ROWS):
            row = np.flatnonzero(level == k)
            middle = point[row].mean(0)
            # Columns are counted from the front's middle; the offset keeps that one first in every row.
            turn = (np.arctan2(point[row, 0], point[row, 2] - middle[2]) + 0.05) % (2 * np.pi)
            rows.append(row[np.argsort(turn)])
        grid = np.stack(rows)
        # Twice as many columns, new ones midway.
        index = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
        follow = np.roll(grid, -1, 1)
        entries = [(index[:, 0::2], grid, 1.0), (index[:, 1::2], grid, 0.5), (index[:, 1::2], follow, 0.5)]
        row_index = np.concatenate([e[0].ravel() for e in entries])
        column_index = np.concatenate([e[1].ravel() for e in entries])
        value = np.concatenate([np.full(ROWS * half, e[2]) for e in entries])
        self.source = vertices
        self.matrix = sparse.csr_matrix((value, (row_index, column_index)), shape=(ROWS * COLUMNS, count))
        self.template: np.ndarray = self.matrix @ point
        self.anchor = nearest_anchor(self.template, (self.matrix @ weight_matrix(vertices)).tocsr())
        self.anchor[index[:, 0::2]] = vertices[grid]
        a, right = index[:-1], np.roll(index, -1, 1)[:-1]
        c, d = index[1:], np.roll(index, -1, 1)[1:]
        # Outward is to the left of the direction of growing turn.
        self.triangles = np.concatenate(
            [np.stack([a, c, d], 2).reshape(-1, 3), np.stack([a, d, right], 2).reshape(-1, 3)]
        ).astype(np.int32)
        none = np.zeros(len(self.template))
        self.places: Places = places(self.template, none, none, none)
        self._hold()

    def _hold(self) -> None:
        """Which cell of the grid each vertex of the suit's hips and legs lies behind."""
        shell = suit()
        place = shell.places
        grid = self.template.reshape(ROWS, COLUMNS, 3)
        height = grid[..., 1].mean(1)
        self._inner = np.flatnonzero((place.y < 0.2) & (place.arm < 0.2) & (place.y > -0.76))
        p = shell.template[self._inner]
        at = np.clip(np.interp(-p[:, 1], -height, np.arange(ROWS)), 0, ROWS - 1.001)
        self._row, self._part = at.astype(int), at % 1
        # The upper rows lie on the suit itself.
        torso = np.flatnonzero((place.arm < 0.2) & (place.y > -0.05) & (place.y < 0.3))
        distance, near = cKDTree(shell.template[torso]).query(self.template[: 6 * COLUMNS], k=4)
        weight = 1 / (distance + 0.004) ** 2
        self._seat, self._seat_weight = torso[near], weight / weight.sum(1, keepdims=True)

    def shape(
        self,
        rest: Rest,
        inner: np.ndarray,
        *,
        flare: float,
        gap: float,
        taper: float,
        pleats: float = 0.0,
        phase: float = 0.0,
        seated: bool = False,
        under: np.ndarray | None = None,
    ) -> np.ndarray:
        """The grid on a person.

        Args:
            rest: the person's body.
            inner: (F, 3) points of the suit to go around.
            flare: 0 falls straight from the hips, 1 as wide as the helper mesh.
            gap: meters kept from `inner`.
            taper: meters per meter that the straight fall may narrow.
            pleats: amplitude of the folds at the hem, as a share of the radius.
            phase: turns the folds.
            seated: the upper rows lie on `inner` itself, to continue a garment that is shaped on the suit.
            under: (G, 3) another grid to stay outside of.

        Returns:
            (G, 3) points.
        """
        helper = (self.matrix @ rest.vertices[self.source]).reshape(ROWS, COLUMNS, 3)
        # Vertices of one template height get one height on the person, so that hems are level.
        level = self.template[:, 1].reshape(ROWS, COLUMNS)
        height = np.interp(-level, -level.mean(1), np.arange(ROWS))
        center = helper.mean(1)
        center[:, 0] = 0
        low = np.minimum(height.astype(int), ROWS - 2)
        part = (height - low)[..., None]
        center = center[low] * (1 - part) + center[low + 1] * part
        away = (helper - center) * np.array([1, 0, 1], np.float32)
        wide = np.linalg.norm(away, axis=2)
        direction = away / wide[..., None]

        p = inner[self._inner]
        low, part = self._row, self._part[:, None]
        ring = center.mean(1)
        out = p - (ring[low] * (1 - part) + ring[low + 1] * part)
        radius = np.hypot(out[:, 0], out[:, 2])
        need = np.zeros((ROWS, COLUMNS), np.float32)
        for row in (low, low + 1):
            facing = np.einsum("nci,ni->nc", direction[row], out)
            column = facing.argmax(1)
            for side in (-1, 0, 1):
                np.maximum.at(need, (row, (column + side) % COLUMNS), radius)
        need += gap * (1 + 2 * smoothstep(4.0, 9.0, np.arange(ROWS)))[:, None]
        fall = need.copy()
        for k in range(1, 9):
            chord = 0.5 * (np.roll(need, k, 1) + np.roll(need, -k, 1)) * np.cos(2 * np.pi * k / COLUMNS)
            fall = np.maximum(fall, chord)
        drop = -np.diff(ring[:, 1])
        for k in range(1, ROWS):
            fall[k] = np.maximum(fall[k], fall[k - 1] - taper * drop[k - 1])
        for _ in range(3):
            fall = np.maximum(need, (np.roll(fall, 1, 1) + 2 * fall + np.roll(fall, -1, 1)) / 4)
        down = smoothstep(2.0, 9.0, np.arange(ROWS))[:, None]
        reach = fall + flare * down * np.maximum(wide - fall, 0)
        if pleats > 0:
            turn = np.arange(COLUMNS) / COLUMNS * 2 * np.pi
            wave = 0.6 * np.cos(9 * turn + phase) + 0.4 * np.cos(5 * turn + 2.3 * phase)
            reach = reach * (1 + pleats * (0.5 + 0.5 * wave) * smoothstep(1.0, 19.0, np.arange(ROWS))[:, None])
        if under is not None:
            # Rows of both grids have the same height and center.
            inside = np.linalg.norm((under.reshape(ROWS, COLUMNS, 3) - center) * np.array([1, 0, 1]), axis=2)
            reach = np.maximum(reach, inside + 0.01)
        points = (center + direction * reach[..., None]).reshape(-1, 3)
        if seated:
            rows = np.arange(6).repeat(COLUMNS)
            weight = smoothstep(5.0, 1.5, rows)[:, None]
            on = np.einsum("nk,nki->ni", self._seat_weight, inner[self._seat])
            on[:, 1] = points[: len(on), 1]
            points[: len(on)] += weight * (on - points[: len(on)])
        return points


@lru_cache(maxsize=1)
def skirt() -> Skirt:
    """The skirt's grid, made once per process."""
    return Skirt()
