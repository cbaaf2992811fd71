"""Samplers: which pictures make a batch, as a pure function of the seed and the number of the batch.

Nothing is remembered between batches, so a run that is taken up again sees the batches that it would have seen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ipse.errors import TrainingError


class Sampler(ABC):
    """Gives the rows of any batch by its number.

    Attributes
    ----------
    size
        Pictures in a batch.
    per_epoch
        Batches until every picture, or every person, has had its turn.
    """

    size: int
    per_epoch: int

    @abstractmethod
    def batch(self, number: int) -> npt.NDArray[np.int64]:
        """(size,) rows of batch `number`, counted from 0 over all epochs."""


class ShuffledSampler(Sampler):
    """Every picture once an epoch, in an order of its own each time; what is left over of an epoch is dropped.

    Parameters
    ----------
    count
        Number of pictures.
    size
        Of a batch.
    seed
        Another seed gives other orders.
    """

    def __init__(self, count: int, size: int, seed: int = 0) -> None:
        if count < size:
            raise TrainingError(f"There are {count} pictures, fewer than a batch of {size}.", "Make batches smaller.")
        self.size, self.per_epoch = size, count // size
        self._order = lru_cache(2)(lambda epoch: np.random.default_rng([seed, epoch]).permutation(count))

    def batch(self, number: int) -> npt.NDArray[np.int64]:
        """See `Sampler.batch`."""
        epoch, place = divmod(number, self.per_epoch)
        return self._order(epoch)[place * self.size : (place + 1) * self.size]


class IdentitySampler(Sampler):
    """P people with K pictures each, the batches that losses over pairs need (Hermans et al., 2017).

    Every person comes once an epoch, in an order of its own each time; what is left over of an epoch is dropped.

    Parameters
    ----------
    labels
        (N,) the person of every picture, any integers.
    people
        P.
    each
        K. Somebody with fewer pictures has some of them twice.
    groups
        (N,) what was taken together: cameras, or Looks. A person's pictures are then spread over as many groups as
        they can be, so that pairs across cameras, or across clothes, are in every batch.
    seed
        Another seed gives other batches.
    alone
        What to do about a label with one picture, which makes no pair: ``error`` or ``drop``.

    Raises
    ------
    TrainingError
        For a label with one picture, or fewer than P labels.
    """

    def __init__(
        self,
        labels: npt.ArrayLike,
        people: int,
        each: int,
        groups: npt.ArrayLike | None = None,
        seed: int = 0,
        alone: str = "error",
    ) -> None:
        if people < 2 or each < 2:
            raise TrainingError(f"{people} people with {each} pictures make no pairs.", "Both must be at least 2.")
        if alone not in ("error", "drop"):
            raise TrainingError(f"A label with one picture cannot be treated by {alone!r}.", "Use error or drop.")
        labels = np.asarray(labels)
        order = np.argsort(labels, kind="stable")
        names, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
        single = names[counts == 1]
        if len(single) and alone == "error":
            shown = ", ".join(map(str, single[:5])) + (", …" if len(single) > 5 else "")
            raise TrainingError(
                f"{len(single)} of {len(names)} people have one picture, which makes no pair: {shown}.",
                "Add pictures of them, or set `alone: drop` in the recipe's sampler to train without them.",
            )
        self._rows = [order[start : start + count] for start, count in zip(starts, counts, strict=True) if count > 1]
        if len(self._rows) < people:
            raise TrainingError(
                f"There are {len(self._rows)} people with two pictures or more, fewer than the {people} of a batch.",
                "Set fewer people in the recipe's sampler.",
            )
        self.people, self.each, self.seed = people, each, seed
        self._groups = None if groups is None else np.asarray(groups)
        self.size, self.per_epoch = people * each, len(self._rows) // people
        self._order = lru_cache(2)(lambda epoch: np.random.default_rng([seed, epoch]).permutation(len(self._rows)))

    def batch(self, number: int) -> npt.NDArray[np.int64]:
        """See `Sampler.batch`; the pictures of a person are side by side."""
        epoch, place = divmod(number, self.per_epoch)
        draw = np.random.default_rng([self.seed, epoch, place])
        chosen = self._order(epoch)[place * self.people : (place + 1) * self.people]
        return np.concatenate([self._pictures(self._rows[person], draw) for person in chosen])

    def _pictures(self, rows: npt.NDArray[np.int64], draw: np.random.Generator) -> npt.NDArray[np.int64]:
        rows = draw.permutation(rows)
        if self._groups is not None:
            # Turn by turn from each group: sort by how many of its group came before.
            _, group = np.unique(self._groups[rows], return_inverse=True)
            turn = np.array([(group[:i] == g).sum() for i, g in enumerate(group)])
            rows = rows[np.argsort(turn, kind="stable")]
        return np.resize(rows, self.each)
