"""Reader for dlib's serialized face network, ``dlib_face_recognition_resnet_model_v1.dat``.

The file holds a ResNet with 29 convolutions, trained by Davis King and placed in the public domain
(https://github.com/davisking/dlib-models). It is read here without dlib so that the network can run in batches, on any
runtime, and with gradients. Nothing in the file is trusted: every length is checked against what is left of it before
anything is allocated, so a damaged file ends in `WeightsError` and never in a crash or a huge
allocation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from ipse.errors import WeightsError

# Version numbers that open the file, outermost layer first: 2 is a computational layer, 1 a wrapper (a tag or a skip)
# that has no record of its own, and the single 3 at the end is the innermost convolution.
_VERSIONS = 130
_PLAIN, _DOWN = False, True
_BLOCKS = (
    *[(32, _PLAIN)] * 3,
    (64, _DOWN),
    *[(64, _PLAIN)] * 3,
    (128, _DOWN),
    *[(128, _PLAIN)] * 2,
    (256, _DOWN),
    *[(256, _PLAIN)] * 2,
    (256, _DOWN),
)
_SPECIAL_EXPONENTS = {32000: math.inf, 32001: -math.inf, 32002: math.nan}


@dataclass(frozen=True)
class Conv:
    """A convolution with the affine layer behind it folded in.

    ``weight`` is (out, in, height, width) float32, ``bias`` (out,) float32; ``stride`` and ``pad`` hold for both
    directions.
    """

    weight: np.ndarray
    bias: np.ndarray
    stride: int
    pad: int


@dataclass(frozen=True)
class Block:
    """A residual block: ``relu(second(relu(first(x))) + shortcut)``.

    The shortcut is ``x``, or ``x`` averaged over 2×2 pixels where ``down`` is set. Where shortcut and branch differ
    in size, the smaller one is filled with zeros at the end of that axis.
    """

    first: Conv
    second: Conv
    down: bool


@dataclass(frozen=True)
class FaceNetwork:
    """The weights of dlib's face network.

    ``mean`` is (3,) in the order red, green, blue on the scale 0..255 and ``scale`` the divisor behind it: the
    network sees ``(pixel - mean) / scale``. ``size`` is the side of the square input. ``head`` is (256, 128), applied
    as ``x @ head``.
    """

    mean: np.ndarray
    scale: float
    size: int
    stem: Conv
    blocks: tuple[Block, ...]
    head: np.ndarray


class _Reader:
    """Reads dlib's primitive values from bytes."""

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = data
        self.at = 0
        self.ints: tuple[int, ...] = ()  # the whole-number settings of the layer read last

    def fail(self, what: str) -> NoReturn:
        raise WeightsError(
            f"The face network cannot be read: {what} at byte {self.at} of {len(self.data)}.",
            "The file is damaged or another one: install the package face_recognition_models again.",
        )

    def take(self, count: int) -> bytes | bytearray:
        if count > len(self.data) - self.at:
            self.fail("unexpected end")
        self.at += count
        return self.data[self.at - count : self.at]

    def int(self) -> int:
        control = self.take(1)[0]
        length = control & 0x0F
        if length > 8 or control & 0x70:
            self.fail(f"bad integer (control byte {control:#04x})")
        value = int.from_bytes(self.take(length), "little")
        return -value if control & 0x80 else value

    def float(self) -> float:
        mantissa, exponent = self.int(), self.int()
        if exponent in _SPECIAL_EXPONENTS:
            return _SPECIAL_EXPONENTS[exponent]
        try:
            return math.ldexp(mantissa, exponent)
        except OverflowError:
            self.fail("number out of range")

    def bool(self) -> None:
        if self.take(1) not in (b"0", b"1"):
            self.fail("bad flag")

    def string(self) -> str:
        length = self.int()
        if not 0 <= length <= 64:
            self.fail(f"bad name length {length}")
        return self.take(length).decode("latin-1")

    def shape(self, version: int) -> tuple[int, ...]:
        self.expect(self.int(), version, "tensor version")
        return tuple(self.int() for _ in range(4))

    def tensor(self) -> np.ndarray:
        shape = self.shape(2)
        if min(shape) < 0 or math.prod(shape) > (len(self.data) - self.at) // 4:
            self.fail(f"bad tensor shape {shape}")
        values = np.frombuffer(self.data, "<f4", math.prod(shape), self.at)
        self.at += values.nbytes
        return values.astype(np.float32, copy=False)

    def expect(self, found: object, wanted: object, what: str) -> None:
        if found != wanted:
            self.fail(f"{what} is {found!r:.80} where {wanted!r:.80} belongs")

    def layer(self, tag: str, *, innermost: bool = False) -> np.ndarray:
        """Read one layer record of the kind ``tag``; returns its parameters, flat (empty where it has none)."""
        self.expect(self.string(), tag, "layer")
        params, ints = np.empty(0, np.float32), ()
        if tag == "con_4":
            params = self.tensor()
            ints = tuple(self.int() for _ in range(7))
            self.shape(1), self.shape(1)
            [self.float() for _ in range(4)]
        elif tag == "affine_":
            params = self.tensor()
            self.shape(1), self.shape(1)
            ints = (self.int(),)
        elif tag in ("max_pool_2", "avg_pool_2"):
            ints = tuple(self.int() for _ in range(6))
        elif tag == "fc_2":
            ints = (self.int(), self.int())
            params = self.tensor()
            self.shape(1), self.shape(1)
            self.int()
            [self.float() for _ in range(4)]
        self.ints = ints
        for _ in range(3):
            self.bool()
        self.tensor(), self.tensor()  # gradient and output of the last training step: empty in a published file
        self.tensor()
        if innermost:
            self.int()  # how often each input was repeated in training
        return params

    def conv(self, inputs: int, outputs: int, size: int, stride: int, *, innermost: bool = False) -> Conv:
        """Read a convolution and the affine layer behind it, folded into one."""
        pad = 1 if stride == 1 else 0  # the only two kinds in this network
        params = self.layer("con_4", innermost=innermost)
        self.expect(self.ints, (outputs, size, size, stride, stride, pad, pad), "convolution geometry")
        count = outputs * inputs * size * size
        self.expect(params.size, count + outputs, "number of convolution weights")
        affine = self.layer("affine_")
        self.expect(affine.size, 2 * outputs, "number of affine weights")
        gamma, beta = affine[:outputs], affine[outputs:]
        with np.errstate(all="ignore"):  # values are checked once, as a whole, by the caller
            weight = params[:count].reshape(outputs, inputs, size, size) * gamma[:, None, None, None]
            return Conv(weight, params[count:] * gamma + beta, stride, pad)


