from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import graphformer as gf
from graphformer import _library
from graphformer.graphs.layout import Layout
from graphformer.graphs.runs import KeyRuns
from graphformer.graphs.tiles import ROWS, Tiles, make_tiles, make_tiles_of_runs

pytestmark = pytest.mark.skipif(_library.LIBRARY is None, reason="the library is not built")

Rows = list[list[int]]


def layout_of(rows: Rows) -> Layout:
    ptr = torch.tensor([0, *map(len, rows)]).cumsum(0)
    return Layout(ptr, torch.tensor([key for row in rows for key in sorted(row)], dtype=torch.int32), None)


def expected_window(rows: Rows, least_fill: float) -> list[list[int]]:
    """Segments by counting every key of every row."""
    counts = [Counter(row) for row in rows]
    segments: list[list[int]] = []
    last_is_single = False
    for key in sorted(set().union(*rows)):
        most = max(count[key] for count in counts)
        for copy in range(1, most + 1):
            mask = sum(1 << lane for lane, count in enumerate(counts) if count[key] >= copy)
            mask -= 2**32 * (mask >= 2**31)
            if most == 1 and last_is_single and segments[-1][2] == mask and sum(segments[-1][:2]) == key:
                segments[-1][1] += 1
            else:
                segments.append([key, 1, mask])
        last_is_single = most == 1
    entries = sum(count for _, count, _ in segments)
    return segments if entries <= int(sum(map(len, rows)) / (ROWS * least_fill)) else []


def expected(rows: Rows, least_fill: float) -> tuple[list[int], list[list[int]]] | None:
    windows = [expected_window(rows[start : start + ROWS], least_fill) for start in range(0, len(rows), ROWS)]
    ptr = torch.tensor([0, *map(len, windows)]).cumsum(0).tolist()
    return (ptr, sum(windows, [])) if ptr[-1] else None


def plain(tiles: Tiles | None) -> tuple[list[int], list[list[int]]] | None:
    return None if tiles is None else (tiles.ptr.tolist(), tiles.segments.tolist())


@st.composite
def draw_rows(draw: st.DrawFn, max_key: int = 40) -> tuple[Rows, int]:
    """Rows of all kinds: empty, single keys, long runs, repeated keys."""
    num_keys = draw(st.integers(1, max_key))
    key = st.integers(0, num_keys - 1)
    run = st.tuples(key, key).map(lambda ends: list(range(min(ends), max(ends) + 1)))
    row = st.one_of(st.just([]), st.lists(key, max_size=5), run, st.builds(lambda a, b: a + b, run, st.lists(key)))
    few = draw(st.lists(row, min_size=1, max_size=4))
    rows = draw(st.lists(st.one_of(st.sampled_from(few), row), min_size=1, max_size=75))
    return rows, num_keys


@settings(deadline=None)
@given(draw_rows(), st.sampled_from([1e-9, 0.15, 0.5, 1.0]))
def test_tiles_are_what_counting_finds(drawn: tuple[Rows, int], least_fill: float) -> None:
    rows, num_keys = drawn
    tiles = make_tiles(layout_of(rows), len(rows), num_keys, least_fill)
    assert plain(tiles) == expected(rows, least_fill)
    if tiles is not None:
        assert tiles.ptr.dtype == torch.int64
        assert tiles.segments.dtype == torch.int32


def walk(tiles: Tiles, ptr: Tensor) -> dict[int, tuple[int, int]]:
    """(row, key) by position, with one running counter a row, as the kernel does."""
    at = ptr.tolist()
    found = {}
    for window, (start, stop) in enumerate(zip(tiles.ptr[:-1].tolist(), tiles.ptr[1:].tolist(), strict=True)):
        for first, count, mask in tiles.segments[start:stop].tolist():
            for key in range(first, first + count):
                for lane in range(ROWS):
                    if mask >> lane & 1:
                        row = window * ROWS + lane
                        assert at[row] not in found
                        found[at[row]] = (row, key)
                        at[row] += 1
    return found


@settings(deadline=None)
@given(draw_rows())
def test_a_counter_for_each_row_finds_every_position(drawn: tuple[Rows, int]) -> None:
    rows, num_keys = drawn
    layout = layout_of(rows)
    tiles = make_tiles(layout, len(rows), num_keys, 1e-9)
    pairs = [(row, key) for row, keys in enumerate(rows) for key in sorted(keys)]
    assert (walk(tiles, layout.ptr) if tiles else {}) == dict(enumerate(pairs))


@settings(deadline=None)
@given(draw_rows(), st.sampled_from([1e-9, 0.15, 0.5]))
def test_runs_and_their_pairs_have_the_same_tiles(drawn: tuple[Rows, int], least_fill: float) -> None:
    rows = [sorted(set(row)) for row in drawn[0]]
    layout = layout_of(rows)
    query = torch.repeat_interleave(torch.arange(len(rows)), layout.ptr.diff())
    runs = KeyRuns.from_pairs(query, layout.index.long(), len(rows), drawn[1])
    of_pairs = make_tiles(layout, len(rows), drawn[1], least_fill)
    assert plain(make_tiles_of_runs(runs, least_fill)) == plain(of_pairs)


def test_runs_that_touch_are_one() -> None:
    ptr, start, stop = torch.tensor([0, 2]), torch.tensor([3, 5]), torch.tensor([5, 9])
    assert plain(make_tiles_of_runs(KeyRuns(ptr, start, stop, 11), 0.01)) == ([0, 1], [[3, 6, 1]])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(threads: int) -> None:
    before = torch.get_num_threads()
    layout = gf.patterns.Window(radius=7).on(5000).by_query
    try:
        torch.set_num_threads(threads)
        tiles = make_tiles(layout, 5000, 5000)
    finally:
        torch.set_num_threads(before)
    rows = [layout.index[a:b].tolist() for a, b in zip(layout.ptr[:-1], layout.ptr[1:], strict=True)]
    assert plain(tiles) == expected(rows, 0.3)


def test_there_are_none_without_pairs_or_with_wide_ids() -> None:
    rows = layout_of([[0, 1], [0, 1]])
    assert make_tiles(rows, 2, 2, 0.06) is not None
    assert make_tiles(rows, 2, 2, 0.07) is None
    assert make_tiles(layout_of([[], []]), 2, 3) is None
    assert make_tiles(rows, 2, 2**31, 0.06) is None


def test_full_attention_has_one_segment_a_window_whatever_its_size() -> None:
    start = torch.zeros(70000, dtype=torch.int64)
    tiles = make_tiles_of_runs(KeyRuns.from_ranges(start, start + 2**31 - 1, 2**31 - 1))
    assert tiles is not None
    assert tiles.ptr.tolist() == list(range(2189))
    assert tiles.segments.unique(dim=0).tolist() == [[0, 2**31 - 1, -1], [0, 2**31 - 1, (1 << 16) - 1]]
