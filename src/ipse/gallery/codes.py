"""Embeddings as codes of one byte for each dimension, as FaceNet keeps a face in 128 bytes (Schroff et al., 2015)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def quantize(vectors: npt.ArrayLike) -> npt.NDArray[np.int8]:
    """The directions of vectors in 8 bits a dimension.

    Each vector is scaled so that its largest component is ±127 and then rounded. Its length is lost, which neither
    cosines nor distances on the unit sphere need; so no scale has to be kept beside the codes.

    Parameters
    ----------
    vectors
        (N, D) finite numbers.

    Returns
    -------
    numpy.ndarray
        (N, D); a vector of zeros stays one.

    Raises
    ------
    ValueError
        If a number is not finite.
    """
    rows = np.asarray(vectors, np.float32)
    if not np.isfinite(rows).all():
        raise ValueError("Vectors are not all finite; leave out those of faces that were not found.")
    largest = np.abs(rows).max(-1, keepdims=True, initial=np.finfo(np.float32).tiny)
    return np.round(rows / largest * 127).astype(np.int8)


def restored(codes: npt.NDArray[np.int8]) -> npt.NDArray[np.float32]:
    """(N, D) unit vectors of the directions that (N, D) codes stand for."""
    rows = codes.astype(np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1)
