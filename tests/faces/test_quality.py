import numpy as np
import pytest
from PIL import Image, ImageFilter

from ipse.errors import ImageError
from ipse.faces import Face, assess


def face_of(picture, score=1.0, shift=(0, 0)):
    five = picture.truth.five + np.asarray(shift)
    return Face((0, 0, 1, 1), score, five.astype(np.float32), "arcface5")


def quality(picture, image=None, **change):
    return assess(picture.image if image is None else image, [face_of(picture, **change)])[0]


def filtered(image, function):
    return np.asarray(function(Image.fromarray(image)))


@pytest.fixture(params=(0, 1, 4, 5))
def picture(request, portrait):
    return portrait(request.param, size=256)


def test_a_good_face_has_no_reasons(picture):
    found = quality(picture)
    assert found.reasons == () and 0.4 < found.overall <= 1
    assert found.eye_distance == pytest.approx(np.linalg.norm(picture.truth.five[1] - picture.truth.five[0]))
    assert abs(found.yaw) < 12 and abs(found.roll) < 5


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda image: filtered(image, lambda p: p.filter(ImageFilter.GaussianBlur(5))), "blurred"),
        (lambda image: image // 12, "too dark"),
        (lambda image: 235 + image // 13, "overexposed"),
        (lambda image: 120 + image // 16, "too little contrast"),
    ],
)
def test_spoiled_pictures_say_what_is_wrong(picture, spoil, reason):
    found = quality(picture, spoil(picture.image))
    assert any(reason in text for text in found.reasons)
    assert found.overall < quality(picture).overall


def test_measures_fall_as_a_picture_gets_worse(picture):
    blurs = [filtered(picture.image, lambda p, r=r: p.filter(ImageFilter.GaussianBlur(r))) for r in (0, 1, 2, 4)]
    sharpness = [quality(picture, image).sharpness for image in blurs]
    assert sharpness == sorted(sharpness, reverse=True)
    contrast = [quality(picture, (picture.image * f).astype(np.uint8)).contrast for f in (1, 0.6, 0.3, 0.1)]
    assert contrast == sorted(contrast, reverse=True)


def test_small_faces_say_so(portrait):
    found = quality(portrait(1, size=64))
    assert found.eye_distance < 10
    assert any("The face is small: " in text for text in found.reasons)


def test_yaw_and_roll_follow_the_head(portrait):
    yaws = [quality(portrait(1, yaw, size=256)).yaw for yaw in (-30, 0, 30)]
    assert yaws[0] < yaws[1] < yaws[2]
    assert yaws[2] - yaws[0] == pytest.approx(60, abs=20)
    picture = portrait(1, size=256)
    flat = quality(picture).roll
    five = picture.truth.five - 128
    turn = np.radians(20)
    five = five @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + 128
    face = Face((0, 0, 1, 1), 1.0, five.astype(np.float32), "arcface5")
    assert assess(picture.image, [face])[0].roll == pytest.approx(flat + 20, abs=0.1)


def test_turned_heads_unsure_and_cut_faces_say_so(portrait):
    picture = portrait(1, size=256)
    narrow = picture.truth.five.copy()
    narrow[2] += [0.8 * np.linalg.norm(narrow[1] - narrow[0]), 0]
    face = Face((0, 0, 1, 1), 1.0, narrow.astype(np.float32), "arcface5")
    assert any("turned aside" in text for text in assess(picture.image, [face])[0].reasons)
    assert any("not sure" in text for text in quality(picture, score=0.0).reasons)
    assert any("edge of the image" in text for text in quality(picture, shift=(-120, 0)).reasons)


def test_odd_faces_and_images_are_measured_too():
    nowhere = Face((0, 0, 1, 1), 1.0, np.zeros((5, 2), np.float32))
    far = Face((0, 0, 1, 1), 1.0, np.full((5, 2), 1e6, np.float32))
    for image in (np.zeros((1, 1, 3), np.uint8), np.full((50, 50, 3), 255, np.uint8)):
        for found in assess(image, [nowhere, far]):
            assert found.overall == 0 and found.reasons and np.isfinite(found.yaw)
    assert assess(np.zeros((5, 5, 3), np.uint8), []) == []
    with pytest.raises(ImageError):
        assess(np.zeros((5, 5)), [])
