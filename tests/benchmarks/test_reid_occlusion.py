"""The benchmark of boxes with two people: how they are made, and what counts as told apart."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("kornia")
pytest.importorskip("accelerate")

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import reid_occlusion as bench
from ipse.gallery.visible_parts import VisibleParts
from ipse.training.kpr import Boxes


def boxes(people=4, looks=2, shots=4):
    """People who are columns of their own color in the middle of black pictures."""
    person, look, shot = (side.ravel() for side in np.mgrid[:people, :looks, :shots])
    pictures = np.zeros((len(person), 24, 20, 3), np.uint8)
    parts = np.zeros(pictures.shape[:3], np.uint8)
    pictures[:, 2:22, 7:13] = (50 + 40 * person)[:, None, None, None]
    parts[:, 2:22, 7:13] = 2
    points = np.ones((len(person), 17, 3), np.float32)
    points[:, :, 0], points[:, :, 1] = np.linspace(8, 12, 17), np.linspace(3, 21, 17)
    return Boxes(pictures, person, look, shot + 10 * look, parts, points)


def test_boxes_are_made_from_half_of_the_shots_of_every_day():
    everyone = boxes()
    asked = bench.asked_of(everyone)
    for day in np.unique(everyone.days):
        mine = everyone.days == day
        assert asked[mine].sum() == 2 and everyone.shots[mine & asked].max() < everyone.shots[mine & ~asked].min()


def test_both_people_of_a_box_can_be_seen_and_are_asked_for():
    two = bench.scenes(boxes(), 10, np.random.default_rng(0))
    swap = bench.exchanged(len(two))
    assert len(two) == 20 and (two.pictures == two.pictures[swap]).all()
    assert (two.people != two.people[swap]).all() and not ((two.parts > 0) & (two.parts[swap] > 0)).any()
    for row in range(20):
        shown = two.parts[row] > 0
        assert shown.any() and (two.pictures[row][shown] == 50 + 40 * two.people[row]).all()
        x, y = np.floor(two.points[row, two.points[row, :, 2] > 0, :2]).astype(int).T
        assert len(x) >= 4 and shown[y, x].mean() > 0.9


def test_a_moved_picture_repeats_its_edge():
    one = boxes(1, 1, 1)
    one.pictures[0, :, 0] = 9
    moved = bench.moved(one, 8)
    assert (moved.pictures[0, :, :8] == 9).all() and (moved.parts[0] > 0).any(0).tolist() == [
        x >= 15 for x in range(20)
    ]
    assert (moved.points[0, :, 2] > 0).tolist() == (one.points[0, :, 0] < 12).tolist()


def test_told_apart_compares_the_two_people_of_a_box_alone():
    gallery = boxes(3, 1, 1)
    asked = gallery.choose(np.array([0, 1]))
    own = np.eye(3, dtype=np.float32)
    third = own[[2, 2]] + 0.1 * own[[0, 1]]
    held = own[:, None]
    # Both look most like a third person, who is not in the box.
    assert bench.told_apart(VisibleParts(third[:, None], held), asked, gallery).tolist() == [1, 1]
    assert bench.told_apart(VisibleParts(third[::-1][:, None], held), asked, gallery).tolist() == [0, 0]
    same = np.stack([own[0], own[0]])[:, None]
    assert bench.told_apart(VisibleParts(same, held), asked, gallery).tolist() == [1, 0]


def test_a_box_asked_with_the_others_keypoints_says_what_its_twin_says():
    two = bench.scenes(boxes(), 3, np.random.default_rng(0))
    swap = bench.exchanged(len(two))
    assert (two.pictures == two.pictures[swap]).all()
    ours, others = (
        bench.prompts(two.points, (24, 20), two.points[swap]),
        bench.prompts(two.points[swap], (24, 20), two.points),
    )
    assert (ours[swap] == others).all() and not (ours == others).all()
