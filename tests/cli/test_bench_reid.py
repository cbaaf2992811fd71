"""`ipse bench reid` on a small tree of a published layout, and on the world's people."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from ipse import cli
from ipse.cli import app
from ipse.gallery.reid import LAYOUTS, WAYS
from ipse.world.dataset import ATTRIBUTES
from ipse.world.recipe import Recipe


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """Eight people in two cameras, who are two colors."""
    folder = tmp_path_factory.mktemp("market") / "val"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for person in range(1, 9):
        color = np.random.default_rng(person).uniform(30, 225, (2, 1, 1, 3))
        for camera in (1, 2):
            for number in range(2):
                pixels = np.concatenate(list(np.broadcast_to(color, (2, 16, 16, 3))))
                pixels = (pixels + draw.normal(0, 9, pixels.shape)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{person:04d}_c{camera}s1_{number:06d}_00.jpg")
    return folder.parent


def run(*arguments):
    return CliRunner().invoke(app, ["bench", "reid", *map(str, arguments)])


def test_table_figures_and_page(market, tmp_path):
    done = run(market, "--out", tmp_path, "--lists", 3)
    assert done.exit_code == 0, done.output
    for word in ("16 queries of 8 people", "together, no pose2id", "ahead of cosine", "Report: file:"):
        assert word in " ".join(done.stdout.split()), word
    record = json.loads((tmp_path / "market1501-body-world.json").read_text())
    assert list(record["ways"]) == list(WAYS) and not record["left_out"] and record["gallery"] == 16
    cosine = record["ways"]["cosine"]
    assert 0.3 < cosine["figures"]["mAP"]["value"] <= 1 and "mAP_ahead" not in cosine
    low, high = record["ways"]["together"]["mAP_ahead"]["ci95"]
    assert low <= record["ways"]["together"]["mAP_ahead"]["value"] <= high
    page = (tmp_path / "market1501-body-world.html").read_text()
    # Three queries, each with five answers by cosine and five by all together.
    assert page.count("data:image/jpeg") == 3 * 2 * 6 and page.count("asked, together") == 3
    assert len(list((tmp_path / "features").iterdir())) == 1


def test_neighbors_that_a_small_folder_lacks_are_told(market, tmp_path):
    folder = tmp_path / "few" / "val"
    folder.mkdir(parents=True)
    for path in sorted((market / "val").glob("000[12]*")):
        (folder / path.name).write_bytes(path.read_bytes())
    done = run(folder.parent, "--out", tmp_path)
    assert done.exit_code == 0 and "kreciprocal is left out" in done.stdout
    record = json.loads((tmp_path / "market1501-body-world.json").read_text())
    assert "kreciprocal" in record["left_out"] and "cosine" in record["ways"]


def test_one_camera_leaves_nothing_to_find(market, tmp_path):
    folder = tmp_path / "one" / "val"
    folder.mkdir(parents=True)
    for path in (market / "val").glob("*_c1*"):
        (folder / path.name).write_bytes(path.read_bytes())
    done = run(folder.parent, "--out", tmp_path)
    assert done.exit_code == 3 and "left out" in done.stdout


def test_wrong_input_says_what_there_is(market, tmp_path, capsys):
    for arguments, words in (
        ((market, "--protocol", "market"), "market1501, msmt17"),
        ((market, "--encoder", "nobody"), "body-world"),
        ((market, "--encoder", "face-world"), "whole pictures are encoded"),
        ((tmp_path, "--out", tmp_path), "bounding_box_train"),
    ):
        with pytest.raises(SystemExit) as caught:
            cli.main(["bench", "reid", *map(str, arguments)])
        assert caught.value.code == 2 and words in capsys.readouterr().err


def test_help_names_every_protocol():
    text = " ".join(CliRunner().invoke(app, ["bench", "reid", "--help"], env={"COLUMNS": "200"}).stdout.split())
    assert all(name in text for name in LAYOUTS) and "Exit status" in text


def test_the_worlds_people_are_found_in_other_clothes(tmp_path):
    # A data set as `ipse world dataset` writes it, with made-up pictures in place of rendered ones.
    recipe = Recipe.from_dict({"name": "Few", "people": {"count": 3, "start": 20}})
    rows = []
    for person in range(20, 23):
        for shot in range(4):
            file = io.BytesIO()
            pixels = np.random.default_rng([person, shot]).integers(0, 255, (32, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(file, "PNG")
            plain = dict.fromkeys(column.name for column in ATTRIBUTES)
            numbers = {"person": person, "look": shot // 2, "shot": shot}
            rows.append({"image": {"bytes": file.getvalue(), "path": None}} | plain | numbers)
    told = {"ipse": json.dumps({"recipe": recipe.to_dict(), "people": [20, 23]})}
    path = tmp_path / "people" / "data" / "train-00000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(told), path)
    done = run(path.parents[1], "--protocol", "world-across-looks", "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["queries"] == 6 and record["people"] == 3 and record["gallery"] == 6
    assert "people of the world" in record["about"] and "cosine" in record["ways"]
