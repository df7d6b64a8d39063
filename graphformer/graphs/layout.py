"""Compressed layouts of an edge list: the rows' offsets, the other ends, the edge ids."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graphformer._errors import IdError
from graphformer._library import LIBRARY, address, call

_INT32_MAX = 2**31 - 1


class Layout(NamedTuple):
    """Edges grouped by one of their ends, the other end ascending in each row, equal pairs by their ids.

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
    """Group edges by ``row``, the other ends ascending in each row, equal pairs by their ids.

    Args:
        row: The end to group by. Shape `[E]`, int32 or int64, in [0, num_rows).
        other: The other end. Shape `[E]`, int32 or int64, in [0, num_others).
        num_rows: Number of rows.
        num_others: Number of nodes at the other end.

    Returns:
        The layout. `edge_id` is None where the edges came in this order; under torch.compile, where the presence of a
        tensor must not depend on data, it is always given.

    Raises:
        IdError: An id is out of range.

    Example:
        >>> make_layout(torch.tensor([1, 0, 1]), torch.tensor([4, 0, 2]), 2, 5)
        Layout(ptr=tensor([0, 1, 3]), index=tensor([0, 2, 4], dtype=torch.int32),
               edge_id=tensor([1, 2, 0], dtype=torch.int32))
    """
    if torch.compiler.is_compiling() or type(row) is not Tensor:
        return Layout(*_layout_op(row, other, num_rows, num_others))
    ptr, index, edge_id, in_order = _sort(row, other, num_rows, num_others)
    return Layout(ptr, index, None if in_order else edge_id)


def transpose_layout(layout: Layout, num_others: int) -> Layout:
    """The layout by the other end: its rows hold the first one's rows, ascending, equal pairs by their ids.

    Args:
        layout: Edges grouped by row, the other ends ascending in each.
        num_others: Number of nodes at the other end, the rows of the result.

    Returns:
        The layout; `edge_id` is always given.

    Example:
        >>> transpose_layout(Layout(torch.tensor([0, 2, 3]), torch.tensor([1, 2, 1]).int(), None), 3)
        Layout(ptr=tensor([0, 0, 2, 3]), index=tensor([0, 1, 0], dtype=torch.int32),
               edge_id=tensor([0, 2, 1], dtype=torch.int32))
    """
    return Layout(*_transpose_op(*layout, num_others))


def offsets(degree: Tensor) -> Tensor:
    """Where each row starts, and at the end the total, from the rows' lengths. Takes `[N]`, gives `[N + 1]` int64.

    Example:
        >>> offsets(torch.tensor([2, 0, 3]))
        tensor([0, 2, 2, 5])
    """
    ptr = torch.zeros(degree.shape[0] + 1, dtype=torch.int64, device=degree.device)
    torch.cumsum(degree, 0, out=ptr[1:])
    return ptr


def expand_rows(ptr: Tensor, num_edges: int) -> Tensor:
    """The row of each position of a layout. Shape `[E]`, int64.

    Example:
        >>> expand_rows(torch.tensor([0, 2, 2, 3]), 3)
        tensor([0, 0, 2])
    """
    return torch.repeat_interleave(ptr.diff(), output_size=num_edges)


def within_rows(ptr: Tensor, num_edges: int) -> Tensor:
    """Whether each position but the first is in the row of the one before. Shape `[E - 1]`, bool ([0] where E is 0).

    Example:
        >>> within_rows(torch.tensor([0, 2, 2, 3]), 3)
        tensor([ True, False])
    """
    within = torch.ones(max(num_edges - 1, 0), dtype=torch.bool, device=ptr.device)
    within[ptr[(ptr > 0) & (ptr < num_edges)] - 1] = False
    return within


@torch.library.custom_op("graphformer::layout", mutates_args=())
def _layout_op(row: Tensor, other: Tensor, num_rows: int, num_others: int) -> tuple[Tensor, Tensor, Tensor]:
    ptr, index, edge_id, in_order = _sort(row, other, num_rows, num_others)
    return ptr, index, torch.arange(row.numel(), out=edge_id) if in_order else edge_id


@_layout_op.register_fake
def _(row: Tensor, other: Tensor, num_rows: int, num_others: int) -> tuple[Tensor, Tensor, Tensor]:
    return _new_layout(row, row.shape[0], num_rows, index_dtype(max(num_rows, num_others)))


