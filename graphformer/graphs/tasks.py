"""Work lists: a side's rows in pieces of like cost, made once with the graph, for kernels that go row by row."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphformer.graphs.layout import Layout, expand_rows, index_dtype

SHORT = 32  # pairs of the longest row that shares a program with others
LONGEST = 512  # pairs of the longest piece; a longer row is split
_STEP = 8  # short rows are sorted by so many pairs


class Tasks(NamedTuple):
    """Rows in three lists, the costliest first; of equal cost in their order, as rows side by side often share keys.

    Each entry is (row, first position, one past the last position), int32 while the sizes allow, else int64. Every row
    is in exactly one of `long` and `short`, or split; empty rows are short.

    Attributes:
        pieces: Pieces of rows of more than LONGEST pairs, row by row. Shape `[P, 3]`.
        long: Rows of more than SHORT pairs. Shape `[T, 3]`.
        short: The other rows. Shape `[U, 3]`.
        splits: The rows of `pieces`: (row, first piece, one past the last piece). Shape `[X, 3]`.
    """

    pieces: Tensor
    long: Tensor
    short: Tensor
    splits: Tensor


def make_tasks(ptr: Tensor, num_pairs: int) -> Tasks:
    """The work list of rows with the given offsets. Waits for the device.

    Args:
        ptr: Offsets of the rows' pairs. Shape `[N + 1]`, int64.
        num_pairs: Their number, `ptr[-1]`.

    Example:
        >>> tasks = make_tasks(torch.tensor([0, 3, 3, 1003, 1103]), 1103)
        >>> tasks.short.tolist(), tasks.long.tolist()
        ([[0, 0, 3], [1, 3, 3]], [[3, 1003, 1103]])
        >>> tasks.pieces.tolist(), tasks.splits.tolist()
        ([[2, 3, 503], [2, 503, 1003]], [[2, 0, 2]])
    """
    dtype = index_dtype(max(num_pairs, ptr.shape[0]))
    degree = ptr.diff()
    is_short, is_split = degree <= SHORT, degree > LONGEST
    short = _by_cost(is_short, (degree + _STEP - 1) // _STEP)
    long = _by_cost(~is_short & ~is_split, degree)

    row = is_split.nonzero().flatten()
    count = (degree[row] + LONGEST - 1) // LONGEST
    stop = count.cumsum(0)
    piece = torch.repeat_interleave(count)  # which of `row` it is of
    turn = torch.arange(piece.shape[0], device=ptr.device) - (stop - count)[piece]
    size = (degree[row] + count - 1) // count
    begin = ptr[row][piece] + turn * size[piece]
    end = torch.minimum(begin + size[piece], ptr[row + 1][piece])
    pieces, splits = torch.stack((row[piece], begin, end), 1), torch.stack((row, stop - count, stop), 1)
    long, short = (torch.stack((rows, ptr[rows], ptr[rows + 1]), 1) for rows in (long, short))
    return Tasks(pieces.to(dtype), long.to(dtype), short.to(dtype), splits.to(dtype))


def _by_cost(chosen: Tensor, cost: Tensor) -> Tensor:
    rows = chosen.nonzero().flatten()
    return rows[cost[rows].argsort(descending=True, stable=True)]


class RelationPairs(NamedTuple):
    """The pairs grouped by relation, in the order of the queries' rows within each.

    Attributes:
        query: The query of each pair. Shape `[E]`, int64.
        key: Its key. Shape `[E]`, int32 or int64.
        edge_id: Its id. Shape `[E]`, int64.
        tasks: The work list over the relations' pairs.
    """

    query: Tensor
    key: Tensor
    edge_id: Tensor
    tasks: Tasks


def pairs_by_relation(layout: Layout, relation: Tensor, num_relations: int) -> RelationPairs:
    """Group the pairs of a layout by query by their relations. Waits for the device.

    Args:
        layout: The pairs by query.
        relation: Of each pair, by edge id. Shape `[E]`, int32 or int64.
        num_relations: R.

    Example:
        >>> layout = Layout(torch.tensor([0, 1, 3]), torch.tensor([4, 0, 2]), None)
        >>> pairs = pairs_by_relation(layout, torch.tensor([1, 0, 1]), 2)
        >>> pairs.query.tolist(), pairs.key.tolist(), pairs.edge_id.tolist()
        ([1, 0, 1], [0, 4, 2], [1, 0, 2])
    """
    ptr, key, edge_id = layout
    num_pairs = key.shape[0]
    edge_id = torch.arange(num_pairs, device=key.device) if edge_id is None else edge_id.long()
    kind, order = relation.index_select(0, edge_id).sort(stable=True)
    first = torch.searchsorted(kind.contiguous(), torch.arange(num_relations + 1, device=key.device).to(kind.dtype))
    query = expand_rows(ptr, num_pairs)
    return RelationPairs(query[order], key[order], edge_id[order], make_tasks(first, num_pairs))
