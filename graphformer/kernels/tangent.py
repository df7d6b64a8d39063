"""Second derivatives, written out in torch: of <first derivatives, t> for some direction t.

With G = grad_out, <first derivatives, t> is what <out, G> changes by along t, hence <out', G>, where x' is what x
changes by along t. With u = G[i] . v and u' = G[i] . v' for each pair, J the derivative of the row's weights in its
scores (symmetric) and alpha' = J score', that is the sum of alpha' u + alpha u', whose derivative is

    in score'    c = J u
    in score     b = J d,  d = (score' - mean) (u - mean) + u'      softmax, means by alpha
                           d = (1 - 2 alpha) score' u + u'          sigmoid
                           d = u'                                   relu

All of it is differentiable again, for third derivatives. Memory is O(E H) beside chunks of pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from graphformer.kernels import formula
from graphformer.kernels.dropout import keep_scale
from graphformer.kernels.gradients import Gradients
from graphformer.kernels.problem import Options, Pairs, Rows, Tensors, all_pairs, chunks
from graphformer.kernels.segments import segment_sum


def second(
    grad_out: Tensor,
    statistic: Tensor,
    tensors: Tensors,
    along: Tensors,
    rows: Rows,
    options: Options,
    needs: Tensors,
) -> tuple[Tensor, Tensors]:
    """out', what `out` changes by where each tensor changes by its field of `along`, and the slopes of <out', G>.

    Args:
        grad_out: G. Shape `[N, H, Dv]`.
        statistic: Of each row, as a backend's forward pass gave it; made anew where gradients are on.
        tensors: The problem's, with a value.
        along: The directions, in the tensors' shapes; None where a tensor does not change.
        rows: With every pair listed.
        options: With a score that has a name.
        needs: Which tensors' slopes are asked for: one truth value for each field.

    Returns:
        Shape `[N, H, Dv]`, in the compute dtype, and the gradients of <out', G>, None for what was not asked for.

    Example:
        >>> rows = Rows(torch.tensor([0, 2]), torch.tensor([0, 1]), None, None)
        >>> options = Options("dot", 0.0, "softmax", 1.0, 0.0, None)
        >>> tensors = Tensors(torch.ones(1, 1, 1), torch.zeros(2, 1, 1), torch.tensor([[[2.0]], [[4.0]]]))
        >>> key = torch.tensor([[[0.0]], [[1.0]]])  # the second key's score rises
        >>> needs = Tensors(False, False, True)
        >>> grad_out, statistic = torch.ones(1, 1, 1), torch.tensor([[2.0]]).log()
        >>> moved, slopes = second(grad_out, statistic, tensors, Tensors(None, key, None), rows, options, needs)
        >>> moved.flatten(), slopes.value.flatten()
        (tensor([0.5000]), tensor([-0.2500,  0.2500]))
    """
    assert tensors.value is not None
    num_rows, num_heads, _ = tensors.query.shape
    pairs = all_pairs(rows)
    bias = formula.score_bias(tensors, pairs, tensors.compute_dtype)
    removed = _removed(bias)
    parts = [part for _, part in chunks(rows, formula.chunk_edges(tensors))] or [pairs]
    sizes = [part.query_index.shape[0] for part in parts]
    masks = [None] * len(parts) if removed is None else removed.split(sizes)

    def meet(part: Pairs, mask: Tensor | None) -> _Met:
        return _meet(grad_out, tensors, along, part, mask)

    by_part = [_scores(meet(part, mask), tensors, along, options) for part, mask in zip(parts, masks, strict=True)]
    score, change, up, moved_up = (torch.cat(numbers) for numbers in zip(*by_part, strict=True))
    moved_bias = formula.score_bias(along, pairs, change.dtype)
    change = change if moved_bias is None else change + moved_bias
    if removed is not None:
        score, change = score.masked_fill(removed, 0), change.masked_fill(removed, 0)
    score = score if bias is None else score + bias
    steps = _steps(score, statistic, change, up, moved_up, pairs, options)

    grads = Gradients(tensors, needs)
    grads.add_bias(pairs, steps.score)
    out = score.new_zeros(num_rows, num_heads, tensors.value.shape[2])
    split = zip(*(numbers.split(sizes) for numbers in steps), strict=True)
    for part, mask, numbers in zip(parts, masks, split, strict=True):
        met, own = meet(part, mask), _Steps(*(number.unsqueeze(2) for number in numbers))
        _add_values(grads, out, met, own, along, part, mask)
        _add_scores(grads, met, own, along, part, mask, options)
    return out, grads.result()


def _removed(bias: Tensor | None) -> Tensor | None:
    """Which pairs are removed; None where none is, as in most problems, so that nothing need be masked."""
    removed = None if bias is None else bias.detach() == -torch.inf
    return removed if removed is not None and bool(removed.any()) else None


class _Met(NamedTuple):
    """What meets in each pair, zero where it is removed, and what it changes by. Shape `[e, H, D]`, or Dv."""

    query: Tensor
    key: Tensor
    value: Tensor
    grad: Tensor
    moved_query: Tensor | None
    moved_key: Tensor | None
    moved_value: Tensor | None


def _meet(grad_out: Tensor, tensors: Tensors, along: Tensors, pairs: Pairs, removed: Tensor | None) -> _Met:
    dtype = tensors.compute_dtype
    return _Met(
        formula.pair_queries(tensors.query, pairs, removed, dtype),
        formula.pair_keys(tensors, pairs, removed),
        formula.pair_values(tensors, pairs, removed),
        formula.pair_queries(grad_out, pairs, removed, dtype),
        None if along.query is None else formula.pair_queries(along.query, pairs, removed, dtype),
        _moved_side("key", tensors, along, pairs, removed),
        _moved_side("value", tensors, along, pairs, removed),
    )


def _moved_side(name: str, tensors: Tensors, along: Tensors, pairs: Pairs, removed: Tensor | None) -> Tensor | None:
    """What the pairs' keys or values change by: through their own terms, and through the map of the edge features."""
    dtype = tensors.compute_dtype
    edge_map, moved_map = getattr(tensors, f"edge_{name}"), getattr(along, f"edge_{name}")
    own = (getattr(along, name), getattr(along, f"relation_{name}"), along.edge_attr, edge_map)
    through_map = formula.pair_side(None, None, tensors.edge_attr, moved_map, pairs, removed, dtype)
    return formula.plus(formula.pair_side(*own, pairs, removed, dtype), through_map)


