"""CAST: folders lose who does not belong, and people who are there twice become one."""

import numpy as np
import pytest

from ipse.errors import TrainingError
from ipse.measure.clustering import pairwise_f
from ipse.training.cast import Rules, cast, clean


def around(who, spread=0.12, seed=0):
    found = np.eye(12)[who] + spread * np.random.default_rng(seed).normal(size=(len(who), 12))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_the_largest_group_of_a_folder_stays_and_folders_of_one_person_become_one():
    #               folder 10, with two others   11           12: the same as 11
    who = np.array([0, 0, 0, 0, 5, 6, *[1] * 4, *[1] * 3])
    folders = np.repeat([10, 11, 12], [6, 4, 3])
    found = clean(around(who), folders, Rules())
    assert found.tolist() == [0, 0, 0, 0, -1, -1, *[1] * 7]
    # Without merging, the smaller of two folders that are too alike is gone.
    assert clean(around(who), folders, Rules(merge=1.0)).tolist() == [0, 0, 0, 0, -1, -1, *[1] * 4, *[-1] * 3]
    apart = clean(around(who), folders, Rules(merge=1.0, part=1.0))
    assert apart.tolist() == [0, 0, 0, 0, -1, -1, *[1] * 4, *[2] * 3]
    assert (clean(around(np.arange(6)), np.zeros(6), Rules()) == -1).all()
    with pytest.raises(TrainingError, match="Part earlier"):
        Rules(merge=0.4, part=0.5)
    with pytest.raises(TrainingError, match="above 0"):
        Rules(near=0)


def test_every_round_cleans_the_folders_as_they_came():
    draw = np.random.default_rng(1)
    who = np.repeat(np.arange(10), 10)
    folders = np.where(draw.random(100) < 0.35, draw.integers(0, 10, 100), who)
    seen = []

    def embed(labels, number):
        # An encoder that is the better the purer what it was trained on, as real ones are.
        seen.append(pairwise_f(who[labels >= 0], labels[labels >= 0]).precision)
        return around(who, 0.45 * (1 - seen[-1]) + 0.1, seed=number)

    found = list(cast(embed, folders, lambda vectors: Rules(), rounds=3))
    told = [pairwise_f(who[labels >= 0], labels[labels >= 0]).precision for labels in found]
    assert seen[0] < told[0] <= told[-1] and told[-1] == 1 and seen[1:] == told[:2]
    assert (found[-1] >= 0).mean() > 0.6
    with pytest.raises(TrainingError, match="left 0 people"):
        list(cast(embed, folders, lambda vectors: Rules(near=0.001, core=5)))
