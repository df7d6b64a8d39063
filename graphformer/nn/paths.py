"""Facts of pairs of nodes that encodings read: shortest paths with their edges, and random walks from node to node.

As the facts of nodes in :mod:`~graphformer.nn.structure`, they depend on the edges alone and are computed once a
sample. They go by pair, in the order of the pairs of :class:`~graphformer.patterns.Full`: query after query, keys
ascending. Memory is O(N^2) a graph, as that of any pattern that joins all pairs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from graphformer._checks import require_count
from graphformer.nn.structure import adjacency_of, checked_edges, edges_of

_TOLD_AT_ONCE = 1 << 25  # triples of query, edge and key that are asked about at a time


class ShortestPaths(NamedTuple):
    """How far each key is from each query, and over which edges; :func:`shortest_paths` makes it.

    Attributes:
        hops: Edges on a shortest path from key to query; -1 where there is none. Shape `[N * N]`, int32.
        num_steps: Number of entries of each pair in the two lists below. Shape `[N * N]`, int32.
        step: For each entry `edge * max_hops + place`: the edge is the place-th from the query's end of a shortest
            path. Shape `[L]`, int64; pair after pair.
        share: How much the entry weighs. Shape `[L]`, float32; the entries of a pair sum to 1.
    """

    hops: Tensor
    num_steps: Tensor
    step: Tensor
    share: Tensor


def shortest_paths(edge_index: Tensor, num_nodes: int, max_hops: int) -> ShortestPaths:
    """The shortest paths of all pairs, with the `max_hops` edges next to the query.

    A path leads along the edges from the key to the query. The entries of a pair are the edges of its shortest paths,
    each weighing 1 / min(length, max_hops), so that a sum over them is a mean along the path. Where several paths are
    shortest, as on opposite sides of a ring, the mean goes over these too (parallel edges make several paths), so that
    nothing hangs on the numbering of the nodes.

    Args:
        edge_index: Edges. Shape `[2, E]`, integer.
        num_nodes: Number of nodes N.
        max_hops: Most edges of a path that are listed, those next to the query; 0 lists none.

    Returns:
        The paths, on the device of `edge_index`.

    Raises:
        InputError: max_hops is negative, the edges are no integers `[2, E]`, or an id is not in [0, num_nodes).

    Example:
        >>> path = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> paths = shortest_paths(path, num_nodes=3, max_hops=2)
        >>> paths.hops.view(3, 3)[0], paths.num_steps.view(3, 3)[0]
        (tensor([0, 1, 2], dtype=torch.int32), tensor([0, 1, 2], dtype=torch.int32))
        >>> paths.step[:3] // 2, paths.step[:3] % 2, paths.share[:3]  # to 0: edge 1 from 1; edges 1 and 3 from 2
        (tensor([1, 1, 3]), tensor([0, 0, 1]), tensor([1.0000, 0.5000, 0.5000]))

    References:
        Ying et al., "Do transformers really perform badly for graph representation?", 2021.
    """
    where = "shortest_paths"
    require_count(max_hops, where, "max_hops", "Pass 0 to list no edges.", minimum=0)
    edge_index = checked_edges(edge_index, num_nodes, where)
    hops, number = _count_paths(edge_index, num_nodes)
    pairs, steps, shares = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    block = max(_TOLD_AT_ONCE // max(edge_index.shape[1] * num_nodes, 1), 1)
    for start in range(0, num_nodes, block):
        for place in range(max_hops):
            query, key, edge, share = _steps(slice(start, start + block), place, edge_index.cpu().numpy(), hops, number)
            pairs.append(query * num_nodes + key)
            steps.append(edge * max_hops + place)
            shares.append(share / np.minimum(hops[query, key], max_hops))
    pair = np.concatenate(pairs)
    order = pair.argsort(kind="stable")
    count = np.bincount(pair, minlength=num_nodes * num_nodes).astype(np.int32)
    step, share = np.concatenate(steps)[order], np.concatenate(shares)[order].astype(np.float32)
    parts = (hops.astype(np.int32).reshape(-1), count, step, share)
    return ShortestPaths(*(torch.from_numpy(part).to(edge_index.device) for part in parts))


def relative_random_walk(edge_index: Tensor, num_nodes: int, steps: int) -> Tensor:
    """The probability that a random walk from the key is at the query after 0, 1, ..., `steps` - 1 steps.

    A walk follows each edge out of its node with the same probability, duplicates counted, and ends at a node without
    out-edges.

    Args:
        edge_index: Edges, walked from row 0 to row 1. Shape `[2, E]`, integer.
        num_nodes: Number of nodes N.
        steps: How many numbers of steps, 0 included.

    Returns:
        Shape `[N * N, steps]`, float32, on the device of `edge_index`.

    Raises:
        InputError: steps is not positive, the edges are no integers `[2, E]`, or an id is not in [0, num_nodes).

    Example:
        >>> path = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> relative_random_walk(path, num_nodes=3, steps=3).view(3, 3, 3)[0]
        tensor([[1.0000, 0.0000, 0.5000],
                [0.0000, 0.5000, 0.0000],
                [0.0000, 0.0000, 0.5000]])

    References:
        Ma et al., "Graph inductive biases in transformers without message passing", 2023.
    """
    where = "relative_random_walk"
    require_count(steps, where, "steps", "Leave the encoding out to do without.")
    edge_index = checked_edges(edge_index, num_nodes, where)
    adjacency = adjacency_of(edge_index, num_nodes)
    degree = adjacency.sum(axis=1)
    back = adjacency.T.tocsr() * np.divide(1.0, degree, out=np.zeros_like(degree), where=degree > 0)
    walk = np.eye(num_nodes)
    out = np.empty((num_nodes, num_nodes, steps), dtype=np.float32)
    for number in range(steps):
        out[:, :, number] = walk
        walk = back @ walk
    return torch.from_numpy(out).view(num_nodes * num_nodes, steps).to(edge_index.device)


class AddShortestPaths(BaseTransform):
    """Stores :func:`shortest_paths` as `data.hops` and `data.path_num_steps`, `data.path_step`, `data.path_share`.

    Steps name edges by their place in their own sample; a reader of a batch adds the edges of the samples before.

    Args:
        max_hops: Most edges of a path that are listed.

    Example:
        >>> AddShortestPaths(2)(Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2)).hops
        tensor([ 0, -1,  1,  0], dtype=torch.int32)
    """

    def __init__(self, max_hops: int) -> None:
        self.max_hops = max_hops

    def forward(self, data: Data) -> Data:
        """Add the paths."""
        paths = shortest_paths(*edges_of(data), self.max_hops)
        data.hops, data.path_num_steps, data.path_step, data.path_share = paths
        return data

    def __repr__(self) -> str:
        return f"{type(self).__name__}(max_hops={self.max_hops})"


class AddRelativeRandomWalk(BaseTransform):
    """Stores :func:`relative_random_walk` as `data.relative_random_walk`, shape `[N * N, steps]`.

    Args:
        steps: How many numbers of steps, 0 included.

    Example:
        >>> AddRelativeRandomWalk(4)(Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2))
        Data(edge_index=[2, 1], num_nodes=2, relative_random_walk=[4, 4])
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def forward(self, data: Data) -> Data:
        """Add the probabilities."""
        data.relative_random_walk = relative_random_walk(*edges_of(data), self.steps)
        return data

    def __repr__(self) -> str:
        return f"{type(self).__name__}(steps={self.steps})"


