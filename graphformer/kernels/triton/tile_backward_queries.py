"""Backward by query over runs: the gradient of queries, and delta, the row's sum of weight times its gradient."""

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
    pair_scores,
    pair_weights,
    score_gradients,
    store_block,
    walk,
)


@triton.jit(do_not_specialize=["num_rows"])
def backward_queries(
    query, key, value, grad_out, out, grad_query, statistic, delta, runs, terms, num_rows, scale,
    form: tl.constexpr, small: tl.constexpr,
):  # fmt: skip
    """Gradients of queries [N, H, D], and delta [H, N] for softmax.

    grad_out . out is delta, but for the rounding of `out` to half precision. So the sweep starts from it, and sums what
    it is off by, the gradients of the row's scores, in float32. The gradient that was summed along with it is off by
    that times the row's mean key, a fourth product; a second sweep over the row would take two more.
    """
    first, head = own_tile(num_rows, form)
    statistic += head.to(tl.int64) * num_rows  # [H, N], as delta
    if form.normalizer == "softmax":
        delta += head.to(tl.int64) * num_rows
    spoilt = _sum_tile(
        first, query, key, value, grad_out, out, grad_query, statistic, delta, runs, terms, num_rows, head, scale,
        form, False,
    )  # fmt: skip
    if spoilt:
        tl.debug_barrier()  # delta is read again
        for part in range(first, tl.minimum(first + form.rows, num_rows), small.rows):
            _sum_tile(
                part, query, key, value, grad_out, out, grad_query, statistic, delta, runs, terms,
                num_rows, head, scale, small, True,
            )  # fmt: skip


@triton.jit
def _sum_tile(
    first, query, key, value, grad_out, out, grad_query, statistic, delta, runs, terms, num_rows, head, scale,
    form: tl.constexpr, CAREFUL: tl.constexpr,
):  # fmt: skip
    """Write the rows [R] from `first` on; whether one came out as no number."""
    row = first + tl.arange(0, form.rows)
    there = row < num_rows
    own = count_runs(runs, terms.pair_ptr, row, there)
    q = load_block(query, head, first, num_rows, form.width, form.D, form.rows, True)
    g = load_block(grad_out, head, first, num_rows, form.value_width, form.V, form.rows, True)
    known = finite_statistic(tl.load(statistic + row, mask=there, other=0.0))
    is_soft: tl.constexpr = form.normalizer == "softmax"
    is_rounded: tl.constexpr = is_soft and not CAREFUL and out.data.dtype.element_ty != tl.float32
    near = tl.zeros((form.rows,), tl.float32)
    if is_soft:
        if CAREFUL:
            near = tl.load(delta + row, mask=there, other=0.0)
        else:
            o = load_block(out, head, first, num_rows, form.value_width, form.V, form.rows, True)
            near = tl.sum(g.to(tl.float32) * o.to(tl.float32), 1)

    moved = tl.zeros((form.rows, form.D), tl.float32)
    mean = tl.zeros((form.rows, form.D), tl.float32)
    off = tl.zeros((form.rows,), tl.float32)
    if form.needs_query or is_rounded:
        first_run, num_runs, most, pair = own
        for turn in range(most):
            start, stop = load_run(runs, first_run, num_runs, turn)
            low, left, whole, border, masked, high = walk(start, stop, there, form.step)
            if CAREFUL:
                for column in tl.range(low, high, form.step, num_stages=1):
                    moved, mean, off = _step(
                        moved, mean, off, q, g, near, known, column, high, start, stop, pair, key, value, terms, head,
                        scale, form, True, False, True,
                    )  # fmt: skip
            else:
                for column in tl.range(whole, border, form.step, num_stages=form.stages):
                    moved, mean, off = _step(
                        moved, mean, off, q, g, near, known, column, high, start, stop, pair, key, value, terms, head,
                        scale, form, False, is_rounded, False,
                    )  # fmt: skip
                for block in tl.range(0, masked, num_stages=form.stages):
                    column = masked_block(block, low, left, border, form.step)
                    moved, mean, off = _step(
                        moved, mean, off, q, g, near, known, column, high, start, stop, pair, key, value, terms, head,
                        scale, form, True, is_rounded, False,
                    )  # fmt: skip
    if is_rounded:
        moved -= off[:, None] * mean
    if is_soft and not CAREFUL:
        tl.store(delta + row, near + off, mask=there)
    if form.needs_query:
        store_block(grad_query, head, first, num_rows, moved * scale, form.width, form.D, form.rows)
    return is_spoilt(moved, there)


@triton.jit
def _step(
    moved, mean, off, q, g, delta, known, first, limit, start, stop, pair, key, value, terms, head, scale,
    form: tl.constexpr, MASKED: tl.constexpr, HAS_MEAN: tl.constexpr, CAREFUL: tl.constexpr,
):  # fmt: skip
    column = first + tl.arange(0, form.step)
    ids = (pair - start)[:, None] + column[None, :]
    inside = inside_runs(start, stop, column)
    k = load_block(key, head, first, limit, form.width, form.D, form.step, MASKED)
    product = tl.dot(q, tl.trans(k), input_precision=form.precision)
    score, kept = pair_scores(product, inside, ids, terms, head, scale, form, MASKED)
    weight = pair_weights(score, known[:, None], form)
    v = load_block(value, head, first, limit, form.value_width, form.V, form.step, MASKED)
    grad_weight = tl.dot(g, tl.trans(v), input_precision=form.precision)
    if form.has_dropout:
        grad_weight = tl.where(is_kept(ids, head, terms), grad_weight * terms.grow, 0.0)
    grad_score = score_gradients(grad_weight, score, weight, known[:, None], delta[:, None], form)
    if MASKED or (terms.bias is not None) or (terms.relation_bias is not None):
        grad_score = tl.where(kept, grad_score, 0.0)
    if HAS_MEAN:
        off += tl.sum(grad_score, 1)
    if form.needs_query:
        moved = add_product(moved, grad_score, kept, k, limit - first, form, CAREFUL)
        if HAS_MEAN:
            mean = add_product(mean, weight, kept, k, limit - first, form, CAREFUL)
    return moved, mean, off
