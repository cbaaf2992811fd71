import json

import pytest

from ipse.cli import main


def run(capsys, *arguments):
    """Exit code and what was printed to both streams."""
    code = 0
    try:
        main(["synth", *map(str, arguments)])
    except SystemExit as end:
        code = end.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_bodies_are_written_with_their_labels(capsys, tmp_path):
    code, out, _ = run(capsys, "bodies", "--out", tmp_path / "bodies", "--people", 1, "--pictures", 1, "--start", 3)
    assert code == 0
    assert "1 pictures of 1 people" in out
    labels = json.loads((tmp_path / "bodies" / "metadata.jsonl").read_text())
    assert labels["person"] == 3
    assert (tmp_path / "bodies" / labels["file_name"]).is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sig", "--poses", "left,right"), "Write degrees"),
        (("sig", "--poses", "0,90"), "different yaws"),
        (("sig", "--filter", "nobody"), "Choose dlib, pixels"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(capsys, tmp_path, arguments, said):
    code, _, err = run(capsys, *arguments, "--out", tmp_path / "set")
    assert code == 2
    assert said in err
    assert not (tmp_path / "set").exists()


def test_an_audit_of_nothing_says_how_to_make_a_set(capsys, tmp_path):
    code, _, err = run(capsys, "audit", tmp_path)
    assert code == 2
    assert "ipse synth sig" in err
