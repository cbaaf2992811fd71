import numpy as np
import pytest

from ipse.measure.frechet import frechet


def test_frechet_of_normal_distributions_is_what_the_formula_says():
    """Between N(0, 1) and N(3, 4) in every dimension: 3² + 1 + 4 − 2·2 each."""
    draw = np.random.default_rng(0)
    a, b = draw.normal(0, 1, (200_000, 2)), draw.normal(3, 2, (200_000, 2))
    assert frechet(a, b) == pytest.approx(2 * (9 + 1 + 4 - 4), rel=0.01)
    assert frechet(a, a) == pytest.approx(0, abs=1e-8) and frechet(a, b) == pytest.approx(frechet(b, a))


@pytest.mark.parametrize("shapes", [((1, 3), (5, 3)), ((5, 3), (5, 2)), ((5,), (5,))])
def test_sets_that_have_no_distance_are_refused(shapes):
    with pytest.raises(ValueError, match="no Fréchet distance"):
        frechet(*map(np.zeros, shapes))
