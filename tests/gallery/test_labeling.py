import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ipse.errors import DataError
from ipse.gallery.index import FaceRecord, Photo, Reading
from ipse.gallery.labeling import Labeling, forget_answers


def picture(shade):
    file = io.BytesIO()
    Image.new("RGB", (40, 50), (shade, shade, shade)).save(file, "JPEG")
    return file.getvalue()


def photographs(people, each=5, seed=3, noise=0.05):
    """One face on each, of people far apart, in mixed order; and who they are."""
    draw = np.random.default_rng(seed)
    centers = draw.normal(size=(people, 16))
    who = draw.permutation(np.repeat(np.arange(people), each))
    photos = []
    for number, person in enumerate(who):
        vector = (centers[person] + noise * draw.normal(size=16)).astype(np.float32)
        face = FaceRecord((1.0, 2.0, 3.0, 4.0), 1.0, 0.5 + number / 1000, (), vector, picture(20 * person))
        photos.append(Photo(Path(f"/photos/{number}.jpg"), f"{number:02d}" * 32, Reading(40, 50, faces=(face,))))
    return photos, {photo.sha256: f"p{person}" for photo, person in zip(photos, who, strict=True)}


def play(talk, truth, most=99):
    """Answer as somebody who knows; gives the number of questions."""
    for number in range(most):
        asked = talk.ask()
        if asked is None:
            return number
        right = truth[asked.sight.photo.sha256]
        if asked.person is None:
            talk.name(asked, right)
        else:
            talk.answer(asked, asked.person == right)
    return most


def test_few_questions_name_everybody(gallery, tmp_path):
    photos, truth = photographs(4, each=8)
    talk = Labeling(gallery, photos, tmp_path / "answers.jsonl")
    questions = play(talk, truth)
    for _ in range(8):
        talk.machine.learn()
    assert questions < 24
    named, sure = talk.named(), talk.sure()
    assert set(named) == {"p0", "p1", "p2", "p3"}
    for found in (named, sure):
        for name, sights in found.items():
            assert all(truth[sight.photo.sha256] == name for sight in sights)
    assert sum(map(len, named.values())) + sum(map(len, sure.values())) + talk.open == 32
    assert talk.open < 6


def test_a_talk_goes_on_where_it_was_broken_off(gallery, tmp_path):
    photos, truth = photographs(3)
    first = Labeling(gallery, photos, tmp_path / "answers.jsonl")
    play(first, truth, most=5)
    second = Labeling(gallery, photos, tmp_path / "answers.jsonl")
    assert second.machine.answered.tolist() == first.machine.answered.tolist()
    assert second._denied == first._denied
    assert {k: len(v) for k, v in second.named().items()} == {k: len(v) for k, v in first.named().items()}
    play(second, truth)
    assert (tmp_path / "answers.jsonl").read_text().count("\n") >= 5
    forget_answers(tmp_path / "answers.jsonl", ["p0"])
    assert "p0" not in (tmp_path / "answers.jsonl").read_text()


def test_who_is_enrolled_is_known_and_not_asked_about(gallery, tmp_path):
    photos, truth = photographs(2, each=3)
    ours = [photo for photo in photos if truth[photo.sha256] == "p0"]
    first = ours[0]
    gallery.enroll(
        "p0", first.reading.faces[0].vector, crops=[first.reading.faces[0].crop],
        provenance=[{"source": str(first.path), "sha256": first.sha256, "box": [1.0, 2.0, 3.0, 4.0]}],
    )  # fmt: skip
    talk = Labeling(gallery, photos, tmp_path / "answers.jsonl")
    assert len(talk.sights) == 5 and talk.machine.people == ["p0"]
    asked = talk.ask()
    assert asked.person == "p0" and asked.source == str(first.path)
    image = asked.picture()
    assert image.width > 2 * 280 and np.asarray(image.convert("L")).min() < 40
    talk.answer(asked, False)
    again = talk.ask()
    assert again.person is None and again.sight is asked.sight and talk.new_name() == "Person 1"
    with pytest.raises(DataError, match="for a name"):
        talk.answer(again, True)
    talk.skip(again)
    assert talk.ask().sight is not asked.sight


def test_a_file_of_something_else_is_refused(gallery, tmp_path):
    (tmp_path / "answers.jsonl").write_text('{"face": "a"}\n')
    photos, _ = photographs(2, each=2)
    with pytest.raises(DataError, match="Line 1"):
        Labeling(gallery, photos, tmp_path / "answers.jsonl")
    assert Labeling(gallery, [], tmp_path / "none.jsonl").ask() is None
