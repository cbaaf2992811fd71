"""The loop of every stage: batches in, weights out; a run that is cut off goes on exactly where it was.

As in `ipse.training.loop` all chance is drawn from generators that are set before each step from the seed and the
number of the step, so the state of a run is its weights, their average, its optimizer and the number of the step.

Started by torchrun in several processes, each takes its share of every batch, and their gradients are averaged.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from accelerate import PartialState
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector
from torch.optim.swa_utils import AveragedModel

from ipse._files import atomic_write
from ipse.diffusion.training.data import Corpus
from ipse.diffusion.training.recipe import StageRecipe
from ipse.errors import TrainingError
from ipse.images import save_png
from ipse.measure.evidence import machine, versions
from ipse.training.loop import Step, Writing, averaging, optimizer_of, rate_at, read_state, save_state
from ipse.training.samplers import Sampler, ShuffledSampler

# Losses are fetched from the device and looked at every so many steps.
_LOOK = 10
# Arrays smaller than this share of the free memory of a GPU are kept there.
_RESIDENT = 0.4


class Stage(ABC):
    """One part of the base while it is trained.

    Attributes
    ----------
    network
        What moves; its average is what comes out.
    sampler
        Which rows of the training corpus make a batch.
    progress
        Share of the steps that are done, from 0 to 1.
    trained_with
        Fingerprints of encoders that give a loss, which cannot judge what comes out.
    shares
        By the beginning of a parameter's name, the share of the recipe's rate at which it learns; others learn at all
        of it.
    """

    name: ClassVar[str]
    network: nn.Module
    sampler: Sampler
    progress: float = 0.0
    trained_with: tuple[str, ...] = ()
    shares: Mapping[str, float] = MappingProxyType({})

    def __init__(self, recipe: StageRecipe, corpus: Corpus, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.corpus, self.held_out = corpus.split(recipe.holdout)
        self.sampler = ShuffledSampler(len(self.corpus), recipe.batch, recipe.seed)

    @abstractmethod
    def loss(self, rows: npt.NDArray[np.int64], draw: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of some rows of the training corpus and what it is made of; chance from `draw` and from torch."""

    @abstractmethod
    def figures(self, network: nn.Module) -> dict[str, float]:
        """How good a network is on people it was not trained on."""

    @abstractmethod
    def sheet(self, network: nn.Module) -> Image.Image | None:
        """Pictures to look at; None where there are none."""

    @abstractmethod
    def finish(self, network: nn.Module, out: Path) -> None:
        """Write what comes out, as the classes of diffusers or transformers read it."""


class Feed:
    """Rows of an array on the device; on a GPU the whole array is kept there where it fits.

    Parameters
    ----------
    array
        (M, ...) of the folder of a corpus.
    device
        Where to.
    """

    def __init__(self, array: npt.NDArray[Any], device: torch.device) -> None:
        self.array, self.device, self.resident = array, device, None
        if device.type == "cuda" and array.nbytes < _RESIDENT * torch.cuda.mem_get_info(device)[0]:
            # torch has few operations for unsigned numbers of 16 bits.
            whole = array.astype(np.int32) if array.dtype == np.uint16 else np.array(array)
            self.resident = torch.from_numpy(whole).to(device)

    def __call__(self, rows: npt.NDArray[np.int64]) -> Tensor:
        """(n, ...) rows, counted within the folder."""
        if self.resident is not None:
            return self.resident[torch.from_numpy(rows).to(self.device)]
        some = self.array[rows]
        return torch.from_numpy(some.astype(np.int32) if some.dtype == np.uint16 else some).to(self.device)


def pictures_of(pixels: Tensor) -> Tensor:
    """(n, H, W, 3) of 0 to 255 as (n, 3, H, W) of -1 to 1."""
    return (pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=memory_format(pixels.device))


