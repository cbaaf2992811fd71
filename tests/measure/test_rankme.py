"""RankMe against its definition, and what makes it large or small."""

import numpy as np
import pytest

from ipse.errors import DataError
from ipse.measure import rankme


def written_out(features):
    values = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    shares = values / values.sum() + 1e-7
    return np.exp(-(shares * np.log(shares)).sum())


def orthonormal(n, k, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n, k)))[0]


@pytest.mark.parametrize("shape", [(300, 24), (10, 24), (24, 24)])
def test_it_is_what_the_paper_defines(shape):
    features = np.random.default_rng(1).normal(size=shape) * np.linspace(0.01, 3, shape[1])
    assert rankme(features) == pytest.approx(written_out(features), rel=1e-5)


def test_k_directions_used_alike_have_rank_k():
    for k in (1, 5, 17):
        features = orthonormal(200, k) @ orthonormal(32, k, seed=1).T
        assert rankme(features) == pytest.approx(k, rel=1e-3)


def test_batches_read_once_give_the_same_and_so_does_a_rotation_or_a_scale():
    features = np.random.default_rng(2).normal(size=(101, 12)) * np.arange(1, 13)
    whole = rankme(features)
    assert rankme(features[i : i + 7] for i in range(0, 101, 7)) == pytest.approx(whole, rel=1e-5)
    assert rankme(3 * features @ orthonormal(12, 12)) == pytest.approx(whole, rel=1e-5)


def test_collapsed_features_have_a_lower_rank():
    features = np.random.default_rng(3).normal(size=(400, 16))
    collapsed = features * np.geomspace(1, 1e-3, 16)
    assert rankme(collapsed) < rankme(features) / 2


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (np.zeros((0, 4)), "no features"),
        (np.zeros((3, 4)), "zeros"),
        (np.full((3, 4), np.nan), "not finite"),
        (iter([np.ones((2, 4)), np.ones((2, 3))]), "one encoder"),
    ],
)
def test_what_has_no_rank_is_refused(features, words):
    with pytest.raises(DataError, match=words):
        rankme(features)
