"""Backward by key over runs: the gradients of keys and values, and of each pair's bias."""

from __future__ import annotations

import triton
import triton.language as tl

from graphformer.kernels.triton.tile_blocks import (
    add_product,
    count_runs,
    finite_statistic,
    inside_runs,
    is_kept,
    is_spoilt,
    load_block,
    load_run,
    masked_block,
    own_tile,
    pair_places,
    pair_scores,
    pair_weights,
    score_gradients,
    store_block,
    walk,
)


@triton.jit(do_not_specialize=["num_rows", "num_queries"])
def backward_keys(
    query, key, value, grad_out, grad_key, grad_value, grad_bias, statistic, delta, runs, terms,
    num_queries, num_rows, scale, form: tl.constexpr, small: tl.constexpr,
):  # fmt: skip
    """Gradients of keys [M, H, D] and values [M, H, V], and, by pair, of scores [H, E]: the rows of a tile are keys."""
    first, head = own_tile(num_rows, form)
    statistic += head.to(tl.int64) * num_queries  # [H, N], as delta
    if form.normalizer == "softmax":
        delta += head.to(tl.int64) * num_queries
    spoilt = _sum_tile(
        first, query, key, value, grad_out, grad_key, grad_value, grad_bias, statistic, delta, runs, terms,
        num_rows, head, scale, form, False,
    )  # fmt: skip
    if spoilt:
        tl.debug_barrier()  # what is written again
        for part in range(first, tl.minimum(first + form.rows, num_rows), small.rows):
            _sum_tile(
                part, query, key, value, grad_out, grad_key, grad_value, None, statistic, delta,
                runs, terms, num_rows, head, scale, small, True,
            )  # fmt: skip


@triton.jit
def _sum_tile(
    first, query, key, value, grad_out, grad_key, grad_value, grad_bias, statistic, delta, runs, terms,
    num_rows, head, scale, form: tl.constexpr, CAREFUL: tl.constexpr,
):  # fmt: skip
    """Write the rows [R] from `first` on; whether one came out as no number."""
    row = first + tl.arange(0, form.rows)
    there = row < num_rows
    first_run, num_runs, most, _ = count_runs(runs, None, row, there)
    k = load_block(key, head, first, num_rows, form.width, form.D, form.rows, True)
    v = load_block(value, head, first, num_rows, form.value_width, form.V, form.rows, True)
    moved = tl.zeros((form.rows, form.D), tl.float32)
    summed = tl.zeros((form.rows, form.V), tl.float32)
    for turn in range(most):
        start, stop = load_run(runs, first_run, num_runs, turn)
        low, left, whole, border, masked, high = walk(start, stop, there, form.step)
        if CAREFUL:
            for column in tl.range(low, high, form.step, num_stages=1):
                moved, summed = _step(
                    moved, summed, k, v, row, column, high, start, stop, query, grad_out, grad_bias, statistic, delta,
                    terms, head, scale, form, True, True,
                )  # fmt: skip
        else:
            for column in tl.range(whole, border, form.step, num_stages=form.stages):
                moved, summed = _step(
                    moved, summed, k, v, row, column, high, start, stop, query, grad_out, grad_bias, statistic, delta,
                    terms, head, scale, form, False, False,
                )  # fmt: skip
            for block in tl.range(0, masked, num_stages=form.stages):
                column = masked_block(block, low, left, border, form.step)
                moved, summed = _step(
                    moved, summed, k, v, row, column, high, start, stop, query, grad_out, grad_bias, statistic, delta,
                    terms, head, scale, form, True, False,
                )  # fmt: skip
    if form.needs_key:
        store_block(grad_key, head, first, num_rows, moved * scale, form.width, form.D, form.rows)
    if form.needs_value:
        if form.has_dropout:
            summed *= terms.grow
        store_block(grad_value, head, first, num_rows, summed, form.value_width, form.V, form.rows)
    return is_spoilt(moved, there) | is_spoilt(summed, there)


@triton.jit
def _step(
    moved, summed, k, v, row, first, limit, start, stop, query, grad_out, grad_bias, statistic, delta,
    terms, head, scale, form: tl.constexpr, MASKED: tl.constexpr, CAREFUL: tl.constexpr,
):  # fmt: skip
    column = first + tl.arange(0, form.step)
    in_range = column < limit
    inside = inside_runs(start, stop, column)
    ids = row.to(tl.int64)[:, None] + column[None, :]
    if terms.pair_ptr is not None:
        ids = row.to(tl.int64)[:, None] + tl.load(terms.pair_ptr + column, mask=in_range, other=0)[None, :]
    q = load_block(query, head, first, limit, form.width, form.D, form.step, MASKED)
    product = tl.dot(k, tl.trans(q), input_precision=form.precision)
    score, kept = pair_scores(product, inside, ids, terms, head, scale, form, MASKED)
    known = finite_statistic(tl.load(statistic + column, mask=in_range, other=0.0))[None, :]
    weight = pair_weights(score, known, form)
    if MASKED or (terms.bias is not None) or (terms.relation_bias is not None):
        weight = tl.where(kept, weight, 0.0)  # the statistic of a query that is not met may be NaN
    is_drawn = inside
    if form.has_dropout:
        is_drawn = is_kept(ids, head, terms)
    g = load_block(grad_out, head, first, limit, form.value_width, form.V, form.step, MASKED)
    if form.needs_value:
        taken = weight
        if form.has_dropout:
            taken = tl.where(is_drawn, weight, 0.0)
        summed = add_product(summed, taken, kept, g, limit - first, form, CAREFUL)
    if form.needs_key or (grad_bias is not None):
        grad_weight = tl.dot(v, tl.trans(g), input_precision=form.precision)
        if form.has_dropout:
            grad_weight = tl.where(is_drawn, grad_weight * terms.grow, 0.0)
        total = known
        if form.normalizer == "softmax":
            total = tl.load(delta + column, mask=in_range, other=0.0)[None, :]
        grad_score = score_gradients(grad_weight, score, weight, known, total, form)
        if MASKED or (terms.bias is not None) or (terms.relation_bias is not None):
            grad_score = tl.where(kept, grad_score, 0.0)
        if grad_bias is not None:
            tl.store(pair_places(grad_bias, ids, head), grad_score, mask=inside)
        if form.needs_key:
            moved = add_product(moved, grad_score, kept, q, limit - first, form, CAREFUL)
    return moved, summed
