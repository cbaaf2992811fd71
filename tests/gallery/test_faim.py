"""Intermediaries: they help where they are good, and feasibility leaves them out where they are not."""

import numpy as np
import pytest

from ipse.gallery.faim import bridge
from ipse.measure import Features, evaluate


def wardrobe(seed=0, people=40):
    """Couples in each other's clothes: poor queries, and a good picture of everybody on either day."""
    generator = np.random.default_rng(seed)
    faces, clothes = generator.normal(size=(people, 32)), generator.normal(size=(people, 16))
    person, day = np.repeat(np.arange(people), 2), np.tile([0, 1], people)
    worn = person // 2 * 2 + day

    def taken(features, noise):
        return features + noise * generator.normal(size=features.shape)

    query = np.arange(0, people, 2)
    return {
        "query": taken(faces[query], 2.5),
        "query_look": taken(clothes[query], 0.2),
        "gallery": taken(faces[person], 0.4),
        "gallery_look": taken(clothes[worn], 0.2),
    }, ({"person": query, "look": query}, {"person": person, "look": worn})


def searched(features, items, **options):
    found = bridge(**features, k=2, **options)
    return evaluate(Features(found.query, found.gallery), *items, "world-across-looks").mean_ap(), found


def test_intermediaries_find_other_clothes():
    features, items = wardrobe()
    plain = evaluate(Features(features["query"], features["gallery"]), *items, "world-across-looks").mean_ap()
    found, bridged = searched(features, items)
    assert found > plain + 0.05
    assert bridged.query.shape == (20, 32) and np.allclose(np.linalg.norm(bridged.gallery, axis=1), 1, atol=1e-5)


def test_feasibility_falls_without_bridges_and_nothing_is_lost():
    features, items = wardrobe()
    # The query's own person no longer wears the query's clothes; the other one of the couple does.
    keep = ~np.isin(np.arange(80), np.arange(0, 80, 4))
    fewer = features | {"gallery": features["gallery"][keep], "gallery_look": features["gallery_look"][keep]}
    rest = items[0], {name: column[keep] for name, column in items[1].items()}
    plain = evaluate(Features(fewer["query"], fewer["gallery"]), *rest, "world-across-looks").mean_ap()
    weighted, with_weights = searched(fewer, rest)
    unweighted, _ = searched(fewer, rest, weighted=False)
    assert with_weights.query_feasibility.mean() < searched(features, items)[1].query_feasibility.mean()
    assert weighted > unweighted + 0.05
    assert weighted > plain - 0.05


def test_the_formula_with_given_reliability():
    features, _ = wardrobe(people=6)
    reliability = np.linspace(0, 1, 12)
    found = bridge(**features, k=3, reliability=reliability)
    unit = {name: rows / np.linalg.norm(rows, axis=1, keepdims=True) for name, rows in features.items()}
    alike = unit["query_look"] @ unit["gallery_look"].T
    usual = unit["query_look"] @ unit["gallery_look"].mean(0)
    for i, row in enumerate(alike):
        near = np.argsort(-row)[:3]
        weights = np.clip((row[near] - usual[i]) / (1 - usual[i]), 0, 1) * reliability[near]
        moved = unit["query"][i] + weights @ unit["gallery"][near] / 3
        np.testing.assert_allclose(found.query[i], moved / np.linalg.norm(moved), atol=1e-5)
        assert found.query_feasibility[i] == pytest.approx(weights.mean(), abs=1e-5)
    nothing = bridge(**features, k=3, reliability=np.zeros(12))
    np.testing.assert_allclose(nothing.gallery, unit["gallery"], atol=1e-6)


def test_what_does_not_fit_is_refused():
    features, _ = wardrobe(people=6)
    with pytest.raises(ValueError, match="0 to 1 for each of the 12"):
        bridge(**features, reliability=np.full(12, 2.0))
    with pytest.raises(ValueError, match="one of clothes"):
        bridge(**features | {"query_look": features["query_look"][:2]})
