"""How far tiles of neighbouring rows reach along the other end: whether kernels do well to walk runs tile by tile."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphformer.graphs.layout import expand_rows
from graphformer.graphs.runs import KeyRuns

SHORT, TALL = 16, 64  # rows of a tile
_MOST_TURNS = 16  # runs of a row, at most, for tiles to be measured at all


class Spans(NamedTuple):
    """What tiles would walk. A tile takes its rows' first runs, from the first start to the last stop, then the second.

    Attributes:
        most_runs: Runs of the row that has most.
        short_fill: Share of the places that tiles of SHORT rows walk which are pairs; 0 where rows have many runs.
        tall_fill: The same of tiles of TALL rows.
    """

    most_runs: int
    short_fill: float
    tall_fill: float


def measure_spans(runs: KeyRuns, num_pairs: int) -> Spans:
    """Measure the tiles of rows held as runs. Waits for the device.

    Args:
        runs: The rows.
        num_pairs: How many pairs they hold.

    Example:
        >>> row = torch.arange(64)
        >>> measure_spans(KeyRuns.from_ranges(0 * row, row + 1, num_keys=64), 2080)  # causal
        Spans(most_runs=1, short_fill=0.8125, tall_fill=0.5078125)
    """
    num_runs = runs.start.shape[0]
    most = int(runs.ptr.diff().max()) if num_runs else 0
    if most == 0 or most > _MOST_TURNS:
        return Spans(most, 0.0, 0.0)
    row = expand_rows(runs.ptr, num_runs)
    turn = torch.arange(num_runs, device=row.device) - runs.ptr[row]
    areas = [_area(runs, row // height * most + turn, most, height) for height in (SHORT, TALL)]
    return Spans(most, *(num_pairs / int(area) for area in areas))


def _area(runs: KeyRuns, group: Tensor, most: int, height: int) -> Tensor:
    """Places that tiles walk; `group` says of which tile and turn each run is."""
    num_groups = -(-runs.num_queries // height) * most
    low = runs.start.new_full((num_groups,), runs.num_keys).scatter_reduce_(0, group, runs.start, "amin")
    high = runs.start.new_zeros(num_groups).scatter_reduce_(0, group, runs.stop, "amax")
    return (high - low).clamp(min=0).sum() * height
