"""How the kernels over runs are cut: a static table for each architecture, by dtype, width and the length of runs.

Nothing here depends on the number of nodes or edges, so that no new graph compiles anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from graphformer.graphs.spans import SHORT


class TileConfig(NamedTuple):
    """One program's share of the work.

    Attributes:
        rows: Rows of the tile, a power of two, at least 16.
        step: Nodes of the other end in a step, a power of two, at least 16.
        warps: Warps of 32 threads.
        stages: Steps whose loads are under way at once.
    """

    rows: int
    step: int
    warps: int
    stages: int


_WIDTHS = (16, 32, 64, 128, 256)
# By bytes of a number. Products of float32 run off the tensor cores, and beyond that take a compiler minutes.
MOST_WIDTH = {2: 256, 4: 128}

# By architecture, bytes of a number, and pass: one cut for each of _WIDTHS. Chosen by what compiles with few or no
# spilled registers; not yet by measurements on a device.
_WIDE = TileConfig(128, 64, 8, 3)
_TALL = {
    ("sm90", 2, "forward"): (_WIDE, _WIDE, _WIDE, TileConfig(128, 64, 8, 2), TileConfig(64, 16, 8, 2)),
    ("sm90", 2, "by_query"): (
        _WIDE,
        _WIDE,
        TileConfig(64, 32, 4, 3),
        TileConfig(64, 32, 8, 2),
        TileConfig(32, 16, 8, 2),
    ),
    ("sm90", 2, "by_key"): (_WIDE, _WIDE, _WIDE, TileConfig(64, 32, 8, 2), TileConfig(32, 16, 8, 2)),
    ("sm80", 2, "forward"): (
        *(_WIDE, _WIDE, TileConfig(64, 64, 4, 2)),
        *(TileConfig(64, 64, 8, 2), TileConfig(64, 16, 8, 2)),
    ),
    ("sm80", 2, "by_query"): (
        _WIDE,
        _WIDE,
        TileConfig(64, 32, 4, 3),
        TileConfig(64, 32, 8, 2),
        TileConfig(32, 16, 8, 2),
    ),
    ("sm80", 2, "by_key"): (_WIDE, _WIDE, TileConfig(64, 32, 4, 3), TileConfig(64, 32, 8, 2), TileConfig(32, 16, 8, 2)),
}
_SHORT = (
    *(TileConfig(16, 32, 1, 2), TileConfig(16, 32, 2, 2), TileConfig(16, 32, 2, 2)),
    *(TileConfig(16, 32, 4, 2), TileConfig(16, 16, 8, 2)),
)
_TALL_FLOAT = (TileConfig(32, 32, 4, 2), TileConfig(32, 32, 4, 2), TileConfig(32, 32, 8, 2), TileConfig(32, 16, 8, 1))
_SHORT_FLOAT = (TileConfig(16, 16, 2, 2), TileConfig(16, 16, 2, 2), TileConfig(16, 16, 4, 2), TileConfig(16, 16, 8, 1))
_overrides: dict[str, TileConfig] = {}  # of the whole process: autograd has threads of its own


def tile_config(direction: str, height: int, widest: int, dtype: torch.dtype, architecture: str) -> TileConfig:
    """The cut of a pass.

    Args:
        direction: "forward", "by_query" or "by_key".
        height: SHORT or TALL of graphs/spans.py, whichever suits the runs.
        widest: The padded width of a head's key or value, whichever is larger; at most that of MOST_WIDTH.
        dtype: Of the query.
        architecture: "sm80" or "sm90".

    Example:
        >>> tile_config("forward", 64, 64, torch.float16, "sm90")
        TileConfig(rows=128, step=64, warps=8, stages=3)
        >>> tile_config("by_key", 16, 32, torch.float16, "sm90")
        TileConfig(rows=16, step=32, warps=2, stages=2)
    """
    given = _overrides.get(direction)
    if given is not None:
        return given
    row: tuple[TileConfig, ...]
    if dtype == torch.float32:
        row = _SHORT_FLOAT if height == SHORT else _TALL_FLOAT
    elif height == SHORT:
        row = _SHORT
    else:
        row = _TALL[architecture, dtype.itemsize, direction]
    return row[_WIDTHS.index(widest)]


@contextmanager
def override(**configs: TileConfig) -> Iterator[None]:
    """Use other cuts inside a `with` block: how a search for better ones tries them.

    Args:
        **configs: By direction.

    Example:
        >>> with override(forward=TileConfig(64, 32, 4, 2)):
        ...     tile_config("forward", 64, 64, torch.float16, "sm90")
        TileConfig(rows=64, step=32, warps=4, stages=2)
    """
    before = dict(_overrides)
    _overrides.update(configs)
    try:
        yield
    finally:
        _overrides.clear()
        _overrides.update(before)


def padded(width: int) -> int:
    """The power of two, at least 16, that holds a width: what a product on tensor cores takes.

    Example:
        >>> padded(20), padded(3)
        (32, 16)
    """
    return max(16, 1 << (max(1, width) - 1).bit_length())
