"""Sparse Jaccard distances: those of the paper, where they are small."""

import numpy as np
import pytest

from ipse.gallery.linking import linked


def slow(features, k1, k2):
    """Zhong et al., equations 3 to 10, with sets and loops."""
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    squared = np.square(features[:, None] - features).sum(2)
    order = squared.argsort(1, kind="stable")
    count = len(features)

    def reciprocal(i, k):
        return {j for j in order[i, : k + 1] if i in order[j, : k + 1]}

    described = np.zeros((count, count))
    for i in range(count):
        members = reciprocal(i, k1)
        for j in list(members):
            theirs = reciprocal(j, round(k1 / 2))
            if len(theirs & reciprocal(i, k1)) > 2 / 3 * len(theirs):
                members = members | theirs
        for j in members:
            described[i, j] = np.exp(-squared[i, j] / squared[i].max())
        described[i] /= described[i].sum()
    described = described[order[:, :k2]].mean(1)
    shared = np.minimum(described[:, None], described).sum(2)
    return 1 - shared / (2 - shared)


def test_small_distances_are_those_of_the_paper():
    draw = np.random.default_rng(0)
    people = np.repeat(np.arange(8), 6)
    features = draw.normal(size=(8, 12))[people] + 0.5 * draw.normal(size=(48, 12))
    expected = slow(features, k1=6, k2=3)
    found = linked(features, 0.7, k1=6, k2=3, memory_mib=0.01)
    small = (expected <= 0.7) & ~np.eye(48, dtype=bool)
    assert small.any() and not small.all()
    assert (found.toarray() > 0).tolist() == small.tolist()
    assert found.toarray()[small] == pytest.approx(expected[small], abs=1e-4)


def test_too_few_features_are_refused():
    with pytest.raises(ValueError, match="neighbors"):
        linked(np.eye(4), 0.5, k1=6)
    with pytest.raises(ValueError, match="below 1"):
        linked(np.eye(9), 1.0, k1=6)
