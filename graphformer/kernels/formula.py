"""The formula of DESIGN.md section 1 in differentiable torch: the oracle that everything else is checked against.

The functions work on any run of pairs. `attend` and `weights` below apply them to a whole graph, in chunks that are
recomputed in the backward pass, and serve the cases that no fused backend takes: a user's own score function and
attention weights. (Derivatives of these, and programs of torch.compile, are not chunked: they hold [E, H, D].)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu
from torch.utils.checkpoint import checkpoint

from graphformer._checks import refuse
from graphformer._transforms import is_transformed
from graphformer.kernels.dropout import keep_scale
from graphformer.kernels.problem import Options, Pairs, Rows, Tensors, all_pairs, chunks, count_pairs
from graphformer.kernels.segments import segment_max, segment_sum

# Elements of the largest temporary of one chunk: on a CPU half a MB of float32, a few of which stay in a core's cache;
# on other devices enough to keep them busy.
CHUNK_ELEMENTS = 2**17
CHUNK_ELEMENTS_ELSEWHERE = 2**24


def chunk_edges(tensors: Tensors) -> int:
    """Pairs in one chunk, so that [e, H, D] stays near CHUNK_ELEMENTS."""
    _, heads, width = tensors.query.shape
    value_width = 0 if tensors.value is None else tensors.value.shape[2]
    return edges_in_chunk(heads, max(width, value_width), tensors.query.device)


def edges_in_chunk(heads: int, width: int, device: torch.device) -> int:
    """The same by sizes; `width` is the larger of D and Dv."""
    elements = CHUNK_ELEMENTS if device.type == "cpu" else CHUNK_ELEMENTS_ELSEWHERE
    return max(1, elements // max(1, heads * width))


def gather(source: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
    """The rows of `source` that `index` names, in the compute dtype."""
    return source.index_select(0, index).to(dtype)


def score_bias(tensors: Tensors, pairs: Pairs, dtype: torch.dtype) -> Tensor | None:
    """bias + relation_bias of each pair, or None. Shape `[e, H]`; -inf removes a pair."""
    total = None if tensors.bias is None else gather(tensors.bias, pairs.edge_id, dtype)
    if tensors.relation_bias is not None and pairs.relation is not None:
        total = plus(total, gather(tensors.relation_bias, pairs.relation, dtype))
    return total


def pair_side(
    rows: Tensor | None,
    table: Tensor | None,
    edge_attr: Tensor | None,
    edge_map: Tensor | None,
    pairs: Pairs,
    removed: Tensor | None,
    dtype: torch.dtype,
) -> Tensor | None:
    """rows[j] + table[r] + a @ edge_map, zero where removed; None where nothing is added. Shape `[e, H, D]`."""
    total = None if rows is None else gather(rows, pairs.key_index, dtype)
    if table is not None and pairs.relation is not None:
        total = plus(total, gather(table, pairs.relation, dtype))
    if edge_attr is not None and edge_map is not None:
        total = plus(total, _edge_part(gather(edge_attr, pairs.edge_id, dtype), edge_map.to(dtype), removed))
    return None if total is None else without(total, removed)


def plus(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """The sum, where None is nothing."""
    return second if first is None else first if second is None else first + second


def _edge_part(attr: Tensor, edge_map: Tensor, removed: Tensor | None) -> Tensor:
    if removed is None:
        return (attr @ edge_map.flatten(1)).unflatten(1, edge_map.shape[1:])
    return torch.einsum("ehf,fhd->ehd", for_heads(attr, edge_map.shape[1], removed), edge_map)


def without(total: Tensor, removed: Tensor | None) -> Tensor:
    """`total` [e, H, ...] with zeros where a pair is removed: it must not multiply, since 0 * NaN is NaN."""
    return total if removed is None else total.masked_fill(removed.unsqueeze(2), 0)


def for_heads(attr: Tensor, heads: int, removed: Tensor | None) -> Tensor:
    """Features `[e, F]` for each head, zero where removed. Shape `[e, H, F]`."""
    return without(attr.unsqueeze(1).expand(-1, heads, -1), removed)


def pair_queries(query: Tensor, pairs: Pairs, removed: Tensor | None, dtype: torch.dtype) -> Tensor:
    """q[i], zero where removed. Shape `[e, H, D]`."""
    return without(gather(query, pairs.query_index, dtype), removed)


def pair_keys(tensors: Tensors, pairs: Pairs, removed: Tensor | None) -> Tensor:
    """k[j] + relation_key + a @ edge_key, zero where removed. Shape `[e, H, D]`."""
    side = (tensors.key, tensors.relation_key, tensors.edge_attr, tensors.edge_key)
    return pair_side(*side, pairs, removed, tensors.compute_dtype)  # type: ignore[return-value]


def pair_values(tensors: Tensors, pairs: Pairs, removed: Tensor | None) -> Tensor:
    """v[j] + relation_value + a @ edge_value, zero where removed. Shape `[e, H, Dv]`."""
    side = (tensors.value, tensors.relation_value, tensors.edge_attr, tensors.edge_value)
    return pair_side(*side, pairs, removed, tensors.compute_dtype)  # type: ignore[return-value]


def activate(options: Options, inner: Tensor) -> Tensor:
    """f of the additive score."""
    return torch.tanh(inner) if options.score == "tanh" else leaky_relu(inner, options.negative_slope)


def through_activation(options: Options, grad: Tensor, inner: Tensor, hidden: Tensor) -> Tensor:
    """`grad` times the derivative of f, where f(inner) = hidden."""
    if options.score == "tanh":
        return grad * (1 - hidden * hidden)
    return torch.ops.aten.leaky_relu_backward(grad, inner, options.negative_slope, False)


def pair_scores(tensors: Tensors, pairs: Pairs, options: Options) -> Tensor:
    """The score of each pair, -inf where it is removed. Shape `[e, H]`."""
    bias = score_bias(tensors, pairs, tensors.compute_dtype)
    removed = None if bias is None else bias == -torch.inf
    query = pair_queries(tensors.query, pairs, removed, tensors.compute_dtype)
    key = pair_keys(tensors, pairs, removed)
    if callable(options.score):
        score = checked_score(options.score(query, key), query)
    elif options.score == "dot":
        score = (query * key).sum(2) * options.scale
    else:
        hidden = activate(options, query + key)
        score = (hidden if tensors.weight is None else hidden * tensors.weight.to(hidden.dtype)).sum(2)
    if bias is None or removed is None:
        return score
    return score.masked_fill(removed, 0) + bias


def checked_score(score: object, query: Tensor) -> Tensor:
    """What a user's own score function returned, if it is one number a pair and head."""
    if not isinstance(score, Tensor) or score.shape != query.shape[:2] or not score.is_floating_point():
        got = f"{list(score.shape)}, {score.dtype}" if isinstance(score, Tensor) else type(score).__name__
        wanted = f"return a floating tensor [e, H] = {list(query.shape[:2])}"
        refuse("attend", "score", wanted, got, "Reduce the last axis of query and key, for example with .sum(2).")
    return score.to(query.dtype)


