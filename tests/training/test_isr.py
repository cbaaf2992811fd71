"""ISR, and what trainings without labels share: frames without names, and a loop that can be stopped."""

import dataclasses
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("kornia")
pytest.importorskip("accelerate")

sys.path.insert(0, str(Path(__file__).parent))

from walking import SIZE, pictures, recipe, walks  # noqa: E402

from ipse.encoders.trained import TrainedEncoder  # noqa: E402
from ipse.errors import DataError, TrainingError  # noqa: E402
from ipse.training.frames import Frames, read_frames  # noqa: E402
from ipse.training.isr import ISR, Associations, associate, reliable_contrast, tracklets  # noqa: E402
from ipse.training.learning import learn  # noqa: E402


def save(folder, people):
    folder.mkdir()
    for i, (person, picture) in enumerate(zip(people, pictures(np.arange(len(people))), strict=True)):
        Image.fromarray(picture).save(folder / f"{person:04d}_c{1 + i % 2}s1_{100 + 10 * (i // 4):06d}_{i % 4:02d}.png")


def test_frames_are_the_same_whoever_the_files_say_is_on_them(tmp_path):
    draw = np.random.default_rng(0)
    save(tmp_path / "a", [2, 2, 2, 7, 7, 7, 9, 9])
    save(tmp_path / "b", draw.permutation(90)[:8])
    one, other = (read_frames(tmp_path / name, SIZE) for name in "ab")
    for field in dataclasses.fields(Frames):
        assert (getattr(one, field.name) == getattr(other, field.name)).all(), field.name
    assert sorted(set(one.camera)) == [1, 2] and set(one.frame) == {100, 110} and len(one) == 8
    with pytest.raises(DataError, match="no data folder"):
        read_frames(tmp_path / "c", SIZE)
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match="named like"):
        read_frames(tmp_path / "c", SIZE)
    with pytest.raises(TrainingError, match="different lengths"):
        Frames(one.pictures, one.camera[1:], one.video, one.frame)


def test_a_frame_is_paired_with_the_next_of_its_video():
    empty = np.zeros((6, *SIZE, 3), np.uint8)
    frames = Frames(empty, np.array([1, 1, 1, 1, 2, 1]), np.array([3, 3, 3, 4, 3, 3]), np.array([0, 5, 0, 5, 0, 90]))
    found = [(a.tolist(), b.tolist()) for a, b in frames.pairs(50)]
    assert found == [([0, 2], [1])]
    assert len(frames.pairs(85)) == 2


def test_matching_is_the_best_for_all_and_the_margin_tells_what_is_sure():
    # By itself row 0 would take row 2, which row 1 can only take: together they gain more the other way round.
    vectors = np.array([[1, 0, 0], [0.9, 0.436, 0], [0.95, 0.312, 0], [0.8, -0.6, 0], [0, 0, 1]], np.float32)
    found = associate(vectors, [(np.array([0, 1]), np.array([2, 3]))])
    assert dict(zip(found.first, found.second, strict=True)) == {0: 3, 1: 2}
    cosines = vectors @ vectors.T
    expected = [cosines[0, 3] - cosines[0, 2], cosines[1, 2] - max(cosines[1, 0], cosines[2, 0])]
    assert found.margin == pytest.approx(expected, abs=1e-5) and found.margin[0] < 0 < found.margin[1]
    # Below a cosine or a margin a pair is left out.
    assert len(found.above(0.9)) == 1 and found.above(0.9).first == [1] and len(found.above(0.0)) == 2
    assert found.above(0.0, 0.0).first == [1] and found.cosine == pytest.approx([0.8, cosines[1, 2]])
    # Who may be the same is no rival.
    unsure = np.zeros((5, 5), bool)
    unsure[0, 1] = unsure[1, 0] = True
    vectors[2] = vectors[4]
    freed = associate(vectors, [(np.array([0]), np.array([3]))], unsure)
    assert freed.margin == pytest.approx([cosines[0, 3] - cosines[1, 3]], abs=1e-5)
    # Somebody who left is not matched.
    assert len(associate(vectors, [(np.array([0, 1, 4]), np.array([2]))]).first) == 1


def test_chains_follow_people_from_frame_to_frame_and_end_where_it_is_not_sure():
    rows = [np.array(frame) for frame in ([0, 1], [2, 3], [4, 5], [6])]
    vectors = np.array(
        [[1, 0], [0, 1], [0.1, 0.99], [0.99, 0.1], [0.98, 0.2], [-1, 0], [0.75, -0.66]], np.float32
    )  # fmt: skip
    found = tracklets(vectors, [*pairwise(rows)])
    assert found[0] == found[3] == found[4] == found[6]
    assert found[1] == found[2] != found[0] and (found == found[5]).sum() == 1
    assert len(set(tracklets(vectors, [*pairwise(rows)], alike=0.999))) == 7


