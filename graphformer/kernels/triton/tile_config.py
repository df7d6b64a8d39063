"""How the kernels over runs are cut: a static table for each architecture, by dtype, width and the length of runs.

Nothing here depends on the number of nodes or edges, so that no new graph compiles anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch


class TileConfig(NamedTuple):
    """One program's share of the work.

    Attributes:
        rows: Rows of the tile, a power of two.
        step: Nodes of the other end in a step, a power of two.
        warps: Warps of 32 threads.
        stages: Steps whose loads are under way at once.
    """

    rows: int
    step: int
    warps: int
    stages: int


MOST_WIDTH = 256
_overrides: ContextVar[dict[str, TileConfig]] = ContextVar("_overrides", default={})  # noqa: B039  # never changed in place


def tile_config(direction: str, height: int, widest: int, dtype: torch.dtype, architecture: str) -> TileConfig:
    """x."""
    given = _overrides.get().get(direction)
    if given is not None:
        return given
    return TileConfig(64, 64, 4, 2) if height > 16 else TileConfig(16, 32, 2, 2)


@contextmanager
def override(**configs: TileConfig) -> Iterator[None]:
    """Use other cuts inside a `with` block: how a search for better ones tries them.

    Args:
        **configs: By direction.
    """
    token = _overrides.set({**_overrides.get(), **configs})
    try:
        yield
    finally:
        _overrides.reset(token)


def architecture_of(device: torch.device) -> str:
    """The row of the table that serves a device: that of the newest architecture not newer than it."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] >= 9:
        return "sm90"
    return "sm80"


def padded(width: int) -> int:
    """The power of two, at least 16, that holds a width: what a product on tensor cores takes.

    Example:
        >>> padded(20), padded(3)
        (32, 16)
    """
    return max(16, 1 << (max(1, width) - 1).bit_length())
