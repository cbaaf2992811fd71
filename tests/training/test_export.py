"""Exported networks give what their weights give, and run as ordinary encoders."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")
pytest.importorskip("kornia")

from ipse.encoders import open_encoder  # noqa: E402
from ipse.encoders.backbones import backbone  # noqa: E402
from ipse.encoders.contract import ChipSpec  # noqa: E402
from ipse.encoders.trained import ExportedEncoder, TrainedEncoder, save_network  # noqa: E402
from ipse.errors import TrainingError, WeightsError  # noqa: E402

OPTIONS = {"backbone": "osnet_ain", "width": 0.25, "dim": 32}


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    network = backbone("osnet_ain", width=0.25, dim=32)
    network.train()(torch.randn(8, 3, 64, 32))  # norms that are not those of the start
    contract = {
        "name": "tiny-body",
        "task": "identity",
        "modality": "body",
        "license": "Apache-2.0",
        "metric": "cosine",
        "dim": 32,
        "chip": ChipSpec(64, 32, None, "rgb", (127.5,) * 3, (127.5,) * 3),
        "network": OPTIONS,
        "outputs": {"embedding": {"kind": "embedding"}},
    }
    save_network(network, contract, tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def test_saved_networks_are_half_as_large_and_checked(saved):
    encoder = TrainedEncoder(saved)
    count = sum(p.numel() for p in encoder.torch_module().parameters())
    assert saved.stat().st_size < 3 * count
    assert encoder.modality == "body" and encoder.chip.height == 64
    contract = json.loads((saved.parent / "tiny.safetensors.json").read_text())
    contract["network"]["width"] = 0.5
    (saved.parent / "tiny.safetensors.json").write_text("{}")
    with pytest.raises(WeightsError, match="not a network of ipse"):
        TrainedEncoder(saved)
    network = backbone("osnet_ain", width=0.25, dim=32)
    with torch.no_grad():
        network.stem.conv.weight.fill_(1e6)
    with pytest.raises(WeightsError, match=r"stem.conv.weight is not finite, or too large"):
        save_network(network, contract, saved)


def test_an_exported_encoder_is_the_encoder(saved, people, tmp_path):
    pytest.importorskip("onnx")
    from ipse.training.export import TOLERANCE, export_onnx

    found = export_onnx(saved, data=people, protocol="world-across-looks", cache=tmp_path / "cache")
    assert found["random"]["embedding"] < TOLERANCE and found["data"]["embedding"] < TOLERANCE
    assert 0 < found["map_torch"] <= 1 and found["map_drift"] < 0.01
    ours, theirs = TrainedEncoder(saved), ExportedEncoder(saved.with_suffix(".onnx"))
    assert (theirs.modality, theirs.dim, theirs.fingerprint) == ("body", 32, ours.fingerprint)
    chips = np.random.default_rng(0).integers(0, 256, (5, 64, 32, 3), dtype=np.uint8)
    assert np.abs(ours.encode(chips) - theirs.encode(chips)).max() < 1e-3
    assert len(theirs.encode(chips[:0])) == 0
    assert isinstance(open_encoder(saved.with_suffix(".onnx")), ExportedEncoder)
    assert isinstance(open_encoder(saved), TrainedEncoder)
    (saved.parent / "tiny.onnx.json").unlink()
    with pytest.raises(WeightsError, match="Export it again"):
        ExportedEncoder(saved.with_suffix(".onnx"))


def test_networks_of_every_task_are_exported(tmp_path):
    pytest.importorskip("onnx")
    from ipse.training.export import export_onnx
    from ipse.training.tasks.landmarks import LandmarkNetwork
    from ipse.zoo import Network

    torch.manual_seed(0)
    chip = ChipSpec(32, 32, None, "rgb", (127.5,) * 3, (127.5,) * 3)
    names = ("points", "visible", "parts")
    contract = {"name": "marks", "task": "landmarks", "modality": "face", "license": "Apache-2.0", "chip": chip}
    contract |= {"network": {"width": 0.125}, "outputs": {name: {"kind": "points"} for name in names}}
    save_network(LandmarkNetwork(width=0.125), contract, tmp_path / "marks.safetensors")
    found = export_onnx(tmp_path / "marks.safetensors", tmp_path / "other.onnx")
    assert set(found["random"]) == set(names)
    network = Network(tmp_path / "other.onnx", "marks")
    told = network.run({"pixels": np.zeros((3, 3, 32, 32), np.float32)})
    assert told["points"].shape == (3, 70, 2)


def test_without_the_exporter_it_is_said(saved, monkeypatch):
    import sys

    from ipse.training.export import export_onnx

    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(TrainingError, match="pip install onnx"):
        export_onnx(saved)
    assert not saved.with_suffix(".onnx").exists()
