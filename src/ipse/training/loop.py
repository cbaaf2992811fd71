"""The loop: batches in, weights out, and a run that is cut off goes on exactly where it was.

Everything random is drawn from generators that are set before each batch from the seed, the number of the batch and
the process. So the state of a run is its weights, its optimizer and the number of the step.
"""

from __future__ import annotations

import errno
import io
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ipse._files import atomic_write
from ipse.encoders.contract import ChipSpec
from ipse.encoders.trained import save_network
from ipse.errors import DataError, TrainingError
from ipse.faces.align import TEMPLATES
from ipse.measure.evidence import machine, versions
from ipse.training.adversarial import attacked
from ipse.training.augment import Augmentation
from ipse.training.data import Chips, pack
from ipse.training.networks import load_network
from ipse.training.recipe import TrainRecipe
from ipse.training.samplers import IdentitySampler, Sampler, ShuffledSampler
from ipse.training.tasks import Task, make_task
from ipse.zoo.cache import cache_dir

# Losses are fetched from the device and looked at every so many steps.
_LOOK = 10
_JUDGE_BATCH = 128
# A pack smaller than this share of the free memory of a GPU is kept there.
_RESIDENT = 0.4


@dataclass(frozen=True)
class Step:
    """What is told about the run as it goes.

    Attributes
    ----------
    step, steps
        Done, and in all.
    loss
        Mean over the last steps.
    parts
        Of the loss, likewise.
    rate
        Learning rate.
    speed
        Pictures per second since the start of this process, judging left out.
    figures
        Of the last judgment; empty before the first.
    """

    step: int
    steps: int
    loss: float
    parts: Mapping[str, float]
    rate: float
    speed: float
    figures: Mapping[str, float]


def averaging(ema: float) -> Callable[[Any, Any, Any], None]:
    """A moving average whose memory is short at first.

    With a long one from the start, a hundredth of the untrained network would stay for thousands of steps: little for
    weights, but norms begin with a variance of 1, which is large beside variances of thousandths.
    """

    @torch.no_grad()
    def average(averages: Any, current: Any, count: Any) -> None:
        share = 1 - min(ema, (1 + int(count)) / (10 + int(count)))
        for old, new in zip(averages, current, strict=True):
            if old.is_floating_point():
                old.lerp_(new.to(old), share)
            else:
                old.copy_(new)

    return average


def rate_at(recipe: TrainRecipe, step: int) -> float:
    """The learning rate of a step, counted from 0: a line up to the highest, then half a cosine down."""
    plan = recipe.optimizer
    if step < plan.warmup:
        return plan.rate * (step + 1) / plan.warmup
    share = (step - plan.warmup) / max(1, recipe.steps - plan.warmup)
    return plan.rate * (plan.last + (1 - plan.last) * (1 + math.cos(math.pi * min(1.0, share))) / 2)


