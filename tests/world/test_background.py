import numpy as np
import pytest

from ipse.world.background import background
from ipse.world.shot import BACKGROUNDS, Background

SCENES = [kind for kind in BACKGROUNDS if kind not in ("plain", "gradient", "studio")]


def edges(picture):
    return float(np.abs(np.diff(picture, axis=1)).mean())


@pytest.mark.parametrize("kind", BACKGROUNDS)
@pytest.mark.parametrize("size", [(128, 128), (64, 128), (200, 90)])
def test_every_kind_fills_any_shape_with_light(kind, size):
    picture = background(Background(kind, 3, 0.2), *size)
    assert picture.shape == (size[1], size[0], 3) and picture.dtype == np.float32
    assert np.isfinite(picture).all() and picture.min() >= 0
    assert 0.02 < picture.mean() < 0.8


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_a_seed_is_one_picture(kind):
    first = background(Background(kind, 7), 64, 64).copy()
    background(Background(kind, 8), 64, 64)
    for other in range(9, 27):
        background(Background(kind, other), 64, 64)
    np.testing.assert_array_equal(first, background(Background(kind, 7), 64, 64))


@pytest.mark.parametrize("kind", SCENES)
def test_seeds_differ(kind):
    a, b = (background(Background(kind, seed), 64, 64) for seed in (1, 2))
    assert np.abs(a - b).mean() > 0.01


@pytest.mark.parametrize("kind", SCENES)
def test_blur_leaves_less_to_tell(kind):
    sharp, soft, gone = (edges(background(Background(kind, 5, blur), 96, 96)) for blur in (0.0, 0.4, 1.0))
    assert sharp > soft > gone


@pytest.mark.parametrize("kind", ["plain", "gradient", "studio", "wall"])
def test_color_is_the_leading_one(kind):
    red, blue = (background(Background(kind, 4, 0.0, color), 64, 64).mean((0, 1)) for color in ("red", "blue"))
    assert red[0] > red[2] and blue[2] > blue[0]


def test_the_scene_is_the_same_at_every_size():
    small, large = (background(Background("room", 12), n, n) for n in (64, 128))
    again = large.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.corrcoef(small.ravel(), again.ravel())[0, 1] > 0.9
