"""FastRP against its formula written out densely, on planted communities, and on a gallery."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from ipse.errors import DataError
from ipse.gallery.fastrp import fastrp, projection
from ipse.gallery.graph import nearest_graph, transitions
from ipse.measure.distances import Features


def planted(communities=4, each=30, inside=0.4, outside=0.02, seed=0):
    draw = np.random.default_rng(seed)
    member = np.repeat(np.arange(communities), each)
    chance = np.where(member[:, None] == member, inside, outside)
    upper = np.triu(draw.random(chance.shape) < chance, 1)
    return csr_array((upper | upper.T).astype(float)), member


def nearest_is_alike(embedding, member):
    distances = Features(embedding, embedding).rows(0, len(embedding))
    np.fill_diagonal(distances, np.inf)
    return (member[distances.argmin(axis=1)] == member).mean()


def test_it_equals_the_dense_formula():
    graph, _ = planted(2, 12)
    weights, strength = (0.5, 0.0, 1.0, 3.0), -0.7
    dense = graph.toarray()
    degree = dense.sum(axis=1)
    step, scale = dense / degree[:, None], np.diag((degree / degree.sum()) ** strength)
    similarity = sum(w * np.linalg.matrix_power(step, i) @ scale for i, w in enumerate(weights, 1))
    expected = similarity @ projection(24, 16, seed=3).toarray()
    np.testing.assert_allclose(fastrp(graph, 16, weights, strength, seed=3), expected, atol=1e-6)


def test_the_projection_is_sparse_and_keeps_lengths_on_average():
    made = projection(2500, 400)
    assert made.nnz / np.prod(made.shape) == pytest.approx(1 / 50, rel=0.05)
    assert set(np.unique(np.abs(made.data)).round(9)) == {round(2500**0.25, 9)}
    assert abs(made.data.mean()) < 0.1
    vector = np.random.default_rng(1).normal(size=2500)
    assert np.mean((vector @ made) ** 2) == pytest.approx((vector**2).sum(), rel=0.2)


def test_communities_lie_together():
    graph, member = planted()
    assert nearest_is_alike(fastrp(graph, 64), member) > 0.95
    assert nearest_is_alike(np.random.default_rng(0).normal(size=(120, 64)), member) < 0.5


def test_a_gallery_is_a_graph():
    draw = np.random.default_rng(2)
    person = np.repeat(np.arange(20), 6)
    features = draw.normal(size=(20, 16))[person] + 0.4 * draw.normal(size=(120, 16))
    graph = nearest_graph(features, 4)
    assert abs(graph - graph.T).max() == 0 and graph.diagonal().max() == 0 and graph.data.max() <= 1
    assert (np.diff(graph.indptr) >= 4).all()
    np.testing.assert_allclose(transitions(graph).sum(axis=1), 1)
    assert nearest_is_alike(fastrp(graph, 64), person) > 0.9


def test_a_lonely_node_is_refused():
    with pytest.raises(DataError, match="Node 2 has no edge"):
        fastrp(csr_array(np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0.0]])))
    with pytest.raises(DataError, match="weights from 0 up"):
        transitions(csr_array(-np.eye(3)))
    with pytest.raises(ValueError, match="0 weights"):
        fastrp(planted(2, 5)[0], 4, ())
