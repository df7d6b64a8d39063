"""Random attention, the same on every machine and in every batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphformer._philox import uniform_below
from graphformer.graphs.runs import KeyRuns
from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Pattern, check_seed, check_whole
from graphformer.patterns.terms import RunTerm, Term


@dataclass(frozen=True, repr=False)
class Random(Pattern):
    """Each query attends to a few distinct keys of its own set, drawn uniformly (Zaheer et al., "Big Bird", 2020).

    The draw is a pure function of the seed, the sizes of the set and the query's place in it: a set gets the same keys
    alone, in any batch, in any worker and on any device. Floyd's algorithm (Bentley and Floyd, "A sample of
    brilliance", 1987) draws m of n keys in m steps and O(m^2) comparisons a query, all queries at once.

    Args:
        num_keys: Keys a query, 0 or more; a smaller set is seen as a whole.
        seed: Any 64-bit integer.

    Example:
        >>> Random(2, seed=1).on([4, 1])
        AttentionGraph(5 nodes, 9 edges, density 36.0%, 0 duplicates, 0 empty rows)
    """

    num_keys: int
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole(self, "num_keys", low=0)
        check_seed(self)

    def _lower(self, sets: NodeSets) -> list[Term]:
        drawn = self._draw(sets, torch.arange(sets.num_queries, device=sets.device))
        query, turn = (drawn >= 0).nonzero().unbind(1)
        key = sets.key_start[query] + drawn[query, turn]
        return [RunTerm(KeyRuns.from_pairs(query, key, sets.num_queries, sets.num_keys))]

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        asked, row = query.unique(return_inverse=True)
        return (self._draw(sets, asked)[row] == sets.local_key[key, None]).any(1)

    def _draw(self, sets: NodeSets, query: Tensor) -> Tensor:
        """Local keys of the given queries, each row filled up with -1. Shape `[len(query), m]`, int64."""
        place, num_keys, num_queries = sets.local_query[query], sets.set_keys[query], sets.set_queries[query]
        wanted = num_keys.clamp(max=self.num_keys)
        drawn = query.new_full((query.numel(), int(wanted.max()) if query.numel() else 0), -1)
        for step in range(drawn.shape[1]):
            newest = num_keys - wanted + step
            counter = (place, torch.full_like(place, step), num_keys, num_queries)
            pick = uniform_below(self.seed, counter, (newest + 1).clamp(min=1))
            known = (drawn[:, :step] == pick[:, None]).any(1)
            drawn[:, step] = torch.where(step < wanted, torch.where(known, newest, pick), -1)
        return drawn
