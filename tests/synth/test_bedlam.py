import json

import numpy as np
import pytest
import torch

from ipse.errors import DataError, TrainingError, WorldError
from ipse.images import read_image
from ipse.synth.bedlam import (
    aligned_joint_errors,
    bedlam_clip,
    bedlam_records,
    joint_errors,
    write_bodies,
)
from ipse.synth.hmr import _MIRROR, Regressor, predict, train_regressor
from ipse.world import body
from ipse.world.body import COCO, rotation


@pytest.fixture(scope="module")
def pair():
    """The same three pictures of one person in the full and in the reduced world."""
    return tuple(list(bedlam_records(3, [44], pictures=3, variation=v)) for v in ("full", "reduced"))


def test_labels_agree_with_each_other(pair):
    for record in [*pair[0], *pair[1]]:
        places = np.concatenate([record.joints, np.ones((17, 1))], 1) @ record.extrinsic.T
        pixels = places @ record.intrinsic.T
        assert pixels[:, :2] / pixels[:, 2:] == pytest.approx(record.keypoints, abs=1e-2)
        hips = places[[COCO.index("left_hip"), COCO.index("right_hip")]].mean(0)
        assert record.camera_joints == pytest.approx(places - hips)
        assert record.bones.shape == (len(body().bones), 3, 4)
        assert 0.9 < record.body["stature_m"] < 2.3


def test_joints_lie_on_the_person(pair):
    record = pair[1][0]
    inside = record.keypoints[record.visible].astype(int)
    backdrop = record.image[0, 0].astype(int)
    assert len(inside) > 5
    assert (np.abs(record.image[inside[:, 1], inside[:, 0]] - backdrop).sum(-1) > 60).mean() > 0.8


def test_only_what_varies_differs_between_the_worlds(pair):
    for full, reduced in zip(*pair, strict=True):
        assert np.array_equal(full.camera_joints, reduced.camera_joints)
        assert np.array_equal(full.bones, reduced.bones)
        assert full.body == reduced.body
        assert not np.array_equal(full.image, reduced.image)
        assert set(reduced.garments) == {"top", "bottom", "shoes"}
        assert reduced.garments["top"]["kind"] == "tanktop"
    # One light and one background, but for the grain of a wall.
    spread = [np.ptp([record.image[0, 0] for record in world], axis=0).max() for world in pair]
    assert spread[1] < 12 < spread[0]


def test_a_seed_gives_the_same_records(pair):
    again = next(bedlam_records(3, [44], pictures=1))
    assert np.array_equal(again.image, pair[0][0].image)
    assert np.array_equal(again.bones, pair[0][0].bones)
    assert again.garments == pair[0][0].garments
    assert not np.array_equal(next(bedlam_records(4, [44])).image, again.image)


def test_a_clip_moves_the_person_and_the_camera():
    frames = list(bedlam_clip(3, 44, seconds=0.2, fps=10, variation="reduced"))
    assert [frame.time_s for frame in frames] == [0, 0.1]
    assert frames[0].pose == "walking"
    assert np.abs(frames[0].bones - frames[1].bones).max() > 0.01
    assert np.abs(frames[0].extrinsic - frames[1].extrinsic).max() > 0.01
    assert frames[0].body == frames[1].body


def test_records_are_written_with_their_labels(pair, tmp_path):
    assert write_bodies(pair[0][:2], tmp_path) == 2
    first = json.loads((tmp_path / "metadata.jsonl").read_text().splitlines()[0])
    assert np.array_equal(read_image(tmp_path / first["file_name"]), pair[0][0].image)
    assert np.array_equal(first["camera_joints"], pair[0][0].camera_joints)
    assert first["garments"] == pair[0][0].garments
    with pytest.raises(DataError, match="not empty"):
        write_bodies(pair[0], tmp_path)


