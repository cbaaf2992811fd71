"""Agreement of groups with people against sums over all pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipse.measure.clustering import Agreement, bcubed_f, pairwise_f, v_measure

LABELS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=25)


@given(LABELS)
@settings(max_examples=40, deadline=None)
def test_equals_counting_all_pairs(labels):
    people, groups = map(np.array, zip(*labels, strict=True))
    alike, together = people[:, None] == people, groups[:, None] == groups
    both, others = alike & together, ~np.eye(len(people), dtype=bool)
    pairwise, bcubed = pairwise_f(people, groups), bcubed_f(people, groups)
    for found, table in ((pairwise.precision, together), (pairwise.recall, alike)):
        count = (table & others).sum()
        assert found == pytest.approx((both & others).sum() / count if count else 1)
    assert bcubed.precision == pytest.approx(np.mean(both.sum(1) / together.sum(1)))
    assert bcubed.recall == pytest.approx(np.mean(both.sum(1) / alike.sum(1)))


def test_perfect_and_useless_groups():
    people = ["a", "a", "b", "b"]
    for measure in (pairwise_f, bcubed_f, v_measure):
        assert measure(people, [7, 7, 1, 1]).f == pytest.approx(1)
        everything = measure(people, [0, 0, 0, 0])
        assert everything.recall == pytest.approx(1) and everything.f < 0.75
    assert v_measure(people, [0, 0, 0, 0]).f == 0
    assert bcubed_f(people, [0, 1, 2, 3]).f == pytest.approx(2 / 3)
    assert Agreement(0, 0).f == 0


def test_one_label_for_each_picture():
    for measure in (pairwise_f, bcubed_f, v_measure):
        with pytest.raises(ValueError, match="per picture"):
            measure([1, 2], [1])
        with pytest.raises(ValueError, match="per picture"):
            measure([], [])
