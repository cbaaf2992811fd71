"""ISR: who somebody is, learned from people in video whom nobody labeled (Dou et al., ICCV 2023).

People found in two frames of a video that are close in time are mostly the same. Which is which is a maximum-weight
bipartite matching of the two frames by what the network itself says (`associate`), and the matched pairs are what it
learns from. Some are wrong: detections that show something else, people who came or went. So each pair counts by its
reliability, the margin by which the two are more alike than either is like anything else (`Associations.margin`), in a
contrastive loss against all others of the batch (`reliable_contrast`). The network that matches is the one that learns:
better features make better pairs, and what it costs grows with the number of frames alone.

From the paper's abstract are the matching and that reliability guides the contrast; that it is a margin, and how it
weighs, is ours, and so are the numbers. These are ours, too, because a few cameras that see the same people again and
again are not the paper's thousands of videos:

- A batch is of one camera. Between cameras, backgrounds and light tell pictures apart better than people do, and the
  same person may be in both.
- Pictures of one video within `ISR.span` frames, other than of the two frames that are matched, are neither rivals nor
  negatives, since they may well be of the same person.
- A matching has a partner for everybody whom it can give one, even where nobody is alike. Pairs below a cosine, of
  features less the mean of the batch, are left out.
- What matches is the average of the network, on pictures as they are: both are less moved by chance than the network
  of one step on pictures that were changed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional

from ipse.catalogue import system
from ipse.encoders.backbones import Backbone
from ipse.errors import TrainingError
from ipse.training.frames import Frames
from ipse.training.learning import Learner, Parts, centered
from ipse.training.recipe import TrainRecipe


@dataclass(frozen=True)
class Associations:
    """Pairs of rows that are taken for the same people.

    Attributes
    ----------
    first, second
        (P,) rows.
    cosine
        (P,) of the two.
    margin
        (P,) by how much the cosine of the two is above the highest of either with anything else; below 0 it is lower.
    """

    first: npt.NDArray[np.intp]
    second: npt.NDArray[np.intp]
    cosine: npt.NDArray[np.float32]
    margin: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.first)

    def above(self, cosine: float, margin: float = -np.inf) -> Associations:
        """Those with at least this cosine and this margin."""
        kept = (self.cosine >= cosine) & (self.margin >= margin)
        return Associations(self.first[kept], self.second[kept], self.cosine[kept], self.margin[kept])


def associate(
    embeddings: npt.NDArray[np.float32],
    frames: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]],
    unsure: npt.NDArray[np.bool_] | None = None,
) -> Associations:
    """Match the people of pairs of frames.

    Parameters
    ----------
    embeddings
        (N, D) of length 1, of all people of these frames, and of others to compare them with.
    frames
        Rows of a frame and rows of the frame that it is matched with, for each pair of frames.
    unsure
        (N, N) who are no rivals, since they may be the same; of no pair of frames.
    """
    cosines = embeddings @ embeddings.T
    np.fill_diagonal(cosines, -np.inf)
    if unsure is not None:
        cosines[unsure] = -np.inf
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
    return Associations(a, b, matched, matched - np.maximum(*rivals))


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
        found = associate(embeddings[rows], [places]).above(alike, margin)
        first.append(rows[found.first])
        second.append(rows[found.second])
    count = len(embeddings)
    a, b = (np.concatenate(rows) if rows else np.empty(0, np.intp) for rows in (first, second))
    joined = coo_matrix((np.ones(len(a), bool), (a, b)), (count, count))
    return connected_components(joined, directed=False)[1].astype(np.int64)


def reliable_contrast(
    embeddings: torch.Tensor,
    pairs: Associations,
    temperature: float = 0.1,
    weighted: bool = True,
    unsure: npt.NDArray[np.bool_] | None = None,
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
    unsure
        (N, N) who are not told apart, since they may be the same; no pair is among them.

    Returns
    -------
    torch.Tensor
        The weighted mean; 0 where there are no pairs.
    """
    vectors = functional.normalize(embeddings.float())
    logits = vectors @ vectors.T / temperature
    hidden = torch.eye(len(vectors), dtype=torch.bool)
    if unsure is not None:
        hidden |= torch.from_numpy(unsure)
    logits = logits.masked_fill(hidden, -torch.inf)
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
    evidence=["reid.isr.*", "reid.market.*"],
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
        Weigh pairs by reliability; False lets those that are alike enough all count the same.
    temperature
        Of the contrast.
    alike
        The least cosine of a pair, of features less the mean of the batch.
    span
        Frames within which others of a video may be the same person.

    Raises
    ------
    TrainingError
        If there are fewer than two pairs of frames.
    """

    def __init__(
        self,
        recipe: TrainRecipe,
        frames: Frames,
        gap: int = 100,
        weighted: bool = True,
        temperature: float = 0.1,
        alike: float = 0.3,
        span: int = 300,
    ) -> None:
        super().__init__(recipe)
        self.frames, self.weighted, self.temperature = frames, weighted, temperature
        self.alike, self.span = alike, span
        self.pairs = frames.pairs(gap)
        if len(self.pairs) < 2:
            raise TrainingError(
                f"There are {len(self.pairs)} pairs of frames with at most {gap} frames between them.",
                "Allow a larger gap, or give frames of videos.",
            )
        self.camera = np.array([frames.camera[ours[0]] for ours, _ in self.pairs])

    def before(self, step: int, average: Backbone) -> None:
        """Match the people of some pairs of frames by what the averaged network says of them."""
        chosen, others = self.batch(step)
        sides = [side for pair in chosen for side in pair]
        self.rows = np.concatenate([*sides, others])
        places = np.split(np.arange(len(self.rows)), np.cumsum([len(side) for side in sides]))[: len(sides)]
        frames = list(zip(places[::2], places[1::2], strict=True))
        vectors = self.embed(average, self.frames.pictures[self.rows])
        self.hidden = self.unsure(self.rows, frames)
        # The batch is of one camera, which is taken off.
        self.matched = associate(centered(vectors, np.zeros(len(vectors), np.int64)), frames, self.hidden)

    def batch(self, step: int) -> tuple[list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]], npt.NDArray[np.intp]]:
        """What a step sees: as many pictures as the recipe's batch, so that it can be compared with other trainings.

        Returns
        -------
        tuple
            Pairs of frames of one camera, by chance; and rows of other pictures of it, to tell people from, in the
            places where no further pair fits. No picture is there twice. The first pair of frames is there even if it
            has more pictures; a camera that has fewer than a batch is there with all.
        """
        draw = np.random.default_rng([self.recipe.seed, step])
        chosen: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]] = []
        taken: set[int] = set()
        left = self.recipe.batch.size
        # A camera comes as often as it has pairs of frames.
        camera = self.camera[draw.integers(len(self.pairs))]
        for number in draw.permutation(np.flatnonzero(self.camera == camera)):
            ours, theirs = self.pairs[number]
            rows = {*ours.tolist(), *theirs.tolist()}
            if taken.isdisjoint(rows) and (len(rows) <= left or not chosen):
                chosen.append((ours, theirs))
                taken |= rows
                left -= len(rows)
            if left < 2:
                break
        free = np.setdiff1d(np.flatnonzero(self.frames.camera == camera), np.fromiter(taken, np.intp))
        return chosen, draw.permutation(free)[: max(left, 0)]

    def unsure(
        self, rows: npt.NDArray[np.intp], pairs: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]
    ) -> npt.NDArray[np.bool_]:
        """(N, N) which of some rows may be the same person though no pair says so: they are near in a video.

        Parameters
        ----------
        rows
            (N,) of the frames.
        pairs
            Places among `rows` of each pair of frames; nobody is twice in a frame, so who is not matched is another.
        """
        camera, video, frame = (of[rows] for of in (self.frames.camera, self.frames.video, self.frames.frame))
        apart = np.abs(frame[:, None] - frame)
        found = (camera[:, None] == camera) & (video[:, None] == video) & (apart > 0) & (apart <= self.span)
        for ours, theirs in pairs:
            found[np.ix_(ours, theirs)] = found[np.ix_(theirs, ours)] = False
        return found

    def loss(self, step: int) -> tuple[torch.Tensor, Parts]:
        """Contrast the pairs that were matched."""
        sure = self.matched.above(self.alike)
        embeddings = self.network(self.pixels(self.frames.pictures[self.rows]))
        loss = reliable_contrast(embeddings, sure, self.temperature, self.weighted, self.hidden)
        return loss, {"contrast": loss.detach(), "reliable": torch.tensor(len(sure) / len(self.matched))}
