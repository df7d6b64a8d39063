"""The node set's own edges: message passing as attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Pattern, check_flag
from graphformer.patterns.terms import PairTerm, Term


@dataclass(frozen=True, repr=False)
class Edges(Pattern):
    """Each node attends to the sources of its edges; a repeated edge counts as often as it is there.

    The graph knows which edge each pair is (`own_edge`), so that the data's `edge_attr` follows. Edges are read from
    `edge_index`, else from `adj_t` (PyG's `ToSparseTensor`), whose edges are its entries row by row, the order in which
    that transform leaves the edge attributes. Those of a `HeteroData` are of all its edge types, see :class:`Between`.

    In `p | q` the first pattern's pairs stay what they are: write `Edges() | Global(1)`, so that an edge to a global
    node is still an edge.

    Args:
        self_loops: Add a loop to each node that has none; an added loop is none of the data's edges (-1).

    Example:
        >>> from torch_geometric.data import Data
        >>> data = Data(edge_index=torch.tensor([[2, 0], [0, 1]]), num_nodes=3)
        >>> graph = Edges(self_loops=True).on(data)
        >>> graph.edge_index
        tensor([[0, 2, 0, 1, 2],
                [0, 0, 1, 1, 2]])
        >>> graph.own_edge
        tensor([-1,  0,  1, -1, -1])
    """

    self_loops: bool = False

    def __post_init__(self) -> None:
        check_flag(self, "self_loops")

    def _lower(self, sets: NodeSets) -> list[Term]:
        key, query = self._read(sets)
        own_edge = torch.arange(key.numel(), device=key.device)
        if self.self_loops:
            alone = torch.ones(sets.num_queries, dtype=torch.bool, device=key.device)
            alone[query[query == key]] = False
            loop = alone.nonzero().squeeze(1)
            query, key = torch.cat((query, loop)), torch.cat((key, loop))
            own_edge = torch.cat((own_edge, torch.full_like(loop, -1)))
        return [PairTerm(query, key, own_edge)]

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        source, target = self._read(sets)
        is_edge = torch.isin(query * sets.num_keys + key, target * sets.num_keys + source)
        return is_edge | (query == key) if self.self_loops else is_edge

    def _read(self, sets: NodeSets) -> Tensor:
        edge_index = sets.edge_index
        if self.self_loops:
            sets.require_one_set()
        return edge_index
