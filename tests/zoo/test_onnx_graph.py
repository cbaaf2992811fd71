import numpy as np
import pytest

from ipse.errors import WeightsError
from ipse.zoo import Network
from ipse.zoo.onnx_graph import OnnxGraph


def test_every_kind_of_attribute_and_weight_runs():
    graph = OnnxGraph("all kinds")
    x = graph.input("x", "uint8", ("n", 4))
    y = graph.node("Cast", x, to=1)
    y = graph.node("LeakyRelu", graph.node("Sub", y, graph.weight(np.float32([10]))), alpha=0.5)
    y = graph.node("Unsqueeze", y, graph.weight(np.int64([1])))
    y = graph.node("Transpose", y, perm=[0, 2, 1])
    y = graph.node("Einsum", y, equation="nij->in", name="y")
    graph.output(y, "float32", (4, "n"))
    network = Network(graph.to_bytes(), "test", threads=1)
    x = np.array([[0, 10, 20, 255], [1, 2, 3, 4]], np.uint8)
    shifted = x.astype(np.float32) - 10
    expected = np.where(shifted < 0, shifted / 2, shifted).T
    assert np.array_equal(network.run({"x": x})["y"], expected)
    assert network.inputs[0].shape == ["n", 4]


def test_negative_whole_numbers_survive():
    graph = OnnxGraph("negative")
    x = graph.input("x", "float32", ("n", 3))
    graph.output(graph.node("Softmax", x, axis=-1, name="y"), "float32", ("n", 3))
    y = Network(graph.to_bytes(), "test", threads=1).run({"x": np.zeros((2, 3), np.float32)})["y"]
    assert y == pytest.approx(np.full((2, 3), 1 / 3))


def test_what_is_not_a_model_is_a_weights_error(tmp_path):
    with pytest.raises(WeightsError, match="broken is not an ONNX model"):
        Network(b"not a model", "broken")
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(WeightsError, match="not an ONNX model"):
        Network(tmp_path / "empty.onnx", "empty")
