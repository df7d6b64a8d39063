"""Facts of a node set that encodings read: Laplacian eigenvectors and random-walk probabilities.

They depend on the edges alone and have no weights, so they are computed once a sample, before training. The functions
are pure; the transforms beside them follow PyG's manners and store the result on the data.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from graphformer._checks import require, require_count
from graphformer.graphs.convert import read_adjacency

# Up to this many nodes a dense eigensolver is exact and fast; above it Lanczos finds the few that are asked for.
_DENSE_NODES = 512
_START_NODES = 256  # walks are followed from this many nodes at a time: a block of [N, 256] numbers


class LaplacianSpectrum(NamedTuple):
    """Eigenvalues `[k]`, NaN where there are fewer than k, and eigenvectors `[N, k]`, zero there."""

    eigenvalues: Tensor
    eigenvectors: Tensor


def laplacian_spectrum(edge_index: Tensor, num_nodes: int, k: int) -> LaplacianSpectrum:
    """The k smallest eigenvalues of the normalised Laplacian and their eigenvectors, the first one left out.

    The Laplacian is I - D^(-1/2) A D^(-1/2) of the undirected graph without self loops and duplicates; an isolated
    node has a row of zeros (eigenvalue 0). Columns go by rising eigenvalue and have length 1; their sign is fixed by
    making the entry of largest size positive, and within equal eigenvalues any basis may come out.

    Args:
        edge_index: Edges, read as undirected. Shape `[2, E]`, integer.
        num_nodes: Number of nodes N.
        k: Number of eigenvectors. Columns beyond the N - 1 that exist are zero.

    Returns:
        Shapes `[k]` and `[N, k]`, float32, on the device of `edge_index`.

    Raises:
        InputError: k is not positive, the edges are no integers `[2, E]`, or an id is not in [0, num_nodes).

    Example:
        >>> path = torch.tensor([[0, 1], [1, 2]])
        >>> laplacian_spectrum(path, num_nodes=3, k=3).eigenvalues
        tensor([1., 2., nan])

    References:
        Dwivedi and Bresson, "A generalization of transformer networks to graphs", 2021.
    """
    return _spectrum(edge_index, num_nodes, k, "laplacian_spectrum")


def laplacian_eigenvectors(edge_index: Tensor, num_nodes: int, k: int) -> Tensor:
    """The eigenvectors of :func:`laplacian_spectrum`, which has the same arguments and errors. Shape `[N, k]`, float32.

    Example:
        >>> path = torch.tensor([[0, 1], [1, 2]])
        >>> laplacian_eigenvectors(path, num_nodes=3, k=3)[1]
        tensor([0.0000, 0.7071, 0.0000])
    """
    return _spectrum(edge_index, num_nodes, k, "laplacian_eigenvectors").eigenvectors


def _spectrum(edge_index: Tensor, num_nodes: int, k: int, where: str) -> LaplacianSpectrum:
    require_count(k, where, "k", "Leave the encoding out to do without.")
    edge_index = checked_edges(edge_index, num_nodes, where)
    out, eigenvalues = np.zeros((num_nodes, k)), np.full(k, np.nan)
    count = min(k, num_nodes - 1)
    if count > 0:
        values, vectors = _smallest_eigenpairs(_normalised_laplacian(edge_index, num_nodes), count + 1)
        eigenvalues[:count], vectors = values[1:].round(9) + 0.0, vectors[:, 1:]
        # Rounding keeps entries of equal size equal, so that the first of them decides.
        largest = np.abs(vectors).round(6).argmax(axis=0)
        out[:, :count] = vectors * np.where(vectors[largest, np.arange(count)] < 0, -1.0, 1.0)
        out[np.abs(out) < 1e-9] = 0.0
    return LaplacianSpectrum(
        *(torch.from_numpy(part).to(edge_index.device, torch.float32) for part in (eigenvalues, out))
    )


def random_walk_probabilities(edge_index: Tensor, num_nodes: int, steps: int) -> Tensor:
    """The probability that a random walk from a node is back there after 1, 2, ..., `steps` steps.

    A walk follows each edge out of its node with the same probability, duplicates counted; a walk at a node without
    out-edges ends, so an isolated node has zeros.

    Args:
        edge_index: Edges, walked from row 0 to row 1. Shape `[2, E]`, integer.
        num_nodes: Number of nodes N.
        steps: Largest number of steps.

    Returns:
        Shape `[N, steps]`, float32, on the device of `edge_index`.

    Raises:
        InputError: steps is not positive, the edges are no integers `[2, E]`, or an id is not in [0, num_nodes).

    Notes:
        Time O(N E steps) and memory O(256 N) above 512 nodes, where the powers of the step matrix would fill in.

    Example:
        >>> triangle = torch.tensor([[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 0, 2]])
        >>> random_walk_probabilities(triangle, num_nodes=3, steps=3)[0]
        tensor([0.0000, 0.5000, 0.2500])

    References:
        Dwivedi et al., "Graph neural networks with learnable structural and positional representations", 2022.
    """
    where = "random_walk_probabilities"
    require_count(steps, where, "steps", "Leave the encoding out to do without.")
    edge_index = checked_edges(edge_index, num_nodes, where)
    adjacency = adjacency_of(edge_index, num_nodes)
    degree = adjacency.sum(axis=1)
    step = scipy.sparse.diags_array(np.divide(1.0, degree, out=np.zeros_like(degree), where=degree > 0)) @ adjacency
    if num_nodes <= _DENSE_NODES:
        step = step.toarray()
    out = np.empty((num_nodes, steps))
    for start in range(0, num_nodes, _START_NODES):
        stop = min(start + _START_NODES, num_nodes)
        walk = np.eye(num_nodes, stop - start, k=-start)  # the columns start to stop of the identity
        for number in range(steps):
            walk = step @ walk
            out[start:stop, number] = walk[start:stop].diagonal()
    return torch.from_numpy(out).to(edge_index.device, torch.float32)


class AddLaplacianEigenvectors(BaseTransform):
    """Stores :func:`laplacian_eigenvectors` as `data.laplacian_eigenvectors`, shape `[N, k]`.

    Args:
        k: Number of eigenvectors.
        eigenvalues: Whether to store their eigenvalues too, as `data.laplacian_eigenvalues`, a row for every node.
            Shape `[N, k]`, NaN where there are fewer than k. Default: no.

    Example:
        >>> AddLaplacianEigenvectors(2)(Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2))
        Data(edge_index=[2, 1], num_nodes=2, laplacian_eigenvectors=[2, 2])
    """

    def __init__(self, k: int, eigenvalues: bool = False) -> None:
        self.k = k
        self.eigenvalues = eigenvalues

    def forward(self, data: Data) -> Data:
        """Add the eigenvectors."""
        edge_index, num_nodes = edges_of(data)
        values, data.laplacian_eigenvectors = _spectrum(edge_index, num_nodes, self.k, "laplacian_eigenvectors")
        if self.eigenvalues:
            data.laplacian_eigenvalues = values.expand(num_nodes, -1).contiguous()
        return data

    def __repr__(self) -> str:
        told = ", eigenvalues=True" if self.eigenvalues else ""
        return f"{type(self).__name__}(k={self.k}{told})"


class AddRandomWalk(BaseTransform):
    """Stores :func:`random_walk_probabilities` as `data.random_walk`, shape `[N, steps]`.

    Args:
        steps: Largest number of steps.

    Example:
        >>> AddRandomWalk(4)(Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2))
        Data(edge_index=[2, 1], num_nodes=2, random_walk=[2, 4])
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def forward(self, data: Data) -> Data:
        """Add the probabilities."""
        data.random_walk = random_walk_probabilities(*edges_of(data), self.steps)
        return data

    def __repr__(self) -> str:
        return f"{type(self).__name__}(steps={self.steps})"


