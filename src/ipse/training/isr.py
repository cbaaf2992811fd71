"""ISR: who somebody is, learned from people in video whom nobody labeled (Dou et al., ICCV 2023).

People found in two frames of a video that are close in time are mostly the same. Which is which is a maximum-weight
bipartite matching of the two frames by what the network itself says (`associate`), and the matched pairs are what it
learns from. Some are wrong: detections that show something else, people who came or went. So each pair counts by its
reliability, the margin by which the two are more alike than either is like anything else (`Associations.margin`), in a
contrastive loss against all others of the batch (`reliable_contrast`). The network that matches is the one that learns:
better features make better pairs, and what it costs grows with the number of frames alone.

From the paper's abstract are the matching and that reliability guides the contrast; that it is a margin, and how it
weighs, is ours, and so are the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional

from ipse.catalogue import system
from ipse.errors import TrainingError
from ipse.training.frames import Frames
from ipse.training.learning import Learner, Parts
from ipse.training.recipe import TrainRecipe


@dataclass(frozen=True)
class Associations:
    """Pairs of rows that are taken for the same people.

    Attributes
    ----------
    first, second
        (P,) rows.
    margin
        (P,) by how much the cosine of the two is above the highest of either with anything else; below 0 it is lower.
    """

    first: npt.NDArray[np.intp]
    second: npt.NDArray[np.intp]
    margin: npt.NDArray[np.float32]


def associate(
    embeddings: npt.NDArray[np.float32],
    frames: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]],
) -> Associations:
    """Match the people of pairs of frames.

    Parameters
    ----------
    embeddings
        (N, D) of length 1, of all people of these frames, and of others to compare them with.
    frames
        Rows of a frame and rows of the frame that it is matched with, for each pair of frames.
    """
    cosines = embeddings @ embeddings.T
    np.fill_diagonal(cosines, -np.inf)
    first, second = [], []
    for ours, theirs in frames:
        i, j = linear_sum_assignment(cosines[np.ix_(ours, theirs)], maximize=True)
        first.append(ours[i])
        second.append(theirs[j])
    a, b = (np.concatenate(rows) if rows else np.empty(0, np.intp) for rows in (first, second))
    matched = cosines[a, b]
    # The best of each with anything but its match.
    rivals = []
    for own, other in ((a, b), (b, a)):
        rows = cosines[own].copy()
        rows[np.arange(len(own)), other] = -np.inf
        rivals.append(rows.max(1, initial=-1))
    return Associations(a, b, matched - np.maximum(*rivals))


def tracklets(
    embeddings: npt.NDArray[np.float32],
    frames: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]],
    alike: float = 0.5,
    margin: float = 0.1,
) -> npt.NDArray[np.int64]:
    """Chains of people who are matched from frame to frame.

    Parameters
    ----------
    embeddings
        (N, D) of length 1.
    frames
        As in `associate`, such as all that `Frames.pairs` gives.
    alike, margin
        The least cosine of two that are joined, and the least margin to anybody else of the two frames.

    Returns
    -------
    numpy.ndarray
        (N,) numbers of chains from 0; who is never matched is alone.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    first, second = [], []
    for ours, theirs in frames:
        rows = np.concatenate([ours, theirs])
        places = np.arange(len(ours)), np.arange(len(ours), len(rows))
        found = associate(embeddings[rows], [places])
        a, b = rows[found.first], rows[found.second]
        sure = (np.einsum("nd,nd->n", embeddings[a], embeddings[b]) >= alike) & (found.margin >= margin)
        first.append(a[sure])
        second.append(b[sure])
    count = len(embeddings)
    a, b = (np.concatenate(rows) if rows else np.empty(0, np.intp) for rows in (first, second))
    joined = coo_matrix((np.ones(len(a), bool), (a, b)), (count, count))
    return connected_components(joined, directed=False)[1].astype(np.int64)


