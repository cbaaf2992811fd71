"""Search under conditions: one gallery, different right answers."""

import numpy as np
import pytest

from ipse.gallery.conditional import Boundary, Conditional, Space
from ipse.measure import Features, Matrix, evaluate


def test_a_boundary_lies_where_both_are_equally_likely():
    generator = np.random.default_rng(0)
    found = Boundary.fit(generator.normal(0.3, 0.1, 4000), generator.normal(0.7, 0.1, 900))
    assert found.middle == pytest.approx(0.5, abs=0.01)
    # Two normal distributions 0.4 apart: the log odds change by 0.4 / 0.01 per unit.
    assert found.width == pytest.approx(1 / 40, rel=0.1)
    with pytest.raises(ValueError, match="nearer"):
        Boundary.fit([0.9, 0.8], [0.1, 0.2])


def test_conditions_choose_the_answer():
    generator = np.random.default_rng(1)
    who, worn = (grid.ravel() for grid in np.meshgrid(np.arange(15), np.arange(15)))
    faces, clothes = generator.normal(size=(15, 24)), generator.normal(size=(15, 24))
    features = {
        "person": faces[who] + 0.8 * generator.normal(size=(225, 24)),
        "clothes": clothes[worn] + 0.8 * generator.normal(size=(225, 24)),
    }
    spaces = {name: Space(Features(rows, rows), Boundary(0.6, 0.08)) for name, rows in features.items()}
    names, image = np.array([f"{w} in {c}" for w, c in zip(who, worn, strict=True)]), np.arange(225)
    gallery = {"person": names, "image": image}
    for wanted, right in (
        ({"person": "same", "clothes": "other"}, (who[:, None] == who) & (worn[:, None] != worn)),
        ({"clothes": "same", "person": "other"}, (who[:, None] != who) & (worn[:, None] == worn)),
    ):
        first = Conditional(spaces, wanted).rows(0, 225).argmin(1)
        asked = right[np.arange(225), first].mean()
        alone = []
        for space in spaces.values():
            rows = space.distances.rows(0, 225).copy()
            alone.append(right[np.arange(225), rows.argmin(1)].mean())
        assert asked > 0.8 and asked > max(alone) + 0.3
    both = Conditional(spaces, {"person": "same", "clothes": "same"})
    assert evaluate(both, gallery, gallery).rank(1) == 1


def test_distances_add_log_likelihoods_and_select():
    near = np.array([[0.1, 0.5, 0.9]], np.float32)
    spaces = {"a": Space(Matrix(near), Boundary(0.5, 0.1)), "b": Space(Matrix(near[:, ::-1]), Boundary(0.4, 0.2))}
    found = Conditional(spaces, {"a": "same", "b": "other"})
    likely = 1 / (1 + np.exp((near - 0.5) / 0.1)), 1 / (1 + np.exp((0.4 - near[:, ::-1]) / 0.2))
    np.testing.assert_allclose(found.rows(0, 1), -np.log(likely[0] * likely[1]), rtol=1e-4)
    chosen = found.select(np.array([0]), np.array([2, 0]))
    np.testing.assert_allclose(chosen.rows(0, 1), found.rows(0, 1)[:, [2, 0]], rtol=1e-6)


def test_what_makes_no_sense_is_refused():
    space = Space(Matrix(np.zeros((2, 3))), Boundary(0.5, 0.1))
    with pytest.raises(ValueError, match="no space 'hat'"):
        Conditional({"a": space}, {"hat": "same"})
    with pytest.raises(ValueError, match="one space at least"):
        Conditional({"a": space}, {})
    other = Space(Matrix(np.zeros((2, 4))), Boundary(0.5, 0.1))
    with pytest.raises(ValueError, match="different queries"):
        Conditional({"a": space, "b": other}, {"a": "same", "b": "other"})
