"""The `sdpa` backend: attention over every pair, with nothing added, is torch's own fused attention.

No graph is walked, and no pair is listed. On the CPU `native` stays the first choice. Unlike ours, the fused kernels
take delta from the rounded result (half precision), and have no second derivative: that one goes by the formula.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from graphformer._transforms import is_transformed
from graphformer.graphs import AttentionGraph
from graphformer.kernels import formula
from graphformer.kernels.problem import Case, Options, Rows, Tensors

_WIDEST = 256


def why_not(case: Case) -> list[str]:
    """The reasons why this backend cannot run a case; none means that it can."""
    reasons = []
    if not case.is_complete:
        reasons.append("the graph is not every query with every key, held as runs")
    if case.score != "dot" or case.normalizer != "softmax" or case.terms or case.dropout:
        reasons.append("it takes the dot score with softmax, and nothing else")
    if case.dtype == torch.float64 or case.width != case.value_width or case.width > _WIDEST:
        reasons.append(f"torch fuses float32 and half precision, keys and values of one width of at most {_WIDEST}")
    if is_transformed() or torch.autograd.forward_ad._current_level >= 0:
        reasons.append("torch.func and forward mode need rules that it has not")
    return reasons


def extra_bytes(case: Case) -> tuple[int, int]:
    """Bytes of the tensors that forward and backward hold at their peaks, beside their arguments and results."""
    rows = case.num_queries * case.heads
    return 4 * rows, 8 * rows


def tell(graph: AttentionGraph, case: Case) -> str:
    """Which loops run: torch decides."""
    return ""


def attend(tensors: Tensors, graph: AttentionGraph, options: Options) -> Tensor:
    """The result [N, H, V], differentiable twice outside of torch.compile."""
    assert tensors.value is not None
    if torch.compiler.is_compiling():
        return _fused(tensors.query, tensors.key, tensors.value, options.scale)
    return _Attend.apply(tensors.query, tensors.key, tensors.value, graph, options)


def _fused(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    q, k, v = (nodes.transpose(0, 1).unsqueeze(0) for nodes in (query, key, value))
    return scaled_dot_product_attention(q, k, v, scale=scale).squeeze(0).transpose(0, 1).contiguous()


class _Attend(torch.autograd.Function):
    """torch's attention with the derivative of its gradient: the formula's."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, graph: AttentionGraph, options: Options) -> Tensor:
        given = zip((query, key, value), ctx.needs_input_grad[:3], strict=True)
        nodes = [node.detach().requires_grad_(need) for node, need in given]
        with torch.enable_grad():
            out = _fused(nodes[0], nodes[1], nodes[2], options.scale)
        ctx.save_for_backward(query, key, value)
        ctx.nodes, ctx.out, ctx.graph, ctx.options = nodes, out, graph, options
        return out.detach()

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad[:3]
        nodes, out, again = ctx.nodes, ctx.out, torch.is_grad_enabled()
        if again:
            nodes = ctx.saved_tensors
            out = formula.attend(
                Tensors(*nodes), Rows(ctx.graph.by_query.ptr, ctx.graph.by_query.index, None, None), ctx.options
            )
        wanted = [node for node, need in zip(nodes, needs, strict=True) if need]
        found = iter(torch.autograd.grad(out, wanted, grad_out, create_graph=again, retain_graph=True))
        return (*(next(found) if need else None for need in needs), None, None)
