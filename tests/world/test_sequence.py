import itertools

import numpy as np
import pytest
from PIL import Image

from ipse.errors import WorldError
from ipse.world.look import look
from ipse.world.person import person
from ipse.world.sequence import save_frames, save_gif, talk, walk
from ipse.world.shot import Shot, apparent_yaw

WHO = person(0)
WORN = look(0, WHO)


def test_walking_follows_the_cadence():
    frames = list(walk(WHO, WORN, seconds=0.4, fps=10, size=(32, 64)))
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3])
    phases = [frame.picture.truth.shot.pose.phase for frame in frames]
    np.testing.assert_allclose(np.diff(phases), 0.1 * WHO.gait.cadence / 2, atol=1e-6)
    assert {frame.picture.truth.shot.pose.name for frame in frames} == {"walking"}
    assert not np.array_equal(frames[0].picture.image, frames[3].picture.image)


def test_frames_are_made_when_asked_for():
    first = next(iter(walk(WHO, WORN, seconds=3000, fps=100, size=(32, 64))))
    assert first.time_s == 0


@pytest.mark.parametrize(("view", "yaw"), [("front", 0), ("side", -90), (30.0, -30), ((10.0, 60.0), -10)])
def test_the_camera_stands_where_the_view_says(view, yaw):
    first = next(walk(WHO, WORN, seconds=0.1, fps=10, view=view, size=(32, 64)))
    assert apparent_yaw(first.picture.truth.shot.replace(**{"head.yaw": 0})) == pytest.approx(yaw)


def test_the_camera_moves_between_two_views():
    frames = list(walk(WHO, WORN, seconds=0.3, fps=10, view=(10, 60), size=(32, 64)))
    angles = [frame.picture.truth.shot.camera.azimuth_deg for frame in frames]
    assert angles == sorted(angles) and angles[-1] == pytest.approx(60)


def test_talking_opens_and_closes_the_mouth():
    frames = list(talk(WHO, WORN, seconds=0.7, fps=20, words="mama", size=32))
    opened = [frame.picture.truth.shot.expression.get("jawOpen", 0.0) for frame in frames]
    pressed = [frame.picture.truth.shot.expression.get("mouthPressLeft", 0.0) for frame in frames]
    assert max(opened) > 0.2 and min(opened) < 0.05 and max(pressed) > 0.2
    assert np.argmax(pressed) != np.argmax(opened)


def test_silence_follows_the_words():
    frames = talk(WHO, WORN, seconds=3, fps=4, words="ah", size=32)
    late = list(itertools.islice(frames, 8, 12))
    assert all(frame.picture.truth.shot.expression.get("jawOpen", 0.0) == 0 for frame in late)


def test_a_seed_is_one_sequence():
    def shots(seed):
        return [frame.picture.truth.shot for frame in talk(WHO, WORN, seconds=0.5, fps=8, seed=seed, size=32)]

    assert shots(1) == shots(1)
    assert shots(1) != shots(2)


def test_people_blink():
    frames = talk(WHO, WORN, seconds=6, fps=12, words="", size=16)
    assert max(frame.picture.truth.shot.expression.get("eyeBlinkLeft", 0.0) for frame in frames) > 0.8


def test_the_rest_of_the_shot_stays():
    base = Shot().replace(**{"background.kind": "park", "light.key": 1.1})
    frame = next(talk(WHO, WORN, seconds=0.1, fps=10, shot=base, size=32))
    assert frame.picture.truth.shot.background == base.background
    assert frame.picture.truth.shot.light == base.light


def test_a_gif_keeps_the_time(tmp_path):
    path = save_gif(walk(WHO, WORN, seconds=0.3, fps=12, size=(32, 64)), tmp_path / "walk.gif")
    with Image.open(path) as gif:
        assert gif.n_frames == 4 and gif.size == (32, 64)
        lasts = []
        for k in range(gif.n_frames):
            gif.seek(k)
            lasts.append(gif.info["duration"])
    assert sum(lasts[:3]) == 250


def test_frames_become_files(tmp_path):
    paths = save_frames(walk(WHO, WORN, seconds=0.2, fps=10, size=(32, 64)), tmp_path / "frames")
    assert [path.name for path in paths] == ["000000.png", "000100.png"]
    with Image.open(paths[1]) as image:
        assert image.size == (32, 64)


@pytest.mark.parametrize(
    "wrong", [{"seconds": 0}, {"seconds": -1}, {"fps": 0}, {"fps": float("nan")}, {"view": "sidee"}]
)
def test_impossible_sequences_are_refused_at_once(wrong):
    with pytest.raises(WorldError, match=r"sequence|side"):
        walk(WHO, WORN, **wrong)


def test_nothing_to_write_is_an_error(tmp_path):
    with pytest.raises(WorldError, match="no frames"):
        save_gif([], tmp_path / "none.gif")


def test_an_unwritable_place_is_an_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("x")
    with pytest.raises(WorldError, match="cannot be written"):
        save_gif(walk(WHO, WORN, seconds=0.1, fps=10, size=(32, 64)), blocked / "walk.gif")
    with pytest.raises(WorldError, match="cannot be written"):
        save_frames(walk(WHO, WORN, seconds=0.1, fps=10, size=(32, 64)), blocked)
