"""Relative representations: what they do not change with, and two encoders that never met."""

import numpy as np
import pytest

from ipse.errors import DataError
from ipse.gallery.relative import relative
from ipse.measure import Features, evaluate


def rotation(dim, seed):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))[0]


def test_a_rotation_or_a_scale_changes_nothing_and_with_centers_nor_does_a_shift():
    draw = np.random.default_rng(0)
    features, anchors, turn = draw.normal(size=(50, 16)), draw.normal(size=(20, 16)) + 0.5, rotation(16, 1)
    plain = relative(features, anchors)
    assert plain.shape == (50, 20) and np.abs(plain).max() <= 1 + 1e-6
    np.testing.assert_allclose(relative(3 * features @ turn, 0.1 * anchors @ turn), plain, atol=1e-5)
    centered, shift = relative(features, anchors, center=True), draw.normal(size=16)
    np.testing.assert_allclose(
        relative(features @ turn + shift, anchors @ turn + shift, center=True), centered, atol=1e-5
    )
    assert np.abs(relative(features + shift, anchors + shift) - plain).max() > 0.05


def test_a_gallery_of_another_encoder_is_searched():
    # Both see what a picture shows, in axes of their own and with noise of their own.
    draw = np.random.default_rng(1)
    person = np.repeat(np.arange(60), 4)
    shown = draw.normal(size=(60, 24))[person] + 0.3 * draw.normal(size=(240, 24))
    strangers = draw.normal(size=(80, 24))

    def encoder(seed):
        noise = np.random.default_rng(seed)
        return lambda what: what @ rotation(24, seed) + 0.1 * noise.normal(size=what.shape)

    ours, theirs = encoder(2), encoder(3)
    query, gallery = np.arange(0, 240, 4), np.setdiff1d(np.arange(240), np.arange(0, 240, 4))
    items = {"person": person[query]}, {"person": person[gallery]}

    def rank1(asked, held):
        return evaluate(Features(asked, held), *items).rank(1)

    same = rank1(ours(shown[query]), ours(shown[gallery]))
    direct = rank1(ours(shown[query]), theirs(shown[gallery]))
    across = rank1(relative(ours(shown[query]), ours(strangers)), relative(theirs(shown[gallery]), theirs(strangers)))
    assert direct < 0.15 and across > same - 0.1 > 0.8


def test_anchors_of_another_encoder_and_empty_features_are_refused():
    with pytest.raises(DataError, match="anchor pictures"):
        relative(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(DataError, match="no direction"):
        relative(np.zeros((2, 3)), np.ones((2, 3)))
    with pytest.raises(DataError, match="one anchor"):
        relative(np.ones((2, 3)), np.ones((1, 3)), center=True)
