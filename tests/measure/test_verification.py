"""The equal error rate against cases worked by hand and an independent computation."""

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from ipse.measure.verification import equal_error_rate


def test_separate_distances_have_no_error() -> None:
    assert equal_error_rate([0.1, 0.2], [0.5, 0.9]) == 0.0


def test_swapped_distances_have_nothing_but_error() -> None:
    assert equal_error_rate([0.8, 0.9], [0.1, 0.2]) == 1.0


def test_one_of_four_on_each_side() -> None:
    assert equal_error_rate([1, 2, 3, 7], [4, 8, 9, 10]) == pytest.approx(0.25)


def test_equals_the_crossing_of_sklearns_roc() -> None:
    rng = np.random.default_rng(3)
    same, different = rng.normal(0.4, 0.1, 4000), rng.normal(0.7, 0.1, 9000)
    scores = -np.concatenate([same, different])
    truth = np.concatenate([np.ones(4000), np.zeros(9000)])
    accepted, hit, _ = roc_curve(truth, scores)
    crossing = np.interp(0, (accepted - (1 - hit)), accepted)
    assert equal_error_rate(same, different) == pytest.approx(crossing, abs=1e-4)


@pytest.mark.parametrize(("same", "different"), [([], [1.0]), ([1.0], []), ([np.nan], [1.0])])
def test_what_cannot_be_judged_is_refused(same: list[float], different: list[float]) -> None:
    with pytest.raises(ValueError, match="pairs"):
        equal_error_rate(same, different)
