"""SnP: groups of one size, the nearest of them, and pictures far from each other."""

import numpy as np
import pytest

from ipse.errors import TrainingError
from ipse.measure.frechet import frechet
from ipse.training.snp import _of_one_size, farthest, prune, search

DRAW = np.random.default_rng(0)
# Three worlds of ten people with six pictures each, far from each other; the target is as the second, nobody the same.
MIDDLES = 6 * np.eye(3, 4)
NAMES = np.repeat(np.arange(100, 130), 6)
WORLD = np.repeat([0, 1, 2], 60)
FEATURES = MIDDLES[WORLD] + np.repeat(DRAW.normal(size=(30, 4)), 6, axis=0) + 0.3 * DRAW.normal(size=(180, 4))
TARGET = MIDDLES[1] + DRAW.normal(size=(80, 4))


def test_the_people_found_are_those_of_the_worlds_that_are_like_the_target():
    found = search(FEATURES, NAMES, TARGET, groups=6)
    assert set(found.identities) <= set(range(110, 120)) and len(found.identities) >= 5
    assert set(found.nearest[:10]) == set(range(110, 120)) and sorted(found.nearest) == list(range(100, 130))
    mine, others = (FEATURES[np.isin(NAMES, found.identities) == side] for side in (True, False))
    assert frechet(mine, TARGET) < frechet(FEATURES, TARGET) < frechet(others, TARGET)
    # A target that is like the whole pool keeps more than one world.
    pool = search(FEATURES, NAMES, FEATURES[DRAW.permutation(180)[:120]] + 0.01, groups=6)
    assert len({name // 10 for name in pool.identities}) == 3


def test_groups_have_one_size():
    sizes = np.bincount(_of_one_size(DRAW.normal(size=(23, 3)), 5, 0))
    assert sizes.tolist() == [5, 5, 5, 4, 4]


def test_pruning_keeps_the_budget_everybody_and_what_is_far():
    rows = prune(FEATURES, NAMES, np.arange(110, 120), people=4, share=0.5, seed=1)
    assert len(rows) == 12 and len(np.unique(NAMES[rows])) == 4 and (np.diff(rows) > 0).all()
    assert set(NAMES[rows]) <= set(range(110, 120))
    assert len(prune(FEATURES, NAMES, [105], people=9)) == 6
    assert len(prune(FEATURES, NAMES, np.arange(100, 130), people=30, share=0.01)) == 30  # one of each
    line = np.array([[0.0], [0.1], [5.0], [9.0], [10.0]])
    assert farthest(line, np.array([0]), 3).tolist() == [0, 4, 2]


def test_budgets_and_groups_that_cannot_be_are_refused():
    with pytest.raises(TrainingError, match="fewer groups"):
        search(FEATURES, NAMES, TARGET, groups=31)
    with pytest.raises(TrainingError, match="one each"):
        search(FEATURES, NAMES[1:], TARGET)
    with pytest.raises(TrainingError, match="cannot be chosen"):
        prune(FEATURES, NAMES, [], people=3)
    with pytest.raises(TrainingError, match="one picture"):
        search(np.eye(4), np.arange(4), TARGET, groups=4)
