// What the row loops share: a block of pairs, their scores, their weights and the gradients of both. A query walks its
// keys (rows_forward.h, and rows_backward.h by query), a key walks its queries (by key); a block knows no difference.
// A long row is walked block by block, short rows share one: what is done pair by pair does not see where rows end.
// The letters follow DESIGN.md section 6.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>

#include "activations.h"
#include "array.h"
#include "heads.h"
#include "inputs.h"
#include "math.h"
#include "philox.h"
#include "problem.h"
#include "schedule.h"

namespace GF_NAMESPACE {

// Heads are padded so that steps of `lanes` numbers, whole vectors, hold whole pairs or a share of one pair.
template <class T>
struct Padding {
    int heads, lanes;
    explicit Padding(int count) : heads(1) {
        while (heads < count && heads < kLanes<T>) heads *= 2;
        if (heads < count) heads = (count + heads - 1) / heads * heads;
        lanes = std::max(heads, kLanes<T>);
    }
};

// The pairs in hand. Rows are where they are stored, or in `built` where they are converted or summed.
template <class T>
struct Block {
    int count = 0, rows = 0;
    int64_t first_row = 0;
    int first[kBlock + 1];  // the pairs of row r of the block are first[r] .. first[r + 1]
    bool has_removed = false;
    const T *query[kBlock], *key[kBlock], *value[kBlock], *grad[kBlock];
    int64_t other[kBlock];               // the node at the other end
    int64_t node[kBlock], edge[kBlock];  // the query and the edge id
    // [kBlock, padded heads]; weight is alpha, scale that of dropout, upstream d alpha, step d score
    Array<T> score, weight, scale, upstream, step, statistic, delta;
    Array<T> by_row, more_by_row;  // [kBlock, padded heads], numbers of the block's rows
    Array<T> built_query, built_key, built_value, built_grad;  // [kBlock, H, width]

    Block(int padded, size_t query_size, size_t value_size)
        : score(kBlock * padded), weight(kBlock * padded), scale(kBlock * padded), upstream(kBlock * padded),
          step(kBlock * padded), statistic(kBlock * padded), delta(kBlock * padded), by_row(kBlock * padded),
          more_by_row(kBlock * padded), built_query(query_size), built_key(query_size), built_value(value_size),
          built_grad(value_size) {}
};

template <class T>
struct Rows {
    const Problem &p;
    const RowsOf side;
    const int H, D, V, F;
    const int P, S;  // padded heads, and the numbers of one step over them
    const bool removes, has_key_extras, builds;
    Block<T> b;
    Array<T> by_head;                // [H], of one pair
    Array<T> ones;                   // [H, D], where the additive score has no weight
    const T *const additive_weight;  // [H, D]
    static constexpr T kInfinity = std::numeric_limits<T>::infinity();

    // Where a walk over the runs of a long row goes on.
    struct {
        int64_t position = -1, run = 0, done = 0;
    } cursor;

    Rows(const Problem &problem, const RowsOf &side)
        : p(problem),
          side(side),
          H(problem.heads),
          D(problem.width),
          V(problem.value_width),
          F(problem.num_features),
          P(Padding<T>(problem.heads).heads),
          S(Padding<T>(problem.heads).lanes),
          removes(problem.bias || problem.relation_bias),
          has_key_extras(problem.relation_key || problem.edge_key),
          builds(problem.input_type >= kBFloat16 || has_key_extras || problem.relation_value),
          b(P, builds ? size_t(kBlock) * H * D : 0, builds ? size_t(kBlock) * H * V : 0),
          by_head(problem.heads),
          ones(p.weight ? 0 : H * D),
          additive_weight(p.weight ? real(p.weight) : ones) {
        std::fill(ones.data(), ones.data() + (p.weight ? 0 : H * D), T(1));
    }

    static const T *real(const void *base) { return static_cast<const T *>(base); }
    static T *real(void *base) { return static_cast<T *>(base); }

