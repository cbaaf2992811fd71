"""What every encoder must keep, whatever network it runs, and what each adds."""

import dataclasses
import json
import os
import pickle
import subprocess
import sys

import dlib
import numpy as np
import pytest
import torch

from ipse.encoders import AveragedEncoder, ChipSpec, DlibFaceEncoder, OnnxContract, OnnxFaceEncoder
from ipse.errors import ImageError, IpseError, WeightsError
from ipse.zoo import DLIB_FACE_NETWORK
from ipse.zoo.onnx_graph import OnnxGraph


def write_arcface(path, *, dim=16, batch="n", size=112, seed=0, input_channels=3):
    """A small network with the input and output of ArcFace's: pooled colors, mixed by a random matrix."""
    rng = np.random.default_rng(seed)
    graph = OnnxGraph("arcface")
    x = graph.input("data", "float32", (batch, input_channels, size, size))
    x = graph.node("AveragePool", x, kernel_shape=[28, 28], strides=[28, 28])
    x = graph.node("Flatten", x)
    weight = rng.standard_normal((input_channels * (size // 28) ** 2, dim)).astype(np.float32)
    graph.output(graph.node("MatMul", x, graph.weight(weight), name="embedding"), "float32", (batch, dim))
    path.write_bytes(graph.to_bytes())
    return path


def chips(count, spec, seed=0):
    """Smooth random pictures with the full range of colors, one of them noise, one black and one white."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-60, 315, (count, 6, 6, 3)).repeat(-(-spec.height // 6), 1).repeat(-(-spec.width // 6), 2)
    out = coarse[:, : spec.height, : spec.width].clip(0, 255).astype(np.uint8)
    for index, plain in enumerate((rng.integers(0, 256, out.shape[1:]), 0, 255)):
        if index < count:
            out[index] = plain
    return out


@pytest.fixture(
    scope="module", params=["dlib", "dlib flipped", "dlib jittered", "arcface", "arcface batch 4", "arcface flipped"]
)
def encoder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "net.onnx"
    match request.param:
        case "dlib":
            return DlibFaceEncoder(threads=1)
        case "dlib flipped":
            return AveragedEncoder(DlibFaceEncoder(threads=1))
        case "dlib jittered":
            return AveragedEncoder(DlibFaceEncoder(threads=1), flip=False, jitter=2)
        case "arcface":
            return OnnxFaceEncoder(write_arcface(path), threads=1)
        case "arcface batch 4":
            return OnnxFaceEncoder(write_arcface(path, batch=4), threads=1)
        case "arcface flipped":
            return AveragedEncoder(OnnxFaceEncoder(write_arcface(path), threads=1))


class TestContract:
    def test_describes_itself(self, encoder):
        assert encoder.name and encoder.license and encoder.modality == "face"
        assert encoder.metric in ("cosine", "l2") and isinstance(encoder.chip, ChipSpec)
        assert len(encoder.fingerprint) == 64 and int(encoder.fingerprint, 16)
        assert encoder.name in repr(encoder) and encoder.fingerprint[:12] in repr(encoder)

    def test_gives_one_float32_row_for_each_chip(self, encoder):
        for count in (0, 1, 3):
            out = encoder.encode(chips(count, encoder.chip))
            assert out.shape == (count, encoder.dim) and out.dtype == np.float32 and np.isfinite(out).all()

    def test_arrays_and_lists_are_the_same(self, encoder):
        batch = chips(3, encoder.chip)
        assert np.array_equal(encoder.encode(batch), encoder.encode(list(batch)))
        assert encoder.encode([]).shape == (0, encoder.dim)

    def test_a_chip_does_not_depend_on_its_neighbors(self, encoder):
        batch = chips(encoder.batch_size + 3, encoder.chip)
        together = encoder.encode(batch)
        alone = np.concatenate([encoder.encode(chip[None]) for chip in batch])
        assert together == pytest.approx(alone, abs=1e-5)
        assert encoder.encode(batch[::-1]) == pytest.approx(together[::-1], abs=1e-5)

    def test_does_not_change_its_input(self, encoder):
        batch = chips(3, encoder.chip)
        before = batch.copy()
        encoder.encode(batch)
        assert np.array_equal(batch, before)

    def test_cosine_embeddings_have_length_one(self, encoder):
        lengths = np.linalg.norm(encoder.encode(chips(5, encoder.chip)), axis=1)
        assert encoder.metric == "l2" or lengths == pytest.approx(np.ones(5), abs=1e-5)

    @pytest.mark.parametrize("wrong", ["size", "dtype", "gray", "type"])
    def test_refuses_what_is_not_a_chip(self, encoder, wrong):
        good = chips(1, encoder.chip)[0]
        bad = {"size": good[1:], "dtype": good.astype(np.float32), "gray": good[..., 0], "type": "face.jpg"}[wrong]
        with pytest.raises(ImageError, match=r"Image 1 is .*Align faces") as caught:
            encoder.encode([good, bad])
        assert caught.value.reason == "bad-array"

    def test_torch_module_agrees_and_passes_gradients(self, encoder):
        try:
            module = encoder.torch_module()
        except IpseError as error:
            assert "gradients" in str(error)
            return
        batch = chips(4, encoder.chip)
        pixels = torch.from_numpy(batch).permute(0, 3, 1, 2).float().div(255).requires_grad_()
        out = module(pixels)
        assert out.detach().numpy() == pytest.approx(encoder.encode(batch), abs=1e-4)
        out.square().sum().backward()
        assert torch.isfinite(pixels.grad).all() and (pixels.grad[3] != 0).any()


@pytest.fixture(scope="module")
def face_encoder():
    return DlibFaceEncoder(threads=1)


def test_dlib_gives_the_same_embeddings(face_encoder):
    reference = dlib.face_recognition_model_v1(str(DLIB_FACE_NETWORK.path()))
    batch = chips(8, face_encoder.chip)
    expected = np.array([reference.compute_face_descriptor(chip) for chip in batch])
    assert np.abs(face_encoder.encode(batch) - expected).max() < 1e-4


def test_dlib_torch_module_can_be_tuned_and_saved(face_encoder):
    module = face_encoder.torch_module()
    assert not module.training
    assert sum(p.numel() for p in module.parameters()) == pytest.approx(5.58e6, rel=0.01)
    other = face_encoder.torch_module()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(module.state_dict())
    x = torch.rand(1, 3, 150, 150)
    assert torch.equal(module(x), other(x))


def test_recognizing_needs_no_torch(tmp_path):
    code = (
        "import sys, numpy as np\n"
        "from ipse.encoders import DlibFaceEncoder\n"
        "from ipse.faces import HogDetector, align, assess\n"
        "image = np.zeros((120, 120, 3), np.uint8)\n"
        "faces = HogDetector().detect(image)\n"
        "assess(image, faces)\n"
        "DlibFaceEncoder().encode([*align(image, faces), np.zeros((150, 150, 3), np.uint8)])\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "IPSE_CACHE": str(tmp_path)})
    assert [p.suffix for p in sorted(tmp_path.iterdir())] == [".onnx", ".sha256"]


def test_averaging_keeps_the_space_of_the_encoder(face_encoder):
    batch = chips(6, face_encoder.chip)[3:]
    flipped = AveragedEncoder(face_encoder)
    assert flipped.fingerprint == face_encoder.fingerprint
    mean = (face_encoder.encode(batch) + face_encoder.encode(np.ascontiguousarray(batch[:, :, ::-1]))) / 2
    assert flipped.encode(batch) == pytest.approx(mean, abs=1e-6)
    assert flipped.encode(batch[:, :, ::-1]) == pytest.approx(mean, abs=1e-5)


def test_jitter_is_the_same_each_time_and_small(face_encoder):
    batch = chips(5, face_encoder.chip)[3:]
    jittered, again = (AveragedEncoder(face_encoder, jitter=3, seed=1).encode(batch) for _ in range(2))
    assert np.array_equal(jittered, again)
    assert not np.array_equal(jittered, AveragedEncoder(face_encoder, jitter=3, seed=2).encode(batch))
    apart = np.linalg.norm(face_encoder.encode(batch)[0] - face_encoder.encode(batch)[1])
    assert (np.linalg.norm(jittered - face_encoder.encode(batch), axis=1) < apart).all()
    with pytest.raises(ValueError, match="jitter"):
        AveragedEncoder(face_encoder, jitter=-1)


def test_jitter_moves_about_the_middle(tmp_path):
    """Turns and scales leave the middle of a chip in its place, up to the shift of 2 %."""
    spot = np.zeros((112, 112, 3), np.uint8)
    spot[54:58, 54:58] = 255
    seen = []

    class Recorder(OnnxFaceEncoder):
        def _encode(self, batch):
            seen.append(batch.copy())
            return super()._encode(batch)

    AveragedEncoder(Recorder(write_arcface(tmp_path / "net.onnx"), threads=1), flip=False, jitter=8).encode([spot])
    for chip in seen[1:]:
        rows, columns = np.nonzero(chip[0, ..., 0] > 60)
        assert abs(rows.mean() - 55.5) < 3 and abs(columns.mean() - 55.5) < 3
    assert len({chip.tobytes() for chip in seen}) == 9


def test_onnx_contract_is_written_beside_the_file_and_read_back(tmp_path):
    path = write_arcface(tmp_path / "glint.onnx")
    first = OnnxFaceEncoder(path)
    stored = json.loads((tmp_path / "glint.onnx.json").read_text())
    assert stored["name"] == first.name == "glint" and stored["chip"]["template"] == "arcface112"
    assert OnnxFaceEncoder(path).fingerprint == first.fingerprint

    other = OnnxContract("mine", "CC0", dataclasses.replace(first.chip, color="bgr", std=(128.0,) * 3))
    changed = OnnxFaceEncoder(path, other)
    assert changed.fingerprint != first.fingerprint
    later = OnnxFaceEncoder(path)
    assert (later.name, later.license, later.chip) == ("mine", "CC0", other.chip)
    assert later.fingerprint == changed.fingerprint


def test_onnx_input_is_normalized_as_the_contract_says(tmp_path):
    batch = chips(3, ChipSpec(112, 112, None))
    mean, std = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
    graph = OnnxGraph("means")
    x = graph.input("data", "float32", ("n", 3, 112, 112))
    graph.output(graph.node("Flatten", graph.node("GlobalAveragePool", x), name="y"), "float32", ("n", 3))
    (tmp_path / "means.onnx").write_bytes(graph.to_bytes())
    encoder = OnnxFaceEncoder(
        tmp_path / "means.onnx", OnnxContract(chip=ChipSpec(112, 112, "arcface112", "bgr", mean, std))
    )
    expected = (batch.astype(float).mean((1, 2))[:, ::-1] - mean) / std
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert encoder.encode(batch) == pytest.approx(expected, abs=1e-4)


def test_onnx_file_that_changed_under_its_contract_is_refused(tmp_path):
    path = write_arcface(tmp_path / "net.onnx")
    OnnxFaceEncoder(path)
    write_arcface(path, seed=1)
    with pytest.raises(WeightsError, match="has changed since its contract"):
        OnnxFaceEncoder(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": 1}', '{"name": "a", "license": "b", "chip": {"x": 1}}'])
def test_damaged_contract_is_an_error(tmp_path, content):
    path = write_arcface(tmp_path / "net.onnx")
    OnnxContract.path(path).write_text(content)
    with pytest.raises(WeightsError, match="not the contract of an encoder"):
        OnnxFaceEncoder(path)


def test_onnx_files_of_another_kind_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="there is no file"):
        OnnxFaceEncoder(tmp_path / "gone.onnx")
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(WeightsError, match="not an ONNX model"):
        OnnxFaceEncoder(tmp_path / "text.onnx")
    with pytest.raises(WeightsError, match="not one float32 image"):
        OnnxFaceEncoder(write_arcface(tmp_path / "large.onnx", size=224))
    with pytest.raises(WeightsError, match="not one float32 image"):
        OnnxFaceEncoder(write_arcface(tmp_path / "gray.onnx", input_channels=1))
    graph = OnnxGraph("map")
    x = graph.input("x", "float32", ("n", 3, 112, 112))
    graph.output(graph.node("Relu", x, name="y"), "float32", ("n", 3, 112, 112))
    (tmp_path / "map.onnx").write_bytes(graph.to_bytes())
    with pytest.raises(WeightsError, match="not one embedding"):
        OnnxFaceEncoder(tmp_path / "map.onnx")
    assert not list(tmp_path.glob("*.json"))


def test_encoders_cross_process_borders(face_encoder, tmp_path):
    """Pools and clusters send encoders to their workers."""
    batch = chips(2, face_encoder.chip)
    assert np.array_equal(pickle.loads(pickle.dumps(face_encoder)).encode(batch), face_encoder.encode(batch))
    arcface = OnnxFaceEncoder(write_arcface(tmp_path / "net.onnx"), threads=1)
    batch = chips(2, arcface.chip)
    assert np.array_equal(
        pickle.loads(pickle.dumps(AveragedEncoder(arcface))).encode(batch), AveragedEncoder(arcface).encode(batch)
    )
