"""Forward over listed pairs: several pairs of several rows in a step, all heads of a block at once.

Each of a row's places in a step is an online softmax of its own, so that no step waits for another warp; the places
are joined at the end.
"""

from __future__ import annotations

import triton
import triton.language as tl

from graphformer.kernels.triton.common import (
    LISTS,
    LN_2,
    LOG2_E,
    add_terms,
    keep_scale,
    load_features,
    load_head_vectors,
    load_own,
    load_scalars,
    load_vectors,
    pair_scores,
    pair_weight,
    read_ids,
    read_tasks,
    score_bias,
    store_own,
)


@triton.jit(do_not_specialize=["num_tasks"], do_not_specialize_on_alignment=LISTS)
def forward_rows(
    tasks, num_tasks, query, key, value, key_index, edge_id, relation,
    weight, bias, relation_bias, relation_key, relation_value, edge_attr, edge_query, edge_key,
    out, statistic, edge_sum, seed,
    query_stride, query_head_stride, key_stride, key_head_stride, value_stride, value_head_stride,
    scale: tl.float64, slope: tl.float64, least, grow: tl.float64,
    REAL: tl.constexpr, SCORE: tl.constexpr, NORMALIZER: tl.constexpr, HAS_DROPOUT: tl.constexpr,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, NUM_FEATURES: tl.constexpr,
    D: tl.constexpr, V: tl.constexpr, F: tl.constexpr,
    HEAD_BLOCK: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr, STAGES: tl.constexpr, IS_PIECE: tl.constexpr,
):  # fmt: skip
    """Weighted sums of values of ROWS tasks, written by row, or, of the pieces of split rows, by piece."""
    scale = tl.full((), scale, REAL)
    slope = tl.full((), slope, REAL)
    grow = tl.full((), grow, REAL)
    task, row, begin, stop, there = read_tasks(tasks, num_tasks, ROWS)
    first_head = tl.program_id(1) * HEAD_BLOCK
    head = first_head + tl.arange(0, HEAD_BLOCK)
    inside = there[:, None] & (head < HEADS)[None, :]  # [R, H]

    q = load_vectors(query, row[:, None], head, query_stride, query_head_stride, inside[:, None, :], WIDTH, D).to(REAL)
    w = None
    u = None
    if weight is not None:
        w = load_head_vectors(weight, head, HEADS, WIDTH, D).to(REAL)
    if edge_query is not None:
        u = load_own(edge_query, row, head, inside, HEADS, NUM_FEATURES, F).to(REAL)[:, None, :, :]
    row_statistic = tl.full((ROWS, HEAD_BLOCK), -float("inf"), REAL)
    if NORMALIZER != "softmax":
        row_statistic = load_scalars(statistic, row[:, None], head, inside[:, None, :], HEADS, 0.0).to(REAL)
        row_statistic = tl.reshape(row_statistic, (ROWS, HEAD_BLOCK))
    largest = tl.full((ROWS, STEP, HEAD_BLOCK), -float("inf"), REAL)
    totals = tl.zeros((ROWS, STEP, HEAD_BLOCK), REAL)
    sums = tl.zeros((ROWS, STEP, HEAD_BLOCK, V), REAL)
    feature_sums = tl.zeros((ROWS, STEP, HEAD_BLOCK, F), REAL)

    for step in tl.range(0, tl.max(stop - begin, 0).to(tl.int32), STEP, num_stages=STAGES):
        position = begin[:, None] + step + tl.arange(0, STEP)[None, :]
        valid = position < stop[:, None]
        node = tl.load(key_index + position, mask=valid, other=0)
        pair_id, kind = read_ids(position, valid, edge_id, relation)
        pair_bias, kept = score_bias(
            bias, relation_bias, pair_id, kind, head, valid[:, :, None] & inside[:, None, :], HEADS, REAL
        )
        k = load_vectors(key, node, head, key_stride, key_head_stride, kept, WIDTH, D)
        v = load_vectors(value, node, head, value_stride, value_head_stride, kept, VALUE_WIDTH, V)
        k = add_terms(
            k, relation_key, kind, edge_attr, edge_key, pair_id, valid, head, kept,
            REAL, HEADS, WIDTH, D, NUM_FEATURES,
        )  # fmt: skip
        v = add_terms(
            v, relation_value, kind, None, None, pair_id, valid, head, kept,
            REAL, HEADS, VALUE_WIDTH, V, NUM_FEATURES,
        )  # fmt: skip
        attr = None
        if (edge_query is not None) or (edge_sum is not None):
            attr = load_features(edge_attr, pair_id, valid, NUM_FEATURES, F).to(REAL)
        score = pair_scores(q, k, pair_bias, w, u, attr, kept, scale, slope, SCORE, REAL)
        if NORMALIZER == "softmax":
            score *= LOG2_E
            higher = tl.maximum(largest, score)
            base = tl.where(higher == -float("inf"), 0.0, higher)
            shrink = tl.exp2(largest - base)
            alpha = tl.exp2(score - base)
            totals = totals * shrink + alpha
            sums *= shrink[:, :, :, None]
            feature_sums *= shrink[:, :, :, None]
            largest = higher
        else:
            alpha = pair_weight(score, row_statistic[:, None, :], kept, NORMALIZER)
        if HAS_DROPOUT:
            alpha *= keep_scale(tl.load(seed), pair_id, head, first_head, least, grow, REAL, HEAD_BLOCK)
        sums += alpha[:, :, :, None] * v
        if edge_sum is not None:
            feature_sums += alpha[:, :, :, None] * tl.where(kept[:, :, :, None], attr[:, :, None, :], 0.0)

    if NORMALIZER == "softmax":
        highest = tl.max(largest, 1)
        base = tl.where(highest == -float("inf"), 0.0, highest)
        shrink = tl.exp2(largest - base[:, None, :])
        total = tl.sum(totals * shrink, 1)
        sums *= shrink[:, :, :, None]
        feature_sums *= shrink[:, :, :, None]
    summed, features = tl.sum(sums, 1), tl.sum(feature_sums, 1)
    if NORMALIZER == "softmax":
        empty = total == 0
        total = tl.where(empty, 1.0, total)
        row_statistic = tl.where(empty, -float("inf"), (highest + tl.log2(total)) * LN_2)
        summed /= total[:, :, None]
        features /= total[:, :, None]
    target = task if IS_PIECE else row.to(tl.int64)
    store_own(out, target, head, inside, summed, HEADS, VALUE_WIDTH, V)
    if NORMALIZER == "softmax":
        tl.store(statistic + target[:, None] * HEADS + head[None, :], row_statistic, mask=inside)
    if edge_sum is not None:
        store_own(edge_sum, target, head, inside, features, HEADS, NUM_FEATURES, F)


