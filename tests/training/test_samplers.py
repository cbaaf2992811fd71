"""Samplers: what a batch holds, and that it depends on its number alone."""

import numpy as np
import pytest

from ipse.errors import TrainingError
from ipse.training.samplers import IdentitySampler, ShuffledSampler

LABELS = np.repeat(np.arange(7), 6)
CAMERAS = np.tile([0, 0, 0, 0, 1, 2], 7)


def test_batches_hold_people_with_several_pictures_each():
    sampler = IdentitySampler(LABELS, people=3, each=4)
    assert sampler.size == 12 and sampler.per_epoch == 2
    for number in range(6):
        rows = sampler.batch(number)
        _, counts = np.unique(LABELS[rows], return_counts=True)
        assert len(np.unique(rows)) == 12 and list(counts) == [4, 4, 4]
    epoch = np.concatenate([LABELS[sampler.batch(number)] for number in (0, 1)])
    assert len(np.unique(epoch)) == 6  # nobody twice in an epoch


def test_pictures_are_spread_over_groups():
    sampler = IdentitySampler(LABELS, people=3, each=3, groups=CAMERAS)
    for number in range(4):
        rows = sampler.batch(number).reshape(3, 3)
        assert all(set(CAMERAS[person]) == {0, 1, 2} for person in rows)
    plain = [set(CAMERAS[p]) for n in range(8) for p in IdentitySampler(LABELS, 3, 3).batch(n).reshape(3, 3)]
    assert any(cameras != {0, 1, 2} for cameras in plain)


def test_a_batch_depends_on_its_number_alone():
    first, again = (IdentitySampler(LABELS, 3, 4, CAMERAS, seed=5) for _ in range(2))
    ahead = [first.batch(number) for number in range(9)]
    for number in (8, 0, 5, 2):
        assert np.array_equal(again.batch(number), ahead[number])
    assert not np.array_equal(ahead[0], ahead[2])  # another epoch, another order
    assert not np.array_equal(IdentitySampler(LABELS, 3, 4, seed=6).batch(0), IdentitySampler(LABELS, 3, 4).batch(0))


def test_somebody_with_few_pictures_has_some_twice():
    labels = np.array([0, 0, 1, 1, 1])
    rows = IdentitySampler(labels, 2, 4).batch(0)
    assert sorted(labels[rows]) == [0, 0, 0, 0, 1, 1, 1, 1]
    assert {0, 1} <= set(rows)


def test_a_label_with_one_picture():
    labels = np.array([4, 4, 9, 9, 7])
    with pytest.raises(TrainingError, match=r"1 of 3 people have one picture.*: 7"):
        IdentitySampler(labels, 2, 2)
    dropped = IdentitySampler(labels, 2, 2, alone="drop")
    assert 4 not in {row for number in range(5) for row in dropped.batch(number)}
    with pytest.raises(TrainingError, match="fewer than the 3"):
        IdentitySampler(labels, 3, 2, alone="drop")
    with pytest.raises(TrainingError, match="no pairs"):
        IdentitySampler(labels, 2, 1)
    with pytest.raises(TrainingError, match="treated"):
        IdentitySampler(labels, 2, 2, alone="keep")


def test_shuffled_pictures_come_once_an_epoch():
    sampler = ShuffledSampler(23, 5, seed=1)
    assert sampler.per_epoch == 4
    epoch = np.concatenate([sampler.batch(number) for number in range(4)])
    assert len(np.unique(epoch)) == 20
    assert not np.array_equal(sampler.batch(0), sampler.batch(4))
    assert np.array_equal(sampler.batch(6), ShuffledSampler(23, 5, seed=1).batch(6))
    with pytest.raises(TrainingError, match="fewer than a batch"):
        ShuffledSampler(4, 5)