def train(
    recipe: TrainRecipe,
    out: str | Path,
    *,
    resume: bool = False,
    cache: str | Path | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
    on_pack: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Train by a recipe.

    Parameters
    ----------
    recipe
        What.
    out
        A folder for checkpoint, log, weights and report.
    resume
        Go on with the run that the folder holds; then the result is what it would have been without the break (on a
        GPU, as far as its libraries repeat themselves).
    cache
        Folder of packed data; None for ipse's cache.
    on_step
        Called every few steps.
    on_pack
        Called with pictures packed and their number.

    Returns
    -------
    dict
        The record: recipe, fingerprints of the data, seeds, versions, machine, times and figures; also in
        ``record.json``.

    Raises
    ------
    TrainingError
        For a recipe that cannot be, a folder that holds another run, or a loss that is no number.
    DataError
        For data that cannot be read, or a disk that is full.
    """
    return _Run(recipe, Path(out), resume, cache, on_step, on_pack).run()


class _Run:
    def __init__(
        self,
        recipe: TrainRecipe,
        out: Path,
        resume: bool,
        cache: str | Path | None,
        on_step: Callable[[Step], None],
        on_pack: Callable[[int, int], None],
    ) -> None:
        self.recipe, self.out, self.on_step = recipe, out, on_step
        self._check_folder(resume)
        self.accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            mixed_precision=recipe.precision,
            gradient_accumulation_steps=recipe.accumulate,
        )
        self.main = self.accelerator.is_main_process
        cache = Path(cache) if cache else cache_dir() / "packs"
        with self.accelerator.main_process_first():
            self.chips = pack(recipe.data.source, recipe.cut, cache, on_pack)
            if recipe.data.validate:
                self.judged = pack(recipe.data.validate, recipe.cut, cache, on_pack)
            else:
                self.chips, self.judged = self.chips.split(recipe.data.holdout)
        self.sampler = self._sampler()
        torch.manual_seed(recipe.seed)
        task = make_task(recipe, self.chips)
        # Depthwise filters run twice as fast so, on a CPU too.
        task.network.to(memory_format=torch.channels_last)
        self.augment = Augmentation(recipe.augment)
        self.average = AveragedModel(task.network, multi_avg_fn=averaging(recipe.ema), use_buffers=True).to(
            self.accelerator.device
        )
        self.task, self.optimizer = self.accelerator.prepare(task, optimizer_of(recipe, task))
        self.plain: Task = self.accelerator.unwrap_model(self.task)
        self.step, self.figures, self.seconds = 0, {}, 0.0
        if resume:
            self._restore()
        elif self.main:
            # Of a run that was killed before its first checkpoint.
            (self.out / "log.jsonl").unlink(missing_ok=True)
        self.feed, self.feed_judged = (_Feed(chips, self.accelerator.device) for chips in (self.chips, self.judged))

    @property
    def checkpoint(self) -> Path:
        return self.out / "checkpoint.pt"

    def _check_folder(self, resume: bool) -> None:
        if resume and not self.checkpoint.exists():
            raise TrainingError(f"{self.out} holds no checkpoint to resume from.", "Start the run without --resume.")
        if not resume and self.checkpoint.exists():
            raise TrainingError(
                f"{self.out} holds a run already.", "Go on with it by --resume, or choose another folder by --out."
            )

    def _sampler(self) -> Sampler:
        plan, recipe = self.recipe.batch, self.recipe
        if not plan.people:
            return ShuffledSampler(len(self.chips), plan.size, recipe.seed)
        groups = self.chips.column(recipe.data.group) if recipe.data.group else None
        labels = self.chips.labels(recipe.data.label)
        return IdentitySampler(labels, plan.people, plan.each, groups, recipe.seed, plan.alone)

    def run(self) -> dict[str, Any]:
        recipe = self.recipe
        losses: list[torch.Tensor] = []
        parts: list[dict[str, torch.Tensor]] = []
        began, seen = time.perf_counter(), 0
        start = self.step
        while self.step < recipe.steps:
            for group in self.optimizer.param_groups:
                group["lr"] = rate_at(recipe, self.step)
            loss, told = self._one_step()
            losses.append(loss)
            parts.append(told)
            self.step += 1
            seen += self.sampler.size * recipe.accumulate * self.accelerator.num_processes
            save, judge = self.step % recipe.save_every == 0, self.step % recipe.evaluate_every == 0
            last = self.step == recipe.steps
            if not (self.step % _LOOK == 0 or save or judge or last or self.step == start + 1):
                continue
            mean = self._look(losses)
            means = {name: float(torch.stack([told[name] for told in parts]).mean()) for name in parts[0]}
            losses, parts = [], []
            self.seconds += time.perf_counter() - began
            speed = seen / max(1e-9, time.perf_counter() - began) if seen else 0.0
            if (judge or last) and len(self.judged) and self.main:
                self.figures = self._judge(self.average.module)
            if self.main:
                self._log(mean, means, speed, judge or last)
                if save or last:
                    self._save()
                self.on_step(
                    Step(self.step, recipe.steps, mean, means, rate_at(recipe, self.step - 1), speed, self.figures)
                )
            began, seen = time.perf_counter(), 0
        self.accelerator.wait_for_everyone()
        return self._finish() if self.main else {}

    def _one_step(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        recipe, accelerator = self.recipe, self.accelerator
        self._in_training()
        total, told = [], []
        for turn in range(recipe.accumulate):
            number = self.step * recipe.accumulate + turn
            number = number * accelerator.num_processes + accelerator.process_index
            torch.manual_seed(int(np.random.SeedSequence([recipe.seed, number]).generate_state(1, np.uint64)[0] >> 1))
            rows = self.sampler.batch(number)
            with torch.no_grad():
                pixels, maps = self.augment(self.feed(rows))
                pixels = ((pixels * 255 - recipe.mean) / recipe.std).contiguous(memory_format=torch.channels_last)
                targets = {k: v.to(accelerator.device) for k, v in self.plain.targets(self.chips, rows).items()}
                if maps is not None:
                    targets = self.plain.move(targets, maps)
            with accelerator.autocast():
                targets = self.plain.beforehand(pixels, targets)
                if recipe.adversarial.size:
                    pixels = attacked(
                        self.plain, pixels, targets, recipe.adversarial, self.step, recipe.mean, recipe.std
                    )
                    self._in_training()
            with accelerator.accumulate(self.task):
                with accelerator.autocast():
                    loss, parts = self.task(pixels, targets)
                accelerator.backward(loss)
                if recipe.optimizer.clip and accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(self.task.parameters(), recipe.optimizer.clip)
                self.optimizer.step()
                self.optimizer.zero_grad()
            total.append(loss.detach())
            told.append(parts)
        self.average.update_parameters(self.plain.network)
        mean = torch.stack(total).mean()
        return mean, {name: torch.stack([parts[name] for parts in told]).mean() for name in told[0]}

    def _in_training(self) -> None:
        """Training mode, but for norms whose statistics stay as they are."""
        self.task.train()
        if self.step >= self.recipe.steps - self.recipe.still:
            for module in self.plain.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()

    def _look(self, losses: list[torch.Tensor]) -> float:
        """The mean of the last losses, which must all be numbers."""
        values = torch.stack(losses).float().cpu()
        bad = (~torch.isfinite(values)).nonzero()
        if len(bad):
            step = self.step - len(values) + int(bad[0]) + 1
            saved = (
                f"The checkpoint of step {self._saved_step()} is good" if self.checkpoint.exists() else "None is saved"
            )
            raise TrainingError(
                f"The loss is {float(values[bad[0]])} at step {step}.",
                f"{saved}. Lower optimizer.rate or set optimizer.clip, or use precision bf16 or no.",
            )
        return float(values.mean())

    def _judge(self, network: nn.Module) -> dict[str, float]:
        figures = self.plain.judge(network, self.judged, self._outputs)
        return {name: float(value) for name, value in figures.items()}

    def _outputs(self, network: nn.Module, chips: Chips) -> dict[str, npt.NDArray[np.float32]]:
        feed = self.feed_judged if chips is self.judged else _Feed(chips, self.accelerator.device)
        network.eval()
        parts: list[dict[str, torch.Tensor]] = []
        with torch.inference_mode():
            for start in range(0, len(chips), _JUDGE_BATCH):
                pixels = feed(np.arange(start, min(start + _JUDGE_BATCH, len(chips))))
                told = network((pixels * 255 - self.recipe.mean) / self.recipe.std)
                told = told if isinstance(told, dict) else {"embedding": told}
                parts.append({name: value.float().cpu() for name, value in told.items()})
        return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}

    def _saved_step(self) -> int:
        return int(torch.load(self.checkpoint, map_location="cpu", weights_only=True)["step"])

    def _state(self) -> dict[str, Any]:
        scaler = self.accelerator.scaler
        return {
            "step": self.step,
            "recipe": self.recipe.fingerprint,
            "data": self.chips.fingerprint,
            "processes": self.accelerator.num_processes,
            "task": self.plain.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
            "figures": self.figures,
            "seconds": self.seconds,
        }

    def _save(self) -> None:
        with self._writing():
            save_state(self.checkpoint, self._state())

    def _restore(self) -> None:
        ours = {"recipe": self.recipe.fingerprint, "data": self.chips.fingerprint}
        state = read_state(self.checkpoint, ours | {"processes": self.accelerator.num_processes})
        self.plain.load_state_dict(state["task"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.figures, self.seconds = state["step"], state["figures"], state["seconds"]
        if self.main:
            # What was logged after the checkpoint happens again.
            path = self.out / "log.jsonl"
            lines = path.read_text().splitlines() if path.exists() else []
            kept = [line for line in lines if json.loads(line)["step"] <= self.step]
            with self._writing(), atomic_write(path) as file:
                file.write("".join(f"{line}\n" for line in kept).encode())

    def _log(self, loss: float, parts: Mapping[str, float], speed: float, judged: bool) -> None:
        line = {"step": self.step, "loss": loss, "parts": dict(parts), "rate": rate_at(self.recipe, self.step - 1)}
        line |= {"pictures_per_second": round(speed, 1)} | ({"figures": self.figures} if judged else {})
        with self._writing():
            self.out.mkdir(parents=True, exist_ok=True)
            with open(self.out / "log.jsonl", "a") as file:
                file.write(json.dumps(line) + "\n")

    def _writing(self) -> Any:
        return Writing(self.out, self.checkpoint)

    def _finish(self) -> dict[str, Any]:
        recipe = self.recipe
        network = self.average.module
        more = self.plain.finish(network, self.judged, self._outputs) if len(self.judged) else {}
        weights = self.out / f"{recipe.name}.safetensors"
        kind = recipe.cut.kind
        chip = ChipSpec(
            *recipe.cut.size, kind if kind in TEMPLATES else None, "rgb", (recipe.mean,) * 3, (recipe.std,) * 3
        )
        contract = {
            "name": recipe.name,
            "task": recipe.task,
            "modality": recipe.modality,
            "license": recipe.license,
            "chip": chip,
            "network": dict(recipe.network),
            **self.plain.contract(),
        }
        with self._writing():
            save_network(network, contract, weights)
        # What is told is told of the file, rounded weights and all.
        stored, _ = load_network(weights)
        figures = (self._judge(stored.to(self.accelerator.device)) if len(self.judged) else {}) | more
        told = recipe.to_dict()
        # Where the data lay on this machine is nobody's business; which they were, their fingerprint says.
        told["data"] |= {key: Path(told["data"][key]).name for key in ("source", "validate") if told["data"][key]}
        told |= {key: Path(told[key]).name for key in ("earlier", "start")}
        record = {
            "name": recipe.name,
            "recipe": told,
            "recipe_fingerprint": recipe.fingerprint,
            "data_fingerprint": self.chips.fingerprint,
            "pictures": len(self.chips),
            "people": len(np.unique(self.chips.column("person"))),
            "judged_pictures": len(self.judged),
            "judged_people": len(np.unique(self.judged.column("person"))),
            "seed": recipe.seed,
            "steps": self.step,
            "seconds": round(self.seconds, 1),
            "device": str(self.accelerator.device),
            "gpu": torch.cuda.get_device_name() if self.accelerator.device.type == "cuda" else None,
            "processes": self.accelerator.num_processes,
            "parameters": sum(p.numel() for p in network.parameters()),
            "bytes": weights.stat().st_size,
            "weights": weights.name,
            "figures": figures,
            "machine": machine(),
            "versions": versions(),
        }
        from ipse.training.report import write_report

        with self._writing():
            write_report(self.out, record)
        return record


class Writing:
    """Turns what the operating system says about the folder into what the user can do."""

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self.folder, self.checkpoint = folder, checkpoint

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, OSError):
            return
        kept = " The last checkpoint is whole: --resume goes on from it." if self.checkpoint.exists() else ""
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DataError(f"{self.folder} cannot take more: {reason}.", f"Make room.{kept}") from error
        raise DataError(f"{self.folder} cannot be written: {reason}.", f"Choose another folder.{kept}") from error


class _Feed:
    """Chips as float pictures on the device; on a GPU the whole pack is kept there where it fits."""

    def __init__(self, chips: Chips, device: torch.device) -> None:
        self.chips, self.device, self.resident = chips, device, None
        if device.type == "cuda" and len(chips):
            height, width = chips.cut.size
            free, _ = torch.cuda.mem_get_info(device)
            if len(chips) * height * width * 3 < _RESIDENT * free:
                self.resident = torch.from_numpy(chips.images(np.arange(len(chips)))).to(device)

    def __call__(self, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        """(n, 3, height, width) floats in 0–1."""
        if self.resident is not None:
            pictures = self.resident[torch.from_numpy(rows).to(self.device)]
        else:
            pictures = torch.from_numpy(self.chips.images(rows)).to(self.device)
        return pictures.permute(0, 3, 1, 2).float() / 255


def optimizer_of(
    recipe: TrainRecipe, task: nn.Module, shares: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """The optimizer of a recipe over what is trained; matrices and filters decay, norms and biases do not.

    Parameters with a name that begins as one of `shares` learn at that share of the rate. Groups tell it as ``share``.
    """
    plan = recipe.optimizer
    found: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in task.named_parameters():
        if parameter.requires_grad:
            share = next((share for start, share in (shares or {}).items() if name.startswith(start)), 1.0)
            found.setdefault((share, parameter.ndim > 1), []).append(parameter)
    groups = [
        {"params": parameters, "weight_decay": plan.decay if wide else 0.0, "share": share}
        for (share, wide), parameters in sorted(found.items(), key=lambda item: item[0], reverse=True)
    ]
    if plan.kind == "sgd":
        return torch.optim.SGD(groups, lr=plan.rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=plan.rate)


def save_state(checkpoint: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all; raises `OSError`."""
    # By way of memory: torch hides what the operating system says about the file.
    content = io.BytesIO()
    torch.save(dict(state), content)
    with atomic_write(checkpoint) as file:
        file.write(content.getbuffer())


def read_state(checkpoint: Path, ours: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint holds.

    Parameters
    ----------
    checkpoint
        The file.
    ours
        What must be the same in it, by name.

    Raises
    ------
    DataError
        If the file is damaged.
    TrainingError
        If it belongs to another run.
    """
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has no one error for a damaged file
        raise DataError(f"{checkpoint} is damaged: {error}.", "Start the run anew.") from error
    for name, wanted in ours.items():
        if state.get(name) != wanted:
            raise TrainingError(
                f"The checkpoint of {checkpoint.parent} has another {name}: {state.get(name)!s:.16}, "
                f"not {wanted!s:.16}.",
                "Resume with what the run was started with, or start a new one in another folder.",
            )
    return state


def with_steps(recipe: TrainRecipe, steps: int | None) -> TrainRecipe:
    """The recipe with another number of steps; its schedule and its warm-up become shorter or longer with them."""
    if steps is None or steps == recipe.steps:
        return recipe
    warmup = max(1, round(recipe.optimizer.warmup * steps / recipe.steps)) if recipe.optimizer.warmup else 0
    # The stages of the base are trained by recipes of their own, which have no such end.
    end = {"still": recipe.still * steps // recipe.steps} if isinstance(recipe, TrainRecipe) else {}
    return replace(recipe, steps=steps, **end, optimizer=replace(recipe.optimizer, warmup=warmup))