    // Visits the steps of the block's numbers: loop(k) for whole vectors that start at k.
    template <class Loop>
    void each_vector(Loop loop) const {
        for (int k = 0; k < b.count * P; k += kLanes<T>) loop(k);
    }

    // use(r, from, to) for every row r of the block and its pairs
    template <class Use>
    void each_row(Use use) const {
        for (int r = 0; r < b.rows; r++) use(r, b.first[r], b.first[r + 1]);
    }

    // ---------------------------------------------------------------- rows of the block

    // Takes up the pairs of a range from `start` on, as many as a block holds.
    void open(const Range &range, int64_t start) {
        b.count = int(std::min<int64_t>(kBlock, range.end - start));
        b.first_row = range.row;
        b.rows = int(range.rows);
        b.first[0] = 0;
        for (int r = 1; r < b.rows; r++) b.first[r] = int(side.ptr[range.row + r] - range.begin);
        b.first[b.rows] = b.count;
        if (!side.run_ptr)
            for (int t = 0; t < b.count; t++) b.other[t] = at(side.index, side.is_wide, start + t);
        else
            each_row([&](int r, int from, int to) { follow_runs(b.first_row + r, start + from, from, to); });
    }

    // The other ends of the pairs from .. to, which a row has from `position` on.
    void follow_runs(int64_t row, int64_t position, int from, int to) {
        if (cursor.position != position) {
            cursor.run = side.run_ptr[row];
            cursor.done = position - side.ptr[row];
        }
        for (int t = from; t < to; cursor.run++) {
            const int64_t start = side.run_start[cursor.run], length = side.run_stop[cursor.run] - start;
            while (cursor.done < length && t < to) b.other[t++] = start + cursor.done++;
            if (cursor.done < length) break;
            cursor.done -= length;
        }
        cursor.position = position + to - from;
    }

    // The rows that the block's pairs have in common.
    void set_own(const void *base, int length, T *built, const T **rows) const {
        each_row([&](int r, int from, int to) {
            T *buffer = builds ? built + r * length : nullptr;
            std::fill(rows + from, rows + to, read_row<T>(base, p.input_type, b.first_row + r, length, buffer));
        });
    }

    void set_own_nodes() {
        each_row([&](int r, int from, int to) { std::fill(b.node + from, b.node + to, b.first_row + r); });
    }

    // The rows of the other ends. Runs need no asking: their rows lie side by side.
    void gather(const void *base, int64_t start, int length, T *built, const T **rows) const {
        for (int t = 0; t < b.count; t++) {
            if (side.index)
                prefetch_row(base, p.input_type, side.index, side.is_wide, start + t + kAhead, p.num_edges, length);
            rows[t] = read_row<T>(base, p.input_type, b.other[t], length, builds ? built + t * length : nullptr);
        }
    }

    // Where the ids are the positions, what belongs to edges is read in order and needs no asking.
    void set_edges(const void *ids, int64_t start) {
        constexpr int32_t type = sizeof(T) == 8 ? kFloat64 : kFloat32;
        for (int t = 0; t < b.count; t++) {
            b.edge[t] = ids ? at(ids, p.wide_id, start + t) : start + t;
            if (ids && p.bias) prefetch_row(p.bias, type, ids, p.wide_id, start + t + kAhead, p.num_edges, H);
            if (ids && F) prefetch_row(p.edge_attr, type, ids, p.wide_id, start + t + kAhead, p.num_edges, F);
        }
    }

    // use(n) with the number of heads that one vector holds, known to the compiler.
    template <class Use>
    GF_INLINE void with_columns(Use use) const {
        switch (std::min(P, kLanes<T>)) {
            case 1: return use(std::integral_constant<int, 1>());
            case 2: return use(std::integral_constant<int, 2>());
            case 4: return use(std::integral_constant<int, 4>());
            case 8: return use(std::integral_constant<int, 8>());
            default: return use(std::integral_constant<int, kLanes<T>>());
        }
    }

