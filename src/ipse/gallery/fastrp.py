"""FastRP: places in a graph by random projection, without training and without a matrix of all against all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ipse.catalogue import system
from ipse.gallery.graph import transitions

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@system(
    name="FastRP",
    paper="Fast and Accurate Network Embeddings via Very Sparse Random Projection",
    year=2019,
    arxiv="1908.11512",
    room="gallery",
    claim="Node embeddings as good as those of DeepWalk thousands of times faster, by a very sparse random projection "
    "of powers of the transition matrix, weighed by degree.",
    evidence=["reid.fastrp.*"],
    works_means="On a graph with planted communities and on a gallery's neighbor graph, communities and people are "
    "told as well as by DeepWalk in a hundredth of its processor time; the result equals the dense formula.",
)
def fastrp(
    graph: Any,
    dim: int = 128,
    weights: Sequence[float] = (0.0, 0.0, 1.0, 2.0),
    strength: float = -0.5,
    seed: int = 0,
) -> npt.NDArray[np.float64]:
    """Embed the nodes of a graph (Chen et al. 2019, sections 3.2–3.4, algorithm 1).

    With P the transition matrix and L the diagonal matrix of (degree / sum of degrees) to the power `strength`, the
    similarity of nodes is Σ αᵢ Pⁱ L. It is multiplied from the right by a very sparse random matrix R, so that only
    (N, dim) matrices are ever held: L R, then P of it, again and again.

    Parameters
    ----------
    graph
        (N, N) sparse symmetric matrix of weights from 0 up, such as `nearest_graph` gives; every node has an edge.
    dim
        Numbers of an embedding.
    weights
        αᵢ of the powers from the first on. The paper leaves the first two out and chooses the others by the task.
    strength
        β, 0 or less: how far nodes with many edges are held back.
    seed
        Of R.

    Returns
    -------
    numpy.ndarray
        (N, dim), to be compared by cosine.

    Raises
    ------
    DataError
        If the graph cannot be walked.
    ValueError
        If there are no weights, or `dim` is less than 1.
    """
    if not len(weights) or dim < 1:
        raise ValueError(f"There are {len(weights)} weights and {dim} dimensions; give one of each at least.")
    walk = transitions(graph)
    degree = np.asarray(graph.sum(axis=1), np.float64).reshape(-1)
    scaled = projection(len(degree), dim, seed).multiply(((degree / degree.sum()) ** strength)[:, None])
    reached, embedding = scaled.toarray(), np.zeros((len(degree), dim))
    for weight in weights:
        reached = walk @ reached
        embedding += weight * reached
    return embedding


def projection(count: int, dim: int, seed: int = 0) -> csr_array:
    """The very sparse random matrix of Li et al. 2006 (equation 3 of the paper).

    Parameters
    ----------
    count, dim
        Its shape.
    seed
        Another one gives another matrix.

    Returns
    -------
    scipy.sparse.csr_array
        (count, dim): with s = √count, √s and -√s, each with the chance 1 / 2s, and zeros.
    """
    from scipy.sparse import csr_array

    draw, sparsity = np.random.default_rng(seed), np.sqrt(count)
    # How many entries a column has is drawn first, so that no zero is.
    sizes = draw.binomial(count, 1 / sparsity, size=dim)
    rows = np.concatenate([draw.choice(count, size, replace=False) for size in sizes])
    signs = draw.choice((-1.0, 1.0), len(rows)) * np.sqrt(sparsity)
    return csr_array((signs, (rows, np.repeat(np.arange(dim), sizes))), shape=(count, dim))
