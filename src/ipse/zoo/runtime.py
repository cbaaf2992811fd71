"""Running ONNX networks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ipse.errors import WeightsError

if TYPE_CHECKING:
    import onnxruntime


def session(model: bytes | Path, name: str, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Open an ONNX model, on the GPU where ONNX Runtime has one and on the CPU elsewhere.

    Parameters
    ----------
    model
        The bytes or the path of an ``.onnx`` file (a path where large weights lie in files beside it).
    name
        What errors call the network.
    threads
        CPU threads for one call; None reads ``OMP_NUM_THREADS`` and leaves the choice to ONNX Runtime without it.

    Raises
    ------
    WeightsError
        If ONNX Runtime cannot load the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is None:
        setting = os.environ.get("OMP_NUM_THREADS", "")
        threads = int(setting) if setting.isdigit() else 0
    options.intra_op_num_threads = threads
    available = onnxruntime.get_available_providers()
    providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in available]
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=providers
        )
    except Exception as error:  # ONNX Runtime raises a family of its own without a public base class
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{name} is not an ONNX model that can be run: {reason:.300}.") from error