def reliable_contrast(
    embeddings: torch.Tensor, pairs: Associations, temperature: float = 0.1, weighted: bool = True
) -> torch.Tensor:
    """Each of a pair is to name the other among all of the batch; pairs count the more, the greater their margin.

    Pairs weigh by the softmax of margin over temperature. So all count alike where the network knows nothing yet, and
    reliable ones dominate where it does.

    Parameters
    ----------
    embeddings
        (N, D) of any length.
    pairs
        Rows of them.
    temperature
        Of the cosines and of the margins, which are differences of cosines.
    weighted
        False counts all pairs alike.

    Returns
    -------
    torch.Tensor
        The weighted mean; 0 where there are no pairs.
    """
    vectors = functional.normalize(embeddings.float())
    logits = vectors @ vectors.T / temperature
    logits = logits.masked_fill(torch.eye(len(vectors), dtype=torch.bool), -torch.inf)
    a, b = torch.from_numpy(pairs.first), torch.from_numpy(pairs.second)
    losses = (functional.cross_entropy(logits[a], b, reduction="none") + functional.cross_entropy(
        logits[b], a, reduction="none"
    )) / 2  # fmt: skip
    margins = torch.from_numpy(pairs.margin) if weighted else torch.zeros(len(a))
    return ((margins / temperature).softmax(0) * losses).sum()


@system(
    name="ISR",
    paper="Identity-Seeking Self-Supervised Representation Learning for Generalizable Person Re-identification",
    year=2023,
    arxiv="2308.08887",
    room="training",
    claim="An encoder that nobody labeled anything for, learned from people who are matched between frames of videos, "
    "recognizes people in places that it never saw.",
    evidence=["reid_training.isr.*"],
    works_means="On videos of several world people at a time, without labels: mAP in a world that was not trained on "
    "is above that of learning by changes of single pictures alone, and with 30 % wrong detections the reliability "
    "loses less than equal weights do.",
    status="experimental",
)
class ISR(Learner):
    """Learn from matched people of neighboring frames.

    Parameters
    ----------
    recipe
        ``batch.size``: how many pictures a step sees; ``network``, ``start``, ``augment`` and the rest as in other
        trainings.
    frames
        Where people were found; without labels, see `ipse.training.frames`.
    gap
        The most frames between the two of a pair.
    weighted
        Weigh pairs by reliability.
    temperature
        Of the contrast.

    Raises
    ------
    TrainingError
        If there are fewer than two pairs of frames.
    """

    def __init__(
        self, recipe: TrainRecipe, frames: Frames, gap: int = 100, weighted: bool = True, temperature: float = 0.1
    ) -> None:
        super().__init__(recipe)
        self.frames, self.weighted, self.temperature = frames, weighted, temperature
        self.pairs = frames.pairs(gap)
        if len(self.pairs) < 2:
            raise TrainingError(
                f"There are {len(self.pairs)} pairs of frames with at most {gap} frames between them.",
                "Allow a larger gap, or give frames of videos.",
            )

    def batch(self, step: int) -> tuple[list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]], npt.NDArray[np.intp]]:
        """What a step sees: as many pictures as the recipe's batch, so that it can be compared with other trainings.

        Returns
        -------
        tuple
            Pairs of frames, by chance; and rows of other pictures, to tell people from, in the places where no further
            pair fits. No picture is there twice. The first pair of frames is there even if it has more pictures.
        """
        draw = np.random.default_rng([self.recipe.seed, step])
        chosen: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]] = []
        taken: set[int] = set()
        left = self.recipe.batch.size
        for number in draw.permutation(len(self.pairs)):
            ours, theirs = self.pairs[number]
            rows = {*ours.tolist(), *theirs.tolist()}
            if taken.isdisjoint(rows) and (len(rows) <= left or not chosen):
                chosen.append((ours, theirs))
                taken |= rows
                left -= len(rows)
            if left < 2:
                break
        free = np.setdiff1d(np.arange(len(self.frames)), np.fromiter(taken, np.intp))
        return chosen, draw.permutation(free)[: max(left, 0)]

    def loss(self, step: int) -> tuple[torch.Tensor, Parts]:
        """Match the people of some pairs of frames, and contrast the pairs."""
        chosen, others = self.batch(step)
        sides = [side for pair in chosen for side in pair]
        rows = np.concatenate([*sides, others])
        places = np.split(np.arange(len(rows)), np.cumsum([len(side) for side in sides]))[: len(sides)]
        embeddings = self.network(self.pixels(self.frames.pictures[rows]))
        found = functional.normalize(embeddings.detach()).numpy()
        pairs = associate(found, list(zip(places[::2], places[1::2], strict=True)))
        loss = reliable_contrast(embeddings, pairs, self.temperature, self.weighted)
        return loss, {"contrast": loss.detach(), "reliable": torch.tensor(float((pairs.margin > 0).mean()))}
