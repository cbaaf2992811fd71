"""The benchmark of trainings without labels: its videos, folders and other worlds, not its trainings."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("kornia")
pytest.importorskip("accelerate")

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import reid_training as bench
from ipse.training.data import Chips, Cut


def people(count=12, looks=2, shots=4):
    person, look, shot = (side.ravel() for side in np.mgrid[:count, :looks, :shots])
    columns = {"person": person, "look": look, "shot": 4 * look + shot}
    chips = Chips(Path("nowhere"), Cut("whole", (16, 8)), "", columns, np.arange(len(person)))
    draw = np.random.default_rng(0)
    return bench.People(draw.integers(0, 256, (len(person), 16, 8, 3)).astype(np.uint8), chips)


def test_videos_show_several_people_in_every_frame():
    everyone = people()
    frames = bench.videos(everyone, seed=1, at_once=6)
    assert sorted(set(frames.frame)) == [0, 1, 2, 3] and sorted(set(frames.video)) == [0, 1, 2, 3]
    days = everyone.day
    for video in range(4):
        mine = frames.video == video
        assert len(np.unique(days[mine])) == 6
        assert all(len(np.unique(days[mine & (frames.frame == f)])) == 6 for f in range(4))
    assert len(frames.pairs(1)) == 12
    assert (bench.videos(everyone, seed=2).video != frames.video).any()


def test_everybody_is_tracked_twice_and_some_pictures_go_astray():
    everyone = people(count=30)
    frames, told = bench.tracked(everyone, seed=0)
    days, of = np.unique(everyone.day, return_inverse=True)
    assert sorted(set(frames.frame)) == [0, 1]
    true = 2 * of + np.tile([0, 0, 1, 1], len(days))
    # A track lies in one video, and a picture goes astray within it.
    assert all(len(np.unique(frames.video[true == track])) == 1 for track in np.unique(true))
    assert all(len(np.unique(frames.video[told == track])) == 1 for track in np.unique(told))
    assert 0.02 < (told != true).mean() < 0.15


def test_wrong_detections_show_nobody_and_the_others_stay():
    everyone = people()
    clean = bench.videos(everyone, seed=1)
    wrong = bench.with_wrong(clean, 0.3, seed=1)
    changed = (wrong.pictures != clean.pictures).any((1, 2, 3))
    assert 0.15 < changed.mean() < 0.45 and (wrong.video == clean.video).all()


def test_another_world_is_the_same_for_all_its_pictures():
    pictures = people().pictures
    assert bench.another_world(pictures, 0) is pictures
    first, second = bench.another_world(pictures, 1), bench.another_world(pictures, 2)
    assert (first != second).any() and (bench.another_world(pictures[5:7], 1) == first[5:7]).all()


def test_folders_hold_others_and_some_people_are_there_twice():
    everyone = people(count=40)
    folders, person = bench.as_downloaded(everyone, seed=0), everyone.column("person")
    assert 0.5 < (folders % 40 == person).mean() < 0.75
    twice = np.unique(folders[folders >= 40]) - 40
    assert len(twice) == 4 and np.isin(twice, folders).all()


def test_pictures_of_nobody_are_alone():
    assert bench.alone(np.array([1, -1, 0, 1, -1])).tolist() == [1, 3, 0, 1, 6]
