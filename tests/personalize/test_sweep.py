"""The sweep that trains and measures all systems: its plan, its queue, and small runs from beginning to end."""

import itertools
import json
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("diffusers")
pytest.importorskip("accelerate")

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import personalize as sweep
from ipse.attributes.judge import open_judge
from ipse.diffusion.training.recipe import options_of
from ipse.errors import IpseError, WeightsError
from ipse.faces.landmarks import five_of
from ipse.images import read_image, save_png
from ipse.measure import Evidence
from ipse.measure.personalization import mean_of
from ipse.personalize import METHODS, bench
from ipse.personalize.bodies import BodyReader
from ipse.personalize.contract import class_of
from ipse.personalize.listing import Made, read_people
from ipse.personalize.scoring import Curve, Scores, score
from personalize_claims import (
    CLAIMS,
    SCENE,
    Claim,
    Measured,
    Missing,
    accurate,
    add_claims,
    ahead,
    between,
    gain,
    laid_on,
    reached,
)

SMALL = {"people": 3, "start": 1}


@pytest.fixture
def setting(base, portraits, cache, rendered, tmp_path):
    """Of two steps and few pictures, of people who are rendered already."""
    for folder in rendered.iterdir():
        if folder.is_dir():
            shutil.copytree(folder, tmp_path / folder.name)
    return sweep.Setting(base, [portraits], tmp_path, steps=2, batch=4, trial=SMALL, cache=cache)


def plan_of(*names):
    """Some trainings with pictures at full strength, and the bare base."""
    shown = {name: replace(sweep.SHOWN[name], strengths=(1.0,), twice=False) for name in names}
    trainings = {name: sweep.TRAININGS[name] for name in {told.training for told in shown.values()}}
    return sweep.Plan(trainings, {"bare": replace(sweep.SHOWN["bare"], twice=False)} | shown)


def off(setting, plan, *, pictures=True):
    jobs = sweep.jobs_of(setting, plan, pictures=pictures)
    return sweep.work_off(jobs, lambda job: sweep.is_done(setting, plan, job), sweep.in_process(setting, plan), 1, 0)


# --- The plan -----------------------------------------------------------------------------------------------------


def test_every_system_is_trained_shown_and_held_to_its_claim():
    # The pictures of the sweep are portraits; benchmarks/pose2id.py has whole bodies.
    bodies = {name for name in METHODS if getattr(class_of(name), "reads", None) is BodyReader}
    adapters = {path.stem for path in sweep.RECIPES.glob("*.yaml")} - bodies
    assert {training.system for training in sweep.TRAININGS.values()} == adapters
    assert {*sweep.SYSTEMS} == METHODS.keys() - {"bare", "id-aligner-lora"} - bodies == CLAIMS.keys()
    assert all(own[0].part == "" or any(claim.part == "" for claim in own) for own in CLAIMS.values())


@pytest.mark.parametrize("name", sweep.TRAININGS)
def test_changes_are_options_of_the_system(base, tmp_path, name):
    setting, training = sweep.Setting(base, [], tmp_path), sweep.TRAININGS[name]
    recipe = setting.recipe(name, training)
    options = options_of(class_of(training.system).options_kind, recipe)
    assert all(getattr(options, key) == value for key, value in training.options.items())
    assert recipe.steps == sweep.OTHER_STEPS.get(training.system, sweep.STEPS)
    plain = setting.recipe(training.system, sweep.TRAININGS[training.system])
    assert "." not in name or recipe.fingerprint != plain.fingerprint, "what is other decides the folder"


def test_a_system_comes_with_what_it_is_held_against():
    plan = sweep.Plan.of(["freecure"])
    assert {"bare", "freecure", "freecure.photoverse", "face-adapter", "photoverse"} <= plan.shown.keys()
    assert {"face-adapter.seed-1", "face-adapter.seed-2", "photoverse"} <= plan.trainings.keys()
    assert "instantid" not in plan.trainings
    plan = sweep.Plan.of(["id-aligner"], ["id-aligner", "instantid"])
    assert plan.trainings["id-aligner.seed-1"].start == "face-adapter.seed-1" in plan.trainings
    assert plan.trainings["id-aligner.seed-1"].seed == plan.trainings["face-adapter.seed-1"].seed == 1
    assert "instantid.seed-1" not in plan.trainings


