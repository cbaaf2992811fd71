import json

import numpy as np
import pytest
import yaml
from PIL import Image

from ipse import cli
from ipse.world import SIZES, look, person, render, shot
from ipse.world.dataset import read_dataset


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return caught.value.code, output.out, output.err


def opened(path):
    with Image.open(path) as image:
        image.load()
        return image


def test_preview_writes_a_sheet_with_a_row_per_person(capsys, tmp_path):
    sheet = tmp_path / "sheet.png"
    arguments = ("--people", 2, "--shots", 2, "--looks", 2, "--size", 32, "--start", 5, "--out", sheet)
    code, out, _ = run(capsys, "world", "preview", *arguments)
    assert code == 0 and "2 people, 8 pictures" in out
    image = opened(sheet)
    assert image.width == 4 * (32 + 8) + 8
    first = render(person(5), look(0, person(5)), shot(5 * 2 * 2), "portrait", 32).image
    np.testing.assert_array_equal(np.asarray(image)[8:40, 8:40], first)
    assert json.loads(image.text["Recipe"])["people"]["start"] == 5


@pytest.mark.parametrize("framing", list(SIZES))
def test_show_draws_the_truth_of_every_framing(capsys, tmp_path, framing):
    code, out, _ = run(capsys, "world", "show", 7, "--framing", framing, "--out", tmp_path / "p.png")
    assert code == 0 and "Person 7, Look 0, Shot 0" in out
    width, height = SIZES[framing]
    sheet = opened(tmp_path / "p.png")
    assert sheet.width > 4 * width and sheet.height > height
    assert json.loads(sheet.text["person"])["number"] == 7


def test_show_prints_json(capsys, tmp_path):
    code, out, _ = run(capsys, "world", "show", 7, "--look", 1, "--picture", "--json", "--out", tmp_path / "p.png")
    report = json.loads(out)
    assert code == 0 and report["person"] == person(7).to_dict() and report["look"] == look(1, person(7)).to_dict()
    assert np.shape(report["five"]) == (5, 2) and report["captions"]
    assert opened(tmp_path / "p.png").size == SIZES["portrait"]


def test_dataset_takes_a_recipe_and_changes_to_it(capsys, tmp_path):
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"people": 9, "looks": 1, "shots": 3, "size": 64}))
    changes = ("--people", 2, "--shots", 1, "--balance", "age,skin", "--size", "32x48", "--start", 3, "--seed", 2)
    arguments = ("world", "dataset", tmp_path / "r.yaml", "--out", tmp_path / "out", "--workers", 1, *changes)
    code, out, _ = run(capsys, *arguments, "--json")
    report = json.loads(out)
    assert code == 0 and (report["people"], report["pictures"], report["written"]) == (2, 2, 1)
    data = read_dataset(tmp_path / "out")
    assert data.recipe.pixels == (32, 48) and data.recipe.people.balance == ("age", "skin")
    assert [record.person for record in data.records()] == [3, 4]
    code, out, _ = run(capsys, *arguments)
    assert code == 0 and "2 pictures of 2 people in 1 shards (1 were there already)" in out


@pytest.mark.parametrize("verb", ["walk", "talk"])
def test_people_move(capsys, tmp_path, verb):
    path = tmp_path / "moving.gif"
    code, out, _ = run(capsys, "world", verb, 3, "--seconds", 0.5, "--fps", 6, "--size", 48, "--out", path)
    with Image.open(path) as gif:
        assert code == 0 and "3 frames" in out and gif.n_frames == 3 and gif.size == (48, 48)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("show", "7", "--framing", "potrait"), "portrait"),
        (("show", "7", "--size", "big"), "The size 'big' cannot be read"),
        (("preview", "--balance", "age,shoes"), "nothing to balance called 'shoes'"),
        (("preview", "--out", "/dev/null/people.png", "--people", "1", "--shots", "1", "--size", "16"), "Cannot write"),
        (("walk", "7", "--view", "above"), "no view called 'above'"),
        (("dataset", "missing.yaml", "--out", "out"), "missing.yaml cannot be read"),
    ],
)
def test_what_cannot_be_is_one_line_with_status_2(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "world", *arguments)
    assert code == 2 and message in err and "Traceback" not in err


def test_the_demo_makes_a_page_that_needs_no_other_file(capsys, tmp_path):
    code, out, _ = run(capsys, "demo", "--out", tmp_path / "demo")
    assert code == 0 and "index.html" in out
    page = (tmp_path / "demo" / "index.html").read_text()
    assert page.count("<img ") == page.count('src="data:image/') >= 5
    assert len(read_dataset(tmp_path / "demo" / "dataset")) == 12


def test_a_demo_with_nowhere_to_go_says_so(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run(capsys, "demo", "--out", tmp_path / "file" / "below")
    assert code == 2 and "Name another folder with --out" in err
