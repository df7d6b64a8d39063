"""What the kernels of this package share: loads of whole rows, biases, weights, the dropout mask.

Letters of shapes: R rows in a program, S pairs of each in a step, H heads of the program, D and V the padded widths of
a head's key and value, F the padded number of edge features. A pair's number is its position; its id may be another.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
# Read from wherever a row begins, so that it is no matter how they are aligned, and views of them compile nothing anew.
LISTS = ("tasks", "key_index", "query_index", "edge_id", "relation", "seed")


@triton.jit
def load_vectors(nodes, node, head, node_stride, head_stride, kept, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """The vectors of `node` [R, S] for each head [H], zero where not kept [R, S, H]. Shape [R, S, H, D]."""
    column = tl.arange(0, PADDED)
    first = node.to(tl.int64)[:, :, None] * node_stride + head.to(tl.int64)[None, None, :] * head_stride
    return tl.load(nodes + first[:, :, :, None] + column, mask=kept[:, :, :, None] & (column < WIDTH), other=0.0)


@triton.jit
def load_own(rows, row, head, inside, HEADS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Contiguous rows [N, HEADS, WIDTH] of the program's own nodes, zero where not inside [R, H]. Shape [R, H, D]."""
    column = tl.arange(0, PADDED)
    first = (row.to(tl.int64)[:, None] * HEADS + head[None, :]) * WIDTH
    return tl.load(rows + first[:, :, None] + column, mask=inside[:, :, None] & (column < WIDTH), other=0.0)