def row_statistic(score: Tensor, query_index: Tensor, num_rows: int, normalizer: str) -> Tensor:
    """What turns scores into weights. Shape `[N, H]`.

    The log-sum-exp for softmax, the logarithm of the number of pairs that are not removed for relu and sigmoid; -inf
    for an empty row.
    """
    if normalizer == "softmax":
        largest = segment_max(score.detach(), query_index, num_rows)
        largest = largest.masked_fill(largest == -torch.inf, 0)
        total = segment_sum((score - largest.index_select(0, query_index)).exp(), query_index, num_rows)
    else:
        largest = score.new_zeros(())
        total = segment_sum((score.detach() != -torch.inf).to(score.dtype), query_index, num_rows)
    empty = total == 0
    return (largest + total.masked_fill(empty, 1).log()).masked_fill(empty, -torch.inf)


def pair_weights(score: Tensor, statistic: Tensor, query_index: Tensor, normalizer: str) -> Tensor:
    """alpha of each pair from its score and its row's statistic. Shape `[e, H]`."""
    if normalizer == "relu":
        return score.relu() * _inverse_degree(statistic, query_index)
    scaled = score - _of_pairs(statistic, query_index)
    return scaled.exp() if normalizer == "softmax" else scaled.sigmoid()


def _of_pairs(statistic: Tensor, query_index: Tensor) -> Tensor:
    return statistic.masked_fill(statistic == -torch.inf, 0).index_select(0, query_index)


def _inverse_degree(statistic: Tensor, query_index: Tensor) -> Tensor:
    return (-_of_pairs(statistic, query_index)).exp()


def moved_weights(
    moved: Tensor, score: Tensor, alpha: Tensor, statistic: Tensor, query_index: Tensor, normalizer: str
) -> Tensor:
    """What alpha changes by where the scores change by `moved`. Shape `[e, H]`, over whole rows.

    The derivative of alpha in the scores is a symmetric matrix, so this takes a gradient of alpha to one of the
    scores, too.
    """
    if normalizer == "softmax":
        mean = segment_sum(alpha * moved, query_index, statistic.shape[0])
        return alpha * (moved - mean.index_select(0, query_index))
    if normalizer == "relu":
        return moved * (score > 0) * _inverse_degree(statistic, query_index)
    return moved * alpha * (1 - alpha)


