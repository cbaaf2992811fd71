"""Trainings whose labels change on the way: a learner says what is learned at each step, `learn` does the rest.

`ipse.training.loop` trains on labels that are there from the start. Where pairs, groups or weights are made by the
network itself, a `Learner` makes them, and this loop moves the weights by the same schedule, optimizer and average.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from ipse.encoders.backbones import Backbone
from ipse.encoders.contract import ChipSpec
from ipse.encoders.trained import save_network
from ipse.errors import TrainingError
from ipse.training.augment import Augmentation
from ipse.training.loop import Writing, averaging, optimizer_of, rate_at, read_state, save_state
from ipse.training.recipe import TrainRecipe
from ipse.training.tasks.common import backbone_of

_BATCH = 128
_LOOK = 10

Vectors = npt.NDArray[np.float32]
Pictures = npt.NDArray[np.uint8]
Parts = dict[str, torch.Tensor]


class Learner(nn.Module, ABC):
    """A network and what it learns.

    What a run that is taken up again must know, such as labels, belongs into buffers and parameters.

    Parameters
    ----------
    recipe
        Its ``network``, ``start``, ``cut``, ``augment``, ``mean`` and ``std`` are used here.

    Attributes
    ----------
    network
        What is kept; maps (N, 3, H, W) normalized floats to embeddings.
    """

    def __init__(self, recipe: TrainRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        torch.manual_seed(recipe.seed)
        self.network: Backbone = backbone_of(recipe, recipe.network)
        self.augment = Augmentation(recipe.augment)
        self.renewed: list[tuple[nn.Parameter, slice]] = []

    def renew(self, parameter: nn.Parameter, first: int, rows: torch.Tensor) -> None:
        """Let some rows of a parameter begin again, in `before`; `learn` forgets how those that were there had moved.

        Parameters
        ----------
        parameter
            (M, ...).
        first
            Place of the first of the rows.
        rows
            (N, ...) what they begin with.
        """
        place = slice(first, first + len(rows))
        with torch.no_grad():
            parameter[place] = rows
        self.renewed.append((parameter, place))

    def before(self, step: int, average: Backbone) -> None:
        """What is to be done before a step, such as new labels by the averaged network."""

    @abstractmethod
    def loss(self, step: int) -> tuple[torch.Tensor, Parts]:
        """The loss of a step, and its parts by name; parameters that it does not reach are not moved."""

    def pixels(self, pictures: Pictures) -> torch.Tensor:
        """(N, 3, H, W) normalized floats of (N, H, W, 3) pictures, changed as the recipe says."""
        return self.moved(pictures)[0]

    def moved(self, pictures: Pictures) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The same, and where their pixels went: see `Augmentation`."""
        with torch.no_grad():
            changed, maps = self.augment(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255)
            pixels = (changed * 255 - self.recipe.mean) / self.recipe.std
        return pixels.contiguous(memory_format=torch.channels_last), maps

    def embed(self, network: nn.Module, pictures: Pictures) -> Vectors:
        """See `embed`."""
        return embed(network, pictures, self.recipe.mean, self.recipe.std)


def embed(
    network: nn.Module,
    pictures: Pictures,
    mean: float = 127.5,
    std: float = 127.5,
    beside: npt.NDArray[np.float32] | None = None,
) -> Vectors:
    """(N, D) unit vectors of (N, H, W, 3) pictures as they are, and of what is told beside them.

    The network's mode is left as it was.
    """
    training, found = network.training, []
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(pictures), _BATCH):
            pixels = torch.from_numpy(pictures[start : start + _BATCH]).permute(0, 3, 1, 2).float()
            told = () if beside is None else (torch.from_numpy(beside[start : start + _BATCH]),)
            found.append(functional.normalize(network((pixels - mean) / std, *told)))
    network.train(training)
    return torch.cat(found).numpy()


def centered(vectors: Vectors, camera: npt.NDArray[np.int64]) -> Vectors:
    """(N, D) features of length 1, less the mean of their camera's."""
    out = vectors.copy()
    for number in np.unique(camera):
        out[camera == number] -= vectors[camera == number].mean(0)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


@dataclass(frozen=True)
class Told:
    """What is told about a training as it goes.

    Attributes
    ----------
    step, steps
        Done, and in all.
    parts
        Of the loss, means over the last steps.
    """

    step: int
    steps: int
    parts: Mapping[str, float]


