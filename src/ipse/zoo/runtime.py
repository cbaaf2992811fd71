"""Running ONNX networks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ipse.errors import WeightsError


class Network:
    """An ONNX model that is ready to run, on the GPU where ONNX Runtime has one and on the CPU elsewhere.

    Copies sent to other processes open the model again there.

    Parameters
    ----------
    model
        The bytes or the path of an ``.onnx`` file (a path where large weights lie in files beside it), or a function
        that gives the bytes (defined in a module, so that it can be sent to other processes in their place).
    name
        What errors call the network.
    threads
        CPU threads for one call; None reads ``OMP_NUM_THREADS`` and leaves the choice to ONNX Runtime without it.
    weights
        The file beside `model`, a path, that its weights lie in. It may be a link then, which ONNX Runtime does not
        follow by itself.

    Attributes
    ----------
    inputs, outputs
        What the model takes and gives, in order: objects with ``name``, ``type`` (such as ``tensor(float)``) and
        ``shape`` (sizes, or names and None for what is free).

    Raises
    ------
    WeightsError
        If ONNX Runtime cannot load the model.
    """

    def __init__(
        self,
        model: bytes | Path | Callable[[], bytes],
        name: str,
        threads: int | None = None,
        weights: Path | None = None,
    ) -> None:
        import onnxruntime

        self._arguments = (model, name, threads, weights)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is None:
            setting = os.environ.get("OMP_NUM_THREADS", "")
            threads = int(setting) if setting.isdigit() else 0
        options.intra_op_num_threads = threads
        available = onnxruntime.get_available_providers()
        providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in available]
        source = str(model) if isinstance(model, Path) else model if isinstance(model, bytes) else model()
        if weights is not None:
            content = weights.read_bytes()
            options.add_external_initializers_from_files_in_memory([weights.name], [content], [len(content)])
            source = Path(source).read_bytes()
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=providers)
        except Exception as error:  # ONNX Runtime raises a family of its own without a public base class
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise WeightsError(f"{name} is not an ONNX model that can be run: {reason:.300}.") from error
        self.inputs: list[Any] = self._session.get_inputs()
        self.outputs: list[Any] = self._session.get_outputs()

    def __reduce__(self) -> tuple[object, ...]:
        return Network, self._arguments

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the model on its inputs by name; gives its outputs by name, in the model's order."""
        values = self._session.run(None, dict(feed))
        return {output.name: value for output, value in zip(self.outputs, values, strict=True)}
