"""``ipse train`` and ``ipse export`` from the command line."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

pytest.importorskip("accelerate")
pytest.importorskip("kornia")

from ipse.cli import main

RECIPE = """
name: tiny
steps: 2
data: {holdout: 0.4, group: look}
cut: {kind: whole, size: [32, 32]}
batch: {people: 2, each: 2}
network: {backbone: mobilefacenet, width: 0.125, scale: 1, dim: 8, blocks: [1, 1, 1, 1], size: [32, 32]}
losses: {softmax: {}, triplet: {}}
"""


@pytest.fixture
def folder(tmp_path):
    rows = []
    for person in range(5):
        for look in range(2):
            file = io.BytesIO()
            Image.fromarray(np.random.default_rng([person, look]).integers(0, 256, (40, 40, 3), np.uint8)).save(
                file, "PNG"
            )
            rows.append({"image": {"bytes": file.getvalue()}, "person": person, "look": look})
    (tmp_path / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "x.parquet")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def run(*arguments):
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code or 0


def test_train_carry_and_export(folder, capsys, monkeypatch):
    monkeypatch.setenv("IPSE_CACHE", str(folder / "cache"))
    recipe, out = folder / "recipe.yaml", folder / "run"
    assert run("train", "encoder", recipe, "--data", folder / "data", "--out", out, "--steps", 3) == 0
    told = capsys.readouterr().out
    assert "rank1" in told and "tiny.safetensors" in told and "file://" in told
    assert json.loads((out / "record.json").read_text())["steps"] == 3
    assert run("train", "encoder", recipe, "--data", folder / "data", "--out", out) == 2
    assert "--resume" in capsys.readouterr().err
    assert run("train", "carry", recipe, "--data", folder / "data", "--out", folder / "chips") == 0
    assert "1 files" in capsys.readouterr().out
    assert run("export", out / "tiny.safetensors") == 2
    assert "--onnx" in capsys.readouterr().err
    pytest.importorskip("onnx")
    assert run("export", out / "tiny.safetensors", "--onnx", "--data", folder / "chips") == 0
    told = capsys.readouterr().out
    assert "largest difference on noise" in told and "mAP" in told and (out / "tiny.onnx").exists()
    assert run("train", "ship", out, "--to", folder / "networks", "--threshold", 0.5) == 0
    told = capsys.readouterr().out
    assert "embedding: largest difference" in told and "tiny.safetensors.json" in told and " MB" in told
    assert json.loads((folder / "networks" / "tiny.safetensors.json").read_text())["threshold"] == 0.5


def test_what_can_go_wrong(folder, capsys):
    assert run("train", "encoder", folder / "absent.yaml") == 2
    assert run("train", "encoder", folder / "recipe.yaml") == 2
    assert "--data" in capsys.readouterr().err
    assert run("train", "encoder", folder / "recipe.yaml", "--data", folder / "none", "--out", folder / "r") == 2
    assert "no data folder" in capsys.readouterr().err
    assert run("export", folder / "none.safetensors", "--onnx") == 2
    capsys.readouterr()
    assert run("train", "ship", folder) == 2
    assert "no finished training" in capsys.readouterr().err
