"""The index gives the answers of the exact search."""

import numpy as np
import pytest

from ipse.gallery import EncoderSpec, Gallery, search
from ipse.identity import Identity

pytestmark = pytest.mark.filterwarnings("ignore::ipse.gallery.UncalibratedWarning")


def crowd(first, count, generator):
    """People like faces are spread: few directions tell most, (count, 3, 32)."""
    spread = 0.8 ** np.arange(32)
    centers = generator.normal(size=(count, 1, 32)) * spread
    vectors = (centers + 0.25 * generator.normal(size=(count, 3, 32)) * spread).astype(np.float32)
    return vectors, [Identity(f"P{first + i}", v, "toy", "f" * 64, "l2") for i, v in enumerate(vectors)]


@pytest.fixture
def indexed(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "INDEX_FROM", 5000)
    monkeypatch.setattr(search, "_PARTITION", 100)
    gallery = Gallery.create(tmp_path / "g", EncoderSpec("toy", "f" * 64, "l2", 32, threshold=1))
    vectors, everybody = crowd(0, 2000, np.random.default_rng(0))
    gallery.enroll_many(everybody)
    assert gallery._store.record["index"]["rows"] == 6000
    return gallery, vectors


@pytest.mark.parametrize("grouping", ["best", "mean", "top3"])
def test_the_index_answers_as_the_exact_search_does(indexed, grouping):
    gallery, vectors = indexed
    queries = vectors[::40].mean(axis=1)
    fast = gallery.search(queries, k=10, grouping=grouping)
    exact = gallery.search(queries, k=10, grouping=grouping, exact=True)
    shared = [
        len({match.name for match in a.matches} & {match.name for match in b.matches})
        for a, b in zip(fast, exact, strict=True)
    ]
    assert np.mean(shared) >= 9.8
    for a, b in zip(fast, exact, strict=True):
        assert a.name == b.name and a.nearest.name == b.nearest.name
        # Distances are those of the full vectors, not of what the index keeps of them.
        assert a.nearest.distance == pytest.approx(b.nearest.distance, abs=1e-5)


def test_exact_is_what_a_plain_loop_finds(indexed):
    gallery, vectors = indexed
    query = vectors[123, 1] + 0.05
    distances = np.linalg.norm(vectors - query, axis=2).min(axis=1)
    answer = gallery.search(query, k=7, exact=True)[0]
    assert [match.name for match in answer.matches] == [f"P{i}" for i in np.argsort(distances)[:7]]
    np.testing.assert_allclose([match.distance for match in answer.matches], np.sort(distances)[:7], atol=1e-5)


def test_who_came_after_the_index_is_found_and_then_indexed(indexed):
    gallery, _ = indexed
    vectors, late = crowd(5000, 300, np.random.default_rng(1))
    gallery.enroll_many(late[:100])
    assert gallery._store.record["index"]["rows"] == 6000
    assert [answer.name for answer in gallery.search(vectors[:20, 0], k=1)] == [f"P{5000 + i}" for i in range(20)]
    gallery.enroll_many(late[100:])
    assert gallery._store.record["index"]["rows"] == 6900
    assert [answer.name for answer in gallery.search(vectors[-20:, 0], k=1)] == [f"P{5280 + i}" for i in range(20)]


def test_filters_work_with_the_index(indexed, monkeypatch):
    gallery, vectors = indexed
    provenance = [{"camera": "door"}] * 3
    gallery.enroll("Visitor", vectors[50] + 3, provenance=provenance)
    with gallery._store.writing():
        gallery._store.update_record(index=search.tend_index(gallery._store._opened(), None))
    assert gallery._store.record["index"]["rows"] == 6003
    answer = gallery.search(vectors[50, 0], where="camera = 'door'")[0]
    assert [match.name for match in answer.matches] == ["Visitor"]
    gallery.forget("P50")
    assert gallery.search(vectors[50, 0])[0].nearest.name != "P50" and gallery._store.record["index"]["rows"] == 6000
    # Far from the query, in partitions that a search without a filter leaves out.
    monkeypatch.setitem(gallery._store.record["index"], "probes", 1)
    assert {match.name for match in gallery.search(vectors[0, 0], where="name IN ('P1', 'P2')")[0].matches} == {
        "P1",
        "P2",
    }
