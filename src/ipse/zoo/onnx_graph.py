"""Writing ONNX models without the ``onnx`` package.

An ONNX file is one protocol-buffer message. The networks converted here need a handful of its fields, so the few
lines below write them directly; installing ``onnx`` (and the compiler and protobuf versions it ties down) is not
needed to run a converted network. Field numbers are those of ``onnx.proto3`` (ONNX, Apache-2.0).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

_ELEMENT_TYPES = {"float32": 1, "uint8": 2, "int32": 6, "int64": 7, "bool": 9}
_ATTRIBUTE_FLOAT, _ATTRIBUTE_INT, _ATTRIBUTE_STRING, _ATTRIBUTE_INTS = 1, 2, 3, 7

Attribute = int | float | str | Sequence[int]


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers are written as their 64-bit two's complement
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _data(field: int, value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(raw)) + raw


def _attribute(name: str, value: Attribute) -> bytes:
    head = _data(1, name)
    if isinstance(value, int):
        return head + _int(3, value) + _int(20, _ATTRIBUTE_INT)
    if isinstance(value, float):
        return head + _varint(2 << 3 | 5) + struct.pack("<f", value) + _int(20, _ATTRIBUTE_FLOAT)
    if isinstance(value, str):
        return head + _data(4, value) + _int(20, _ATTRIBUTE_STRING)
    return head + b"".join(_int(8, v) for v in value) + _int(20, _ATTRIBUTE_INTS)


def _tensor(name: str, array: np.ndarray) -> bytes:
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    dims = b"".join(_int(1, size) for size in array.shape)
    return dims + _int(2, _ELEMENT_TYPES[array.dtype.name]) + _data(8, name) + _data(9, little.tobytes())


def _value(name: str, dtype: str, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(_data(1, _data(2, size) if isinstance(size, str) else _int(1, size)) for size in shape)
    return _data(1, name) + _data(2, _data(1, _int(1, _ELEMENT_TYPES[dtype]) + _data(2, dims)))


class OnnxGraph:
    """A computation graph under construction; every method returns the name of the value it adds.

    Shapes are sequences of sizes, where a string names a size that is free at run time (such as the batch). Element
    types are NumPy names: ``float32``, ``uint8``, ``int32``, ``int64``, ``bool``.

    >>> graph = OnnxGraph("double")
    >>> x = graph.input("x", "float32", ("n",))
    >>> graph.output(graph.node("Add", x, x, name="y"), "float32", ("n",))
    >>> model = graph.to_bytes()
    """

    def __init__(self, name: str, opset: int = 17) -> None:
        self._name = name
        self._opset = opset
        self._nodes: list[bytes] = []
        self._weights: list[bytes] = []
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []
        self._count = 0

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """Declare a model input."""
        self._inputs.append(_value(name, dtype, shape))
        return name

    def output(self, name: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Declare that the value ``name`` is a model output."""
        self._outputs.append(_value(name, dtype, shape))

    def weight(self, array: np.ndarray) -> str:
        """Add a constant."""
        name = self._fresh("weight")
        self._weights.append(_tensor(name, array))
        return name

    def node(self, operator: str, *inputs: str, name: str | None = None, **attributes: Attribute) -> str:
        """Apply an operator with one output to earlier values."""
        out = name or self._fresh(operator.lower())
        body = b"".join(_data(1, value) for value in inputs) + _data(2, out) + _data(3, out) + _data(4, operator)
        self._nodes.append(body + b"".join(_data(5, _attribute(k, v)) for k, v in attributes.items()))
        return out

    def to_bytes(self) -> bytes:
        """The finished model as the bytes of an ``.onnx`` file (IR version 8)."""
        graph = b"".join(_data(1, node) for node in self._nodes) + _data(2, self._name)
        graph += b"".join(_data(5, weight) for weight in self._weights)
        graph += b"".join(_data(11, value) for value in self._inputs)
        graph += b"".join(_data(12, value) for value in self._outputs)
        return _int(1, 8) + _data(2, "ipse") + _data(7, graph) + _data(8, _int(2, self._opset))
