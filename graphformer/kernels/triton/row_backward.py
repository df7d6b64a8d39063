"""Backward over listed pairs by query; each gradient is summed by the one program that owns it.

Weights are computed anew from the rows' statistic. With delta[i] = sum P dP, a pair's score has the gradient
g = alpha (m / (1 - p) dP - delta). Where the result was rounded to half precision, delta is not grad_out . out: the
pass by query then sums P dP t and alpha t side by side, t being what the score's gradient moves the query by, and
takes delta times the second from the first at the end.
"""

from __future__ import annotations

import triton
import triton.language as tl

from graphformer.kernels.triton.common import (
    LISTS,
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
    score_gradient,
    slope_of,
    store_own,
)


@triton.jit
def weight_gradient(grad_out, value, edge_grad, attr):
    """dP [R, S, H]: the result's gradient times the pair's value, and what edge features add to it."""
    total = tl.sum(grad_out * value, 3)
    if edge_grad is not None:
        total += tl.sum(edge_grad * attr[:, :, None, :], 3)
    return total


@triton.jit
def moves(query, key, weight, slope, SCORE: tl.constexpr):
    """t [R, S, H, D]: the derivative of an additive score in q + k."""
    derivative = slope_of(query + key, slope, SCORE)
    if weight is not None:
        derivative = derivative * weight[None, None, :, :]
    return derivative


