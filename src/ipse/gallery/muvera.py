"""MUVERA: search among templates of several vectors by one inner product, then look at the best exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ipse.catalogue import system
from ipse.gallery.multivector import Chamfer, VectorSets
from ipse.measure.distances import nearest

Side = Literal["query", "document"]


@dataclass(frozen=True)
class FixedDimensionalEncoding:
    """Templates as single vectors whose inner products approach the Chamfer similarity (section 2).

    In each repetition, random hyperplanes (SimHash) cut space into 2^`bits` cells, so that near vectors are likely to
    share one. A query's vectors are summed in each cell and a document's averaged, for then the inner product of two
    cells is the sum over the query's vectors there of the mean cosine with the document's. A cell in which a document
    has nothing takes the document's vector whose code differs in the fewest bits.

    Attributes
    ----------
    dim
        D of the vectors.
    bits
        Hyperplanes of a repetition, the paper's k_sim; from 0 to 16.
    repetitions
        The paper's R_reps: with more, errors average out.
    inner
        Numbers that a cell keeps of its vector, by a random matrix of ±1 / √`inner` (the paper's ψ, d_proj); None
        keeps all.
    final
        Numbers of the whole (the paper's ψ′, d_final): each number is added, with a random sign, to a random one of so
        many, a projection that costs one addition for each; None keeps all.
    seed
        Of all that is random; both sides must have the same.
    """

    dim: int
    bits: int = 4
    repetitions: int = 20
    inner: int | None = 16
    final: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.bits <= 16 or self.repetitions < 1 or min(self.inner or 1, self.final or 1) < 1:
            raise ValueError("Bits are from 0 to 16; repetitions, inner and final numbers are 1 or more.")

    @property
    def size(self) -> int:
        """Numbers of an encoding."""
        return self.final or self.repetitions * 2**self.bits * (self.inner or self.dim)

    def encode(self, sets: VectorSets, side: Side) -> npt.NDArray[np.float32]:
        """(S, `size`) encodings of S templates; the two sides differ."""
        if sets.vectors.shape[1] != self.dim:
            raise ValueError(f"Vectors have {sets.vectors.shape[1]} numbers; the encoding is for {self.dim}.")
        from scipy.sparse import csr_matrix

        generator = np.random.default_rng(self.seed)
        width = 2**self.bits * (self.inner or self.dim)
        whole = np.zeros((len(sets), self.size), np.float32)
        for repetition in range(self.repetitions):
            planes = generator.normal(size=(self.dim, self.bits)).astype(np.float32)
            vectors = sets.vectors
            if self.inner is not None:
                signs = generator.choice(np.float32([-1, 1]), (self.dim, self.inner))
                vectors = vectors @ (signs / np.float32(self.inner**0.5))
            cells = self._cells(sets, (sets.vectors @ planes > 0) @ (1 << np.arange(self.bits)), vectors, side)
            flat = cells.reshape(len(sets), width)
            if self.final is None:
                whole[:, repetition * width : (repetition + 1) * width] = flat
            else:
                places = generator.integers(0, self.final, width)
                signs = generator.choice(np.float32([-1, 1]), width)
                sketch = csr_matrix((signs, (places, np.arange(width))), (self.final, width))
                whole += (sketch @ flat.T).T
        # The repetitions' mean approaches the similarity; so does that of the two sides with a root each.
        whole /= np.float32(self.repetitions**0.5)
        return whole

    def _cells(
        self, sets: VectorSets, codes: npt.NDArray[np.intp], vectors: npt.NDArray[np.float32], side: Side
    ) -> npt.NDArray[np.float32]:
        """(S, cells, d) sums or means of (N, d) vectors by template and (N,) cell."""
        from scipy.sparse import csr_matrix

        count, total = 2**self.bits, len(vectors)
        place = sets.owners * count + codes
        summed = csr_matrix((np.ones(total, np.float32), (place, np.arange(total))), (len(sets) * count, total))
        cells = summed @ vectors
        if side == "document":
            held = np.diff(summed.indptr)
            cells /= np.maximum(held, 1)[:, None]
            # Of each template and cell the vector with the fewest bits different, of equal ones the first.
            bits = np.bitwise_count(np.arange(count) ^ codes[:, None]).astype(np.int64)
            bits *= total
            bits += np.arange(total)[:, None]
            closest = np.minimum.reduceat(bits, sets.starts, axis=0).reshape(-1) % total
            cells[held == 0] = vectors[closest[held == 0]]
        return cells.reshape(len(sets), count, -1)


@system(
    name="MUVERA",
    paper="MUVERA: Multi-Vector Retrieval via Fixed Dimensional Encodings",
    year=2024,
    arxiv="2405.19504",
    room="gallery",
    claim="Search among templates of several vectors becomes a search by one inner product, after which few "
    "candidates are compared exactly.",
    evidence=["reid.muvera.*"],
    works_means="On Market-1501 val, recall is within 2 points of comparing all vectors with all, at a tenth of the "
    "multiplications, and above that of mean vectors. Shown for the nearest template; among 5 and 10 more is lost, and "
    "on a gallery so small no processor time is saved.",
    status="experimental",
)
class MuveraSearch:
    """Distances of a MUVERA search: exact ones for the best candidates, all others behind them.

    The candidates of a query are the gallery templates whose encodings have the largest inner products with its own
    (section 2); their Chamfer distances are exact. The rest follow at distances of 4 and more, in the order of the
    encodings.

    Parameters
    ----------
    query, gallery
        Q and G templates.
    encoding
        How templates become single vectors.
    candidates
        How many are compared exactly.
    encoded
        (G, size) encodings of the gallery, where they were kept.
    """

    def __init__(
        self,
        query: VectorSets,
        gallery: VectorSets,
        encoding: FixedDimensionalEncoding,
        candidates: int = 100,
        encoded: npt.NDArray[np.float32] | None = None,
    ) -> None:
        self.query, self.gallery, self.encoding = query, gallery, encoding
        self.candidates = min(candidates, len(gallery))
        if self.candidates < 1:
            raise ValueError("A search needs one candidate at least, and a gallery.")
        self.encoded = encoding.encode(gallery, "document") if encoded is None else encoded

    @property
    def shape(self) -> tuple[int, int]:
        """Q and G."""
        return len(self.query), len(self.gallery)

    def select(self, query: npt.NDArray[np.intp], gallery: npt.NDArray[np.intp]) -> MuveraSearch:
        """The same for some of the queries and some of the gallery."""
        chosen = self.query.select(query), self.gallery.select(gallery)
        return MuveraSearch(*chosen, self.encoding, self.candidates, self.encoded[gallery])

    def rows(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """(stop - start, G) distances; see `ipse.measure.distances.DistanceSource`."""
        some = self.query.select(np.arange(start, stop))
        likeness = self.encoding.encode(some, "query") @ self.encoded.T
        distances = 4 + (likeness.max(axis=1, keepdims=True) - likeness) / some.sizes[:, None]
        for i, row in enumerate(distances):
            near = next(nearest(row[None], self.candidates))
            near = near[np.argsort(row[near], kind="stable")[: self.candidates]]
            row[near] = Chamfer(some.select(np.array([i])), self.gallery.select(near)).rows(0, 1)[0]
        return distances

    def multiplications(self) -> float:
        """What a query costs on average: its encoding, the inner products and the exact comparisons."""
        mine, theirs, dim = self.query.sizes.mean(), self.gallery.sizes.mean(), self.encoding.dim
        encoding = self.encoding.repetitions * mine * dim * (self.encoding.bits + (self.encoding.inner or 0))
        return float(encoding + len(self.gallery) * self.encoding.size + self.candidates * mine * theirs * dim)
