"""Any ArcFace-style face network in an ONNX file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ipse._files import atomic_write
from ipse.encoders.contract import ChipSpec, Encoder, fingerprint_of
from ipse.errors import WeightsError
from ipse.zoo import Network, Weights

# What almost all published ArcFace networks take.
_ARCFACE_CHIP = ChipSpec(112, 112, "arcface112", "rgb", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5))


@dataclass(frozen=True)
class OnnxContract:
    """What an ONNX file does not say about itself; kept as ``<file>.json`` beside it.

    Attributes
    ----------
    name
        Of the encoder; None for the file's own name.
    license
        Terms of the weights.
    chip
        Its input. Published networks differ in `ChipSpec.color` and `ChipSpec.std` (127.5 or 128).
    """

    name: str | None = None
    license: str = "unknown"
    chip: ChipSpec = _ARCFACE_CHIP

    @staticmethod
    def path(model: str | Path) -> Path:
        """Where the contract of a model file lies."""
        return Path(f"{model}.json")

    @classmethod
    def load(cls, model: str | Path, sha256: str) -> OnnxContract | None:
        """Read the contract beside a model; None where there is none.

        Raises
        ------
        WeightsError
            If the contract is damaged or was written for another content of the file.
        """
        path = cls.path(model)
        try:
            stored: dict[str, Any] = json.loads(path.read_bytes())
            chip = {key: tuple(value) if isinstance(value, list) else value for key, value in stored["chip"].items()}
            contract = cls(stored["name"], stored["license"], ChipSpec(**chip))
            written_for = stored["sha256"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"{path} is not the contract of an encoder ({error!r})."
            raise WeightsError(message, "Correct or delete it.") from error
        if written_for != sha256:
            raise WeightsError(
                f"{model} has changed since its contract was written ({sha256[:16]}, not {written_for!s:.16}).",
                "Restore the model, or delete the contract if the new one is meant.",
            )
        return contract

    def save(self, model: str | Path, sha256: str) -> None:
        """Write the contract beside a model."""
        content = json.dumps({**asdict(self), "sha256": sha256}, indent=2)
        with atomic_write(self.path(model)) as file:
            file.write(content.encode() + b"\n")


class OnnxFaceEncoder(Encoder):
    """A face network read from an ONNX file: (N, 3, 112, 112) float32 in, (N, D) out, compared by cosine.

    The contract beside the file (``<file>.json``) says how its input is prepared; where
    there is none yet, it is written, so that it can be checked and corrected there.

    Parameters
    ----------
    path
        The ``.onnx`` file.
    contract
        How the input is prepared; None takes the contract beside the file, or ArcFace's usual one.
    threads
        CPU threads per call; None reads ``OMP_NUM_THREADS``, and without it uses all cores.

    Raises
    ------
    WeightsError
        If the file is missing or damaged, its input or output has another layout, or the contract beside it does not
        fit it.
    """

    modality = "face"
    metric = "cosine"

    def __init__(self, path: str | Path, contract: OnnxContract | None = None, threads: int | None = None) -> None:
        path = Path(path)
        weights = Weights(name=path.name, file=str(path), license="")
        sha256 = hashlib.sha256(weights.read()).hexdigest()
        self._network = Network(weights.path(), path.name, threads)
        used = contract or OnnxContract.load(path, sha256) or OnnxContract()
        self.chip = used.chip
        self.name = used.name or path.stem
        self.license = used.license
        self.fingerprint = fingerprint_of(sha256, self.chip)
        self._check_layout()
        if contract or not OnnxContract.path(path).exists():
            with suppress(OSError):  # a folder that cannot be written does not keep the encoder from working
                dataclasses.replace(used, name=self.name).save(path, sha256)

    def _check_layout(self) -> None:
        inputs, outputs = self._network.inputs, self._network.outputs
        taken, given = tuple(inputs[0].shape), tuple(outputs[0].shape)
        wanted = (taken[0], 3, self.chip.height, self.chip.width)
        # A size that the file leaves free is given as a name or as None.
        fits = len(taken) == 4 and all(not isinstance(t, int) or t == w for t, w in zip(taken, wanted, strict=True))
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or not fits:
            raise WeightsError(
                f"{self.name} takes {[(i.name, i.type, i.shape) for i in inputs]}, not one float32 image of (N, 3, "
                f"{self.chip.height}, {self.chip.width}).",
                "Export the network with that input, or correct the chip in its contract.",
            )
        if len(outputs) != 1 or len(given) != 2 or not isinstance(given[1], int):
            raise WeightsError(
                f"{self.name} gives {[(o.name, o.shape) for o in outputs]}, not one embedding of (N, D).",
                "Export the network with the embedding as its only output.",
            )
        self.dim = given[1]
        self._fixed = taken[0] if isinstance(taken[0], int) else None
        self.batch_size = self._fixed or self.batch_size

    def _encode(self, batch: np.ndarray) -> np.ndarray:
        count = len(batch)
        if self._fixed and count < self._fixed:  # a network exported for one batch size takes no other
            batch = np.concatenate([batch, np.zeros((self._fixed - count, *batch.shape[1:]), np.uint8)])
        feed = {self._network.inputs[0].name: self.chip.pixels(batch)}
        return self._network.run(feed)[self._network.outputs[0].name][:count]
