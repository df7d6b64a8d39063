from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from graphformer._errors import InputError
from graphformer.graphs import layout as layouts
from graphformer.graphs.layout import Layout, make_layout, transpose_layout


@pytest.fixture(params=["library", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(layouts, "LIBRARY", None)
    elif layouts.LIBRARY is None:
        pytest.skip("the library is not built")
    return request.param


def expected(row: list[int], other: list[int], num_rows: int) -> tuple[list[int], list[int], list[int]]:
    ids = sorted(range(len(row)), key=lambda e: (row[e], other[e], e))
    ptr = [0] * (num_rows + 1)
    for r in row:
        ptr[r + 1] += 1
    return torch.tensor(ptr).cumsum(0).tolist(), [other[e] for e in ids], ids


def plain(layout: Layout) -> tuple[list[int], list[int], list[int]]:
    ptr, index, edge_id = (None if tensor is None else tensor.tolist() for tensor in layout)
    return ptr, index, list(range(len(index))) if edge_id is None else edge_id


def check(row: Tensor, other: Tensor, num_rows: int, num_others: int) -> None:
    """Both layouts against sorting in Python; the transposed one where it is not too large."""
    layout = make_layout(row, other, num_rows, num_others)
    rows, others = row.tolist(), other.tolist()
    assert plain(layout) == expected(rows, others, num_rows)
    assert (layout.edge_id is None) == (plain(layout)[2] == sorted(plain(layout)[2]))
    if num_others < 2**15:
        by_other = transpose_layout(layout, num_others)
        assert plain(by_other) == expected(others, rows, num_others)
        assert by_other.index.dtype == layout.index.dtype


@st.composite
def draw_edges(draw: st.DrawFn) -> tuple[Tensor, Tensor, int, int]:
    num_rows, num_others = draw(st.integers(1, 70)), draw(st.sampled_from([1, 3, 40, 2**11 + 1, 2**23, 2**34]))
    row, other = st.integers(0, num_rows - 1), st.integers(0, num_others - 1)
    pairs = draw(st.lists(st.tuples(row, other), max_size=60))
    pairs += draw(st.lists(st.sampled_from(pairs), max_size=9)) if pairs else []
    dtype = draw(st.sampled_from([torch.int32, torch.int64])) if num_others < 2**31 else torch.int64
    ends = torch.tensor(draw(st.sampled_from([pairs, sorted(pairs)])), dtype=dtype).reshape(-1, 2)
    return ends[:, 0], ends[:, 1], num_rows, num_others


@settings(deadline=None)
@given(draw_edges())
def test_edges_are_sorted_by_row_then_other_then_id(edges: tuple[Tensor, Tensor, int, int]) -> None:
    check(*edges)


@pytest.mark.parametrize(("num_rows", "num_others"), [(1, 9), (7, 1), (5000, 3), (3, 5000), (300000, 200), (999, 1001)])
def test_many_edges(way: str, num_rows: int, num_others: int) -> None:
    generator = torch.Generator().manual_seed(num_rows)
    row = torch.randint(num_rows, (50001,), generator=generator) ** 2 // num_rows  # low rows have more
    check(row, torch.randint(num_others, (50001,), generator=generator), num_rows, num_others)


@pytest.mark.parametrize(("num_rows", "num_others"), [(0, 0), (0, 4), (3, 0), (3, 4)])
def test_no_edges(way: str, num_rows: int, num_others: int) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    check(none, none, num_rows, num_others)


@pytest.mark.parametrize("wide", ["index", "id", "both"])
@pytest.mark.parametrize("given_dtype", [torch.int32, torch.int64])
def test_wide_ends_and_ids(way: str, wide: str, given_dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    num_edges, sizes = 20000, (101, 103)
    widened = {"index": [max(sizes)], "id": [num_edges], "both": [max(sizes), num_edges]}[wide]
    monkeypatch.setattr(layouts, "index_dtype", lambda most: torch.int64 if most in widened else torch.int32)
    row, other = (torch.randint(size, (num_edges,), generator=torch.Generator().manual_seed(2)) for size in sizes)
    check(row.to(given_dtype), other.to(given_dtype), *sizes)
    layout = make_layout(row.to(given_dtype), other.to(given_dtype), *sizes)
    assert (layout.index.dtype == torch.int64) == (wide != "id")
    assert layout.edge_id is not None
    assert (layout.edge_id.dtype == torch.int64) == (wide != "index")


def test_ends_of_two_types_and_with_strides(way: str) -> None:
    ends = torch.tensor([[4, 1], [0, 0], [4, 0]])
    check(ends[:, 0], ends[:, 1].int(), 5, 2)


@pytest.mark.parametrize("edge", [1, 16, 70, 10000, 14000, 19999])  # rows begin at 70 and 14000, a thread at 10000
def test_two_edges_exchanged_are_seen(way: str, edge: int) -> None:
    code = torch.arange(20000)
    assert make_layout(code // 70, code % 70, 300, 70).edge_id is None
    code[edge - 1], code[edge] = edge, edge - 1
    check(code // 70, code % 70, 300, 70)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_edges_in_order_are_copied(way: str, dtype: torch.dtype) -> None:
    row = torch.arange(30000, dtype=dtype) // 9 * 5 + 3  # rows without edges, in between and at both ends
    other = torch.arange(9, dtype=dtype).repeat(30000)[:30000] // 2
    assert make_layout(row, other, 17000, 5).edge_id is None
    check(row, other, 17000, 5)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(threads: int) -> None:
    before = torch.get_num_threads()
    generator = torch.Generator().manual_seed(5)
    row, other = torch.randint(900, (40000,), generator=generator), torch.randint(70, (40000,), generator=generator)
    try:
        torch.set_num_threads(threads)
        check(row, other, 900, 70)
    finally:
        torch.set_num_threads(before)


def test_sorting_again_and_transposing_twice_change_nothing(way: str) -> None:
    row, other = torch.randint(30, (20000,)), torch.randint(80, (20000,))
    layout = make_layout(row, other, 30, 80)
    twice = transpose_layout(transpose_layout(layout, 80), 30)
    assert all(torch.equal(a, b) for a, b in zip(layout, twice, strict=True))


@pytest.mark.parametrize("wrong", [-1, 7, 2**40, -(2**40)])
@pytest.mark.parametrize("side", ["row", "other"])
@pytest.mark.parametrize("edge", [0, 3, 19999])
def test_ids_out_of_range_are_refused(way: str, wrong: int, side: str, edge: int) -> None:
    ends = {"row": torch.zeros(20000, dtype=torch.int64), "other": torch.zeros(20000, dtype=torch.int64)}
    ends[side][edge] = wrong
    message = f"edge_index must hold ids in [0, 7); got {wrong} at edge {edge}. Correct the ids"
    with pytest.raises(InputError, match=re.escape(message)):
        make_layout(ends["row"], ends["other"], 7, 7)


@pytest.mark.parametrize("in_order", [False, True])
def test_operators_tell_the_truth(in_order: bool) -> None:
    row, other = torch.tensor([1, 0, 1, 4]), torch.tensor([2, 0, 1, 6])
    row = row.sort().values if in_order else row
    torch.library.opcheck(layouts._layout_op, (row, other, 5, 7))
    layout = make_layout(row, other, 5, 7)
    torch.library.opcheck(layouts._transpose_op, (*layout, 7))


def test_traced_layouts_always_have_ids() -> None:
    row, other = torch.tensor([0, 1, 3]), torch.tensor([5, 0, 2])
    assert make_layout(row, other, 4, 6).edge_id is None
    traced = torch.compile(make_layout, backend="eager", fullgraph=True)(row, other, 4, 6)
    assert traced.edge_id.tolist() == [0, 1, 2]
    with FakeTensorMode() as mode:
        fake = make_layout(mode.from_tensor(row), mode.from_tensor(other), 4, 6)
    assert [tensor.shape for tensor in fake] == [(5,), (3,), (3,)]