def _scores(met: _Met, tensors: Tensors, along: Tensors, options: Options) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """score, score', u and u' of each pair. Shape `[e, H]` each."""
    if options.score == "dot":
        score = (met.query * met.key).sum(2) * options.scale
        change = formula.plus(
            None if met.moved_query is None else met.moved_query * met.key,
            None if met.moved_key is None else met.query * met.moved_key,
        )
        change = None if change is None else change.sum(2) * options.scale
    else:
        inner, moved = met.query + met.key, formula.plus(met.moved_query, met.moved_key)
        hidden = formula.activate(options, inner)
        score = _weighted(hidden, tensors.weight).sum(2)
        change = None if moved is None else formula.through_activation(options, moved, inner, hidden)
        change = None if change is None else _weighted(change, tensors.weight).sum(2)
        if along.weight is not None:
            change = formula.plus(change, _weighted(hidden, along.weight).sum(2))
    up = (met.grad * met.value).sum(2)
    moved_up = None if met.moved_value is None else (met.grad * met.moved_value).sum(2)
    zero = torch.zeros_like(score)
    return score, zero if change is None else change, up, zero if moved_up is None else moved_up


def _weighted(hidden: Tensor, weight: Tensor | None) -> Tensor:
    return hidden if weight is None else hidden * weight.to(hidden.dtype)


def _plus_product(total: Tensor, a: Tensor, b: Tensor | None) -> Tensor:
    return total if b is None else torch.addcmul(total, a, b)


class _Steps(NamedTuple):
    """P and P', and the derivatives of <out', G> in score and score'. Shape `[e, H]`, zero where removed."""

    weight: Tensor
    moved_weight: Tensor
    score: Tensor
    change: Tensor


