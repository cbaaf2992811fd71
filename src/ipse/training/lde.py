"""LDE, latent domain expansion: people told from each other in places that nobody trained on (Zhang et al., 2024).

Pictures from several domains (places, cameras, seasons) show who somebody is and where it was taken. A gate parts the
two (`SplitIResNet`): what it lets through must tell people apart, what it holds back must tell domains apart, and who
tells domains must be at a loss before what is let through. How domains differ is then known as directions in the space
of embeddings, and their covariance in each domain is kept as training goes. The classifier must be right for a
picture's embedding moved by any mixture of these directions. Not a sample of them is drawn: for infinitely many the
mean of the loss has an upper bound in closed form (`expanded_logits`), in which another person's score rises by how far
the directions could carry it.

From the paper's abstract and a summary of its text are the parting, the directions drawn from a normal distribution
with the covariance of each domain, the cross-entropy of infinitely many, and the triplets beside it. The bound is that
of implicit semantic data augmentation (Wang et al., 2019). The gate, what keeps domains out of identity, and the
numbers are ours, and so is that a covariance is taken around the middle of all domains: so it knows how they differ
from each other too. The paper's other half, a benchmark of photographs with hidden faces, is not here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from ipse.catalogue import system
from ipse.encoders.backbones.split import SplitIResNet
from ipse.errors import TrainingError
from ipse.training.described import Described
from ipse.training.domainmix import balance
from ipse.training.learning import Parts, Pictures
from ipse.training.recipe import TrainRecipe


@dataclass(frozen=True)
class Expansion:
    """What LDE leaves to choose.

    Attributes
    ----------
    strength
        Of the expansion at the last step, a factor on covariances; it rises evenly from 0, since directions are worth
        nothing in the beginning. 0 only parts features.
    domain
        Weight of telling domains by what is held back.
    apart
        Weight of keeping what is let through from telling domains; see `ipse.training.domainmix.balance`.
    keep
        Share of the old covariances that a step keeps.
    """

    strength: float = 0.5
    domain: float = 0.5
    apart: float = 0.5
    keep: float = 0.98


def expanded_logits(
    embeddings: torch.Tensor,
    labels: torch.Tensor,
    weight: torch.Tensor,
    covariances: torch.Tensor,
    domains: torch.Tensor,
    strength: float,
) -> torch.Tensor:
    """Scores whose cross-entropy bounds the mean cross-entropy over embeddings that are moved by chance.

    With directions from a normal distribution of mean 0 and covariance S, the score of class j for a picture of class y
    is w_j·x + ½ (w_j - w_y)ᵀ S (w_j - w_y).

    Parameters
    ----------
    embeddings
        (N, D) x.
    labels
        (N,) y.
    weight
        (C, D) w.
    covariances
        (K, D, D) of K domains.
    domains
        (N,) which of them each picture is from.
    strength
        Factor on the covariances.

    Returns
    -------
    torch.Tensor
        (N, C).
    """
    turned = weight @ covariances
    own = (turned * weight).sum(2)
    cross = turned[domains, labels] @ weight.T
    spread = own[domains] - 2 * cross + own[domains, labels][:, None]
    return embeddings @ weight.T + strength / 2 * spread


@system(
    name="LDE",
    paper="An Open-World, Diverse, Cross-Spatial-Temporal Benchmark for Dynamic Wild Person Re-Identification",
    year=2024,
    arxiv="2403.15119",
    room="training",
    claim="Features are parted into identity and domain, and identity is learned under domains that are expanded by "
    "chance, so that an encoder recognizes people in places that it never saw.",
    evidence=["reid.lde.*"],
    works_means="On world bodies in worlds of other light and cameras, over three training seeds: mAP in a world that "
    "was not trained on is above that of plain training and of mixed styles, also with hidden faces, and a linear "
    "classifier tells domains from embeddings less well than from those of plain training.",
    status="experimental",
)
class LatentDomainExpansion(Described):
    """Learn people of several domains for domains that are not known.

    Parameters
    ----------
    recipe
        Its network is a ``split_iresnet``; ``losses`` are those beside the cross-entropy, in the paper ``triplet``.
    pictures, people
        As in `Described`.
    domains
        (N,) where pictures are from: any names, two at least.
    expansion
        See `Expansion`.

    Raises
    ------
    TrainingError
        For another network, other lengths, or a single domain.
    """

    network: SplitIResNet

    def __init__(
        self,
        recipe: TrainRecipe,
        pictures: Pictures,
        people: npt.ArrayLike,
        domains: npt.ArrayLike,
        expansion: Expansion | None = None,
    ) -> None:
        super().__init__(recipe, pictures, people)
        names, numbers = np.unique(np.asarray(domains), return_inverse=True)
        if not isinstance(self.network, SplitIResNet):
            raise TrainingError("LDE needs a network that parts its features.", "Use the backbone split_iresnet.")
        if len(numbers) != len(pictures) or len(names) < 2:
            raise TrainingError(
                f"{len(pictures)} pictures and {len(numbers)} domains, {len(names)} of them different, do not fit.",
                "Tell for every picture which of at least two domains it is from.",
            )
        self.expansion = expansion or Expansion()
        self.domains = torch.from_numpy(numbers)
        dim = self.network.dim
        self.weight = nn.Parameter(0.01 * torch.randn(int(self.labels.max()) + 1, dim))
        self.tell = nn.Linear(dim, len(names))
        self.register_buffer("middle", torch.zeros(dim))
        self.register_buffer("covariances", torch.zeros(len(names), dim, dim))

    def remember(self, moved: torch.Tensor, domains: torch.Tensor) -> None:
        """Let what was held back of some pictures, (N, D), change the covariances of their domains."""
        change = 1 - self.expansion.keep
        self.middle.lerp_(moved.mean(0), change)
        beside = moved - self.middle
        for domain in domains.unique():
            some = beside[domains == domain]
            self.covariances[domain].lerp_(some.T @ some / len(some), change)

    def loss(self, step: int) -> tuple[torch.Tensor, Parts]:
        """People by what is let through, domains by what is held back."""
        plan, rows = self.expansion, self.sampler.batch(step)
        labels, domains = (side[torch.from_numpy(rows)] for side in (self.labels, self.domains))
        embeddings, moved = self.network.split(self.pixels(self.pictures[rows]))
        with torch.no_grad():
            self.remember(moved, domains)
        strength = plan.strength * step / self.recipe.steps
        # Before the loss goes back, the covariances of the next step must not take the place of these.
        logits = expanded_logits(embeddings, labels, self.weight, self.covariances.clone(), domains, strength)
        classes = functional.cross_entropy(logits, labels)
        pairs, parts = self.losses(embeddings, labels)
        # Who tells domains looks at both parts; only what is held back is to help.
        told, found = (functional.cross_entropy(self.tell(side), domains) for side in (moved, embeddings.detach()))
        blind = functional.linear(embeddings, self.tell.weight.detach(), self.tell.bias.detach())
        sure = balance(blind)
        total = classes + pairs + plan.domain * (told + found) + plan.apart * sure
        own = {"classes": classes, "domain": told, "sure": sure}
        return total, parts | {name: value.detach() for name, value in own.items()}
