import numpy as np
import pytest

from ipse.world.camera_effects import degrade, occluder
from ipse.world.shot import OCCLUDERS, Degrade, Occluder


@pytest.fixture
def image():
    y, x = np.mgrid[:64, :96]
    return np.stack([x * 2, y * 3, (x + y) % 32 * 6], -1).astype(np.uint8)


@pytest.mark.parametrize("kind", OCCLUDERS)
@pytest.mark.parametrize("angle", [-70, 0, 35])
def test_an_occluder_covers_its_place(kind, angle):
    color, alpha = occluder(Occluder(kind, 0.5, 0.5, 0.4, angle, "red"), 96, 128)
    assert color.shape == (128, 96, 3) and alpha.shape == (128, 96)
    assert color.dtype == alpha.dtype == np.float32
    assert alpha[64, 48] > 0.9
    assert 0.01 < (alpha > 0.5).mean() < 0.5
    assert alpha.min() >= 0 and alpha.max() <= 1 and color.min() >= 0 and color.max() <= 1
    mean = color[alpha > 0.5].mean()
    assert 0.02 < mean < 0.9


@pytest.mark.parametrize("kind", ["cup", "phone", "leaf", "blob"])
def test_an_occluder_has_the_size_and_place_it_is_given(kind):
    _, alpha = occluder(Occluder(kind, 0.25, 0.75, 0.3), 200, 200)
    rows, columns = np.nonzero(alpha > 0.5)
    assert max(np.ptp(rows), np.ptp(columns)) == pytest.approx(60, abs=16)
    assert columns.mean() == pytest.approx(50, abs=8) and rows.mean() == pytest.approx(150, abs=8)


def test_a_bar_and_an_arm_go_on_out_of_the_picture():
    _, bar = occluder(Occluder("bar", 0.5, 0.5, 0.2), 64, 64)
    assert bar[0].max() > 0.8 and bar[-1].max() > 0.8
    _, hand = occluder(Occluder("hand", 0.5, 0.5, 0.3), 64, 64)
    assert hand[0].max() == 0 and hand[-1].max() > 0.8


@pytest.mark.parametrize("kind", OCCLUDERS)
def test_an_occluder_may_lie_at_any_edge(kind):
    for x, y in ((0, 0), (1, 1), (0, 1), (1, 0)):
        for angle in (-180, 90, 180):
            _, alpha = occluder(Occluder(kind, x, y, 1.0, angle), 32, 32)
            assert np.isfinite(alpha).all()
    assert occluder(Occluder(kind, 0.5, 0.5, 0.02), 16, 16)[1].shape == (16, 16)


def test_color_shows():
    red, blue = (occluder(Occluder("cup", color=color), 64, 64) for color in ("red", "blue"))
    mean = [color[alpha > 0.8].mean(0) for color, alpha in (red, blue)]
    assert mean[0][0] > mean[0][2] and mean[1][2] > mean[1][0]


def test_no_damage_leaves_the_image(image):
    assert degrade(image, Degrade(), 5) is image


@pytest.mark.parametrize(
    "spec",
    [
        Degrade(blur_px=1.5),
        Degrade(noise=0.05),
        Degrade(low_res=0.3),
        Degrade(jpeg=20),
        Degrade(exposure=0.5),
        Degrade(contrast=0.7),
        Degrade(saturation=0.2),
    ],
    ids=lambda spec: next(k for k, v in spec.to_dict().items() if v != Degrade().to_dict()[k]),
)
def test_each_damage_changes_a_copy_the_same_way_every_time(image, spec):
    before = image.copy()
    first, second = degrade(image, spec, 3), degrade(image, spec, 3)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(image, before)
    assert first.shape == image.shape and first.dtype == np.uint8
    assert np.abs(first.astype(int) - image).mean() > 0.5


def test_noise_has_its_deviation_and_seed():
    gray = np.full((128, 128, 3), 128, np.uint8)
    a, b = degrade(gray, Degrade(noise=0.04), 1), degrade(gray, Degrade(noise=0.04), 2)
    assert (a.astype(float) - 128).std() / 255 == pytest.approx(0.04, rel=0.1)
    assert not np.array_equal(a, b)


def test_tones_go_the_right_way(image):
    assert degrade(image, Degrade(exposure=1.0)).mean() > image.mean() > degrade(image, Degrade(exposure=-1.0)).mean()
    assert degrade(image, Degrade(contrast=0.5)).std() < image.std()
    gray = degrade(image, Degrade(saturation=0.0)).astype(int)
    assert np.ptp(gray, axis=-1).max() <= 1
