"""Losses as parts: each maps embeddings (N, D) and labels (N,) to one number, and any of them can be summed.

Those that compare pictures with pictures (`Triplet`, `Circle`, `SupervisedContrastive`) need several pictures of each
person in a batch; those that compare pictures with classes (`Softmax`, `MarginSoftmax`, `Center`) keep one vector for
each person. `HarmonicTriplet` and `Distilled` take what an earlier network says of the same pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.nn import functional

from ipse.catalogue import system
from ipse.errors import TrainingError


class Softmax(nn.Module):
    """Cross-entropy of a linear classifier, with label smoothing.

    Parameters
    ----------
    dim, classes
        D, and the number of labels.
    smoothing
        Share of the target spread over all classes (Szegedy et al., 2016, section 7).
    """

    def __init__(self, dim: int, classes: int, smoothing: float = 0.1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, dim))
        nn.init.normal_(self.weight, std=0.01)
        self.smoothing = smoothing

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean over the batch."""
        logits = functional.linear(embeddings, self.weight)
        return functional.cross_entropy(logits, labels, label_smoothing=self.smoothing)


class MarginSoftmax(nn.Module):
    """Cross-entropy of scaled cosines, the true one made smaller by a margin; over all classes or a sample of them.

    Parameters
    ----------
    dim, classes
        D, and the number of labels.
    margin
        Kind of margin: ``arcface`` adds it to the angle (Deng et al., 2019, eq. 3), ``cosface`` takes it off the cosine
        (Wang et al., 2018, eq. 4), ``adaface`` moves between the two by the embedding's norm, a sign of the picture's
        quality (Kim et al., 2022, eq. 8 to 12).
    size
        Of the margin; None for the papers' 0.5, 0.35 and 0.4.
    scale
        Of the cosines.
    sample
        Share of the classes that each batch is told from: all that are in it, and others by chance (Partial FC, An et
        al., 2021).
    """

    _SIZES: ClassVar[dict[str, float]] = {"arcface": 0.5, "cosface": 0.35, "adaface": 0.4}

    def __init__(
        self,
        dim: int,
        classes: int,
        margin: Literal["arcface", "cosface", "adaface"] = "arcface",
        size: float | None = None,
        scale: float = 64.0,
        sample: float = 1.0,
    ) -> None:
        super().__init__()
        if margin not in self._SIZES:
            raise TrainingError(f"There is no margin {margin!r}.", f"There are {', '.join(self._SIZES)}.")
        if not 0 < sample <= 1:
            raise TrainingError(f"A sample of {sample} of the classes cannot be drawn.", "Give a share up to 1.")
        self.weight = nn.Parameter(torch.empty(classes, dim))
        nn.init.normal_(self.weight, std=0.01)
        self.margin, self.size = margin, self._SIZES[margin] if size is None else size
        self.scale, self.sample = scale, sample
        # Running mean and deviation of norms; the paper starts them at 20 and 100.
        self.register_buffer("norm_mean", torch.tensor(20.0))
        self.register_buffer("norm_std", torch.tensor(100.0))

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean over the batch."""
        # Angles near 0 and π need more digits than half precision has.
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = embeddings.float()
            weight, labels = self._chosen(labels)
            cosines = functional.linear(functional.normalize(embeddings), functional.normalize(weight))
            rows = torch.arange(len(labels), device=labels.device)
            true = self._smaller(cosines[rows, labels], embeddings.detach().norm(dim=1))
            logits = cosines.scatter(1, labels[:, None], true[:, None])
            return functional.cross_entropy(self.scale * logits, labels)

    def _chosen(self, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The class vectors of this batch, and the labels as numbers among them."""
        classes = len(self.weight)
        if not self.training or self.sample == 1:
            return self.weight, labels
        present = labels.unique()
        chance = torch.rand(classes, device=labels.device)
        chance[present] = 2.0
        count = max(len(present), math.ceil(self.sample * classes))
        chosen = chance.topk(count).indices.sort().values
        return self.weight[chosen], torch.searchsorted(chosen, labels)

    def _smaller(self, cosine: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        if self.margin == "cosface":
            return cosine - self.size
        angle = cosine.clamp(-1 + 1e-6, 1 - 1e-6).acos()
        if self.margin == "arcface":
            # Past π the cosine would rise again; there the margin is taken off as its tangent at π would.
            beyond = angle + self.size > math.pi
            return torch.where(beyond, cosine - self.size * math.sin(self.size), (angle + self.size).cos())
        norm = norm.clamp(0.001, 100)
        if self.training and len(norm) > 1:
            self.norm_mean.lerp_(norm.mean(), 0.01)
            self.norm_std.lerp_(norm.std(), 0.01)
        quality = ((norm - self.norm_mean) / (self.norm_std + 1e-3) / 3).clamp(-1, 1)
        turned = (angle - self.size * quality).clamp(1e-3, math.pi - 1e-3)
        return turned.cos() - (self.size + self.size * quality)


def _distances(embeddings: torch.Tensor, squared: bool) -> torch.Tensor:
    """(N, N) Euclidean distances, with a gradient that stays finite at 0."""
    squares = embeddings.pow(2).sum(1)
    products = embeddings @ embeddings.T
    distances = (squares[:, None] + squares[None, :] - 2 * products).clamp(min=0)
    return distances if squared else (distances + 1e-12).sqrt()


def _pairs(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, N) masks of pairs of one person (but a picture with itself) and of two."""
    same = labels[:, None] == labels[None, :]
    return same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device), ~same


def _semi_hard(gaps: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """For every pair of one person, the gap to the nearest other that is further off, or else to the furthest other.

    `gaps` are (A, P, N) distances to the positive less those to the negative, `valid` which triplets there are.
    """
    beyond = valid & (gaps < 0)
    nearest = gaps.masked_fill(~beyond, -torch.inf).amax(2)
    furthest = gaps.masked_fill(~valid, torch.inf).amin(2)
    return torch.where(beyond.any(2), nearest, furthest)[valid.any(2)]


@system(
    name="FaceNet",
    paper="FaceNet: A Unified Embedding for Face Recognition and Clustering",
    year=2015,
    arxiv="1503.03832",
    room="training",
    claim="An embedding learned from triplets with semi-hard negatives verifies, recognizes and clusters faces.",
    evidence=["systems.facenet.*"],
    works_means="On world people outside the training: triplets with semi-hard negatives verify and rank better than a "
    "softmax bottleneck and raw pixels; codes of 128 bytes agree with 128 floats; B-cubed F of average linkage rises "
    "over both; and an encoder trained with harmonic triplets matches galleries of the one before it, which an encoder "
    "trained alone does not.",
    status="works",
)
class Triplet(nn.Module):
    """A picture must lie nearer to pictures of the same person than to others', by a margin.

    Parameters
    ----------
    mining
        ``semi_hard``: for every pair of one person the nearest other that is still further off, or the furthest where
        there is none (Schroff et al., 2015, section 3.2); ``batch_hard``: for every picture the furthest of the same
        person and the nearest other (Hermans et al., 2017, eq. 5); ``batch_all``: the mean of all triplets that are
        not yet satisfied (eq. 6).
    margin
        In distance; None for the soft margin ln(1 + eˣ) of Hermans et al.
    normalize
        Put embeddings on the unit sphere first, and square distances, as FaceNet does.
    """

    def __init__(
        self,
        mining: Literal["semi_hard", "batch_hard", "batch_all"] = "batch_hard",
        margin: float | None = 0.3,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        if mining not in ("semi_hard", "batch_hard", "batch_all"):
            raise TrainingError(f"There is no mining {mining!r}.", "There are semi_hard, batch_hard and batch_all.")
        self.mining, self.margin, self.normalize = mining, margin, normalize

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean over the triplets chosen; 0 where the batch holds none."""
        embeddings = embeddings.float()
        if self.normalize:
            embeddings = functional.normalize(embeddings)
        return self.of_distances(_distances(embeddings, squared=self.normalize), labels)

    def of_distances(self, distances: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The same of (N, N) distances that were computed in another way, such as over parts."""
        same, other = _pairs(labels)
        if not (same.any() and other.any()):
            return distances.sum() * 0
        if self.mining == "batch_hard":
            chosen = same.any(1) & other.any(1)
            far = distances.masked_fill(~same, -torch.inf).amax(1)[chosen]
            near = distances.masked_fill(~other, torch.inf).amin(1)[chosen]
            return self._hinge(far - near).mean()
        # (anchor, positive, negative)
        gaps = distances[:, :, None] - distances[:, None, :]
        valid = same[:, :, None] & other[:, None, :]
        if self.mining == "batch_all":
            losses = self._hinge(gaps[valid])
            active = losses > (0 if self.margin is not None else 1e-5)
            return losses.sum() / active.sum().clamp(min=1)
        return self._hinge(_semi_hard(gaps, valid)).mean()

    def _hinge(self, gaps: torch.Tensor) -> torch.Tensor:
        return functional.softplus(gaps) if self.margin is None else functional.relu(gaps + self.margin)


class HarmonicTriplet(nn.Module):
    """Semi-hard triplets that mix a network's embeddings with those of an earlier one (Schroff et al., 2015, appendix).

    Every picture of the batch is there twice, once by each network, and anchor, positive and negative may each be
    either; only triplets that are wholly the earlier network's, which cannot change, are left out. So the new
    embeddings come to lie where a gallery of the earlier network expects them.

    Parameters
    ----------
    margin
        In squared distance on the unit sphere.
    """

    def __init__(self, margin: float = 0.2) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor, earlier: torch.Tensor) -> torch.Tensor:
        """The mean over the triplets chosen, `earlier` (N, D) of the same pictures; 0 where the batch holds none."""
        both = functional.normalize(torch.cat([embeddings.float(), earlier.detach().float()]))
        same, other = _pairs(labels.repeat(2))
        new = torch.arange(len(both), device=labels.device) < len(labels)
        valid = same[:, :, None] & other[:, None, :] & (new[:, None, None] | new[:, None] | new)
        if not valid.any():
            return embeddings.sum() * 0
        distances = _distances(both, squared=True)
        gaps = _semi_hard(distances[:, :, None] - distances[:, None, :], valid)
        return functional.relu(gaps + self.margin).mean()


class Distilled(nn.Module):
    """1 less the cosine of a network's embedding and an earlier one's of the same picture, before it was changed.

    With `ipse.training.adversarial` it is adversarially robust distillation (Goldblum et al., 2020, eq. 3, with cosines
    in place of probabilities): the embeddings of a finished network, told by one that is not fooled.
    """

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor, earlier: torch.Tensor) -> torch.Tensor:
        """The mean over the batch, `earlier` (N, D)."""
        return 1 - functional.cosine_similarity(embeddings.float(), earlier.detach().float()).mean()


class Circle(nn.Module):
    """Circle loss over the pairs of a batch (Sun et al., 2020, eq. 6): pairs that are far from right pull more.

    Parameters
    ----------
    margin, scale
        m and γ of the paper.
    """

    def __init__(self, margin: float = 0.25, scale: float = 64.0) -> None:
        super().__init__()
        self.margin, self.scale = margin, scale

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean over the pictures that have pairs of both kinds; 0 where there are none."""
        embeddings = functional.normalize(embeddings.float())
        cosines = embeddings @ embeddings.T
        same, other = _pairs(labels)
        chosen = same.any(1) & other.any(1)
        if not chosen.any():
            return embeddings.sum() * 0
        pull = (1 + self.margin - cosines.detach()).clamp(min=0)
        push = (cosines.detach() + self.margin).clamp(min=0)
        positive = -self.scale * pull * (cosines - (1 - self.margin))
        negative = self.scale * push * (cosines - self.margin)
        total = positive.masked_fill(~same, -torch.inf).logsumexp(1) + negative.masked_fill(
            ~other, -torch.inf
        ).logsumexp(1)
        return functional.softplus(total[chosen]).mean()


class SupervisedContrastive(nn.Module):
    """Every picture is to name all pictures of its person among the batch (Khosla et al., 2020, eq. 2).

    Parameters
    ----------
    temperature
        Of the cosines.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean over the pictures that have another of their person; 0 where there are none."""
        embeddings = functional.normalize(embeddings.float())
        same, _ = _pairs(labels)
        if not same.any():
            return embeddings.sum() * 0
        itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        logits = (embeddings @ embeddings.T / self.temperature).masked_fill(itself, -torch.inf)
        chances = logits - logits.logsumexp(1, keepdim=True)
        counts = same.sum(1)
        means = chances.masked_fill(~same, 0).sum(1)[counts > 0] / counts[counts > 0]
        return -means.mean()


class Center(nn.Module):
    """Half the squared distance to a learned center of the person (Wen et al., 2016, eq. 2)."""

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.randn(classes, dim))

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean over the batch."""
        return (embeddings.float() - self.centers[labels]).pow(2).sum(1).mean() / 2


class Traits(nn.Module):
    """Tell the numbers that a person of the world was made from by a linear layer.

    Their likelihood is normal with one learned deviation for each trait (Kendall & Gal, 2017, eq. 5), so that a trait
    that no picture shows, as the length of the legs in a portrait, soon counts for nothing. Classes tell a network
    which people are others, traits tell it in what they differ, which takes far fewer people to learn.

    Parameters
    ----------
    dim
        D.
    table
        (classes, T) standardized traits of every label.
    """

    def __init__(self, dim: int, table: torch.Tensor) -> None:
        super().__init__()
        # The data tell it again: no checkpoint needs to hold it.
        self.register_buffer("table", table, persistent=False)
        self.head = nn.Linear(dim, table.shape[1])
        self.certainty = nn.Parameter(torch.full((table.shape[1],), -0.5))

    @property
    def variances(self) -> torch.Tensor:
        """(T,) of the errors: between 1, the table's own, and a floor without which one trait would take over."""
        # Times 6, or the steps of an optimizer that has the same for all would take a long time to arrive.
        return (-4 * (6 * self.certainty).sigmoid()).exp()

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean over the batch and the traits."""
        errors = (self.head(embeddings).float() - self.table[labels]).pow(2)
        return ((errors / self.variances + self.variances.log()) / 2).mean()


#: Losses by the names that recipes give them; True where the loss keeps vectors of classes.
LOSSES: dict[str, tuple[type[nn.Module], bool]] = {
    "softmax": (Softmax, True),
    "margin": (MarginSoftmax, True),
    "center": (Center, True),
    "triplet": (Triplet, False),
    "harmonic": (HarmonicTriplet, False),
    "distilled": (Distilled, False),
    "circle": (Circle, False),
    "supcon": (SupervisedContrastive, False),
    "traits": (Traits, True),
}

OF_EARLIER = ("harmonic", "distilled")
"""Losses that need an earlier network."""


class SumOfLosses(nn.Module):
    """A weighted sum of losses.

    Parameters
    ----------
    parts
        Name of a loss → its options, with ``weight`` (default 1) among them.
    dim, classes
        Length of an embedding and number of labels.
    traits
        (classes, T) standardized traits of every label, for the loss of that name.

    Raises
    ------
    TrainingError
        For an unknown loss or option.
    """

    def __init__(
        self, parts: Mapping[str, Mapping[str, Any]], dim: int, classes: int, traits: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        if not parts:
            raise TrainingError("The recipe names no loss.", f"There are {', '.join(LOSSES)}.")
        self.weights = {name: float((options or {}).get("weight", 1)) for name, options in parts.items()}
        self.parts = nn.ModuleDict()
        for name, options in parts.items():
            if name not in LOSSES:
                raise TrainingError(f"There is no loss {name!r}.", f"There are {', '.join(LOSSES)}.")
            kind, of_classes = LOSSES[name]
            if kind is Traits and traits is None:
                raise TrainingError("The loss traits needs what people are made from.", "Give `traits`.")
            own = {key: value for key, value in (options or {}).items() if key != "weight"}
            try:
                if kind is Traits:
                    self.parts[name] = Traits(dim, traits, **own)
                else:
                    self.parts[name] = kind(dim, classes, **own) if of_classes else kind(**own)
            except TypeError as error:
                raise TrainingError(f"The loss {name} cannot be made with {own}: {error}.") from error

    @property
    def needs_pairs(self) -> bool:
        """Whether a loss compares pictures with pictures."""
        return any(not LOSSES[name][1] for name in self.parts if name != "distilled")

    def forward(
        self, embeddings: torch.Tensor, labels: torch.Tensor, earlier: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The sum, and every part before its weight; `earlier` (N, D) are for `OF_EARLIER` alone."""
        values = {
            name: loss(embeddings, labels, earlier) if name in OF_EARLIER else loss(embeddings, labels)
            for name, loss in self.parts.items()
        }
        return sum(self.weights[name] * value for name, value in values.items()), {
            name: value.detach() for name, value in values.items()
        }
