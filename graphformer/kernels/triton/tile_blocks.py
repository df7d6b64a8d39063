"""What the kernels over runs share: loads of blocks, the walk along a tile's runs, scores, weights, dropout.

Letters of shapes: R rows of the program's tile, S nodes of the other end in a step, D and V the padded widths of a
head's key and value. A program has one tile of one head.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
FAR = tl.constexpr(2**31 - 1)


class Form(NamedTuple):
    """What a kernel is compiled for."""

    heads: int
    width: int
    value_width: int
    D: int  # `width`, padded to a power of two that tensor cores take
    V: int
    rows: int  # R
    step: int  # S
    stages: int
    normalizer: str
    precision: str  # of products of float32, as `tl.dot` takes it
    has_dropout: bool
    heads_first: bool  # whether programs that follow one another share their tile or their head
    needs_query: bool = False
    needs_key: bool = False
    needs_value: bool = False


class Nodes(NamedTuple):
    """Vectors [nodes, heads, width], the last axis contiguous."""

    data: object
    row_stride: object
    head_stride: object


class Runs(NamedTuple):
    """Runs of a side, as in graphs/runs.py."""

    ptr: object  # [rows + 1]
    start: object  # [runs]
    stop: object


class Pairs(NamedTuple):
    """Numbers [heads, E], each head's side by side."""

    data: object
    stride: object


class Terms(NamedTuple):
    """What goes by pairs; None where it is not there."""

    pair_ptr: (
        object  # the first pair of each query [N + 1]; where keys are walked, what its pair with key 0 would be [N]
    )
    bias: object  # Pairs
    relation: object  # [E]
    relation_bias: object  # [R, heads]
    seed: object  # []
    least: object  # smallest draw that is kept
    grow: object  # by what kept weights grow


@triton.jit
def own_tile(num_rows, form: tl.constexpr):
    """The first row and the head of this program's tile.

    Neighbours in time share what they read: with short runs a tile, whose heads share cache lines, with long ones a
    head, whose tiles overlap. There the last tiles go first, as rows of a causal graph grow.
    """
    program, tiles = tl.program_id(0), tl.cdiv(num_rows, form.rows)
    if form.heads_first:
        return program // form.heads * form.rows, program % form.heads
    return (tiles - 1 - program % tiles) * form.rows, program // tiles


@triton.jit
def load_block(
    nodes, head, first, limit, WIDTH: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr, MASKED: tl.constexpr
):
    """Vectors of the nodes from `first` on; of a masked block zeros from `limit` on. Shape [ROWS, PADDED]."""
    row, column = tl.arange(0, ROWS), tl.arange(0, PADDED)
    place = nodes.data + head.to(tl.int64) * nodes.head_stride + tl.cast(first, tl.int64) * nodes.row_stride
    place = place + row.to(tl.int64)[:, None] * nodes.row_stride + column[None, :]
    if MASKED:
        inside = (first + row < limit)[:, None]
        if WIDTH < PADDED:
            inside = inside & (column < WIDTH)[None, :]
        return tl.load(place, mask=inside, other=0.0)
    if WIDTH < PADDED:
        return tl.load(place, mask=(column < WIDTH)[None, :], other=0.0)
    return tl.load(place)


@triton.jit
def store_block(nodes, head, first, limit, values, WIDTH: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr):
    """Write vectors [ROWS, PADDED] of the nodes from `first` on, below `limit`."""
    row, column = tl.arange(0, ROWS), tl.arange(0, PADDED)
    place = nodes.data + head.to(tl.int64) * nodes.head_stride + tl.cast(first, tl.int64) * nodes.row_stride
    place = place + row.to(tl.int64)[:, None] * nodes.row_stride + column[None, :]
    mask = (first + row < limit)[:, None] & (column < WIDTH)[None, :]
    tl.store(place, values.to(nodes.data.dtype.element_ty), mask=mask)


@triton.jit
def count_runs(runs, pair_ptr, row, there):
    """The first run and the number of runs of each row [R], the largest number, and each row's first pair."""
    first = tl.load(runs.ptr + row, mask=there, other=0)
    count = (tl.load(runs.ptr + row + 1, mask=there, other=0) - first).to(tl.int32)
    pair = row.to(tl.int64)
    if pair_ptr is not None:
        pair = tl.load(pair_ptr + row, mask=there, other=0)
    return first, count, tl.max(count, 0), pair


@triton.jit
def load_run(runs, first_run, count, turn):
    """Start and stop [R] of each row's run of this turn; a row that has none starts far away and stops at zero."""
    has = turn < count
    start = tl.load(runs.start + first_run + turn, mask=has, other=FAR).to(tl.int32)
    stop = tl.load(runs.stop + first_run + turn, mask=has, other=0).to(tl.int32)
    return start, stop


@triton.jit
def walk(start, stop, there, STEP: tl.constexpr):
    """How a tile walks its rows' runs: blocks of STEP nodes from `low` on.

    Those in [whole, border) are inside of every row's run. Before them come `left` blocks, behind them so many that all
    `masked` blocks reach `high`.
    """
    low, high = tl.min(start, 0), tl.max(stop, 0)
    latest = tl.minimum(tl.max(tl.where(there, start, 0), 0), high)
    soonest = tl.min(tl.where(there, stop, FAR), 0)
    left = tl.cdiv(latest - low, STEP)
    whole = low + left * STEP
    border = whole + tl.maximum(soonest - whole, 0) // STEP * STEP
    masked = left + tl.cdiv(tl.maximum(high - border, 0), STEP)
    return low, left, whole, border, masked, high


