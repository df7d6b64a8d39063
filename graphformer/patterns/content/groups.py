"""What content patterns share: nodes grouped by a label, and sets grouped by their size."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from graphformer.graphs.runs import KeyRuns
from graphformer.patterns.by_size import group_by_size
from graphformer.patterns.node_sets import NodeSets


def pairs_of_one_label(
    query_label: Tensor, key_label: Tensor, num_labels: int, sets: NodeSets
) -> tuple[Tensor, Tensor]:
    """All pairs of a head and a set whose labels are equal, as folded ids, by query, keys ascending.

    Args:
        query_label: Shape `[H, N]`, int64, in [0, num_labels).
        key_label: Shape `[H, M]`, int64, likewise.
        num_labels: Number of labels.
        sets: The nodes of one head.
    """
    num_sets = sets.key_ptr.numel() - 1
    head = torch.arange(query_label.shape[0], device=query_label.device)[:, None]
    query_group = ((head * num_sets + sets.query_set) * num_labels + query_label).flatten()
    key_group, key_order = ((head * num_sets + sets.key_set) * num_labels + key_label).flatten().sort(stable=True)
    start = torch.searchsorted(key_group, query_group)
    stop = torch.searchsorted(key_group, query_group, right=True)
    query, place = KeyRuns.from_ranges(start, stop, key_group.numel()).expand()
    return query, key_order[place]


def sets_by_size(sets: NodeSets) -> Iterator[tuple[Tensor, Tensor]]:
    """The sets, those of one size together, so that they stack without padding.

    Yields:
        The ids of their queries, shape `[S, n]`, and of their keys, shape `[S, m]`, int64, with m and n above 0.
    """
    for same, num_keys, num_queries in group_by_size(sets):
        if num_queries and num_keys:
            query = sets.query_ptr[same, None] + torch.arange(num_queries, device=sets.device)
            key = sets.key_ptr[same, None] + torch.arange(num_keys, device=sets.device)
            yield query, key