def test_reliable_pairs_dominate():
    vectors = torch.nn.functional.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)))
    right = Associations(np.array([0]), np.array([1]), *np.full((2, 1), 0.4, np.float32))
    wrong = Associations(np.array([2]), np.array([3]), *np.full((2, 1), -0.1, np.float32))
    both = Associations(np.array([0, 2]), np.array([1, 3]), *np.tile(np.array([0.4, -0.1], np.float32), (2, 1)))
    one, other = (float(reliable_contrast(vectors, pair)) for pair in (right, wrong))
    share = 1 / (1 + np.exp(-5))
    assert float(reliable_contrast(vectors, both)) == pytest.approx(share * one + (1 - share) * other, rel=1e-5)
    assert float(reliable_contrast(vectors, both, weighted=False)) == pytest.approx((one + other) / 2, rel=1e-5)
    logits = (vectors @ vectors.T / 0.1).fill_diagonal_(-torch.inf)
    expected = -(logits[0].log_softmax(0)[1] + logits[1].log_softmax(0)[0]) / 2
    assert reliable_contrast(vectors, right) == pytest.approx(float(expected), rel=1e-5)
    # Whoever may be the same is not told apart: as if it were not there.
    unsure = np.zeros((6, 6), bool)
    unsure[:2, 5] = unsure[5, :2] = True
    assert float(reliable_contrast(vectors, right, unsure=unsure)) == pytest.approx(
        float(reliable_contrast(vectors[:5], right)), rel=1e-5
    )


def test_nobody_near_in_a_video_is_told_apart_but_in_the_frames_that_are_matched():
    camera, video = np.array([1, 1, 1, 1, 1, 1, 2]), np.array([3, 3, 3, 3, 3, 4, 3])
    frame = np.array([0, 0, 10, 20, 999, 20, 20])
    learner = ISR(recipe(), Frames(np.zeros((7, *SIZE, 3), np.uint8), camera, video, frame), gap=50, span=300)
    found = learner.unsure(np.arange(7), [(np.array([0, 1]), np.array([2]))])
    # Of the others only row 3 is near: not in another video, by another camera, or much later.
    assert {tuple(pair) for pair in np.argwhere(found).tolist()} == {(0, 3), (1, 3), (2, 3), (3, 0), (3, 1), (3, 2)}


def test_people_are_learned_from_frames_and_a_stopped_run_goes_on(tmp_path):
    frames, who = walks()
    plan = recipe(name="isr", steps=12, save_every=5)
    weights = learn(ISR(plan, frames), tmp_path / "whole")
    vectors = TrainedEncoder(weights).encode(frames.pictures)
    _, first = np.unique(who, return_index=True)
    assert (who[first][(vectors @ vectors[first].T).argmax(1)] == who).mean() > 0.7

    class Stopped(Exception):
        pass

    def stop(told):
        raise Stopped

    with pytest.raises(Stopped):
        learn(ISR(plan, frames), tmp_path / "cut", stop)
    learn(ISR(plan, frames), tmp_path / "cut")
    assert (tmp_path / "cut" / "isr.safetensors").read_bytes() == weights.read_bytes()
    with pytest.raises(Stopped):
        learn(ISR(plan, frames), tmp_path / "other", stop)
    with pytest.raises(TrainingError, match="another recipe"):
        learn(ISR(recipe(name="isr", steps=13), frames), tmp_path / "other")
    assert learn(ISR(plan, frames), tmp_path / "whole", stop) == weights  # nothing is left to do


def test_frames_far_apart_are_refused():
    frames, _ = walks(people=3, cameras=1)
    with pytest.raises(TrainingError, match="larger gap"):
        ISR(recipe(), frames, gap=5)


@pytest.mark.parametrize("size", [16, 17, 6, 4])
def test_a_step_sees_as_many_pictures_as_the_batch(size):
    frames, _ = walks(people=12, cameras=2, frames=4, at_once=3)
    learner = ISR(recipe(batch={"size": size}), frames)
    pairs, others = learner.batch(0)
    rows = np.concatenate([side for pair in pairs for side in pair] + [others])
    # A frame has three people, so a pair of frames is never less than six pictures.
    assert len(rows) == max(size, 6) == len(set(rows.tolist())) and len(pairs) == max(size // 6, 1)
    assert len(set(frames.camera[rows])) == 1
    seen = []
    learner.before(0, learner.network)
    learner.network.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    loss, _ = learner.loss(0)
    assert seen == [max(size, 6)] and torch.isfinite(loss)
