"""The bench: the same people and prompts for everybody, and runs that go on where they were stopped."""

import json

import numpy as np
import pytest

pytest.importorskip("diffusers")

from PIL import Image

from ipse.cli import main
from ipse.diffusion import load_base
from ipse.errors import DataError, IpseError
from ipse.faces import HogDetector
from ipse.images import read_image
from ipse.personalize import bench, marked, open_method
from ipse.personalize.bare import Bare
from ipse.personalize.listing import MANIFEST
from ipse.world.caption import facts
from ipse.world.recipe import Recipe

WANTED = ("plain", "beard", "two")


@pytest.fixture(scope="module")
def base(base_folder):
    return load_base(base_folder, device="cpu")


@pytest.fixture
def method(base):
    return open_method("bare", base, steps=1)


@pytest.fixture
def prompts():
    return {name: prompt for name, prompt in bench.prompts().items() if name in WANTED}


def rows(home):
    return [json.loads(line) for line in (home / MANIFEST).read_text().splitlines()]


def test_the_bench_is_about_a_hundred_people_whom_nothing_was_trained_on():
    recipe = Recipe.load(bench.PEOPLE)
    assert (recipe.people.start, recipe.people.count, recipe.people.balance) == (
        900_000,
        100,
        ("age", "gender", "skin"),
    )
    assert recipe.looks.count >= 4


def test_prompts_ask_for_what_the_world_can_show():
    prompts = bench.prompts()
    assert len(prompts) == 24 and sum(prompt.people == 2 for prompt in prompts.values()) == 3
    asked = {name for prompt in prompts.values() for name in prompt.asks}
    wanted = {"expression", "head", "hair_color", "glasses", "beard", "hat", "top_color", "light_side", "age_group"}
    assert wanted | {"background"} <= asked
    known = facts.__doc__
    assert all(f"``{name}``" in known or name in ("top", "top_color") for name in asked)
    assert not any(p.suits({"gender": "female", "age_group": "young"}) for p in prompts.values() if "beard" in p.asks)


def test_words_for_people_are_marked_and_change_with_the_age_that_is_asked_for():
    prompts, who = (
        bench.prompts(),
        ({"age_group": "young", "gender": "male"}, {"age_group": "elder", "gender": "female"}),
    )
    assert prompts["plain"].of(who[0]) == "A close-up portrait of {a young man}."
    assert prompts["elder"].of(who[0]) == "A close-up photo of {an elderly man}."
    text, places = marked(prompts["two"].of(*who))
    assert text == "A photo of a young man and an elderly woman."
    assert [text[a:b] for a, b in places] == ["a young man", "an elderly woman"]
    for wrong in ("A {portrait.", "A {} portrait.", "A }b{ c"):
        with pytest.raises(IpseError, match="do not mark words"):
            marked(wrong)


def test_people_are_rendered_once_with_references_of_one_face(rendered, chosen):
    detector = HogDetector()
    for name in chosen.people:
        (reference,) = chosen.references(name)
        assert len(detector.detect(read_image(reference))) == 1
        assert len(list((chosen.folder / name).glob("held-out-*.png"))) == 8
    assert chosen.people["000002"] == {"age_group": "young", "gender": "female"} and not chosen.left_out
    stamp = (chosen.folder / "set.json").stat().st_mtime_ns
    assert bench.prepare(rendered, detector, people=3, start=1) == chosen
    assert (chosen.folder / "set.json").stat().st_mtime_ns == stamp
    with pytest.raises(DataError, match="no 3 references"):
        bench.prepare(rendered, detector, references=3)
    detector.name = "another"
    with pytest.raises(DataError, match="people of another bench"):
        bench.prepare(rendered, detector, people=3, start=1)


def test_a_run_that_was_stopped_goes_on(method, chosen, prompts, tmp_path):
    home = bench.make_pictures(method, chosen, tmp_path, prompts=prompts, n=2, settings={"steps": 1})
    first = rows(home)
    # Three people; a beard is asked of none of them but the man.
    adults = [name for name, known in chosen.people.items() if prompts["beard"].suits(known)]
    assert len(first) == 2 * (3 + len(adults) + 3) and {len(row["person"]) for row in first} == {1, 2}
    assert all((home / row["picture"]).exists() and row["strength"] == 0 for row in first)
    assert len({row["seed"] for row in first}) == len(first), "people, prompts and numbers have noise of their own"
    held = {row["picture"]: (home / row["picture"]).read_bytes() for row in first}
    gone, cut = first[3]["picture"], first[-1]["picture"]
    (home / gone).unlink()
    text = (home / MANIFEST).read_text()
    (home / MANIFEST).write_text(text[:-20])
    stamps = {name: (home / name).stat().st_mtime_ns for name in held if name not in (gone, cut)}
    seen = []
    bench.make_pictures(
        method, chosen, tmp_path, prompts=prompts, n=2, settings={"steps": 1}, on_progress=lambda *a: seen.append(a)
    )
    assert {name: (home / name).stat().st_mtime_ns for name in stamps} == stamps, "nothing is made twice"
    assert {name: (home / name).read_bytes()[:8] for name in held} == dict.fromkeys(held, b"\x89PNG\r\n\x1a\n")
    for name in (gone, cut):
        again, before = home / name, tmp_path / "before.png"
        before.write_bytes(held[name])
        np.testing.assert_array_equal(read_image(again), read_image(before))
    assert seen[-1] == (len(first), len(first)) and {row["picture"] for row in rows(home)} == set(held)


