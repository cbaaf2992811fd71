"""Colors of clothes as features: what re-identification used before networks, and what still tells clothes best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image


def hsv_stripes(
    images: Sequence[npt.NDArray[np.uint8]], stripes: int = 8, bins: tuple[int, int, int] = (8, 4, 4)
) -> npt.NDArray[np.float32]:
    """Histograms of colors in horizontal stripes.

    Each stripe has one joint histogram of hue, saturation and value that sums to 1; the roots of its counts are taken,
    so that the cosine of two pictures is the mean Bhattacharyya coefficient of their stripes (Hellinger's distance).

    Parameters
    ----------
    images
        N pictures, (H, W, 3) uint8 RGB, of any size.
    stripes
        Of equal height.
    bins
        Of hue, saturation and value.

    Returns
    -------
    numpy.ndarray
        (N, stripes × bins) float32.
    """
    size = int(np.prod(bins))
    found = np.empty((len(images), stripes, size), np.float32)
    for row, image in zip(found, images, strict=True):
        hsv = np.asarray(Image.fromarray(image).convert("HSV"), np.int64)
        hue, saturation, value = (hsv[..., i] * count // 256 for i, count in enumerate(bins))
        cell = (hue * bins[1] + saturation) * bins[2] + value
        for histogram, stripe in zip(row, np.array_split(cell, stripes), strict=True):
            histogram[:] = np.sqrt(np.bincount(stripe.ravel(), minlength=size) / stripe.size)
    return found.reshape(len(images), -1)
