"""What was seen once is remembered, by the content of pictures and by who saw it."""

import shutil

import numpy as np
import pytest

from ipse.encoders import DlibFaceEncoder
from ipse.errors import DataError, IpseError
from ipse.faces import HogDetector
from ipse.personalize.observing import Observer


class Counting(HogDetector):
    seen = 0

    def detect(self, image):
        self.seen += 1
        return super().detect(image)


@pytest.fixture
def paths(chosen, tmp_path):
    first, second = (chosen.references(name)[0] for name in list(chosen.people)[:2])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return [first, tmp_path / "broken.png", second, tmp_path / "gone.png"]


def test_a_picture_is_looked_at_once(paths, judge, tmp_path):
    detector, encoder = Counting(), DlibFaceEncoder(threads=1)
    before = Observer(encoder, detector, judge, tmp_path / "seen").look(paths)
    assert detector.seen == 2 and [one.faces for one in before] == [1, 0, 1, 0]
    assert "gone.png does not exist" in before[3].problem and before[1].problem
    moved = shutil.copy(paths[0], tmp_path / "renamed.png")
    progress = []
    after = Observer(encoder, detector, judge, tmp_path / "seen").look(
        [moved, *paths[1:]], lambda *told: progress.append(told)
    )
    assert detector.seen == 2 and progress == [(4, 4)]
    for one, again in zip(before, after, strict=True):
        assert one.problem == again.problem and dict(one.told) == dict(again.told)
        np.testing.assert_array_equal(one.vectors, again.vectors)
        assert one.signals.keys() == again.signals.keys()
        assert all((one.signals[name] == again.signals[name]).all() for name in one.signals)
    # Other judges look for themselves.
    assert Observer(encoder, detector, None, tmp_path / "seen").look(paths[:1])[0].told == {}
    assert detector.seen == 3


def test_what_cannot_judge_or_remember_is_refused(tmp_path):
    (tmp_path / "text").write_text("this is no database, and too long for an empty file" * 50)
    with pytest.raises(DataError, match="cannot remember"):
        Observer(DlibFaceEncoder(), HogDetector(), memory=tmp_path / "text")
    body = DlibFaceEncoder()
    body.modality = "body"
    with pytest.raises(IpseError, match="Name an encoder of faces"):
        Observer(body, HogDetector())