def test_pictures_made_otherwise_are_not_mixed(method, chosen, prompts, tmp_path):
    given = {"prompts": {"plain": prompts["plain"]}}
    bench.make_pictures(method, chosen, tmp_path, **given, settings={"steps": 1})
    with pytest.raises(DataError, match="made with other settings"):
        bench.make_pictures(method, chosen, tmp_path, **given, settings={"steps": 2})
    with pytest.raises(DataError, match="made with other prompts, seed"):
        bench.make_pictures(method, chosen, tmp_path, prompts=prompts, settings={"steps": 1}, seed=4)


def test_who_can_show_one_person_is_not_asked_for_two(base, chosen, prompts, tmp_path):
    class Alone(Bare):
        name, most_people, strengths = "alone", 1, (0.5, 1.0)

    home = bench.make_pictures(Alone(base, 1), chosen, tmp_path, prompts=prompts, settings={})
    alone = rows(home)
    assert {len(row["person"]) for row in alone} == {1} and {row["strength"] for row in alone} == {0.5, 1.0}
    bare = bench.make_pictures(Bare(base, 1), chosen, tmp_path, prompts=prompts, settings={})
    noise = {(*row["person"], row["prompt"]): row["seed"] for row in rows(bare)}
    assert all(noise[*row["person"], row["prompt"]] == row["seed"] for row in alone), "all start from the same noise"


def test_a_picture_says_what_made_it(method, chosen, prompts, tmp_path):
    home = bench.make_pictures(method, chosen, tmp_path, prompts={"plain": prompts["plain"]})
    with Image.open(home / rows(home)[0]["picture"]) as picture:
        said = json.loads(picture.text["ipse"])
    assert said["prompt"].startswith("A close-up portrait of a") and said["base"]["sha256"] == method.base.fingerprint


def test_a_method_that_is_not_there_is_named(base):
    with pytest.raises(IpseError, match="There are: bare"):
        open_method("nothing", base)


def test_the_command_makes_and_scores(rendered, base_folder, tmp_path, capsys):
    (tmp_path / "prompts.yaml").write_text(
        "prompts:\n  - {name: plain, text: 'A portrait of {subject}.'}\n"
        "  - {name: cap, text: 'A portrait of {subject}, wearing a cap.', asks: {hat: cap}}\n"
    )
    command = ["bench", "personalize", "--method", "bare", "--base", str(base_folder), "--out", str(rendered)]
    command += ["--prompts", str(tmp_path / "prompts.yaml"), "--people", "3", "--start", "1", "--steps", "1"]
    with pytest.raises(SystemExit) as left:
        main([*command, "-n", "1", "--results", str(tmp_path)])
    out = capsys.readouterr().out
    assert left.value.code == 0 and "bare" in out and "real pictures" in out
    record = json.loads((rendered / "scores-people-1-3-1" / "scores.json").read_text())
    (bare,) = record["methods"]
    assert bare["method"] == "bare" and bare["pictures"] == 6
    # A network whose weights were drawn by chance hardly paints a face, and where none is found nobody is recognized.
    failures = bare["figures"]["detection_failures"]["value"]
    assert failures > 0.5 and bare["figures"]["rank1"]["value"] <= 1 - failures
    evidence = json.loads((tmp_path / "personalize.json").read_text())["figures"]
    found = {figure["name"]: figure for figure in evidence}
    assert found["personalize.bare.rank1"]["value"] == 0 and found["personalize.ceiling.rank1"]["value"] > 80
    assert found["personalize.floor.rank1"]["value"] == pytest.approx(100 / 3)
    assert found["personalize.bare.seconds"]["unit"] == "s" and found["personalize.bare.rank1"]["n"] == 3


def test_a_base_of_whole_bodies_is_refused(body_folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["bench", "personalize", "--method", "bare", "--base", str(body_folder), "--out", str(tmp_path)])
    assert left.value.code == 2 and "whole bodies" in " ".join(capsys.readouterr().err.split())
