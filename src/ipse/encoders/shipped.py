"""Networks that were trained here, on ONNX Runtime and without torch: encoders, and what reads chips in other ways."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ipse.encoders.contract import ChipSpec, Encoder, as_batch, fingerprint_of
from ipse.errors import WeightsError
from ipse.zoo import Network, shipped_files

if TYPE_CHECKING:
    import torch


class ShippedNetwork:
    """A trained network of any task.

    Parameters
    ----------
    which
        The name of a network that comes with ipse, or the path of an ONNX file that `ipse.training.ship` wrote.
    task
        What it must have been trained for: ``identity``, ``attributes`` or ``landmarks``.
    threads
        CPU threads per call; None reads ``OMP_NUM_THREADS``, and without it uses all cores.

    Attributes
    ----------
    name
        Of the network.
    contract
        All that its training says about it, JSON values.
    chip
        Its input.
    cut
        How training cut its chips: ``kind`` and ``margin`` of `ipse.training.data.Cut`.
    fingerprint
        sha256 over weights and preprocessing.
    weights
        The safetensors file.

    Raises
    ------
    WeightsError
        If there is no such network, its files are damaged, or it was trained for something else.
    """

    batch_size = 16

    def __init__(self, which: str | Path, task: str, threads: int | None = None) -> None:
        files = shipped_files(which)
        self.name, self.weights, self.contract = files.name, files.weights, files.contract
        if self.contract["task"] != task:
            raise WeightsError(
                f"The network {self.name} was trained for {self.contract['task']}.", f"Name one for {task}."
            )
        self.chip = ChipSpec(**{k: tuple(v) if isinstance(v, list) else v for k, v in self.contract["chip"].items()})
        self.cut: Mapping[str, Any] = self.contract["cut"]
        self.fingerprint = fingerprint_of(self.contract["sha256"], self.chip)
        self._graph, self._threads = files.graph, threads

    @cached_property
    def _network(self) -> Network:
        # Made when it is first needed: a run that finds everything known already does not wait for it.
        return Network(self._graph, self.name, self._threads, self.weights)

    def run(self, chips: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
        """The outputs for (N, height, width, 3) uint8 RGB chips by name, N first; N is at least 1."""
        batch = as_batch(chips, self.chip)
        parts = []
        for start in range(0, len(batch), self.batch_size):
            parts.append(self._network.run({"pixels": self.chip.pixels(batch[start : start + self.batch_size])}))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class ShippedEncoder(Encoder):
    """An encoder that was trained here: ``face-world``, ``body-world``, or one of your own.

    Parameters
    ----------
    which, threads
        As in `ShippedNetwork`.

    Attributes
    ----------
    threshold
        The distance up to which two embeddings are taken for one person; None where nobody has measured it.

    Raises
    ------
    WeightsError
        As `ShippedNetwork`.
    """

    def __init__(self, which: str | Path, threads: int | None = None) -> None:
        self._network = ShippedNetwork(which, "identity", threads)
        contract = self._network.contract
        self.name, self.dim, self.modality = contract["name"], contract["dim"], contract["modality"]
        self.metric, self.license, self.chip = contract["metric"], contract["license"], self._network.chip
        self.fingerprint = self._network.fingerprint
        self.threshold: float | None = contract["threshold"]

    def _encode(self, batch: np.ndarray) -> np.ndarray:
        return self._network.run(batch)["embedding"]

    def torch_module(self) -> torch.nn.Module:
        """The network with gradients down to the pixels; see `Encoder.torch_module`."""
        from ipse.encoders.trained import TrainedEncoder

        return TrainedEncoder(self._network.weights).torch_module()