def read_face_network(data: bytes | bytearray) -> FaceNetwork:
    """Read the bytes of ``dlib_face_recognition_resnet_model_v1.dat``.

    Raises
    ------
    WeightsError
        If the bytes are cut short, damaged, or hold another network.
    """
    reader = _Reader(data)
    reader.expect(reader.int(), 1, "format version")
    reader.expect(reader.string(), "loss_metric_2", "loss layer")
    reader.float(), reader.float()  # margin and threshold of training
    versions = [reader.int() for _ in range(_VERSIONS)]
    if versions[-1] != 3 or not set(versions[:-1]) <= {1, 2}:
        reader.fail("unknown layer versions")
    reader.expect(reader.string(), "input_rgb_image_sized", "input layer")
    with np.errstate(over="ignore"):
        # What is not finite is refused below.
        mean = np.array([reader.float() for _ in range(3)], np.float32)
    size = reader.int()
    reader.expect((size, reader.int()), (150, 150), "input size")

    stem = reader.conv(3, 32, 7, 2, innermost=True)
    reader.layer("relu_")
    reader.layer("max_pool_2")
    reader.expect(reader.ints, (3, 3, 2, 2, 0, 0), "pooling geometry")
    blocks = []
    channels = 32
    for width, down in _BLOCKS:
        first = reader.conv(channels, width, 3, 2 if down else 1)
        reader.layer("relu_")
        second = reader.conv(width, width, 3, 1)
        if down:
            reader.layer("avg_pool_2")
            reader.expect(reader.ints, (2, 2, 2, 2, 0, 0), "pooling geometry")
        reader.layer("add_prev_")
        reader.layer("relu_")
        blocks.append(Block(first, second, down))
        channels = width
    reader.layer("avg_pool_2")
    reader.expect(reader.ints, (0, 0, 1, 1, 0, 0), "pooling geometry")
    head = reader.layer("fc_2")
    reader.expect(reader.ints, (128, 256), "size of the last layer")
    reader.expect(head.size, 256 * 128, "number of weights of the last layer")
    reader.expect(reader.at, len(data), "end of the file")

    network = FaceNetwork(mean, 256.0, size, stem, tuple(blocks), head.reshape(256, 128))
    convs = [stem, *(conv for block in blocks for conv in (block.first, block.second))]
    if not all(np.isfinite(a).all() for a in [mean, head, *(a for c in convs for a in (c.weight, c.bias))]):
        reader.fail("a weight that is not a number")
    return network
