"""Launches of the kernels over runs."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from graphformer.graphs.spans import SHORT, TALL, Spans
from graphformer.kernels.problem import Case, Options, Rows, Tensors
from graphformer.kernels.triton import tile_backward_keys, tile_backward_queries, tile_forward
from graphformer.kernels.triton.config import architecture_of, on
from graphformer.kernels.triton.tile_blocks import Form, Nodes, Pairs, Runs, Terms
from graphformer.kernels.triton.tile_config import MOST_WIDTH, padded, tile_config
from graphformer.kernels.triton.tile_sums import sum_by_relation

# The least share of the walked places that are pairs at which tiles are the right loops.
LEAST_FILL = 0.25
_TALL_GAIN = 0.6  # tall tiles take about this share of the time that short ones take for a place
_TERMS = {"bias", "relation_bias"}
_FARTHEST = 2**31 - 1024  # nodes are numbered in int32
_SMALL = 16  # rows and nodes of the pieces of tiles that are summed again


def serves(case: Case, by_query: Spans | None, by_key: Spans | None) -> bool:
    """Whether tiles are the right loops for a case.

    Args:
        case: What is asked for.
        by_query: Of the queries' side; None where that lists its pairs.
        by_key: Of the keys' side; of the queries' side once more where no gradients are asked for.

    Example:
        >>> case = Case("dot", "softmax", torch.float16, torch.device("cuda"), 64, 64, 4096, 1, 32, (), 0.0, 32)
        >>> serves(case, Spans(1, 1.0, 1.0), Spans(1, 1.0, 1.0)), serves(case, Spans(1, 1.0, 1.0), None)
        (True, False)
    """
    if by_query is None or by_key is None:
        return False
    has_ids = bool(case.terms) or case.dropout > 0
    fills = [min(sides) for sides in zip(by_query[1:], by_key[1:], strict=True)]
    return (
        case.score == "dot"
        and case.dtype in (torch.float16, torch.bfloat16, torch.float32)
        and set(case.terms) <= _TERMS
        and max(case.width, case.value_width) <= MOST_WIDTH[case.dtype.itemsize]
        and max(case.num_queries, case.num_keys) <= _FARTHEST
        and not (has_ids and by_query.most_runs > 1)  # by key, a pair's id is told by its query's one run
        and fills[height_of(by_query, by_key) == TALL] >= LEAST_FILL
    )


def height_of(by_query: Spans, by_key: Spans) -> int:
    """How tall the tiles should be: SHORT where runs are so short that tall tiles would walk many places for nothing.

    Args:
        by_query: Of the queries' side.
        by_key: Of the keys' side.

    Example:
        >>> height_of(Spans(1, 0.6, 0.3), Spans(1, 0.6, 0.3)), height_of(Spans(1, 0.9, 0.8), Spans(1, 0.9, 0.8))
        (16, 64)
    """
    return TALL if all(side.tall_fill >= _TALL_GAIN * side.short_fill for side in (by_query, by_key)) else SHORT


def extra_bytes(case: Case) -> tuple[int, int]:
    """Bytes of the tensors that forward and backward hold at their peaks, beside their arguments and results.

    Args:
        case: One that tiles serve.
    """
    rows, pairs = case.num_queries * case.heads, case.num_edges * case.heads
    has_bias, has_table = "bias" in case.terms, "relation_bias" in case.terms
    turned = pairs * case.real_bytes if has_bias and case.heads > 1 else 0
    firsts = 8 * case.num_queries if case.terms or case.dropout else 0
    backward = (rows if case.normalizer != "softmax" else 2 * rows) * case.real_bytes + turned + firsts
    backward += pairs * case.real_bytes if has_bias or has_table else 0
    backward += 12 * case.num_edges if has_table else 0
    return turned, backward


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
    call.launch(
        tile_forward.forward_tiles, "forward", num_rows,
        call.query, call.key, call.value, _nodes(out), statistic, call.query_runs, call.terms(rows.ptr), num_rows,
    )  # fmt: skip
    return out, statistic


def backward(
    grad_out: Tensor,
    out: Tensor,
    statistic: Tensor,
    tensors: Tensors,
    rows: Rows,
    options: Options,
    needs: Tensors,
    height: int = TALL,
) -> Tensors:
    """The gradients that `needs` asks for (None for the others), each in its tensor's dtype.

    Args:
        grad_out: Shape `[N, H, V]`.
        out: As :func:`forward` returned it.
        statistic: As :func:`forward` returned it.
        tensors: As given to :func:`forward`.
        rows: As given to :func:`forward`, with runs by key.
        options: As given to :func:`forward`.
        needs: One truth value for each field.
        height: As given to :func:`forward`.
    """
    call = _Call(tensors, rows, options, height)
    wanted = {name for name in Tensors._fields if getattr(needs, name) and getattr(tensors, name) is not None}
    given = _nodes(grad_out.to(tensors.query.dtype))
    by_head = statistic.t().contiguous()  # [H, N]: what a tile reads lies side by side
    delta = torch.empty_like(by_head) if options.normalizer == "softmax" else None
    grads: dict[str, Tensor] = {
        name: torch.empty_like(getattr(tensors, name), memory_format=torch.contiguous_format)
        for name in wanted & {"query", "key", "value"}
    }
    targets = {name: _nodes(grad) for name, grad in grads.items()}
    if "query" in wanted or (delta is not None and wanted != {"value"}):
        call.launch(
            tile_backward_queries.backward_queries, "by_query", tensors.query.shape[0],
            call.query, call.key, call.value, given, _nodes(out), targets.get("query"), by_head, delta,
            call.query_runs, call.terms(rows.ptr), tensors.query.shape[0], needs_query="query" in wanted,
        )  # fmt: skip
    if wanted - {"query"}:
        pairs = call.pair_gradients(wanted)
        call.launch(
            tile_backward_keys.backward_keys, "by_key", tensors.key.shape[0],
            call.query, call.key, call.value, given, targets.get("key"), targets.get("value"),
            None if pairs is None else Pairs(pairs, pairs.stride(0)), by_head, delta,
            call.key_runs, call.terms(_first_pairs(rows)), tensors.query.shape[0], tensors.key.shape[0],
            needs_key="key" in wanted, needs_value="value" in wanted,
        )  # fmt: skip
        grads |= call.table_gradients(wanted, pairs)
    return Tensors(*(grads.get(name) for name in Tensors._fields))  # type: ignore[arg-type]


def _nodes(tensor: Tensor) -> Nodes:
    """Vectors as a kernel sees them; a view whose last axis is no contiguous one is copied."""
    if tensor.stride(2) != 1 and tensor.shape[2] > 1:
        tensor = tensor.contiguous()
    return Nodes(tensor, tensor.stride(0), tensor.stride(1))


def _first_pairs(rows: Rows) -> Tensor:
    """What the id of each query's pair with key 0 would be, were it in its one run. Shape `[N]`, int64."""
    run_ptr, start = rows.query_run_ptr, rows.query_run_start
    assert run_ptr is not None
    assert start is not None
    if start.shape[0] == 0:
        return rows.ptr[:-1]
    return rows.ptr[:-1] - start.index_select(0, run_ptr[:-1].clamp(max=start.shape[0] - 1))