@triton.jit
def masked_block(block, low, left, border, STEP: tl.constexpr):
    """The first node of a masked block."""
    return tl.where(block < left, low + block * STEP, border + (block - left) * STEP)


@triton.jit
def inside_runs(start, stop, column):
    """Which of the nodes [S] lie in each row's run. Shape [R, S]."""
    return (start[:, None] <= column[None, :]) & (column[None, :] < stop[:, None])


@triton.jit
def pair_places(pairs, pair, head):
    """Where the numbers of pairs [R, S] lie."""
    return pairs.data + head.to(tl.int64) * pairs.stride + pair


@triton.jit
def pair_scores(product, inside, pair, terms, head, scale, form: tl.constexpr, MASKED: tl.constexpr):
    """Scores [R, S] of products q . k, -inf where not kept, and which are kept.

    They are in units of ln 2 but for relu, so that powers are of two. A NaN of what is not kept must not stay, so
    scores are chosen, not added to.
    """
    unit: tl.constexpr = 1.0 if form.normalizer == "relu" else LOG2_E
    score = product * (scale * unit)
    kept = inside
    if (terms.bias is not None) or (terms.relation_bias is not None):
        added = tl.zeros(product.shape, tl.float32)
        if terms.bias is not None:
            added += tl.load(pair_places(terms.bias, pair, head), mask=inside, other=0.0).to(tl.float32)
        if terms.relation_bias is not None:
            kind = tl.load(terms.relation + pair, mask=inside, other=0).to(tl.int64)
            place = terms.relation_bias + kind * form.heads + head
            added += tl.load(place, mask=inside, other=0.0).to(tl.float32)
        kept = kept & (added != -float("inf"))
        score += added * unit
    if MASKED or (terms.bias is not None) or (terms.relation_bias is not None):
        score = tl.where(kept, score, -float("inf"))
    return score, kept


@triton.jit
def finite_statistic(statistic):
    """A row's statistic in the scores' unit, 0 for a row without pairs, whose scores are all -inf."""
    return tl.where(statistic == -float("inf"), 0.0, statistic * LOG2_E)


@triton.jit
def pair_weights(score, statistic, form: tl.constexpr):
    """alpha [R, S] of scores, by statistics that broadcast with them; 0 where a score is -inf."""
    if form.normalizer == "softmax":
        return tl.exp2(score - statistic)
    if form.normalizer == "relu":
        return tl.where(score <= 0, 0.0, score) * tl.exp2(-statistic)
    return 1 / (1 + tl.exp2(statistic - score))


@triton.jit
def score_gradients(grad_weight, score, weight, statistic, delta, form: tl.constexpr):
    """The gradient of scores [R, S], from that of the weights; `delta` is the row's sum of weight times gradient."""
    if form.normalizer == "softmax":
        return weight * (grad_weight - delta)
    if form.normalizer == "relu":
        return grad_weight * tl.where(score > 0, tl.exp2(-statistic), 0.0)
    return grad_weight * weight * (1 - weight)


@triton.jit
def is_kept(pair, head, terms):
    """The dropout mask of pairs [R, S] (graphformer/_philox.py)."""
    low, high = (pair & 0xFFFFFFFF).to(tl.uint32), (pair >> 32).to(tl.uint32)
    none = tl.zeros_like(low)
    w0, w1, w2, w3 = tl.philox(tl.load(terms.seed), low, high, none + (head // 4).to(tl.uint32), none)
    word = head % 4
    draw = tl.where(word == 0, w0, tl.where(word == 1, w1, tl.where(word == 2, w2, w3)))
    return draw.to(tl.int64) >= terms.least


@triton.jit
def add_product(total, weight, kept, block, nodes, form: tl.constexpr, CAREFUL: tl.constexpr):
    """`total` [R, D] plus weights [R, S], zero where not kept, by a block [S, D].

    Zero times NaN is NaN. Where a total comes out as no number, its tile is summed again with care: what is not finite
    in the block's `nodes` goes to the pairs that are kept, one node after the other.
    """
    weight = weight.to(block.dtype)
    if not CAREFUL:
        return tl.dot(weight, block, total, input_precision=form.precision)
    finite = (block - block) == 0
    total = tl.dot(weight, tl.where(finite, block, 0.0), total, input_precision=form.precision)
    if tl.min(tl.min(finite.to(tl.int32), 1), 0) == 0:
        node = tl.arange(0, form.step)
        for turn in range(tl.minimum(nodes, form.step)):  # no constant, which the compiler would unroll
            own = node == turn
            vector = tl.sum(tl.where(own[:, None] & (finite == 0), block, 0.0).to(tl.float32), 0)
            factor = tl.sum(tl.where(own[None, :], weight, 0.0).to(tl.float32), 1)
            takes = tl.max(tl.where(own[None, :], kept.to(tl.int32), 0), 1) > 0
            total += tl.where(takes[:, None] & (vector != 0)[None, :], factor[:, None] * vector[None, :], 0.0)
    return total


@triton.jit
def is_spoilt(total, there):
    """Whether a row [R, D] that is there holds what is no finite number."""
    return tl.max(tl.max(((total - total == 0) == 0).to(tl.int32), 1) * there.to(tl.int32), 0) > 0
