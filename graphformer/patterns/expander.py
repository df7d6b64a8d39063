"""Expanders: few edges a node, and yet every node is a few steps from every other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphformer._checks import require
from graphformer._philox import philox, uniform_below
from graphformer.patterns.by_size import BySize
from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import check_seed, check_whole

_ORDERS, _SWAPS = 2**32 - 1, 2**32 - 2  # last word of the counters, where Random has the number of queries
_BLOCK = 1024  # random places drawn at a time
_KEPT_NODES = 512  # sets up to here keep their graph: molecules are many, and of few sizes


@dataclass(frozen=True, repr=False)
class Expander(BySize):
    """Each node attends to `degree` others, along a random regular graph (Exphormer: Shirzad et al., 2023).

    The graph is the union of `degree / 2` random Hamiltonian cycles. Where cycles share an edge, the later one trades
    it against another random edge, so that the graph is exactly regular; it is symmetric, and connected by its first
    cycle. Such a graph is almost surely a near-optimal expander (Friedman, "A proof of Alon's second eigenvalue
    conjecture", 2008). A set of at most `2 * degree` nodes is seen as a whole. No node sees itself: add `| Window(0)`.

    The draw is a pure function of the seed and the size of the set: a set gets the same graph alone, in any batch, in
    any worker and on any device.

    Args:
        degree: Neighbours of each node: even, 2 or more, because each cycle gives two.
        seed: Any 64-bit integer.

    Raises:
        InputError: An odd degree, or a (keys, queries) tuple of nodes.

    Example:
        >>> Expander(4, seed=1).on([100, 3])
        AttentionGraph(103 nodes, 406 edges, density 3.8%, 0 duplicates, 0 empty rows)
    """

    degree: int
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole(self, "degree", low=2)
        remedy = "Each random cycle gives a node two neighbours."
        require(self.degree % 2 == 0, "Expander", "degree", "be even", self.degree, remedy)
        check_seed(self)

    def _pairs(self, sets: NodeSets, num_keys: int, num_queries: int) -> tuple[Tensor, Tensor]:
        remedy = "A random bipartite pattern is Random(num_keys)."
        one = not sets.is_bipartite
        require(one, sets.where, "nodes", "be one node set", "a (keys, queries) tuple", remedy)
        if num_keys <= 2 * self.degree:
            query, key = torch.ones(num_keys, num_keys).fill_diagonal_(0).nonzero().unbind(1)
            return query, key
        draw = _kept_graph if num_keys <= _KEPT_NODES else _regular_graph
        first, second = draw(num_keys, self.degree // 2, self.seed)
        return torch.cat((first, second)), torch.cat((second, first))


def _regular_graph(num_nodes: int, num_cycles: int, seed: int) -> tuple[Tensor, Tensor]:
    """The two ends of each edge of a simple regular graph that holds a Hamiltonian cycle. Shape `[n * num_cycles]`."""
    place = torch.arange(num_nodes)
    ends = []
    for cycle in range(num_cycles):
        number, size, tag = (torch.full_like(place, word) for word in (cycle, num_nodes, _ORDERS))
        order = philox(torch.tensor(seed), (place, number, size, tag))[0].argsort(stable=True)
        ends.append(torch.stack((order, order.roll(-1))))
    edges = torch.cat(ends, dim=1).numpy()
    _mend(edges, num_nodes, seed)
    first, second = torch.from_numpy(edges)
    return first, second


_kept_graph = lru_cache(maxsize=1024)(_regular_graph)


def _mend(edges: np.ndarray, num_nodes: int, seed: int) -> None:
    """Make the edges distinct, in place: a repeated edge a-b and a random edge c-d become a-c and b-d.

    The degrees stay, and so does the first cycle, which keeps the graph connected. About degree^2 / 4 edges are
    repeated, whatever the size of the graph.
    """
    code = _code(edges, num_nodes)
    order = code.argsort(kind="stable")
    listed = code[order]
    repeated = order[1:][listed[1:] == listed[:-1]]
    change: dict[int, int] = {}  # by how much the number of copies of an edge differs from that in `listed`

    def copies(edge: int) -> int:
        low, high = np.searchsorted(listed, (edge, edge + 1))
        return int(high - low) + change.get(edge, 0)

    draw = _places(edges.shape[1] - num_nodes, num_nodes, seed)
    for bad in repeated.tolist():
        while copies(int(_code(edges[:, bad], num_nodes))) > 1:
            other, turned = next(draw)
            other += num_nodes  # past the first cycle
            (a, c), (b, d) = edges[:, [bad, other]].tolist()
            c, d = (d, c) if turned else (c, d)
            new = [int(_code(pair, num_nodes)) for pair in ((a, c), (b, d))]
            if a == c or b == d or copies(new[0]) or copies(new[1]):
                continue
            for old in (bad, other):
                gone = int(_code(edges[:, old], num_nodes))
                change[gone] = change.get(gone, 0) - 1
            for edge in new:
                change[edge] = change.get(edge, 0) + 1
            edges[:, bad], edges[:, other] = (a, c), (b, d)


def _code(ends: Any, num_nodes: int) -> Any:
    """One number for each undirected edge."""
    first, second = ends
    return np.minimum(first, second) * num_nodes + np.maximum(first, second)


def _places(count: int, num_nodes: int, seed: int) -> Iterator[tuple[int, bool]]:
    """Endless random (place in [0, count), side), a pure function of the seed and the size."""
    turn = torch.arange(_BLOCK)
    block = 0
    while True:
        number, size, tag = (torch.full_like(turn, word) for word in (block, num_nodes, _SWAPS))
        drawn = uniform_below(seed, (turn, number, size, tag), torch.tensor(2 * count))
        yield from ((value // 2, value % 2 == 1) for value in drawn.tolist())
        block += 1
