"""Templates of several vectors: the Chamfer distance and the encodings written out, and a search that keeps recall."""

import numpy as np
import pytest

from ipse.gallery.multivector import Chamfer, VectorSets
from ipse.gallery.muvera import FixedDimensionalEncoding, MuveraSearch
from ipse.measure import Features, evaluate


def templates(count, seed, dim=16, sizes=(1, 7)):
    generator = np.random.default_rng(seed)
    return [generator.normal(size=(generator.integers(*sizes), dim)).astype(np.float32) for _ in range(count)]


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_chamfer_takes_the_best_match_of_every_vector(monkeypatch):
    ours, theirs = templates(9, 0), templates(13, 1)
    expected = [[1 - (unit(q) @ unit(g).T).max(1).mean() for g in theirs] for q in ours]
    source = Chamfer(VectorSets.of(ours), VectorSets.of(theirs))
    np.testing.assert_allclose(source.rows(0, 9), expected, atol=1e-6)
    monkeypatch.setattr("ipse.gallery.multivector.MEMORY_MIB", 1e-4)
    np.testing.assert_allclose(source.rows(2, 7), expected[2:7], atol=1e-6)
    rows, columns = np.array([4, 1]), np.array([12, 0, 5])
    np.testing.assert_allclose(source.select(rows, columns).rows(0, 2), np.array(expected)[rows][:, columns], atol=1e-6)


def test_templates_are_collected_by_group():
    sets, names = VectorSets.grouped(np.eye(4)[[0, 1, 2, 3, 0]], ["b", "a", "b", "a", "a"])
    assert names.tolist() == ["a", "b"] and sets.sizes.tolist() == [3, 2]
    np.testing.assert_array_equal(sets.vectors, np.eye(4)[[1, 3, 0, 0, 2]])
    np.testing.assert_allclose(sets.means()[1], np.array([1, 0, 1, 0]) / 2**0.5)
    for wrong, message in (([np.empty((0, 3))], "one vector at least"), ([np.zeros((1, 3))], "no direction")):
        with pytest.raises(ValueError, match=message):
            VectorSets.of(wrong)


def test_cells_hold_sums_of_queries_and_means_of_documents_and_none_stays_empty():
    sets = VectorSets.of(templates(6, 3, dim=5, sizes=(1, 9)))
    encoding = FixedDimensionalEncoding(5, bits=3, repetitions=1, inner=None, seed=8)
    planes = np.random.default_rng(8).normal(size=(5, 3)).astype(np.float32)
    found = {side: encoding.encode(sets, side).reshape(6, 8, 5) for side in ("query", "document")}
    for i, (start, size) in enumerate(zip(sets.starts, sets.sizes, strict=True)):
        vectors = sets.vectors[start : start + size]
        codes = (vectors @ planes > 0) @ [1, 2, 4]
        for cell in range(8):
            mine = vectors[codes == cell]
            np.testing.assert_allclose(found["query"][i, cell], mine.sum(0), atol=1e-6)
            differing = [(cell ^ code).bit_count() for code in codes.tolist()]
            expected = mine.mean(0) if len(mine) else vectors[np.argmin(differing)]
            np.testing.assert_allclose(found["document"][i, cell], expected, atol=1e-6)


def test_without_cells_the_inner_product_is_that_of_sum_and_mean():
    ours, theirs = VectorSets.of(templates(5, 0)), VectorSets.of(templates(6, 1))
    encoding = FixedDimensionalEncoding(16, bits=0, repetitions=3, inner=None)
    found = encoding.encode(ours, "query") @ encoding.encode(theirs, "document").T
    sums = np.add.reduceat(ours.vectors, ours.starts)
    means = np.add.reduceat(theirs.vectors, theirs.starts) / theirs.sizes[:, None]
    np.testing.assert_allclose(found, sums @ means.T, atol=1e-5)


@pytest.mark.parametrize("options", [{"inner": 8}, {"inner": None, "final": 256}])
def test_projections_keep_inner_products_the_better_the_larger(options):
    ours, theirs = VectorSets.of(templates(30, 0)), VectorSets.of(templates(40, 1))
    exact = FixedDimensionalEncoding(16, bits=2, repetitions=8, inner=None)
    errors = []
    for factor in (1, 16):
        larger = {name: value and value * factor for name, value in options.items()}
        small = FixedDimensionalEncoding(16, bits=2, repetitions=8, **larger)
        assert small.encode(ours, "query").shape == (30, small.size)
        # The planes are drawn in another order, so only what both approach can be compared.
        products = small.encode(ours, "query") @ small.encode(theirs, "document").T
        errors.append(np.abs(products - exact.encode(ours, "query") @ exact.encode(theirs, "document").T).mean())
    assert errors[1] < errors[0]


def test_search_finds_what_comparing_all_finds():
    generator = np.random.default_rng(5)
    parts = generator.normal(size=(60, 4, 16))
    person = np.repeat(np.arange(60), 3)
    pictures = parts[person] + 0.8 * generator.normal(size=(180, 4, 16))
    query, rest = np.arange(0, 180, 3), np.setdiff1d(np.arange(180), np.arange(0, 180, 3))
    ours, theirs = VectorSets.of(pictures[query]), VectorSets.of(pictures[rest])
    items = {"person": person[query]}, {"person": person[rest]}
    search = MuveraSearch(ours, theirs, FixedDimensionalEncoding(16, bits=3, inner=None, final=512), candidates=12)
    exact, found = (evaluate(source, *items) for source in (Chamfer(ours, theirs), search))
    single = evaluate(Features(ours.means(), theirs.means()), *items)
    assert single.rank(1) < exact.rank(1) - 0.05
    assert found.rank(1) >= exact.rank(1) - 0.02
    rows, whole = search.rows(10, 12), Chamfer(ours, theirs).rows(10, 12)
    near = rows < 4
    assert near.sum(1).tolist() == [12, 12]
    np.testing.assert_allclose(rows[near], whole[near], atol=1e-6)
    chosen = search.select(np.array([11]), np.arange(120))
    np.testing.assert_allclose(chosen.rows(0, 1)[0], rows[1], atol=1e-5)


def test_what_does_not_fit_is_refused():
    sets = VectorSets.of(templates(3, 0))
    with pytest.raises(ValueError, match="encoding is for 8"):
        FixedDimensionalEncoding(8).encode(sets, "query")
    with pytest.raises(ValueError, match="from 0 to 16"):
        FixedDimensionalEncoding(8, bits=17)
    with pytest.raises(ValueError, match="of one encoder"):
        Chamfer(sets, VectorSets.of(templates(3, 0, dim=8)))
