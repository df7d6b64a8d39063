"""Block-diagonal attention."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Pattern, check_whole
from graphformer.patterns.terms import RunTerm, Term


@dataclass(frozen=True, repr=False)
class Blocks(Pattern):
    """Each set is cut into blocks of `size` nodes; a query attends to the keys of its own block.

    The last block of a set holds what is left. In a bipartite graph, block b of the queries sees block b of the keys.

    Args:
        size: Nodes a block, 1 or more.

    Example:
        >>> Blocks(2).on(3).edge_index
        tensor([[0, 1, 0, 1, 2],
                [0, 0, 1, 1, 2]])
    """

    size: int

    def __post_init__(self) -> None:
        check_whole(self, "size", low=1)

    def _lower(self, sets: NodeSets) -> list[Term]:
        start = sets.local_query // self.size * self.size
        return [RunTerm(sets.runs(start, start + self.size))]

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        return sets.local_query[query] // self.size == sets.local_key[key] // self.size
