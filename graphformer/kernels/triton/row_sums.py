"""Backward over listed pairs by key and by relation, and over all pairs for what every pair shares.

A relation's pairs are listed as a key's are; their keys are gathered, too. What an additive score's weight and feature
map get is summed by a fixed number of programs, and then over these, in order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from graphformer.kernels.triton.common import (
    LISTS,
    activate,
    add_terms,
    keep_scale,
    load_features,
    load_head_vectors,
    load_scalars,
    load_vectors,
    pair_scores,
    pair_weight,
    read_ids,
    read_tasks,
    score_bias,
    score_gradient,
    store_own,
)
from graphformer.kernels.triton.row_backward import moves, weight_gradient


@triton.jit(do_not_specialize=["num_tasks"], do_not_specialize_on_alignment=LISTS)
def backward_keys(
    tasks, num_tasks, query, key, value, query_index, key_index, edge_id, relation,
    weight, bias, relation_bias, relation_key, relation_value, edge_attr, edge_query, edge_key, edge_grad,
    grad_out, statistic, delta, seed,
    grad_key, grad_value, grad_bias,
    query_stride, query_head_stride, key_stride, key_head_stride, value_stride, value_head_stride,
    scale: tl.float64, slope: tl.float64, least, grow: tl.float64,
    REAL: tl.constexpr, SCORE: tl.constexpr, NORMALIZER: tl.constexpr, HAS_DROPOUT: tl.constexpr,
    BY_RELATION: tl.constexpr,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, NUM_FEATURES: tl.constexpr,
    D: tl.constexpr, V: tl.constexpr, F: tl.constexpr,
    HEAD_BLOCK: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr, STAGES: tl.constexpr, IS_PIECE: tl.constexpr,
):  # fmt: skip
    """Gradients of keys and values, or, by relation, of the relations' keys, values and biases."""
    scale = tl.full((), scale, REAL)
    slope = tl.full((), slope, REAL)
    grow = tl.full((), grow, REAL)
    task, row, begin, stop, there = read_tasks(tasks, num_tasks, ROWS)
    first_head = tl.program_id(1) * HEAD_BLOCK
    head = first_head + tl.arange(0, HEAD_BLOCK)
    inside = there[:, None] & (head < HEADS)[None, :]  # [R, H]

    w = None
    if weight is not None:
        w = load_head_vectors(weight, head, HEADS, WIDTH, D).to(REAL)
    if not BY_RELATION:
        own = inside[:, None, :]
        own_key = load_vectors(key, row[:, None], head, key_stride, key_head_stride, own, WIDTH, D)
        own_value = load_vectors(value, row[:, None], head, value_stride, value_head_stride, own, VALUE_WIDTH, V)
    moved = tl.zeros((ROWS, STEP, HEAD_BLOCK, D), REAL)
    summed = tl.zeros((ROWS, STEP, HEAD_BLOCK, V), REAL)
    biases = tl.zeros((ROWS, STEP, HEAD_BLOCK), REAL)

    for step in tl.range(0, tl.max(stop - begin, 0).to(tl.int32), STEP, num_stages=STAGES):
        position = begin[:, None] + step + tl.arange(0, STEP)[None, :]
        valid = position < stop[:, None]
        source = tl.load(query_index + position, mask=valid, other=0)
        pair_id, kind = read_ids(position, valid, edge_id, relation)
        if BY_RELATION:  # known without a look
            kind = tl.broadcast_to(row[:, None], position.shape)
        pair_bias, kept = score_bias(
            bias, relation_bias, pair_id, kind, head, valid[:, :, None] & inside[:, None, :], HEADS, REAL
        )
        q = load_vectors(query, source, head, query_stride, query_head_stride, kept, WIDTH, D).to(REAL)
        go = load_vectors(grad_out, source, head, HEADS * VALUE_WIDTH, VALUE_WIDTH, kept, VALUE_WIDTH, V).to(REAL)
        if BY_RELATION:
            node = tl.load(key_index + position, mask=valid, other=0)
            k = load_vectors(key, node, head, key_stride, key_head_stride, kept, WIDTH, D)
            v = load_vectors(value, node, head, value_stride, value_head_stride, kept, VALUE_WIDTH, V)
        else:
            k, v = own_key, own_value
        k = add_terms(
            k, relation_key, kind, edge_attr, edge_key, pair_id, valid, head, kept,
            REAL, HEADS, WIDTH, D, NUM_FEATURES,
        )  # fmt: skip
        v = add_terms(
            v, relation_value, kind, None, None, pair_id, valid, head, kept,
            REAL, HEADS, VALUE_WIDTH, V, NUM_FEATURES,
        )  # fmt: skip
        lse = load_scalars(statistic, source, head, kept, HEADS, 0.0).to(REAL)
        row_delta = tl.zeros(kept.shape, REAL)
        if NORMALIZER == "softmax":
            row_delta = load_scalars(delta, source, head, kept, HEADS, 0.0).to(REAL)
        attr = None
        u = None
        eg = None
        if edge_attr is not None:
            attr = load_features(edge_attr, pair_id, valid, NUM_FEATURES, F).to(REAL)
        if edge_query is not None:
            u = load_vectors(edge_query, source, head, HEADS * NUM_FEATURES, NUM_FEATURES, kept, NUM_FEATURES, F)
            u = u.to(REAL)
        if edge_grad is not None:
            eg = load_vectors(edge_grad, source, head, HEADS * NUM_FEATURES, NUM_FEATURES, kept, NUM_FEATURES, F)
            eg = eg.to(REAL)
        score = pair_scores(q, k, pair_bias, w, u, attr, kept, scale, slope, SCORE, REAL)
        alpha = pair_weight(score, lse, kept, NORMALIZER)
        grad_weight = weight_gradient(go, v, eg, attr)
        dropped = alpha
        if HAS_DROPOUT:
            keep = keep_scale(tl.load(seed), pair_id, head, first_head, least, grow, REAL, HEAD_BLOCK)
            grad_weight *= keep
            dropped = alpha * keep
        gradient = score_gradient(grad_weight, score, alpha, lse, row_delta, NORMALIZER)
        gradient = tl.where(kept, gradient, 0.0)
        if grad_key is not None:
            t = q
            if SCORE != "dot":  # of a removed pair, the key is not zero here, and may be anything
                t = tl.where(kept[:, :, :, None], moves(q, k, w, slope, SCORE), 0.0)
            moved += gradient[:, :, :, None] * t
        if grad_value is not None:
            summed += dropped[:, :, :, None] * go
        if grad_bias is not None:
            biases += gradient

    moved, summed, biases = tl.sum(moved, 1), tl.sum(summed, 1), tl.sum(biases, 1)
    if SCORE == "dot":
        moved *= scale
    target = task if IS_PIECE else row.to(tl.int64)
    if grad_key is not None:
        store_own(grad_key, target, head, inside, moved, HEADS, WIDTH, D)
    if grad_value is not None:
        store_own(grad_value, target, head, inside, summed, HEADS, VALUE_WIDTH, V)
    if grad_bias is not None:
        store_own(grad_bias, target, head, inside, biases[:, :, None], HEADS, 1, 1)


