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

_CHUNK = 2**14  # keys drawn at a time: what a draw computes on the way stays in the cache


@dataclass(frozen=True, repr=False)
class Random(Pattern):
    """Each query attends to a few distinct keys of its own set, drawn uniformly (Zaheer et al., "Big Bird", 2020).

    The draw is a pure function of the seed, the sizes of the set and the query's place in it: a set gets the same keys
    alone, in any batch, in any worker and on any device. Floyd's algorithm (Bentley and Floyd, "A sample of
    brilliance", 1987) draws m of n keys in m turns; all turns of all queries are found at once, in O(m log m) a query.

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
        most = min(self.num_keys, int(sets.set_keys[query].max()) if query.numel() else 0)
        return torch.cat([self._floyd(sets, part, most) for part in query.split(max(_CHUNK // max(most, 1), 1))])

    def _floyd(self, sets: NodeSets, query: Tensor, most: int) -> Tensor:
        place, num_keys, num_queries = (
            held[query, None] for held in (sets.local_query, sets.set_keys, sets.set_queries)
        )
        wanted = num_keys.clamp(max=self.num_keys)
        turn = torch.arange(most, device=query.device).expand(query.numel(), most)
        newest = num_keys - wanted + turn
        pick = uniform_below(self.seed, (place, turn, num_keys, num_queries), (newest + 1).clamp(min=1))
        # A pick that is drawn already gives way to its turn's newest key. It is so where an earlier turn made the same
        # pick, or where it is the newest key of an earlier turn and that one's pick gave way too: all turns at once, by
        # following these earlier turns in leaps of twice the length.
        taken, earlier = _repeats(pick), pick - newest + turn
        earlier = torch.where((earlier >= 0) & (earlier < turn), earlier, turn)
        for _ in range(most.bit_length()):
            taken, earlier = taken | taken.gather(1, earlier), earlier.gather(1, earlier)
        return torch.where(turn < wanted, torch.where(taken, newest, pick), -1)


def _repeats(pick: Tensor) -> Tensor:
    """Which entries of each row stand further ahead in it too. Takes and gives `[R, m]`; bool."""
    value, order = pick.sort(dim=1, stable=True)
    again = torch.zeros_like(value, dtype=torch.bool)
    again[:, 1:] = value[:, 1:] == value[:, :-1]
    return torch.empty_like(again).scatter_(1, order, again)
