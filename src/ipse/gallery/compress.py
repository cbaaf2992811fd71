"""Embeddings in few bytes: five kinds of codes under one interface, to be compared at equal size.

A gallery keeps codes of exactly so many bytes each; queries stay as they are and are compared with what the codes stand
for. `ipse.gallery.codes` is the code of one byte a dimension that needs nothing learned.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from ipse.catalogue import system
from ipse.gallery.codes import quantize, restored
from ipse.gallery.rerank import prepared


class Codec(ABC):
    """Turns vectors into codes of `size` bytes, and back into what they stand for.

    Parameters
    ----------
    size
        Bytes of a code.
    seed
        Of what is random.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        if size < 1:
            raise ValueError(f"A code has one byte or more, not {size}.")
        self.size, self.seed = size, seed

    def fit(self, vectors: npt.ArrayLike) -> Codec:
        """Learn what the codes need from (N, D) vectors, of other people than those that are searched.

        Raises
        ------
        ValueError
            If a code of this size cannot hold vectors of D numbers, or there are too few of them.
        """
        self._fit(prepared(vectors, "cosine"))
        return self

    def encode(self, vectors: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """(N, size) codes of (N, D) vectors; their lengths are lost."""
        return self._encode(prepared(vectors, "cosine"))

    @abstractmethod
    def decode(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(N, D) vectors that (N, size) codes stand for; only their directions mean something."""

    @abstractmethod
    def _fit(self, vectors: npt.NDArray[np.float32]) -> None: ...

    @abstractmethod
    def _encode(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]: ...


class _Leading:
    """The directions in which (N, D) vectors are largest: principal components around the origin.

    Around the origin rather than the mean, so that inner products are kept.
    """

    def __init__(self, vectors: npt.NDArray[np.float32], count: int) -> None:
        from sklearn.decomposition import TruncatedSVD

        if count > min(vectors.shape):
            raise ValueError(
                f"{len(vectors)} vectors of {vectors.shape[1]} numbers have no {count} leading directions; take a "
                "smaller code, or one of another kind."
            )
        fitted = TruncatedSVD(count, algorithm="randomized", n_iter=7, random_state=0).fit(vectors)
        self.axes = fitted.components_.astype(np.float32)

    def onto(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return vectors @ self.axes.T

    def back(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return values @ self.axes


class HalfComponents(Codec):
    """The leading `size` / 2 principal components in half precision."""

    def _fit(self, vectors: npt.NDArray[np.float32]) -> None:
        if self.size % 2:
            raise ValueError(f"Numbers of half precision have two bytes each, so a code cannot have {self.size}.")
        self._leading = _Leading(vectors, self.size // 2)

    def _encode(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        return np.ascontiguousarray(self._leading.onto(vectors), "<f2").view(np.uint8)

    def decode(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See `Codec.decode`."""
        return self._leading.back(np.ascontiguousarray(codes).view("<f2").astype(np.float32))


class ScalarCodes(Codec):
    """The leading `size` principal components in a byte each, as `ipse.gallery.codes.quantize` has them."""

    def _fit(self, vectors: npt.NDArray[np.float32]) -> None:
        self._leading = _Leading(vectors, self.size)

    def _encode(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        return quantize(self._leading.onto(vectors)).view(np.uint8)

    def decode(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See `Codec.decode`."""
        return self._leading.back(restored(np.ascontiguousarray(codes).view(np.int8)))


class ProductCodes(Codec):
    """Product quantization (Jégou et al. 2011): `size` parts of a vector, each the number of its nearest of 256 means.

    The means are those of k-means; parts have equally many dimensions, up to one.
    """

    def _fit(self, vectors: npt.NDArray[np.float32]) -> None:
        from sklearn.cluster import KMeans

        if self.size > vectors.shape[1] or len(vectors) < 256:
            raise ValueError(
                f"{len(vectors)} vectors of {vectors.shape[1]} numbers cannot be split into {self.size} parts with 256 "
                "means each; take a smaller code or more vectors."
            )
        self._means = [
            KMeans(256, init="random", n_init=1, max_iter=25, random_state=self.seed)
            .fit(part)
            .cluster_centers_.astype(np.float32)
            for part in np.array_split(vectors, self.size, axis=1)
        ]

    def _encode(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        codes = np.empty((len(vectors), self.size), np.uint8)
        for column, part, means in zip(codes.T, np.array_split(vectors, self.size, axis=1), self._means, strict=True):
            column[:] = ((means**2).sum(axis=1) - 2 * part @ means.T).argmin(axis=1)
        return codes

    def decode(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See `Codec.decode`."""
        return np.concatenate([means[column] for column, means in zip(codes.T, self._means, strict=True)], axis=1)


class _Signs(Codec):
    """A bit for the side of each of 8 · `size` planes through the origin, (8 · size, D), that a vector lies on."""

    _planes: npt.NDArray[np.float32]

    def _encode(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        return np.packbits(vectors @ self._planes.T > 0, axis=1)

    def decode(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """See `Codec.decode`."""
        return (np.unpackbits(codes, axis=1).astype(np.float32) * 2 - 1) @ self._planes


class BinaryCodes(_Signs):
    """The signs of the leading 8 · `size` principal components, turned at random so that all of them tell as much."""

    def _fit(self, vectors: npt.NDArray[np.float32]) -> None:
        bits = 8 * self.size
        turn, _ = np.linalg.qr(np.random.default_rng(self.seed).normal(size=(bits, bits)))
        self._planes = turn.astype(np.float32) @ _Leading(vectors, bits).axes


class HyperplaneCodes(_Signs):
    """Random hyperplanes (SimHash, Charikar 2002): two vectors differ in a bit as often as their angle is of 180°."""

    def _fit(self, vectors: npt.NDArray[np.float32]) -> None:
        planes = np.random.default_rng(self.seed).normal(size=(8 * self.size, vectors.shape[1]))
        self._planes = planes.astype(np.float32)


CODECS: dict[str, type[Codec]] = {
    "pca": HalfComponents,
    "scalar": ScalarCodes,
    "product": ProductCodes,
    "binary": BinaryCodes,
    "hyperplanes": HyperplaneCodes,
}
"""By name, the kinds of codes."""


@system(
    name="EmbCompressBench",
    paper="Experimental Analysis of Large-scale Learnable Vector Storage Compression",
    year=2024,
    arxiv="2311.15578",
    room="gallery",
    claim="Ways to store embeddings in few bytes are compared under one interface at equal size; which is best depends "
    "on the size.",
    evidence=["reid.compress.*"],
    works_means="On Market-1501 val, five kinds of codes keep to budgets of 8 to 64 bytes to the byte, with their mAP "
    "and rank-1 beside full vectors, and the order of the kinds is the same for three seeds at every budget.",
    status="experimental",
)
def codec(kind: str, size: int, seed: int = 0) -> Codec:
    """A code of some kind and size, to be fitted.

    The paper compares compressions of embedding tables for recommendation and retrieval; here are those that apply to
    vectors in a gallery: lower rank (``pca``), quantization (``scalar``, ``product``, ``binary``) and hashing
    (``hyperplanes``).

    Parameters
    ----------
    kind
        A name in `CODECS`.
    size
        Bytes of a code.
    seed
        Of what is random.

    Raises
    ------
    ValueError
        If there is no such kind, or the size is not positive.
    """
    if kind not in CODECS:
        raise ValueError(f"There is no kind of code {kind!r}, but {', '.join(CODECS)}.")
    return CODECS[kind](size, seed)