def test_a_job_knows_all_that_the_plan_of_its_run_can_have(base_folder, portraits, cache, tmp_path):
    # PhotoVerse is among the best, and FreeCure is held against it.
    assert "photoverse.seed-1" in sweep.Plan.of(["freecure"], ["photoverse"]).shown
    given = ["--base", base_folder, "--data", portraits, "--cache", cache, "--work", tmp_path / "work", "--dry"]
    given += ["--only", "freecure", "--job", "show photoverse.seed-1"]
    with pytest.raises(WeightsError, match=r"There is no adapter .*photoverse.seed-1"):
        sweep.main([str(word) for word in given])


def test_other_data_or_a_trial_begin_anew(base, portraits, tmp_path):
    whole = sweep.Setting(base, [portraits], tmp_path)
    shutil.copytree(portraits, tmp_path / "more")
    assert whole.home == replace(whole, data=[tmp_path / "more"]).home, "wherever they are"
    assert whole.home != replace(whole, data=[portraits, tmp_path / "more"]).home
    assert whole.home != replace(whole, trial=SMALL).home


def test_faces_are_told_places_that_training_has(base, portraits, cache, tmp_path):
    setting = sweep.Setting(base, [portraits], tmp_path, cache=cache)
    five = np.nanmedian(setting.store(sweep.TRAININGS["face-adapter"])["five"], 0)
    left, right = np.array(sweep.POSES)
    # Of two people each is a quarter of the width aside, and as large as one alone.
    for pose in (np.array(sweep.POSE), left + [0.25, 0], right - [0.25, 0]):
        assert np.abs(pose - five).max() < 0.06
        np.testing.assert_allclose(shape_of(pose), shape_of(five), rtol=0.15)


def shape_of(five):
    """The distance of the eyes over that from eyes to mouth."""
    return np.linalg.norm(five[1] - five[0]) / np.linalg.norm(five[3:].mean(0) - five[:2].mean(0))


def test_everybody_and_every_prompt_is_in_one_group(tmp_path):
    people = bench.BenchSet(tmp_path, {}, {f"{900000 + i}": {"gender": "male"} for i in range(100)})
    groups = sweep.groups_of(people, sweep.GROUPS, sweep.EACH)
    names = [name for own, _ in groups for name in own.people]
    asked = [name for _, prompts in groups for name, prompt in prompts.items() if prompt.people == 1]
    assert len(names) == len({*names}) == sweep.GROUPS * sweep.EACH
    assert sorted(asked) == sorted(name for name, prompt in bench.prompts().items() if prompt.people == 1)
    fewer = sweep.groups_of(people, sweep.GROUPS, 1)
    assert all({*b.people} < {*a.people} for (a, _), (b, _) in zip(groups, fewer, strict=True))


