"""Forward over runs: online softmax on tensor cores, one tile of queries and one head in a program."""

from __future__ import annotations

import triton
import triton.language as tl

from graphformer.kernels.triton.tile_blocks import (
    LN_2,
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
    store_block,
    walk,
)


@triton.jit(do_not_specialize=["num_rows"])
def forward_tiles(query, key, value, out, statistic, runs, terms, num_rows, scale, form: tl.constexpr):
    """Weighted sums of values [N, H, V], and the rows' statistics [N, H]."""
    tile, head = own_tile(num_rows, form)
    first = tile * form.rows
    row = first + tl.arange(0, form.rows)
    there = row < num_rows
    q = load_block(query, head, first, num_rows, form.width, form.D, form.rows, True)
    own = count_runs(runs, row, there)
    pair = row.to(tl.int64)
    if terms.pair_ptr is not None:
        pair = tl.load(terms.pair_ptr + row, mask=there, other=0)

    known = tl.zeros((form.rows,), tl.float32)
    if form.normalizer == "softmax":
        summed, largest, total = _sum_values(q, known, own, there, pair, key, value, runs, terms, head, scale, form, False, True)
        empty = total == 0
        total = tl.where(empty, 1.0, total)
        found = tl.where(empty, -float("inf"), (largest + tl.log2(total)) * LN_2)
        summed = summed / total[:, None]
        known = finite_statistic(found, form)
    else:
        count = _count_kept(own, there, pair, runs, terms, head, form)
        found = tl.where(count == 0, -float("inf"), tl.log2(tl.maximum(count, 1.0)) * LN_2)
        known = finite_statistic(found, form)
        summed, _, _ = _sum_values(q, known, own, there, pair, key, value, runs, terms, head, scale, form, False, False)
    if is_spoilt(summed, there):
        summed, _, _ = _sum_values(q, known, own, there, pair, key, value, runs, terms, head, scale, form, True, False)
    if form.has_dropout:
        summed *= terms.grow
    store_block(out, head, first, num_rows, summed, form.value_width, form.V, form.rows)
    tl.store(statistic + row.to(tl.int64) * form.heads + head, found, mask=there)


@triton.jit
def _sum_values(
    q, known, own, there, pair, key, value, runs, terms, head, scale,
    form: tl.constexpr, CAREFUL: tl.constexpr, ONLINE: tl.constexpr,
):  # fmt: skip
    """Weights by values [R, V], with the largest score and the sum of weights [R] where the softmax is online."""
    first_run, count, most = own
    summed = tl.zeros((form.rows, form.V), tl.float32)
    largest = tl.full((form.rows,), -float("inf"), tl.float32)
    total = tl.zeros((form.rows,), tl.float32)
    for turn in range(most):
        start, stop = load_run(runs, first_run, count, turn)
        low, left, whole, border, masked, high = walk(start, stop, there, form.step)
        if CAREFUL:
            for first in range(low, high, form.step):
                summed, largest, total = _step(
                    summed, largest, total, q, known, first, high, start, stop, pair, key, value, terms, head, scale,
                    form, True, CAREFUL, ONLINE,
                )  # fmt: skip
        else:
            for first in tl.range(whole, border, form.step, num_stages=form.stages):
                summed, largest, total = _step(
                    summed, largest, total, q, known, first, high, start, stop, pair, key, value, terms, head, scale,
                    form, False, CAREFUL, ONLINE,
                )  # fmt: skip
            for block in tl.range(0, masked, num_stages=form.stages):
                first = masked_block(block, low, left, border, form.step)
                summed, largest, total = _step(
                    summed, largest, total, q, known, first, high, start, stop, pair, key, value, terms, head, scale,
                    form, True, CAREFUL, ONLINE,
                )  # fmt: skip
        pair += tl.maximum(stop - start, 0)
    return summed, largest, total


@triton.jit
def _step(
    summed, largest, total, q, known, first, limit, start, stop, pair, key, value, terms, head, scale,
    form: tl.constexpr, MASKED: tl.constexpr, CAREFUL: tl.constexpr, ONLINE: tl.constexpr,
):  # fmt: skip
    column = first + tl.arange(0, form.step)
    k = load_block(key, head, first, limit, form.width, form.D, form.step, MASKED)
    product = tl.dot(q, tl.trans(k), input_precision=form.precision)
    ids = (pair - start)[:, None] + column[None, :]
    inside = inside_runs(start, stop, column)
    score, kept = pair_scores(product, inside, ids, terms, head, scale, form, MASKED)
    if ONLINE:
        higher = tl.maximum(largest, tl.max(score, 1))
        base = tl.where(higher == -float("inf"), 0.0, higher)
        shrink = tl.exp2(largest - base)
        weight = tl.exp2(score - base[:, None])
        total = total * shrink + tl.sum(weight, 1)
        summed *= shrink[:, None]
        largest = higher
    else:
        weight = pair_weights(score, known[:, None], form)
    if form.has_dropout:
        weight = tl.where(is_kept(ids, head, terms), weight, 0.0)
    v = load_block(value, head, first, limit, form.value_width, form.V, form.step, MASKED)
    return add_product(summed, weight, kept, v, form, CAREFUL), largest, total


@triton.jit
def _count_kept(own, there, pair, runs, terms, head, form: tl.constexpr):
    """Number of pairs of each row [R] that no bias removes."""
    first_run, count, most = own
    kept_pairs = tl.zeros((form.rows,), tl.float32)
    none = tl.zeros((form.rows, form.step), tl.float32)
    for turn in range(most):
        start, stop = load_run(runs, first_run, count, turn)
        if (terms.bias is None) and (terms.relation_bias is None):
            kept_pairs += tl.maximum(stop - start, 0).to(tl.float32)
        else:
            for first in range(tl.min(start, 0), tl.max(stop, 0), form.step):
                column = first + tl.arange(0, form.step)
                ids = (pair - start)[:, None] + column[None, :]
                inside = inside_runs(start, stop, column)
                _, kept = pair_scores(none, inside, ids, terms, head, 0.0, form, True)
                kept_pairs += tl.sum(kept.to(tl.float32), 1)
        pair += tl.maximum(stop - start, 0)
    return kept_pairs
