import io
import json

import numpy as np
import pytest
from PIL import Image

from ipse import cli


def run(capsys, monkeypatch, said, *arguments):
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return caught.value.code, output.out, output.err


def test_questions_make_a_gallery(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "crops"
    folder.mkdir()
    for number, color in enumerate([(200, 30, 30), (30, 30, 200)] * 2):
        noise = np.random.default_rng(number).integers(0, 40, (128, 64, 3))
        Image.fromarray((np.array(color) + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    options = ("label", folder, "--encoder", "body-world", "--workers", 1, "--json")
    # A name for the first, then it ends: what was said stays.
    code, out, err = run(capsys, monkeypatch, "Ada\n", *options)
    record = json.loads(out)
    assert code == 0 and record["questions"] == 1 and record["enrolled"] == 1 and record["faces"] == 4
    assert list(record["answered"]) == ["Ada"] and "Who is it?" in err
    with Image.open(tmp_path / "question.png") as drawn:
        assert drawn.width > 200
    code, out, err = run(capsys, monkeypatch, "n\nBen\nq\n", *options)
    record = json.loads(out)
    assert "The same person, Ada? y/n/s/q" in err and record["faces"] == 3 and record["answered"].keys() == {"Ben"}
    code, out, _ = run(capsys, monkeypatch, "", "gallery", "forget", "Ada", "--yes")
    assert code == 0 and "Ada" not in (tmp_path / "ipse-gallery" / "answers.jsonl").read_text()
    (tmp_path / "empty").mkdir()
    code, out, _ = run(capsys, monkeypatch, "", "label", tmp_path / "empty", "--encoder", "body-world")
    assert code == 3 and "0 faces" in out
