"""MADE: what is told of a person, and what of it reaches the embedding."""

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from ipse.encoders.backbones import backbone  # noqa: E402
from ipse.encoders.backbones.made import Description  # noqa: E402
from ipse.errors import WeightsError  # noqa: E402

OPTIONS = {"width": 16, "heads": 2, "description": 5, "depths": [1, 1, 1], "size": [32, 16], "patch": 8, "stride": 8}


def test_masked_attributes_are_zero_whatever_they_are():
    description = Description({"gender": 2, "coat": 3}, frozenset({"coat"}))
    told = {"gender": [[0.9, 0.1], [0.2, 0.8]], "coat": np.ones((2, 3))}
    assert description.size == 5
    assert description.vectors(told) == pytest.approx(np.array([[0.9, 0.1, 0, 0, 0], [0.2, 0.8, 0, 0, 0]]))
    assert Description({"gender": 2, "coat": 3}).vectors(told)[:, 2:].all()
    with pytest.raises(WeightsError, match="no attribute 'hat'"):
        Description({"gender": 2}, frozenset({"hat"}))
    with pytest.raises(WeightsError, match="told by"):
        Description({"gender": 3}).vectors(told)


def test_the_description_reaches_the_embedding_and_nothing_told_is_zeros():
    torch.manual_seed(0)
    network = backbone("made", **OPTIONS).eval()
    pixels, told = torch.randn(3, 3, 32, 16), torch.rand(3, 5)
    plain = network(pixels)
    assert plain.shape == (3, 16) and network.feature_map(pixels, told).shape == (3, 16, 4, 2)
    assert torch.equal(plain, network(pixels, torch.zeros(3, 5)))
    assert (network(pixels, told) - plain).abs().max() > 1e-3
    with pytest.raises(WeightsError, match="three stages"):
        backbone("made", **{**OPTIONS, "depths": [1, 1]})
    with pytest.raises(WeightsError, match="pixels"):
        network(torch.randn(1, 3, 16, 16))


def test_class_tokens_of_all_stages_count_and_only_the_later_ones_are_told():
    torch.manual_seed(0)
    network = backbone("made", **OPTIONS).eval()
    pixels, told = torch.randn(2, 3, 32, 16), torch.rand(2, 5)
    with torch.no_grad():
        first, _ = network._stages(pixels, torch.zeros(2, 5))
        second, _ = network._stages(pixels, told)
    changed = (first - second).abs().amax((0, 2))
    assert changed[0] == 0 and changed[1] > 0 and changed[2] > 0
    for stage in range(3):
        weight = torch.zeros(1, 3)
        weight[0, stage] = 1
        network.sum.weight.data.copy_(weight)
        assert network(pixels).detach().norm() > 0


def test_people_are_learned_by_what_is_told_of_them(tmp_path):
    pytest.importorskip("kornia")
    sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
    from walking import pictures, recipe

    from ipse.errors import TrainingError
    from ipse.training.described import Described
    from ipse.training.learning import embed, learn
    from ipse.training.networks import load_network

    people = np.repeat(np.arange(8), 6)
    # Pictures of nobody in particular: only what is told says who it is.
    seen = pictures(np.zeros(48))
    told = np.eye(8, dtype=np.float32)[people]
    plan = recipe(
        name="made", steps=25, network={"backbone": "made", **OPTIONS, "description": 8}, save_every=100,
        losses={"softmax": {}, "triplet": {"margin": 0.3}},
    )  # fmt: skip
    network, _ = load_network(learn(Described(plan, seen, people, told), tmp_path / "run"))
    vectors = embed(network, seen, beside=told)
    centers = np.stack([vectors[people == n].mean(0) for n in range(8)])
    assert ((vectors @ centers.T).argmax(1) == people).mean() > 0.9
    faded = Described(plan, seen, people, told, fading=0.4)
    given = []
    faded.network.register_forward_pre_hook(lambda module, inputs: given.append(inputs[1].any(1).float().mean()))
    for step in (0, 5, 10, 24):
        faded.loss(step)
    # Of 25 steps ten are with less than everything.
    assert given[0] == 0 < given[1] < given[2] == given[3] == 1
    with pytest.raises(TrainingError, match="something told"):
        Described(plan, seen, people, told[1:])
