"""PAVENet: whose hand wrote this, whatever was written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from ipse.catalogue import system
from ipse.errors import DataError, TrainingError
from ipse.training.losses import SumOfLosses

FEATURES = 6
"""Numbers of a point of a pen's path; see `path_features`."""

Path = npt.NDArray[np.float32]
"""(L, 3) points of a pen: x and y in units of the writing's height, and 1 where the pen was lifted before it."""

# Where a pattern is and elsewhere: how far normalized features come through.
_INSIDE, _OUTSIDE = 0.9, 0.05


def trace(ink: npt.NDArray[np.bool_], every: int = 2) -> Path:
    """A path that a pen may have taken to draw a picture.

    The ink is thinned to lines of one pixel, which are walked from their ends, straight on where they cross; where a
    line ends the pen is lifted. The true order and speed of writing are not in a picture and are not found.

    Parameters
    ----------
    ink
        (H, W) where there is ink.
    every
        Keep every so many pixels of a line.

    Raises
    ------
    DataError
        If there is no ink.
    """
    lines = _thin(np.pad(np.asarray(ink, bool), 1))
    if not lines.any():
        raise DataError("There is no ink on the picture.", "Leave it out.")
    left = {(int(y), int(x)) for y, x in np.argwhere(lines)}
    walked: list[tuple[float, float, float]] = []
    while left:
        # The upmost end of a line, or of a ring its upmost point.
        place = min(left, key=lambda point: (len(_around(point, left)) > 1, point))
        line, lifted = [place], 1.0
        while True:
            left.discard(place)
            following = _around(place, left)
            if (len(line) - 1) % every == 0 or not following:
                walked.append((place[1] - 1, place[0] - 1, lifted))
                lifted = 0.0
            if not following:
                break
            # Straight on is where the last few pixels lead; one alone can only say eight directions.
            back = line[-min(len(line), 5)]
            place = max(following, key=lambda point: (_along(back, place, point), point))
            line.append(place)
    path = np.array(walked, np.float32)
    path[:, :2] /= len(ink)
    return path


def _around(point: tuple[int, int], points: set[tuple[int, int]]) -> list[tuple[int, int]]:
    y, x = point
    return [(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1) if (a or b) and (y + a, x + b) in points]


def _along(back: tuple[int, int], here: tuple[int, int], point: tuple[int, int]) -> float:
    """How straight a step to a point goes on from where a line came from; a cosine, less its constant factor."""
    step = point[0] - here[0], point[1] - here[1]
    return float(((here[0] - back[0]) * step[0] + (here[1] - back[1]) * step[1]) / np.hypot(*step))


