"""Centralization against the published rule written out, and what it is for."""

import numpy as np
import pytest

from ipse.gallery.centralize import center_distance, centralize, centralize_by_generation, generated_features
from ipse.gallery.rerank import unit
from ipse.measure import Features, evaluate


def people(count=20, each=8, noise=1.3, seed=0, dim=32):
    generator = np.random.default_rng(seed)
    person = np.repeat(np.arange(count), each)
    features = generator.normal(size=(count, dim))[person] + noise * generator.normal(size=(len(person), dim))
    return features.astype(np.float32), person


@pytest.mark.parametrize(("k1", "k2"), [(2, 2), (4, 2), (1, 3)])
def test_mutual_neighbors_are_added(k1, k2):
    features, _ = people()
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    order = np.argsort(-cosine, axis=1)
    expected = unit.copy()
    for i in range(len(unit)):
        for j in order[i, :k1]:
            if i in order[j, :k2]:
                expected[i] += unit[j]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(centralize(features, k1, k2, memory_mib=0.01), expected, atol=1e-5)


def test_it_comes_nearer_to_the_centers_and_helps():
    features, person = people()
    moved = centralize(features)
    assert center_distance(moved, person).mean() < center_distance(features, person).mean() - 0.05
    query = np.arange(0, len(person), 8)
    gallery = np.setdiff1d(np.arange(len(person)), query)
    items = {"person": person[query]}, {"person": person[gallery]}
    plain, better = (evaluate(Features(f[query], f[gallery]), *items).mean_ap() for f in (features, moved))
    assert better > plain + 0.05


def test_who_has_no_mutual_neighbor_stays():
    # The third is nearest to the second, whose nearest is the first.
    features = np.array([[1, 0], [0.99, 0.14], [0.7, 0.71]], np.float32)
    moved = centralize(features, 1, 1)
    np.testing.assert_allclose(moved[2], features[2] / np.linalg.norm(features[2]), atol=1e-6)
    np.testing.assert_allclose(moved[0], moved[1], atol=1e-6)
    with pytest.raises(ValueError, match="no 3 neighbors"):
        centralize(features, 3, 1)


def test_generated_pictures_of_the_person_help_and_those_of_another_do_not():
    features, person = people(noise=1.8)
    draw = np.random.default_rng(1)
    centers = np.stack([features[person == one].mean(0) for one in range(20)])
    # Of each picture five that show the person as well as the picture does.
    made = centers[person][:, None] + 1.8 * draw.normal(size=(len(person), 5, 32))
    query = np.arange(0, len(person), 8)
    gallery = np.setdiff1d(np.arange(len(person)), query)
    items = {"person": person[query]}, {"person": person[gallery]}

    def found(moved):
        return evaluate(Features(moved[query], moved[gallery]), *items).mean_ap()

    right, wrong = (centralize_by_generation(features, np.roll(made, by, 0)) for by in (0, 13))
    assert found(right) > found(features) + 0.1 and found(wrong) < found(features)
    assert found(centralize(right)) > found(centralize(features)) + 0.05
    assert center_distance(right, person).mean() < center_distance(features, person).mean() - 0.1
    np.testing.assert_allclose(centralize_by_generation(features, made, 0.0), unit(features), atol=1e-5)
    for bad in (made[:, 0], made[:5], made[:, :0], made[..., :5]):
        with pytest.raises(ValueError, match="do not fit"):
            centralize_by_generation(features, bad)


def test_what_is_generated_comes_from_above():
    pictures = [np.full((4, 2, 3), value, np.uint8) for value in (10, 20)]
    made = generated_features(
        pictures,
        lambda picture: [picture + number for number in range(3)],
        lambda some: np.array([[one.mean(), 1.0] for one in some]),
    )
    assert made[..., 0].tolist() == [[10, 11, 12], [20, 21, 22]] and made.dtype == np.float32
