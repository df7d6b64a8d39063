"""Patterns whose pairs follow from the size of a set alone: made once a size, laid over all sets of that size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from graphformer.graphs.runs import KeyRuns
from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Pattern
from graphformer.patterns.terms import RunTerm, Term


@dataclass(frozen=True, repr=False)
class BySize(Pattern):
    """Base of the patterns that say which pairs a set of n nodes has, each pair once."""

    def _pairs(self, sets: NodeSets, num_keys: int, num_queries: int) -> tuple[Tensor, Tensor]:
        """(query, key) of the pairs in a set of this size, by their places in it. Shape `[E]` each, int64, checked."""
        raise NotImplementedError(f"{type(self).__name__} must define _pairs(sets, num_keys, num_queries)")

    def _lower(self, sets: NodeSets) -> list[Term]:
        none = torch.zeros(0, dtype=torch.int64, device=sets.device)
        queries, keys = [none], [none]
        for members, query, key in self._each_size(sets):
            queries.append((sets.query_ptr[members, None] + query).flatten())
            keys.append((sets.key_ptr[members, None] + key).flatten())
        return [RunTerm(KeyRuns.from_pairs(torch.cat(queries), torch.cat(keys), sets.num_queries, sets.num_keys))]

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        out = torch.zeros_like(query, dtype=torch.bool)
        asked = sets.query_set[query]
        for members, local_query, local_key in self._each_size(sets):
            here = torch.isin(asked, members).nonzero().squeeze(1)
            code = sets.local_query[query[here]] * sets.num_keys + sets.local_key[key[here]]
            out[here] = torch.isin(code, local_query * sets.num_keys + local_key)
        return out

    def _each_size(self, sets: NodeSets) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """For each size that occurs: the sets of that size, and the local (query, key) of their pairs."""
        for members, num_keys, num_queries in group_by_size(sets):
            query, key = self._pairs(sets, num_keys, num_queries)
            yield members, query.to(sets.device), key.to(sets.device)


def group_by_size(sets: NodeSets) -> Iterator[tuple[Tensor, int, int]]:
    """For each size that occurs: the sets of that size, int64 ascending, and their numbers of keys and of queries."""
    sizes = torch.stack((sets.key_ptr.diff(), sets.query_ptr.diff()), dim=1)
    distinct, kind = sizes.unique(dim=0, return_inverse=True)
    members = kind.argsort(stable=True).split(torch.bincount(kind, minlength=distinct.shape[0]).tolist())
    for (num_keys, num_queries), same in zip(distinct.tolist(), members, strict=True):
        yield same, num_keys, num_queries
