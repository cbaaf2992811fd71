import json

import pytest

from ipse import catalogue
from ipse.catalogue import system
from ipse.errors import DataError

ENTRY = """
from ipse.catalogue import system

@system(name="{name}", paper="A Paper", year=2024, arxiv="2401.00001", room="{room}", claim="Does it.",
        evidence=["bench.a", "bench.b.*", "bench.none"], works_means="a > b")
class Method:
    @system(name="{name} inner", paper="A Paper", year=2023, room="{room}", claim="Helps.", status="experimental")
    def step(self):
        raise RuntimeError("the catalogue must not run code")

raise ImportError("the catalogue must not import code")
"""


def package(tmp_path, **modules):
    root = tmp_path / "lab"
    for name, text in modules.items():
        path = root / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_systems_are_read_without_importing_them(tmp_path):
    root = package(
        tmp_path,
        room__late=ENTRY.format(name="Zeta", room="edit"),
        early=ENTRY.format(name="alpha", room="avatar"),
        plain="x = 1",
    )
    found = catalogue.systems(root)
    assert [entry.name for entry in found] == ["alpha", "alpha inner", "Zeta", "Zeta inner"]
    assert found[2].target == "lab.room.late:Method" and found[3].target == "lab.room.late:Method.step"
    assert found[2].evidence == ("bench.a", "bench.b.*", "bench.none") and found[3].status == "experimental"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("name=NAME, paper='p', year=1, room='r', claim='c', evidence=['e']", "literal"),
        ("name='n', year=1, room='r', claim='c', evidence=['e']", "paper"),
        ("name='n', paper=' ', year=1, room='r', claim='c', evidence=['e']", "needs a paper"),
        ("name='n', paper='p', year=1, room='r', claim='c'", "needs evidence"),
        ("name='n', paper='p', year=1, room='r', claim='c', status='great'", "none of works, experimental"),
        ("name='n', paper='p', year=1, room='r', claim='c', evidence=['e'], color='red'", "only the named"),
    ],
)
def test_entries_that_cannot_be_read_are_named(tmp_path, arguments, message):
    root = package(tmp_path, bad=f"from ipse.catalogue import system\n@system({arguments})\ndef method(): ...\n")
    with pytest.raises(DataError, match=message) as caught:
        catalogue.systems(root)
    assert "lab.bad:method" in str(caught.value) and "line 2" in str(caught.value)


def test_a_name_is_used_once(tmp_path):
    text = ENTRY.format(name="Twin", room="edit")
    with pytest.raises(DataError, match="twice"):
        catalogue.systems(package(tmp_path, a=text, b=text))


def test_the_decorator_leaves_the_function_as_it_is():
    @system(name="Local", paper="A Paper", year=2024, room="edit", claim="Does it.", evidence=["bench.a"])
    def method(x):
        return x + 1

    assert method(1) == 2 and method.__system__.name == "Local" and method.__system__.target.endswith("method")
    with pytest.raises(ValueError, match="needs evidence"):
        system(name="Local", paper="A Paper", year=2024, room="edit", claim="Does it.")(method)


def test_our_own_catalogue_is_sound():
    for entry in catalogue.systems():
        assert entry.target.startswith("ipse.")


def results(folder, name, **figures):
    entries = [{"name": key.replace("__", "."), "value": value, "unit": "%", "n": 3} for key, value in figures.items()]
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"figures": entries}))


def test_evidence_is_looked_up_by_name_and_pattern(tmp_path):
    root = package(tmp_path, a=ENTRY.format(name="Zeta", room="edit"))
    results(tmp_path / "results", "bench", bench__b__two=2, bench__a=1, bench__b__one=3, bench__bother=4)
    picked = catalogue.evidence_of(catalogue.systems(root)[0], catalogue.figures(tmp_path / "results"))
    assert [figure["name"] for figure in picked] == ["bench.a", "bench.b.one", "bench.b.two"]
    assert catalogue.figures(tmp_path / "no such folder") == {}


def test_damaged_or_repeated_figures_are_refused(tmp_path):
    results(tmp_path, "one", bench__a=1)
    results(tmp_path, "two", bench__a=1)
    with pytest.raises(DataError, match="repeats the figure"):
        catalogue.figures(tmp_path)
    (tmp_path / "one.json").write_text("[")
    with pytest.raises(DataError, match="holds no figures"):
        catalogue.figures(tmp_path)