@triton.jit
def store_own(rows, row, head, inside, values, HEADS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Write [R, H, D] to contiguous rows [N, HEADS, WIDTH] where inside [R, H]."""
    column = tl.arange(0, PADDED)
    first = (row.to(tl.int64)[:, None] * HEADS + head[None, :]) * WIDTH
    mask = inside[:, :, None] & (column < WIDTH)
    tl.store(rows + first[:, :, None] + column, values.to(rows.dtype.element_ty), mask=mask)


@triton.jit
def load_head_vectors(table, head, HEADS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """The vectors of a table [HEADS, WIDTH] for each head [H]. Shape [H, D]."""
    column = tl.arange(0, PADDED)
    mask = (head < HEADS)[:, None] & (column < WIDTH)[None, :]
    return tl.load(table + head[:, None] * WIDTH + column[None, :], mask=mask, other=0.0)


@triton.jit
def load_scalars(numbers, row, head, inside, HEADS: tl.constexpr, otherwise):
    """Numbers [N, HEADS] of nodes, pairs or relations [R, S] for each head [H]. Shape [R, S, H]."""
    first = row.to(tl.int64)[:, :, None] * HEADS + head[None, None, :]
    return tl.load(numbers + first, mask=inside, other=otherwise)


@triton.jit
def load_features(edge_attr, pair_id, valid, NUM_FEATURES: tl.constexpr, FEATURES: tl.constexpr):
    """The edge features of each pair [R, S]. Shape [R, S, F]."""
    feature = tl.arange(0, FEATURES)
    mask = valid[:, :, None] & (feature < NUM_FEATURES)
    return tl.load(edge_attr + pair_id[:, :, None] * NUM_FEATURES + feature, mask=mask, other=0.0)


@triton.jit
def add_map(
    total, edge_attr, edge_map, pair_id, valid, head, head_inside,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, NUM_FEATURES: tl.constexpr,
):  # fmt: skip
    """`total` [R, S, H, D] plus the pair's features by the map [NUM_FEATURES, HEADS, WIDTH]."""
    column = tl.arange(0, PADDED)
    for feature in range(NUM_FEATURES):
        attr = tl.load(edge_attr + pair_id * NUM_FEATURES + feature, mask=valid, other=0.0).to(total.dtype)
        place = (feature * HEADS + head[:, None]) * WIDTH + column
        row = tl.load(edge_map + place, mask=head_inside[:, None] & (column < WIDTH), other=0.0).to(total.dtype)
        total += attr[:, :, None, None] * row[None, None, :, :]
    return total


@triton.jit
def read_tasks(tasks, num_tasks, ROWS: tl.constexpr):
    """The program's ROWS entries of a work list: row, first position, one past the last, and which there are."""
    task = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    there = task < num_tasks
    row = tl.load(tasks + task * 3, mask=there, other=0).to(tl.int64)
    begin = tl.load(tasks + task * 3 + 1, mask=there, other=0).to(tl.int64)
    stop = tl.load(tasks + task * 3 + 2, mask=there, other=0).to(tl.int64)
    return task, row, begin, stop, there


@triton.jit
def read_ids(position, valid, edge_id, relation):
    """The ids of the pairs at positions [R, S], and their relations (zero without any)."""
    pair_id = position
    if edge_id is not None:
        pair_id = tl.load(edge_id + position, mask=valid, other=0).to(tl.int64)
    kind = tl.zeros_like(pair_id)
    if relation is not None:
        kind = tl.load(relation + pair_id, mask=valid, other=0).to(tl.int64)
    return pair_id, kind


@triton.jit
def add_terms(
    vectors, table, kind, edge_attr, edge_map, pair_id, valid, head, kept,
    REAL: tl.constexpr, HEADS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr, NUM_FEATURES: tl.constexpr,
):  # fmt: skip
    """Nodes' vectors [R, 1 or S, H, D] and what the pairs [R, S] add: the relation's vector, features by a map."""
    total = vectors.to(REAL)
    if table is not None:
        total = total + load_vectors(table, kind, head, HEADS * WIDTH, WIDTH, kept, WIDTH, PADDED).to(REAL)
    if edge_map is not None:
        total = tl.broadcast_to(total, (kept.shape[0], kept.shape[1], kept.shape[2], PADDED))
        total = add_map(
            total, edge_attr, edge_map, pair_id, valid, head, head < HEADS, HEADS, WIDTH, PADDED, NUM_FEATURES
        )
    return total


@triton.jit
def keep_scale(
    seed, pair_id, head, first_head, least, grow, REAL: tl.constexpr, HEAD_BLOCK: tl.constexpr
):  # fmt: skip
    """m / (1 - p) of each pair [R, S] and head [H]: 0 where dropped, `grow` elsewhere. Shape [R, S, H].

    A draw gives words for four heads; a block of at least four heads makes each draw once.
    """
    low, high = (pair_id & 0xFFFFFFFF).to(tl.uint32), (pair_id >> 32).to(tl.uint32)
    if HEAD_BLOCK >= 4:
        group = (first_head // 4 + tl.arange(0, HEAD_BLOCK // 4)).to(tl.uint32)[None, None, :]
        none = tl.zeros_like(group)
        low, group = tl.broadcast(low[:, :, None], group)
        high, none = tl.broadcast(high[:, :, None], none)
        w0, w1, w2, w3 = tl.philox(seed, low, high, group, none)
        words = tl.join(tl.join(w0, w2), tl.join(w1, w3))
        words = tl.reshape(words, (words.shape[0], words.shape[1], HEAD_BLOCK))
    else:
        group = (head // 4).to(tl.uint32)[None, None, :]
        none = tl.zeros_like(group)
        low, group = tl.broadcast(low[:, :, None], group)
        high, none = tl.broadcast(high[:, :, None], none)
        w0, w1, w2, w3 = tl.philox(seed, low, high, group, none)
        word = (head % 4)[None, None, :]
        words = tl.where(word == 0, w0, tl.where(word == 1, w1, tl.where(word == 2, w2, w3)))
    return tl.where(words.to(tl.uint32) >= least, grow, 0.0).to(REAL)


@triton.jit
def activate(inner, slope, SCORE: tl.constexpr):
    """f of the additive score."""
    if SCORE == "tanh":
        return 1 - 2 / (1 + tl.exp(2 * inner))
    return tl.where(inner < 0, inner * slope, inner)


@triton.jit
def slope_of(inner, slope, SCORE: tl.constexpr):
    """The derivative of f; of leaky_relu at zero, the slope, as torch has it."""
    if SCORE == "tanh":
        hidden = activate(inner, slope, SCORE)
        return 1 - hidden * hidden
    return tl.where(inner > 0, 1.0, slope).to(inner.dtype)


@triton.jit
def score_bias(bias, relation_bias, pair_id, relation, head, inside, HEADS: tl.constexpr, REAL: tl.constexpr):
    """bias + relation_bias [R, S, H], and which pairs and heads are not removed by it."""
    total = tl.zeros(inside.shape, REAL)
    if bias is not None:
        total += load_scalars(bias, pair_id, head, inside, HEADS, 0.0).to(REAL)
    if relation_bias is not None:
        total += load_scalars(relation_bias, relation, head, inside, HEADS, 0.0).to(REAL)
    return total, inside & (total != -float("inf"))


@triton.jit
def pair_scores(
    query, key, bias, weight, edge_query, attr, kept, scale, slope, SCORE: tl.constexpr, REAL: tl.constexpr
):  # fmt: skip
    """The score [R, S, H], -inf where not kept, of queries and keys that broadcast to [R, S, H, D].

    `weight` [H, D] is of an additive score; `edge_query` [R, 1 or S, H, F] what `attr` [R, S, F] is multiplied by.
    """
    if SCORE == "dot":
        score = tl.sum(query * key, 3) * scale
        if edge_query is not None:
            score += tl.sum(edge_query * attr[:, :, None, :], 3) * scale
    else:
        hidden = activate(query + key, slope, SCORE)
        if weight is not None:
            hidden = hidden * weight[None, None, :, :]
        score = tl.sum(hidden, 3)
    return tl.where(kept, score + bias, -float("inf"))


@triton.jit
def pair_weight(score, statistic, kept, NORMALIZER: tl.constexpr):
    """alpha [R, S, H] of scores by the rows' statistic, zero where not kept, and where a score overflowed to -inf."""
    if NORMALIZER == "softmax":
        weight = tl.exp2((score - statistic) * LOG2_E)
    elif NORMALIZER == "relu":
        weight = tl.where(score < 0, 0.0, score) * tl.exp2(-statistic * LOG2_E)
    else:
        weight = 1 / (1 + tl.exp2((statistic - score) * LOG2_E))
    return tl.where(kept & (score != -float("inf")), weight, 0.0)


@triton.jit
def score_gradient(grad_weight, score, weight, statistic, delta, NORMALIZER: tl.constexpr):
    """The gradient of the score, from that of the weight; `delta` is the row's sum of weight times gradient."""
    if NORMALIZER == "softmax":
        return weight * (grad_weight - delta)
    if NORMALIZER == "relu":
        return grad_weight * tl.where(score > 0, tl.exp2(-statistic * LOG2_E), 0.0)
    return grad_weight * weight * (1 - weight)
