"""Pictures and their truth: each kind of truth must agree with every other, and with the values behind it."""

import numpy as np
import pytest

from ipse.errors import WorldError
from ipse.world import LABELS, SIZES, Picture, look, person, render, shot
from ipse.world.landmarks import DENSE_GROUPS

CLEAR = {
    "occluder": None,
    "head.roll": 0,
    "head.pitch": 0,
    "head.yaw": 0,
    "gaze.yaw": 0,
    "gaze.pitch": 0,
    "mood": "neutral",
}
BARE = {"hat": None, "glasses": None, "mask": None, "scarf": None, "hair.style": "buzz", "beard.style": "none"}


@pytest.fixture(scope="module")
def frontal() -> Picture:
    who = person(3, fix={"brows.thickness": 0.6, "brows.density": 0.7, "brows.arch": 0.5})
    return render(who, look(0, who, fix=BARE), shot(5, fix=CLEAR))


def label_at(picture: Picture, points: np.ndarray) -> list[str]:
    x, y = points.T.astype(int)
    return [LABELS[k] for k in picture.truth.parts[y, x]]


def test_the_same_values_give_the_same_bytes(frontal: Picture) -> None:
    t = frontal.truth
    again = render(t.person, t.look, t.shot)
    assert again.image.tobytes() == frontal.image.tobytes()
    for name in ("parts", "depth", "normals", "uv", "dense", "keypoints"):
        assert getattr(again.truth, name).tobytes() == getattr(t, name).tobytes()


@pytest.mark.parametrize("framing", list(SIZES))
def test_every_framing_gives_arrays_of_its_size(framing: str) -> None:
    who = person(8)
    picture = render(who, look(1, who), shot(2, framing), framing)
    width, height = SIZES[framing]
    assert picture.image.shape == (height, width, 3) and picture.image.dtype == np.uint8
    assert picture.truth.parts.shape == picture.truth.depth.shape == (height, width)
    assert picture.truth.normals.shape == (height, width, 3) and picture.truth.uv.shape == (height, width, 2)
    assert picture.image.std() > 10
    shown = {LABELS[k] for k in np.unique(picture.truth.parts)}
    assert "ears" in shown if framing == "ear" else shown & {"face", "hair", "skin"}


def test_landmarks_lie_on_the_parts_they_are_of(frontal: Picture) -> None:
    dense = frontal.truth.dense
    assert set(label_at(frontal, dense[DENSE_GROUPS["pupils"]])) == {"eyes"}
    assert set(label_at(frontal, dense[27:31])) == {"face"}
    brows = label_at(frontal, dense[DENSE_GROUPS["brows"]])
    assert brows.count("brows") >= 5
    # Points 50 to 52 and 56 to 58 lie on the outline of the lips, the middle between them lies in the mouth.
    assert set(label_at(frontal, (dense[[62]] + dense[[66]]) / 2)) <= {"lips", "mouth"}
    assert frontal.truth.five_visible.all()
    assert frontal.truth.five[0, 0] < frontal.truth.five[2, 0] < frontal.truth.five[1, 0]


def test_depth_normals_and_camera_agree(frontal: Picture) -> None:
    t = frontal.truth
    rows, columns = np.nonzero(t.parts == LABELS.index("face"))
    rows, columns = rows[::7], columns[::7]
    pixels = np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))], 1)
    rays = pixels @ np.linalg.inv(t.camera.intrinsic).T
    camera = rays * t.depth[rows, columns, None]
    world = (camera - t.camera.extrinsic[:, 3]) @ t.camera.extrinsic[:, :3]
    back = t.camera.project(world)
    assert np.abs(back[:, :2] - pixels[:, :2]).max() < 1e-3
    # All of a face lies within a hand of its landmarks, and is seen from outside.
    nose = t.depth[int(t.five[2, 1]), int(t.five[2, 0])]
    assert np.abs(t.depth[rows, columns] - nose).max() < 0.2
    toward = t.camera.center - world
    toward /= np.linalg.norm(toward, axis=1, keepdims=True)
    assert ((t.normals[rows, columns] * toward).sum(1) > 0).mean() > 0.99
    assert np.allclose(np.linalg.norm(t.normals[rows, columns], axis=1), 1, atol=1e-3)


