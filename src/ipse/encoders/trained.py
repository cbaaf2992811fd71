"""Encoders that were trained here: a safetensors file with its contract beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ipse._files import atomic_write
from ipse.encoders.contract import ChipSpec, Encoder, fingerprint_of
from ipse.encoders.onnx_face import OnnxFaceEncoder
from ipse.errors import WeightsError

if TYPE_CHECKING:
    import torch

FORMAT = "ipse.network/1"


def contract_path(weights: str | Path) -> Path:
    """Where the contract of a weight file lies."""
    return Path(f"{weights}.json")


def save_network(network: torch.nn.Module, contract: Mapping[str, Any], path: str | Path) -> None:
    """Write weights and contract, each whole or not at all.

    Filters and matrices are stored in half precision; norms and biases, which can be large or tiny, in single.

    Parameters
    ----------
    network
        Its parameters and buffers are what is stored.
    contract
        JSON values; ``chip`` may be a `ChipSpec`. The checksum of the weights is added.
    path
        The safetensors file.

    Raises
    ------
    WeightsError
        If a weight is not finite in the precision that it is stored in.
    """
    import torch
    from safetensors.torch import save

    tensors = {}
    for key, value in network.state_dict().items():
        value = value.detach().cpu().contiguous()
        stored = value.half() if value.is_floating_point() and value.ndim > 1 else value
        if stored.is_floating_point() and not torch.isfinite(stored).all():
            raise WeightsError(f"The weight {key} is not finite, or too large for half precision.", "Train it anew.")
        tensors[key] = stored
    data = save(tensors)
    chip = contract["chip"]
    full = dict(contract) | {
        "format": FORMAT,
        "chip": asdict(chip) if isinstance(chip, ChipSpec) else chip,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    for target, content in ((Path(path), data), (contract_path(path), json.dumps(full, indent=2).encode() + b"\n")):
        with atomic_write(target) as file:
            file.write(content)


def read_network(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights in single precision, and the contract.

    Raises
    ------
    WeightsError
        If a file is missing or damaged, or the two do not belong together.
    """
    from safetensors.torch import load

    path = Path(path)
    try:
        data = path.read_bytes()
        contract = json.loads(contract_path(path).read_bytes())
        if contract["format"] != FORMAT:
            raise ValueError(f"its format is {contract['format']}")
        chip = {key: tuple(v) if isinstance(v, list) else v for key, v in contract["chip"].items()}
        contract["chip"] = ChipSpec(**chip)
        if hashlib.sha256(data).hexdigest() != contract["sha256"]:
            raise ValueError("the weights are not those that the contract was written for")
        tensors = load(data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path} and {contract_path(path).name} are not a network of ipse: {error}.",
            "Both files are written by `ipse train encoder`; copy them together.",
        ) from error
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}, contract


class TrainedEncoder(Encoder):
    """An encoder from a file that `ipse train encoder` wrote, run by torch.

    For ONNX Runtime, which needs no torch and is faster on a CPU, export it first: ``ipse export FILE --onnx``.

    Parameters
    ----------
    path
        The safetensors file; its contract lies beside it.

    Attributes
    ----------
    matches
        Fingerprint of an earlier encoder whose embeddings its own lie among; empty for none.

    Raises
    ------
    WeightsError
        If the files are missing or damaged, or hold something else than an encoder.
    """

    def __init__(self, path: str | Path) -> None:
        from ipse.encoders.backbones import backbone

        tensors, contract = read_network(path)
        if contract["task"] != "identity":
            raise WeightsError(f"{path} tells {contract['task']}; it is not an encoder.")
        self._network = backbone(contract["network"]["backbone"], **_options(contract["network"])).eval()
        self._network.load_state_dict(tensors)
        self.name, self.dim, self.modality = contract["name"], contract["dim"], contract["modality"]
        self.metric, self.license, self.chip = contract["metric"], contract["license"], contract["chip"]
        self.fingerprint = fingerprint_of(contract["sha256"], self.chip)
        self.matches: str = contract.get("matches", "")
        self._module = self.torch_module()

    def _encode(self, batch: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(batch)).permute(0, 3, 1, 2).float() / 255
            return self._module(pixels).numpy()

    def torch_module(self) -> torch.nn.Module:
        """The network with gradients down to the pixels; see `Encoder.torch_module`."""
        from ipse.encoders.modules import ChipEmbedding

        return ChipEmbedding(self._network, self.chip, unit=self.metric == "cosine").eval()


class ExportedEncoder(OnnxFaceEncoder):
    """An encoder that ``ipse export FILE --onnx`` wrote, of faces, bodies or whatever it was trained on.

    Its embeddings are those of the `TrainedEncoder` that it was exported from, up to rounding that the export has
    checked, and it has the same fingerprint.

    Parameters
    ----------
    path
        The ONNX file; its contract lies beside it.
    threads
        CPU threads per call; None reads ``OMP_NUM_THREADS``, and without it uses all cores.

    Raises
    ------
    WeightsError
        If the files are missing or damaged, or hold something else than an encoder.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        try:
            contract = json.loads(contract_path(path).read_bytes())
            self.modality, source = contract["modality"], contract["source_sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(
                f"{contract_path(path)} is not the contract of an exported encoder ({error!r}).",
                "Export it again: ipse export FILE --onnx.",
            ) from error
        super().__init__(path, threads=threads)
        self.fingerprint = fingerprint_of(source, self.chip)


def _options(network: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in network.items() if key != "backbone"}