    // Numbers of nodes [.., H] from row `first` on, for the block's rows [rows, padded heads].
    void read_rows(const T *numbers, int64_t first, T *by_row) const {
        for (int r = 0; r < b.rows; r++)
            for (int h = 0; h < H; h++) by_row[r * P + h] = numbers[(first + r) * H + h];
    }

    // Numbers of the block's rows [rows, padded heads] for each of their pairs [kBlock, padded heads].
    void repeat(const T *by_row, T *by_pair) const {
        with_columns([&](auto n) {
            using V = Vector<T, n>;
            for (int first = 0; first < P; first += n)
                each_row([&](int r, int from, int to) {
                    const V row = load<V>(by_row + r * P + first);
                    for (int t = from; t < to; t++) std::memcpy(by_pair + t * P + first, &row, sizeof(V));
                });
        });
    }

    // by_row[r] = op over the pairs of row r, head by head; op takes scalars and vectors.
    template <class Op>
    void fold_rows(const T *by_pair, T start, T *by_row, Op op) const {
        with_columns([&](auto n) {
            using V = Vector<T, n>;
            for (int first = 0; first < P; first += n)
                each_row([&](int r, int from, int to) {
                    V sum = V{} + start;
                    for (int t = from; t < to; t++) sum = op(sum, load<V>(by_pair + t * P + first));
                    std::memcpy(by_row + r * P + first, &sum, sizeof(V));
                });
        });
    }

    // k[j] + relation_key + a @ edge_key (the last for the additive score)
    void add_key_extras() {
        if (!has_key_extras) return;
        const int n = H * D;
        for (int t = 0; t < b.count; t++) {
            T *sum = b.built_key + t * n;
            if (b.key[t] != sum) std::copy(b.key[t], b.key[t] + n, sum);
            b.key[t] = sum;
            const int64_t e = b.edge[t];
            if (p.relation_key) add_scaled(sum, T(1), real(p.relation_key) + int64_t(p.relation[e]) * n, n);
            if (!p.edge_key) continue;
            for (int f = 0; f < F; f++)
                add_scaled(sum, real(p.edge_attr)[e * F + f], real(p.edge_key) + int64_t(f) * n, n);
        }
    }

    // v[j] + relation_value; the edge features' part is taken through edge_sum and edge_grad
    void add_value_extras() {
        if (!p.relation_value) return;
        const int n = H * V;
        for (int t = 0; t < b.count; t++) {
            T *sum = b.built_value + t * n;
            const T *table = real(p.relation_value) + int64_t(p.relation[b.edge[t]]) * n;
            for (int c = 0; c < n; c++) sum[c] = b.value[t][c] + table[c];
            b.value[t] = sum;
        }
    }

    // ---------------------------------------------------------------- scores

    // use(activation) with the additive score's own
    template <class Use>
    void with_activation(Use use) const {
        if (p.score == kTanh) use(Tanh<T>{});
        else use(LeakyRelu<T>{T(p.slope)});
    }

    T bias_of(int64_t e, int h) const {
        T sum = 0;
        if (p.bias) sum += real(p.bias)[e * H + h];
        if (p.relation_bias) sum += real(p.relation_bias)[int64_t(p.relation[e]) * H + h];
        return sum;
    }

    // out[t, h] += of_node[node, h] . attr[edge], for numbers of nodes [N, H, F]
    void add_features(const T *of_node, T *out) {
        switch (F) {
            case 1: return add_features_of<1>(of_node, out);
            case 2: return add_features_of<2>(of_node, out);
            case 4: return add_features_of<4>(of_node, out);
            case 8: return add_features_of<8>(of_node, out);
        }
        for (int t = 0; t < b.count; t++)
            for (int h = 0; h < H; h++)
                out[t * P + h] += dot(of_node + (b.node[t] * H + h) * F, real(p.edge_attr) + b.edge[t] * F, F);
    }