def learn(
    learner: Learner,
    out: str | Path,
    on_step: Callable[[Told], None] = lambda told: None,
    known: str = "",
) -> Path:
    """Train a learner by its recipe's steps, schedule, optimizer and average; a run that was stopped goes on.

    Parameters
    ----------
    learner
        With its data.
    out
        Folder of the checkpoint and of the weights; another one for every run.
    on_step
        Called every few steps.
    known
        Whatever else decides the result, such as a fingerprint of the data; a checkpoint that was written with
        another is refused.

    Returns
    -------
    pathlib.Path
        The weights, with their contract beside them, as `ipse.encoders.trained.TrainedEncoder` reads them. If they are
        there already, nothing is done.

    Raises
    ------
    TrainingError
        If the folder holds another run, or a loss is no number.
    DataError
        If the folder cannot be written or the checkpoint is damaged.
    """
    recipe, folder = learner.recipe, Path(out)
    weights, checkpoint = folder / f"{recipe.name}.safetensors", folder / "checkpoint.pt"
    if weights.exists():
        return weights
    ours = {"recipe": recipe.fingerprint, "known": known}
    learner.network.to(memory_format=torch.channels_last)
    average = AveragedModel(learner.network, multi_avg_fn=averaging(recipe.ema), use_buffers=True)
    optimizer, step = optimizer_of(recipe, learner), 0
    if checkpoint.exists():
        state = read_state(checkpoint, ours)
        learner.load_state_dict(state["learner"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    recent: list[Parts] = []
    while step < recipe.steps:
        learner.before(step, average.module)
        forget(optimizer, learner.renewed)
        learner.train()
        torch.manual_seed(int(np.random.SeedSequence([recipe.seed, step]).generate_state(1, np.uint64)[0] >> 1))
        for group in optimizer.param_groups:
            group["lr"] = rate_at(recipe, step)
        loss, parts = learner.loss(step)
        if not torch.isfinite(loss):
            raise TrainingError(f"The loss is {float(loss)} at step {step + 1}.", "Lower optimizer.rate or set clip.")
        optimizer.zero_grad()
        if loss.requires_grad:
            loss.backward()
            if recipe.optimizer.clip:
                nn.utils.clip_grad_norm_(learner.parameters(), recipe.optimizer.clip)
            optimizer.step()
        average.update_parameters(learner.network)
        step += 1
        recent.append(parts)
        if step % _LOOK == 0 or step == recipe.steps:
            on_step(Told(step, recipe.steps, means(recent)))
            recent = []
        if step % recipe.save_every == 0:
            state = {"learner": learner.state_dict(), "average": average.state_dict(), "step": step, **ours}
            with Writing(folder, checkpoint):
                folder.mkdir(parents=True, exist_ok=True)
                save_state(checkpoint, state | {"optimizer": optimizer.state_dict()})
    chip = ChipSpec(*recipe.cut.size, None, "rgb", (recipe.mean,) * 3, (recipe.std,) * 3)
    contract = {
        "name": recipe.name,
        "task": "identity",
        "modality": recipe.modality,
        "license": recipe.license,
        "chip": chip,
        "network": dict(recipe.network),
        "dim": learner.network.dim,
        "metric": "cosine",
        "outputs": {"embedding": {"kind": "embedding"}},
    }
    with Writing(folder, checkpoint):
        folder.mkdir(parents=True, exist_ok=True)
        save_network(average.module, contract, weights)
        checkpoint.unlink(missing_ok=True)
    return weights


def forget(optimizer: torch.optim.Optimizer, renewed: list[tuple[nn.Parameter, slice]]) -> None:
    """Set an optimizer's memory of some rows of parameters to zero, and empty the list of them."""
    for parameter, rows in renewed:
        # An optimizer knows nothing of a parameter before its first step; the count of steps has no rows.
        for memory in optimizer.state.get(parameter, {}).values():
            if memory.shape == parameter.shape:
                memory[rows] = 0
    renewed.clear()


def means(parts: list[Parts]) -> dict[str, float]:
    """By name, the mean of what steps told; a part that some steps lack counts where it is."""
    names = {name: None for told in parts for name in told}
    return {name: float(torch.stack([told[name] for told in parts if name in told]).mean()) for name in names}


def progress(what: str) -> Callable[[Told], None]:
    """A function for `learn` that shows a bar with the parts of the loss; it ends with the last step."""
    from rich.progress import Progress

    bar = Progress()
    task = bar.add_task(what)

    def tell(told: Told) -> None:
        if told.step <= _LOOK or not bar.live.is_started:
            bar.start()
        parts = ", ".join(f"{name} {value:.3g}" for name, value in told.parts.items())
        bar.update(task, completed=told.step, total=told.steps, description=f"{what} {parts}")
        if told.step == told.steps:
            bar.stop()

    return tell
