"""CION: labels without noise, across videos, and distillation between pictures of one identity."""

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("kornia")
pytest.importorskip("accelerate")

sys.path.insert(0, str(Path(__file__).parent))

from walking import pictures, recipe  # noqa: E402

from ipse.encoders.trained import TrainedEncoder  # noqa: E402
from ipse.errors import TrainingError  # noqa: E402
from ipse.training.cion import Distillation, Noise, correlate, denoise, denoise_track, identity_guided  # noqa: E402
from ipse.training.learning import learn  # noqa: E402


def around(centers, seed=0, spread=0.1):
    """Unit vectors near some of eight orthogonal directions."""
    found = np.eye(8, dtype=np.float32)[centers] + spread * np.random.default_rng(seed).normal(size=(len(centers), 8))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_a_track_loses_what_lies_far_from_its_middle():
    assert denoise_track(around([1, 1, 1, 4, 1]), 0.8).tolist() == [True, True, True, False, True]
    assert denoise_track(around([1]), 0.1).tolist() == [True]


def test_labels_move_until_identities_are_compact_and_apart():
    who = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 3])
    # The second person's last picture is labeled as the first, the first is there twice, and somebody is alone.
    given = np.array([0, 0, 0, 1, 1, 0, 2, 2, 2, 5, -1])
    found = denoise(around(who), given, Noise(radius=0.8, apart=0.6))
    assert found[-1] == -1
    assert (found[:-1, None] == found[:-1]).tolist() == (who[:-1, None] == who[:-1]).tolist()
    assert (denoise(around(who), np.full(11, -1), Noise()) == -1).all()


def test_people_are_the_same_across_videos_that_no_window_holds_together():
    # Person 0 walks through all six videos; a window sees three of them at a time. Others come once.
    who, track, video = [], [], []
    for v in range(6):
        for person in (0, 1 + v):
            who += [person] * 3
            track += [10 * v + person] * 3
            video += [v] * 3
    who[4] = 0  # a track that follows somebody else for a moment
    who = np.array(who)
    found = correlate(around(who, 1), np.array(track), np.array(video), Noise(0.8, 0.6), window=3)
    kept = found >= 0
    assert kept.all() and len(set(found)) == 7
    assert (found[:, None] == found).tolist() == (who[:, None] == who).tolist()


def test_distillation_compares_within_identities_alone():
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 2, 4, 6)
    loss = identity_guided(teacher, student, each=2)
    chances, logs = (teacher / 0.04).softmax(2), (student / 0.1).log_softmax(2)
    expected = []
    for q, v in ((0, 1), (1, 0)):
        cross = lambda i, j, q=q, v=v: -(chances[q, i] * logs[v, j]).sum()  # noqa: E731
        own = sum(cross(i, i) for i in range(4)) / 4
        # First pictures to second ones, and the other way round, each as a mean over identities.
        pairs = (cross(0, 1) + cross(2, 3)) / 2 + (cross(1, 0) + cross(3, 2)) / 2
        expected.append((own + pairs) / 3)
    assert float(loss) == pytest.approx(float(sum(expected) / 2), rel=1e-5)


def test_a_student_learns_from_its_average(tmp_path):
    who = np.repeat(np.arange(8), 4)
    seen, labels = pictures(who), np.where(np.arange(32) == 5, -1, who)
    plan = recipe(name="cion", steps=8, batch={"people": 4, "each": 2, "size": 8})
    learner = Distillation(plan, seen, labels, prototypes=16)
    assert 5 not in learner.rows
    fixed = [p.clone() for p in learner.teacher.parameters()]
    weights = learn(learner, tmp_path / "run")
    moved = [float((a - b).abs().max()) for a, b in zip(fixed, learner.teacher.parameters(), strict=True)]
    assert max(moved) > 0 and all(p.grad is None for p in learner.teacher.parameters())
    assert learner.center.abs().max() > 0
    assert np.isfinite(TrainedEncoder(weights).encode(seen)).all()
    with pytest.raises(TrainingError, match="32 pictures and 31 labels"):
        Distillation(plan, seen, labels[1:])
