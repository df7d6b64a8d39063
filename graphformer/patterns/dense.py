"""Patterns in which a query sees all of its set, or all of it so far."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphformer._checks import require
from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Pattern
from graphformer.patterns.terms import RunTerm, Term


@dataclass(frozen=True, repr=False)
class Full(Pattern):
    """Every query attends to every key of its own set: plain self-attention.

    Example:
        >>> Full().on([2, 3])
        AttentionGraph(5 nodes, 13 edges, density 52.0%, 0 duplicates, 0 empty rows)
    """

    def _lower(self, sets: NodeSets) -> list[Term]:
        return [RunTerm(sets.runs(0, sets.set_keys))]

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        return torch.ones_like(query, dtype=torch.bool)


@dataclass(frozen=True, repr=False)
class Causal(Pattern):
    """Query i attends to the keys j <= i of its own set: nobody sees what comes later.

    Example:
        >>> Causal().on(3).edge_index
        tensor([[0, 0, 1, 0, 1, 2],
                [0, 1, 1, 2, 2, 2]])
    """

    def _lower(self, sets: NodeSets) -> list[Term]:
        return [RunTerm(sets.runs(0, sets.local_query + 1))]

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        return sets.local_key[key] <= sets.local_query[query]


@dataclass(frozen=True, repr=False)
class Bipartite(Pattern):
    """Every query attends to every key of the set paired with its own: plain cross-attention.

    Needs a tuple (key nodes, query nodes); on that, it is the same as :class:`Full`.

    Example:
        >>> Bipartite().on(([3, 1], [2, 2]))
        AttentionGraph(4 nodes, 8 edges, density 50.0%, 0 duplicates, 0 empty rows)
    """

    def _lower(self, sets: NodeSets) -> list[Term]:
        self._check(sets)
        return [RunTerm(sets.runs(0, sets.set_keys))]

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        self._check(sets)
        return torch.ones_like(query, dtype=torch.bool)

    def _check(self, sets: NodeSets) -> None:
        remedy = "Pass the keys first; within one node set, use Full()."
        require(sets.is_bipartite, sets.where, "nodes", "be a tuple (key nodes, query nodes)", "one node set", remedy)
