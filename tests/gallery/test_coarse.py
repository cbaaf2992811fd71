import numpy as np
import pytest

from ipse.errors import DataError
from ipse.gallery.coarse import CoarseToFine
from ipse.measure import Features, evaluate


def test_candidates_are_exact_and_the_rest_follows():
    draw = np.random.default_rng(0)
    person = np.repeat(np.arange(60), 3)
    long = draw.normal(size=(60, 32))[person] + 0.6 * draw.normal(size=(180, 32))
    query, gallery = np.arange(0, 180, 3), np.setdiff1d(np.arange(180), np.arange(0, 180, 3))
    sides = {"person": person[query]}, {"person": person[gallery]}
    short = long[query][:, :10], long[gallery][:, :10]
    full = long[query], long[gallery]
    search = CoarseToFine(short, full, candidates=40)
    distances, exact = search.rows(5, 25), Features(*full).rows(5, 25)
    near = distances < 2
    assert (near.sum(axis=1) == 40).all() and np.allclose(distances[near], exact[near], atol=1e-5)
    order = np.argsort(Features(*short).rows(5, 25), axis=1)
    assert (np.sort(order[:, :40]) == np.nonzero(near)[1].reshape(-1, 40)).all()
    found, coarse, best = (evaluate(source, *sides) for source in (search, Features(*short), Features(*full)))
    assert best.rank(1) - found.rank(1) < 0.06 and found.rank(1) > coarse.rank(1)
    assert search.multiplications() == 120 * 10 + 40 * 32 < 120 * 32
    everything = CoarseToFine(short, full, candidates=1000)
    assert np.allclose(everything.rows(0, 60), Features(*full).rows(0, 60), atol=1e-5)
    some = search.select(np.array([3, 1]), np.arange(50))
    assert some.shape == (2, 50)


def test_both_must_be_of_the_same_pictures():
    with pytest.raises(DataError, match="same queries"):
        CoarseToFine((np.ones((2, 3)), np.ones((4, 3))), (np.ones((2, 6)), np.ones((5, 6))))
    with pytest.raises(DataError, match="one candidate"):
        CoarseToFine((np.ones((2, 3)), np.ones((4, 3))), (np.ones((2, 6)), np.ones((4, 6))), candidates=0)
