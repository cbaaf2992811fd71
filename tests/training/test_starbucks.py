import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("kornia")
pytest.importorskip("accelerate")

from PIL import Image  # noqa: E402

from ipse.encoders.backbones import backbone  # noqa: E402
from ipse.encoders.backbones.attention import multiply_adds  # noqa: E402
from ipse.encoders.trained import TrainedEncoder  # noqa: E402
from ipse.errors import TrainingError, WeightsError  # noqa: E402
from ipse.training.loop import train  # noqa: E402
from ipse.training.networks import load_network  # noqa: E402
from ipse.training.recipe import TrainRecipe  # noqa: E402

OPTIONS = {"depths": [1, 1, 1, 1], "width": 0.125, "stem": 2, "dim": 16, "size": [32, 32]}
NESTED = {**OPTIONS, "pairs": [[2, 4], [3, 8], [4, 16]]}


def test_slices_are_prefixes_of_exits_and_cost_less():
    torch.manual_seed(0)
    network = backbone("nested_iresnet", **NESTED).eval()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        slices, exits = network.slices(pixels), network.exits(pixels)
        first = network.slices(pixels, upto=1)
        assert torch.allclose(slices[2], network(pixels), atol=1e-6)
    assert [tuple(found.shape) for found in slices] == [(2, 4), (2, 8), (2, 16)] and sorted(exits) == [2, 3, 4]
    assert torch.equal(slices[1], exits[3][:, :8]) and len(first) == 1 and torch.equal(first[0], slices[0])

    class Early(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, x):
            return self.network.slices(x, upto=1)[0]

    assert multiply_adds(Early(), 32, 32) < 0.75 * multiply_adds(network, 32, 32)


@pytest.mark.parametrize("pairs", [[], [[4, 8]], [[3, 8], [2, 4], [4, 16]], [[0, 4], [4, 16]]])
def test_slices_must_nest(pairs):
    with pytest.raises(WeightsError, match="no nested slices"):
        backbone("nested_iresnet", **{**NESTED, "pairs": pairs})


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "people"
    folder.mkdir()
    for person in range(1, 9):
        for turn in range(3):
            pixels = np.random.default_rng([person, turn]).integers(0, 60, (32, 32, 3)) + 20 * person
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{person:04d}_c{turn}s1_0.png")
    return folder


def recipe(source, losses):
    plan = {"data": {"source": str(source), "holdout": 0.25}, "cut": {"kind": "whole", "size": [32, 32]}}
    plan |= {"batch": {"people": 4, "each": 3}, "network": {"backbone": "nested_iresnet", **NESTED}}
    plan |= {"name": "nested", "task": "starbucks", "steps": 2, "optimizer": {"warmup": 1}, "losses": losses}
    return TrainRecipe.from_dict(plan)


def test_every_slice_is_trained_at_every_step(pictures, tmp_path):
    losses = {"supcon": {}, "alignment": {"weight": 0.5}}
    train(recipe(pictures, losses), tmp_path / "run", cache=tmp_path / "packs")
    line = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert set(line["parts"]) == {"supcon", "slice1", "slice2"}
    made, contract = load_network(tmp_path / "run" / "nested.safetensors")
    assert contract["task"] == "identity" and made.pairs == ((2, 4), (3, 8), (4, 16))
    assert all(head.last.num_batches_tracked == 2 for head in made.heads.values())
    assert TrainedEncoder(tmp_path / "run" / "nested.safetensors").dim == 16


def test_random_slices_are_one_depth_and_the_last(pictures, tmp_path):
    losses = {"supcon": {}, "slices": {"random": True}}
    train(recipe(pictures, losses), tmp_path / "run", cache=tmp_path / "packs")
    line = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    # Two depths of three lengths each, one of them the whole.
    assert len(line["parts"]) == 6


def test_a_slice_can_be_trained_alone(pictures, tmp_path):
    losses = {"supcon": {}, "slices": {"only": 1}}
    train(recipe(pictures, losses), tmp_path / "run", cache=tmp_path / "packs")
    made, _ = load_network(tmp_path / "run" / "nested.safetensors")
    assert made.heads["2"].last.num_batches_tracked == 2 and made.neck.norm.num_batches_tracked == 0


def test_losses_over_classes_have_one_length(pictures, tmp_path):
    with pytest.raises(TrainingError, match="several lengths"):
        train(recipe(pictures, {"softmax": {}}), tmp_path / "run", cache=tmp_path / "packs")