@pytest.fixture(scope="module")
def base_folder(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    base.pipeline.save_pretrained(folder)
    (folder / "ipse.json").write_text(json.dumps({"name": "tiny", "sha256": {}}))
    return folder


def test_a_judge_that_is_not_there_is_said_first(base_folder, portraits, cache, tmp_path):
    given = ["--base", base_folder, "--data", portraits, "--cache", cache, "--work", tmp_path / "work", "--dry"]
    given += ["--only", "face-adapter", "--steps", 1, "--batch", 2, "--seeds", 1, "--workers", 0, "--minutes", 1]
    with pytest.raises(WeightsError):
        sweep.main([str(word) for word in (*given, "--judge", tmp_path / "none.safetensors")])
    assert not [*(tmp_path / "work").rglob("record.json")]


def test_looking_goes_on_whatever_a_sudden_end_left(base, portraits, tmp_path):
    setting = sweep.Setting(base, [portraits], tmp_path, cache=tmp_path / "cache")
    training = sweep.TRAININGS["face-adapter"]
    with pytest.raises(sweep.TimeIsUp):
        replace(setting, end=time.monotonic()).store(training)["five"]
    (place,) = (tmp_path / "cache").rglob("five-*.count")
    store = setting.store(training)
    assert int(place.read_text()) == len(store.corpus.pixels)
    place.write_text("")
    assert np.isfinite(store["five"]).any() and not place.exists()


@pytest.mark.filterwarnings("ignore::ipse.personalize.references.ReferenceWarning")
def test_time_can_be_up_while_pictures_are_judged(base_folder, portraits, cache, tmp_path):
    given = ["--base", base_folder, "--data", portraits, "--cache", cache, "--work", tmp_path / "work", "--dry"]
    given += ["--only", "face-adapter", "--steps", 1, "--batch", 4, "--seeds", 1, "--workers", 0]
    whole = [str(word) for word in given]
    assert sweep.main(whole) == sweep.FINISHED
    assert sweep.main([*whole, "--minutes", "0"]) == sweep.UP, "all is made, and not all judged"


# --- The queue ----------------------------------------------------------------------------------------------------


def test_jobs_wait_for_what_they_need_and_no_longer_than_it_can_come():
    jobs = {"a": (), "b": ("a",), "c": (), "d": ("c",), "e": ("d", "b"), "f": ("elsewhere",), "g": ("b",)}
    begun, at_once, most = [], set(), 0

    def start(job):
        nonlocal most
        begun.append(job)
        at_once.add(job)
        most = max(most, len(at_once))
        turns = iter([None, None, {"c": 1, "g": sweep.UP}.get(job, 0)])

        def poll():
            status = next(turns)
            if status is not None:
                at_once.discard(job)
            return status

        return poll

    left = sweep.work_off(jobs, lambda job: job == "a", start, 2, 0)
    assert left == {"c": "it failed with status 1", "d": "it waits for: c", "e": "it waits for: d", "g": "time was up"}
    assert "a" not in begun and most == 2 and {*begun} == {"b", "c", "f", "g"}


@pytest.mark.filterwarnings("ignore::ipse.personalize.references.ReferenceWarning")
def test_a_training_that_was_stopped_comes_to_the_same(setting, tmp_path):
    plan = plan_of("face-adapter")
    assert off(setting, plan, pictures=False) == {}
    whole = setting.adapter("face-adapter", plan.trainings["face-adapter"])
    cut = replace(setting, work=tmp_path / "cut")
    up = replace(cut, end=time.monotonic())
    for job in ("look five", "look face", "look vector"):
        assert sweep.work(cut, plan, job)
    assert not sweep.work(up, plan, "train face-adapter")
    folder = cut.run("face-adapter", plan.trainings["face-adapter"])
    assert (folder / "checkpoint.pt").exists() and not (folder / "record.json").exists()
    assert not sweep.is_done(cut, plan, "train face-adapter")
    assert off(cut, plan, pictures=False) == {}
    assert (folder / whole.name).read_bytes() == whole.read_bytes()


@pytest.mark.filterwarnings("ignore::ipse.personalize.references.ReferenceWarning")
def test_from_pictures_to_claims(setting):
    plan = plan_of("facechain-fact", "facechain-fact.no-fair")
    up = replace(setting, end=time.monotonic())
    assert sweep.work(setting, plan, "people") and not sweep.work(up, plan, "show bare")
    assert not sweep.is_done(setting, plan, "show bare"), "one picture is not all"
    assert off(setting, plan) == {}
    with pytest.raises(sweep.TimeIsUp):
        sweep.scored(replace(setting, end=time.monotonic()), plan)

    def never(job):
        raise AssertionError(f"{job} is done already")

    jobs = sweep.jobs_of(setting, plan, pictures=True)
    assert sweep.work_off(jobs, lambda job: sweep.is_done(setting, plan, job), never, 1, 0) == {}

    evidence = Evidence("personalize", command="sweep")
    scores = sweep.measure(setting, plan, evidence, ["facechain-fact"])
    drawn = setting.drawn(scores.people)
    assert all((figure.groups == drawn).all() for curve in scores.curves for figure in curve.figures.values())
    assert sorted(drawn) == [0, 0, 1], "three people in two groups"
    assert {curve.method for curve in scores.curves} == {"bare", "facechain-fact", "facechain-fact.no-fair"}
    found = {figure["name"]: figure for figure in evidence.figures}
    assert {"personalize.facechain-fact.rank1", "personalize.bare.rank1", "personalize.ceiling.rank1"} <= found.keys()
    claim = found["personalize.facechain-fact.claim"]
    assert claim["against"]["name"] == "without FAIR" and "1 training seed of 2 steps" in claim["note"]
    assert "personalize.facechain-fact.claim_pose" not in found, "nothing was shown to hold it against"
    assert (setting.home / "report" / "index.html").exists()
    # Another adapter, other pictures.
    (setting.adapter("facechain-fact", plan.trainings["facechain-fact"])).write_bytes(b"another")
    assert not sweep.is_done(setting, plan, "show facechain-fact")
    assert sweep.is_done(setting, plan, "show facechain-fact.no-fair")


# --- Claims -------------------------------------------------------------------------------------------------------


def test_a_curve_reaches_the_most_of_what_lies_at_its_right():
    x, y = [0.9, 0.6, 0.2], [0.1, 0.4, 0.5]
    assert reached(x, y, 0.75) == pytest.approx(0.25)
    assert reached(x, y, 0.6) == pytest.approx(0.4)
    assert reached(x, y, 0.0) == 0.5 and reached(x, y, 1.0) == 0.1
    # A curve that turns: what has more of both is what counts.
    assert reached([0.5, 0.8], [0.2, 0.6], 0.6) == 0.6
    draws = [np.array([0.9, 0.9]), np.array([0.5, 0.7])], [np.array([0.0, 0.0]), np.array([0.4, 0.4])]
    np.testing.assert_allclose(reached(*draws, np.array([0.7, 0.7])), [0.2, 0.4])


def test_faces_are_laid_on_each_other():
    draw = np.random.default_rng(0)
    points = draw.random((70, 2))
    turned = 1.7 * points @ np.array([[0.8, 0.6], [-0.6, 0.8]]) + [3, 4]
    np.testing.assert_allclose(laid_on(turned, points), points, atol=1e-9)


PEOPLE = 12


def figures_of(noise, **values):
    """Figures of everybody, near to values."""
    person = np.arange(PEOPLE)
    return {name.replace("__", "."): mean_of(value + noise, person, PEOPLE) for name, value in values.items()}


@pytest.fixture
def measured():
    """Constructed scores: by name and strength, similarity and prompt accuracy."""
    draw = np.random.default_rng(0)
    given = {
        ("bare", 0.0): (0.2, 0.9), ("face-adapter", 0.5): (0.3, 0.8), ("face-adapter", 1.0): (0.4, 0.6),
        ("face-adapter.seed-1", 1.0): (0.6, 0.7), ("arc2face", 1.0): (0.5, 0.6), ("arc2face.seed-1", 1.0): (0.6, 0.6),
        ("dp-adapter", 1.0): (0.5, 0.7), ("freecure", 1.0): (0.42, 0.75), ("id-aligner", 1.0): (0.35, 0.6),
    }  # fmt: skip
    shared = 0.05 * draw.standard_normal(PEOPLE)
    curves = [
        Curve(method, strength, PEOPLE, figures_of(shared + 0.001 * draw.standard_normal(PEOPLE), sim_held_out=alike,
              prompt_accuracy=words), {}, [])
        for (method, strength), (alike, words) in given.items()
    ]  # fmt: skip
    scores = Scores(curves, {}, {}, [str(i) for i in range(PEOPLE)], [], {}, "", [])
    return Measured(None, sweep.Plan({}, {}), scores)


def test_claims_have_the_sign_of_what_was_constructed(measured):
    evidence = Evidence("personalize", command="test")
    add_claims(measured, evidence, {name: CLAIMS[name] for name in ("dp-adapter", "freecure", "id-aligner")})
    found = {figure["name"].removeprefix("personalize."): figure for figure in evidence.figures}
    above = found["dp-adapter.claim"]
    # The curve is at 0.35 where prompts are met as often: half way from 0.3 to 0.4, both of the first seed.
    assert above["value"] == pytest.approx(0.15, abs=0.03) and above["ci95"][0] > 0
    gained = found["freecure.claim"]
    assert gained["value"] == pytest.approx(15, abs=0.5) and gained["unit"] == "points" and gained["ci95"][0] > 10
    assert found["freecure.claim_kept"]["value"] == pytest.approx(0.42 - 0.95 * 0.4, abs=0.01)
    worse = found["id-aligner.claim_start"]
    assert worse["value"] == pytest.approx(-0.05, abs=0.01) and worse["ci95"][1] < 0
    assert worse["against"]["value"] == pytest.approx(0.4, abs=0.02), "the adapter that it began with, of one seed"
    assert "id-aligner.claim_lora" not in found and "dp-adapter.claim_outside" not in found


def test_adapters_are_held_against_those_of_the_same_seed(measured):
    def alike(name):
        return measured.figure("sim_held_out", name).value

    assert alike("face-adapter") == pytest.approx(0.5, abs=0.02), "by itself, the mean of both seeds"
    figure, theirs = gain("sim_held_out", "arc2face", "face-adapter", measured)
    assert figure.value == pytest.approx(0.05, abs=0.01) and theirs == pytest.approx(0.5, abs=0.02)
    figure, theirs = gain("sim_held_out", "face-adapter", "freecure", measured)
    assert figure.value == pytest.approx(-0.02, abs=0.01) and theirs == pytest.approx(0.42, abs=0.02)
    measured.used.clear()
    figure, theirs = gain("sim_held_out", "face-adapter", "bare", measured)
    assert figure.value == pytest.approx(0.3, abs=0.01) and measured.used == {"", "1"}, "the bare base has no seed"
    assert alike("face-adapter") == pytest.approx(0.5, abs=0.02)


def test_what_is_held_against_is_of_the_same_people():
    person = np.arange(4)
    few, all_of_them = mean_of([0.9, 0.9], [0, 1], 4), mean_of([0.1, 0.3, 0.5, 0.9], person, 4)
    figure, theirs = ahead(few, all_of_them)
    assert figure.value == pytest.approx(0.7) and theirs == pytest.approx(0.2)
    figure, theirs = ahead(few, all_of_them, less=True)
    assert figure.value == pytest.approx(-0.7) and theirs == pytest.approx(0.2)


def test_the_shipped_judge_tells_what_claims_and_prompts_ask_for():
    judge, asks = open_judge("world"), [prompt.asks for prompt in bench.prompts().values()]
    claims = [claim for own in CLAIMS.values() for claim in own]
    measures = [claim.measure.args[0] for claim in claims if getattr(claim.measure, "func", None) is between]
    words = [one.args[0] for one in measures if getattr(one, "func", None) is accurate]
    assert SCENE in words and len(words) == 4
    for attribute in {attribute for some in words for attribute in some}:
        assert attribute in judge.attributes and any(judge.truth(attribute, asks)), attribute


def test_somebody_without_a_reference_leaves_out_a_claim_at_most(measured, capsys):
    def unknown(m):
        return m.scores.floor["nobody"]

    def useless(m):
        raise IpseError("There is no photograph.", "Give one.")

    evidence = Evidence("personalize", command="test")
    claims = {"dp-adapter": [Claim("a", unknown, ""), Claim("b", useless, ""), *CLAIMS["dp-adapter"]]}
    add_claims(measured, evidence, claims)
    said = capsys.readouterr().out
    assert "claim_a: nothing is known of 'nobody'" in said and "claim_b: There is no photograph." in said
    assert "personalize.dp-adapter.claim" in {figure["name"] for figure in evidence.figures}


def test_what_is_the_same_gains_nothing(measured):
    evidence = Evidence("personalize", command="test")
    figure = measured.figure("sim_held_out", "face-adapter")
    add_claims(measured, evidence, {"same": [Claim("", lambda m: (figure.minus(figure), 0.0), "itself")]})
    assert evidence.figures[0]["value"] == 0 and evidence.figures[0]["ci95"] == [0, 0]


def test_places_and_parts_are_those_of_the_person(setting):
    people = setting.people
    names = [*people.people]
    held = {name: sorted((people.folder / name).glob("held-out-*.png"))[:4] for name in names}
    lists = {"right": names, "wrong": [*names[1:], names[0]]}
    made = [
        Made(path, (other,), "plain", 0, method)
        for method, others in lists.items()
        for name, other in zip(names, others, strict=True)
        for path in held[name]
    ]
    for number, (left, right) in enumerate(itertools.pairwise([*names, names[0]])):
        path = setting.work / f"two-{number}.png"
        save_png(np.hstack([read_image(people.references(who)[0]) for who in (left, right)]), path)
        made += [Made(path, (left, right), "two", 0, "right"), Made(path, (right, left), "two", 0, "wrong")]
    scores = score(made, read_people(people.folder), bench.prompts(), setting.observer)
    measured = Measured(setting, sweep.Plan({}, {}), scores)
    assert measured.in_place("right").value > 0.6 and measured.in_place("wrong").value < 0.4
    right, wrong = measured.part_error("right"), measured.part_error("wrong")
    assert 0 < right.value < wrong.value < 0.5
    five = np.nanmean([five_of(measured.dense(path)) for path in held[names[0]]], 0)
    near, far = (measured.off_place("right", five + move).value for move in (0.0, 0.3))
    assert 0 < near < far
    # Who has no reference is enrolled by other pictures, and no system was shown them.
    measured.scores = replace(scores, people=[*scores.people, "somebody"])
    assert {*measured._places} == {*people.people}
    assert measured.pose_spread("right").value > 0
    with pytest.raises(Missing, match="no pictures of nothing"):
        measured.figure("rank1", "nothing")
