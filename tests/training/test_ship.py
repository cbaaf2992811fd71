"""From a finished run to files that are used by name: weights stored once, the same answers by torch and without it."""

import json
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")
pytest.importorskip("kornia")
pytest.importorskip("onnx")

from ipse.attributes import AttributeRecognizer  # noqa: E402
from ipse.encoders import ShippedEncoder, ShippedNetwork, open_encoder  # noqa: E402
from ipse.encoders.trained import TrainedEncoder, read_network  # noqa: E402
from ipse.errors import DataError, TrainingError, WeightsError  # noqa: E402
from ipse.training import ship as shipping  # noqa: E402
from ipse.training.loop import train  # noqa: E402
from ipse.training.networks import load_network  # noqa: E402
from ipse.training.recipe import TrainRecipe  # noqa: E402

TINY = {"backbone": "mobilefacenet", "width": 0.125, "scale": 1, "dim": 8, "blocks": [1, 1, 1, 1], "size": [32, 32]}
COMMON = {"steps": 2, "data": {"holdout": 0.34, "group": "look"}, "batch": {"people": 2, "each": 2}}
WHOLE = {"kind": "whole", "size": [32, 32]}
RECIPES = {
    "identity": {"cut": WHOLE, "network": TINY, "losses": {"softmax": {}}},
    "attributes": {
        "cut": WHOLE,
        "network": TINY,
        "targets": {
            "glasses": {"classes": ["none", "worn"], "otherwise": "worn"},
            "age": {"column": "age", "number": [0, 100], "seen": "age_group"},
        },
    },
    "landmarks": {
        "cut": {"kind": "face_box", "size": [32, 32], "margin": 0.25, "parts": True},
        "network": {"classes": 21, "width": 0.125, "depths": [1, 1, 1, 1], "neck": 16},
    },
}


@pytest.fixture(scope="module")
def runs(people, tmp_path_factory):
    """Folders of tiny trainings, one for each task."""
    root = tmp_path_factory.mktemp("runs")
    for task, recipe in RECIPES.items():
        plan = {**COMMON, **recipe, "name": f"tiny-{task}", "task": task}
        plan["data"] = {**COMMON["data"], "source": str(people)}
        train(TrainRecipe.from_dict(plan), root / task, cache=root / "cache")
    return root


