"""FAIM: a person in other clothes is found by way of pictures that show both, where there are such pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipse.catalogue import system
from ipse.gallery.rerank import MEMORY_MIB, neighbors, prepared, unit


@dataclass(frozen=True)
class Bridged:
    """Features that carry what intermediaries know.

    Attributes
    ----------
    query, gallery
        (Q, D) and (G, D) of length 1, to be compared by cosine.
    query_feasibility, gallery_feasibility
        (Q,) and (G,) from 0 to 1: how far each one's intermediaries were trusted.
    """

    query: npt.NDArray[np.float32]
    gallery: npt.NDArray[np.float32]
    query_feasibility: npt.NDArray[np.float32]
    gallery_feasibility: npt.NDArray[np.float32]


@system(
    name="FAIM",
    paper="Clothes-Changing Person Re-Identification with Feasibility-Aware Intermediary Matching",
    year=2024,
    arxiv="2404.09507",
    room="gallery",
    claim="Clothes find pictures of the person in the same clothes, and what those show of the person finds the "
    "pictures in other clothes; how good these intermediaries are decides how much they count.",
    evidence=["reid.faim.*"],
    works_means="On world people in shared clothes, mAP across Looks is above that of features of identity alone, the "
    "paired interval excluding zero; where the pictures that bridge are taken away, feasibility falls and mAP is not "
    "below, while with intermediaries that all count in full it is.",
)
def bridge(
    query: Any,
    gallery: Any,
    query_look: Any,
    gallery_look: Any,
    k: int = 5,
    *,
    reliability: npt.ArrayLike | None = None,
    weighted: bool = True,
    memory_mib: float = MEMORY_MIB,
) -> Bridged:
    """Intermediary matching (Zhao et al. 2024): clothes lead to intermediaries, their identity leads on.

    The intermediaries of a picture are the `k` gallery pictures nearest to it by clothes. The paper has three routes
    beside the direct one: identity goes from the query's intermediaries to the gallery picture, from the query to the
    gallery picture's intermediaries, and from the ones to the others. When a route counts the product of the
    feasibilities at its ends, all four together are one inner product of features f(x) + Σ wᵢ f(i) / k over the
    intermediaries i of x; so nothing is computed for pairs, and any index can hold the features.

    The weight wᵢ is the product of

    - how *available* the intermediary is: how much more alike its clothes are than those of the gallery's mean,
    - how *reliable* it is: what is given, or how much more its identity agrees with that of the picture and its other
      intermediaries than with the gallery's mean. The paper trains a head for it; nothing is trained here.

    Both are 0 at the mean, or under it, and 1 where all is equal. Feasibility is the mean of wᵢ.

    Parameters
    ----------
    query, gallery
        (Q, D) and (G, D) features of identity, as free from clothes as can be; compared by cosine.
    query_look, gallery_look
        (Q, E) and (G, E) features of clothes, such as colors; compared by cosine.
    k
        Intermediaries of each.
    reliability
        (G,) from 0 to 1, how much each gallery picture shows of who it is, such as the quality of the face.
    weighted
        False for intermediaries that all count in full, which is what feasibility weights are compared with.
    memory_mib
        Limit of the distances held at a time.

    Raises
    ------
    ValueError
        If there are not enough gallery pictures, numbers do not fit together, or the reliability is not from 0 to 1.
    """
    ours, theirs = prepared(query, "cosine"), prepared(gallery, "cosine")
    our_look, their_look = prepared(query_look, "cosine"), prepared(gallery_look, "cosine")
    if len(ours) != len(our_look) or len(theirs) != len(their_look):
        raise ValueError("Every picture needs a feature of identity and one of clothes.")
    given = None if reliability is None else np.asarray(reliability, np.float32)
    if given is not None and (given.shape != (len(theirs),) or not ((given >= 0) & (given <= 1)).all()):
        raise ValueError(f"Reliability is a number from 0 to 1 for each of the {len(theirs)} gallery pictures.")
    sides = []
    for features, look, itself in ((ours, our_look, False), (theirs, their_look, True)):
        near, alike = neighbors(look, their_look, k, memory_mib, itself=itself)
        weights = np.ones_like(alike)
        if weighted:
            weights = _above(alike, (look @ their_look.mean(axis=0))[:, None])
            weights *= given[near] if given is not None else _agreement(features, theirs, near)
        moved = features.copy()
        for column, weight in zip(near.T, weights.T, strict=True):
            moved += weight[:, None] / k * theirs[column]
        sides.append((unit(moved), weights.mean(axis=1)))
    return Bridged(sides[0][0], sides[1][0], sides[0][1], sides[1][1])


def _agreement(
    features: npt.NDArray[np.float32], gallery: npt.NDArray[np.float32], near: npt.NDArray[np.intp]
) -> npt.NDArray[np.float32]:
    """(N, k) how well each intermediary agrees with the picture and its other intermediaries, 0–1."""
    together = features.copy()
    for column in near.T:
        together += gallery[column]
    found = np.empty(near.shape, np.float32)
    usual = gallery @ gallery.mean(axis=0)
    for i, column in enumerate(near.T):
        own = gallery[column]
        rest = together - own
        cosine = np.einsum("nd,nd->n", own, rest) / np.maximum(np.linalg.norm(rest, axis=1), 1e-12)
        found[:, i] = _above(cosine, usual[column])
    return found


def _above(cosine: npt.NDArray[np.float32], usual: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Where a cosine lies between what is usual, 0, and equality, 1."""
    return np.clip((cosine - usual) / np.maximum(1 - usual, 1e-6), 0, 1)