@pytest.mark.parametrize("options", [{"seed": -1}, {"seed": 0, "variation": "none"}, {"seed": 0, "pictures": 0}])
def test_what_cannot_be_is_refused(options):
    with pytest.raises(WorldError):
        next(bedlam_records(**options))


def test_joint_errors_are_those_of_the_root_relative_joints(pair):
    truth = np.stack([record.camera_joints for record in pair[0]])
    assert joint_errors(truth + [1, 2, 3], truth) == pytest.approx([0, 0, 0])
    moved = truth.copy()
    moved[:, 0, 0] += 0.17
    assert joint_errors(moved, truth) == pytest.approx([0.01] * 3)
    with pytest.raises(ValueError, match="shapes"):
        joint_errors(truth[:, :5], truth[:, :5])


def test_alignment_takes_out_turn_scale_and_shift_but_no_mirror(pair):
    truth = np.stack([record.camera_joints for record in pair[0]])
    turned = 1.3 * truth @ rotation((1, 2, 3), 70).T + [0.5, 0, -2]
    assert aligned_joint_errors(turned, truth) == pytest.approx([0, 0, 0], abs=1e-9)
    assert joint_errors(turned, truth).min() > 0.1
    assert aligned_joint_errors(truth * [-1, 1, 1], truth).min() > 0.005


def test_a_mirror_swaps_left_and_right():
    names = [COCO[i] for i in _MIRROR]
    assert names[COCO.index("left_wrist")] == "right_wrist"
    assert names[COCO.index("nose")] == "nose"


def spots(count):
    """Pictures with a bright spot, and joints that all lie where it is: what a regressor must be able to read."""
    generator = np.random.default_rng(0)
    images = np.full((count, 128, 64, 3), 40, np.uint8)
    x, y = generator.integers(6, 58, count), generator.integers(6, 122, count)
    joints = np.zeros((count, 17, 3))
    for i in range(count):
        images[i, y[i] - 6 : y[i] + 6, x[i] - 6 : x[i] + 6] = 220
        joints[i, 0] = ((x[i] - 32) / 64, (y[i] - 64) / 128, 0)
    return images, joints, np.tile([1.7, 0.5, 0.0], (count, 1))


def test_a_regressor_learns_and_repeats_itself():
    images, joints, body_values = spots(96)
    losses = []
    model = train_regressor(
        images, joints, body_values, steps=60, batch=16, width=4, told=lambda step, loss: losses.append(loss)
    )
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    found, bodies = predict(model, images)
    mean = np.broadcast_to(joints.mean(0), joints.shape)
    assert joint_errors(found, joints).mean() < 0.6 * joint_errors(mean, joints).mean()
    assert bodies[:, 0] == pytest.approx(1.7, abs=0.1)
    short = [train_regressor(images, joints, body_values, steps=2, batch=16, width=4, seed=s) for s in (1, 1, 2)]
    first, second, other = (predict(model, images[:4])[0] for model in short)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_training_leaves_the_random_numbers_of_others_alone():
    images, joints, body_values = spots(16)
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    train_regressor(images, joints, body_values, steps=1, batch=16, width=4)
    assert torch.equal(torch.rand(3), wanted)


def test_the_head_corrects_its_own_answer():
    model = Regressor(4)
    with torch.no_grad():
        model.correct[-1].weight.normal_(0, 0.1)
        images = torch.rand(2, 3, 128, 64)
        once, thrice = (setattr(model, "rounds", n) or model.eval()(images) for n in (1, 3))
    assert not torch.allclose(thrice, 3 * once)
    assert sum(p.numel() for p in Regressor().parameters()) < 1_000_000


def test_arrays_that_do_not_fit_are_refused():
    images, joints, body_values = spots(16)
    with pytest.raises(TrainingError, match="do not fit together"):
        train_regressor(images[:, :64], joints, body_values, batch=4)
    with pytest.raises(TrainingError, match="do not fill a batch"):
        train_regressor(images, joints, body_values, batch=64)