def test_background_has_no_depth_and_the_body_has_texture_coordinates(frontal: Picture) -> None:
    t = frontal.truth
    behind = t.parts == 0
    assert behind.any() and (t.depth[behind] == 0).all() and (t.depth[~behind] > 0).all()
    face = t.parts == LABELS.index("face")
    assert ((t.uv[face] >= 0) & (t.uv[face] <= 1)).all()
    assert (t.uv[behind] == -1).all()


def test_a_turned_head_hides_the_far_side(frontal: Picture) -> None:
    t = frontal.truth
    turned = render(t.person, t.look, t.shot.replace(**{"head.yaw": 75.0})).truth
    left, right = turned.dense_visible[36:42], turned.dense_visible[42:48]
    # Positive yaw turns the face to the image's right: the eye at the image's right is the hidden one.
    assert left.sum() >= 4 and right.sum() <= 2
    assert turned.dense[30, 0] > turned.dense[36:42, 0].mean()


def test_look_and_light_do_not_move_the_face(frontal: Picture) -> None:
    t = frontal.truth
    other = render(
        t.person, look(7, t.person), t.shot.replace(**{"light.key_azimuth_deg": -90.0, "background.kind": "sky"})
    )
    assert np.array_equal(other.truth.dense, t.dense)
    assert not np.array_equal(other.image, frontal.image)


def test_another_person_has_another_face(frontal: Picture) -> None:
    t = frontal.truth
    other = render(person(4), look(0, person(4), fix=BARE), t.shot).truth
    moved = np.linalg.norm(other.dense - t.dense, axis=1)
    assert moved.max() > 2.0


def test_light_from_the_right_brightens_the_right() -> None:
    who = person(3)
    worn = look(0, who, fix=BARE)
    lit = {}
    for azimuth in (-80.0, 80.0):
        taken = shot(5, fix=CLEAR | {"light.key_azimuth_deg": azimuth, "light.fill": 0.0, "light.key": 1.0})
        picture = render(who, worn, taken)
        face = picture.truth.parts == LABELS.index("face")
        middle = picture.truth.dense[27:31, 0].mean()
        column = np.arange(face.shape[1])[None] + 0 * face
        gray = picture.image.mean(2)
        lit[azimuth] = gray[face & (column > middle)].mean() - gray[face & (column < middle)].mean()
    assert lit[80.0] > 5 and lit[-80.0] < -5


def test_closed_eyes_show_no_eyes() -> None:
    who = person(3)
    worn = look(0, who, fix=BARE)
    seen = {
        mood: (
            render(who, worn, shot(5, fix=CLEAR | {"mood": mood}), size=256).truth.parts == LABELS.index("eyes")
        ).sum()
        for mood in ("neutral", "closed_eyes")
    }
    assert seen["neutral"] > 60 and seen["closed_eyes"] < 0.4 * seen["neutral"]


def test_dark_and_light_skin_are_exposed_alike_but_not_the_same() -> None:
    mean = {}
    for tone in (2.0, 9.0):
        who = person(3, fix={"skin.tone": tone})
        picture = render(who, look(0, who, fix=BARE), shot(5, fix=CLEAR))
        face = picture.truth.parts == LABELS.index("face")
        mean[tone] = picture.image[face].mean()
    assert 35 < mean[9.0] < mean[2.0] - 30 < 230


def test_pictures_of_the_person_hold_all_keypoints() -> None:
    who = person(5)
    t = render(who, look(0, who, fix={"bag": None}), shot(0, "person", fix={"pose.name": "standing"}), "person").truth
    width, height = SIZES["person"]
    assert ((t.keypoints >= 0) & (t.keypoints <= (width, height))).all()
    _, y0, _, y1 = t.body_box
    assert y1 - y0 > 0.75 * height
    assert t.keypoints[0, 1] < t.keypoints[11, 1] < t.keypoints[15, 1]


@pytest.mark.parametrize("size", [8, 5000, (128, 3)])
def test_impossible_sizes_are_refused(size: int | tuple[int, int]) -> None:
    who = person(3)
    with pytest.raises(WorldError, match="16"):
        render(who, look(0, who), shot(0), size=size)


def test_unknown_framings_are_refused() -> None:
    who = person(3)
    with pytest.raises(WorldError, match="passport"):
        render(who, look(0, who), shot(0), "passport")
