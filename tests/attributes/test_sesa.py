"""Named dimensions: they tell what they are named after, rank people, and their sum is the score."""

import numpy as np
import pytest

pytest.importorskip("torch")

from ipse.attributes.sesa import ExplicitSpace, explicit_space
from ipse.errors import DataError, TrainingError
from ipse.measure import Features, evaluate

NAMES = ("age", "nose width", "chin height", "brow angle")


def pictures(people, seed, each=6, dim=24):
    """Features in which attributes lie in some directions, and what changes from picture to picture in all."""
    draw = np.random.default_rng(seed)
    traits = draw.normal(size=(people, len(NAMES)))
    basis = np.linalg.qr(np.random.default_rng(9).normal(size=(dim, dim)))[0]
    who = np.repeat(np.arange(people), each)
    noise = draw.normal(size=(len(who), dim)) * np.r_[np.full(len(NAMES), 0.2), np.full(dim - len(NAMES), 1.5)]
    return (np.pad(traits[who], ((0, 0), (0, dim - len(NAMES)))) + noise) @ basis, who, traits[who]


@pytest.fixture(scope="module")
def space():
    features, who, traits = pictures(80, 0)
    traits[::7, 1] = np.nan
    return explicit_space(features, who, NAMES, traits)


def test_dimensions_tell_what_they_are_named_after_and_rank_people(space):
    features, who, traits = pictures(30, 1)
    told = space.encode(features)
    for k in range(len(NAMES)):
        assert np.corrcoef(told[:, k], traits[:, k])[0, 1] > 0.85
    query = np.arange(0, len(who), 6)
    gallery = np.setdiff1d(np.arange(len(who)), query)
    items = {"person": who[query]}, {"person": who[gallery]}
    plain, explicit = (evaluate(Features(f[query], f[gallery]), *items).mean_ap() for f in (features, told))
    assert explicit > plain + 0.1


def test_a_match_is_the_sum_of_what_is_told(space):
    features, _, _ = pictures(3, 2)
    match = space.explain(features[0], features[1])
    told = space.encode(features[:2]).astype(np.float64)
    cosine = told[0] @ told[1] / np.prod(np.linalg.norm(told, axis=1))
    assert match.score == pytest.approx(cosine, abs=1e-9) and match.score == match.contributions.sum()
    struck = told.copy()
    struck[:, 2] = 0
    assert match.without("chin height") == pytest.approx(struck[0] @ struck[1] / np.prod(np.linalg.norm(told, axis=1)))
    with pytest.raises(DataError, match="no dimension 'hair'"):
        match.without("hair")


def test_a_match_in_words():
    space = ExplicitSpace(("age", "nose width"), np.eye(2, dtype=np.float32), np.zeros(2, np.float32))
    words = space.explain([-3, 1], [-4, -1]).words()
    assert words == "0.84 alike: both low in age (+0.92); against it: they differ in nose width (-0.08)"
    with pytest.raises(DataError, match="learned from 2"):
        space.encode(np.ones((1, 3)))


def test_what_cannot_be_learned_from_is_refused():
    with pytest.raises(TrainingError, match="1 people have two"):
        explicit_space(np.ones((3, 2)), [0, 0, 1], ["a"], np.zeros((3, 1)))
    with pytest.raises(TrainingError, match="every feature"):
        explicit_space(np.ones((3, 2)), [0, 0, 1], ["a"], np.zeros((2, 1)))