@triton.jit(do_not_specialize=["num_tasks", "num_programs"], do_not_specialize_on_alignment=LISTS)
def backward_shared(
    tasks, num_tasks, num_programs, query, key, value, key_index, edge_id, relation,
    weight, bias, relation_bias, relation_key, relation_value, edge_attr, edge_key, edge_grad,
    grad_out, statistic, delta, seed, part_weight, part_map,
    query_stride, query_head_stride, key_stride, key_head_stride, value_stride, value_head_stride,
    slope: tl.float64, least, grow: tl.float64,
    REAL: tl.constexpr, SCORE: tl.constexpr, NORMALIZER: tl.constexpr, HAS_DROPOUT: tl.constexpr,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, NUM_FEATURES: tl.constexpr,
    D: tl.constexpr, V: tl.constexpr, F: tl.constexpr,
    HEAD_BLOCK: tl.constexpr, STEP: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """What a program's tasks add to the gradients of an additive score's weight and of one feature's map."""
    slope = tl.full((), slope, REAL)
    grow = tl.full((), grow, REAL)
    first_head = tl.program_id(1) * HEAD_BLOCK
    head = first_head + tl.arange(0, HEAD_BLOCK)
    feature = tl.program_id(2)
    head_inside = head < HEADS
    w = None
    if weight is not None:
        w = load_head_vectors(weight, head, HEADS, WIDTH, D).to(REAL)
    weights = tl.zeros((1, STEP, HEAD_BLOCK, D), REAL)
    maps = tl.zeros((1, STEP, HEAD_BLOCK, D), REAL)
    for task in range(tl.program_id(0), num_tasks, num_programs):
        entry = tasks + (task + tl.zeros((1,), tl.int64)) * 3
        row = tl.load(entry)[:, None]
        begin = tl.load(entry + 1).to(tl.int64)[:, None]
        stop = tl.load(entry + 2).to(tl.int64)[:, None]
        inside = head_inside[None, None, :]
        q = load_vectors(query, row, head, query_stride, query_head_stride, inside, WIDTH, D).to(REAL)
        go = load_vectors(grad_out, row, head, HEADS * VALUE_WIDTH, VALUE_WIDTH, inside, VALUE_WIDTH, V).to(REAL)
        lse = load_scalars(statistic, row, head, inside, HEADS, 0.0).to(REAL)
        row_delta = tl.zeros((1, 1, HEAD_BLOCK), REAL)
        if NORMALIZER == "softmax":
            row_delta = load_scalars(delta, row, head, inside, HEADS, 0.0).to(REAL)
        eg = None
        if edge_grad is not None:
            eg = load_vectors(edge_grad, row, head, HEADS * NUM_FEATURES, NUM_FEATURES, inside, NUM_FEATURES, F)
            eg = eg.to(REAL)
        for step in tl.range(0, tl.max(stop - begin).to(tl.int32), STEP, num_stages=STAGES):
            position = begin + step + tl.arange(0, STEP)[None, :]
            valid = position < stop
            node = tl.load(key_index + position, mask=valid, other=0)
            pair_id, kind = read_ids(position, valid, edge_id, relation)
            pair_bias, kept = score_bias(
                bias, relation_bias, pair_id, kind, head, valid[:, :, None] & inside, HEADS, REAL
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
            if edge_grad is not None:
                attr = load_features(edge_attr, pair_id, valid, NUM_FEATURES, F).to(REAL)
            score = pair_scores(q, k, pair_bias, w, None, None, kept, 1.0, slope, SCORE, REAL)
            alpha = pair_weight(score, lse, kept, NORMALIZER)
            grad_weight = weight_gradient(go, v, eg, attr)
            if HAS_DROPOUT:
                grad_weight *= keep_scale(tl.load(seed), pair_id, head, first_head, least, grow, REAL, HEAD_BLOCK)
            gradient = score_gradient(grad_weight, score, alpha, lse, row_delta, NORMALIZER)
            gradient = tl.where(kept, gradient, 0.0)[:, :, :, None]
            if part_weight is not None:
                hidden = tl.where(kept[:, :, :, None], activate(q + k, slope, SCORE), 0.0)
                weights += gradient * hidden
            if part_map is not None:
                own = tl.load(edge_attr + pair_id * NUM_FEATURES + feature, mask=valid, other=0.0).to(REAL)
                t = tl.where(kept[:, :, :, None], moves(q, k, w, slope, SCORE) * own[:, :, None, None], 0.0)
                maps += gradient * t
    column = tl.arange(0, D)
    program = tl.program_id(0).to(tl.int64)
    mask = head_inside[:, None] & (column < WIDTH)
    if part_weight is not None:
        if feature == 0:
            place = (program * HEADS + head[:, None]) * WIDTH + column
            tl.store(part_weight + place, tl.sum(tl.sum(weights, 1), 0), mask=mask)
    if part_map is not None:
        place = ((program * NUM_FEATURES + feature) * HEADS + head[:, None]) * WIDTH + column
        tl.store(part_map + place, tl.sum(tl.sum(maps, 1), 0), mask=mask)
