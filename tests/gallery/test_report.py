import re
from pathlib import Path

import pytest

from ipse.errors import DataError
from ipse.gallery.report import Card, Page, Section, to_html, write_report


def page(*sections):
    return Page("A <title>", "What & why", [("3", "faces")], sections, ["A note."])


def test_a_page_needs_nothing_from_elsewhere(tmp_path):
    card = Card(b"\xff\xd8jpeg", "Ada", ["2. Ben 0.71"], 0.4, 0.6, tmp_path / "a b.jpg", ["The face is small."])
    path = write_report(page(Section("Ada", cards=[card])), tmp_path / "out" / "page.html")
    text = path.read_text()
    assert not re.search(r"https?:|//|@import|<script|<link", text)
    assert all(source.startswith("data:image/jpeg;base64,") for source in re.findall(r"src='([^']*)", text))
    assert "href='../a%20b.jpg'" in text and "The face is small." in text and "2. Ben 0.71" in text
    assert "prefers-color-scheme: dark" in text


def test_text_is_escaped():
    text = to_html(page(Section("<script>", "a & b", [Card(None, "<b>'\"", file=Path("x'y.jpg"))], [("<i>", "&")])))
    assert "<script>" not in text and "<b>'" not in text and "<i>" not in text and "a &amp; b" in text
    assert "x'y" not in text


def test_bars_fill_up_to_the_threshold_and_beyond():
    def bar(distance, threshold):
        return to_html(page(Section("s", cards=[Card(None, distance=distance, threshold=threshold)])))

    assert "bar in" in bar(0.3, 0.6) and "width:75%" in bar(0.3, 0.6) and "0.30 ≤ 0.60" in bar(0.3, 0.6)
    assert "bar out" in bar(0.9, 0.6) and "width:25%" in bar(0.9, 0.6)
    assert "width:0%" in bar(5, 0.6) and "width:100%" in bar(0, 0.6)
    assert "class='bar" not in bar(0.3, None) and "distance 0.30" in bar(0.3, None)


def test_long_lists_fold_and_say_what_is_left_out():
    text = to_html(page(Section("s", cards=[Card(None, f"card {n}") for n in range(40)], more=7)))
    assert "<summary>22 more</summary>" in text and "and 7 more" in text
    assert "<details><summary><h2>s" in to_html(page(Section("s", folded=True)))


def test_a_place_that_cannot_be_written_is_said_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_report(page(), tmp_path / "file" / "page.html")
