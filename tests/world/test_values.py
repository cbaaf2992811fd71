import copy
import json
import math
import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from ipse.errors import WorldError
from ipse.world.colors import COLORS, HAIR_COLORS, nearest
from ipse.world.look import Garment, Glasses, Hat, Look, look
from ipse.world.person import Mark, Person, Skin, person
from ipse.world.shot import Shot, shot
from ipse.world.values import Color, Numbers, leaves, mix, wrap_degrees

SAMPLES = [
    *(person(n) for n in range(4)),
    *(look(n, person(n)) for n in range(8)),
    *(shot(n, framing, hard=n == 1) for n in range(2) for framing in ("portrait", "bust", "person", "ear")),
    Person(),
    Look(),
    Shot(),
]


@pytest.mark.parametrize("value", SAMPLES, ids=lambda value: type(value).__name__)
def test_json_and_back(value):
    assert type(value).from_json(value.to_json()) == value
    assert type(value).from_dict(value.to_dict()) == value
    assert type(value).from_dict(json.loads(json.dumps(value.to_dict()))).to_json() == value.to_json()


@pytest.mark.parametrize("value", SAMPLES[:6], ids=lambda value: type(value).__name__)
def test_values_can_be_hashed_copied_and_sent_to_other_processes(value):
    for twin in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
        assert twin == value
        assert hash(twin) == hash(value)


def test_values_do_not_change():
    with pytest.raises(FrozenInstanceError):
        Person().age = 3
    with pytest.raises(TypeError):
        person(0).shape["nose-hump-incr"] = 1


def test_absent_fields_take_their_defaults():
    assert Person.from_dict({"age": 8}) == Person(age=8)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Person(age=4), ["Person.age", "4", "5", "85"]),
        (lambda: Person(age=math.nan), ["Person.age", "nan", "5", "85"]),
        (lambda: Person(age="old"), ["Person.age", "'old'"]),
        (lambda: Person(age=True), ["Person.age", "True"]),
        (lambda: Person(number=-1), ["Person.number", "-1"]),
        (lambda: Person(ancestry=(1, 1, 1)), ["Person.ancestry", "sum to 1"]),
        (lambda: Person(ancestry=(1, 0)), ["Person.ancestry", "2", "3"]),
        (lambda: Person(ancestry=1.0), ["Person.ancestry", "1.0", "sequence"]),
        (lambda: Person(shape={"nose-hump": 0.1}), ["Person.shape", "'nose-hump'", "nose-hump-incr"]),
        (lambda: Person(shape={"nose-hump-incr": 2}), ["nose-hump-incr", "2", "-1", "1"]),
        (lambda: Person(shape=3), ["Person.shape", "3", "mapping"]),
        (lambda: Person(skin=3), ["Person.skin", "3", "Skin"]),
        (lambda: Person(skin={"tone": 11}), ["Skin.tone", "11", "10"]),
        (lambda: Person(skin={"color": 1}), ["Skin", "'color'", "tone"]),
        (lambda: Skin(moles=[{"u": 3}]), ["Mark.u", "3", "-1", "1"]),
        (lambda: Look(hair={"style": "mohawk"}), ["HairStyle.style", "'mohawk'", "bald", "tied"]),
        (lambda: Look(hair={"style": 3}), ["HairStyle.style", "3"]),
        (lambda: Look(top=Garment(kind="skirt")), ["Look.top", "skirt", "tshirt"]),
        (lambda: Look(dress=Garment(kind="jeans")), ["Look.dress", "jeans", "dress"]),
        (lambda: Hat(color="blurple"), ["Hat.color", "'blurple'", "purple"]),
        (lambda: Hat(color=Color("auburn", (0, 0, 0))), ["Hat.color", "'auburn'", "navy"]),
        (lambda: Hat(color=(2, 0, 0)), ["Hat.color", "2", "0", "1"]),
        (lambda: Shot(degrade={"jpeg": 0.5}), ["Degrade.jpeg", "0.5", "whole"]),
        (lambda: Shot(expression={"frown": 1}), ["Shot.expression", "'frown'"]),
        (lambda: Person().replace(size=3), ["Person", "'size'", "height"]),
        (lambda: Look().replace(**{"hat.kind": "cap"}), ["Look.hat", "None", "as a whole"]),
        (lambda: Look().replace(**{"hair": {}, "hair.style": "long"}), ["Look.hair", "both"]),
        (lambda: Person.from_dict([1]), ["Person", "mapping"]),
        (lambda: Person.from_json("{"), ["Person", "JSON"]),
    ],
)
def test_errors_name_the_field_the_value_and_what_is_allowed(make, says):
    with pytest.raises(WorldError) as caught:
        make()
    for word in says:
        assert word in str(caught.value)


def test_replace_reaches_inside():
    before = look(3, person(3))
    after = before.replace(**{"hair.style": "long", "top.color": "red", "glasses": {"style": "round"}})
    assert after.hair.style == "long"
    assert after.top.color == Color("red", COLORS["red"])
    assert after.glasses == Glasses("round")
    assert after.replace(hair=before.hair, glasses=before.glasses, **{"top.color": before.top.color}) == before


def test_replace_changes_one_entry_of_a_mapping():
    before = person(0)
    after = before.replace(**{"shape.nose-hump-incr": 0.5})
    assert after.shape["nose-hump-incr"] == 0.5
    assert {k: v for k, v in after.shape.items() if k != "nose-hump-incr"} == {
        k: v for k, v in before.shape.items() if k != "nose-hump-incr"
    }


def test_numpy_numbers_become_plain_ones():
    made = Person(age=np.float32(30), number=np.int64(4), ancestry=np.array([1.0, 0, 0]))
    assert type(made.age) is float
    assert type(made.number) is int
    assert Person.from_json(made.to_json()) == made


def test_colors_by_name_by_numbers_or_as_they_are():
    assert Hat(color="red").color == Color("red", COLORS["red"])
    assert Hat(color=(0.8, 0.1, 0.1)).color == Color("red", (0.8, 0.1, 0.1))
    assert Hat(color={"name": "red", "rgb": [0.7, 0, 0]}).color == Color("red", (0.7, 0.0, 0.0))


@pytest.mark.parametrize("palette", [COLORS, HAIR_COLORS])
def test_every_color_is_nearest_to_itself(palette):
    assert [nearest(rgb, palette) for rgb in palette.values()] == list(palette)


def test_numbers_are_sorted_and_compare_with_mappings():
    numbers = Numbers({"b": 2.0, "a": 1.0})
    assert numbers.pairs == (("a", 1.0), ("b", 2.0))
    assert numbers == {"a": 1.0, "b": 2.0}
    assert len(numbers) == 2
    assert "a" in repr(numbers)


def test_leaves_know_every_path():
    paths = leaves(Person)
    assert paths["age"].kind == "number"
    assert paths["skin"].kind == "part"
    assert paths["skin.tone"].kind == "number"
    assert paths["skin.moles"].kind == "value"
    assert paths["shape"].kind == "numbers"
    assert paths["shape.nose-hump-incr"].kind == "number"
    assert paths["hair.color"].kind == "value"


def test_small_helpers():
    assert wrap_degrees(190) == -170
    assert wrap_degrees(-370) == -10
    assert mix((0, 0, 0), (1, 1, 1), 0.25) == (0.25, 0.25, 0.25)
    assert Mark().size_mm == 2
