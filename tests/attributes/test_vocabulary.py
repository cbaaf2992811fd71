"""One vocabulary: the world's facts, what networks tell and CelebA's names are the same words."""

import pytest

from ipse.attributes import CELEBA, VOCABULARY, celeba_labels
from ipse.world import look, person, shot
from ipse.world.caption import facts

# Facts that are no attributes of a person: where the picture was taken, what else is in it, and directions in words.
OTHER = {
    *("background", "background_color", "light_side", "light_tone", "head", "head_pitch", "gaze"),
    *("hat_color", "mask_color", "scarf_color"),
}


@pytest.fixture(scope="module")
def told():
    """Values of each fact over many portraits; nothing is rendered."""
    found = {}
    for number in range(400):
        who = person(number)
        for name, value in facts(who, look(number, who), shot(number), "portrait").items():
            found.setdefault(name, set()).add(value)
    return found


def test_the_worlds_facts_are_in_it(told):
    assert len(told) > 15
    for name, values in told.items():
        if name not in OTHER:
            assert values <= set(VOCABULARY[name].values), name


def test_it_has_no_values_that_the_world_never_tells(told):
    for name, attribute in VOCABULARY.items():
        if attribute.values and name not in ("mask", "scarf", "quality"):
            assert len(set(attribute.values) - told[name]) <= len(attribute.values) // 3, name


def test_what_hides_an_attribute_is_in_it():
    for attribute in VOCABULARY.values():
        for other, value in attribute.hidden_by:
            assert VOCABULARY[other].said(value)
        if attribute.otherwise:
            assert set(attribute.otherwise.but) < set(attribute.values)
            assert attribute.otherwise.name not in attribute.values


def test_the_forty_names_of_celeba():
    assert len(CELEBA) == 40 and list(CELEBA) == sorted(CELEBA, key=str.lower)
    for says in filter(None, CELEBA.values()):
        assert set(says.values) <= set(VOCABULARY[says.attribute].values)
        assert says.below is None or VOCABULARY[says.attribute].unit


def test_values_become_celeba_labels():
    values = {"gender": "male", "beard": "stubble", "glasses": "none", "age": 52.0, "hair_color": "light brown"}
    assert celeba_labels(values) == {
        **{"Male": True, "5_o_Clock_Shadow": True, "Goatee": False, "Mustache": False, "No_Beard": False},
        **{"Eyeglasses": False, "Young": False, "Brown_Hair": True, "Black_Hair": False, "Blond_Hair": False},
        "Gray_Hair": False,
    }
    # Somebody with glasses of any kind wears glasses; of a beard of any kind nobody knows whether it is a goatee.
    assert celeba_labels({"glasses": "worn", "beard": "worn"}) == {"Eyeglasses": True, "No_Beard": False}
    assert celeba_labels({"expression": "other"}) == {"Smiling": False}
    assert celeba_labels({"lipstick": "red"}) == {"Wearing_Lipstick": True}
    assert celeba_labels({}) == {}
