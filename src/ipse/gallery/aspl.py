"""ASPL: what is sure is labeled by itself, what is not is asked, and both teach the classifiers that decide next."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipse.catalogue import system
from ipse.errors import DataError
from ipse.measure.distances import as_features


@dataclass(frozen=True)
class Question:
    """A picture that is worth a question.

    Attributes
    ----------
    row
        Which picture.
    guesses
        People that it may show, the likeliest first; somebody new if none of them.
    """

    row: int
    guesses: tuple[Hashable, ...]


@system(
    name="ASPL",
    paper="Active Self-Paced Learning for Cost-Effective and Progressive Face Identification",
    year=2017,
    arxiv="1701.03555",
    room="gallery",
    claim="Pictures that classifiers are sure of are labeled by themselves, in a pace that grows, and only those they "
    "are unsure of are asked; far fewer answers then reach the accuracy of labels for all.",
    evidence=["reid.aspl.*"],
    works_means="On pictures that come in with a simulated annotator, new people among them: accuracy for any number "
    "of answers above random questions, above questions without self-paced labels and above self-paced labels without "
    "questions; near that of labels for all at a fraction of them; wrong answers cost less. Shown over random "
    "questions and over self-paced labels alone; over questions alone the interval holds zero, and wrong answers cost "
    "as much.",
    status="experimental",
)
class SelfPacedLabels:
    """Labels for pictures from few answers (Lin et al., 2017; from the abstract and introduction).

    Each round fits one linear classifier per person against the rest (support vector machines) to the answers and to
    the labels that are sure, then chooses anew what is sure. A picture can be sure where exactly one classifier accepts
    it. Its loss is that of the two classifiers that accept it most, and its weight 1 − loss / λ, where λ is at most 1
    and set so that a share of the pictures counts that grows with every round. Answers always count in full. What no
    classifier accepts, or several do, is worth a question, the least decided first.

    The paper also fine-tunes the network that the features come from; features stay as they are here.

    Parameters
    ----------
    features
        (N, D) of all pictures, of any encoder.
    pace
        Share of the pictures without an answer that may be sure in the first round.
    growth
        What every round adds to it.
    cost
        Of a wrong side of the margin, C of the classifiers.

    Raises
    ------
    DataError
        If a feature is not finite.
    """

    def __init__(self, features: Any, *, pace: float = 0.2, growth: float = 0.1, cost: float = 1.0) -> None:
        found = np.asarray(as_features(features), np.float64)
        if not np.isfinite(found).all():
            raise DataError("Some features are not finite.", "Leave out pictures that could not be encoded.")
        # From the middle: features of many encoders lie all to one side of the origin.
        self._middle = found.mean(axis=0)
        self._features = self._placed(found)
        self.pace, self.growth, self.cost = pace, growth, cost
        self.people: list[Hashable] = []
        self._answers = np.full(len(found), -1)
        self._sure = np.full(len(found), -1)
        self._weights = np.zeros(len(found))
        self._scores = np.empty((len(found), 0))
        self._machine: Any = None

    def _placed(self, features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        moved = features - self._middle
        return moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        """(N,) which pictures somebody has said the person of."""
        return self._answers >= 0

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """(N,) how much each picture counts, 0–1: 1 where answered, 0 where nothing is sure."""
        return np.where(self.answered, 1.0, self._weights)

    @property
    def labels(self) -> list[Hashable | None]:
        """Who is on each picture: by answer, or where it is sure; None elsewhere."""
        best = np.where(self.answered, self._answers, self._sure)
        return [self.people[index] if index >= 0 else None for index in best]

    def rows_of(self, person: Hashable) -> npt.NDArray[np.intp]:
        """Rows that answers gave to a person."""
        return np.flatnonzero(self._answers == self.people.index(person))

    def likeness(self, row: int, others: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """(M,) cosines of a picture to others, as the classifiers see them."""
        return self._features[others] @ self._features[row]

    def tell(self, row: int, person: Hashable) -> None:
        """Say who is on a picture; somebody who was not there before becomes a person of their own."""
        if person not in self.people:
            self.people.append(person)
        self._answers[row] = self.people.index(person)

    def learn(self) -> None:
        """One round: fit the classifiers, then choose anew what is sure.

        Raises
        ------
        DataError
            If nobody has been named yet.
        """
        self._fit()
        order = np.sort(self._scores, axis=1)
        best, second = order[:, -1], order[:, -2] if order.shape[1] > 1 else np.full(len(order), -1.0)
        losses = np.maximum(0, 1 - best) + np.maximum(0, 1 + second)
        # Somebody whom no classifier knows is not far beyond any margin, however large the share.
        able = (best > 0) & (second < 0) & (losses < 1) & ~self.answered
        self._sure[:], self._weights[:] = -1, 0
        count = min(round(self.pace * (~self.answered).sum()), able.sum())
        if count:
            limit = np.sort(losses[able])[count - 1]
            # The last one within the share still counts a little.
            chosen = able & (losses <= limit)
            self._sure[chosen] = self._scores[chosen].argmax(axis=1)
            self._weights[chosen] = 1 - losses[chosen] / (1.1 * limit + 1e-9)
        self.pace = min(1.0, self.pace + self.growth)

    def _fit(self) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.svm import LinearSVC

        labels = np.where(self.answered, self._answers, self._sure)
        used = labels >= 0
        present = np.unique(labels[used])
        if not len(present):
            raise DataError("Nobody has been named yet.", "Say who is on one picture first.")
        if len(present) == 1:
            # One person has no rest: how near the others are is all there is to know.
            self._machine = self._features[used].mean(axis=0)
        else:
            self._machine = LinearSVC(C=self.cost, class_weight="balanced", dual=True, random_state=0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                self._machine.fit(self._features[used], labels[used], self.weights[used])
        self._scores = self._decide(self._features)

    def _decide(self, placed: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(M, P) how much each classifier accepts; above 0 it does."""
        if isinstance(self._machine, np.ndarray):
            return (placed @ self._machine - 0.5)[:, None]
        scores = self._machine.decision_function(placed)
        scores = np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores
        found = np.full((len(placed), len(self.people)), -1.0)
        found[:, self._machine.classes_] = scores
        return found

    def ask(self, count: int, skip: Sequence[int] = (), guesses: int = 3) -> list[Question]:
        """The pictures that are most worth a question after a round of `learn`.

        Parameters
        ----------
        count
            At most so many.
        skip
            Rows that are not to be asked.
        guesses
            People that are named with each.

        Raises
        ------
        DataError
            If `learn` was not called since somebody new was named.
        """
        if self._scores.shape[1] != len(self.people) or not self.people:
            raise DataError("There is nothing to ask by yet.", "Call `learn` after people were named.")
        order = np.argsort(-self._scores, axis=1, kind="stable")
        best = np.sort(self._scores, axis=1)
        # Where one alone accepts, how far it is ahead of the next; else how undecided it is.
        ahead = best[:, -1] - best[:, -2] if best.shape[1] > 1 else best[:, -1] + 1
        open_ = ~self.answered & (self._sure < 0)
        open_[list(skip)] = False
        rows = np.flatnonzero(open_)
        rows = rows[np.argsort(ahead[rows], kind="stable")][:count]
        return [Question(int(row), tuple(self.people[k] for k in order[row, :guesses])) for row in rows]

    def identify(self, features: Any) -> list[Hashable]:
        """Who is on other pictures, from (M, D) features: the person whose classifier accepts most.

        Raises
        ------
        DataError
            If `learn` was not called.
        """
        if self._machine is None:
            raise DataError("There are no classifiers yet.", "Call `learn` first.")
        placed = self._placed(np.asarray(as_features(features), np.float64))
        return [self.people[k] for k in self._decide(placed).argmax(axis=1)]
