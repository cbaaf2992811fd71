"""GaitEnroll: known or new? A set transformer looks at a probe among its neighbors and decides, without a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from ipse._files import atomic_write
from ipse.catalogue import system
from ipse.errors import DataError, TrainingError, WeightsError
from ipse.measure.distances import as_features

if TYPE_CHECKING:
    import torch

TOKEN = 4
"""Numbers that say where a neighbor lies; see `neighbor_tokens`."""

_DIM, _HEADS, _PROBES = 32, 4, 96


@dataclass(frozen=True)
class Episode:
    """An enrollment that was played through.

    Attributes
    ----------
    gallery
        (G,) rows that are enrolled.
    probes
        (Q,) rows that come later; none of them is in the gallery.
    known
        (Q,) whether the probe's person is enrolled.
    """

    gallery: npt.NDArray[np.intp]
    probes: npt.NDArray[np.intp]
    known: npt.NDArray[np.bool_]


def play(
    people: npt.ArrayLike, enrolled: int, shots: int, draw: np.random.Generator, probes: int = _PROBES, new: float = 0.5
) -> Episode:
    """Play an enrollment: some people with some pictures are in the gallery, and others come.

    Parameters
    ----------
    people
        (N,) who is on the pictures there are.
    enrolled
        Number of people in the gallery.
    shots
        Pictures of each of them, fewer where it would leave no picture to come.
    draw
        Decides who, and which pictures.
    probes
        At most so many come.
    new
        Share of them whose person is not enrolled, as far as there are such.

    Raises
    ------
    TrainingError
        If fewer people have two pictures than are to be enrolled, or nobody would be new.
    """
    who = np.asarray(people)
    names, counts = np.unique(who, return_counts=True)
    able = names[counts > 1]
    if enrolled < 2 or len(able) < enrolled or len(names) <= enrolled:
        raise TrainingError(
            f"{enrolled} of {len(names)} people cannot be enrolled so that others come; {len(able)} have two pictures.",
            "Enroll two at least, and fewer than there are.",
        )
    chosen = draw.choice(able, enrolled, replace=False)
    gallery, later = [], []
    for name in chosen:
        rows = draw.permutation(np.flatnonzero(who == name))
        taken = min(shots, len(rows) - 1)
        gallery.append(rows[:taken])
        later.append(rows[taken:])
    known, strangers = draw.permutation(np.concatenate(later)), draw.permutation(np.flatnonzero(~np.isin(who, chosen)))
    count = min(round(new * probes), len(strangers))
    probe = np.concatenate([known[: probes - count], strangers[:count]])
    return Episode(np.concatenate(gallery), probe, np.isin(who[probe], chosen))


def neighbor_tokens(probes: Any, gallery: Any, people: npt.ArrayLike, size: int) -> npt.NDArray[np.float32]:
    """What the gallery around each probe looks like, in numbers that mean the same for every encoder.

    A neighbor is told by its cosine to the probe, by the mean of its cosines to other pictures of its own person, by
    that to the nearest picture of another person, and by whether there are others of its own. Cosines count in
    standard deviations above the mean of those between different people of the gallery, so neither the number of
    dimensions nor how an encoder spreads people matters.

    Parameters
    ----------
    probes
        (Q, D).
    gallery
        (G, D), of the same encoder.
    people
        (G,) whose they are; two at least.
    size
        Of the neighborhood, K; all of a smaller gallery.

    Returns
    -------
    (Q, min(K, G), `TOKEN`) float32 array

    Raises
    ------
    DataError
        If lengths do not fit or the gallery holds fewer than two people.
    """
    # In double precision, or the order of the gallery would decide between neighbors that are nearly as near.
    asked, held = (_unit(np.asarray(as_features(rows), np.float64)) for rows in (probes, gallery))
    _, who = np.unique(np.asarray(people), return_inverse=True)
    if len(who) != len(held) or asked.shape[1] != held.shape[1] or who.max(initial=0) < 1:
        raise DataError(
            f"{len(asked)} probes of {asked.shape[1]} numbers for {len(held)} of {held.shape[1]} of "
            f"{who.max(initial=-1) + 1} people.",
            "Give embeddings of one encoder, a person for each of the gallery, and two people at least.",
        )
    inside = held @ held.T
    own = who[:, None] == who
    others = inside[~own]
    middle, spread = others.mean(), max(float(others.std()), 1e-6)
    rival = np.where(own, -np.inf, inside).max(axis=1)
    count = own.sum(axis=1) - 1
    # Less the picture's cosine to itself. A lone picture has no others of its own: 0 then says nothing, and the flag
    # tells so.
    kin = np.where(count > 0, ((inside * own).sum(axis=1) - 1) / np.maximum(count, 1), middle)
    found = asked @ held.T
    size = min(size, len(held))
    near = np.argpartition(-found, size - 1, axis=1)[:, :size]
    cosines = np.stack([np.take_along_axis(found, near, axis=1), kin[near], rival[near]], axis=2)
    return np.concatenate([(cosines - middle) / spread, (count[near] > 0)[..., None]], axis=2).astype(np.float32)


def _unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _network() -> torch.nn.Module:
    """A set transformer (Lee et al., 2019, section 3) from (N, K, TOKEN) to (N,) logits."""
    import torch
    from torch import nn

    class Attend(nn.Module):
        """The paper's MAB: a set looks at another."""

        def __init__(self) -> None:
            super().__init__()
            self.look = nn.MultiheadAttention(_DIM, _HEADS, batch_first=True)
            self.first, self.second = nn.LayerNorm(_DIM), nn.LayerNorm(_DIM)
            self.row = nn.Sequential(nn.Linear(_DIM, _DIM), nn.ReLU(), nn.Linear(_DIM, _DIM))

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            x = self.first(x + self.look(x, y, y, need_weights=False)[0])
            return self.second(x + self.row(x))

    class SetTransformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter = nn.Linear(TOKEN, _DIM)
            self.within = nn.ModuleList(Attend() for _ in range(2))
            self.seed = nn.Parameter(torch.randn(1, 1, _DIM))
            self.pool, self.leave = Attend(), nn.Linear(_DIM, 1)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            x = self.enter(tokens)
            for layer in self.within:
                x = layer(x, x)
            return self.leave(self.pool(self.seed.expand(len(x), -1, -1), x))[:, 0, 0]

    return SetTransformer()


