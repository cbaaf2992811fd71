"""The benchmark of systems: its own figures and scenes, not its trainings."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("kornia")
pytest.importorskip("accelerate")

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import systems
from ipse.measure.clustering import bcubed, bcubed_f
from ipse.measure.evidence import Evidence


def test_f_of_pictures_is_that_of_clustering():
    draw = np.random.default_rng(0)
    people, groups = draw.integers(0, 8, (2, 60))
    assert systems.f_measure(bcubed(people, groups)) == pytest.approx(bcubed_f(people, groups).f)


def test_balanced_accuracy_is_the_mean_over_kinds_and_attributes():
    truth = {"hat": np.array([1.0, 0, 0, 0, np.nan]), "beard": np.array([1.0, 1, 0, np.nan, 0])}
    scores = {"hat": np.array([1.0, -1, -1, 1, 1]), "beard": np.array([-1.0, 1, 1, 1, -1])}
    # Hats: 1 of 1 and 2 of 3; beards: 1 of 2 and 1 of 2.
    assert systems.balanced(scores, truth).mean() == pytest.approx((1 + 2 / 3 + 1 / 2 + 1 / 2) / 4)


def test_pairs_are_judged_at_a_threshold_of_other_people():
    draw = np.random.default_rng(1)
    people, looks = np.repeat(np.arange(6), 4), np.tile([0, 0, 1, 1], 6)
    chips = SimpleNamespace(column={"person": people, "look": looks}.__getitem__)
    centers = np.linalg.qr(draw.normal(size=(6, 6)))[0]
    vectors = centers[people] + 0.01 * draw.normal(size=(24, 6))
    turned = vectors @ np.linalg.qr(draw.normal(size=(6, 6)))[0]
    both = {"choose": chips, "judge": chips}
    right, whose = systems.verified((vectors, vectors), (vectors, vectors), both)
    assert right.mean() == 1 and set(whose) == set(range(6))
    # Two Looks of two pictures each: eight ordered pairs of every person.
    assert (whose[:48] == np.repeat(np.arange(6), 8)).all()
    assert systems.verified((vectors, turned), (vectors, turned), both)[0].mean() < 0.95


def test_scenes_hold_the_face_where_they_say():
    draw = np.random.default_rng(2)
    count = 30
    pictures, parts = np.zeros((count, 128, 128, 3), np.uint8), np.zeros((count, 128, 128), np.uint8)
    pictures[..., 2] = draw.integers(50, 200, (count, 1, 1))
    corner = draw.integers(42, 60, (count, 2))
    dense = np.empty((count, 2, 2), np.float32)
    for i, (x, y) in enumerate(corner):
        pictures[i, y : y + 50, x : x + 40] = (250, 0, 0)
        parts[i, y : y + 50, x : x + 40] = 3
        dense[i] = [[x - 0.5, y - 0.5], [x + 39.5, y + 49.5]]
    columns = {"dense": dense, "person": np.arange(count), "look": np.zeros(count), "shot": np.zeros(count)}
    chips = SimpleNamespace(images=lambda rows: pictures[rows], column=columns.__getitem__)
    scenes, boxes = systems.scenes_of(chips, parts, np.arange(count))
    filled = ~np.isnan(boxes[:, 0])
    assert 0 < (~filled).sum() < count / 2
    red = (scenes[..., 0] > 125) & (scenes[..., 2] < 125)
    assert not red[~filled].any()
    for seen, box in zip(red[filled], boxes[filled], strict=True):
        y, x = np.nonzero(seen)
        assert np.abs(box - [x.min(), y.min(), x.max() + 1, y.max() + 1]).max() < 2
    assert boxes[filled].min() >= -0.01 and boxes[filled].max() <= 128.01


def test_widths_are_chosen_for_equal_size():
    size = systems.parameters(systems.OSNET)
    for options in ({"gate": False}, {"streams": 1, "gate": False}):
        found = systems.equally_large({**systems.OSNET, **options}, size)
        assert abs(systems.parameters(found) / size - 1) < 0.06 and found["width"] > systems.OSNET["width"]


def test_gains_are_paired_by_picture_and_seed():
    evidence = Evidence("systems")
    theirs = np.random.default_rng(3).random((3, 40))
    systems.add_gain(evidence, "systems.gain", theirs + 0.1, theirs, np.repeat(np.arange(10), 4), "them")
    figure = evidence.figures[0]
    assert figure["value"] == pytest.approx(10) and figure["ci95"] == pytest.approx([10, 10]) and figure["n"] == 10
    assert figure["note"] == "by seed 10.00, 10.00, 10.00"