@torch.library.custom_op("graphformer::transpose_layout", mutates_args=())
def _transpose_op(ptr: Tensor, index: Tensor, edge_id: Tensor | None, num_others: int) -> tuple[Tensor, Tensor, Tensor]:
    num_rows, num_edges = ptr.numel() - 1, index.numel()
    if not _native(ptr):
        order = torch.argsort(index, stable=True)
        ids = order if edge_id is None else edge_id.index_select(0, order)
        rows = expand_rows(ptr, num_edges).index_select(0, order)
        return _offsets(index, num_others), rows.to(index.dtype), ids.to(index_dtype(num_edges))
    out = _new_layout(ptr, num_edges, num_others, index.dtype)
    ptr, index = ptr.contiguous(), index.contiguous()
    edge_id = None if edge_id is None else edge_id.to(out[2].dtype).contiguous()
    _call("gf_transpose_layout", (ptr, index, edge_id), (num_edges, num_rows, num_others), out)
    return out


@_transpose_op.register_fake
def _(ptr: Tensor, index: Tensor, edge_id: Tensor | None, num_others: int) -> tuple[Tensor, Tensor, Tensor]:
    return _new_layout(ptr, index.shape[0], num_others, index.dtype)


def _sort(row: Tensor, other: Tensor, num_rows: int, num_others: int) -> tuple[Tensor, Tensor, Tensor, bool]:
    """The sorted layout, and whether the edges were in order; their ids are not written then."""
    num_edges, dtype = row.numel(), index_dtype(max(num_rows, num_others))
    if _native(row):
        if row.dtype != other.dtype:
            row, other = row.long(), other.long()
        row, other = row.contiguous(), other.contiguous()
        out = _new_layout(row, num_edges, num_rows, dtype)
        wide = ctypes.c_int32(row.dtype == torch.int64)
        found = _call("gf_make_layout", (row, other, wide), (num_edges, num_rows, num_others), out)
        if found >= 0:
            return *out, found == 1
    _check_range(row, num_rows)
    _check_range(other, num_others)
    order = torch.argsort(other, stable=True)
    order = order[torch.argsort(row[order], stable=True)]
    in_order = torch.equal(order, torch.arange(num_edges, device=row.device))
    return _offsets(row, num_rows), other[order].to(dtype), order.to(index_dtype(num_edges)), in_order


def _native(tensor: Tensor) -> bool:
    return LIBRARY is not None and tensor.device.type == "cpu"


def _call(function: str, given: tuple[Any, ...], sizes: tuple[int, ...], out: tuple[Tensor, Tensor, Tensor]) -> int:
    wide = (ctypes.c_int32(tensor.dtype == torch.int64) for tensor in out[1:])
    num_edges, num_rows, num_others = sizes
    return call(
        function,
        "AttentionGraph",
        f"sort {num_edges:,} pairs of {num_rows:,} and {num_others:,} nodes",
        *(value if isinstance(value, ctypes.c_int32) else address(value) for value in given),
        *map(ctypes.c_int64, sizes),
        *wide,
        ctypes.c_int32(torch.get_num_threads()),
        *map(address, out),
    )


def _new_layout(like: Tensor, num_edges: int, num_rows: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    return (
        like.new_empty(num_rows + 1, dtype=torch.int64),
        like.new_empty(num_edges, dtype=dtype),
        like.new_empty(num_edges, dtype=index_dtype(num_edges)),
    )


def _offsets(row: Tensor, num_rows: int) -> Tensor:
    ptr = torch.zeros(num_rows + 1, dtype=torch.int64, device=row.device)
    torch.cumsum(torch.bincount(row, minlength=num_rows), 0, out=ptr[1:])
    return ptr


def _check_range(index: Tensor, limit: int) -> None:
    if index.numel() == 0:
        return
    low, high = (int(value) for value in torch.aminmax(index))
    if low < 0 or high >= limit:
        wrong = low if low < 0 else high
        edge = int((index == wrong).nonzero()[0])
        raise IdError(
            f"AttentionGraph: edge_index must hold ids in [0, {limit}); got {wrong} at edge {edge}. "
            "Correct the ids, or pass a larger num_nodes or size."
        )
