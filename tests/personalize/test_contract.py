"""What every method of the list keeps to."""

import numpy as np
import pytest

pytest.importorskip("diffusers")

from ipse.diffusion import Generated
from ipse.personalize import METHODS, open_method
from ipse.personalize.contract import class_of


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore::ipse.personalize.references.ReferenceWarning")
def test_a_method_keeps_to_the_contract(name, base, chosen, trained, monkeypatch):
    from ipse.images import read_image

    if name == "id-aligner-lora":
        monkeypatch.setattr(class_of(name), "tuning", 2)

    # What wraps another method is given that one's adapter.
    trains = {"freecure": "face-adapter"}.get(name, name)
    adapter = trained(trains) / f"{trains}.safetensors" if hasattr(class_of(trains), "build") else None
    method = open_method(name, base, adapter=adapter, steps=1)
    assert method.name == name and method.base is base and method.most_people >= 1 and method.strengths
    assert all(len(fingerprint) == 64 for fingerprint in method.trained_with)
    told = method.fit([read_image(path) for path in chosen.references(next(iter(chosen.people)))])
    strength = method.strengths[-1]
    made = list(told.generate("A portrait of {a woman}.", n=2, seed=5, strength=strength))
    assert all(isinstance(one, Generated) and "{" not in one.prompt for one in made)
    assert [one.seed for one in made] == [5, 6] and made[0].image.shape == (*base.size, 3)
    (again,) = told.generate("A portrait of {a woman}.", n=1, seed=6, strength=strength)
    np.testing.assert_array_equal(again.image, made[1].image)
