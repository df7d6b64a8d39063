"""The directional derivative of the formula, in differentiable torch: what second derivatives are made of.

A second derivative is that of <first derivatives, t>, for some direction t. With G = grad_out, that product is what
<out, G> changes by along t, hence <out', G>, where x' is what x changes by along t. So one pass that computes out', and
its derivative, are enough; deriving the first derivative anew would take twice that. Memory is O(E H) beside chunks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from graphformer.kernels import formula
from graphformer.kernels.problem import Options, Pairs, Rows, Tensors, all_pairs


def moved(tensors: Tensors, along: Tensors, rows: Rows, options: Options) -> Tensor:
    """out', what `out` changes by where each tensor changes by its field of `along`.

    Args:
        tensors: The problem's, with a value.
        along: The directions, in the tensors' shapes; None where a tensor does not change.
        rows: With every pair listed.
        options: With a score that has a name.

    Returns:
        Shape `[N, H, Dv]`, in the compute dtype, differentiable any number of times.

    Example:
        >>> rows = Rows(torch.tensor([0, 2]), torch.tensor([0, 1]), None, None)
        >>> options = Options("dot", 0.0, "softmax", 1.0, 0.0, None)
        >>> tensors = Tensors(torch.ones(1, 1, 1), torch.zeros(2, 1, 1), torch.tensor([[[2.0]], [[4.0]]]))
        >>> key = torch.tensor([[[0.0]], [[1.0]]])  # the second key's score rises
        >>> moved(tensors, Tensors(None, key, None), rows, options)
        tensor([[[0.5000]]])
    """
    assert tensors.value is not None
    parts = formula.parts(tensors, rows)
    found = [formula.recomputed(_scores, tensors, rows, tensors, along, part, options) for part in parts]
    score, moved_score = (torch.cat(side) for side in zip(*found, strict=True))
    pairs = all_pairs(rows)
    statistic = formula.row_statistic(score, pairs.query_index, tensors.query.shape[0], options.normalizer)
    alpha = formula.pair_weights(score, statistic, pairs.query_index, options.normalizer)
    moved_alpha = formula.moved_weights(moved_score, score, alpha, statistic, pairs.query_index, options.normalizer)

    def messages(part: Pairs, removed: Tensor | None, weight: Tensor, moved_weight: Tensor) -> Tensor:
        total = moved_weight.unsqueeze(2) * formula.pair_values(tensors, part, removed)
        moved_value = _side("value", tensors, along, part, removed)
        return total if moved_value is None else torch.addcmul(total, weight.unsqueeze(2), moved_value)

    weights = (formula.pair_dropout(each, pairs, options) for each in (alpha, moved_alpha))
    return formula.sum_messages(messages, tensors, rows, _removed(score.detach()), *weights)


def _removed(score: Tensor) -> Tensor | None:
    """Which pairs are removed; None where none is, as in most problems, so that nothing need be masked."""
    removed = score == -torch.inf
    return removed if bool(removed.any()) else None


def _scores(tensors: Tensors, along: Tensors, pairs: Pairs, options: Options) -> tuple[Tensor, Tensor]:
    """The score of each pair, and what it changes by (zero where the pair is removed). Shape `[e, H]` each."""
    dtype = tensors.compute_dtype
    bias = formula.score_bias(tensors, pairs, dtype)
    removed = None if bias is None else _removed(bias.detach())
    query, key = formula.pair_queries(tensors.query, pairs, removed, dtype), formula.pair_keys(tensors, pairs, removed)
    moved_query = None if along.query is None else formula.pair_queries(along.query, pairs, removed, dtype)
    moved_key = _side("key", tensors, along, pairs, removed)
    if options.score == "dot":
        score = (query * key).sum(2) * options.scale
        change = formula.plus(_dot(moved_query, key, options.scale), _dot(query, moved_key, options.scale))
    else:
        score, change = _additive(query + key, formula.plus(moved_query, moved_key), tensors, along, options)
    change = formula.plus(change, formula.score_bias(along, pairs, dtype))
    change = torch.zeros_like(score) if change is None else change
    if removed is not None:
        score, change = score.masked_fill(removed, 0), change.masked_fill(removed, 0)
    return score if bias is None else score + bias, change


def _dot(query: Tensor | None, key: Tensor | None, scale: float) -> Tensor | None:
    return None if query is None or key is None else (query * key).sum(2) * scale


def _additive(
    inner: Tensor, moved_inner: Tensor | None, tensors: Tensors, along: Tensors, options: Options
) -> tuple[Tensor, Tensor | None]:
    assert isinstance(options.score, str)
    hidden = formula.activate(options.score, options.negative_slope, inner)
    weight = torch.ones_like(hidden[:1]) if tensors.weight is None else tensors.weight.to(hidden.dtype)
    change = None
    if moved_inner is not None:
        slope = formula.slope(options.score, options.negative_slope, inner, hidden)
        change = (slope * moved_inner * weight).sum(2)
    if along.weight is not None:
        change = formula.plus(change, (hidden * along.weight.to(hidden.dtype)).sum(2))
    return (hidden * weight).sum(2), change


def _side(name: str, tensors: Tensors, along: Tensors, pairs: Pairs, removed: Tensor | None) -> Tensor | None:
    """What the pairs' keys or values change by: through their own terms, and through the map of the edge features."""
    dtype = tensors.compute_dtype
    edge_map, moved_map = getattr(tensors, f"edge_{name}"), getattr(along, f"edge_{name}")
    own = (getattr(along, name), getattr(along, f"relation_{name}"), along.edge_attr, edge_map)
    through_map = formula.pair_side(None, None, tensors.edge_attr, moved_map, pairs, removed, dtype)
    return formula.plus(formula.pair_side(*own, pairs, removed, dtype), through_map)