class _Call:
    """What the launches of one problem share."""

    def __init__(self, tensors: Tensors, rows: Rows, options: Options, height: int) -> None:
        assert tensors.value is not None
        self.tensors, self.options, self.height, self.relation = tensors, options, height, rows.relation
        self.query, self.key, self.value = _nodes(tensors.query), _nodes(tensors.key), _nodes(tensors.value)
        self.query_runs = Runs(rows.query_run_ptr, rows.query_run_start, rows.query_run_stop)
        self.key_runs = Runs(rows.key_run_ptr, rows.key_run_start, rows.key_run_stop)
        self.has_dropout = options.dropout > 0 and options.seed is not None
        self.bias = None if tensors.bias is None else _by_head(tensors.bias)

    def terms(self, pair_ptr: Tensor) -> Terms:
        """What goes by pairs, with where each row's pairs begin."""
        table, dropout = self.tensors.relation_bias, self.options.dropout if self.has_dropout else 0.0
        has_ids = self.has_dropout or self.bias is not None or table is not None
        return Terms(
            pair_ptr if has_ids else None,
            self.bias,
            None if table is None else self.relation,
            None if table is None else table.contiguous(),
            self.options.seed if self.has_dropout else None,
            int(dropout * 2**32),
            1 / (1 - dropout),
        )

    def pair_gradients(self, wanted: set[str]) -> Tensor | None:
        """Room for the gradient of each pair's score [H, E], where something is made of it."""
        shaped = self.tensors.bias if "bias" in wanted else self.relation if "relation_bias" in wanted else None
        if shaped is None:
            return None
        dtype = shaped.dtype if "relation_bias" not in wanted else torch.float32
        heads = self.tensors.query.shape[1]
        return torch.empty(heads, shaped.shape[0], dtype=dtype, device=shaped.device)

    def table_gradients(self, wanted: set[str], pairs: Tensor | None) -> dict[str, Tensor]:
        """The gradients of bias and relation_bias, of those of the scores."""
        grads: dict[str, Tensor] = {}
        if "bias" in wanted and pairs is not None and self.tensors.bias is not None:
            grads["bias"] = pairs.t().to(self.tensors.bias.dtype, memory_format=torch.contiguous_format)
            grads["bias"] = grads["bias"].contiguous()
        table = self.tensors.relation_bias
        if "relation_bias" in wanted and pairs is not None and table is not None and self.relation is not None:
            grads["relation_bias"] = sum_by_relation(pairs, self.relation, table.shape[0]).to(table.dtype)
        return grads

    def launch(self, kernel: Any, direction: str, num_rows: int, *arguments: Any, **needs: bool) -> None:
        """Run a kernel over the tiles of all heads."""
        tensors, options = self.tensors, self.options
        assert tensors.value is not None
        heads, width, value_width = tensors.query.shape[1], tensors.query.shape[2], tensors.value.shape[2]
        d, v = padded(width), padded(value_width)
        device = tensors.query.device
        cut = tile_config(direction, self.height, max(d, v), tensors.query.dtype, architecture_of(device))
        if num_rows == 0 or heads == 0:
            return
        form = Form(
            heads, width, value_width, d, v, cut.rows, cut.step, cut.stages,
            options.normalizer, _precision(), self.has_dropout, self.height < TALL, **needs,
        )  # fmt: skip
        with on(device):
            kernel[(triton.cdiv(num_rows, cut.rows) * heads,)](
                *arguments, options.scale, form, form._replace(rows=_SMALL, step=_SMALL),
                num_warps=cut.warps, num_stages=cut.stages, enable_fp_fusion=True,
            )  # fmt: skip


def _by_head(bias: Tensor) -> Pairs:
    """A bias [E, H] turned, so that the pairs of a row lie side by side for each head."""
    turned = bias.t()
    if turned.stride(1) != 1:
        turned = turned.contiguous()
    return Pairs(turned, turned.stride(0))


def _precision() -> str:
    """How products of float32 are formed: in float32, unless the user asked torch for less."""
    # torch's older way of asking raises where the user has set this one.
    asked = getattr(torch.backends.cuda.matmul, "fp32_precision", None) or torch.get_float32_matmul_precision()
    return "ieee" if asked in ("highest", "ieee", "none") else "tf32"