@pytest.fixture(scope="module")
def shipped(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shipped")
    for task in RECIPES:
        shipping.ship(runs / task, folder, threshold=0.5 if task == "identity" else None)
    return folder


@pytest.mark.parametrize("task", RECIPES)
def test_torch_and_onnx_runtime_agree_on_weights_that_are_stored_once(shipped, runs, task):
    name = f"tiny-{task}"
    files = sorted(path.name for path in shipped.glob(f"{name}.*"))
    assert files == [f"{name}.json", f"{name}.onnx", f"{name}.safetensors", f"{name}.safetensors.json"]
    assert (shipped / f"{name}.safetensors").read_bytes() == (runs / task / f"{name}.safetensors").read_bytes()
    record = json.loads((shipped / f"{name}.json").read_text())
    assert record["training"] == json.loads((runs / task / "record.json").read_text())
    assert set(record["parity"]) == set(load_network(shipped / f"{name}.safetensors")[1]["outputs"])
    assert max(record["parity"].values()) < 1e-3
    ours = ShippedNetwork(shipped / f"{name}.onnx", task, threads=1)
    assert ours.cut["kind"] == RECIPES[task]["cut"]["kind"]
    network, _ = load_network(shipped / f"{name}.safetensors")
    chips = np.random.default_rng(0).integers(0, 256, (19, 32, 32, 3), dtype=np.uint8)
    with torch.inference_mode():
        told = network(torch.from_numpy(ours.chip.pixels(chips)))
    told = told if isinstance(told, dict) else {"embedding": told}
    for key, value in ours.run(chips).items():
        assert np.abs(value - told[key].numpy()).max() < 1e-3 * np.abs(value).max(), key


@pytest.mark.parametrize("task", RECIPES)
def test_no_weight_is_in_the_graph(shipped, task):
    """Every weight of the graph is a place in the safetensors file, which holds exactly the network's values there."""
    import onnx

    weights = shipped / f"tiny-{task}.safetensors"
    data, (tensors, _) = weights.read_bytes(), read_network(weights)
    graph = onnx.load(shipped / f"tiny-{task}.onnx", load_external_data=False).graph
    assert len(graph.initializer) > 20
    for tensor in graph.initializer:
        told = {entry.key: entry.value for entry in tensor.external_data}
        assert told["location"] == weights.name, tensor.name
        first, length = int(told["offset"]), int(told["length"])
        kind = np.float16 if tensor.data_type == onnx.TensorProto.FLOAT16 else np.float32
        found = np.frombuffer(data[first : first + length], kind).reshape(tuple(tensor.dims))
        name = tensor.name.removeprefix("network.").removesuffix(".half")
        assert np.array_equal(found.astype(np.float32), tensors[name].numpy()), tensor.name


def test_a_shipped_encoder_is_the_trained_one(shipped):
    path = shipped / "tiny-identity.onnx"
    ours, theirs = open_encoder(path, threads=1), open_encoder(shipped / "tiny-identity.safetensors")
    assert isinstance(ours, ShippedEncoder) and isinstance(theirs, TrainedEncoder)
    for attribute in ("name", "dim", "modality", "metric", "chip", "fingerprint", "license"):
        assert getattr(ours, attribute) == getattr(theirs, attribute), attribute
    assert ours.threshold == 0.5
    chips = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    assert ours.encode(chips) == pytest.approx(theirs.encode(chips), abs=1e-4)
    pixels = torch.from_numpy(chips).permute(0, 3, 1, 2).float().div(255).requires_grad_()
    found = ours.torch_module()(pixels)
    assert found.detach().numpy() == pytest.approx(ours.encode(chips), abs=1e-4)
    found.sum().backward()
    assert pixels.grad.abs().max() > 0


def test_nothing_of_torch_is_loaded_to_run_it(shipped):
    script = f"""
import sys
sys.modules["torch"] = sys.modules["onnx"] = None
import pickle
import numpy as np
from ipse.attributes import AttributeRecognizer
from ipse.encoders import open_encoder
encoder = open_encoder({str(shipped / "tiny-identity.onnx")!r}, threads=1)
chips = np.zeros((2, 32, 32, 3), np.uint8)
vectors = encoder.encode(chips)
assert np.array_equal(pickle.loads(pickle.dumps(encoder)).encode(chips), vectors)
print([told["glasses"].value for told in AttributeRecognizer({str(shipped / "tiny-attributes.onnx")!r}).tell(chips)])
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("['")


def test_even_frequencies_are_those_that_training_balanced_by(shipped):
    """What even frequencies choose is what the task judges: the larger output without its prior."""
    path = shipped / "tiny-attributes.onnx"
    network, _ = load_network(path.with_suffix(".safetensors"))
    chips = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    ours = AttributeRecognizer(path, frequencies="even", threads=1).tell(chips)
    with torch.inference_mode():
        out = network(torch.from_numpy(ShippedNetwork(path, "attributes").chip.pixels(chips)))["glasses"]
        chances = (out - network.priors["glasses"]).softmax(1).numpy()
    assert network.priors["glasses"].abs().max() > 0
    for told, (none, worn) in zip(ours, chances, strict=True):
        assert told["glasses"].chances == pytest.approx({"none": none, "worn": worn}, abs=1e-3)


def test_what_cannot_be_shipped(runs, shipped, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="holds no finished training"):
        shipping.ship(tmp_path, tmp_path / "out")
    monkeypatch.setattr(shipping, "LARGEST", 10_000)
    with pytest.raises(TrainingError, match="the most that is shipped"):
        shipping.ship(runs / "identity", tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr("ipse.training.export.TOLERANCE", 1e-12)
    with pytest.raises(TrainingError, match=r"differs from its weights: embedding"):
        shipping.ship(runs / "identity", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        shipping.ship(runs / "identity", tmp_path / "file" / "deeper")


def test_files_may_be_links(shipped, tmp_path):
    """As some installers make them, each into another folder."""
    for path in shipped.glob("tiny-identity.*"):
        (tmp_path / path.suffix).mkdir(exist_ok=True)
        (tmp_path / path.suffix / path.name).write_bytes(path.read_bytes())
        (tmp_path / "links").mkdir(exist_ok=True)
        (tmp_path / "links" / path.name).symlink_to(tmp_path / path.suffix / path.name)
    chips = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    there, linked = (open_encoder(folder / "tiny-identity.onnx", threads=1) for folder in (shipped, tmp_path / "links"))
    assert np.array_equal(there.encode(chips), linked.encode(chips))


def test_another_networks_weights_are_refused(shipped, tmp_path):
    for path in shipped.glob("tiny-identity.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "tiny-identity.safetensors").write_bytes((shipped / "tiny-attributes.safetensors").read_bytes())
    with pytest.raises(WeightsError, match=r"tiny-identity.safetensors has another checksum"):
        open_encoder(tmp_path / "tiny-identity.onnx")
