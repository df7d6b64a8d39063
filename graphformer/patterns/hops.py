"""Balls in a graph's own metric: all nodes within a few hops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from graphformer.graphs.layout import make_layout
from graphformer.graphs.runs import KeyRuns
from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Pattern, check_whole
from graphformer.patterns.terms import RunTerm, Term

_CHUNK = 2**24  # pairs, or cells, that a step holds at a time


@dataclass(frozen=True, repr=False)
class Hops(Pattern):
    """Each node attends to itself and to all nodes from which it is reached in at most `k` edges, each once.

    On a path graph this is :class:`Window`: both are balls in the node set's own metric. `Hops(k) - Hops(k - 1)` is
    the ring at distance k. Memory is that of the pairs, plus a bounded chunk.

    Args:
        k: Largest distance, along the direction of the edges from key to query; 0 or more.

    Example:
        >>> from torch_geometric.data import Data
        >>> path = Data(edge_index=torch.tensor([[0, 1, 2], [1, 2, 3]]), num_nodes=4)
        >>> Hops(2).on(path).edge_index
        tensor([[0, 0, 1, 0, 1, 2, 1, 2, 3],
                [0, 1, 1, 2, 2, 2, 3, 3, 3]])
    """

    k: int

    def __post_init__(self) -> None:
        check_whole(self, "k", low=0)

    def _lower(self, sets: NodeSets) -> list[Term]:
        num_nodes = sets.num_queries
        ptr, index, width = _in_edges(sets)
        reached = torch.cat(list(_rings(torch.arange(num_nodes, device=sets.device), ptr, index, self.k)))
        return [RunTerm(KeyRuns.from_pairs(reached // width, reached % width, num_nodes, num_nodes))]

    def _allows(self, sets: NodeSets, query: Tensor, key: Tensor) -> Tensor:
        source, target = sets.edge_index
        sets.require_one_set()
        out = torch.zeros_like(query, dtype=torch.bool)
        asked, row = key.unique(return_inverse=True)
        step = max(_CHUNK // (sets.num_queries + source.numel() + 1), 1)
        for first in range(0, asked.numel(), step):
            roots = asked[first : first + step]
            ball = torch.zeros(roots.numel(), sets.num_queries, dtype=torch.int32, device=sets.device)
            ball[torch.arange(roots.numel(), device=sets.device), roots] = 1
            for _ in range(self.k):
                grown = ball.index_add(1, target, ball[:, source]).clamp(max=1)
                if torch.equal(grown, ball):
                    break
                ball = grown
            here = (row >= first) & (row < first + step)
            out[here] = ball[row[here] - first, query[here]] == 1
        return out


def distances(sets: NodeSets, query: Tensor, key: Tensor, limit: int | None = None) -> Tensor:
    """Number of edges on a shortest path from each key to its query.

    Args:
        sets: Node sets with edges.
        query: Global ids. Shape `[E]`, int64.
        key: Global ids. Shape `[E]`, int64.
        limit: Longest path that is looked for. Default: none.

    Returns:
        int64 tensor of shape `[E]`; -1 where there is no path, or none within the limit.
    """
    out = torch.full_like(query, -1)
    if query.numel() == 0:
        return out
    ptr, index, width = _in_edges(sets)
    asked = query.unique()
    piece = sets.set_keys[asked].cumsum(0) // _CHUNK  # no root has more pairs than its set has keys
    for roots in asked.split(torch.unique_consecutive(piece, return_counts=True)[1].tolist()):
        left = ((query >= roots[0]) & (query <= roots[-1])).nonzero().squeeze(1)
        for distance, ring in enumerate(_rings(roots, ptr, index, limit)):
            found = _sorted_contains(ring, query[left] * width + key[left])
            out[left[found]] = distance
            left = left[~found]
            if left.numel() == 0:
                break
    return out


def _in_edges(sets: NodeSets) -> tuple[Tensor, Tensor, int]:
    """(ptr, index) of the sources of each node's edges, and the width of a row of codes."""
    target, source = sets.edge_index.flip(0).unique(dim=1)
    sets.require_one_set()
    ptr, index, _ = make_layout(target, source, sets.num_queries, sets.num_queries)
    return ptr, index, max(sets.num_queries, 1)


def _rings(roots: Tensor, ptr: Tensor, index: Tensor, limit: int | None) -> Iterator[Tensor]:
    """The pairs (root, key) at distance 0, 1, 2, ... until none is left, as sorted codes root * width + key."""
    width = max(ptr.numel() - 1, 1)
    frontier = reached = roots * (width + 1)  # code of (i, i)
    yield frontier
    for _ in range(limit) if limit is not None else count():
        found = [chunk.unique() for chunk in _extend(frontier, ptr, index, width)]
        new = torch.cat(found).unique() if found else frontier[:0]
        frontier = new[~_sorted_contains(reached, new)]
        if frontier.numel() == 0:
            return
        yield frontier
        reached = torch.cat((reached, frontier)).sort().values


def _extend(code: Tensor, ptr: Tensor, index: Tensor, width: int) -> Iterator[Tensor]:
    """The pairs one edge further than the given ones (code = query * width + key), a bounded number at a time."""
    degree = ptr.diff()[code % width]
    before = degree.cumsum(0) - degree
    start = 0
    while start < code.numel():
        limit = before[start] + _CHUNK
        stop = max(int(torch.searchsorted(before, limit)), start + 1)
        part, edges = code[start:stop], degree[start:stop]
        total = int(edges.sum())
        shift = ptr[part % width] - (before[start:stop] - before[start])
        edge = torch.repeat_interleave(shift, edges, output_size=total) + torch.arange(total, device=code.device)
        yield torch.repeat_interleave(part // width * width, edges, output_size=total) + index[edge]
        start = stop


def _sorted_contains(sorted_codes: Tensor, code: Tensor) -> Tensor:
    place = torch.searchsorted(sorted_codes, code).clamp(max=sorted_codes.numel() - 1)
    return sorted_codes[place] == code if sorted_codes.numel() else torch.zeros_like(code, dtype=torch.bool)
