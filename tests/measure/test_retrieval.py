"""Retrieval against a naive reference that sorts, with ties, on NumPy and torch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from ipse.errors import DataError
from ipse.measure.distances import Features, Matrix, blocks
from ipse.measure.protocols import PROTOCOLS, Ignore, Protocol
from ipse.measure.retrieval import _count_numpy, _count_torch, average_precision, compare, evaluate


def naive(distances, query, gallery, ignored):
    """Per query with something to find: its row, and the ranks of what it must find. `ignored(q, g)` is a predicate."""
    found = []
    for q, row in enumerate(distances):
        order = [g for g in np.argsort(row, kind="stable") if not ignored(q, g)]
        ranks = [rank for rank, g in enumerate(order, 1) if gallery["person"][g] == query["person"][q]]
        if ranks:
            found.append((q, ranks))
    return found


@st.composite
def cases(draw):
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    queries, images = draw(st.integers(1, 12)), draw(st.integers(1, 40))
    levels = draw(st.sampled_from([1, 3, 10, 10_000]))
    distances = generator.integers(0, levels, (queries, images)).astype(np.float32)

    def items(count):
        return {"person": generator.integers(0, 4, count), "camera": generator.integers(0, 3, count)}

    return distances, items(queries), items(images), draw(st.sampled_from([1e-4, 1e-3, 1.0]))


@given(cases())
@settings(max_examples=60, deadline=None)
def test_equals_sorting_with_ties_in_gallery_order(case):
    distances, query, gallery, memory = case
    result = evaluate(Matrix(distances), query, gallery, "market1501", at=(1, 5), memory_mib=memory)

    def ignored(q, g):
        return query["person"][q] == gallery["person"][g] and query["camera"][q] == gallery["camera"][g]

    expected = naive(distances, query, gallery, ignored)
    assert result.query.tolist() == [q for q, _ in expected]
    for i, (_, ranks) in enumerate(expected):
        assert result.first[i] == ranks[0] and result.relevant[i] == len(ranks)
        for definition, values in result.precisions.items():
            assert values[i] == pytest.approx(average_precision(ranks, definition), abs=1e-12)
        assert result.inverse_penalty[i] == pytest.approx(len(ranks) / ranks[-1])
        for k in (1, 5):
            inside = [(n + 1) / rank for n, rank in enumerate(ranks) if rank <= k]
            assert result.precision_at[k][i] == pytest.approx(sum(inside) / min(k, len(ranks)))
    for k in (1, 3, 20):
        hits = [ranks[0] <= k for _, ranks in expected]
        assert not hits or result.cmc()[k - 1] == result.rank(k) == pytest.approx(np.mean(hits))


@given(cases())
@settings(max_examples=40, deadline=None)
def test_tensors_on_a_device_are_counted_as_arrays_are(case):
    torch = pytest.importorskip("torch")
    distances, query, gallery, _ = case
    selection = PROTOCOLS["market1501"].select(query, gallery)
    pairs = selection.relevant(0, len(distances)), selection.ignored(0, len(distances))
    expected = _count_numpy(distances.copy(), *pairs[0], pairs[1], 0)
    # What a tensor on a GPU would go through; the processor stands in for it.
    found = _count_torch(torch.from_numpy(distances.copy()), *pairs[0], pairs[1], 0)
    np.testing.assert_array_equal(found, expected)


def test_average_precision_by_hand():
    assert average_precision([1, 2, 3]) == average_precision([1, 2, 3], "trapezoid") == 1
    assert average_precision([2, 4]) == pytest.approx((1 / 2 + 2 / 4) / 2)
    # Precision before the hits is 0 and 1/3.
    assert average_precision([2, 4], "trapezoid") == pytest.approx(((0 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2)
    assert average_precision([4, 5], "interpolated") == pytest.approx(2 / 5)
    for ranks in ([], [0, 1]):
        with pytest.raises(ValueError, match="ranks from 1 on"):
            average_precision(ranks)


def test_the_default_definition_is_that_of_scikit_learn():
    generator = np.random.default_rng(0)
    truth, scores = generator.random(200) < 0.1, generator.random(200)
    ranks = np.flatnonzero(truth[np.argsort(-scores)]) + 1
    assert average_precision(ranks) == pytest.approx(average_precision_score(truth, scores))


def people(count=30, each=6, seed=0, noise=0.9):
    generator = np.random.default_rng(seed)
    centers = generator.normal(size=(count, 16))
    person = np.repeat(np.arange(count), each)
    features = centers[person] + noise * generator.normal(size=(len(person), 16))
    return features.astype(np.float32), {"person": person, "camera": generator.integers(0, 3, len(person))}


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_features_arrays_and_tensors_agree_with_the_full_matrix(metric):
    torch = pytest.importorskip("torch")
    features, items = people()
    if metric == "cosine":
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        full = 1 - unit @ unit.T
    else:
        full = np.linalg.norm(features[:, None].astype(np.float64) - features, axis=2)
    source = Features(features, features, metric)
    np.testing.assert_allclose(source.rows(3, 11), full[3:11], atol=2e-3 if metric == "l2" else 1e-6)
    expected = evaluate(Matrix(full), items, items, "msmt17")
    for given_features in (features, torch.from_numpy(features), features.astype(np.float64)):
        for ranks_only in (False, True):
            source = Features(given_features, given_features, metric, ranks_only=ranks_only)
            found = evaluate(source, items, items, "msmt17", memory_mib=0.01)
            np.testing.assert_array_equal(found.first, expected.first)
            assert found.mean_ap() == pytest.approx(expected.mean_ap(), abs=1e-5)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("ranks_only", [True, False])
def test_tensors_on_a_device_go_all_the_way(monkeypatch, metric, ranks_only):
    torch = pytest.importorskip("torch")
    features, items = people()
    items["person"] = np.where(items["person"] == 4, -1, items["person"])
    expected = evaluate(Features(features, features, metric, ranks_only=ranks_only), items, items, "market1501")
    # The processor stands in for a GPU: its tensors stay tensors, as those of other devices do.
    monkeypatch.setattr("ipse.measure.distances._array", lambda values: values)
    there = torch.from_numpy(features)
    source = Features(there, there, metric, ranks_only=ranks_only)
    assert isinstance(source.rows(0, 3), torch.Tensor)
    found = evaluate(source, items, items, "market1501", memory_mib=0.01)
    assert 0 < len(found) < len(features)
    np.testing.assert_array_equal(found.query, expected.query)
    np.testing.assert_array_equal(found.first, expected.first)
    assert found.mean_ap() == pytest.approx(expected.mean_ap(), abs=1e-6)
    broken = there.clone()
    broken[7, 3] = torch.nan
    with pytest.raises(ValueError, match="Feature 7 of the gallery is not finite"):
        Features(there, broken)


def test_memory_bounds_the_rows():
    sizes = [stop - start for start, stop in blocks((1000, 5000), memory_mib=1)]
    assert sum(sizes) == 1000 and max(sizes) * 5000 * 4 <= 2**20
    assert [stop - start for start, stop in blocks((3, 10**9), memory_mib=1)] == [1, 1, 1]
    with pytest.raises(ValueError, match="holds no distances"):
        next(blocks((1, 1), 0))


def test_intervals_are_over_identities_and_paired():
    features, items = people(noise=1.5)
    worse, _ = people(noise=2.0)
    ours, theirs = (evaluate(Features(f, f), items, items, "msmt17") for f in (features, worse))
    value, low, high = ours.figures()["mAP"]
    assert low < value == ours.mean_ap() < high
    ahead, (least, most) = compare(ours, theirs)
    assert ahead == pytest.approx(ours.mean_ap() - theirs.mean_ap()) and least < ahead < most
    assert compare(ours, ours)[1] == (0, 0)
    with pytest.raises(ValueError, match="same queries"):
        compare(ours, evaluate(Features(features[:60], features), _part(items, slice(60)), items, "msmt17"))
    assert "mAP" in str(ours) and "mINP" in str(ours)


def _part(items, rows):
    return {name: column[rows] for name, column in items.items()}


def test_each_rule_and_filter_has_its_effect():
    query = {"person": ["a"], "camera": ["1"], "clothes": ["x"], "year": [2000]}
    gallery = {
        "person": ["a", "a", "a", "b", "junk"],
        "camera": ["1", "2", "2", "1", "2"],
        "clothes": ["x", "x", "y", "x", "y"],
        "year": [2000, 2000, 2010, 2000, 2000],
    }
    distances = Matrix([[0.1, 0.2, 0.9, 0.5, 0.3]])
    for rules, first, relevant in (
        ((), 1, 3),
        ((Ignore(("person", "camera")),), 1, 2),
        ((Ignore(("person", "camera")), Ignore(("person", "clothes"))), 3, 1),
        ((Ignore(("person",), different=("clothes",)),), 1, 2),
        ((Ignore(("person",), closer={"year": 5}),), 3, 1),
        # Not of the own person only: nobody of the own camera.
        ((Ignore(("camera",)),), 1, 2),
    ):
        result = evaluate(distances, query, gallery, Protocol("own", "a test", rules))
        assert (result.first[0], result.relevant[0]) == (first, relevant), rules
    assert result.notes == ("2 of 5 comparisons ignored: same camera.",)
    junk = Protocol("own", "a test", (Ignore(("person", "clothes")),), junk={"person": ("junk",)})
    result = evaluate(distances, query, gallery, junk)
    assert result.first[0] == 2 and "1 of 5 gallery images left out: junk, person is junk." in result.notes
    chosen = Protocol("own", "a test", query={"camera": ("1",)}, gallery={"camera": ("2",)})
    result = evaluate(distances, query, gallery, chosen)
    assert result.first[0] == 1 and "2 of 5 gallery images left out: camera is not 2." in result.notes


def test_protocols_say_what_is_wrong_instead_of_failing():
    features, items = people()
    items["camera"] = np.zeros(len(features), int)
    result = evaluate(Features(features, features), items, items, "market1501")
    assert len(result) == 0 and np.isnan(result.mean_ap()) and np.isnan(result.cmc()).all()
    assert "All 180 queries come from camera 0, and all of the gallery too." in str(result)
    renumbered = {**items, "person": items["person"] + 500}
    text = str(evaluate(Features(features, features), renumbered, items))
    assert "No query person is in the gallery" in text and "renumbered" in text
    some = {**items, "person": np.where(items["person"] == 3, 999, items["person"])}
    text = str(evaluate(Features(features, features), some, items))
    assert "6 of 180 queries left out: their 1 person has no image in the gallery, such as 999." in text
    assert "There are no queries" in str(evaluate(Features(features, features), items, items, "prcc-same"))


def test_what_cannot_be_evaluated_is_refused():
    features, items = people()
    with pytest.raises(DataError, match="needs the column 'clothes'"):
        evaluate(Features(features, features), items, items, "ltcc-changed")
    with pytest.raises(DataError, match="do not fit together"):
        evaluate(Features(features, features), items, {**items, "camera": [1]}, "market1501")
    with pytest.raises(ValueError, match="There is no protocol 'market', but"):
        evaluate(Features(features, features), items, items, "market")
    with pytest.raises(ValueError, match="shape"):
        evaluate(Features(features[:5], features), items, items)
    broken = features.copy()
    broken[7, 3] = np.nan
    with pytest.raises(ValueError, match="Feature 7 of the query is not finite"):
        Features(broken, features)
    with pytest.raises(ValueError, match="zeros has no direction"):
        Features(features * 0, features)
    with pytest.raises(ValueError, match="one encoder"):
        Features(features[:, :8], features)
    with pytest.raises(ValueError, match="query 7 are not all numbers"):
        evaluate(Matrix(broken @ features.T), items, items)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_runs_on_items_that_have_its_columns(name):
    features, items = people()
    generator = np.random.default_rng(1)
    items |= {column: generator.integers(0, 4, len(features)) for column in ("clothes", "look", "shot")}
    items |= {"age": generator.uniform(10, 60, len(features)), "image": np.arange(len(features))}
    kinds = np.array(["A", "C", "B"] if name.startswith("prcc") else ["a", "b", "b"])
    items["camera"] = kinds[items["camera"]] if name.startswith(("prcc", "viper")) else items["camera"]
    result = evaluate(Features(features, features), items, items, name)
    assert len(result) and 0 < result.mean_ap() <= 1 and PROTOCOLS[name].about
