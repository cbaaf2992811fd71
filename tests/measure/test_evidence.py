import getpass
import json
import platform
import sys
from pathlib import Path

import numpy as np
import pytest

from ipse import catalogue
from ipse.errors import DataError
from ipse.measure import Evidence, bootstrap_ci
from ipse.measure.evidence import bootstrap_sums


def test_the_file_has_the_one_form(tmp_path):
    evidence = Evidence("world", seeds=[0, np.int64(1)])
    evidence.add("world.rank1", np.float32(0.5), n=200, ci95=(0.4, 0.6), against=("goal", 0.99), note="two Looks")
    evidence.add("world.first_picture_s", 12, "s", n=1)
    record = json.loads(evidence.write(tmp_path).read_text())
    assert list(record) == ["name", "command", "commit", "date", "machine", "versions", "seeds", "figures"]
    assert record["name"] == "world" and record["seeds"] == [0, 1]
    assert record["figures"][0] == {
        "name": "world.rank1",
        "value": 0.5,
        "unit": "",
        "n": 200,
        "ci95": [0.4, 0.6],
        "against": {"name": "goal", "value": 0.99},
        "note": "two Looks",
    }
    assert record["figures"][1]["ci95"] is None and record["figures"][1]["against"] is None
    assert record["versions"]["python"] == platform.python_version() and "numpy" in record["versions"]
    assert record["machine"]["cores"] >= 1 and record["machine"]["cpu"]
    assert catalogue.figures(tmp_path).keys() == {"world.rank1", "world.first_picture_s"}


def test_nothing_names_the_machine_or_its_user(tmp_path, monkeypatch):
    root = catalogue.RESULTS.parents[1]
    arguments = [str(root / "benchmarks" / "world.py"), "--out", str(tmp_path / "far"), f"--cache={tmp_path}", "--n=3"]
    monkeypatch.setattr(sys, "argv", arguments)
    text = Evidence("world").write(tmp_path).read_text()
    assert json.loads(text)["command"] == f"python benchmarks/world.py --out far --cache={tmp_path.name} --n=3"
    assert str(root) not in text and str(tmp_path) not in text and platform.node() not in text
    user = getpass.getuser()
    assert f"/{user}/" not in text and f"{user}@" not in text


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("other.x", 1), {}, "are called world"),
        (("world.taken", 1), {}, "there already"),
        (("world.x", float("nan")), {}, "not finite"),
        (("world.x", 1), {"ci95": (0, float("inf"))}, "not finite"),
        (("world.x", 1), {"ci95": (2, 1)}, "from 2 down to 1"),
    ],
)
def test_figures_without_sense_are_refused(arguments, options, message):
    evidence = Evidence("world")
    evidence.add("world.taken", 1, n=1)
    with pytest.raises(ValueError, match=message):
        evidence.add(*arguments, n=1, **options)


def test_an_unwritable_folder_is_a_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="Cannot write"):
        Evidence("world").write(tmp_path / "file" / "below")


def test_intervals_are_over_identities_not_images():
    generator = np.random.default_rng(0)
    people = np.repeat(np.arange(40), 25)
    values = generator.normal(size=40)[people] + 0.01 * generator.normal(size=1000)
    over_images, over_people = bootstrap_ci(values), bootstrap_ci(values, people)
    # The spread is between people, so 25 images of each say hardly more than one.
    assert np.diff(over_people) == pytest.approx(np.diff(over_images) * 5, rel=0.15)
    assert np.diff(over_people) == pytest.approx(2 * 1.96 / 40**0.5, rel=0.3)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        low, high = bootstrap_ci(generator.normal(size=50), n=400)
        inside += low <= 0 <= high
    assert 180 <= inside <= 198


def test_any_statistic_and_any_rows():
    generator = np.random.default_rng(2)
    people = generator.integers(0, 30, 300).astype(str)
    pairs = generator.normal(size=(300, 2)) + (1, 0)
    low, high = bootstrap_ci(pairs, people, n=500, statistic=lambda rows: float(rows[:, 0].mean() - rows[:, 1].mean()))
    assert low < 1 < high
    fast = bootstrap_ci(pairs[:, 0], people, n=4000)
    slow = bootstrap_ci(pairs[:, 0], people, n=4000, statistic=lambda rows: float(rows.mean()))
    np.testing.assert_allclose(fast, slow, atol=0.01)
    assert bootstrap_ci(pairs[:, 0], people) == bootstrap_ci(pairs[:, 0], people)


def test_intervals_need_two_identities():
    with pytest.raises(ValueError, match="at least two"):
        bootstrap_ci([1, 2, 3], ["a", "a", "a"])
    with pytest.raises(ValueError, match="at least two"):
        bootstrap_ci([])
    with pytest.raises(ValueError, match="one for each"):
        bootstrap_ci([1, 2, 3], ["a", "b"])


def test_updating_keeps_what_was_not_measured_again(tmp_path: Path) -> None:
    first = Evidence("speed", seeds=[1], command="run both")
    first.add("speed.slow", 1.0, n=3, note="cold")
    first.add("speed.fast", 2.0, n=3)
    first.write(tmp_path)
    second = Evidence("speed", seeds=[2], command="run fast")
    second.add("speed.fast", 3.0, n=5)
    record = json.loads(second.write(tmp_path, update=True).read_text())
    figures = {figure["name"]: figure for figure in record["figures"]}
    assert figures["speed.fast"]["value"] == 3.0 and figures["speed.slow"]["value"] == 1.0
    assert "cold" in figures["speed.slow"]["note"] and "`run both`" in figures["speed.slow"]["note"]
    (tmp_path / "speed.json").write_text("[]")
    with pytest.raises(DataError, match="not a results file"):
        second.write(tmp_path, update=True)


def test_summary_tells_each_figure():
    evidence = Evidence("trial", seeds=[0])
    evidence.add("trial.accuracy", 98.5, "%", n=3, ci95=(97, 99.25), against=("guessing", 50.0))
    evidence.add("trial.misses", 2.0, n=3)
    first, second = evidence.summary().splitlines()
    assert first.split() == ["trial.accuracy", "98.5", "%", "[97,", "99.25]", "(guessing:", "50)"]
    assert second.split() == ["trial.misses", "2"]


def test_sums_of_resamples_keep_an_identity_together():
    """Two people with one and three rows: a resample holds each zero, one or two times, whole."""
    sums = bootstrap_sums([[1, 0], [0, 1], [0, 1], [0, 1]], ["a", "b", "b", "b"], n=200)
    assert sums.shape == (200, 2) and {tuple(row) for row in sums} == {(2, 0), (1, 3), (0, 6)}
    with pytest.raises(ValueError, match="at least two"):
        bootstrap_sums([[1.0], [2.0]], ["a", "a"])
