"""Hubs: nodes that see everybody and that everybody sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Pattern, check_whole
from graphformer.patterns.terms import RunTerm, Term


@dataclass(frozen=True, repr=False)
class Global(Pattern):
    """The first nodes of each set attend to all of their set, and all of their set attend to them.

    Alone it is a star; with a window it is Longformer's attention (Beltagy et al., "Longformer", 2020).

    Args:
        num_nodes: How many nodes at the front of each set are global; a smaller set is global as a whole.

    Example:
        >>> Global(1).on(3).edge_index
        tensor([[0, 1, 2, 0, 0],
                [0, 0, 0, 1, 2]])
    """

    num_nodes: int

    def __post_init__(self) -> None:
        check_whole(self, "num_nodes", low=0)

    def _lower(self, sets: NodeSets) -> list[Term]:
        sees_all = sets.local_query < self.num_nodes
        return [RunTerm(sets.runs(0, torch.where(sees_all, sets.set_keys, self.num_nodes)))]

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        return (sets.local_query[query] < self.num_nodes) | (sets.local_key[key] < self.num_nodes)


@dataclass(frozen=True, repr=False)
class VirtualNode(Pattern):
    """The last nodes of each set attend to all of their set, and all of their set attend to them.

    The last place is where `torch_geometric.transforms.VirtualNode` puts the node that it adds (Gilmer et al., "Neural
    message passing for quantum chemistry", 2017). Nodes at the front are :class:`Global`.

    Args:
        num_nodes: How many nodes at the end of each set are virtual; a smaller set is virtual as a whole.

    Example:
        >>> VirtualNode().on(3).edge_index
        tensor([[2, 2, 0, 1, 2],
                [0, 1, 2, 2, 2]])
    """

    num_nodes: int = 1

    def __post_init__(self) -> None:
        check_whole(self, "num_nodes", low=0)

    def _lower(self, sets: NodeSets) -> list[Term]:
        sees_all = sets.local_query >= sets.set_queries - self.num_nodes
        return [RunTerm(sets.runs(torch.where(sees_all, 0, sets.set_keys - self.num_nodes), sets.set_keys))]

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        behind_query = sets.set_queries[query] - sets.local_query[query]
        behind_key = sets.set_keys[query] - sets.local_key[key]
        return (behind_query <= self.num_nodes) | (behind_key <= self.num_nodes)