    // The same for features that repeat within a vector, so that one takes several heads.
    template <int W>
    void add_features_of(const T *of_node, T *out) {
        T repeated[std::max(W, kLanes<T>)];
        for (int t = 0; t < b.count; t++) {
            const T *attr = real(p.edge_attr) + b.edge[t] * W, *row = of_node + b.node[t] * H * W;
            for (int l = 0; l < std::max(W, kLanes<T>); l++) repeated[l] = attr[l % W];
            dot_row<W, kLanes<T>>(row, row, 0, H, by_head.data(), WithRepeated<T>{repeated, W});
            for (int h = 0; h < H; h++) out[t * P + h] += by_head[h];
        }
    }

    void block_scores() {
        T *score = b.score;
        if (p.score == kDot) {
            const T scale = T(p.scale);
            dot_heads(b.query, b.key, b.count, H, D, score, P);
            if (p.edge_query) add_features(real(p.edge_query), score);
            each_vector([&](int k) {
#pragma omp simd
                for (int l = k; l < k + kLanes<T>; l++) score[l] *= scale;
            });
        } else {
            with_activation([&](auto f) {
                dot_heads(b.query, b.key, b.count, H, D, score, P, ScoreTerm<T, decltype(f)>{f, additive_weight});
            });
        }
        b.has_removed = false;
        if (removes) add_bias();
    }

    void add_bias() {
        T *score = b.score, *bias = b.weight;  // the weights come later
        for (int t = 0; t < b.count; t++) {
            const T *own = p.bias ? real(p.bias) + b.edge[t] * H : nullptr;
            const T *table = p.relation_bias ? real(p.relation_bias) + int64_t(p.relation[b.edge[t]]) * H : nullptr;
            for (int h = 0; h < H; h++) {
                const T sum = (own ? own[h] : T(0)) + (table ? table[h] : T(0));
                b.has_removed |= sum == -kInfinity;
                bias[t * P + h] = sum;
            }
        }
        each_vector([&](int k) {
#pragma omp simd
            for (int l = k; l < k + kLanes<T>; l++) score[l] = bias[l] == -kInfinity ? -kInfinity : score[l] + bias[l];
        });
    }

    bool is_removed(int t, int h) const { return b.has_removed && b.score[t * P + h] == -kInfinity; }

    void clear_removed(T *numbers) const {
        if (!b.has_removed) return;
        for (int t = 0; t < b.count; t++)
            for (int h = 0; h < H; h++)
                if (is_removed(t, h)) numbers[t * P + h] = 0;
    }

    // For relu and sigmoid: log of the number of pairs that are not removed.
    void count_row(const void *ids, int64_t begin, int64_t end, T *statistic) const {
        for (int h = 0; h < H; h++) {
            int64_t count = end - begin;
            if (removes) {
                count = 0;
                for (int64_t t = begin; t < end; t++)
                    count += bias_of(ids ? at(ids, p.wide_id, t) : t, h) != -kInfinity;
            }
            statistic[h] = count ? std::log(T(count)) : -kInfinity;
        }
    }

    // ---------------------------------------------------------------- weights

    // alpha from the scores and the rows' statistics
    void block_weights() {
        const T *score = b.score, *statistic = b.statistic;
        T *weight = b.weight;
        if (p.normalizer == kSoftmax) {
            each_vector([&](int k) {
#pragma omp simd
                for (int l = k; l < k + kLanes<T>; l++)
                    weight[l] = exponential(score[l] - (statistic[l] == -kInfinity ? T(0) : statistic[l]));
            });
        } else if (p.normalizer == kRelu) {
            each_vector([&](int k) {
#pragma omp simd
                for (int l = k; l < k + kLanes<T>; l++)
                    weight[l] = (score[l] > 0 || score[l] != score[l] ? score[l] : T(0)) * exponential(-statistic[l]);
            });
        } else {
            each_vector([&](int k) {
#pragma omp simd
                for (int l = k; l < k + kLanes<T>; l++) weight[l] = 1 / (1 + exponential(statistic[l] - score[l]));
            });
        }
        clear_removed(weight);
    }