@triton.jit
def join_pieces(
    splits, out, statistic, edge_sum, piece_out, piece_statistic, piece_edge_sum,
    REAL: tl.constexpr, NORMALIZER: tl.constexpr,
    HEADS: tl.constexpr, VALUE_WIDTH: tl.constexpr, NUM_FEATURES: tl.constexpr,
    V: tl.constexpr, F: tl.constexpr, HEAD_BLOCK: tl.constexpr,
):  # fmt: skip
    """A split row's result from those of its pieces, in their order."""
    split = splits + tl.program_id(0).to(tl.int64) * 3
    row = tl.load(split + tl.arange(0, 1))
    first, stop = tl.load(split + 1), tl.load(split + 2)
    head = tl.program_id(1) * HEAD_BLOCK + tl.arange(0, HEAD_BLOCK)
    inside = (head < HEADS)[None, :]
    largest = tl.full((1, HEAD_BLOCK), -float("inf"), REAL)
    total = tl.zeros((1, HEAD_BLOCK), REAL)
    summed = tl.zeros((1, HEAD_BLOCK, V), REAL)
    features = tl.zeros((1, HEAD_BLOCK, F), REAL)
    for index in range(first, stop):
        piece = index + tl.zeros_like(row)
        summed_piece = load_own(piece_out, piece, head, inside, HEADS, VALUE_WIDTH, V)
        if NORMALIZER == "softmax":
            place = piece.to(tl.int64)[:, None] * HEADS + head[None, :]
            piece_largest = tl.load(piece_statistic + place, mask=inside, other=-float("inf")) * LOG2_E
            higher = tl.maximum(largest, piece_largest)
            base = tl.where(higher == -float("inf"), 0.0, higher)
            shrink, grow = tl.exp2(largest - base), tl.exp2(piece_largest - base)
            total = total * shrink + grow
            largest = higher
            summed = summed * shrink[:, :, None] + summed_piece * grow[:, :, None]
        else:
            shrink = tl.full((1, HEAD_BLOCK), 1.0, REAL)
            grow = shrink
            summed += summed_piece
        if edge_sum is not None:
            more = load_own(piece_edge_sum, piece, head, inside, HEADS, NUM_FEATURES, F)
            features = features * shrink[:, :, None] + more * grow[:, :, None]
    if NORMALIZER == "softmax":
        empty = total == 0
        total = tl.where(empty, 1.0, total)
        row_statistic = tl.where(empty, -float("inf"), (largest + tl.log2(total)) * LN_2)
        tl.store(statistic + row.to(tl.int64)[:, None] * HEADS + head[None, :], row_statistic, mask=inside)
        summed /= total[:, :, None]
        features /= total[:, :, None]
    store_own(out, row, head, inside, summed, HEADS, VALUE_WIDTH, V)
    if edge_sum is not None:
        store_own(edge_sum, row, head, inside, features, HEADS, NUM_FEATURES, F)
