import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("kornia")
pytest.importorskip("accelerate")

from PIL import Image  # noqa: E402

from ipse.encoders.backbones import backbone  # noqa: E402
from ipse.errors import DataError, TrainingError  # noqa: E402
from ipse.training.loop import train  # noqa: E402
from ipse.training.networks import load_network  # noqa: E402
from ipse.training.recipe import TrainRecipe  # noqa: E402
from ipse.training.tasks.proton import PrototypeNetwork  # noqa: E402

SMALL = {"backbone": "iresnet", "depths": [1, 1, 1, 1], "width": 0.125, "stem": 2, "dim": 16, "size": [32, 32]}


def network(layers):
    options = dict(SMALL)
    torch.manual_seed(0)
    return PrototypeNetwork(backbone(options.pop("backbone"), **options), layers).eval()


def shaken(made):
    """A network whose graph has learned something: what begins at zero is moved."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in [made.prototype, *made.layers.parameters()]:
            parameter += 0.3 * torch.randn_like(parameter)
    return made


def test_a_graph_begins_as_the_mean_of_its_impressions():
    draw = torch.nn.functional.normalize(torch.randn(3, 4, 16), dim=2)
    mean = torch.nn.functional.normalize(draw.mean(1))
    for layers in (0, 2):
        assert torch.allclose(network(layers).refine(draw), mean, atol=1e-6)
    assert not torch.allclose(shaken(network(2)).refine(draw), mean, atol=0.05)


def test_order_and_padding_change_no_template():
    made, draw = shaken(network(2)), np.random.default_rng(0)
    embeddings, people = draw.normal(size=(9, 16)), np.array([7, 3, 7, 7, 5, 3, 7, 5, 9])
    names, templates = made.templates(embeddings, people)
    assert names.tolist() == [3, 5, 7, 9] and np.allclose(np.linalg.norm(templates, axis=1), 1, atol=1e-5)
    order = draw.permutation(9)
    assert np.allclose(made.templates(embeddings[order], people[order])[1], templates, atol=1e-6)
    for name, template in zip(names, templates, strict=True):
        alone = made.templates(embeddings[people == name], people[people == name])[1]
        assert np.allclose(alone[0], template, atol=1e-6)


def test_templates_want_embeddings_of_this_network():
    with pytest.raises(DataError, match=r"Give \(4, 16\)"):
        network(1).templates(np.ones((4, 8)), np.arange(4))


def recipe(source, **changes):
    plan = {
        "name": "ears",
        "task": "proton",
        "modality": "ear",
        "steps": 3,
        "data": {"source": str(source), "holdout": 0.25},
        "cut": {"kind": "whole", "size": [32, 32]},
        "batch": {"people": 4, "each": 3},
        "network": {**SMALL, "layers": 1},
        "losses": {"softmax": {}, "episode": {}, "alignment": {"temperature": 0.2, "weight": 0.5}},
        "optimizer": {"warmup": 1},
    }
    return TrainRecipe.from_dict({**plan, **changes})


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "ears"
    folder.mkdir()
    for person in range(1, 9):
        for turn in range(3):
            pixels = np.random.default_rng([person, turn]).integers(0, 60, (32, 32, 3)) + 20 * person
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{person:04d}_c{turn}s1_0.png")
    return folder


def test_a_training_moves_the_graph_and_its_file_is_read_again(pictures, tmp_path):
    record = train(recipe(pictures), tmp_path / "run", cache=tmp_path / "packs")
    line = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert set(line["parts"]) == {"softmax", "episode", "alignment"} and "rank1" in record["figures"]
    made, contract = load_network(tmp_path / "run" / "ears.safetensors")
    assert contract["task"] == "proton" and isinstance(made, PrototypeNetwork)
    assert float(made.layers[0].query.weight.abs().max()) > 0
    assert made(torch.zeros(2, 3, 32, 32)).shape == (2, 16)


def test_episodes_need_pairs(pictures, tmp_path):
    with pytest.raises(TrainingError, match="two pictures each"):
        train(recipe(pictures, batch={"size": 8}), tmp_path / "run", cache=tmp_path / "packs")
