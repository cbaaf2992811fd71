"""Pose2ID: features moved towards the center of their person, by mutual neighbors and by pictures generated of them.

What makes the pictures is given from above, as a function: `ipse.personalize.pose2id.Pose2ID.views` is one. ::

    made = generated_features(pictures, method.views, encode)
    moved = centralize(centralize_by_generation(features, made))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ipse.catalogue import system
from ipse.gallery.rerank import MEMORY_MIB, neighbors, prepared, unit


@system(
    name="Pose2ID",
    paper="From Poses to Identity: Training-Free Person Re-Identification via Feature Centralization",
    year=2025,
    arxiv="2503.00938",
    room="gallery",
    claim="Features of any encoder are moved to the center of their person without training: by the features of "
    "mutual neighbors, and by pictures of the person generated in standard poses.",
    evidence=["reid.pose2id.*"],
    works_means="Neighbors alone raise mAP and rank-1 over the cosine, features come nearer to the true centers, and "
    "re-ranking on top still helps: that much is shown. Generated pictures of the person raise them further and those "
    "of somebody else do not: that half is here, and not measured yet, for it needs a trained base of bodies.",
    status="experimental",
)
def centralize(features: Any, k1: int = 2, k2: int = 2, memory_mib: float = MEMORY_MIB) -> npt.NDArray[np.float32]:
    """Neighbor feature centralization (Yuan et al. 2025, section 3).

    To each feature are added those of its `k1` nearest that have it among their own `k2` nearest. The neighbors are
    taken before anything is moved, so the order of the features does not matter.

    Queries and gallery can be centralized as one set::

        moved = centralize(np.concatenate([query, gallery]))
        query, gallery = moved[: len(query)], moved[len(query) :]

    Then the answer to a query depends on the others asked with it, as it does where each is centralized apart, which
    the published evaluation does. A gallery may also be centralized alone.

    Parameters
    ----------
    features
        (N, D), array or tensor, compared by cosine; N is more than k1 and k2.
    k1, k2
        Neighbors that a feature has, and that must have it; 2 and 2 in the published code.
    memory_mib
        Limit of the distances held at a time.

    Returns
    -------
    numpy.ndarray
        (N, D) float32 of length 1; a feature without mutual neighbors keeps its direction.

    Raises
    ------
    ValueError
        If there are too few features, or one is not finite or of zeros.
    """
    found = prepared(features, "cosine")
    near, _ = neighbors(found, found, max(k1, k2), memory_mib, itself=True)
    moved = found.copy()
    for theirs in near[:, :k1].T:
        mutual = (near[theirs, :k2] == np.arange(len(found))[:, None]).any(axis=1)
        moved[mutual] += found[theirs[mutual]]
    return unit(moved)


def generated_features(
    pictures: Iterable[npt.NDArray[np.uint8]],
    views: Callable[[npt.NDArray[np.uint8]], Sequence[npt.NDArray[np.uint8]]],
    encode: Callable[[Sequence[npt.NDArray[np.uint8]]], npt.NDArray[np.floating[Any]]],
) -> npt.NDArray[np.float32]:
    """Features of pictures that are made of those of people.

    Parameters
    ----------
    pictures
        N, each of one person.
    views
        From one of them to P pictures of the same person in other poses, always as many.
    encode
        From pictures to their (P, D) features.

    Returns
    -------
    numpy.ndarray
        (N, P, D) float32.
    """
    return np.stack([np.asarray(encode(views(picture)), np.float32) for picture in pictures])


def centralize_by_generation(features: Any, generated: Any, eta: float = 1.0) -> npt.NDArray[np.float32]:
    """Feature centralization by generated pictures (Yuan et al. 2025; as the published demonstration has it).

    To each feature is added `eta` times the mean of those of the pictures made of it; `centralize` may follow. All are
    scaled to length 1 before, which the demonstration leaves out.

    Parameters
    ----------
    features
        (N, D), array or tensor, compared by cosine.
    generated
        (N, P, D) of `generated_features`.
    eta
        How much generated pictures count: less where they are poor. 1 in the published code.

    Returns
    -------
    numpy.ndarray
        (N, D) float32 of length 1.

    Raises
    ------
    ValueError
        If shapes do not fit, or a feature is not finite or of zeros.
    """
    found, theirs = prepared(features, "cosine"), np.asarray(generated)
    if theirs.ndim != 3 or theirs.shape[::2] != found.shape or not theirs.shape[1]:
        raise ValueError(f"Features of {found.shape} and of generated pictures of {theirs.shape} do not fit.")
    made = prepared(theirs.reshape(-1, theirs.shape[2]), "cosine").reshape(theirs.shape)
    return unit(found + np.float32(eta) * made.mean(1))


def center_distance(features: Any, person: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """How far features lie from the center of their person.

    It tells what the identity density ID² of Pose2ID tells: how tight a person's features are. Smaller is tighter.

    Parameters
    ----------
    features
        (N, D), compared by cosine.
    person
        (N,) who is whose.

    Returns
    -------
    numpy.ndarray
        (N,) Euclidean distances of the features, scaled to length 1, from the mean of those of their person.
    """
    found = prepared(features, "cosine")
    _, index = np.unique(np.asarray(person), return_inverse=True)
    centers = np.zeros((index.max(initial=-1) + 1, found.shape[1]))
    np.add.at(centers, index, found)
    centers /= np.bincount(index)[:, None]
    return np.linalg.norm(found - centers[index], axis=1)