@system(
    name="GaitEnroll-SetTransformer",
    paper="Database-Agnostic Gait Enrollment using SetTransformers",
    year=2025,
    arxiv="2505.02815",
    room="gallery",
    claim="A set transformer that sees a probe among pictures of the gallery decides whether its person is known or "
    "new, without a threshold, for other galleries and other encoders than it was trained with.",
    evidence=["reid.gaitenroll.*", "reid.gait.enroll_*"],
    works_means="Trained on small galleries of one encoder and asked on galleries of other sizes, and of another "
    "encoder: F1 of known and new above that of the best fixed threshold carried over from the training, and near that "
    "of the best threshold for each gallery, which nobody knows. Shown for an encoder of faces, where the fixed "
    "threshold calls everybody known; a little behind that threshold on other people of the same encoder, and on gait.",
    status="experimental",
)
class KnownOrNew:
    """Decides whether probes are of people in the gallery (Basoc et al., 2025; from the abstract and a review).

    The paper gives the transformer embeddings themselves. Here it gets what `neighbor_tokens` says of the neighborhood,
    so that a decision that was learned with one encoder holds for others, of faces, bodies, ears or gaits.

    Parameters
    ----------
    size
        Of the neighborhood that is looked at.
    seed
        Of the start and of the episodes.
    """

    def __init__(self, size: int = 16, seed: int = 0) -> None:
        import torch

        if size < 1:
            raise TrainingError(f"A neighborhood of {size} cannot be looked at.", "Look at one neighbor at least.")
        self.size, self.seed = size, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._network = _network().eval()

    def fit(
        self,
        features: Any,
        people: npt.ArrayLike,
        *,
        enrolled: tuple[int, int] = (5, 60),
        shots: tuple[int, int] = (1, 4),
        steps: int = 300,
    ) -> Self:
        """Learn from enrollments that are played through, a new one each step.

        Parameters
        ----------
        features
            (N, D) of an encoder, of people who will be asked about nowhere.
        people
            (N,) whose they are.
        enrolled, shots
            Fewest and most people in the gallery, and pictures of each; see `play`. No more than half of all people
            are enrolled, so that others can come.
        steps
            How often weights move.

        Raises
        ------
        TrainingError
            As `play`.
        """
        import torch
        from torch.nn import functional

        found, who = np.asarray(as_features(features)), np.asarray(people)
        network = self._network.train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        most = max(2, min(enrolled[1], len(np.unique(who)) // 2))
        for step in range(steps):
            draw = np.random.default_rng([self.seed, step])
            # As many small galleries as large ones.
            count = round(np.exp(draw.uniform(np.log(min(enrolled[0], most)), np.log(most))))
            episode = play(who, count, int(draw.integers(shots[0], shots[1] + 1)), draw)
            tokens = neighbor_tokens(found[episode.probes], found[episode.gallery], who[episode.gallery], self.size)
            wanted = torch.from_numpy(episode.known.astype(np.float32))
            # Both kinds weigh the same however many of each came.
            share = wanted.mean().clamp(0.01, 0.99)
            weight = torch.where(wanted > 0, 0.5 / share, 0.5 / (1 - share))
            loss = functional.binary_cross_entropy_with_logits(network(torch.from_numpy(tokens)), wanted, weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        network.eval()
        return self

    def known(self, probes: Any, gallery: Any, people: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """(Q,) how likely each probe's person is in the gallery, 0–1; from 0.5 on it is known.

        Parameters
        ----------
        probes, gallery, people
            (Q, D), (G, D) and (G,); the order of the gallery does not matter.

        Raises
        ------
        DataError
            As `neighbor_tokens`.
        """
        import torch

        tokens = neighbor_tokens(probes, gallery, people, self.size)
        with torch.inference_mode():
            return self._network(torch.from_numpy(tokens)).sigmoid().numpy()

    def save(self, path: str | Path) -> None:
        """Write it as a safetensors file."""
        from safetensors.torch import save

        with atomic_write(Path(path)) as file:
            file.write(save(self._network.state_dict(), {"size": str(self.size)}))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        WeightsError
            If the file is no such thing.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), "pt") as file:
                made = cls(int(file.metadata()["size"]))
                made._network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise WeightsError(f"{path} holds no decision about enrollment: {error}.", "Train and save it.") from error
        return made
