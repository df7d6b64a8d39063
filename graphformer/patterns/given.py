"""Pairs given as such: by a function of the user's own, or by a networkx graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from graphformer._checks import require
from graphformer.patterns.by_size import BySize
from graphformer.patterns.functions import call, name_of, num_required
from graphformer.patterns.node_sets import NodeSets


@dataclass(frozen=True, repr=False)
class Pairs(BySize):
    """The pairs that a function lists for a set of n nodes; it is called once for each size of a set.

    Such a pattern equals another where the function is the same one, and has no text for :func:`parse` to read back.
    A node set's own edges are :class:`Edges`.

    Args:
        fn: `fn(num_nodes)`, or `fn(num_keys, num_queries)`, which serves bipartite graphs too: gives the pairs as an
            `edge_index` of places in the set. Shape `[2, E]`, any integer dtype: row 0 keys, row 1 queries; a repeated
            pair counts once. It must be a pure function of its arguments.

    Raises:
        InputError: A function of other arguments, or one that raises; a result of another shape, dtype or range.

    Example:
        >>> Pairs(lambda n: torch.stack((torch.arange(n), torch.arange(n).flip(0)))).on(3).edge_index
        tensor([[2, 1, 0],
                [0, 1, 2]])
    """

    fn: Callable[..., Tensor]

    def __post_init__(self) -> None:
        _num_arguments(self.fn)

    def _pairs(self, sets: NodeSets, num_keys: int, num_queries: int) -> tuple[Tensor, Tensor]:
        where = repr(self)
        both = _num_arguments(self.fn) == 2
        remedy = "Write fn(num_keys, num_queries)."
        require(both or not sets.is_bipartite, where, "nodes", "be one node set", "a (keys, queries) tuple", remedy)
        sizes = (num_keys, num_queries) if both else (num_keys,)
        rule = f"list the pairs of a set of {' and '.join(map(str, sizes))} nodes"
        edge_index = call(self.fn, sizes, where, rule, "It is asked about every size that occurs, 0 too.")
        remedy = "Row 0 holds keys, row 1 queries, as places in the set."
        found = f"{edge_index.dtype} {list(edge_index.shape)}" if isinstance(edge_index, Tensor) else repr(edge_index)
        fits = isinstance(edge_index, Tensor) and edge_index.dim() == 2 and edge_index.shape[0] == 2
        fits = fits and not (
            edge_index.is_floating_point() or edge_index.is_complex() or edge_index.dtype == torch.bool
        )
        require(fits, where, "fn", "give an integer tensor of shape [2, E]", found, remedy)
        for side, ids, limit in zip(("keys", "queries"), edge_index, (num_keys, num_queries), strict=True):
            low, high = (int(value) for value in torch.aminmax(ids)) if ids.numel() else (0, -1)
            wrong = low if low < 0 else high
            require(low >= 0 and high < limit, where, "fn", f"give {side} in [0, {limit})", wrong, remedy)
        key, query = edge_index.long()
        return query, key

    def __repr__(self) -> str:
        return f"Pairs({name_of(self.fn)})"


def _num_arguments(fn: Callable[..., Any]) -> int:
    """1 for fn(num_nodes), 2 for fn(num_keys, num_queries); refuses anything else."""
    rule = "be a function of (num_nodes) or (num_keys, num_queries)"
    return num_required(fn, (1, 2), "Pairs", rule, "Write def fn(num_nodes).")


@dataclass(frozen=True, repr=False, init=False)
class NetworkX(BySize):
    """The same networkx graph in every set: an edge u -> v lets v attend to u, an undirected edge both ways.

    Nodes take the places in which `graph.nodes` lists them, and each pair counts once, whatever a multigraph holds. The
    graph is copied: two such patterns are equal where their nodes and edges are. There is no text for :func:`parse` to
    read back.

    Args:
        graph: A networkx graph, directed or not.

    Raises:
        InputError: Something else, or a set with another number of nodes than the graph.

    Example:
        >>> import networkx
        >>> NetworkX(networkx.path_graph(3)).on([3, 3])
        AttentionGraph(6 nodes, 8 edges, density 22.2%, 0 duplicates, 0 empty rows)
    """

    num_nodes: int
    edges: tuple[tuple[int, int], ...]

    def __init__(self, graph: Any) -> None:
        fits = all(hasattr(graph, name) for name in ("nodes", "edges", "is_directed"))
        remedy = "An attention graph becomes one by to_networkx()."
        require(fits, "NetworkX", "graph", "be a networkx graph", type(graph).__name__, remedy)
        place = {node: number for number, node in enumerate(graph.nodes)}
        edges = {(place[edge[0]], place[edge[1]]) for edge in graph.edges}
        if not graph.is_directed():
            edges |= {(target, source) for source, target in edges}
        object.__setattr__(self, "num_nodes", len(place))
        object.__setattr__(self, "edges", tuple(sorted(edges)))

    def _pairs(self, sets: NodeSets, num_keys: int, num_queries: int) -> tuple[Tensor, Tensor]:
        rule = f"be sets of {self.num_nodes} nodes, as many as the networkx graph has"
        fits = num_keys == num_queries == self.num_nodes
        found = num_keys if num_keys == num_queries else f"{num_keys} keys and {num_queries} queries"
        require(fits, repr(self), "nodes", rule, found, "Use one graph a size, or Edges() on data.")
        key, query = torch.tensor(self.edges, dtype=torch.int64).reshape(-1, 2).t()
        return query, key

    def __repr__(self) -> str:
        return f"NetworkX(num_nodes={self.num_nodes}, num_edges={len(self.edges)})"
