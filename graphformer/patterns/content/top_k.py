"""The keys of the largest scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from graphformer.patterns.content.content import Content
from graphformer.patterns.content.groups import sets_by_size
from graphformer.patterns.node_sets import NodeSets
from graphformer.patterns.pattern import Pattern, check_count, lowered
from graphformer.patterns.terms import support

_CHUNK = 2**22  # scores that are held at a time


@dataclass(frozen=True)
class TopK(Content):
    """Each query attends to the k keys of its set with the largest dot product q . k.

    Of equal scores, as they are computed, the lower id comes first. A set of fewer keys is seen as a whole, and one
    without keys not at all; with a pattern, the k best of the keys that it allows are chosen. All scores are computed,
    a bounded number at a time: the time is that of dense attention's scores, the memory that of the chosen pairs.
    A score of -inf is never chosen.

    Args:
        k: Keys a query and head, 1 or more.

    Raises:
        InputError: k is no integer or below 1.

    Example:
        >>> x = torch.tensor([1.0, 3.0, 2.0, 3.0]).view(4, 1, 1)
        >>> TopK(2).select(x, x, [3, 1]).edge_index
        tensor([[1, 2, 1, 2, 1, 2, 3],
                [0, 0, 1, 1, 2, 2, 3]])

    References:
        Gupta et al., "Memory-efficient Transformers via Top-k Attention", SustaiNLP 2021.
    """

    k: int

    def __post_init__(self) -> None:
        check_count(self, "k")

    def _pairs(self, query: Tensor, key: Tensor, sets: NodeSets, pattern: Pattern | None) -> tuple[Tensor, Tensor]:
        rows = [torch.empty(0, dtype=torch.int64, device=query.device)]
        columns = [rows[0]]
        allowed = None if pattern is None else support(lowered(pattern, sets), sets)
        for query_ids, key_ids, score in _scores(query, key, sets):
            if allowed is not None:
                refused = ~allowed.contains(query_ids[:, :, None], key_ids[:, None, :])
                score.masked_fill_(refused[:, None], -torch.inf)
            best = _best(score, self.k)
            member, head, row, place = (score.gather(-1, best) != -torch.inf).nonzero().unbind(1)
            rows.append(head * sets.num_queries + query_ids[member, row])
            columns.append(head * sets.num_keys + key_ids[member, best[member, head, row, place]])
        return torch.cat(rows), torch.cat(columns)


def _scores(query: Tensor, key: Tensor, sets: NodeSets) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Query ids [s, n], key ids [s, m] and scores [s, H, n, m]: of some sets of one size, or some queries of a set."""
    heads = query.shape[1]
    for query_ids, key_ids in sets_by_size(sets):
        by_head = query[query_ids].transpose(1, 2).contiguous(), key[key_ids].permute(0, 2, 3, 1).contiguous()
        num_sets, num_queries, num_keys = *query_ids.shape, key_ids.shape[1]
        some = max(_CHUNK // (heads * num_queries * num_keys), 1)
        few = max(_CHUNK // (heads * num_keys), 1)
        for first in range(0, num_sets, some):
            here = slice(first, first + some)
            for start in range(0, num_queries, few):
                there = slice(start, start + few)
                yield query_ids[here, there], key_ids[here], by_head[0][here, :, there] @ by_head[1][here]


def _best(score: Tensor, k: int) -> Tensor:
    """The places of the k largest entries of the last dimension, of equal ones the first. Shape `[..., min(k, m)]`."""
    if score.shape[-1] <= k:
        return torch.arange(score.shape[-1], device=score.device).expand(score.shape)
    value, place = score.topk(k + 1)
    least, best = value[..., k - 1], place[..., :k]
    # torch says nothing of the order of equal entries, which matters only where the best that is left out is one.
    tied = value[..., k] == least
    entry, least = score[tied], least[tied][:, None]
    above, equal = ~(entry <= least), entry == least
    kept = above | (equal & (equal.cumsum(1) <= k - above.sum(1, keepdim=True)))
    best[tied] = kept.nonzero()[:, 1].view(-1, k)
    return best
