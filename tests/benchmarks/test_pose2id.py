"""The benchmark of Pose2ID: what it counts, on planted features, and its pictures."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import pose2id
from ipse.measure import Evidence


def planted(noise, seed=0, people=24, shots=4, views=8):
    """Features of people, and of pictures made of them, as far from the person as `noise`."""
    draw = np.random.default_rng(seed)
    who = np.repeat(np.arange(people), shots)
    centers = draw.normal(size=(people, 32))
    features = centers[who] + 1.8 * draw.normal(size=(len(who), 32))
    made = centers[who][:, None] + noise * draw.normal(size=(len(who), views, 32))
    return who, np.arange(len(who)) % shots == 0, features.astype(np.float32), made.astype(np.float32)


def figures(*scene):
    evidence = Evidence("pose2id")
    pose2id.measured(evidence, "pose2id.x.", *scene)
    return {figure["name"].removeprefix("pose2id."): figure["value"] for figure in evidence.figures}


def test_good_pictures_help_and_those_of_somebody_else_do_not():
    found = figures(*planted(1.0))
    assert found["x.generated_map_ahead"] > 5 and found["x.both_over_neighbors_map"] > 5
    assert found["x.wrong_map_ahead"] < 0 < found["x.generated_over_wrong_map"]
    assert found["x.generated_center_distance_less"] > 0.1 > found["x.wrong_center_distance_less"]
    assert found["x.made_rank1"] > found["x.cosine_rank1"] > 0
    poor = figures(*planted(30.0))
    assert poor["x.generated_map_ahead"] < 2 and poor["x.made_rank1"] < 40


def test_somebody_else_is_another_for_each_picture():
    who = np.repeat([3, 5, 6, 9, 11], 4)
    other = who[pose2id.elses(who)]
    assert (other != who).all()
    for one in np.unique(who):
        assert len(set(other[who == one])) == 4


def test_a_person_stays_and_the_moment_does_not():
    one, other = pose2id.pictures_of(20, 2)
    assert one.shape == (256, 128, 3) and not np.array_equal(one, other)
