"""Adversarial training: changes stay within their length, are worse than chance, and leave the network as it was."""

from dataclasses import replace

import pytest

pytest.importorskip("accelerate")
torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from ipse.errors import TrainingError  # noqa: E402
from ipse.training.adversarial import AdversarialPlan, attacked  # noqa: E402
from ipse.training.loop import train  # noqa: E402
from ipse.training.recipe import TrainRecipe  # noqa: E402

from .test_loop import recipe, weights_of  # noqa: E402

MEAN, STD = 100.0, 50.0
PLAN = AdversarialPlan(size=2.0, steps=3, warmup=10)


class Small(nn.Module):
    """A task of two classes whose network has norms."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 2)
        )

    def forward(self, pixels, targets):
        return nn.functional.cross_entropy(self.network(pixels), targets["label"]), {}


def batch():
    torch.manual_seed(1)
    pixels = (torch.randint(0, 256, (6, 3, 16, 16)).float() - MEAN) / STD
    return pixels, {"label": torch.tensor([0, 1, 0, 1, 0, 1])}


def lengths(change):
    return (change * STD / 255).flatten(1).norm(dim=1)


@pytest.mark.parametrize("smooth", [1, 5])
def test_changes_are_worse_than_chance_and_no_longer_than_allowed(smooth):
    task, (pixels, targets) = Small().eval(), batch()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    torch.manual_seed(2)
    changed = attacked(task, pixels, targets, replace(PLAN, smooth=smooth), 9 + 2 * 50, MEAN, STD)
    assert lengths(changed - pixels).max() <= 2.0 + 1e-4 and lengths(changed - pixels).min() > 0
    back = changed * STD + MEAN
    assert back.min() >= -1e-3 and back.max() <= 255 + 1e-3
    noise = torch.randn_like(pixels)
    noise *= (lengths(changed - pixels) / lengths(noise))[:, None, None, None]
    with torch.no_grad():
        worst, chance = (float(task(seen, targets)[0]) for seen in (changed, pixels + noise))
    assert worst > chance + 0.05
    assert all(torch.equal(before[name], value) for name, value in task.state_dict().items())
    assert not task.training and all(parameter.grad is None for parameter in task.parameters())


def test_changes_get_longer_at_first_and_are_smooth_in_every_second_batch():
    assert [PLAN.longest(step) for step in (0, 4, 9, 50)] == pytest.approx([0.2, 1.0, 2.0, 2.0])
    task, (pixels, targets) = Small().eval(), batch()
    pixels = 0 * pixels  # far from the ends of the range, which would make changes rough
    plan, rough = replace(PLAN, smooth=7, warmup=0), []
    for step in (0, 1):
        change = attacked(task, pixels, targets, plan, step, MEAN, STD)
        rough.append(float((change[..., 1:] - change[..., :-1]).norm() / change.norm()))
    assert rough[1] < 0.5 * rough[0]


@pytest.mark.parametrize("wrong", [{"size": -1.0}, {"steps": 0}, {"warmup": -1}, {"smooth": 4}, {"smooth": 0}])
def test_plans_that_cannot_be(wrong):
    with pytest.raises(TrainingError, match="adversarial"):
        TrainRecipe.from_dict({"adversarial": wrong})


def test_a_run_learns_from_changed_pictures_and_other_recipes_are_what_they_were(people, tmp_path):
    plain = recipe(people, steps=4)
    changed = recipe(people, steps=4, adversarial={"size": 3.0, "smooth": 3, "warmup": 1})
    assert plain.fingerprint == replace(plain, adversarial=AdversarialPlan(steps=5)).fingerprint != changed.fingerprint
    for name, one in (("plain", plain), ("changed", changed), ("again", changed)):
        train(one, tmp_path / name, cache=tmp_path / "cache")
    assert weights_of(tmp_path / "changed") == weights_of(tmp_path / "again") != weights_of(tmp_path / "plain")
