"""Compressed layouts of an edge list: the rows' offsets, the other ends, the edge ids."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphformer._errors import InputError

_INT32_MAX = 2**31 - 1


class Layout(NamedTuple):
    """Edges grouped by one of their ends.

    Attributes:
        ptr: Offsets of the rows. Shape `[num_rows + 1]`, int64.
        index: The other end of each edge. Shape `[E]`, int32 while both node counts allow, else int64.
        edge_id: The id of the edge at each position. Shape `[E]`, int32 while E allows, else int64;
            None where the id equals the position.
    """

    ptr: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which a layout has no use for
    edge_id: Tensor | None


def index_dtype(largest: int) -> torch.dtype:
    """int32 where ids below ``largest`` fit, else int64.

    Example:
        >>> index_dtype(100), index_dtype(2**31)
        (torch.int32, torch.int64)
    """
    return torch.int32 if largest <= _INT32_MAX else torch.int64


def make_layout(row: Tensor, other: Tensor, num_rows: int, num_others: int) -> Layout:
    """Group edges by ``row``, keeping the order of equal rows (a stable sort).

    Args:
        row: The end to group by. Shape `[E]`, int32 or int64, in [0, num_rows).
        other: The other end. Shape `[E]`, int32 or int64, in [0, num_others).
        num_rows: Number of rows.
        num_others: Number of nodes at the other end.

    Returns:
        The layout. `edge_id` is always given here, so that under torch.compile its presence is not data dependent.

    Raises:
        InputError: An id is out of range.
    """
    ptr, index, edge_id = _layout_op(row, other, num_rows, num_others)
    return Layout(ptr, index, edge_id)


def expand_rows(ptr: Tensor, num_edges: int) -> Tensor:
    """The row of each position of a layout. Shape `[E]`, int64.

    Example:
        >>> expand_rows(torch.tensor([0, 2, 2, 3]), 3)
        tensor([0, 0, 2])
    """
    rows = torch.arange(ptr.numel() - 1, device=ptr.device)
    return torch.repeat_interleave(rows, ptr.diff(), output_size=num_edges)


@torch.library.custom_op("graphformer::layout", mutates_args=())
def _layout_op(row: Tensor, other: Tensor, num_rows: int, num_others: int) -> tuple[Tensor, Tensor, Tensor]:
    _check_range(row, num_rows)
    _check_range(other, num_others)
    num_edges = row.numel()
    edge_id = torch.argsort(row, stable=True)
    ptr = torch.zeros(num_rows + 1, dtype=torch.int64, device=row.device)
    torch.cumsum(torch.bincount(row, minlength=num_rows), 0, out=ptr[1:])
    index = other.to(index_dtype(max(num_rows, num_others))).index_select(0, edge_id)
    return ptr, index, edge_id.to(index_dtype(num_edges))


@_layout_op.register_fake
def _(row: Tensor, other: Tensor, num_rows: int, num_others: int) -> tuple[Tensor, Tensor, Tensor]:
    num_edges = row.shape[0]
    return (
        row.new_empty(num_rows + 1, dtype=torch.int64),
        row.new_empty(num_edges, dtype=index_dtype(max(num_rows, num_others))),
        row.new_empty(num_edges, dtype=index_dtype(num_edges)),
    )


def _check_range(index: Tensor, limit: int) -> None:
    if index.numel() == 0:
        return
    low, high = (int(value) for value in torch.aminmax(index))
    if low < 0 or high >= limit:
        wrong = low if low < 0 else high
        edge = int((index == wrong).nonzero()[0])
        raise InputError(
            f"AttentionGraph: edge_index must hold ids in [0, {limit}); got {wrong} at edge {edge}. "
            "Correct the ids, or pass a larger num_nodes or size."
        )
