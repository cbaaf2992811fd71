"""DomainMix: groups that can be relied on, domains that cannot be told, and a training on both."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

torch = pytest.importorskip("torch")
pytest.importorskip("kornia")
pytest.importorskip("accelerate")

sys.path.insert(0, str(Path(__file__).parent))

from walking import pictures, recipe, walks  # noqa: E402

from ipse.encoders.trained import TrainedEncoder  # noqa: E402
from ipse.errors import TrainingError  # noqa: E402
from ipse.gallery.linking import linked  # noqa: E402
from ipse.measure.clustering import pairwise_f  # noqa: E402
from ipse.training.domainmix import (  # noqa: E402
    DomainMix,
    Plan,
    balance,
    contradiction,
    disagreement,
    group,
    reliable_clusters,
)
from ipse.training.frames import Frames  # noqa: E402
from ipse.training.learning import centered, forget, learn  # noqa: E402
from ipse.training.loop import optimizer_of  # noqa: E402


def blocks(sizes, within, between):
    """Distances within and between groups of some sizes, sparse."""
    owner = np.repeat(np.arange(len(sizes)), sizes)
    found = np.where(owner[:, None] == owner, within, between)
    np.fill_diagonal(found, 0)
    return csr_matrix(found.astype(np.float32)), owner


def test_groups_need_a_core():
    distances, owner = blocks([6, 5, 2], 0.5, 0.0)
    found = group(distances, 0.6)
    assert len(set(found[owner == 0])) == 1 and len(set(found[owner == 1])) == 1 and len(set(found[owner == 2])) == 2
    assert len(set(group(distances, 0.4))) == 13


def test_disagreement_is_one_less_intersection_over_union():
    assert disagreement(np.array([0, 0, 0, 1]), np.array([5, 5, 7, 7])) == pytest.approx([1 / 3, 1 / 3, 3 / 4, 1 / 2])


def test_groups_that_merge_or_fall_apart_are_left_out():
    # Two groups that a looser clustering joins, one that a stricter one dissolves, one too small, and four good ones.
    within, owner = blocks([6, 6, 6, 4, 7, 7, 7, 7], 0.5, 0.0)
    dense = within.toarray()
    dense[np.ix_(owner == 0, owner == 1)] = dense[np.ix_(owner == 1, owner == 0)] = 0.61
    loose = (owner == 2)[:, None] & (owner == 2)
    dense[loose & (dense > 0)] = 0.59
    labels, threshold = reliable_clusters(csr_matrix(dense), Plan(apart=0.6))
    assert threshold == 0
    assert (labels[np.isin(owner, [0, 1, 3])] == -1).all()
    assert len(set(labels[owner > 3])) == 4 and labels.max() == len(set(labels)) - 2
    assert all(len(set(labels[owner == number])) == 1 for number in (4, 5, 6, 7))
    # All of the third are equally loose, so it is as compact as its best picture: the published criterion keeps it.
    assert len(set(labels[owner == 2])) == 1
    everything, _ = reliable_clusters(csr_matrix(dense), Plan(choose=False))
    assert (everything >= 0).all()
    # A threshold of before is kept.
    assert reliable_clusters(csr_matrix(dense), Plan(), 0.9)[1] == 0.9


def test_people_of_one_frame_contradict_their_group():
    frames = Frames(np.zeros((7, 4, 4, 3), np.uint8), np.ones(7, int), np.array([1, 1, 1, 1, 1, 2, 2]),
                    np.array([5, 5, 5, 6, 6, 5, 5]))  # fmt: skip
    # Of the first frame's three pairs one is together, of the second's one none, and the third has one in a group.
    assert contradiction(np.array([0, 0, 1, 0, 1, 2, -1]), frames) == 1 / 4
    assert np.isnan(contradiction(np.array([0, -1, -1, 0, -1, 0, -1]), frames))


def test_centering_takes_off_the_camera():
    draw = np.random.default_rng(0)
    camera = np.repeat([3, 8], 20)
    moved = centered((draw.normal(size=(40, 6)) + 5 * (camera == 8)[:, None]).astype(np.float32), camera)
    assert np.linalg.norm(moved, axis=1) == pytest.approx(np.ones(40), abs=1e-5)
    assert abs(moved[camera == 3].mean() - moved[camera == 8].mean()) < 0.1


def test_balance_is_zero_where_nothing_can_be_told():
    assert float(balance(torch.zeros(4, 2))) == pytest.approx(0, abs=1e-6)
    assert float(balance(torch.tensor([[9.0, -9.0]]))) == pytest.approx(np.log(2), abs=1e-4)


def learner(frames, groups=None, **options):
    world = np.repeat(np.arange(50, 62), 4)
    plan = Plan(every=4, least=3, adversary=0.3, **options)
    made = recipe(name="mix", steps=10, losses={"supcon": {}}, optimizer={"rate": 0.003, "warmup": 2})
    near = partial(linked, k1=6, k2=2)
    return DomainMix(made, pictures(world), world, frames, near, plan, groups)


def test_real_people_are_grouped_and_a_stopped_run_goes_on(tmp_path):
    real, who = walks(cameras=2, frames=4)
    told = []
    first = learner(real)
    weights = learn(first, tmp_path / "whole", lambda step: told.append(step.parts))
    kept = first.groups.numpy() >= 0
    assert kept.mean() > 0.5 and pairwise_f(who[kept], first.groups.numpy()[kept]).precision > 0.8
    assert {"classes", "supcon", "balance", "groups"} <= told[-1].keys()
    vectors = TrainedEncoder(weights).encode(real.pictures)
    assert np.isfinite(vectors).all() and vectors.shape == (96, 16)

    class Stopped(Exception):
        pass

    second = learner(real)
    grouping = second.before

    def stop(step, average):
        if step == 7:  # between two clusterings
            raise Stopped
        grouping(step, average)

    second.before = stop
    with pytest.raises(Stopped):
        learn(second, tmp_path / "cut")
    learn(learner(real), tmp_path / "cut")
    assert (tmp_path / "cut" / "mix.safetensors").read_bytes() == weights.read_bytes()


def test_groups_that_are_given_are_learned_from_until_the_network_has_its_own():
    real, who = walks(cameras=1)
    given = np.where(who < 6, who, -1)
    mix = learner(real, given)
    mix.before(0, mix.network)
    assert np.array_equal(mix.groups.numpy(), given) and torch.isnan(mix.threshold)
    mix.before(4, mix.network)
    assert not np.array_equal(mix.groups.numpy(), given) and not torch.isnan(mix.threshold)
    with pytest.raises(TrainingError, match="groups of 47"):
        learner(real, given[1:])


def test_the_discriminator_learns_in_every_step_and_moves_no_features():
    real, _ = walks(cameras=1)
    mix = learner(real)
    mix.before(0, mix.network)

    def moved(weight, adversary=0.3):
        mix.plan = Plan(every=4, least=3, adversary=adversary, weight=weight)
        mix.zero_grad()
        torch.manual_seed(0)
        loss, parts = mix.loss(5)
        loss.backward()
        return torch.cat([p.grad.ravel() for p in mix.network.parameters() if p.grad is not None]), parts

    plain, parts = moved(1.0, adversary=1.0)
    assert "balance" not in parts and all(p.grad is None for p in mix.discriminator.parameters())
    beside, parts = moved(0.0)
    learned = [p.grad.clone() for p in mix.discriminator.parameters()]
    assert {"balance", "discriminator", "domain_told"} <= parts.keys() and all(grad.any() for grad in learned[-2:])
    assert torch.allclose(plain, beside, atol=1e-6)
    # The balance moves the features, and not the discriminator.
    balanced, _ = moved(1.0)
    assert not torch.allclose(plain, balanced, atol=1e-6)
    for grad, parameter in zip(learned, mix.discriminator.parameters(), strict=True):
        assert torch.allclose(grad, parameter.grad)


def test_batches_without_room_and_losses_with_classes_are_refused():
    real, _ = walks(cameras=1)
    with pytest.raises(TrainingError, match="cannot be shared"):
        learner(real, real=0.9)
    with pytest.raises(TrainingError, match="compare pictures"):
        DomainMix(recipe(losses={"margin": {}}), pictures([1] * 4 + [2] * 4), [1] * 4 + [2] * 4, real, linked)


@pytest.mark.parametrize("choose", [True, False])
def test_classes_begin_at_the_middles_of_their_pictures_whatever_is_chosen(choose, caplog):
    real, _ = walks(cameras=1)
    mix = learner(real, choose=choose)
    caplog.set_level("INFO", "ipse.training.domainmix")
    mix.before(0, mix.network)
    vectors = [mix.embed(mix.network, shown) for shown in (mix.world, real.pictures)]
    groups = mix.groups.numpy()
    count = groups.max() + 1
    for shown, labels, first in ((vectors[0], mix.numbers.numpy(), 0), (vectors[1], groups, 12)):
        for number in range(labels.max() + 1):
            middle = shown[labels == number].mean(0)
            own = mix.weight[first + number].detach().numpy()
            assert own == pytest.approx(middle / np.linalg.norm(middle), abs=1e-4)
    assert f"{count} groups of {100 * (groups >= 0).mean():.1f} %" in caplog.text


def test_what_begins_again_is_not_moved_by_what_moved_it_before():
    real, _ = walks(cameras=1)
    mix = learner(real)
    optimizer = optimizer_of(mix.recipe, mix)
    mix.before(0, mix.network)
    forget(optimizer, mix.renewed)
    mix.loss(1)[0].backward()
    optimizer.step()
    memory = optimizer.state[mix.weight]
    kept = memory["exp_avg"][:12].clone()
    assert memory["exp_avg"][12:14].any() and memory["exp_avg_sq"][12:14].any()
    mix.before(4, mix.network)
    forget(optimizer, mix.renewed)
    again = slice(12, 13 + int(mix.groups.max()))
    assert not memory["exp_avg"][again].any() and not memory["exp_avg_sq"][again].any()
    assert torch.equal(memory["exp_avg"][:12], kept) and kept.any() and float(memory["step"]) == 1
    assert not mix.renewed


def test_a_training_without_any_real_group_is_refused():
    real, _ = walks(cameras=1)
    mix = learner(real, core=100)
    with pytest.raises(TrainingError, match=r"finds 0 groups.*raise plan\.eps"):
        mix.before(0, mix.network)