def edges_of(data: Data) -> tuple[Tensor, int]:
    """The edges of a sample `[2, E]`, empty where it has none, and its number of nodes.

    Example:
        >>> edges_of(Data(num_nodes=3))[0].shape
        torch.Size([2, 0])
    """
    num_nodes: Any = data.num_nodes
    edge_index = data.edge_index
    return (torch.empty(2, 0, dtype=torch.int64) if edge_index is None else edge_index), num_nodes


def checked_edges(edge_index: Any, num_nodes: int, where: str) -> Tensor:
    """The edges `[2, E]`, int64, of what may stand for them.

    Raises:
        InputError: They are no integers `[2, E]`, or an id is not in [0, num_nodes); `where` is named.

    Example:
        >>> checked_edges(torch.tensor([[0], [2]]), num_nodes=2, where="shortest_paths")
        Traceback (most recent call last):
        ...
        graphformer._errors.InputError: shortest_paths: edge_index must hold ids in [0, 2); got 2. Correct the ids, ...
    """
    require_count(num_nodes, where, "num_nodes", "Pass a count of nodes.", minimum=0)
    edge_index, _ = read_adjacency(edge_index, where)
    low, high = (int(value) for value in torch.aminmax(edge_index)) if edge_index.numel() else (0, -1)
    inside = low >= 0 and high < num_nodes
    rule = f"hold ids in [0, {num_nodes})"
    require(inside, where, "edge_index", rule, low if low < 0 else high, "Correct the ids, or set num_nodes.")
    return edge_index


def adjacency_of(edge_index: Tensor, num_nodes: int) -> scipy.sparse.csr_array:
    """The matrix `[N, N]`, float64, that counts the edges from its row's node to its column's.

    Example:
        >>> adjacency_of(torch.tensor([[0, 0], [1, 1]]), num_nodes=2).toarray().tolist()
        [[0.0, 2.0], [0.0, 0.0]]
    """
    source, target = edge_index.cpu().numpy()
    ones = np.ones(source.shape[0])
    return scipy.sparse.coo_array((ones, (source, target)), shape=(num_nodes, num_nodes)).tocsr()


def _normalised_laplacian(edge_index: Tensor, num_nodes: int) -> scipy.sparse.csr_array:
    adjacency = adjacency_of(edge_index[:, edge_index[0] != edge_index[1]], num_nodes)
    adjacency = ((adjacency + adjacency.T) > 0).astype(np.float64)
    degree = adjacency.sum(axis=1)
    scale = scipy.sparse.diags_array(np.divide(1.0, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0))
    return (scipy.sparse.diags_array((degree > 0).astype(np.float64)) - scale @ adjacency @ scale).tocsr()


def _smallest_eigenpairs(matrix: scipy.sparse.csr_array, count: int) -> tuple[np.ndarray, np.ndarray]:
    num_nodes = matrix.shape[0]
    if num_nodes <= _DENSE_NODES or count >= num_nodes:
        values, vectors = np.linalg.eigh(matrix.toarray())
        return values[:count], vectors[:, :count]
    start = np.linspace(1.0, 2.0, num_nodes)  # a fixed start, so that one graph always gives one answer
    # The spectrum lies in [0, 2]; Lanczos finds the largest of 2 I - L faster than the smallest of L.
    values, vectors = scipy.sparse.linalg.eigsh(
        2.0 * scipy.sparse.eye_array(num_nodes) - matrix, k=count, which="LA", v0=start
    )
    order = np.argsort(-values)
    return 2.0 - values[order], vectors[:, order]