def memory_format(device: torch.device) -> torch.memory_format:
    """Order of numbers in memory: channels last takes a quarter longer on a CPU, where group norms are slow in it."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format


def shown(pictures: Tensor) -> npt.NDArray[np.uint8]:
    """(n, 3, H, W) of -1 to 1 as (n, H, W, 3) of 0 to 255."""
    pixels = ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


def train(
    make: Callable[[StageRecipe, Corpus, torch.device], Stage],
    recipe: StageRecipe,
    corpus: Corpus,
    out: str | Path,
    *,
    resume: bool = False,
    minutes: float | None = None,
    end: int | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> dict[str, Any]:
    """Train a stage.

    Parameters
    ----------
    make
        The stage, a class or a function with the same arguments.
    recipe
        How.
    corpus
        Pictures with captions.
    out
        A folder for checkpoint, log, sheets and what comes out.
    resume
        Go on with the run that the folder holds; on a CPU, in as many processes, the result is what it would have been
        without the break.
    minutes
        Stop after so long, with a checkpoint; None for until the end.
    end
        End a resumed run at this step, before the recipe's last: from the checkpoint on, the rate falls to its last
        value there as half a cosine. The checkpoints remember it.
    on_step
        Called every few steps.

    Returns
    -------
    dict
        The record, also in ``record.json``; empty if time was up before the end, and in all processes but the first.

    Raises
    ------
    TrainingError
        For a recipe that cannot be, a folder that holds another run, an end that is not ahead, a batch too small for
        the processes, or a loss that is no number.
    DataError
        For a disk that is full, or a damaged checkpoint.
    """
    return _Run(make, recipe, corpus, Path(out), resume, end, on_step).run(minutes)


class _Run:
    def __init__(
        self,
        make: Callable[[StageRecipe, Corpus, torch.device], Stage],
        recipe: StageRecipe,
        corpus: Corpus,
        out: Path,
        resume: bool,
        end: int | None,
        on_step: Callable[[Step], None],
    ) -> None:
        self.recipe, self.corpus, self.out, self.on_step = recipe, corpus, out, on_step
        self.checkpoint = out / "checkpoint.pt"
        if resume and not self.checkpoint.exists():
            raise TrainingError(f"{out} holds no checkpoint to resume from.", "Start the run without --resume.")
        if not resume and self.checkpoint.exists():
            raise TrainingError(f"{out} holds a run already.", "Go on with it by --resume, or choose another folder.")
        self.processes = PartialState(cpu=not torch.cuda.is_available())
        self.device = self.processes.device
        if recipe.batch < self.processes.num_processes:
            raise TrainingError(
                f"A batch of {recipe.batch} cannot be shared by {self.processes.num_processes} processes.",
                "Start fewer.",
            )
        # The first makes what all read, such as latents.
        with self.processes.main_process_first():
            torch.manual_seed(recipe.seed)
            self.stage = make(recipe, corpus, self.device)
        self.network = self.stage.network.to(self.device, memory_format=memory_format(self.device))
        self.average = AveragedModel(self.network, multi_avg_fn=averaging(recipe.ema))
        self.optimizer = optimizer_of(recipe, self.network, self.stage.shares)
        self.step, self.seconds, self.figures = 0, 0.0, {}
        # The step from which a run hurries to an early end, and that end.
        self.hurry: tuple[int, int] | None = None
        if resume:
            self._restore()
        elif self.processes.is_main_process:
            # Of a run that was killed before its first checkpoint.
            (out / "log.jsonl").unlink(missing_ok=True)
        if end is not None and (self.hurry is None or self.hurry[1] != end):
            if not 0 < self.step < end < recipe.steps:
                raise TrainingError(
                    f"A run of {recipe.steps} steps that is at {self.step} cannot be ended early at {end}.",
                    "Give --resume and a step between; for a new run, --steps.",
                )
            self.hurry = self.step, end

    @property
    def steps(self) -> int:
        """At which the run ends."""
        return self.recipe.steps if self.hurry is None else self.hurry[1]

    def _rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if self.hurry is None or step < self.hurry[0]:
            return rate_at(self.recipe, step)
        since, end = self.hurry
        first, last = rate_at(self.recipe, since), self.recipe.optimizer.rate * self.recipe.optimizer.last
        return last + (first - last) * (1 + math.cos(math.pi * (step - since) / (end - since))) / 2

    def run(self, minutes: float | None) -> dict[str, Any]:
        recipe, end = self.recipe, None if minutes is None else time.monotonic() + 60 * minutes
        losses: list[Tensor] = []
        parts: list[dict[str, Tensor]] = []
        began, first = time.perf_counter(), True
        while self.step < self.steps:
            for group in self.optimizer.param_groups:
                group["lr"] = self._rate(self.step) * group["share"]
            loss, told = self._one_step()
            losses.append(loss)
            parts.append(told)
            self.step += 1
            last, up = self.step == self.steps, self._anywhere(end is not None and time.monotonic() > end)
            save, look = self.step % recipe.save_every == 0, self.step % recipe.look_every == 0
            if not (self.step % _LOOK == 0 or save or look or last or up or first):
                continue
            if not self.processes.is_main_process:
                self._mean(losses)
                if up and not last:
                    return {}
                losses, parts = [], []
                continue
            mean = self._mean(losses)
            means = {name: float(torch.stack([told[name] for told in parts]).mean()) for name in parts[0]}
            passed = time.perf_counter() - began
            self.seconds += passed
            speed, first = len(losses) * recipe.batch / passed, False
            if look or last:
                self._look()
            self._log(mean, means, speed, look or last)
            if save or last or up:
                self._save()
            rate = self._rate(self.step - 1)
            self.on_step(Step(self.step, self.steps, mean, means, rate, speed, self.figures))
            if up and not last:
                return {}
            losses, parts, began = [], [], time.perf_counter()
        return self._finish() if self.processes.is_main_process else {}

    def _one_step(self) -> tuple[Tensor, dict[str, Tensor]]:
        number, processes = self.processes.process_index, self.processes.num_processes
        seed = np.random.SeedSequence([self.recipe.seed, self.step, *([number] if number else [])])
        torch.manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))
        self.network.train()
        self.stage.progress = self.step / self.steps
        rows = self.stage.sampler.batch(self.step)[number::processes]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            loss, parts = self.stage.loss(rows, np.random.default_rng(seed.spawn(1)[0]))
        loss.backward()
        if processes > 1:
            self._average_gradients()
        if self.recipe.optimizer.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.optimizer.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update_parameters(self.network)
        return loss.detach(), {name: part.detach() for name, part in parts.items()}

    def _average_gradients(self) -> None:
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        together = parameters_to_vector(gradients)
        torch.distributed.all_reduce(together)
        together /= self.processes.num_processes
        for gradient, part in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def _anywhere(self, flag: bool) -> bool:
        """Whether it is so in any process, so that all stop at the same step."""
        if self.processes.num_processes == 1:
            return flag
        flags = torch.tensor(float(flag), device=self.device)
        torch.distributed.all_reduce(flags)
        return bool(flags)

    def _mean(self, losses: list[Tensor]) -> float:
        values = torch.stack(losses).float().cpu()
        bad = (~torch.isfinite(values)).nonzero()
        if len(bad):
            step = self.step - len(values) + int(bad[0]) + 1
            raise TrainingError(
                f"The loss is {float(values[bad[0]])} at step {step}.",
                "Lower optimizer.rate, and go on from the last checkpoint by a new run.",
            )
        return float(values.mean())

    @torch.no_grad()
    def _look(self) -> None:
        network = self.average.module.eval()
        # Every step seeds anew, so looking changes nothing after it.
        torch.manual_seed(self.recipe.seed)
        self.figures = self.stage.figures(network)
        sheet = self.stage.sheet(network)
        if sheet is not None:
            save_png(sheet, self.out / "sheets" / f"{self.step:07d}.png", {"step": str(self.step)})

    def _writing(self) -> Writing:
        return Writing(self.out, self.checkpoint)

    def _log(self, loss: float, parts: Mapping[str, float], speed: float, looked: bool) -> None:
        line = {"step": self.step, "loss": loss, "parts": dict(parts), "pictures_per_second": round(speed, 1)}
        line |= {"rate": self._rate(self.step - 1)} | ({"figures": self.figures} if looked else {})
        with self._writing():
            self.out.mkdir(parents=True, exist_ok=True)
            with open(self.out / "log.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")

    def _save(self) -> None:
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "figures": self.figures,
            "hurry": self.hurry,
            "recipe": self.recipe.fingerprint,
            "data": self.corpus.fingerprint,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with self._writing():
            save_state(self.checkpoint, state)

    def _restore(self) -> None:
        ours = {"recipe": self.recipe.fingerprint, "data": self.corpus.fingerprint}
        state = read_state(self.checkpoint, ours)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.figures = state["step"], state["seconds"], state["figures"]
        self.hurry = state.get("hurry")
        if not self.processes.is_main_process:
            return
        # What was logged after the checkpoint happens again.
        path = self.out / "log.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= self.step]
        with self._writing(), atomic_write(path) as file:
            file.write("".join(f"{line}\n" for line in kept).encode())

    def _finish(self) -> dict[str, Any]:
        network = self.average.module.eval()
        with self._writing(), torch.no_grad():
            self.stage.finish(network, self.out)
        record = {
            "recipe": dataclasses.asdict(self.recipe),
            "recipe_fingerprint": self.recipe.fingerprint,
            "data_fingerprint": self.corpus.fingerprint,
            "pictures": len(self.stage.corpus),
            "people": len(np.unique(self.stage.corpus.person)),
            "steps": self.step,
            "hurried_from": self.hurry and self.hurry[0],
            "seconds": round(self.seconds, 1),
            "processes": self.processes.num_processes,
            "parameters": sum(p.numel() for p in network.parameters()),
            "trained_with": list(self.stage.trained_with),
            "figures": self.figures,
            "machine": machine(),
            "versions": versions(),
        }
        with self._writing(), atomic_write(self.out / "record.json") as file:
            file.write(json.dumps(record, indent=2).encode() + b"\n")
        return record
