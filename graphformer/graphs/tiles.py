"""Tiles: windows of 32 rows whose keys are listed once, where rows share many keys."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from graphformer._library import LIBRARY, address
from graphformer.graphs.layout import Layout
from graphformer.graphs.runs import KeyRuns

ROWS = 32
# The least fill at which a window is served by tiles rather than row by row.
LEAST_FILL = 0.2
_INT32_MAX = 2**31 - 1


class Tiles(NamedTuple):
    """Windows of 32 consecutive rows, each with the keys that its rows attend to, run by run.

    Within a window segments ascend by key, and consecutive keys with equal masks are one segment. Where a row holds a
    key twice, a further entry for that key follows directly after the first: the first is masked by the rows with at
    least one copy, the second by those with at least two, and so on; such keys are segments of their own. Each set bit
    is so one pair, and a row meets its pairs in the order of its layout. A window without segments is left to the rows.

    Attributes:
        ptr: Offsets of the windows' segments. Shape `[num_windows + 1]`, int64; `num_windows` = num_rows / 32, rounded
            up.
        segments: First key, number of consecutive keys, and mask (bit l set: row 32 w + l attends to each of these
            keys). Shape `[S, 3]`, int32.
    """

    ptr: Tensor
    segments: Tensor


def make_tiles(layout: Layout, num_rows: int, num_others: int, least_fill: float | None = None) -> Tiles | None:
    """The tiles of a layout whose rows ascend.

    Args:
        layout: Rows on the CPU, keys ascending in each.
        num_rows: Number of rows.
        num_others: Number of nodes at the other end.
        least_fill: A window keeps its segments where its pairs are at least this share of 32 * keys listed. Above 0;
            default LEAST_FILL.

    Returns:
        The tiles; None where no window is full enough, an id exceeds int32, or the library is not built.

    Example:
        >>> rows = torch.tensor([0, 2, 5])
        >>> tiles = make_tiles(Layout(rows, torch.tensor([0, 1, 0, 1, 2]).int(), None), 2, 3, least_fill=0.05)
        >>> None if tiles is None else tiles.segments.tolist()
        [[0, 2, 3], [2, 1, 2]]
    """
    return _build(layout.ptr, layout.index, None, num_rows, num_others, least_fill)


def make_tiles_of_runs(runs: KeyRuns, least_fill: float | None = None) -> Tiles | None:
    """The tiles of rows given as runs of keys; the same as of their pairs, at the cost of the runs.

    Args:
        runs: Rows on the CPU.
        least_fill: As in :func:`make_tiles`.
    """
    return _build(runs.ptr, runs.start, runs.stop, runs.num_queries, runs.num_keys, least_fill)


class Served(NamedTuple):
    """How tiles and rows share the windows of one side of a graph.

    Attributes:
        num_windows: Windows of 32 rows.
        num_tiled: Those served by tiles.
        num_pairs: Pairs of all windows.
        num_tiled_pairs: Pairs in tiles.
        num_entries: Keys that the tiles list, once for each window.
    """

    num_windows: int
    num_tiled: int
    num_pairs: int
    num_tiled_pairs: int
    num_entries: int

    @property
    def fill(self) -> float:
        """Share of the places in the tiles that are pairs, 0 without tiles."""
        return self.num_tiled_pairs / (ROWS * self.num_entries) if self.num_entries else 0.0

    def tell(self, device: torch.device) -> str:
        """Which loops run, and why, in half a sentence; `device` is the graph's."""
        windows = f"{self.num_windows} window" + ("" if self.num_windows == 1 else "s")
        told = f"tiles serve {self.num_tiled} of {windows} of {ROWS} queries"
        if 0 < self.num_tiled == self.num_windows:
            return f"{told} (fill {self.fill:.1%})"
        if self.num_tiled:
            return f"{told} (fill {self.fill:.1%}), the others, filled below {LEAST_FILL:.0%}, go row by row"
        if self.num_pairs == 0:
            return f"{told}: there are no pairs"
        if device.type != "cpu":
            return f"{told}: only graphs on the CPU have tiles"
        if LIBRARY is None:
            return f"{told}: the C++ library, which makes them, is not built"
        return f"{told}: none is filled to {LEAST_FILL:.0%}, so all go row by row"


def serve(tiles: Tiles | None, ptr: Tensor) -> Served:
    """How tiles share the windows with rows.

    Args:
        tiles: Of the rows, or None.
        ptr: Offsets of the rows' pairs. Shape `[num_rows + 1]`, int64.

    Example:
        >>> rows = torch.tensor([0, 2, 5])
        >>> tiles = make_tiles(Layout(rows, torch.tensor([0, 1, 0, 1, 2]).int(), None), 2, 3, least_fill=0.05)
        >>> serve(tiles, rows)
        Served(num_windows=1, num_tiled=1, num_pairs=5, num_tiled_pairs=5, num_entries=3)
    """
    num_rows = ptr.numel() - 1
    num_windows, num_pairs = -(-num_rows // ROWS), int(ptr[-1])
    if tiles is None:
        return Served(num_windows, 0, num_pairs, 0, 0)
    is_tiled = tiles.ptr.diff() > 0
    border = (torch.arange(num_windows + 1) * ROWS).clamp(max=num_rows)
    num_tiled_pairs, num_entries = int(ptr[border].diff()[is_tiled].sum()), int(tiles.segments[:, 1].long().sum())
    return Served(num_windows, int(is_tiled.sum()), num_pairs, num_tiled_pairs, num_entries)


def _build(
    ptr: Tensor, start: Tensor, stop: Tensor | None, num_rows: int, num_others: int, least_fill: float | None
) -> Tiles | None:
    if LIBRARY is None or start.numel() == 0 or max(num_rows, num_others) > _INT32_MAX:
        return None
    ptr, start = ptr.contiguous(), start.contiguous()
    stop = None if stop is None else stop.contiguous()
    rows = (
        address(ptr),
        address(start),
        address(stop),
        ctypes.c_int32(start.dtype == torch.int64),
        ctypes.c_int64(num_rows),
    )
    least_fill = LEAST_FILL if least_fill is None else least_fill
    threads = ctypes.c_int32(torch.get_num_threads())
    window_ptr = torch.empty(-(-num_rows // ROWS) + 1, dtype=torch.int64)
    num_segments = LIBRARY.gf_count_tiles(*rows, ctypes.c_double(least_fill), threads, address(window_ptr))
    if num_segments == 0:
        return None
    segments = torch.empty(num_segments, 3, dtype=torch.int32)
    LIBRARY.gf_fill_tiles(*rows, threads, address(window_ptr), address(segments))
    return Tiles(window_ptr, segments)
