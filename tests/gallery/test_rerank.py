"""Re-ranking against the published formulas written out over full matrices."""

import numpy as np
import pytest

from ipse.gallery.rerank import KReciprocal, Neighborhood, expand_gallery, expand_queries
from ipse.measure import Features, Matrix, evaluate


def people(count, queries, images, seed=0, dim=32, noise=1.0):
    """Features on a grid of 1/1024, so that their distances are exact in float32 however they are added up."""
    generator = np.random.default_rng(seed)
    centers = generator.normal(size=(count, dim))
    person = generator.integers(0, count, queries + images)
    features = centers[person] + noise * generator.normal(size=(len(person), dim))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    features = (np.round(features * 1024) / 1024).astype(np.float32)
    return features[:queries], features[queries:], person[:queries], person[queries:]


def zhong(query, gallery, k1, k2, weight):
    """Zhong et al. 2017 over matrices of all against all, in float32, ties in the order of the features."""
    every = np.concatenate([query, gallery])
    count = len(every)
    squared = Features(every, every, "l2").rows(0, count) ** 2
    distance = squared / squared.max(axis=1, keepdims=True)
    rank = np.argsort(distance, axis=1, kind="stable")

    def reciprocal(i, k):
        return {j for j in rank[i, : k + 1] if i in rank[j, : k + 1]}

    half = int(np.around(k1 / 2))
    described = np.zeros((count, count), np.float32)
    for i in range(count):
        members = reciprocal(i, k1)
        for candidate in sorted(members):
            theirs = reciprocal(candidate, half)
            if len(theirs & reciprocal(i, k1)) > 2 / 3 * len(theirs):
                members = members | theirs
        members = sorted(members)
        weights = np.exp(-distance[i, members])
        described[i, members] = weights / np.sum(weights)
    if k2 > 1:
        described = np.stack([np.mean(described[rank[i, :k2]], axis=0) for i in range(count)])
    result = np.empty((len(query), len(gallery)), np.float32)
    for i in range(len(query)):
        for j in range(len(gallery)):
            # One member after the other: NumPy's sum would group them.
            shared = np.float32(0)
            for member in np.flatnonzero(described[i]):
                shared += min(described[i, member], described[len(query) + j, member])
            result[i, j] = (1 - shared / (2 - shared)) * np.float32(1 - weight)
            result[i, j] += distance[i, len(query) + j] * np.float32(weight)
    return result


@pytest.mark.parametrize(("k1", "k2", "weight"), [(20, 6, 0.3), (5, 1, 0.0), (7, 3, 0.5), (1, 2, 1.0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_original_bit_by_bit(k1, k2, weight, seed):
    query, gallery, _, _ = people(8, 12, 70, seed)
    # Twins make ties.
    gallery[40] = gallery[3]
    gallery[41] = query[0]
    expected = zhong(query, gallery, k1, k2, weight)
    source = KReciprocal(query, gallery, "l2", k1=k1, k2=k2, weight=weight)
    found = np.concatenate([source.rows(0, 5).copy(), source.rows(5, 12).copy()])
    np.testing.assert_array_equal(found, expected)


def test_many_members_are_added_in_parts(monkeypatch):
    query, gallery, _, _ = people(8, 12, 70)
    expected = KReciprocal(query, gallery, "l2").rows(0, 12).copy()
    for terms in (1, 7, 100):
        monkeypatch.setattr("ipse.gallery.rerank._TERMS", terms)
        np.testing.assert_array_equal(KReciprocal(query, gallery, "l2").rows(0, 12), expected)


def test_a_grown_neighborhood_is_the_one_made_at_once():
    query, gallery, _, _ = people(40, 30, 900)
    whole = Neighborhood.of(gallery, "l2")
    # Fewer than its neighbors at first.
    grown = Neighborhood.of(gallery[:15], "l2", memory_mib=0.01).grown(gallery[15:500]).grown(gallery[500:])
    for part in ("features", "order", "squared", "farthest"):
        np.testing.assert_array_equal(getattr(grown, part), getattr(whole, part))
    expected = KReciprocal(query, gallery, "l2", memory_mib=0.02).rows(0, 30).copy()
    np.testing.assert_array_equal(KReciprocal(query, grown, "l2").rows(0, 30), expected)


def test_evaluation_takes_it_like_any_distances():
    query, gallery, ours, theirs = people(25, 60, 300, noise=1.4)
    items = {"person": ours}, {"person": theirs}
    plain = evaluate(Features(query, gallery), *items)
    source = KReciprocal(query, gallery, "cosine")
    found = evaluate(source, *items, memory_mib=0.05)
    assert found.mean_ap() > plain.mean_ap() + 0.05
    matrix = KReciprocal(query, gallery, "cosine").rows(0, 60)
    assert evaluate(Matrix(matrix), *items).mean_ap() == pytest.approx(found.mean_ap())


def test_it_ranks_again_among_what_a_protocol_selects():
    query, gallery, _, _ = people(20, 20, 200)
    rows, columns = np.arange(0, 20, 2), np.arange(50, 200)
    found = KReciprocal(query, gallery, "l2").select(rows, columns).rows(0, 10).copy()
    np.testing.assert_array_equal(found, KReciprocal(query[rows], gallery[columns], "l2").rows(0, 10))


def test_tensors_are_taken():
    torch = pytest.importorskip("torch")
    query, gallery, _, _ = people(8, 12, 70)
    found = KReciprocal(torch.from_numpy(query), torch.from_numpy(gallery), "l2").rows(0, 12).copy()
    np.testing.assert_array_equal(found, KReciprocal(query, gallery, "l2").rows(0, 12))


def test_expansion_averages_neighbors():
    query, gallery, ours, theirs = people(25, 60, 300, noise=1.4)
    unit = [f / np.linalg.norm(f, axis=1, keepdims=True) for f in (query, gallery)]
    cosine = unit[0] @ unit[1].T
    near = np.argsort(-cosine, axis=1, kind="stable")[:, :5]
    for alpha in (0, 3):
        weights = np.maximum(np.take_along_axis(cosine, near, 1), 0) ** alpha
        expected = unit[0] + (weights[..., None] * unit[1][near]).sum(1)
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        found = expand_queries(query, gallery, 5, alpha, memory_mib=0.01)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    items = {"person": ours}, {"person": theirs}
    plain = evaluate(Features(query, gallery), *items).mean_ap()
    assert evaluate(Features(found, gallery), *items).mean_ap() > plain
    assert evaluate(Features(query, expand_gallery(gallery, 5, 3)), *items).mean_ap() > plain
    # Nobody is a neighbor of itself.
    alone = expand_gallery(np.eye(4, dtype=np.float32)[:2], 1)
    np.testing.assert_allclose(alone, np.full((2, 4), 0.5**0.5) * [1, 1, 0, 0], atol=1e-6)


def test_what_makes_no_sense_is_refused():
    query, gallery, _, _ = people(8, 12, 70)
    for options, message in (
        ({"k2": 30}, "k2 is from 1"),
        ({"weight": 2}, "weight from 0 to 1"),
        ({"k1": 100}, "lower k1"),
    ):
        with pytest.raises(ValueError, match=message):
            KReciprocal(query, gallery, **options)
    with pytest.raises(ValueError, match="needs 21"):
        KReciprocal(query, Neighborhood.of(gallery, k=5))
    with pytest.raises(ValueError, match="found by l2"):
        KReciprocal(query, Neighborhood.of(gallery, "l2"))
    with pytest.raises(ValueError, match="no 71 neighbors"):
        expand_queries(query, gallery, 71)
