"""IRWE: the role of a node and its place, learned together from random walks, for nodes that were never seen too."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ipse.catalogue import system
from ipse.errors import DataError
from ipse.gallery.graph import random_walks

if TYPE_CHECKING:
    import torch

# Nodes of the walks whose shape counts, classes of degrees, and nodes that a place is read from.
_SHAPE, _DEGREES, _TOKENS = 6, 8, 20
_TEMPERATURE = 0.2


@dataclass(frozen=True)
class Nodes:
    """Embeddings of N nodes.

    Attributes
    ----------
    identity
        (N, D) float32: the role of a node in its surroundings, wherever they are. It is no person's identity.
    position
        (N, D) float32: where in the graph it is.
    """

    identity: npt.NDArray[np.float32]
    position: npt.NDArray[np.float32]


@dataclass(frozen=True)
class WalkStatistics:
    """What random walks tell of the nodes that they start from.

    Attributes
    ----------
    shapes
        (N, A) float32: shares of the anonymous walks, which tell when a walk returns but not whither.
    degrees
        (N, L · B) float32: shares of classes of degrees, step by step.
    place
        (N, P) float32 of length 1: whom the walks visit, by random projection of known nodes.
    tokens, shares
        (N, K) nodes visited most, themselves included, and (N, K) float32 how often.
    """

    shapes: npt.NDArray[np.float32]
    degrees: npt.NDArray[np.float32]
    place: npt.NDArray[np.float32]
    tokens: npt.NDArray[np.intp]
    shares: npt.NDArray[np.float32]

    @classmethod
    def of(cls, graph: Any, projection: npt.NDArray[np.float32], walks: int, length: int, seed: int) -> WalkStatistics:
        """Walk from every node; the first nodes are those that the (M, P) projection knows."""
        paths = random_walks(graph, walks, length, seed)
        count, known = len(paths), len(projection)
        codes = anonymous(paths[..., :_SHAPE])
        shapes = np.stack([(codes == code).mean(axis=1) for code in anonymous_walks(_SHAPE)], axis=1)
        degree = np.diff(graph.tocsr().indptr)
        steps = np.minimum(np.log2(degree).astype(int), _DEGREES - 1)[paths[..., :_SHAPE]]
        degrees = (steps[..., None] == np.arange(_DEGREES)).mean(axis=1).reshape(count, -1)
        place = np.empty((count, projection.shape[1]), np.float32)
        tokens, shares = np.empty((count, _TOKENS), np.intp), np.zeros((count, _TOKENS), np.float32)
        # Node by node: a matrix of all visits would be of all against all.
        for node, path in enumerate(paths.reshape(count, -1)):
            visited, times = np.unique(path, return_counts=True)
            seen = visited < known
            place[node] = times[seen] @ projection[visited[seen]]
            most = np.argsort(-times, kind="stable")[:_TOKENS]
            tokens[node] = node
            tokens[node, : len(most)], shares[node, : len(most)] = visited[most], times[most] / len(path)
        place /= np.maximum(np.linalg.norm(place, axis=1, keepdims=True), 1e-9)
        return cls(shapes.astype(np.float32), degrees.astype(np.float32), place, tokens, shares)


@system(
    name="IRWE",
    paper="IRWE: Inductive Random Walk for Joint Inference of Identity and Position Network Embedding",
    year=2024,
    arxiv="2401.00651",
    room="gallery",
    claim="Attention over statistics of random walks gives every node of a graph an embedding of its role and one of "
    "its place, learned together, also for nodes and graphs that come later and without attributes.",
    evidence=["reid.irwe.*"],
    works_means="On a graph with planted roles and communities, identity embeddings tell roles and position embeddings "
    "communities, each better than the other, also of nodes that were not there in training; a gallery's new pictures "
    "get embeddings without training.",
)
class Irwe:
    """Inductive random walk embedding, after the abstract of Qin and Yeung (2024); the equations are ours.

    - Identity: an attention unit whose query is made from the degrees along the walks reads embeddings of anonymous
      walks, weighed by how often each shape occurs. Shapes and degrees are to be told again from what it reads.
    - Position: an attention unit reads the nodes that walks visit most, each by its identity and by its place, which is
      a random projection of whom its own walks visit. Nodes on one walk are to lie together.

    Both losses are summed. Only statistics of walks go in, so a node needs no training of its own.

    Parameters
    ----------
    graph
        (N, N) sparse symmetric matrix, as for `ipse.gallery.graph.transitions`.
    dim
        D.
    walks, length
        Walks from every node, and nodes of each.
    steps, rate
        Of the optimizer.
    seed
        Of walks, projection and weights.

    Raises
    ------
    DataError
        If the graph cannot be walked.
    """

    def __init__(
        self,
        graph: Any,
        dim: int = 32,
        walks: int = 60,
        length: int = 10,
        steps: int = 200,
        rate: float = 5e-3,
        seed: int = 0,
    ) -> None:
        self.walks, self.length, self.seed = walks, length, seed
        draw = np.random.default_rng(seed)
        self._projection = draw.normal(size=(graph.shape[0], 2 * dim)).astype(np.float32)
        self._module = _train(self._statistics(graph), dim, steps, rate, seed)

    def embed(self, graph: Any) -> Nodes:
        """Embed the nodes of the graph, or of one that has grown: those known from training come first.

        Raises
        ------
        DataError
            If nodes are missing or the graph cannot be walked.
        """
        import torch

        if graph.shape[0] < len(self._projection):
            raise DataError(
                f"The graph has {graph.shape[0]} nodes and was learned with {len(self._projection)}.",
                "Give a graph whose first nodes are those of training.",
            )
        with torch.inference_mode():
            identity, position = self._module(_tensors(self._statistics(graph)))
        return Nodes(identity.numpy(), position.numpy())

    def _statistics(self, graph: Any) -> WalkStatistics:
        return WalkStatistics.of(graph, self._projection, self.walks, self.length, self.seed)


def anonymous(paths: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """(...,) codes of the shapes of (..., L) walks: every node by when it first came (Ivanov and Burnaev 2018)."""
    length = paths.shape[-1]
    first = (paths[..., :, None] == paths[..., None, :]).argmax(axis=-1)
    new = np.cumsum(first == np.arange(length), axis=-1) - 1
    shape = np.take_along_axis(new, first, axis=-1)
    return shape @ (length ** np.arange(length))


def anonymous_walks(length: int) -> list[int]:
    """The codes of all shapes that a walk of `length` nodes without loops can have."""
    shapes = [(0,)]
    for _ in range(length - 1):
        shapes = [(*shape, after) for shape in shapes for after in range(max(shape) + 2) if after != shape[-1]]
    return [
        sum(place * length**step for step, place in zip(itertools.count(), shape, strict=False)) for shape in shapes
    ]


def _tensors(statistics: WalkStatistics) -> dict[str, torch.Tensor]:
    import torch

    return {name: torch.from_numpy(values) for name, values in vars(statistics).items()}


def _train(statistics: WalkStatistics, dim: int, steps: int, rate: float, seed: int) -> torch.nn.Module:
    import torch
    from torch import nn
    from torch.nn import functional

    given = _tensors(statistics)
    count, shapes = given["shapes"].shape
    degrees, places = given["degrees"].shape[1], given["place"].shape[1]

    class Unit(nn.Module):
        """One attention unit: a query reads values, with the logarithms of shares added to what it looks for."""

        def __init__(self, query: int, key: int) -> None:
            super().__init__()
            self.query, self.key, self.value = nn.Linear(query, dim), nn.Linear(key, dim), nn.Linear(key, dim)
            self.out = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))

        def forward(self, asked: torch.Tensor, read: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
            """(N, dim) of (N, query), (A or N × K, key) and (N, A or K)."""
            key = self.key(read)
            query = self.query(asked)
            looked = query @ key.T if key.ndim == 2 else torch.einsum("nd,nkd->nk", query, key)
            weights = (looked / dim**0.5 + shares.clamp(min=1e-9).log()).softmax(-1)
            value = self.value(read)
            found = weights @ value if value.ndim == 2 else torch.einsum("nk,nkd->nd", weights, value)
            return found + self.out(found)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shapes = nn.Parameter(torch.randn(shapes, dim))
            self.identity, self.position = Unit(degrees, dim), Unit(dim + places, dim + places)
            self.again = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, shapes + degrees))

        def forward(self, given: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
            """(N, dim) identities and positions."""
            identity = self.identity(given["degrees"], self.shapes, given["shapes"])
            known = torch.cat([identity, given["place"]], 1)
            return identity, self.position(known, known[given["tokens"]], given["shares"])

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network()
        optimizer = torch.optim.Adam(network.parameters(), lr=rate)
        wanted = torch.cat([given["shapes"], given["degrees"]], 1)
        for _ in range(steps):
            identity, position = network(given)
            told = functional.mse_loss(network.again(identity), wanted) * wanted.shape[1]
            # Of every node one that its walks visit; those of the other nodes of the batch are what it is not near.
            rows = torch.randperm(count)[:512]
            beside = given["tokens"][rows].gather(1, given["shares"][rows].multinomial(1))[:, 0]
            unit = functional.normalize(position)
            near = functional.cross_entropy(unit[rows] @ unit[beside].T / _TEMPERATURE, torch.arange(len(rows)))
            optimizer.zero_grad()
            (told + near).backward()
            optimizer.step()
    return network.eval()
