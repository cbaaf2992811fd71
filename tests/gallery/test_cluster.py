import numpy as np
import pytest

from ipse.gallery import cluster as module
from ipse.gallery.cluster import cluster


@pytest.fixture
def people():
    """30, 20, 10 and 1 faces of four people, shuffled; vectors and who."""
    generator = np.random.default_rng(3)
    who = generator.permutation(np.repeat([0, 1, 2, 3], [30, 20, 10, 1]))
    centers = np.eye(8)[:4]
    return (centers[who] + generator.normal(scale=0.08, size=(61, 8))).astype(np.float32), who


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("dense", [4000, 5])
def test_people_come_apart_the_largest_first(people, metric, dense, monkeypatch):
    monkeypatch.setattr(module, "_DENSE", dense)
    vectors, who = people
    near = 0.6 if metric == "l2" else 0.2
    assert np.array_equal(cluster(vectors, near=near, metric=metric), who)


def test_few_neighbors_are_enough(people, monkeypatch):
    monkeypatch.setattr(module, "_NEIGHBORS", 6)
    monkeypatch.setattr(module, "_BLOCK", 7)
    vectors, who = people
    assert np.array_equal(cluster(vectors, near=0.6), who)


def test_average_linkage_makes_no_chains():
    line = np.arange(0, 3, 0.1)[:, None].astype(np.float32)
    labels = cluster(line, near=0.5)
    assert 3 <= labels.max() + 1 <= 8


def test_poor_faces_join_but_found_no_group():
    vectors = np.array([[0, 0], [0.1, 0], [3, 0], [3.1, 0], [0.1, 0.1]], np.float32)
    quality = np.array([0.9, 0.8, 0.1, 0.1, 0.05])
    assert cluster(vectors, near=0.5).tolist() == [0, 0, 1, 1, 0]
    assert cluster(vectors, near=0.5, quality=quality).tolist() == [0, 0, 1, 2, 0]
    assert sorted(cluster(vectors, near=0.5, quality=np.zeros(5)).tolist()) == [0, 1, 2, 3, 4]


def test_little_to_sort():
    assert cluster(np.empty((0, 4), np.float32), near=0.5).shape == (0,)
    assert cluster(np.ones((1, 4), np.float32), near=0.5).tolist() == [0]
    assert cluster(np.ones((3, 4), np.float32), near=0.5).tolist() == [0, 0, 0]
