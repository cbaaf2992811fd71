import statistics

import pytest

from ipse.errors import WorldError
from ipse.world.draws import Draws, pick, truncated_normal
from ipse.world.look import Glasses, Hat, Look, look
from ipse.world.person import Person, person
from ipse.world.shot import Shot, shot
from ipse.world.values import Value, leaves

SAMPLERS = {
    Person: lambda n, **kw: person(n, **kw),
    # Somebody who may wear anything.
    Look: lambda n, **kw: look(n, Person(gender=0.02, age=30, number=1), **kw),
    Shot: lambda n, **kw: shot(n, **kw),
}


def at(value, path):
    """What lies at a dotted path; None where an optional part on the way is absent."""
    for name in path.split("."):
        if value is None:
            return None
        value = getattr(value, name) if isinstance(value, Value) else value.get(name, 0.0)
    return value


@pytest.mark.parametrize("cls", SAMPLERS)
def test_every_field_can_be_fixed(cls):
    sample = SAMPLERS[cls]
    donors = [sample(n) for n in range(1, 60)]
    for path, leaf in leaves(cls).items():
        if path == "number":
            continue
        wanted = next((v for donor in donors if (v := at(donor, path)) not in (None, ())), None)
        assert wanted is not None or path == "pose.joints", path
        if leaf.kind == "numbers":
            got = at(sample(0, fix={path: wanted}), path)
            assert {name: got[name] for name in wanted} == wanted
        else:
            assert at(sample(0, fix={path: wanted}), path) == wanted, path


@pytest.mark.parametrize("cls", SAMPLERS)
def test_every_number_keeps_to_its_range(cls):
    sample = SAMPLERS[cls]
    donors = [sample(n) for n in range(1, 60)]
    for path, leaf in leaves(cls).items():
        if leaf.kind != "number" or path.startswith(("shape.", "expression.")):
            continue
        donor = next(donor for donor in donors if at(donor, path) is not None)
        wanted = at(donor, path)
        # Everything else around it is the donor's, so that an optional part is there.
        part, _, inside = path.rpartition(".")
        fix = (
            {f"{part}.{name}": value for name, value in at(donor, part).to_dict().items() if name != inside}
            if part
            else {}
        )
        assert at(sample(0, fix=fix, ranges={path: (wanted, wanted)}), path) == pytest.approx(wanted, abs=1e-4), path


@pytest.mark.parametrize(
    ("cls", "path", "value"),
    [
        (Person, "skin.undertone", 0.77),
        (Person, "brows.arch", 0.9),
        (Person, "shape.nose-hump-incr", 0.5),
        (Person, "lashes", 0.5),
        (Look, "shoes", "red"),
        (Look, "glasses", Glasses("round")),
        (Look, "hat.kind", "beanie"),
        (Look, "top.fit", 0.9),
        (Shot, "background.kind", "park"),
        (Shot, "degrade.blur_px", 1.0),
        (Shot, "expression.tongueOut", 0.5),
        (Shot, "head.roll", 3.0),
    ],
)
def test_fixing_a_field_leaves_the_others(cls, path, value):
    for n in range(10):
        before, after = SAMPLERS[cls](n), SAMPLERS[cls](n, fix={path: value})
        top = path.split(".")[0]
        for name in before.to_dict():
            if name != top:
                assert getattr(after, name) == getattr(before, name)
        old = getattr(before, top)
        if "." in path and old is not None:
            leaf = path.removeprefix(f"{top}.")
            new = getattr(after, top)
            for name in old if not isinstance(old, Value) else old.to_dict():
                if name != leaf:
                    assert at(new, name) == at(old, name)


def test_a_range_leaves_what_lies_in_it():
    for n in range(30):
        before, after = shot(n), shot(n, ranges={"head.yaw": (-10, 10)})
        assert -10 <= after.head.yaw <= 10
        if -10 <= before.head.yaw <= 10:
            assert after == before
        assert after.replace(head=before.head, gaze=before.gaze) == before


def test_parts_are_fixed_whole_or_in_fields():
    wanted = Hat("beanie", "red")
    assert look(0, person(0), fix={"hat": wanted}).hat == wanted
    assert look(0, person(0), fix={"hat": wanted.to_dict()}).hat == wanted
    assert look(0, person(0), fix={"hat.kind": "beanie"}).hat.kind == "beanie"
    assert all(look(n, person(0), fix={"hat": None}).hat is None for n in range(30))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: person(0, fix={"ages": 3}), ["'ages'", "Did you mean 'age'"]),
        (lambda: person(0, fix={"age": 3}), ["Person.age", "3", "5", "85"]),
        (lambda: person(0, fix={"age": "old"}), ["Person.age", "'old'"]),
        (lambda: person(0, fix={"skin": 3}), ["skin", "3", "mapping"]),
        (lambda: look(0, person(0), fix={"hat": None, "hat.kind": "cap"}), ["hat", "choose one"]),
        (lambda: look(0, person(0), fix={"hair.style": "mohawk"}), ["'mohawk'", "bald"]),
        (lambda: look(0, person(0), fix={"top.kind": "skirt"}), ["Look.top", "skirt", "tshirt"]),
        (lambda: look(0, person(0), fix={"makeup": None}), ["makeup", "None"]),
        (lambda: person(0, ranges={"hair.color": (0, 1)}), ["'hair.color'", "number"]),
        (lambda: person(0, ranges={"age": (30, 20)}), ["age", "(30, 20)"]),
        (lambda: person(0, ranges={"age": 30}), ["age", "(low, high)"]),
        (lambda: person(0, ranges={"age": (1, 20)}), ["Person.age", "1", "5", "85"]),
        (lambda: person(0, fix={"age": 30}, ranges={"age": (20, 40)}), ["age", "both"]),
        (lambda: person(-1), ["-1", "0, 1, 2"]),
        (lambda: person(1.5), ["1.5"]),
        (lambda: shot(True), ["True"]),
    ],
)
def test_errors(make, says):
    with pytest.raises(WorldError) as caught:
        make()
    for word in says:
        assert word in str(caught.value)


def test_draws_are_even_and_normal():
    draws = Draws(Person, ("test", 0))
    uniforms = draws.uniforms("a", 4000)
    assert 0 <= min(uniforms) < max(uniforms) < 1
    assert statistics.fmean(uniforms) == pytest.approx(0.5, abs=0.02)
    normals = draws.normals("b", 4000)
    assert statistics.fmean(normals) == pytest.approx(0, abs=0.05)
    assert statistics.stdev(normals) == pytest.approx(1, abs=0.04)
    # More draws from one field begin with the same ones.
    assert draws.uniforms("a", 3) == uniforms[:3]


def test_pick_follows_the_weights():
    weights = {"a": 1.0, "b": 0.0, "c": 3.0}
    assert [pick(u, weights) for u in (0.0, 0.24, 0.26, 0.999999)] == ["a", "a", "c", "c"]
    assert pick(1.0, weights) == "c"


def test_truncated_normal_stays_inside():
    found = [truncated_normal(u / 100, 0, 1, -0.5, 2) for u in range(101)]
    assert found == sorted(found)
    assert found[0] == pytest.approx(-0.5, abs=1e-6)
    assert found[-1] == pytest.approx(2, abs=1e-6)
    # Far out in the tail there is hardly any probability left to invert.
    assert truncated_normal(0.5, 0, 1, 20, 21) == 20
