"""Distances over parts that both show."""

import numpy as np
import pytest

from ipse.gallery.visible_parts import VisibleParts
from ipse.measure import evaluate


def test_only_parts_that_both_show_count():
    a, b = np.array([1.0, 0]), np.array([0.0, 2])
    hidden = np.zeros(2)
    query = np.stack([[a, a], [a, hidden], [hidden, b]])
    gallery = np.stack([[a, b], [hidden, a], [b, hidden]])
    found = VisibleParts(query, gallery)
    far = np.sqrt(2)
    expected = np.array([[far / 2, 0, far], [0, 2, far], [0, far, 2]])
    assert found.shape == (3, 3) and found.rows(0, 3) == pytest.approx(expected, abs=1e-3)
    assert found.rows(1, 2) == pytest.approx(expected[1:2], abs=1e-3)
    assert found.select(np.array([2]), np.array([1, 0])).rows(0, 1) == pytest.approx(expected[2:, [1, 0]], abs=1e-3)


def test_hidden_parts_do_not_lead_astray():
    draw = np.random.default_rng(0)
    people = np.repeat(np.arange(20), 4)
    own = draw.normal(size=(20, 4, 8))
    seen = own[people] + 0.5 * draw.normal(size=(80, 4, 8))
    occluded = seen.copy()
    occluder = draw.random((80, 4)) < 0.5
    occluder[:, 0] = False
    # What stands in front looks like somebody.
    occluded[occluder] = draw.normal(size=(occluder.sum(), 8))
    zeros = np.where(occluder[:, :, None], 0, seen)
    columns = {"person": people, "image": np.arange(80)}
    blind, knowing = (
        evaluate(VisibleParts(side, side), columns, columns, "leave-one-out").mean_ap() for side in (occluded, zeros)
    )
    assert knowing > blind + 0.1


def test_wrong_shapes_are_told():
    with pytest.raises(ValueError, match="number, parts, dimensions"):
        VisibleParts(np.ones((2, 3)), np.ones((2, 3, 4)))
    with pytest.raises(ValueError, match="one encoder"):
        VisibleParts(np.ones((2, 3, 4)), np.ones((2, 2, 4)))
    with pytest.raises(ValueError, match="numbers"):
        VisibleParts(np.full((2, 3, 4), "x"), np.ones((2, 3, 4)))
