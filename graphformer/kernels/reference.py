"""The `reference` backend: readable torch on any device, in chunks of pairs, with the gradients written out.

Memory beside inputs and outputs is a few numbers an edge and head, and chunks of [e, H, D]. The letters follow
DESIGN.md section 6. On CUDA its sums are deterministic where `torch.use_deterministic_algorithms(True)` asks for it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphformer.graphs import AttentionGraph
from graphformer.kernels import formula
from graphformer.kernels.dropout import keep_scale
from graphformer.kernels.gradients import Gradients
from graphformer.kernels.problem import Case, Options, Pairs, Rows, Tensors, all_pairs, chunks, count_pairs
from graphformer.kernels.segments import add_rows


def why_not(case: Case) -> list[str]:
    """The reasons why this backend cannot run a case: there are none."""
    return []


def extra_bytes(case: Case) -> tuple[int, int]:
    """Bytes of the tensors that forward and backward hold at their peaks, beside their arguments and results.

    Counted from the lines below: so many numbers [E, H], vectors [E] of int64, and temporaries of a chunk.
    """
    real, rows = case.real_bytes, case.num_queries * case.heads
    by_pair, ids = case.num_edges * case.heads * real, 8 * case.num_edges
    width = max(case.width, case.value_width)
    edges = min(case.num_edges, formula.edges_in_chunk(case.heads, width, case.device))
    chunk = edges * case.heads * width * real
    scores = 6 if case.score == "dot" else 8  # temporaries of a chunk's scores and their gradients
    removed = case.num_edges * case.heads if {"bias", "relation_bias"} & set(case.terms) else 0
    keys = case.num_keys * case.heads * (case.width + case.value_width)
    converts = case.dtype.itemsize < real
    out = rows * case.value_width * real if converts else 0
    grads = (rows * case.width + keys) * real if converts else 0
    forward = max(4 * by_pair + ids, 2 * by_pair + 2 * ids + removed + 4 * chunk + out)
    backward = max(5 * by_pair + ids + removed, 4 * by_pair + 2 * ids + removed + scores * chunk) + grads
    listed = 8 * case.num_queries + 4 * case.num_edges if case.num_runs else 0
    return forward + rows * real + listed, backward + rows * real + listed


def rows(graph: AttentionGraph, tensors: Tensors, options: Options, *, by_key: bool) -> Rows:
    """What of a graph this backend takes."""
    return Rows(*graph.by_query, graph.relation)


def tell(graph: AttentionGraph, tensors: Tensors, options: Options) -> str:
    """Which loops run: there is one."""
    return ""


def forward(tensors: Tensors, rows: Rows, options: Options) -> tuple[Tensor, Tensor]:
    """out [N, H, Dv] in the query's dtype, and the row statistic [N, H] in the compute dtype."""
    assert tensors.value is not None
    num_rows, num_heads = tensors.query.shape[:2]
    score, query_index = _all_scores(tensors, rows, options)
    statistic = formula.row_statistic(score, query_index, num_rows, options.normalizer)
    alpha = formula.pair_weights(score, statistic, query_index, options.normalizer)
    removed = _removed(tensors, score)
    out = score.new_zeros(num_rows, num_heads, tensors.value.shape[2])
    for where, pairs in chunks(rows, formula.chunk_edges(tensors)):
        weight = formula.pair_dropout(alpha[where], pairs, options)
        value = formula.pair_values(tensors, pairs, _part(removed, where))
        add_rows(out, weight.unsqueeze(2) * value, pairs.query_index)
    return out.to(tensors.query.dtype), statistic


