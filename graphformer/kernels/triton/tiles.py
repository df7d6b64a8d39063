"""Launches of the kernels over runs."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from graphformer.kernels.problem import Options, Rows, Tensors
from graphformer.kernels.triton import tile_forward
from graphformer.kernels.triton.tile_blocks import Form, Nodes, Runs, Terms
from graphformer.kernels.triton.tile_config import architecture_of, padded, tile_config

TALL = 64


def forward(tensors: Tensors, rows: Rows, options: Options, height: int = TALL) -> tuple[Tensor, Tensor]:
    """out [N, H, V] in the query's dtype, and the row statistic [N, H] in float32.

    Args:
        tensors: Of the problem.
        rows: With runs by query.
        options: Of the problem.
        height: Of the tiles that suit the runs.
    """
    assert tensors.value is not None
    num_rows, heads, _ = tensors.query.shape
    call = _Call(tensors, rows, options, height)
    out = tensors.query.new_empty(num_rows, heads, tensors.value.shape[2])
    statistic = tensors.query.new_empty(num_rows, heads, dtype=torch.float32)
    runs = Runs(rows.query_run_ptr, rows.query_run_start, rows.query_run_stop)
    call.launch(
        tile_forward.forward_tiles, "forward", num_rows,
        call.query, call.key, call.value, _nodes(out), statistic, runs, call.terms(rows.ptr),
    )  # fmt: skip
    return out, statistic


def _nodes(tensor: Tensor) -> Nodes:
    """Vectors as a kernel sees them; a view whose last axis is no contiguous one is copied."""
    if tensor.stride(2) != 1 and tensor.shape[2] > 1:
        tensor = tensor.contiguous()
    return Nodes(tensor, tensor.stride(0), tensor.stride(1))


class _Call:
    """What the launches of one problem share."""

    def __init__(self, tensors: Tensors, rows: Rows, options: Options, height: int) -> None:
        assert tensors.value is not None
        self.tensors, self.options, self.height = tensors, options, height
        self.query, self.key, self.value = _nodes(tensors.query), _nodes(tensors.key), _nodes(tensors.value)
        self.relation = rows.relation
        self.has_dropout = options.dropout > 0 and options.seed is not None
        self.has_ids = self.has_dropout or tensors.bias is not None or tensors.relation_bias is not None
        self.bias = None
        if tensors.bias is not None:
            self.bias = tensors.bias.t()
            if self.bias.stride(1) != 1:
                self.bias = self.bias.contiguous()

    def terms(self, pair_ptr: Tensor) -> Terms:
        table = self.tensors.relation_bias
        dropout = self.options.dropout if self.has_dropout else 0.0
        return Terms(
            pair_ptr if self.has_ids else None,
            self.bias,
            None if self.bias is None else self.bias.stride(0),
            None if table is None else self.relation,
            None if table is None else table.contiguous(),
            self.options.seed if self.has_dropout else None,
            int(dropout * 2**32),
            1 / (1 - dropout),
        )

    def launch(self, kernel: Any, direction: str, num_rows: int, *arguments: Any, **needs: bool) -> None:
        """Run a kernel over the tiles of all heads."""
        tensors, options = self.tensors, self.options
        heads, width, value_width = tensors.query.shape[1], tensors.query.shape[2], self.value.data.shape[2]
        d, v = padded(width), padded(value_width)
        device = tensors.query.device
        cut = tile_config(direction, self.height, max(d, v), tensors.query.dtype, architecture_of(device))
        grid = (triton.cdiv(num_rows, cut.rows) * heads,)
        if grid[0] == 0:
            return
        form = Form(
            heads, width, value_width, d, v, cut.rows, cut.step, cut.stages,
            options.normalizer, "ieee", self.has_dropout, self.height < TALL, **needs,
        )  # fmt: skip
        kernel[grid](
            *arguments, num_rows, options.scale, form, num_warps=cut.warps, num_stages=cut.stages, enable_fp_fusion=True
        )