@triton.jit(do_not_specialize=["num_tasks", "num_pairs"], do_not_specialize_on_alignment=LISTS)
def backward_queries(
    tasks, num_tasks, num_pairs, query, key, value, key_index, edge_id, relation,
    weight, bias, relation_bias, relation_key, relation_value, edge_attr, edge_query, edge_key, edge_grad,
    grad_out, out, statistic, delta, seed,
    grad_query, grad_edge_query, edge_sum, grad_bias, grad_edge_attr, query_mean, edge_query_mean, piece_delta,
    query_stride, query_head_stride, key_stride, key_head_stride, value_stride, value_head_stride,
    scale: tl.float64, slope: tl.float64, least, grow: tl.float64,
    REAL: tl.constexpr, SCORE: tl.constexpr, NORMALIZER: tl.constexpr, HAS_DROPOUT: tl.constexpr,
    FINDS_DELTA: tl.constexpr,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, NUM_FEATURES: tl.constexpr,
    D: tl.constexpr, V: tl.constexpr, F: tl.constexpr,
    HEAD_BLOCK: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr, STAGES: tl.constexpr, IS_PIECE: tl.constexpr,
):  # fmt: skip
    """What the queries own: their gradients, delta, and the gradients of biases and features of the pairs."""
    scale = tl.full((), scale, REAL)
    slope = tl.full((), slope, REAL)
    grow = tl.full((), grow, REAL)
    task, row, begin, stop, there = read_tasks(tasks, num_tasks, ROWS)
    first_head = tl.program_id(1) * HEAD_BLOCK
    head = first_head + tl.arange(0, HEAD_BLOCK)
    inside = there[:, None] & (head < HEADS)[None, :]  # [R, H]
    feature = tl.arange(0, F)

    q = load_vectors(query, row[:, None], head, query_stride, query_head_stride, inside[:, None, :], WIDTH, D).to(REAL)
    go = load_own(grad_out, row, head, inside, HEADS, VALUE_WIDTH, V).to(REAL)
    lse = load_scalars(statistic, row[:, None], head, inside[:, None, :], HEADS, 0.0).to(REAL)  # [R, 1, H]
    row_delta = tl.zeros((ROWS, 1, HEAD_BLOCK), REAL)
    if not FINDS_DELTA and NORMALIZER == "softmax":
        if out is not None:
            row_delta = tl.sum(go * load_own(out, row, head, inside, HEADS, VALUE_WIDTH, V).to(REAL), 2)[:, None, :]
        else:
            row_delta = load_scalars(delta, row[:, None], head, inside[:, None, :], HEADS, 0.0).to(REAL)
    go = go[:, None, :, :]
    w = None
    u = None
    eg = None
    if weight is not None:
        w = load_head_vectors(weight, head, HEADS, WIDTH, D).to(REAL)
    if edge_query is not None:
        u = load_own(edge_query, row, head, inside, HEADS, NUM_FEATURES, F).to(REAL)[:, None, :, :]
    if edge_grad is not None:
        eg = load_own(edge_grad, row, head, inside, HEADS, NUM_FEATURES, F).to(REAL)[:, None, :, :]
    # One sum for each of a row's places in a step; they are joined at the end, so that no step waits for another warp.
    found = tl.zeros((ROWS, STEP, HEAD_BLOCK), REAL)
    moved = tl.zeros((ROWS, STEP, HEAD_BLOCK, D), REAL)
    moved_mean = tl.zeros((ROWS, STEP, HEAD_BLOCK, D), REAL)
    through = tl.zeros((ROWS, STEP, HEAD_BLOCK, F), REAL)
    through_mean = tl.zeros((ROWS, STEP, HEAD_BLOCK, F), REAL)
    features = tl.zeros((ROWS, STEP, HEAD_BLOCK, F), REAL)

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
        if edge_attr is not None:
            attr = load_features(edge_attr, pair_id, valid, NUM_FEATURES, F).to(REAL)
        score = pair_scores(q, k, pair_bias, w, u, attr, kept, scale, slope, SCORE, REAL)
        alpha = pair_weight(score, lse, kept, NORMALIZER)
        grad_weight = weight_gradient(go, v, eg, attr)
        dropped = alpha
        if HAS_DROPOUT:
            keep = keep_scale(tl.load(seed), pair_id, head, first_head, least, grow, REAL, HEAD_BLOCK)
            grad_weight *= keep
            dropped = alpha * keep
        if FINDS_DELTA:
            gradient = alpha * grad_weight
        else:
            gradient = score_gradient(grad_weight, score, alpha, lse, row_delta, NORMALIZER)
        gradient = tl.where(kept, gradient, 0.0)
        if FINDS_DELTA:
            found += gradient
        t = k
        if SCORE != "dot":  # of a removed pair, zero times this may be no number
            t = tl.where(kept[:, :, :, None], moves(q, k, w, slope, SCORE), 0.0)
        if grad_query is not None:
            moved += gradient[:, :, :, None] * t
            if FINDS_DELTA:
                moved_mean += alpha[:, :, :, None] * t
        if grad_edge_query is not None:
            own = tl.where(kept[:, :, :, None], attr[:, :, None, :], 0.0)
            through += gradient[:, :, :, None] * own
            if FINDS_DELTA:
                through_mean += alpha[:, :, :, None] * own
        if edge_sum is not None:
            own = tl.where(kept[:, :, :, None], attr[:, :, None, :], 0.0)
            features += dropped[:, :, :, None] * own
        if grad_bias is not None:
            place = grad_bias + pair_id[:, :, None] * HEADS + head[None, None, :]
            tl.store(place, gradient.to(grad_bias.dtype.element_ty), mask=valid[:, :, None] & inside[:, None, :])
        if grad_edge_attr is not None:
            first = (tl.program_id(1).to(tl.int64) * num_pairs + pair_id) * NUM_FEATURES
            if edge_key is not None:
                step_ = tl.where(kept[:, :, :, None], gradient[:, :, :, None] * t, 0.0)
                for index in range(NUM_FEATURES):
                    column = tl.arange(0, D)
                    own_place = (index * HEADS + head[:, None]) * WIDTH + column
                    own_map = tl.load(edge_key + own_place, mask=(head < HEADS)[:, None] & (column < WIDTH), other=0.0)
                    by_head = tl.sum(step_ * own_map.to(REAL)[None, None, :, :], 3)
                    if edge_grad is not None:
                        own_row = (row.to(tl.int64)[:, None] * HEADS + head[None, :]) * NUM_FEATURES + index
                        by_head += dropped * tl.load(edge_grad + own_row, mask=inside, other=0.0).to(REAL)[:, None, :]
                    tl.store(grad_edge_attr + first + index, tl.sum(tl.where(kept, by_head, 0.0), 2), mask=valid)
            else:
                by_head = tl.zeros((ROWS, STEP, HEAD_BLOCK, F), REAL)
                if edge_query is not None:
                    by_head += gradient[:, :, :, None] * u * scale
                if edge_grad is not None:
                    by_head += dropped[:, :, :, None] * eg
                by_pair = tl.sum(tl.where(kept[:, :, :, None], by_head, 0.0), 2)
                mask = valid[:, :, None] & (feature < NUM_FEATURES)
                tl.store(grad_edge_attr + first[:, :, None] + feature, by_pair, mask=mask)

    found = tl.sum(found, 1)
    moved, moved_mean = tl.sum(moved, 1), tl.sum(moved_mean, 1)
    through, through_mean = tl.sum(through, 1), tl.sum(through_mean, 1)
    features = tl.sum(features, 1)
    if SCORE == "dot":
        moved *= scale
        moved_mean *= scale
        through *= scale
        through_mean *= scale
    target = task if IS_PIECE else row.to(tl.int64)
    place = target[:, None] * HEADS + head[None, :]
    if FINDS_DELTA:
        if IS_PIECE:
            tl.store(piece_delta + place, found, mask=inside)
            if query_mean is not None:
                store_own(query_mean, target, head, inside, moved_mean, HEADS, WIDTH, D)
            if edge_query_mean is not None:
                store_own(edge_query_mean, target, head, inside, through_mean, HEADS, NUM_FEATURES, F)
        else:
            tl.store(delta + place, found, mask=inside)
            moved -= found[:, :, None] * moved_mean
            through -= found[:, :, None] * through_mean
    elif out is not None:  # the same from all pieces of a row
        place = row.to(tl.int64)[:, None] * HEADS + head[None, :]
        tl.store(delta + place, tl.reshape(row_delta, (ROWS, HEAD_BLOCK)), mask=inside)
    if grad_query is not None:
        store_own(grad_query, target, head, inside, moved, HEADS, WIDTH, D)
    if grad_edge_query is not None:
        store_own(grad_edge_query, target, head, inside, through, HEADS, NUM_FEATURES, F)
    if edge_sum is not None:
        store_own(edge_sum, target, head, inside, features, HEADS, NUM_FEATURES, F)


