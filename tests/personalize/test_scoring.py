"""Scoring a folder of pictures: real renderings of the right people, of the wrong ones, and copies of the reference."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from ipse.cli import main
from ipse.encoders import DlibFaceEncoder
from ipse.errors import DataError, IpseError
from ipse.faces import HogDetector
from ipse.images import read_image, save_png
from ipse.personalize import bench
from ipse.personalize.listing import read_people, read_pictures
from ipse.personalize.observing import Observer
from ipse.personalize.page import to_html, write_page
from ipse.personalize.prompts import Prompt
from ipse.personalize.scoring import chosen as at_best
from ipse.personalize.scoring import score

PROMPTS = {
    "plain": Prompt("plain", "A portrait of {subject}."),
    "smile": Prompt("smile", "A portrait of {subject}, smiling.", {"expression": "smile"}),
    "two": Prompt("two", "A photo of {subject} and {other}."),
}


@pytest.fixture(scope="module")
def observer(judge):
    return Observer(DlibFaceEncoder(threads=1), HogDetector(), judge)


@pytest.fixture(scope="module")
def folder(rendered, chosen, tmp_path_factory):
    """Three methods: other real pictures of the person, of another person, and the reference itself."""
    folder = tmp_path_factory.mktemp("pictures")
    more = bench.prepare(rendered, HogDetector(), people=len(chosen.people), start=1, references=4)
    names, rows = list(chosen.people), []
    for place, name in enumerate(names):
        for number, path in enumerate(more.references(name)):
            method = "copy" if number == 0 else "right"
            rows.append({"picture": f"{method}-{name}-{number}.png", "person": name, "method": method})
            shutil.copy(path, folder / rows[-1]["picture"])
            if number:
                other = {"picture": rows[-1]["picture"], "person": names[place - 1], "method": "wrong"}
                rows.append(other | {"picture": f"wrong-{name}-{number}.png"})
                shutil.copy(path, folder / rows[-1]["picture"])
    for number, row in enumerate(rows):
        row |= {"prompt": "plain", "seed": number, "strength": 0.5, "seconds": 2.0}
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def scores(folder, chosen, observer):
    pictures, problems = read_pictures(folder)
    assert not problems
    return score(pictures, read_people(chosen.folder), PROMPTS, observer)


def figures(scores, method):
    (curve,) = (curve for curve in scores.curves if curve.method == method)
    return {name: figure.value for name, figure in curve.figures.items()} | dict(curve.numbers)


def test_the_right_people_are_near_the_ceiling_and_others_at_the_floor(scores):
    right, wrong = figures(scores, "right"), figures(scores, "wrong")
    ceiling = {name: figure.value for name, figure in scores.ceiling.items()}
    assert ceiling["rank1"] > 0.9 and right["rank1"] >= ceiling["rank1"] - 0.1 and wrong["rank1"] <= 0.1
    assert right["sim_held_out"] == pytest.approx(ceiling["sim_held_out"], abs=0.06)
    assert wrong["sim_held_out"] == pytest.approx(scores.floor["sim_held_out"].value, abs=0.06)
    assert ceiling["sim_held_out"] > scores.floor["sim_held_out"].value + 0.1
    assert scores.floor["rank1"] == pytest.approx(1 / 3) and right["seconds"] == 2
    (best,) = (curve for curve in scores.curves if curve.method == "right")
    assert best.figures["rank1"].people == 3 and best.pictures == 9


def test_the_reference_itself_is_all_copied(scores):
    copy, right = figures(scores, "copy"), figures(scores, "right")
    assert copy["copy_paste"] == pytest.approx(1) and copy["sim_reference"] == pytest.approx(1)
    assert right["copy_paste"] < 0.5 and right["sim_reference"] < 0.9
    # A class that is never shared by chance, or numbers, or both.
    for aspect in ("pose", "expression", "light", "background", "look"):
        assert copy[f"copy_paste.{aspect}"] == pytest.approx(1), aspect
    assert copy["sim_reference"] > copy["sim_held_out"], "copying tells no more of the person"


def test_what_can_be_seen_decides_the_prompt_accuracy(folder, chosen, observer, tmp_path):
    """Prompts that ask for what the world put into the pictures are met; one that asks for something else is not."""
    people, rows, prompts = read_people(chosen.folder), [], {}
    for method in ("bare", "mine"):
        for number, photograph in enumerate(p for p in people if not p.shown):
            told, _ = observer.judge.tell([read_image(photograph.path)], [None])
            asks = {name: str(told[name][0]) for name in ("expression", "glasses") if told[name][0]}
            wrong = {"expression": "never"} if method == "mine" and asks.get("expression") else {}
            prompts[f"{method}-{number}"] = Prompt(f"{method}-{number}", f"{method} {number}", asks | wrong)
            row = {"picture": f"{method}-{number}.png", "person": photograph.person, "prompt": f"{method} {number}"}
            shutil.copy(photograph.path, tmp_path / row["picture"])
            rows.append(json.dumps(row | {"method": method}))
    (tmp_path / "manifest.jsonl").write_text("\n".join(rows))
    scores = score(read_pictures(tmp_path)[0], people, prompts, observer)
    bare, mine = figures(scores, "bare"), figures(scores, "mine")
    assert bare["prompt_accuracy"] == 1 and mine["prompt_accuracy.expression"] == 0
    assert mine["prompt_accuracy.glasses"] == 1 and mine["prompt_cost"] == pytest.approx(0.5)
    assert at_best(scores)["mine"].method == "mine"


def test_bad_pictures_are_failures_and_named(folder, chosen, observer, tmp_path):
    name, other = list(chosen.people)[:2]
    good = next(folder.glob(f"right-{name}-*.png"))
    Image.fromarray(np.full((128, 128, 3), 90, np.uint8)).save(tmp_path / "empty.png")
    (tmp_path / "broken.png").write_bytes(good.read_bytes()[:900])
    rows = [
        {"picture": str(good), "person": name, "prompt": "plain"},
        {"picture": "empty.png", "person": name, "prompt": "smile"},
        {"picture": "broken.png", "person": name, "prompt": "smile"},
        {"picture": "gone.png", "person": name, "prompt": "smile"},
        {"picture": str(good), "person": "nobody", "prompt": "plain"},
        {"picture": str(good).replace("right", "wrong"), "person": other, "prompt": "what?"},
        {"person": name},
    ]
    # The first is listed twice: what is said last counts.
    lines = [json.dumps(row) for row in (rows[4], *rows[:4], *rows[5:])]
    (tmp_path / "manifest.jsonl").write_text("\n".join([*lines, "{", ""]))
    pictures, problems = read_pictures(tmp_path)
    assert [p.place.rpartition(" ")[2] for p in problems] == ["7", "8"] and len(pictures) == 5
    scores = score(pictures, read_people(chosen.folder), PROMPTS, observer, problems)
    (curve,) = scores.curves
    assert curve.pictures == 4 and curve.figures["detection_failures"].value == 0.75
    assert curve.figures["rank1"].value == 0.25 and curve.figures["prompt_accuracy"].value == 0
    floor = scores.floor["sim_held_out"].value
    assert floor < curve.figures["sim_held_out"].value < floor + 0.25 * (1 - floor)
    said = " ".join(problem.what for problem in scores.problems)
    assert "gone.png does not exist" in said and said.count("counts as a failure") == 2
    assert "no prompt 'what?'" in said
    page = to_html(scores)
    assert "gone.png does not exist" in page and page.count("data:image/jpeg") == 1


def test_pictures_of_two_people(chosen, observer, tmp_path):
    """Side by side they are given to whom they fit, in whatever order; one face is one failure."""
    one, other = list(chosen.people)[:2]
    pictures = [read_image(chosen.references(name)[0]) for name in (one, other)]
    save_png(np.concatenate(pictures[::-1], axis=1), tmp_path / f"{one}+{other}--two--1.png")
    save_png(pictures[0], tmp_path / f"{one}+{other}--two--2.png")
    scores = score(read_pictures(tmp_path)[0], read_people(chosen.folder), PROMPTS, observer)
    (curve,) = scores.curves
    assert curve.figures["several.detection_failures"].value == pytest.approx(0.25)
    assert curve.figures["several.rank1"].value == pytest.approx(0.75)


def test_names_tell_what_a_manifest_would(tmp_path):
    for name in ("ada--smile--7.png", "lora@0.5/ada--smile.png", "deep/lora@0.5/a+b--two--3.png", "sheet.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    found, problems = read_pictures(tmp_path)
    assert sorted((m.method, m.strength, m.people, m.prompt, m.seed or -1) for m in found) == [
        ("lora", 0.5, ("a", "b"), "two", 3),
        ("lora", 0.5, ("ada",), "smile", -1),
        ("pictures", 1.0, ("ada",), "smile", 7),
    ]
    assert [problem.place for problem in problems] == [str(tmp_path / "sheet.png")]


def test_photographs_that_nobody_can_be_known_by_are_left_out(chosen, observer, tmp_path):
    name, other, third = chosen.people
    shutil.copytree(chosen.folder / name, tmp_path / name)
    (tmp_path / other).mkdir()
    pair = [read_image(chosen.references(one)[0]) for one in (name, other)]
    save_png(np.concatenate(pair, axis=1), tmp_path / other / "a.png")
    (tmp_path / third).mkdir()
    save_png(np.zeros((64, 64, 3), np.uint8), tmp_path / third / "a.png")
    rows = [{"picture": str(chosen.references(name)[0]), "person": name, "prompt": "plain"}]
    (tmp_path / "manifest.jsonl").write_text(json.dumps(rows[0]))
    scores = score(read_pictures(tmp_path)[0], read_people(tmp_path), PROMPTS, observer)
    assert scores.people == [name] and scores.floor["rank1"] == 1
    said = [problem.what for problem in scores.problems]
    assert any("shows 2 faces" in what for what in said) and any("No face was found" in what for what in said)


def test_without_held_out_pictures_or_a_judge_less_is_told(folder, chosen, tmp_path):
    for name in chosen.people:
        (tmp_path / "people" / name).mkdir(parents=True)
        shutil.copy(chosen.references(name)[0], tmp_path / "people" / name)
    plain = Observer(DlibFaceEncoder(threads=1), HogDetector())
    pictures = [made for made in read_pictures(folder)[0] if made.method == "right"]
    scores = score(pictures, read_people(tmp_path / "people"), PROMPTS, plain)
    (curve,) = scores.curves
    assert set(curve.figures) == {"rank1", "sim_reference", "detection_failures"}
    assert curve.figures["rank1"].value > 0.8 and scores.ceiling == {}
    assert write_page(scores, tmp_path / "page.html").read_text().count("<img") == 4


def test_a_judge_that_a_method_learned_from_is_refused(folder, chosen, observer, tmp_path):
    (row, *_) = (folder / "manifest.jsonl").read_text().splitlines()
    told = json.loads(row) | {"trained_with": [DlibFaceEncoder.fingerprint], "picture": str(folder / "x.png")}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(told))
    with pytest.raises(IpseError, match="was trained with dlib-face-128"):
        score(read_pictures(tmp_path)[0], read_people(chosen.folder), PROMPTS, observer)


def test_folders_with_nothing_in_them_are_refused(tmp_path, chosen, observer):
    for read in (read_pictures, read_people):
        with pytest.raises(DataError, match="holds no p"):
            read(tmp_path)
        with pytest.raises(DataError, match="There is no folder"):
            read(tmp_path / "missing")
    save_png(np.zeros((8, 8, 3), np.uint8), tmp_path / "nobody--plain.png")
    with pytest.raises(DataError, match="No picture is left"):
        score(read_pictures(tmp_path)[0], read_people(chosen.folder), PROMPTS, observer)


def test_the_command_scores_a_folder(folder, chosen, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("# mine\n\nA portrait of {subject}.\n")
    rows = [json.loads(line) | {"prompt": "1"} for line in (folder / "manifest.jsonl").read_text().splitlines()]
    first = next(iter(chosen.people))
    some = [row | {"picture": str(folder / row["picture"])} for row in rows if row["person"] == first]
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "manifest.jsonl").write_text("\n".join(map(json.dumps, some)))
    command = ["score", str(tmp_path / "made"), "--who", str(chosen.folder), "--prompts", str(tmp_path / "prompts.txt")]
    with pytest.raises(SystemExit) as left:
        main([*command, "--out", str(tmp_path / "report")])
    out = capsys.readouterr().out
    assert left.value.code == 0 and "copy" in out and "real pictures" in out and "judged by dlib-face-128" in out
    record = json.loads((tmp_path / "report" / "scores.json").read_text())
    assert {one["method"] for one in record["methods"]} == {"copy", "right", "wrong"}
    assert (tmp_path / "report" / "plot.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report" / "index.html").read_text()
    assert "src='http" not in page and "Side by side" in page
    with pytest.raises(SystemExit) as left:
        main(["score", str(tmp_path / "nothing"), "--who", str(chosen.folder), "--prompts", str(tmp_path / "x.txt")])
    assert left.value.code == 2 and "There is no folder" in capsys.readouterr().err
