"""Pipelines under a limit of time."""

import numpy as np
import pytest

from ipse.errors import DataError
from ipse.measure.fruits import Timed, time_pairs


def pictures(count=40, seed=0):
    """Pairs of flat pictures: of one person the brightness is nearly the same. Whether each is, and their folds."""
    generator = np.random.default_rng(seed)
    same = np.arange(count) % 2 == 0
    pairs = []
    for alike in same:
        first = generator.integers(0, 120)
        second = first + 1 if alike else first + 60
        pairs.append(tuple(np.full((4, 4, 3), value, np.uint8) for value in (first, second)))
    return pairs, same, np.arange(count) // (count // 4)


def brightness(image):
    return image.mean((0, 1))


def test_a_pipeline_is_timed_pair_by_pair_and_told_right():
    pairs, same, folds = pictures()
    seen = []
    timed = time_pairs(brightness, iter(pairs), seen.append)
    assert seen == list(range(1, len(pairs) + 1)) and timed.milliseconds.shape == timed.distances.shape
    assert timed.right(same, folds, budget_ms=1e6).all()
    # The same numbers with the truth turned around are never told.
    assert timed.right(~same, folds).mean() < 0.6


def test_what_is_over_the_budget_is_refused_and_under_a_larger_one_is_not():
    timed = Timed(np.array([0.1, 0.9, 0.1, 0.9]), np.array([80.0, 80, 80, 300]))
    same, folds = [True, False, True, False], [1, 1, 2, 2]
    assert timed.right(same, folds, budget_ms=500).all()
    with pytest.raises(DataError, match=r"needs 267 ms for a pair, more than the 100"):
        timed.right(same, folds, budget_ms=100)


def test_a_picture_without_a_face_makes_its_pair_wrong():
    pairs, same, folds = pictures()
    blind = {pairs[0][0].mean(), pairs[1][1].mean()}
    timed = time_pairs(lambda image: None if image.mean() in blind else brightness(image), pairs)
    right = timed.right(same, folds)
    assert np.isnan(timed.distances[:2]).all() and not right[:2].any()
    assert right[np.isfinite(timed.distances)].all()


def test_what_makes_no_sense_is_refused():
    with pytest.raises(DataError, match="no pairs"):
        time_pairs(brightness, [])
    timed = Timed(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match="give one each"):
        timed.right([True], [1])
    with pytest.raises(ValueError, match="at least two folds"):
        timed.right([True, False, True], [1, 1, 1])
