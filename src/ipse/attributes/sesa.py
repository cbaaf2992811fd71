"""SESA: dimensions with names, so that a match says why it is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipse.catalogue import system
from ipse.errors import DataError, TrainingError
from ipse.measure.distances import as_features

# Pictures in a batch, and pictures of each person among them.
_BATCH, _EACH = 128, 4


@dataclass(frozen=True)
class Match:
    """Why two pictures are alike, or are not.

    Attributes
    ----------
    names
        Of K dimensions.
    contributions
        (K,) float64: what each adds to the score.
    first, second
        (K,) the two pictures' values: standard deviations above what is usual.
    """

    names: tuple[str, ...]
    contributions: npt.NDArray[np.float64]
    first: npt.NDArray[np.float32]
    second: npt.NDArray[np.float32]

    @property
    def score(self) -> float:
        """The cosine, from -1 to 1: exactly the sum of the contributions."""
        return float(self.contributions.sum())

    def without(self, *names: str) -> float:
        """The score with some dimensions struck out of both pictures, their lengths left as they were.

        Raises
        ------
        DataError
            If there is no such dimension.
        """
        if unknown := sorted(set(names) - set(self.names)):
            raise DataError(f"There is no dimension {unknown[0]!r}.", f"There are {', '.join(self.names)}.")
        return float(self.contributions[[name not in names for name in self.names]].sum())

    def words(self, top: int = 3) -> str:
        """The dimensions that say most for the match, and most against it, such as ``both low in age (+0.31)``."""
        order = np.argsort(-self.contributions, kind="stable")
        speaks_for = [self._told(k) for k in order[:top] if self.contributions[k] > 0]
        against = [self._told(k) for k in order[::-1][:top] if self.contributions[k] < 0]
        pro, con = (", ".join(side) or "nothing" for side in (speaks_for, against))
        return f"{self.score:.2f} alike: {pro}; against it: {con}"

    def _told(self, k: int) -> str:
        high = self.first[k] > 0, self.second[k] > 0
        how = f"both {'high' if high[0] else 'low'}" if high[0] == high[1] else "they differ"
        return f"{how} in {self.names[k]} ({self.contributions[k]:+.2f})"


@dataclass(frozen=True)
class ExplicitSpace:
    """A space whose every dimension has a name, reached from the features of any encoder.

    Attributes
    ----------
    names
        Of K dimensions.
    weights, bias
        (D, K) and (K,) float32: the layer that leads there.
    """

    names: tuple[str, ...]
    weights: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]

    def encode(self, features: Any) -> npt.NDArray[np.float32]:
        """(N, K) float32 of (N, D) features: standard deviations above what is usual; to be compared by cosine.

        Raises
        ------
        DataError
            If the features are not of D numbers.
        """
        found = as_features(features)
        if found.shape[1] != len(self.weights):
            raise DataError(
                f"Features have {found.shape[1]} numbers, and this space was learned from {len(self.weights)}.",
                "Encode the pictures by the encoder that it was learned with.",
            )
        return np.asarray(found) @ self.weights + self.bias

    def explain(self, first: Any, second: Any) -> Match:
        """Why two pictures match, from the (D,) features of each.

        Raises
        ------
        DataError
            As `encode`.
        """
        ours, theirs = self.encode(np.stack([np.asarray(first), np.asarray(second)]))
        pair = ours.astype(np.float64), theirs.astype(np.float64)
        shares = pair[0] * pair[1] / (np.linalg.norm(pair[0]) * np.linalg.norm(pair[1]))
        return Match(self.names, shares, ours, theirs)


@system(
    name="SESA",
    paper="SESA: Supervised Explicit Semantic Analysis",
    year=2017,
    arxiv="1708.03246",
    room="attributes",
    claim="Trained for ranking, but with dimensions that are named concepts, an encoder ranks as well as one whose "
    "dimensions mean nothing, and every match is explained by the concepts that both share.",
    evidence=["reid.sesa.*"],
    works_means="On world people, a match is exactly the sum of what named attributes contribute; people are found "
    "within tolerance of a dense encoder of the same size and better than by attributes that were not trained for "
    "ranking; an attribute that is struck out changes the score as was said.",
    status="experimental",
)
def explicit_space(
    features: Any,
    people: npt.ArrayLike,
    names: Sequence[str],
    targets: npt.ArrayLike,
    *,
    ranking: float = 1.0,
    explicit: float = 1.0,
    temperature: float = 0.1,
    steps: int = 300,
    seed: int = 0,
) -> ExplicitSpace:
    """Learn a space with named dimensions (Bogdanova and Yazdani 2017, section 2).

    The paper leads texts by a recurrent network to the skills of a knowledge base and ranks by the cosine there. Here
    the features of an encoder of pictures are led by one layer to attributes. Two losses are summed: pictures of one
    person are to be nearer than those of others (supervised contrast), and every dimension is to tell its attribute.

    Parameters
    ----------
    features
        (N, D) of training pictures.
    people
        (N,) who is seen; some at least twice.
    names
        Of K attributes.
    targets
        (N, K) their values with mean 0 and deviation 1; NaN where a picture does not show one.
    ranking, explicit
        Weights of the two losses. Without the second dimensions have no meaning, which is the dense encoder to compare
        with; without the first it is attributes alone.
    temperature
        Of the cosines.
    steps
        How often weights move.
    seed
        Of the start and of the batches.

    Raises
    ------
    TrainingError
        If lengths do not fit, or nobody is there twice.
    """
    import torch

    from ipse.training.losses import SupervisedContrastive
    from ipse.training.samplers import IdentitySampler

    found, who = np.asarray(as_features(features)), np.unique(np.asarray(people), return_inverse=True)[1]
    wanted = np.asarray(targets, np.float32)
    if wanted.shape != (len(found), len(names)) or len(who) != len(found):
        raise TrainingError(
            f"{len(found)} features, {len(who)} people and targets of shape {wanted.shape} for {len(names)} names.",
            "Give a person and a value for each name with every feature.",
        )
    # One scale for all dimensions: a rotation of the encoder's space would then learn the same.
    middle, spread = found.mean(axis=0), found.std() or np.float32(1)
    inputs = torch.from_numpy((found - middle) / spread)
    told, shown = torch.from_numpy(np.nan_to_num(wanted)), torch.from_numpy(np.isfinite(wanted))
    labels = torch.from_numpy(who)
    sampler = IdentitySampler(who, min(_BATCH // _EACH, _pairs(who)), _EACH, seed=seed, alone="drop")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = torch.nn.Linear(found.shape[1], len(names))
    contrast = SupervisedContrastive(temperature)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.02, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        rows = torch.from_numpy(sampler.batch(step))
        made = layer(inputs[rows])
        wrong = (made - told[rows])[shown[rows]]
        loss = ranking * contrast(made, labels[rows]) + explicit * wrong.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    weights = layer.weight.detach().numpy().T / spread
    return ExplicitSpace(tuple(names), weights, layer.bias.detach().numpy() - middle @ weights)


def _pairs(who: npt.NDArray[np.intp]) -> int:
    """How many people are there twice."""
    count = int((np.bincount(who) > 1).sum())
    if count < 2:
        raise TrainingError(f"{count} people have two pictures.", "Ranking needs two people with two pictures each.")
    return count