def _steps(
    score: Tensor, statistic: Tensor, change: Tensor, up: Tensor, moved_up: Tensor, pairs: Pairs, options: Options
) -> _Steps:
    query_index, (num_rows, num_heads) = pairs.query_index, statistic.shape
    if torch.is_grad_enabled():  # a third derivative goes through it
        statistic = formula.row_statistic(score, query_index, num_rows, options.normalizer)
    keep: Tensor | float = 1.0
    if options.dropout > 0 and options.seed is not None:
        keep = keep_scale(pairs.edge_id, num_heads, options.dropout, options.seed, score.dtype)
        up, moved_up = up * keep, moved_up * keep
    alpha = formula.pair_weights(score, statistic, query_index, options.normalizer)
    if options.normalizer == "softmax":

        def centred(numbers: Tensor) -> Tensor:
            return numbers - segment_sum(alpha * numbers, query_index, num_rows).index_select(0, query_index)

        change, up = centred(change), centred(up)  # what is common to a row moves none of its weights
        return _Steps(alpha * keep, alpha * change * keep, alpha * centred(change * up + moved_up), alpha * up)
    slope = formula.moved_weights(torch.ones_like(score), score, alpha, statistic, query_index, options.normalizer)
    curve = (1 - 2 * alpha) * change * up if options.normalizer == "sigmoid" else 0
    return _Steps(alpha * keep, slope * change * keep, slope * (curve + moved_up), slope * up)


def _add_values(
    grads: Gradients, out: Tensor, met: _Met, steps: _Steps, along: Tensors, pairs: Pairs, removed: Tensor | None
) -> None:
    """out', and what follows from the values."""
    message = _plus_product(steps.moved_weight * met.value, steps.weight, met.moved_value)
    out.index_add_(0, pairs.query_index, message)
    grads.add_side("value", pairs, steps.moved_weight * met.grad, removed)
    if along.edge_attr is not None or along.edge_value is not None:
        grads.add_features("value", pairs, steps.weight * met.grad, removed, along.edge_attr, along.edge_value)


def _add_scores(
    grads: Gradients,
    met: _Met,
    steps: _Steps,
    along: Tensors,
    pairs: Pairs,
    removed: Tensor | None,
    options: Options,
) -> None:
    """What follows from the scores."""
    moves_features = along.edge_attr is not None or along.edge_key is not None
    of_moved_key = None
    if options.score == "dot":
        of_score, of_change = steps.score * options.scale, steps.change * options.scale
        of_query = _plus_product(of_score * met.key, of_change, met.moved_key)
        of_key = _plus_product(of_score * met.query, of_change, met.moved_query)
        if moves_features:
            of_moved_key = of_change * met.query
    else:
        of_key, of_moved_key = _additive(grads, met, steps, along, moves_features, options)
        of_query = of_key
    if grads.total.query is not None:
        grads.total.query.index_add_(0, pairs.query_index, of_query)
    grads.add_side("key", pairs, of_key, removed)
    if of_moved_key is not None:
        grads.add_features("key", pairs, of_moved_key, removed, along.edge_attr, along.edge_key)


def _additive(
    grads: Gradients, met: _Met, steps: _Steps, along: Tensors, moves_features: bool, options: Options
) -> tuple[Tensor, Tensor | None]:
    """The derivative in q + k and, where asked for, that in (q + k)'; that in the score's weight is added."""
    inner, moved = met.query + met.key, formula.plus(met.moved_query, met.moved_key)
    hidden = formula.activate(options, inner)

    def through(grad: Tensor) -> Tensor:
        return formula.through_activation(options, grad, inner, hidden)

    weight = torch.ones_like(inner[:1]) if grads.tensors.weight is None else grads.tensors.weight.to(inner.dtype)
    moved_weight = None if along.weight is None else along.weight.to(inner.dtype)
    of_inner = through(_plus_product(steps.score * weight, steps.change, moved_weight))
    if options.score == "tanh" and moved is not None:  # the slope changes too
        of_inner = torch.addcmul(of_inner, hidden * moved, through(steps.change * weight), value=-2)
    of_moved = through(steps.change * weight) if moves_features else None
    if grads.total.weight is not None:
        grads.total.weight.add_((steps.score * hidden).sum(0))
        if moved is not None:
            grads.total.weight.add_((steps.change * through(moved)).sum(0))
    return of_inner, of_moved