def pair_dropout(alpha: Tensor, pairs: Pairs, options: Options) -> Tensor:
    """P: alpha after dropout."""
    if options.dropout == 0 or options.seed is None:
        return alpha
    return alpha * keep_scale(pairs.edge_id, alpha.shape[1], options.dropout, options.seed, alpha.dtype)


def attend(tensors: Tensors, rows: Rows, options: Options) -> Tensor:
    """out of DESIGN.md section 1. Shape `[N, H, Dv]`, differentiable any number of times."""
    assert tensors.value is not None
    score = _scores(tensors, rows, options)
    pairs = all_pairs(rows)
    statistic = row_statistic(score, pairs.query_index, tensors.query.shape[0], options.normalizer)
    alpha = pair_weights(score, statistic, pairs.query_index, options.normalizer)
    may_remove = tensors.bias is not None or tensors.relation_bias is not None or callable(options.score)
    removed = score.detach() == -torch.inf if may_remove else None

    def messages(part: Pairs, removed: Tensor | None, weight: Tensor) -> Tensor:
        return weight.unsqueeze(2) * pair_values(tensors, part, removed)

    out = sum_messages(messages, tensors, rows, removed, pair_dropout(alpha, pairs, options))
    return out.to(tensors.query.dtype)


def weights(tensors: Tensors, rows: Rows, options: Options) -> Tensor:
    """alpha of each pair, by edge id. Shape `[E, H]`, differentiable."""
    score = _scores(tensors, rows, options)
    pairs = all_pairs(rows)
    statistic = row_statistic(score, pairs.query_index, tensors.query.shape[0], options.normalizer)
    alpha = pair_weights(score, statistic, pairs.query_index, options.normalizer).to(tensors.query.dtype)
    return alpha if rows.edge_id is None else torch.empty_like(alpha).index_copy(0, rows.edge_id.long(), alpha)


def _scores(tensors: Tensors, rows: Rows, options: Options) -> Tensor:
    return torch.cat([recomputed(pair_scores, tensors, rows, tensors, part, options) for part in parts(tensors, rows)])


def sum_messages(
    messages: Callable[..., Tensor], tensors: Tensors, rows: Rows, removed: Tensor | None, *by_pair: Tensor
) -> Tensor:
    """The sum of `messages(part, removed, *by_pair)` [e, H, Dv] of all chunks by query. Shape `[N, H, Dv]`."""
    out = None
    chunked = parts(tensors, rows)
    sizes = [part.query_index.shape[0] for part in chunked]
    # Split, not sliced: the derivative of each slice would be as large as the whole.
    split = zip(*(tensor.split(sizes) for tensor in by_pair), strict=True)
    masks = [None] * len(sizes) if removed is None else removed.split(sizes)
    for part, mask, values in zip(chunked, masks, split, strict=True):
        found = recomputed(messages, tensors, rows, part, mask, *values)
        if out is None:  # made of a message, so that it is a batch of sums where that is a batch of messages
            out = found.new_zeros(tensors.query.shape[0], *found.shape[1:])
        # Unlike index_add_, scatter_add_ does not keep its source for the backward pass.
        out.scatter_add_(0, part.query_index[:, None, None].expand_as(found), found)
    assert out is not None
    return out


def parts(tensors: Tensors, rows: Rows) -> list[Pairs]:
    """The pairs in the chunks of a differentiable pass."""
    # Under torch.compile the number of chunks would be a constant of the program; the compiler fuses the gathers.
    if torch.compiler.is_compiling() or count_pairs(rows) == 0:
        return [all_pairs(rows)]
    return [part for _, part in chunks(rows, _part_edges(tensors))]


def _part_edges(tensors: Tensors) -> int:
    # The derivative of a chunk's gathers is as large as all nodes, so a chunk is no smaller.
    return max(chunk_edges(tensors), tensors.query.shape[0] + tensors.key.shape[0])


def recomputed(function: Callable[..., Any], tensors: Tensors, rows: Rows, *arguments: object) -> Any:
    """What the function returns; of several chunks, what is made on the way is made again in the backward pass.

    Inside torch.func's transforms, which do not know of that, it is held.
    """
    if torch.compiler.is_compiling() or is_transformed() or count_pairs(rows) <= _part_edges(tensors):
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False)
