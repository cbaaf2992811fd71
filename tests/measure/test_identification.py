"""Open-set identification against a search written out person by person."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipse.measure.distances import Features, Matrix
from ipse.measure.identification import open_set


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_equals_a_search_person_by_person(seed):
    generator = np.random.default_rng(seed)
    gallery = generator.integers(0, 6, 25)
    query = np.append([gallery[0], 99], generator.integers(0, 9, 18))
    distances = generator.integers(0, 12, (20, 25)).astype(np.float32)
    found = open_set(Matrix(distances), query, gallery, memory_mib=1e-4)
    for q, person in enumerate(query):
        nearest = {name: distances[q, gallery == name].min() for name in np.unique(gallery)}
        assert found.mated[q] == (person in nearest) and found.nearest[q] == min(nearest.values())
        if person in nearest:
            assert found.own[q] == nearest[person]
            assert found.rank[q] == sum(value <= nearest[person] for value in nearest.values())
    strangers = sum(~found.mated)
    for fpir in (0.2, 0.5):
        if fpir * strangers < 1:
            with pytest.raises(ValueError, match="cannot show"):
                found.dir_at_fpir(fpir)
            continue
        threshold = found.threshold(fpir)
        assert np.mean(found.nearest[~found.mated] <= threshold) <= fpir
        for rank in (1, 3):
            ranks = found.rank[found.mated]
            expected = np.mean((found.own[found.mated] <= threshold) & (ranks <= rank))
            assert found.dir_at_fpir(fpir, rank) == expected


def test_intervals_are_over_people():
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(80, 24))
    person = np.repeat(np.arange(80), 5)
    features = (centers[person] + 1.1 * generator.normal(size=(400, 24))).astype(np.float32)
    enrolled = (np.arange(400) % 5 == 0) & (person < 40)
    found = open_set(Features(features[~enrolled], features[enrolled]), person[~enrolled], person[enrolled])
    rate = found.dir_at_fpir(0.1)
    low, high = found.interval(0.1)
    assert 0 < low < rate < high < 1
    assert found.dir_at_fpir(0.3) > rate and found.dir_at_fpir(0.1, rank=5) >= rate


def test_what_cannot_be_told_is_refused():
    distances = Matrix(np.ones((2, 2), np.float32))
    with pytest.raises(ValueError, match="0 queries of people who are not in the gallery"):
        open_set(distances, [1, 2], [1, 2]).dir_at_fpir(0.1)
    with pytest.raises(ValueError, match="nobody can be identified"):
        open_set(distances, [3, 4], [1, 2]).dir_at_fpir(0.5)
    with pytest.raises(ValueError, match="shape"):
        open_set(distances, [1], [1, 2])
    with pytest.raises(ValueError, match="not all numbers"):
        open_set(Matrix(np.full((1, 1), np.nan)), [1], [1])