def _thin(ink: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Thin lines to one pixel (Zhang and Suen, 1984); the border is empty."""
    ink = ink.copy()
    while True:
        before = ink.sum()
        for turn in (0, 1):
            # The eight around each pixel, clockwise from above.
            p = [np.roll(ink, shift, (0, 1)) for shift in _SHIFTS]
            count = sum(each.astype(np.int8) for each in p)
            changes = sum((~a & b).astype(np.int8) for a, b in zip(p, [*p[1:], p[0]], strict=True))
            first, second = ((0, 2, 4), (2, 4, 6)) if turn == 0 else ((0, 2, 6), (0, 4, 6))
            free = ~(p[first[0]] & p[first[1]] & p[first[2]]) & ~(p[second[0]] & p[second[1]] & p[second[2]])
            ink &= ~((count >= 2) & (count <= 6) & (changes == 1) & free)
        if ink.sum() == before:
            return ink


_SHIFTS = [(1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1)]


def path_features(path: Path) -> npt.NDArray[np.float32]:
    """(L, `FEATURES`) of a path: the step in x and y, its direction as cosine and sine, the turn since the step before
    as a share of half a circle, and whether the pen was lifted; nothing says where on the page it was.
    """
    steps = np.diff(path[:, :2], axis=0, prepend=path[:1, :2])
    angle = np.arctan2(steps[:, 1], steps[:, 0])
    turn = np.diff(angle, prepend=angle[:1])
    turn = (turn + np.pi) % (2 * np.pi) - np.pi
    rows = [20 * steps[:, 0], 20 * steps[:, 1], np.cos(angle), np.sin(angle), turn / np.pi, path[:, 2]]
    return np.stack(rows, axis=1).astype(np.float32)


class PatternMining(nn.Module):
    """Features of the most telling stretches of a sequence, normalized by those stretches.

    Where the sum of all channels peaks, a pattern is taken to be; the strongest peaks and what is next to them decide
    the mean and the deviation that all features are normalized by, and features elsewhere are held back.

    Parameters
    ----------
    width
        Channels.
    patterns
        Peaks.
    """

    def __init__(self, width: int, patterns: int = 8) -> None:
        super().__init__()
        self.patterns = patterns
        self.gain, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Features (N, L, C) of the patterns, from (N, L, C) of which (N, L) are present."""
        near = self.places(x, present)
        inside = near & present
        weight = inside[:, :, None].to(x)
        count = weight.sum((1, 2), keepdim=True) * x.shape[2]
        mean = (x * weight).sum((1, 2), keepdim=True) / count
        spread = (((x - mean) * weight).square().sum((1, 2), keepdim=True) / count + 1e-6).sqrt()
        through = torch.where(inside, _INSIDE, _OUTSIDE)[:, :, None]
        return (self.gain * (x - mean) / spread + self.shift) * through

    def places(self, x: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """(N, L) where patterns are: around the peaks, a quarter of the sequence together."""
        energy = x.detach().sum(2).masked_fill(~present, -torch.inf)
        highest = functional.max_pool1d(energy[:, None], 3, 1, 1)[:, 0]
        peaks = energy.masked_fill(energy < highest, -torch.inf)
        strongest = peaks.topk(min(self.patterns, energy.shape[1]), dim=1)
        # By the sequence's own length, so that padding changes nothing.
        reach = present.sum(1) / (8 * self.patterns)
        place = torch.arange(energy.shape[1], device=x.device)
        near = (place[None, :, None] - strongest.indices[:, None]).abs() <= reach[:, None, None]
        return (near & (strongest.values > -torch.inf)[:, None]).any(2)


class SelectivePool(nn.Module):
    """Several learned keys, each of which gathers from a sequence what is like it."""

    def __init__(self, width: int, heads: int, size: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(nn.init.orthogonal_(torch.empty(heads, size)))
        self.values = nn.Linear(width, heads * size)

    def forward(self, x: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """(N, heads · size) of (N, L, C), of which (N, L) are present."""
        values = self.values(x).unflatten(2, self.keys.shape)
        scores = (values * self.keys).sum(3) / self.keys.shape[1] ** 0.5
        weights = scores.masked_fill(~present[:, :, None], -torch.inf).softmax(1)
        return (values * weights[..., None]).sum(1).flatten(1)


class PatternNetwork(nn.Module):
    """From sequences of pen features to a vector of the hand.

    Parameters
    ----------
    width, heads, size
        Channels, and keys of each of the two pools with their length.
    patterns
        Of `PatternMining`; 0 leaves it and the selective pools out: means over the sequence, to compare with.
    """

    def __init__(self, width: int = 64, heads: int = 6, size: int = 16, patterns: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(FEATURES, width, 7, padding=3), nn.ReLU())
        self.blocks = nn.ModuleList(_Dilated(width, dilation) for dilation in (2, 3, 4))
        self.memory = nn.LSTM(width, width, batch_first=True)
        self.mining = PatternMining(width, patterns) if patterns else None
        self.pools = nn.ModuleList(SelectivePool(width, heads, size) for _ in range(2)) if patterns else None
        self.dim = 2 * heads * size if patterns else 2 * width

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(N, `dim`) of (N, L, `FEATURES`) padded sequences and their (N,) lengths."""
        present = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        kept = present[:, None].to(x)
        total = found = self.stem(x.transpose(1, 2)) * kept
        for block in self.blocks:
            found = block(total, kept)
            total = total + found
        found = found.transpose(1, 2)
        # What came before decides which channels matter now.
        gated = found * self.memory(found)[0].softmax(2) + found
        if self.mining is None:
            share = present[:, :, None] / lengths[:, None, None]
            return torch.cat([(found * share).sum(1), (gated * share).sum(1)], 1)
        mined = found + self.mining(found, present)
        return torch.cat([self.pools[0](mined, present), self.pools[1](gated, present)], 1)


class _Dilated(nn.Module):
    """A convolution that sees far, with channels weighed by their means."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.enter = nn.Conv1d(width, width, 1)
        self.look = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.norm = nn.LayerNorm(width)
        self.weigh = nn.Sequential(nn.Linear(width, width // 8), nn.ReLU(), nn.Linear(width // 8, width), nn.Sigmoid())

    def forward(self, x: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        seen = functional.relu(self.look(functional.relu(self.enter(x)) * kept))
        x = self.norm(seen.transpose(1, 2)).transpose(1, 2) * kept
        means = x.sum(2) / kept.sum(2)
        return x * self.weigh(means)[:, :, None]


@system(
    name="PAVENet (RDS)",
    paper="Privacy-Preserving Biometric Verification with Handwritten Random Digit String",
    year=2025,
    arxiv="2503.12786",
    room="training",
    claim="A network that finds the stretches of a pen's path that show the hand verifies writers by strings of any "
    "content, far better than methods that compare paths.",
    evidence=["reid.pavenet.*"],
    works_means="On writers outside the training and strings of other characters each time: equal error rate below "
    "that of dynamic time warping and of the same network with means in place of patterns and pools; what was written "
    "can be told less from the vector.",
    status="experimental",
)
class WriterVerifier:
    """Tells by the cosine of two vectors whether two strings are of one hand (Zhang et al., 2025, and their code).

    The paper has pens on tablets write digits. Any characters will do, and `trace` makes paths of pictures, without the
    order and the speed of writing, which pens tell and pictures do not.

    Parameters
    ----------
    patterns
        Of `PatternMining`; 0 for means, to compare with.
    seed
        Of the start and of the strings.
    """

    def __init__(self, patterns: int = 8, seed: int = 0) -> None:
        self.seed = seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = PatternNetwork(patterns=patterns).eval()

    def fit(
        self,
        characters: Sequence[Path],
        writers: npt.ArrayLike,
        *,
        length: int = 6,
        steps: int = 300,
        batch: tuple[int, int] = (12, 3),
        on_step: Callable[[int, int], None] = lambda done, steps: None,
    ) -> Self:
        """Learn from strings that are put together anew each step.

        Parameters
        ----------
        characters
            A path each.
        writers
            Who wrote it; everybody has `length` characters at least.
        length
            Characters of a string.
        steps
            How often weights move.
        batch
            Writers in a batch, and strings of each.
        on_step
            Called with steps done and in all.

        Raises
        ------
        TrainingError
            If writers are too few or have written too little.
        """
        names, who = np.unique(np.asarray(writers), return_inverse=True)
        rows = [np.flatnonzero(who == number) for number in range(len(names))]
        if len(who) != len(characters) or len(names) < batch[0] or min(map(len, rows)) < length:
            raise TrainingError(
                f"{len(characters)} characters of {len(names)} writers, the fewest {min(map(len, rows), default=0)}.",
                f"Strings want {batch[0]} writers with {length} characters each.",
            )
        made = [path_features(path) for path in characters]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            losses = SumOfLosses({"softmax": {}, "supcon": {}}, self.network.dim, len(names))
        optimizer = torch.optim.AdamW([*self.network.parameters(), *losses.parameters()], lr=2e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        self.network.train()
        for step in range(steps):
            draw = np.random.default_rng([self.seed, step])
            chosen = np.repeat(draw.choice(len(names), batch[0], replace=False), batch[1])
            strings = [
                np.concatenate([made[row] for row in draw.choice(rows[writer], length, replace=False)])
                for writer in chosen
            ]
            loss, _ = losses(self.network(*_padded(strings)), torch.from_numpy(chosen))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            on_step(step + 1, steps)
        self.network.eval()
        return self

    @torch.inference_mode()
    def encode(self, strings: Sequence[Sequence[Path]]) -> npt.NDArray[np.float32]:
        """(N, D) vectors of length 1 of N strings, each a list of the paths of its characters.

        Raises
        ------
        DataError
            If a string is empty.
        """
        if not strings or not all(len(string) for string in strings):
            raise DataError("A string without a character shows no hand.", "Leave it out.")
        found = []
        for start in range(0, len(strings), 32):
            some = [np.concatenate([path_features(path) for path in string]) for string in strings[start : start + 32]]
            found.append(functional.normalize(self.network(*_padded(some))).numpy())
        return np.concatenate(found)


def _padded(strings: Sequence[npt.NDArray[np.float32]]) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(string) for string in strings])
    return nn.utils.rnn.pad_sequence([torch.from_numpy(string) for string in strings], batch_first=True), lengths
