import importlib.util
from pathlib import Path

import pytest

from ipse.measure import Evidence

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def report():
    spec = importlib.util.spec_from_file_location("report", ROOT / "benchmarks" / "report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def site(tmp_path):
    evidence = Evidence("bench", command="python benchmarks/bench.py")
    evidence.add("bench.rate", 0.98765, n=1200, ci95=(0.98, 0.99), against=("goal", 0.95), note="a|b")
    evidence.add("bench.pictures", 12345.6, "pictures", n=1)
    evidence.write(tmp_path / "benchmarks" / "results")
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("# Title\n\n<!-- figures:bench.* -->\n<!-- /figures -->\n\nEnd.\n")
    (tmp_path / "docs" / "page.md").write_text("<!-- figures:bench.pictures -->\nold\n<!-- /figures -->\n")
    return tmp_path


def test_committed_pages_are_up_to_date(report, capsys):
    assert report.main(["--check"]) == 0, capsys.readouterr().err


def test_blocks_become_tables_once_and_for_all(report, site, capsys):
    assert report.main(["--check"], site) == 1
    assert "README.md is out of date" in capsys.readouterr().err
    assert report.main([], site) == 0
    assert (site / "README.md").read_text() == (
        "# Title\n\n"
        "<!-- figures:bench.* -->\n"
        "| Figure | Value | 95 % interval | n | Against | Note |\n"
        "| --- | ---: | ---: | ---: | --- | --- |\n"
        "| `bench.rate` | 0.9877 | 0.98 – 0.99 | 1,200 | goal: 0.95 | a\\|b |\n"
        "| `bench.pictures` | 12,346 pictures |  | 1 |  |  |\n"
        "<!-- /figures -->\n\nEnd.\n"
    )
    assert (site / "docs" / "page.md").read_text().splitlines()[1] == "| Figure | Value | n |"
    before = (site / "README.md").read_text()
    assert report.main([], site) == 0 and (site / "README.md").read_text() == before
    assert report.main(["--check"], site) == 0


def test_where_kept_figures_come_from_is_told_once(report, site):
    later = Evidence("bench", command="python benchmarks/bench.py --only pictures")
    later.add("bench.pictures", 7, "pictures", n=1)
    later.write(site / "benchmarks" / "results", update=True)
    assert report.main([], site) == 0
    rows = (site / "README.md").read_text().splitlines()
    assert next(row for row in rows if "bench.rate" in row).endswith("| a\\|b [1] |")
    assert next(row for row in rows if "bench.pictures" in row).endswith("|  |")
    (origin,) = (row for row in rows if row.startswith("[1] "))
    assert origin.startswith("[1] measured 20") and origin.endswith("by `python benchmarks/bench.py`")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- figures:bench.typo -->\n<!-- /figures -->\n", "no figure is called bench.typo"),
        ("<!-- figures:bench.* -->\n", "a figures marker has no partner"),
        ("<!-- /figures -->\n", "a figures marker has no partner"),
    ],
)
def test_wrong_markers_are_named_and_the_page_left_alone(report, site, capsys, text, message):
    (site / "README.md").write_text(text)
    assert report.main([], site) == 1
    assert f"README.md: {message}" in capsys.readouterr().err
    assert (site / "README.md").read_text() == text