    // 1 / (1 - p) for what dropout keeps, else 0
    void block_dropout() {
        const uint64_t threshold = uint64_t(p.dropout * 4294967296.0);
        const T grow = T(1 / (1 - p.dropout));
        uint32_t draws[4][kBlock];
        for (int group = 0; 4 * group < H; group++) {
#pragma omp simd
            for (int t = 0; t < b.count; t++) {
                uint32_t draw[4];
                philox(p.seed, uint64_t(b.edge[t]), uint32_t(group), draw);
                for (int word = 0; word < 4; word++) draws[word][t] = draw[word];
            }
            for (int h = 4 * group; h < std::min(4 * group + 4, H); h++)
                for (int t = 0; t < b.count; t++) b.scale[t * P + h] = draws[h % 4][t] >= threshold ? grow : T(0);
        }
    }

    void apply_dropout(T *numbers) const {
        const T *scale = b.scale;
        each_vector([&](int k) {
#pragma omp simd
            for (int l = k; l < k + kLanes<T>; l++) numbers[l] *= scale[l];
        });
    }

    // sum [H, width] += weights times term(x, y) over the pairs from .. to, without those of removed ones
    template <class Term = Second>
    void add_rows(T *sum, const T *weight, const T *const *x, const T *const *y, int width, int from, int to,
                  const Term &term = {}) const {
        if (!b.has_removed) return add_heads(sum, weight + from * P, P, x + from, y + from, to - from, H, width, term);
        for (int t = from; t < to; t++)
            for (int h = 0; h < H; h++)
                if (!is_removed(t, h)) add_head(sum, weight[t * P + h], x[t], y[t], h, width, term);
    }

    // ---------------------------------------------------------------- gradients of weights and scores

    // d alpha, dropout taken in
    void block_upstream() {
        T *upstream = b.upstream;
        dot_heads(b.grad, b.value, b.count, H, V, upstream, P);
        if (p.edge_grad) add_features(real(p.edge_grad), upstream);
        if (p.has_dropout) apply_dropout(upstream);
        clear_removed(upstream);
    }

    // d score from alpha, d alpha and the rows' deltas
    void block_steps() {
        const T *score = b.score, *weight = b.weight, *upstream = b.upstream;
        const T *statistic = b.statistic, *delta = b.delta;
        T *step = b.step;
        if (p.normalizer == kSoftmax) {
            each_vector([&](int k) {
#pragma omp simd
                for (int l = k; l < k + kLanes<T>; l++) step[l] = weight[l] * (upstream[l] - delta[l]);
            });
        } else if (p.normalizer == kRelu) {
            each_vector([&](int k) {
#pragma omp simd
                for (int l = k; l < k + kLanes<T>; l++)
                    step[l] = upstream[l] * (score[l] > 0 ? exponential(-statistic[l]) : T(0));
            });
        } else {
            each_vector([&](int k) {
#pragma omp simd
                for (int l = k; l < k + kLanes<T>; l++) step[l] = upstream[l] * weight[l] * (1 - weight[l]);
            });
        }
        clear_removed(step);
    }

    // What d score of the pairs from .. to gives to `sum`, the gradient of query or key, before scale_steps; `other`:
    // the rows of key or query.
    void add_steps(T *sum, const T *const *other, int from, int to) const {
        if (p.score == kDot) return add_rows(sum, b.step, other, other, D, from, to);
        with_activation([&](auto f) { add_rows(sum, b.step, b.query, b.key, D, from, to, SlopeTerm<decltype(f)>{f}); });
    }

    // The factor that all pairs of a row share: the scale of the dot score, or the weight of the additive one, whose
    // NaN must not reach a row without pairs.
    void scale_steps(T *sum) const {
        if (p.score == kDot)
            for (int c = 0; c < H * D; c++) sum[c] *= T(p.scale);
        else
            for (int c = 0; c < H * D; c++) sum[c] = sum[c] == 0 ? T(0) : sum[c] * additive_weight[c];
    }
};

}  // namespace GF_NAMESPACE
