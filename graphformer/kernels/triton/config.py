"""How the kernels over listed pairs are cut: a static table for each architecture, by the width of a node's vectors.

Nothing here depends on the number of nodes or edges, so that no new graph compiles anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import NamedTuple

import torch

_MOST_STEP, _MOST_ROWS = 32, 64
_SHORT_TILE = 2048  # numbers in a step where rows share a program: beyond that, their sums spill registers


class RowConfig(NamedTuple):
    """One program's share of the work.

    Attributes:
        head_block: Heads, a power of two.
        rows: Rows, a power of two.
        step: Pairs of each row in a step, a power of two.
        warps: Warps of 32 threads.
        stages: Steps whose loads are under way at once.
    """

    head_block: int
    rows: int
    step: int
    warps: int
    stages: int


class Budget(NamedTuple):
    """What a program may hold, from which its cut follows.

    Attributes:
        vector: Numbers of one node in a program, at most; more heads go to further programs.
        tile: Numbers in a step's keys, over all its rows and pairs.
        warps: Warps of 32 threads.
        stages: Steps whose loads are under way at once.
    """

    vector: int
    tile: int
    warps: int
    stages: int


# By architecture, pass, and bytes of a loaded number. Chosen by what compiles without spilled registers; not yet by
# measurements on a device.
_TABLE = {
    "sm80": {
        ("forward", 2): Budget(512, 4096, 4, 1),
        ("forward", 4): Budget(512, 4096, 4, 1),
        ("backward", 2): Budget(512, 2048, 4, 1),
        ("backward", 4): Budget(512, 2048, 4, 1),
    },
    "sm90": {
        ("forward", 2): Budget(512, 4096, 4, 1),
        ("forward", 4): Budget(512, 4096, 4, 1),
        ("backward", 2): Budget(512, 2048, 4, 1),
        ("backward", 4): Budget(512, 2048, 4, 1),
    },
}
_overrides: dict[str, Budget] = {}  # of the whole process: autograd has threads of its own


def row_config(
    direction: str, is_short: bool, heads: int, widest: int, dtype: torch.dtype, architecture: str
) -> RowConfig:
    """The cut of a pass.

    Args:
        direction: "forward" or "backward".
        is_short: Whether the rows are those that share a program.
        heads: H.
        widest: The padded width of a head's key, value or edge features, whichever is largest.
        dtype: Of the query.
        architecture: "sm80" or "sm90".

    Example:
        >>> row_config("forward", False, 8, 32, torch.float16, "sm90")
        RowConfig(head_block=8, rows=1, step=16, warps=4, stages=1)
    """
    size = min(4, dtype.itemsize)
    budget = _overrides.get(direction) or _TABLE[architecture][direction, size]
    head_block = min(_power(heads), max(1, budget.vector // widest))
    tile = min(budget.tile, _SHORT_TILE) if is_short else budget.tile
    pairs = max(1, tile // (head_block * widest) // (2 if dtype == torch.float64 else 1))
    if not is_short:
        return RowConfig(head_block, 1, min(pairs, _MOST_STEP), budget.warps, budget.stages)
    step = min(pairs, 4)
    return RowConfig(head_block, min(pairs // step, _MOST_ROWS), step, budget.warps, budget.stages)


@contextmanager
def override(**budgets: Budget) -> Iterator[None]:
    """Use other budgets inside a `with` block: how a search for better ones tries them.

    Args:
        **budgets: By direction.

    Example:
        >>> with override(forward=Budget(256, 1024, 2, 2)):
        ...     row_config("forward", False, 8, 32, torch.float16, "sm90")
        RowConfig(head_block=8, rows=1, step=4, warps=2, stages=2)
    """
    before = dict(_overrides)
    _overrides.update(budgets)
    try:
        yield
    finally:
        _overrides.clear()
        _overrides.update(before)


def architecture_of(device: torch.device) -> str:
    """The row of the table that serves a device: that of the newest architecture not newer than it."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device)[0] >= 9:
        return "sm90"
    return "sm80"


def on(device: torch.device) -> AbstractContextManager[None]:
    """Inside, kernels are launched on the tensors' device, which need not be the current one."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def padded(width: int) -> int:
    """The power of two that holds a width, at least 1.

    Example:
        >>> padded(20), padded(0)
        (32, 1)
    """
    return _power(max(1, width))


def _power(number: int) -> int:
    return 1 << (number - 1).bit_length()