def _count_paths(edge_index: Tensor, num_nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """For each (query, key): the length of the shortest paths from key to query, -1 for none, and their number."""
    back = adjacency_of(edge_index, num_nodes).T.tocsr()
    number = np.eye(num_nodes)
    hops = np.where(number > 0, 0, -1)
    front, length = number, 0
    while front.any():
        length += 1
        front = np.where(hops < 0, front @ back, 0.0)
        hops[front > 0] = length
        number = number + front
    return hops, number


def _steps(queries: slice, place: int, edge_index: np.ndarray, hops: np.ndarray, number: np.ndarray) -> Any:
    """The place-th edges from the end of the shortest paths to some queries.

    Returns:
        (query, key, edge, share of the pair's paths that take the edge), `[L]` each.
    """
    source, target = edge_index
    # The path from key to query takes source -> target where the rest on both sides is shortest too.
    query, edge = ((hops[queries][:, target] == place) & (hops[queries][:, source] == place + 1)).nonzero()
    query = query + queries.start
    before = hops[source[edge]]
    entry, key = ((before >= 0) & (before + place + 1 == hops[query])).nonzero()
    query, edge = query[entry], edge[entry]
    share = number[query, target[edge]] * number[source[edge], key] / number[query, key]
    return query, key, edge, share
