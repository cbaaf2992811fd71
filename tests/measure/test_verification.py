"""The equal error rate against cases worked by hand and an independent computation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from ipse.measure.distances import Matrix
from ipse.measure.verification import (
    GroupRate,
    all_pairs,
    bootstrap_pairs,
    calibrate,
    equal_error_rate,
    fnmr_by_group,
    fold_accuracy,
    roc,
    tar_at_far,
    threshold_at_far,
)


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


PAIRS = st.lists(st.integers(0, 12), min_size=1, max_size=30)


@given(PAIRS, PAIRS)
@settings(max_examples=40, deadline=None)
def test_rates_are_shares_at_every_threshold(same: list[int], different: list[int]) -> None:
    curve = roc(same, different)
    for threshold, far, tar in zip(curve.thresholds, curve.far, curve.tar, strict=True):
        assert far == pytest.approx(np.mean(np.array(different) <= threshold))
        assert tar == pytest.approx(np.mean(np.array(same) <= threshold))
    nearer = np.mean([(s < d) + 0.5 * (s == d) for s in same for d in different])
    assert curve.auc() == pytest.approx(nearer)
    for far in (0.1, 0.5, 0.9):
        if far * len(different) < 1:
            with pytest.raises(ValueError, match="cannot show a false acceptance rate"):
                threshold_at_far(different, far)
            continue
        threshold = threshold_at_far(different, far)
        assert np.mean(np.array(different) <= threshold) <= far + 1e-12
        # The next larger distance would let in too many.
        assert np.mean(np.array(different) <= np.nextafter(threshold, np.inf)) > far
        best = max((np.mean(np.array(same) <= t) for t, f in zip(curve.thresholds, curve.far, strict=True) if f <= far))
        # Between two thresholds of the curve no same pair is gained.
        assert tar_at_far(same, different, far) == pytest.approx(best)


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=40, deadline=None)
def test_all_pairs_are_counted_without_a_matrix(seed: int, against_itself: bool) -> None:
    rng = np.random.default_rng(seed)
    ours = np.append([0, 0, 1], rng.integers(0, 5, 17))
    theirs = ours if against_itself else rng.permutation(np.append([0, 0, 1], rng.integers(0, 5, 27)))
    distances = rng.integers(0, 20, (len(ours), len(theirs))).astype(np.float32)
    wanted = np.triu(np.ones(distances.shape, bool), 1) if against_itself else np.ones(distances.shape, bool)
    alike = ours[:, None] == theirs
    expected = roc(distances[alike & wanted], distances[~alike & wanted])
    gallery = None if against_itself else theirs
    found = all_pairs(Matrix(distances), ours, gallery, memory_mib=1e-4)
    for threshold, far, tar in zip(found.thresholds, found.far, found.tar, strict=True):
        at = np.searchsorted(expected.thresholds, threshold, "right") - 1
        assert (far, tar) == pytest.approx((expected.far[at], expected.tar[at]))


def test_thresholds_of_folds_come_from_the_others() -> None:
    # The first fold's pairs lie elsewhere; a threshold that knew them would do better.
    distances = np.array([1, 2, 11, 12, 5, 6, 7, 8])
    same = np.array([True, True, False, False] * 2)
    found = fold_accuracy(distances, same, np.repeat([0, 1], 4))
    assert found.thresholds.tolist() == [6.5, 6.5] and found.mean == 1
    found = fold_accuracy([5, 6, 7, 8, 1, 2, 3, 4], same, np.repeat([0, 1], 4))
    assert found.thresholds.tolist() == [2.5, 6.5] and found.accuracy.tolist() == [0.5, 0.5] and found.std == 0
    rng = np.random.default_rng(0)
    same = np.repeat([True, False], 300)
    ten = fold_accuracy(np.where(same, 0, 1.5) + rng.normal(size=600), same)
    assert len(ten.accuracy) == 10 and ten.mean == pytest.approx(0.77, abs=0.04) and 0 < ten.std < 0.1
    for arguments in (([1, 2], [True]), ([1, np.nan], [True, False]), ([1, 2], [True, False], [0, 0])):
        with pytest.raises(ValueError, match=r"shape|finite|two folds"):
            fold_accuracy(*arguments)


def test_a_calibrated_threshold_holds_for_new_people() -> None:
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(200), 20)
    found = calibrate(rng.normal(size=4000), people, 0.05)
    assert found.ci95[0] < found.threshold < found.ci95[1]
    assert np.mean(rng.normal(size=100_000) <= found.threshold) == pytest.approx(0.05, abs=0.01)
    assert found.ci95[0] < -1.6449 < found.ci95[1]


def test_rates_of_groups_have_intervals_over_people() -> None:
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(60), 10)
    groups = np.where(people < 30, "old", "young")
    distances = rng.normal(size=600) + (groups == "old")
    found = fnmr_by_group(distances, groups, people, 0.5)
    assert found["old"].rate == np.mean(distances[:300] > 0.5) > found["young"].rate
    assert found["old"].pairs == 300 and found["old"].people == 30
    assert found["old"].ci95[0] > found["young"].ci95[1]
    assert fnmr_by_group([1.0], ["only"], ["me"], 0.5)["only"] == GroupRate(1.0, None, 1, 1)
    with pytest.raises(ValueError, match="one of each"):
        fnmr_by_group([1.0], ["a", "b"], ["me"], 0.5)


def test_intervals_of_pairs_draw_people() -> None:
    rng = np.random.default_rng(0)
    # Each person has one difficulty that all of their pairs share.
    hard = rng.normal(size=40)
    whose = np.repeat(np.arange(40), 20)
    between = rng.integers(0, 40, (2000, 2))
    between = between[between[:, 0] != between[:, 1]]
    same, different = hard[whose] + 0.1 * rng.normal(size=800), 2 + rng.normal(size=len(between))
    low, high = bootstrap_pairs(same, whose, different, between, equal_error_rate, n=200)
    assert low < equal_error_rate(same, different) < high
    pairs_apart = bootstrap_pairs(same, np.arange(800), different, between, equal_error_rate, n=200)
    assert high - low > 1.5 * (pairs_apart[1] - pairs_apart[0])
    with pytest.raises(ValueError, match="give"):
        bootstrap_pairs(same, whose, different, between[:, 0], equal_error_rate)
