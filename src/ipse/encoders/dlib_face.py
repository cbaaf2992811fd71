"""The public-domain face encoder: dlib's 128-D network, run by ONNX Runtime or by torch."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ipse.encoders.contract import ChipSpec, Encoder, fingerprint_of
from ipse.zoo import DLIB_FACE_NETWORK, Network, cached
from ipse.zoo.dlib_format import Conv, FaceNetwork, read_face_network
from ipse.zoo.onnx_graph import OnnxGraph

if TYPE_CHECKING:
    import torch

# Changes whenever the converted file would: it is part of that file's name in the cache.
_CONVERSION = 1
_CHIP = ChipSpec(150, 150, "dlib150", "rgb", (122.782, 117.001, 104.298), (256.0, 256.0, 256.0))


def face_network_onnx(network: FaceNetwork) -> bytes:
    """Convert the network to an ONNX model: ``chips`` (n, 150, 150, 3) uint8 RGB → ``embeddings`` (n, 128) float32.

    Mean and scale are folded into the first convolution, which has no padding and so allows it exactly.
    """
    graph = OnnxGraph("dlib_face")

    def conv(x: str, layer: Conv) -> str:
        return graph.node(
            "Conv",
            x,
            graph.weight(layer.weight),
            graph.weight(layer.bias),
            strides=[layer.stride] * 2,
            pads=[layer.pad] * 4,
        )

    def fill(x: str, *, channels: int = 0, pixels: int = 0) -> str:
        """Append zeros at the end of the channels and of rows and columns."""
        return graph.node("Pad", x, graph.weight(np.array([0, 0, 0, 0, 0, channels, pixels, pixels], np.int64)))

    weight = network.stem.weight.astype(np.float64) / network.scale
    bias = network.stem.bias - (weight * network.mean[:, None, None]).sum((1, 2, 3))
    stem = Conv(weight.astype(np.float32), bias.astype(np.float32), network.stem.stride, network.stem.pad)

    size = network.size
    x = graph.input("chips", "uint8", ("n", size, size, 3))
    x = graph.node("Transpose", graph.node("Cast", x, to=1), perm=[0, 3, 1, 2])
    x = graph.node("Relu", conv(x, stem))
    x = graph.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
    size = ((size - 7) // 2 + 1 - 3) // 2 + 1
    channels = len(stem.bias)
    for block in network.blocks:
        branch = conv(graph.node("Relu", conv(x, block.first)), block.second)
        if block.down:
            pooled, reduced = size // 2, (size - 3) // 2 + 1
            x = graph.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
            if len(block.second.bias) > channels:
                x = fill(x, channels=len(block.second.bias) - channels)
            if pooled > reduced:
                branch = fill(branch, pixels=pooled - reduced)
            size, channels = pooled, len(block.second.bias)
        x = graph.node("Relu", graph.node("Add", branch, x))
    x = graph.node("Flatten", graph.node("GlobalAveragePool", x))
    x = graph.node("MatMul", x, graph.weight(network.head), name="embeddings")
    graph.output(x, "float32", ("n", network.head.shape[1]))
    return graph.to_bytes()


def _converted() -> bytes:
    return cached(
        f"dlib-face-{_CONVERSION}-{(DLIB_FACE_NETWORK.sha256 or '')[:16]}.onnx",
        lambda: face_network_onnx(read_face_network(DLIB_FACE_NETWORK.read())),
    )


class DlibFaceEncoder(Encoder):
    """Davis King's 128-D face network (public domain; 99.38 % on LFW by its author).

    Embeddings are compared by Euclidean distance; its author's threshold for the same person is 0.6. The network file
    is read from the package ``face_recognition_models`` and converted once into the cache.

    Parameters
    ----------
    threads
        CPU threads per call; None reads ``OMP_NUM_THREADS``, and without it uses all cores.

    Raises
    ------
    WeightsError
        When it first encodes, if the network file is missing or damaged.
    """

    name = "dlib-face-128"
    dim = 128
    modality = "face"
    metric = "l2"
    chip = _CHIP
    fingerprint = fingerprint_of(DLIB_FACE_NETWORK.sha256 or "", _CHIP)
    license = DLIB_FACE_NETWORK.license

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads

    @cached_property
    def _network(self) -> Network:
        # Made when it is first needed: a run that finds everything known already does not wait for it.
        return Network(_converted, DLIB_FACE_NETWORK.name, self._threads)

    def _encode(self, batch: np.ndarray) -> np.ndarray:
        return self._network.run({"chips": batch})["embeddings"]

    def torch_module(self) -> torch.nn.Module:
        """The same network with gradients down to the pixels; see `Encoder.torch_module`."""
        from ipse.encoders.modules import DlibFaceModule

        return DlibFaceModule(read_face_network(DLIB_FACE_NETWORK.read())).eval()