def backward(
    grad_out: Tensor,
    out: Tensor,
    statistic: Tensor,
    tensors: Tensors,
    rows: Rows,
    options: Options,
    needs: Tensors,
) -> Tensors:
    """The gradients that `needs` asks for (None for the others), each in its tensor's dtype.

    Args:
        grad_out: Shape `[N, H, Dv]`.
        out: As :func:`forward` returned it.
        statistic: As :func:`forward` returned it.
        tensors: As given to :func:`forward`.
        rows: As given to :func:`forward`.
        options: As given to :func:`forward`.
        needs: One truth value for each field.
    """
    grads = Gradients(tensors, needs)
    score, query_index = _all_scores(tensors, rows, options)
    removed = _removed(tensors, score)
    alpha = formula.pair_weights(score, statistic, query_index, options.normalizer)
    grad_alpha = torch.empty_like(score)
    for where, pairs in chunks(rows, formula.chunk_edges(tensors)):
        grad_message = formula.gather(grad_out, pairs.query_index, score.dtype)
        grad_alpha[where] = (grad_message * formula.pair_values(tensors, pairs, _part(removed, where))).sum(2)
        weight = alpha[where]
        if options.dropout > 0 and options.seed is not None:
            keep = keep_scale(pairs.edge_id, score.shape[1], options.dropout, options.seed, score.dtype)
            grad_alpha[where] *= keep
            weight = weight * keep
        grad_value = formula.without(weight.unsqueeze(2) * grad_message, _part(removed, where))
        grads.add_side("value", pairs, grad_value, _part(removed, where))
    grad_score = formula.moved_weights(grad_alpha, score, alpha, statistic, query_index, options.normalizer)
    if removed is not None:
        grad_score = grad_score.masked_fill(removed, 0)
    for where, pairs in chunks(rows, formula.chunk_edges(tensors)):
        _add_scores(grads, pairs, grad_score[where], _part(removed, where), options)
    return grads.result()


def _all_scores(tensors: Tensors, rows: Rows, options: Options) -> tuple[Tensor, Tensor]:
    """Scores [E, H] in row order, and the query of each pair."""
    num_edges, num_heads = count_pairs(rows), tensors.query.shape[1]
    score = torch.empty(num_edges, num_heads, dtype=tensors.compute_dtype, device=tensors.query.device)
    for where, pairs in chunks(rows, formula.chunk_edges(tensors)):
        score[where] = formula.pair_scores(tensors, pairs, options)
    return score, all_pairs(rows).query_index


def _removed(tensors: Tensors, score: Tensor) -> Tensor | None:
    has_bias = tensors.bias is not None or tensors.relation_bias is not None
    return score == -torch.inf if has_bias else None


def _part(tensor: Tensor | None, where: slice) -> Tensor | None:
    return None if tensor is None else tensor[where]


def _add_scores(grads: Gradients, pairs: Pairs, grad: Tensor, removed: Tensor | None, options: Options) -> None:
    """`grad` [e, H]: the gradient of the score."""
    total, tensors = grads.total, grads.tensors
    grads.add_bias(pairs, grad)
    query = formula.pair_queries(tensors.query, pairs, removed, tensors.compute_dtype)
    key = formula.pair_keys(tensors, pairs, removed)
    if options.score == "dot":
        step = (grad * options.scale).unsqueeze(2)
        grad_query, grad_key = step * key, step * query
    else:
        grad_query = grad_key = _additive(grads, query + key, grad, options)
    if total.query is not None:
        add_rows(total.query, grad_query, pairs.query_index)
    grads.add_side("key", pairs, formula.without(grad_key, removed), removed)


def _additive(grads: Gradients, inner: Tensor, grad: Tensor, options: Options) -> Tensor:
    """The gradient of q + k; that of the score's weight is added."""
    weight = grads.tensors.weight
    hidden = formula.activate(options, inner)
    if grads.total.weight is not None:
        grads.total.weight.add_((grad.unsqueeze(2) * hidden).sum(0))
    step = grad.unsqueeze(2).expand_as(inner) if weight is None else grad.unsqueeze(2) * weight.to(grad.dtype)
    return formula.through_activation(options, step, inner, hidden)
