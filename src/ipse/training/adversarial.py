"""Adversarial training: pictures are changed, within limits, so that the network errs most, and it learns from these.

Projected gradient descent in the Euclidean ball (Madry et al., 2018, equation 2.1 and section 5). What such a network
tells cannot be brought about by a pattern that only it sees, so that going along its gradients changes what people see,
too (Santurkar et al., 2019): a loss on identity needs that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from ipse.errors import TrainingError

if TYPE_CHECKING:
    from ipse.training.tasks.common import Targets, Task


@dataclass(frozen=True)
class AdversarialPlan:
    """How pictures are changed before the network learns from them.

    Attributes
    ----------
    size
        Longest change, the Euclidean norm over a picture of values from 0 to 1; each picture has one from 0 to that by
        chance. 0 for no change at all.
    steps
        Of the search for the worst one, each half as long as is allowed.
    smooth
        In every second batch changes are blurred by a box of so many pixels, an odd number, for the errors of a
        generator are no fine noise; 1 for none.
    warmup
        Steps of training over which changes get longer.
    """

    size: float = 0.0
    steps: int = 3
    smooth: int = 1
    warmup: int = 300

    def __post_init__(self) -> None:
        if self.size < 0:
            raise TrainingError(f"The recipe's adversarial.size is {self.size}.", "Give a length, or 0 for none.")
        if self.steps < 1 or self.warmup < 0:
            raise TrainingError("The recipe's adversarial.steps must be from 1, its warmup from 0.")
        if self.smooth < 1 or self.smooth % 2 == 0:
            raise TrainingError(f"The recipe's adversarial.smooth is {self.smooth}.", "Give an odd number from 1.")

    def longest(self, step: int) -> float:
        """The longest change at a step of training, counted from 0."""
        return self.size * min(1.0, (step + 1) / max(1, self.warmup))


def attacked(
    task: Task, pixels: Tensor, targets: Targets, plan: AdversarialPlan, step: int, mean: float, std: float
) -> Tensor:
    """Pictures changed against a network, which stands as it is when it is used: statistics of its norms are kept.

    Parameters
    ----------
    task
        With the network and its loss. It is left as it is used, not in training mode.
    pixels
        (N, 3, H, W), (pixel - `mean`) / `std`.
    targets
        Of the pictures.
    plan, step
        How far, at which step of training.
    mean, std
        See above.

    Returns
    -------
    Tensor
        As `pixels`, within the range of pixels.
    """
    unit = 255 / std
    low, high = -mean / std, (255 - mean) / std
    longest = unit * plan.longest(step) * torch.rand(len(pixels), 1, 1, 1, device=pixels.device)
    smooth = plan.smooth if step % 2 else 1

    def blurred(change: Tensor) -> Tensor:
        return functional.avg_pool2d(change, smooth, 1, smooth // 2) if smooth > 1 else change

    task.eval()
    change = _as_long(blurred(torch.randn_like(pixels)), longest / 2)
    for _ in range(plan.steps):
        change.requires_grad_(True)
        loss, _ = task((pixels + change).clamp(low, high), targets)
        (slope,) = torch.autograd.grad(loss, change)
        change = change.detach() + _as_long(blurred(slope), longest / 2)
        change = change * (longest / _length(change)).clamp(max=1)
    return (pixels + change).clamp(low, high)


def _length(change: Tensor) -> Tensor:
    return change.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]


def _as_long(change: Tensor, wanted: Tensor) -> Tensor:
    return change * (wanted / _length(change))
