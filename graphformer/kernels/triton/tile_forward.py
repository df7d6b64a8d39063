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
def forward_tiles(
    query, key, value, out, statistic, runs, terms, num_rows, scale, form: tl.constexpr, small: tl.constexpr
):  # fmt: skip
    """Weighted sums of values [N, H, V], and the rows' statistics [N, H].

    A tile that comes out as no number is summed again with care, in `small` pieces, which take few registers.
    """
    first, head = own_tile(num_rows, form)
    spoilt = _sum_tile(first, query, key, value, out, statistic, runs, terms, num_rows, head, scale, form, False)
    if spoilt:
        tl.debug_barrier()  # the statistic is read again
        for part in range(first, tl.minimum(first + form.rows, num_rows), small.rows):
            _sum_tile(
                part, query, key, value, out, statistic, runs, terms, num_rows, head, scale,
                small, True,
            )  # fmt: skip


@triton.jit
def _sum_tile(
    first, query, key, value, out, statistic, runs, terms, num_rows, head, scale,
    form: tl.constexpr, CAREFUL: tl.constexpr,
):  # fmt: skip
    """Write the rows [R] from `first` on; whether one came out as no number."""
    row = first + tl.arange(0, form.rows)
    there = row < num_rows
    own = count_runs(runs, terms.pair_ptr, row, there)
    q = load_block(query, head, first, num_rows, form.width, form.D, form.rows, True)
    place = statistic + row.to(tl.int64) * form.heads + head
    is_online: tl.constexpr = form.normalizer == "softmax" and not CAREFUL
    known = tl.zeros((form.rows,), tl.float32)
    if CAREFUL:
        known = finite_statistic(tl.load(place, mask=there, other=0.0))
    elif not is_online:
        count = _count_kept(own, runs, terms, head, form)
        found = tl.where(count == 0, -float("inf"), tl.log2(tl.maximum(count, 1.0)) * LN_2)
        tl.store(place, found, mask=there)
        known = finite_statistic(found)

    summed = tl.zeros((form.rows, form.V), tl.float32)
    largest = tl.full((form.rows,), -float("inf"), tl.float32)
    total = tl.zeros((form.rows,), tl.float32)
    first_run, num_runs, most, pair = own
    for turn in range(most):
        start, stop = load_run(runs, first_run, num_runs, turn)
        low, left, whole, border, masked, high = walk(start, stop, there, form.step)
        if CAREFUL:
            for column in tl.range(low, high, form.step, num_stages=1):
                summed, largest, total = _step(
                    summed, largest, total, q, known, column, high, start, stop, pair, key, value, terms, head, scale,
                    form, True, False, True,
                )  # fmt: skip
        else:
            for column in tl.range(whole, border, form.step, num_stages=form.stages):
                summed, largest, total = _step(
                    summed, largest, total, q, known, column, high, start, stop, pair, key, value, terms, head, scale,
                    form, False, is_online, False,
                )  # fmt: skip
            for block in tl.range(0, masked, num_stages=form.stages):
                column = masked_block(block, low, left, border, form.step)
                summed, largest, total = _step(
                    summed, largest, total, q, known, column, high, start, stop, pair, key, value, terms, head, scale,
                    form, True, is_online, False,
                )  # fmt: skip

    if is_online:
        empty = total == 0
        total = tl.where(empty, 1.0, total)
        tl.store(place, tl.where(empty, -float("inf"), (largest + tl.log2(total)) * LN_2), mask=there)
        summed = summed / total[:, None]
    if form.has_dropout:
        summed *= terms.grow
    store_block(out, head, first, num_rows, summed, form.value_width, form.V, form.rows)
    return is_spoilt(summed, there)


@triton.jit
def _step(
    summed, largest, total, q, known, first, limit, start, stop, pair, key, value, terms, head, scale,
    form: tl.constexpr, MASKED: tl.constexpr, ONLINE: tl.constexpr, CAREFUL: tl.constexpr,
):  # fmt: skip
    column = first + tl.arange(0, form.step)
    ids = (pair - start)[:, None] + column[None, :]
    inside = inside_runs(start, stop, column)
    k = load_block(key, head, first, limit, form.width, form.D, form.step, MASKED)
    product = tl.dot(q, tl.trans(k), input_precision=form.precision)
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
    return add_product(summed, weight, kept, v, limit - first, form, CAREFUL), largest, total


@triton.jit
def _count_kept(own, runs, terms, head, form: tl.constexpr):
    """Number of pairs of each row [R] that no bias removes."""
    first_run, num_runs, most, pair = own
    count = tl.zeros((form.rows,), tl.float32)
    none = tl.zeros((form.rows, form.step), tl.float32)
    for turn in range(most):
        start, stop = load_run(runs, first_run, num_runs, turn)
        if (terms.bias is None) and (terms.relation_bias is None):
            count += tl.maximum(stop - start, 0).to(tl.float32)
        else:
            for first in range(tl.min(start, 0), tl.max(stop, 0), form.step):
                column = first + tl.arange(0, form.step)
                ids = (pair - start)[:, None] + column[None, :]
                inside = inside_runs(start, stop, column)
                _, kept = pair_scores(none, inside, ids, terms, head, 0.0, form, True)
                count += tl.sum(kept.to(tl.float32), 1)
    return count