@triton.jit
def sum_pieces(
    splits, total, pieces, piece_means, delta,
    REAL: tl.constexpr, HEADS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, HEAD_BLOCK: tl.constexpr,
):  # fmt: skip
    """A split row's gradient from those of its pieces, in their order; less delta times their means, where given."""
    split = splits + tl.program_id(0).to(tl.int64) * 3
    row = tl.load(split + tl.arange(0, 1))
    first, stop = tl.load(split + 1), tl.load(split + 2)
    head = tl.program_id(1) * HEAD_BLOCK + tl.arange(0, HEAD_BLOCK)
    inside = (head < HEADS)[None, :]
    summed = tl.zeros((1, HEAD_BLOCK, PADDED), REAL)
    means = tl.zeros((1, HEAD_BLOCK, PADDED), REAL)
    for index in range(first, stop):
        piece = index + tl.zeros_like(row)
        summed += load_own(pieces, piece, head, inside, HEADS, WIDTH, PADDED)
        if piece_means is not None:
            means += load_own(piece_means, piece, head, inside, HEADS, WIDTH, PADDED)
    if piece_means is not None:
        place = row.to(tl.int64)[:, None] * HEADS + head[None, :]
        summed -= tl.load(delta + place, mask=inside, other=0.0)[:, :, None] * means
    store_own(total, row, head, inside, summed, HEADS, WIDTH, PADDED)
