"""Networks that come with ipse: found by name, whole or refused; and those that are there, what they promise."""

import subprocess
import sys

import numpy as np
import pytest

from ipse.encoders import ChipSpec, ShippedEncoder, ShippedNetwork, encoder_names, open_encoder
from ipse.errors import WeightsError
from ipse.zoo import shipped_files, shipped_names
from ipse.zoo.onnx_graph import OnnxGraph
from ipse.zoo.shipped_files import PARTS, SHIPPED

CHIP = ChipSpec(112, 112, "arcface112", "rgb", (127.5,) * 3, (127.5,) * 3)


@pytest.fixture
def folder(tmp_path, made_up_network, monkeypatch):
    """A folder of shipped networks that holds one encoder."""
    graph = OnnxGraph("colors")
    x = graph.input("pixels", "float32", ("n", 3, 112, 112))
    x = graph.node("Flatten", graph.node("AveragePool", x, kernel_shape=[28, 28], strides=[28, 28]))
    mix = graph.weight(np.random.default_rng(0).normal(size=(48, 8)).astype(np.float32))
    graph.output(graph.node("MatMul", x, mix, name="embedding"), "float32", ("n", 8))
    cut, more = {"kind": "arcface112", "margin": 0.25}, {"dim": 8, "metric": "cosine", "threshold": 0.4}
    made_up_network(tmp_path, "colors", graph, "identity", CHIP, {"embedding": {"kind": "embedding"}}, cut, **more)
    monkeypatch.setattr(sys.modules["ipse.zoo.shipped_files"], "SHIPPED", tmp_path)
    return tmp_path


def test_encoders_are_opened_by_name(folder):
    assert encoder_names() == ("dlib-face-128", "colors")
    encoder = open_encoder("colors", threads=1)
    assert isinstance(encoder, ShippedEncoder) and encoder.threshold == 0.4 and encoder.dim == 8
    chips = np.random.default_rng(1).integers(0, 256, (20, 112, 112, 3), dtype=np.uint8)
    vectors = encoder.encode(chips)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(open_encoder(folder / "colors.onnx", threads=1).encode(chips), vectors)
    # What a batch holds besides makes no difference.
    assert vectors[17:18] == pytest.approx(encoder.encode(chips[17:18]), abs=1e-6)


def test_what_is_not_there_is_said_with_what_there_is(folder):
    with pytest.raises(WeightsError, match=r"no encoder 'face-worlds'.*dlib-face-128, colors"):
        open_encoder("face-worlds")
    with pytest.raises(WeightsError, match=r"nothing-world is not in this build.*In it: colors"):
        ShippedNetwork("nothing-world", "landmarks")
    with pytest.raises(WeightsError, match="There is no network"):
        ShippedNetwork(folder / "deeper" / "absent.onnx", "landmarks")
    with pytest.raises(WeightsError, match="colors was trained for identity"):
        ShippedNetwork("colors", "landmarks")


@pytest.mark.parametrize("part", PARTS)
def test_files_that_do_not_belong_together_are_refused(folder, part):
    path = folder / f"colors.{part}"
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole + b" "):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match=rf"colors.{part} has another checksum.*install ipse again"):
            shipped_files("colors")
    path.unlink()
    with pytest.raises(WeightsError, match="colors"):
        shipped_files("colors")


def test_a_record_of_another_form_is_refused(folder):
    for content in ("", "[]", "{}", '{"format": "ipse.shipped/2"}'):
        (folder / "colors.json").write_text(content)
        with pytest.raises(WeightsError, match="do not belong together"):
            shipped_files("colors")


# --- what is really shipped: these run for every network that is in the folder ---

THERE = sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


def test_nothing_lies_in_the_folder_by_halves():
    # Bases are folders of their own.
    files = {path.name for path in SHIPPED.glob("*") if path.is_file() and not path.name.startswith(".")}
    assert files == {f"{name}.{part}" for name in THERE for part in (*PARTS, "json")}
    assert shipped_names() == tuple(THERE)


@pytest.mark.parametrize("name", THERE)
def test_a_shipped_network_is_small_stored_once_and_tells_how_it_was_made(name):
    files = shipped_files(name)
    assert sum((SHIPPED / f"{name}.{part}").stat().st_size for part in PARTS) < 4_000_000
    # Were there weights in the graph, it would not be so much smaller.
    assert files.graph.stat().st_size < 0.25 * files.weights.stat().st_size
    training = files.record["training"]
    assert files.contract["license"] == "Apache-2.0" and training["name"] == name
    for key in ("recipe", "recipe_fingerprint", "data_fingerprint", "seed", "steps", "seconds", "device", "figures"):
        assert key in training, key
    assert training["machine"] and training["versions"] and training["figures"]
    assert max(files.record["parity"].values()) < 1e-3


@pytest.mark.parametrize("name", THERE)
def test_a_shipped_network_runs_without_torch_and_onnx(name):
    script = f"""
import sys
sys.modules["torch"] = sys.modules["onnx"] = None
import numpy as np
from ipse.encoders import ShippedNetwork
from ipse.zoo import shipped_files
contract = shipped_files({name!r}).contract
network = ShippedNetwork({name!r}, contract["task"], threads=1)
chip = network.chip
told = network.run(np.random.default_rng(0).integers(0, 256, (3, chip.height, chip.width, 3), dtype=np.uint8))
assert list(told) == list(contract["outputs"])
assert all(len(value) == 3 and np.isfinite(value).all() for value in told.values())
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("name", THERE)
def test_a_shipped_network_gives_what_its_weights_give(name):
    torch = pytest.importorskip("torch")
    from ipse.training.networks import load_network

    files = shipped_files(name)
    network, contract = load_network(files.weights)
    ours = ShippedNetwork(name, contract["task"], threads=1)
    chips = np.random.default_rng(0).integers(0, 256, (2, ours.chip.height, ours.chip.width, 3), dtype=np.uint8)
    with torch.inference_mode():
        told = network(torch.from_numpy(ours.chip.pixels(chips)))
    told = told if isinstance(told, dict) else {"embedding": told}
    for key, value in ours.run(chips).items():
        assert np.abs(value - told[key].numpy()).max() < 1e-3 * np.abs(value).max(), key


@pytest.mark.parametrize("name", [name for name in THERE if shipped_files(name).contract["task"] == "identity"])
def test_gradients_reach_the_pixels_of_a_shipped_encoder(name):
    torch = pytest.importorskip("torch")
    encoder = open_encoder(name, threads=1)
    chips = np.random.default_rng(0).integers(0, 256, (2, encoder.chip.height, encoder.chip.width, 3), dtype=np.uint8)
    pixels = torch.from_numpy(chips).permute(0, 3, 1, 2).float().div(255).requires_grad_()
    found = encoder.torch_module()(pixels)
    assert found.detach().numpy() == pytest.approx(encoder.encode(chips), abs=1e-3)
    found.sum().backward()
    assert pixels.grad.abs().max() > 0
