"""Relative representations: one language for encoders that were trained apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ipse.catalogue import system
from ipse.errors import DataError
from ipse.gallery.rerank import prepared, unit


@system(
    name="RelReps",
    paper="Relative representations enable zero-shot latent space communication",
    year=2023,
    arxiv="2209.15430",
    room="gallery",
    claim="What an encoder says of a picture, told as its cosines to the same anchor pictures, is nearly the same for "
    "every encoder, so that parts of models trained apart fit together without training.",
    evidence=["reid.relreps.*"],
    works_means="Search and verification between two encoders by shared anchors are far above direct cosine, which is "
    "chance, and codes are the same under any rotation: that is shown, for verification only with centered codes. They "
    "are near those of one encoder: with 120 anchors they are not. A generator that is trained on the codes of one "
    "encoder accepts those of another: that half is not here.",
    status="experimental",
)
def relative(features: Any, anchors: Any, *, center: bool = False) -> npt.NDArray[np.float32]:
    """The cosines of features to anchors, which are the new features (Moschella et al. 2023, section 3, equation 1).

    Two encoders give comparable codes where both encoded the same anchor pictures, in the same order. So a gallery of
    another encoder is searched without encoding it again, as long as the anchors were kept beside it::

        held = relative(gallery_of_b, anchors_of_b)
        asked = relative(query_by_a, anchors_of_a)
        Features(asked, held)

    The anchors need not be people of the gallery, and no labels are needed. Rotations, mirror images and scalings of
    the space of an encoder change nothing.

    Parameters
    ----------
    features
        (N, D), array or tensor.
    anchors
        (A, D) of the same encoder; more than D of them lose nothing.
    center
        Take the anchors' mean off both before, as for encoders whose features all lie to one side of the origin; then
        shifts change nothing either. The paper does not.

    Returns
    -------
    numpy.ndarray
        (N, A) float32 from -1 to 1.

    Raises
    ------
    DataError
        If the two have different lengths, or a feature has no direction.
    """
    ours, theirs = prepared(features, "l2"), prepared(anchors, "l2")
    if ours.shape[1] != theirs.shape[1]:
        raise DataError(
            f"Features have {ours.shape[1]} numbers and anchors {theirs.shape[1]}.",
            "Encode the anchor pictures by the encoder that the features are from.",
        )
    middle = theirs.mean(axis=0) if center else np.float32(0)
    sides = ours - middle, theirs - middle
    if not all((np.abs(side).max(axis=1, initial=0) > 0).all() for side in sides):
        raise DataError(
            "A feature or an anchor is all zeros, so it has no direction.",
            "Leave out pictures that could not be encoded; one anchor alone cannot be centered.",
        )
    return unit(sides[0]) @ unit(sides[1]).T
