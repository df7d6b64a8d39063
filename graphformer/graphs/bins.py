"""How many pairs fall into the cells of a coarse grid; pairs that are held as runs are not enumerated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphformer.graphs.layout import expand_rows
from graphformer.graphs.runs import KeyRuns

if TYPE_CHECKING:
    from graphformer.graphs.attention_graph import AttentionGraph

Pairs = KeyRuns | tuple[Tensor, Tensor]  # runs, or (query, key)


def pairs_of(graph: AttentionGraph) -> Pairs:
    """The pairs of a graph as it holds them, in the order of their ids."""
    if graph.query_side.runs is not None:
        return graph.query_side.runs
    key, query = graph.edge_index
    return query, key


def edges_of_bins(count: int, most: int) -> Tensor:
    """Where at most `most` bins of nearly one size begin, and at the end `count`. Shape `[bins + 1]`, int64.

    Example:
        >>> edges_of_bins(7, most=3)
        tensor([0, 2, 4, 7])
    """
    bins = min(count, most)
    return torch.arange(bins + 1) * count // max(bins, 1)


def count_bins(pairs: Pairs, query_edge: Tensor, key_edge: Tensor) -> Tensor:
    """How many pairs fall into each cell, on the edges' device.

    Args:
        pairs: Runs, or (query, key).
        query_edge: Where the rows of cells begin, and at the end N. Shape `[rows + 1]`, int64.
        key_edge: Where the columns of cells begin, and at the end M. Shape `[columns + 1]`, int64.

    Returns:
        Shape `[rows, columns]`, float64.

    Example:
        >>> row = torch.arange(4)
        >>> count_bins(KeyRuns.from_ranges(0 * row, row + 1, num_keys=4), *2 * (torch.tensor([0, 2, 4]),))
        tensor([[3., 0.],
                [4., 3.]], dtype=torch.float64)
    """
    if isinstance(pairs, KeyRuns):
        row = _bin(expand_rows(pairs.ptr, pairs.start.numel()), query_edge)
        return _below(pairs.stop, row, query_edge, key_edge) - _below(pairs.start, row, query_edge, key_edge)
    shape = (query_edge.numel() - 1, key_edge.numel() - 1)
    return torch.bincount(cells_of(pairs, query_edge, key_edge), minlength=shape[0] * shape[1]).view(shape).double()


def cells_of(pairs: tuple[Tensor, Tensor], query_edge: Tensor, key_edge: Tensor) -> Tensor:
    """The cell of each pair (query, key), counted row by row. Shape `[E]`, int64."""
    row, column = (_bin(ids, edge) for ids, edge in zip(pairs, (query_edge, key_edge), strict=True))
    return row * (key_edge.numel() - 1) + column


def _bin(ids: Tensor, edge: Tensor) -> Tensor:
    return torch.bucketize(ids.to(edge.device), edge, right=True) - 1


def _below(key: Tensor, row: Tensor, query_edge: Tensor, key_edge: Tensor) -> Tensor:
    """In each cell, the number of keys before ``key``, summed over the runs of the cell's queries."""
    key = key.to(key_edge.device)
    shape = (query_edge.numel() - 1, key_edge.numel() - 1)
    column = _bin(key, key_edge).clamp(max=shape[1] - 1)
    cell, cells = row * shape[1] + column, shape[0] * shape[1]
    ends = torch.bincount(cell, minlength=cells).view(shape)
    within = torch.bincount(cell, weights=(key - key_edge[column]).double(), minlength=cells).view(shape)
    beyond = ends.flip(1).cumsum(1).flip(1) - ends
    return beyond * key_edge.diff() + within
