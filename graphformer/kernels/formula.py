"""The formula of DESIGN.md section 1 in differentiable torch: the oracle that everything else is checked against.

The functions work on any run of pairs. `attend` and `weights` below apply them to a whole graph, in chunks that are
recomputed in the backward pass, and serve the cases that no fused backend takes: a user's own score function,
attention weights, and second derivatives. (Derivatives of those, and programs of torch.compile, are not chunked: they
hold [E, H, D].)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu
from torch.utils.checkpoint import checkpoint

from graphformer._checks import refuse
from graphformer.kernels.dropout import keep_scale
from graphformer.kernels.problem import Options, Pairs, Rows, Tensors, all_pairs, chunks, count_pairs
from graphformer.kernels.segments import segment_max, segment_sum

# Elements of the largest temporary of one chunk: on a CPU about 2 MB of float32, which stay in a core's cache; on other
# devices enough to keep them busy.
CHUNK_ELEMENTS = 2**19
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


def score_bias(tensors: Tensors, pairs: Pairs) -> Tensor | None:
    """bias + relation_bias of each pair, or None. Shape `[e, H]`; -inf removes a pair."""
    dtype = tensors.compute_dtype
    total = None
    if tensors.bias is not None:
        total = gather(tensors.bias, pairs.edge_id, dtype)
    if tensors.relation_bias is not None and pairs.relation is not None:
        term = gather(tensors.relation_bias, pairs.relation, dtype)
        total = term if total is None else total + term
    return total


def _pair_side(
    rows: Tensor, table: Tensor | None, edge_map: Tensor | None, tensors: Tensors, pairs: Pairs, removed: Tensor | None
) -> Tensor:
    dtype = tensors.compute_dtype
    total = gather(rows, pairs.key_index, dtype)
    if table is not None and pairs.relation is not None:
        total = total + gather(table, pairs.relation, dtype)
    if edge_map is not None and tensors.edge_attr is not None:
        total = total + torch.einsum("ehf,fhd->ehd", pair_features(tensors, pairs, removed), edge_map.to(dtype))
    return without(total, removed)


def without(total: Tensor, removed: Tensor | None) -> Tensor:
    """`total` [e, H, ...] with zeros where a pair is removed: it must not multiply, since 0 * NaN is NaN."""
    return total if removed is None else total.masked_fill(removed.unsqueeze(2), 0)


def pair_features(tensors: Tensors, pairs: Pairs, removed: Tensor | None) -> Tensor:
    """a(e) for each head, zero where removed. Shape `[e, H, F]`."""
    assert tensors.edge_attr is not None
    attr = gather(tensors.edge_attr, pairs.edge_id, tensors.compute_dtype)
    return without(attr.unsqueeze(1).expand(-1, tensors.query.shape[1], -1), removed)


def pair_queries(tensors: Tensors, pairs: Pairs, removed: Tensor | None) -> Tensor:
    """q[i], zero where removed. Shape `[e, H, D]`."""
    return without(gather(tensors.query, pairs.query_index, tensors.compute_dtype), removed)


def pair_keys(tensors: Tensors, pairs: Pairs, removed: Tensor | None) -> Tensor:
    """k[j] + relation_key + a @ edge_key, zero where removed. Shape `[e, H, D]`."""
    return _pair_side(tensors.key, tensors.relation_key, tensors.edge_key, tensors, pairs, removed)


def pair_values(tensors: Tensors, pairs: Pairs, removed: Tensor | None) -> Tensor:
    """v[j] + relation_value + a @ edge_value, zero where removed. Shape `[e, H, Dv]`."""
    assert tensors.value is not None
    return _pair_side(tensors.value, tensors.relation_value, tensors.edge_value, tensors, pairs, removed)


def activate(kind: str, slope: float, total: Tensor) -> Tensor:
    """f of the additive score."""
    return torch.tanh(total) if kind == "tanh" else leaky_relu(total, slope)


def pair_scores(tensors: Tensors, pairs: Pairs, options: Options) -> Tensor:
    """The score of each pair, -inf where it is removed. Shape `[e, H]`."""
    bias = score_bias(tensors, pairs)
    removed = None if bias is None else bias == -torch.inf
    query = pair_queries(tensors, pairs, removed)
    key = pair_keys(tensors, pairs, removed)
    if callable(options.score):
        score = checked_score(options.score(query, key), query)
    elif options.score == "dot":
        score = (query * key).sum(2) * options.scale
    else:
        hidden = activate(options.score, options.negative_slope, query + key)
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
    statistic = statistic.masked_fill(statistic == -torch.inf, 0).index_select(0, query_index)
    if normalizer == "softmax":
        return (score - statistic).exp()
    if normalizer == "relu":
        return score.relu() * (-statistic).exp()
    return (score - statistic).sigmoid()


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
    num_rows, num_heads = tensors.query.shape[:2]
    statistic = row_statistic(score, pairs.query_index, num_rows, options.normalizer)
    alpha = pair_weights(score, statistic, pairs.query_index, options.normalizer)
    weight = pair_dropout(alpha, pairs, options)
    out = score.new_zeros(num_rows, num_heads, tensors.value.shape[2])

    def messages(weight: Tensor, part: Pairs, removed: Tensor) -> Tensor:
        return weight.unsqueeze(2) * pair_values(tensors, part, removed)

    may_remove = tensors.bias is not None or tensors.relation_bias is not None or callable(options.score)
    removed = score.detach() == -torch.inf if may_remove else None
    for where, part in _parts(tensors, rows):
        arguments = (weight[where], part, None if removed is None else removed[where])
        found = _recomputed(messages, tensors, rows, *arguments)
        # Unlike index_add_, scatter_add_ does not keep its source for the backward pass.
        out.scatter_add_(0, part.query_index[:, None, None].expand_as(found), found)
    return out.to(tensors.query.dtype)


def weights(tensors: Tensors, rows: Rows, options: Options) -> Tensor:
    """alpha of each pair, by edge id. Shape `[E, H]`, differentiable."""
    score = _scores(tensors, rows, options)
    pairs = all_pairs(rows)
    statistic = row_statistic(score, pairs.query_index, tensors.query.shape[0], options.normalizer)
    alpha = pair_weights(score, statistic, pairs.query_index, options.normalizer).to(tensors.query.dtype)
    return alpha if rows.edge_id is None else torch.empty_like(alpha).index_copy(0, rows.edge_id.long(), alpha)


def _scores(tensors: Tensors, rows: Rows, options: Options) -> Tensor:
    parts = [_recomputed(pair_scores, tensors, rows, tensors, part, options) for _, part in _parts(tensors, rows)]
    return torch.cat(parts)


def _parts(tensors: Tensors, rows: Rows) -> list[tuple[slice, Pairs]]:
    num_edges = count_pairs(rows)
    # Under torch.compile the number of chunks would be a constant of the program; the compiler fuses the gathers.
    if torch.compiler.is_compiling() or num_edges == 0:
        return [(slice(0, num_edges), all_pairs(rows))]
    return list(chunks(rows, chunk_edges(tensors)))


def _recomputed(function: Callable[..., Tensor], tensors: Tensors, rows: Rows, *arguments: object) -> Tensor:
    if torch.compiler.is_compiling() or count_pairs(rows) <= chunk_edges(tensors):
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False)
