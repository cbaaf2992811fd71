"""LBA-ReID: a little attention, placed by a search that weighs mAP against measured latency (Eisenbach et al., 2023).

Blocks of attention differ in what they cost, and each costs another share in every place of a network. The search asks

1. what every cheap block costs in every slot: the latency, measured beside the plain network;
2. what it gains there: the mAP of a training of its own, where the latency is within the budget;
3. what the rule makes of both (`rule`): in each slot the block that gains most, slots added in the order of gain per
   latency while their sum stays within the budget;
4. whether the blocks still help together: every step of the rule is measured and trained as well.

The best placement within the budget is chosen. What was tried is kept as a log that can be read, and from which the
choice follows again.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import torch
from torch import nn

from ipse._files import atomic_write
from ipse.catalogue import system
from ipse.errors import DataError, TrainingError

Placement = Mapping[str, str]
"""Slot of a backbone → kind of attention, as the option ``attention`` of backbones has it; empty for the plain one."""

CHEAP = ("se", "eca", "spatial")
"""Kinds of attention that cost little; a non-local block compares all places with all."""

# Smaller shares of latency cannot be told from none, and a gain is not divided by less.
_LEAST = 0.01


@dataclass(frozen=True)
class Trial:
    """A placement and what was found of it.

    Attributes
    ----------
    placement
        See `Placement`.
    latency
        How much longer it takes than the plain network, as a share of that: 0.03 is 3 %.
    mean_ap
        0–1, after training; None where the latency was over the budget, so that it was not trained.
    """

    placement: dict[str, str]
    latency: float
    mean_ap: float | None


@dataclass(frozen=True)
class SearchLog:
    """All that a search tried, in its order, the plain network first.

    Attributes
    ----------
    budget
        The largest share of latency that may be added.
    trials
        See `Trial`.
    """

    budget: float
    trials: tuple[Trial, ...]

    @property
    def chosen(self) -> dict[str, str]:
        """The trained placement of the highest mAP within the budget; empty where none beats the plain network."""
        fitting = [t for t in self.trials if t.mean_ap is not None and t.latency <= self.budget]
        return max(fitting, key=lambda trial: trial.mean_ap).placement

    def __str__(self) -> str:
        """A table of the trials, and the rule that follows from them in words."""
        plain = self.trials[0].mean_ap
        lines = ["| placement | latency | mAP | gain |", "| --- | --- | --- | --- |"]
        for trial in self.trials:
            found = ("not trained", "") if trial.mean_ap is None else _points(trial.mean_ap, plain)
            lines.append(f"| {_named(trial.placement)} | {100 * trial.latency:+.1f} % | {found[0]} | {found[1]} |")
        steps = [_named(placement) for placement in rule(self.trials, self.budget)]
        lines += ["", f"Rule, within {100 * self.budget:g} % of latency: {' → '.join(steps) or 'no attention'}."]
        return "\n".join([*lines, f"Chosen: {_named(self.chosen)}."])

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        with atomic_write(Path(path)) as file:
            file.write(json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        DataError
            If the file is no such log.
        """
        try:
            told = json.loads(Path(path).read_bytes())
            return cls(float(told["budget"]), tuple(Trial(**trial) for trial in told["trials"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is no log of a search ({error!r}).", "Remove it and search again.") from error


def rule(trials: Sequence[Trial], budget: float) -> list[dict[str, str]]:
    """The placements that trials of single blocks lead to, each with one slot more than the one before.

    Parameters
    ----------
    trials
        The plain network, and blocks in one slot each; others are passed over.
    budget
        As in `SearchLog`.

    Returns
    -------
    list
        Empty where no block gains anything within the budget.
    """
    plain = next(trial.mean_ap for trial in trials if not trial.placement)
    gains = [
        (trial.mean_ap - plain, max(trial.latency, 0.0), *trial.placement.items())
        for trial in trials
        if len(trial.placement) == 1 and trial.mean_ap is not None and trial.latency <= budget
    ]
    best: dict[str, tuple[float, float, str]] = {}
    for gain, latency, (slot, kind) in sorted(gains, reverse=True):
        if gain > 0:
            best.setdefault(slot, (gain, latency, kind))
    order = sorted(best, key=lambda slot: best[slot][0] / max(best[slot][1], _LEAST), reverse=True)
    steps, placement, spent = [], {}, 0.0
    for slot in order:
        _, latency, kind = best[slot]
        if spent + latency <= budget:
            spent += latency
            placement = placement | {slot: kind}
            steps.append(placement)
    return steps


def latency_increase(network: nn.Module, plain: nn.Module, pixels: torch.Tensor, rounds: int = 50) -> float:
    """How much longer a network takes than the plain one, as a share of that.

    Both run in turn on the same (N, 3, H, W) pixels, and the median of the turns' ratios counts, so that what else a
    machine does touches both. On one thread of a CPU it is the processor's time, which leaves waiting out.
    """
    clock = time.perf_counter if pixels.is_cuda or torch.get_num_threads() > 1 else time.thread_time
    ratios = []
    with torch.inference_mode():
        for turn in range(rounds + 2):
            taken = []
            for module in (network.eval(), plain.eval()):
                began = clock()
                module(pixels)
                if pixels.is_cuda:
                    torch.cuda.synchronize()
                taken.append(clock() - began)
            if turn >= 2:  # the first ones set up
                ratios.append(taken[0] / taken[1])
    return statistics.median(ratios) - 1


@system(
    name="LBA-ReID",
    paper="A Little Bit Attention Is All You Need for Person Re-Identification",
    year=2023,
    arxiv="2302.14574",
    room="training",
    claim="A cheap block of attention, where a search finds that it pays, keeps up with deeper networks and heavier "
    "blocks.",
    evidence=["systems.lba.*"],
    works_means="On world people outside the training, the placement that the search chose raises mAP over the plain "
    "network at 5 % more latency or less and beats a non-local block in mAP and latency; the log of the "
    "search leads to the same placement again.",
    status="works",
)
def search(
    build: Callable[[Placement], nn.Module],
    train: Callable[[Placement], float],
    pixels: torch.Tensor,
    *,
    kinds: Sequence[str] = CHEAP,
    budget: float = 0.05,
    rounds: int = 50,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> SearchLog:
    """Find where attention pays.

    Parameters
    ----------
    build
        Makes a `ipse.encoders.backbones.Backbone` with a placement, random weights will do; its ``slots`` are searched.
    train
        Trains the network with a placement, always in the same way, and gives its mAP (0–1) on people that the final
        judgment is not made on.
    pixels
        (N, 3, H, W) what latency is measured on, on the device that counts.
    kinds
        Blocks to try.
    budget
        The largest share of latency that attention may add.
    rounds
        Of each measurement of latency.
    on_trial
        Called with every trial.

    Raises
    ------
    TrainingError
        If the network has no slots.
    """
    plain = build({})
    if not plain.slots:
        raise TrainingError("The network has no slots for attention.", "Use one of ipse.encoders.backbones.")
    trials = [Trial({}, 0.0, train({}))]
    on_trial(trials[0])

    def attempt(placement: dict[str, str]) -> None:
        latency = latency_increase(build(placement).to(pixels.device), plain.to(pixels.device), pixels, rounds)
        trials.append(Trial(placement, latency, train(placement) if latency <= budget else None))
        on_trial(trials[-1])

    for slot in plain.slots:
        for kind in kinds:
            attempt({slot: kind})
    # Its first step is one of the single blocks.
    for placement in rule(trials, budget)[1:]:
        attempt(placement)
    return SearchLog(budget, tuple(trials))


def _named(placement: Placement) -> str:
    return ", ".join(f"{kind} behind {slot}" for slot, kind in placement.items()) or "plain"


def _points(mean_ap: float, plain: float) -> tuple[str, str]:
    return f"{100 * mean_ap:.2f} %", f"{100 * (mean_ap - plain):+.2f}"
