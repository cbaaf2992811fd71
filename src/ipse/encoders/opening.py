"""Encoders by name, or by the file they are in."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from ipse.encoders.contract import Encoder
from ipse.encoders.dlib_face import DlibFaceEncoder
from ipse.encoders.onnx_face import OnnxFaceEncoder
from ipse.encoders.shipped import ShippedEncoder
from ipse.encoders.trained import ExportedEncoder, TrainedEncoder, contract_path
from ipse.errors import WeightsError
from ipse.zoo import shipped_files, shipped_names

_FILES = {".onnx", ".safetensors"}


def encoder_names() -> tuple[str, ...]:
    """Names that `open_encoder` takes: what comes with ipse."""
    trained = (name for name in shipped_names() if shipped_files(name).contract["task"] == "identity")
    return (DlibFaceEncoder.name, *trained)


def open_encoder(which: str | Path, threads: int | None = None) -> Encoder:
    """An encoder that is ready to encode.

    Parameters
    ----------
    which
        One of `encoder_names`, such as ``"face-world"``; or the path of an ONNX file (written by `ipse.training.ship`
        or ``ipse export``, or of any ArcFace-style network), or of a safetensors file of ``ipse train encoder``, which
        needs torch.
    threads
        CPU threads per call on ONNX Runtime; None reads ``OMP_NUM_THREADS``, and without it uses all cores.

    Raises
    ------
    WeightsError
        If there is no such encoder, naming those that there are, or its files are damaged.
    """
    if which == DlibFaceEncoder.name:
        return DlibFaceEncoder(threads)
    path = Path(which)
    if path.suffix not in _FILES and not path.is_file():
        if str(which) in shipped_names():
            return ShippedEncoder(which, threads)
        raise WeightsError(
            f"There is no encoder {str(which)!r} in this build of ipse.",
            f"There are {', '.join(encoder_names())}; or give the path of an ONNX file.",
        )
    if path.suffix == ".safetensors":
        return TrainedEncoder(path)
    if path.with_suffix(".safetensors").exists() and path.with_suffix(".json").exists():
        return ShippedEncoder(path, threads)
    with suppress(OSError, ValueError):  # without a contract, or with a damaged one, it is for OnnxFaceEncoder to say
        if "source_sha256" in json.loads(contract_path(path).read_bytes()):
            return ExportedEncoder(path, threads)
    return OnnxFaceEncoder(path, threads=threads)
