"""LNet+ANet: windows against a search by hand, faces found by responses, attributes by linear classifiers."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ipse.attributes.lnet_anet import ANet, LNet, LNetANet, best_windows, cut_squares  # noqa: E402
from ipse.encoders.backbones import Backbone  # noqa: E402
from ipse.errors import DataError  # noqa: E402


class RedFinder(Backbone):
    """Responds to red and to nothing else, as a network whose tags are all of red things would."""

    dim = 2

    def feature_map(self, x):
        red = x[:, 0] - x[:, 1]
        return torch.nn.functional.avg_pool2d(torch.stack([red, -red], 1), 8)


def face(draw, red=230, size=80):
    """A picture with a red ellipse, and the box around it."""
    height, width = draw.integers(size, 2 * size, 2)
    half = draw.uniform(0.12, 0.22, 2) * size
    middle = np.array([draw.uniform(half[0], width - half[0]), draw.uniform(half[1], height - half[1])])
    picture = np.repeat(draw.integers(60, 160, (height, width, 1)), 3, 2).astype(np.uint8)
    y, x = np.mgrid[:height, :width] + 0.5
    inside = ((x - middle[0]) / half[0]) ** 2 + ((y - middle[1]) / half[1]) ** 2 < 1
    picture[inside] = (red, 40, 40)
    return picture, np.concatenate([middle - half, middle + half])


def overlap(a, b):
    shared = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = shared.clip(0).prod(1)
    return shared / ((a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared)


@pytest.fixture(scope="module")
def scenes():
    draw = np.random.default_rng(0)
    pictures, boxes = zip(*(face(draw, red) for red in [150, 240] * 20), strict=True)
    empty = [np.repeat(draw.integers(60, 160, (90, 120, 1)), 3, 2).astype(np.uint8) for _ in range(10)]
    return pictures, np.array(boxes), np.array([0.0, 1.0] * 20), empty


def test_the_best_window_is_that_of_a_search_by_hand():
    scores = np.random.default_rng(1).normal(size=(4, 5, 7))
    for score, window in zip(scores, best_windows(scores), strict=True):
        found = {
            (left, top, right, bottom): score[top:bottom, left:right].sum()
            for top in range(5)
            for bottom in range(top + 1, 6)
            for left in range(7)
            for right in range(left + 1, 8)
        }
        assert tuple(window) == max(found, key=found.get)


def test_squares_are_cut_around_boxes():
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[10:20, 30:50] = 255
    cut = cut_squares([picture], np.array([[30.0, 10, 50, 20]]), 40, 0.0)[0, ..., 0]
    # A square of 20 pixels, twice as large: the box fills its middle half from edge to edge.
    assert (cut[12:28, 1:-1] > 250).all() and (cut[:8] == 0).all() and (cut[32:] == 0).all()
    beyond = cut_squares([np.full((40, 60, 3), 255, np.uint8)], np.array([[50.0, 10, 70, 30]]), 40, 0.0)[0, ..., 0]
    assert (beyond[:, :18] == 255).all() and (beyond[:, 22:] == 0).all()


def test_responses_find_faces_and_the_second_look_is_finer(scenes):
    pictures, boxes, _, empty = scenes
    overlaps = []
    for networks in ([RedFinder()], [RedFinder(), RedFinder()]):
        lnet = LNet(networks, 64).fit(pictures, empty)
        found, scores = lnet.locate(pictures)
        assert (scores > 0).all() and (lnet.locate(empty)[1] <= 0).all()
        overlaps.append(overlap(found, boxes).mean())
    assert overlaps[0] > 0.6 and overlaps[1] > overlaps[0] + 0.03


def test_attributes_are_learned_from_located_faces(scenes):
    pictures, _, bright, empty = scenes

    def encode(chips):
        return chips[:, 8:-8, 8:-8].mean((1, 2)).astype(np.float32)

    system = LNetANet(LNet([RedFinder(), RedFinder()], 64).fit(pictures, empty), ANet(encode, 32))
    some = bright.copy()
    some[:6] = np.nan
    _, scores = system.fit(pictures[:30], {"bright": some[:30], "dark": 1 - some[:30]}).scores(pictures[30:])
    assert list(scores) == ["bright", "dark"]
    assert ((scores["bright"] > 0) == (bright[30:] > 0)).all() and ((scores["dark"] > 0) == (bright[30:] == 0)).all()


def test_what_cannot_be_learned_is_named(scenes):
    pictures, boxes, _, _ = scenes
    anet = ANet(lambda chips: chips.mean((1, 2)).astype(np.float32), 32)
    features = anet.features(pictures[:4], boxes[:4])
    assert features.shape == (4, 5, 3)
    with pytest.raises(DataError, match="hat is known are alike"):
        anet.fit(features, {"hat": [1, 1, np.nan, 1]})
    with pytest.raises(DataError, match="does not know"):
        LNet([RedFinder()], 64).locate(pictures)
