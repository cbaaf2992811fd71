import numpy as np
import pytest

from ipse.gallery import fuse


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_weighted_by_quality(metric):
    rows = np.array([[1, 0.1, 0], [1, -0.1, 0]])
    fused = fuse(rows, [1, 0], metric=metric)
    wanted = rows[0] / np.linalg.norm(rows[0]) if metric == "cosine" else rows[0]
    np.testing.assert_allclose(fused.vector, wanted, atol=1e-6)
    assert fused.kept == (0, 1) and fused.rejected == {} and fused.distances[0] == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(fuse(rows, [0, 0], metric=metric).vector, fuse(rows, metric=metric).vector)


def test_a_stranger_among_friends_is_found_with_and_without_a_limit():
    generator = np.random.default_rng(0)
    center = generator.normal(size=64)
    rows = center + generator.normal(scale=0.05, size=(8, 64))
    rows[3] = generator.normal(size=64)
    for limit in (None, 0.5):
        fused = fuse(rows, metric="cosine", limit=limit)
        assert set(fused.rejected) == {3} and "from reference" in fused.rejected[3] and 3 not in fused.kept
        clean = np.delete(rows, 3, axis=0) / np.linalg.norm(np.delete(rows, 3, axis=0), axis=1, keepdims=True)
        assert fused.vector @ clean.mean(axis=0) > 0.99 * np.linalg.norm(clean.mean(axis=0))


def test_nothing_is_rejected_among_references_that_agree():
    rows = np.random.default_rng(1).normal(scale=0.1, size=(30, 128)) + 1
    assert fuse(rows, metric="l2").rejected == {}
    assert fuse(np.ones((5, 4)), metric="l2").rejected == {}


def test_two_that_disagree_are_settled_by_quality():
    rows = np.array([[0.0, 0], [3, 0]])
    assert fuse(rows, [0.2, 0.9], metric="l2", limit=1).kept == (1,)
    assert fuse(rows, [0.9, 0.2], metric="l2", limit=1).kept == (0,)


def test_one_reference_is_itself():
    np.testing.assert_array_equal(fuse([3.0, 4], metric="l2").vector, [3, 4])


@pytest.mark.parametrize(
    ("rows", "quality"),
    [([], None), ([[np.inf, 1]], None), ([[0.0, 0]], None), ([[1.0, 0]], [2]), ([[1.0, 0]], [1, 1])],
)
def test_senseless_references_are_refused(rows, quality):
    with pytest.raises(ValueError):
        fuse(rows, quality)
