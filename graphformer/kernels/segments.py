"""Sums and maxima over the pairs of a row: torch-scatter where it is installed, plain torch otherwise."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch
from torch import Tensor


@cache
def torch_scatter() -> ModuleType | None:
    """The torch_scatter package, or None where it is not installed."""
    try:
        import torch_scatter as package
    except ImportError:
        return None
    return package


def add_rows(total: Tensor, source: Tensor, index: Tensor) -> None:
    """Add each row of `source` [e, ...] to the row of `total` that `index` [e], ascending, names; in place."""
    package = torch_scatter()
    if package is None or index.numel() == 0 or source.is_cuda:  # counting rows there would wait for the device
        total.index_add_(0, index, source)
        return
    # A segmented sum writes each row once, where a scatter would write it once a pair.
    rows, counts = torch.unique_consecutive(index, return_counts=True)
    ptr = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    total.index_add_(0, rows, package.segment_csr(source, ptr, reduce="sum"))


def segment_sum(source: Tensor, index: Tensor, num_rows: int) -> Tensor:
    """Sum of the rows of `source` [e, ...] by `index` [e]; differentiable. Shape `[num_rows, ...]`."""
    return source.new_zeros((num_rows, *source.shape[1:])).index_add(0, index, source)


def segment_max(source: Tensor, index: Tensor, num_rows: int) -> Tensor:
    """Largest value by `index` [e] of `source` [e, H], -inf for a row without any. Shape `[num_rows, H]`."""
    low = source.new_full((num_rows, source.shape[1]), -torch.inf)
    return low.scatter_reduce_(0, index.unsqueeze(1).expand_as(source), source, "amax")
