"""Roles and places of nodes, planted, and of nodes that come later."""

import numpy as np
import pytest

pytest.importorskip("torch")

from scipy.sparse import csr_array

from ipse.errors import DataError
from ipse.gallery.graph import random_walks
from ipse.gallery.irwe import Irwe, anonymous, anonymous_walks
from ipse.measure.distances import Features


def villages(count=6, seed=0):
    """A clique, a star and a chain in each village, joined at random to others: (graph, role, village)."""
    edges, role, village = [], [], []
    for number in range(count):
        start = len(role)
        edges += [(start + i, start + j) for i in range(8) for j in range(i)]
        edges += [(start + 8, start + 9 + i) for i in range(8)]
        edges += [(start + 17 + i, start + 18 + i) for i in range(5)]
        edges += [(start, start + 8), (start + 1, start + 17), (start + 22, start + 8)]
        role += ["clique"] * 8 + ["hub"] + ["leaf"] * 8 + ["chain"] * 6
        village += [number] * 23
    draw = np.random.default_rng(seed)
    edges += [(23 * number + int(draw.integers(2, 8)), 23 * ((number + 1) % count) + 2) for number in range(count)]
    rows, columns = np.array(edges).T
    graph = csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(role),) * 2)
    return (graph + graph.T).tocsr(), np.array(role), np.array(village)


def nearest_is_alike(embedding, label, rows=slice(None), without=None):
    distances = Features(embedding, embedding).rows(0, len(embedding))
    np.fill_diagonal(distances, np.inf)
    if without is not None:
        distances[without[:, None] == without] = np.inf
    return (label[distances.argmin(axis=1)] == label)[rows].mean()


def test_shapes_of_walks():
    assert len(anonymous_walks(4)) == 5 and len(anonymous_walks(6)) == 52
    codes = anonymous(np.array([[7, 3, 7, 9], [1, 2, 1, 5], [7, 3, 9, 7]]))
    assert codes[0] == codes[1] != codes[2]
    graph, _, _ = villages(2)
    paths = random_walks(graph, 20, 6)
    assert set(anonymous(paths).ravel().tolist()) <= set(anonymous_walks(6))
    assert all(graph[a, b] for a, b in zip(paths[:, 0, :-1].ravel(), paths[:, 0, 1:].ravel(), strict=True))


def test_roles_and_villages_are_told_apart_also_of_new_nodes():
    graph, role, village = villages()
    # Some leaves and members of cliques come later.
    later = np.flatnonzero(np.isin(np.arange(len(role)) % 23, (6, 12, 13)))
    order = np.concatenate([np.setdiff1d(np.arange(len(role)), later), later])
    graph, role, village = graph[order][:, order], role[order], village[order]
    known = len(order) - len(later)
    model = Irwe(graph[:known, :known], steps=100)
    found, new = model.embed(graph), slice(known, None)
    for rows in (slice(None), new):
        assert nearest_is_alike(found.position, village, rows) > 0.8
        assert nearest_is_alike(found.identity, village, rows) < nearest_is_alike(found.position, village, rows) - 0.3
    # Whoever has the role is looked for in other villages, since in its own a clique lies together.
    roles = [nearest_is_alike(made, role, without=village) for made in (found.identity, found.position)]
    assert roles[0] > 0.8 and roles[1] < roles[0] - 0.2
    assert nearest_is_alike(found.identity, role, new, village) > 0.7
    with pytest.raises(DataError, match="first nodes"):
        model.embed(graph[:20, :20])
