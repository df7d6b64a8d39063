// The backward pass by rows, without atomics: a query walks its keys for everything that belongs to queries, edges and
// tables; then a key walks its queries for the gradients of key and value.
#pragma once
#include "rows.h"
#include "schedule.h"

namespace GF_NAMESPACE {

// What part of a query's row adds up to.
template <class T>
struct QueryGrads {
    T *query, *edge_query, *edge_sum;  // [H, D], [H, F], [H, F]; may be null
};

template <class T>
struct QueryRows : Rows<T> {
    using Base = Rows<T>;
    using Base::b, Base::D, Base::F, Base::H, Base::P, Base::p, Base::real, Base::V;
    const bool wants_values, wants_pairs;
    Array<T> own_query, own_grad, inner;

    explicit QueryRows(const Problem &problem)
        : Base(problem),
          wants_values(p.edge_sum || p.grad_relation_value || (p.grad_edge_attr && p.edge_grad)),
          wants_pairs(wants_values || p.grad_bias || p.grad_relation_bias || p.grad_relation_key || p.grad_edge_attr ||
                      p.grad_edge_query || p.grad_edge_key),
          own_query(H * D),
          own_grad(H * V),
          inner(D) {}

    T *pair(int64_t i) const { return real(p.delta) + 2 * i * H; }

    void start_row(int64_t i) {
        const T *query = read_row<T>(p.query, p.input_type, i, H * D, own_query.start);
        const T *grad = read_row<T>(p.grad_out, p.input_type, i, H * V, own_grad.start);
        std::fill(b.query, b.query + kBlock, query);
        std::fill(b.grad, b.grad + kBlock, grad);
        std::fill(b.node, b.node + kBlock, i);
    }

    // alpha and d alpha of a block of pairs
    void load_block(const Range &range, int64_t start) {
        b.count = int(std::min<int64_t>(kBlock, range.end - start));
        this->set_edges(p.edge_id, start);
        this->gather(p.key, p.key_index, start, H * D, b.built_key, b.key);
        this->gather(p.value, p.key_index, start, H * V, b.built_value, b.value);
        this->add_key_extras();
        this->add_value_extras();
        this->block_scores();
        this->repeat(real(p.statistic) + range.row * H, b.statistic);
        this->block_weights();
        if (p.has_dropout) this->block_dropout();
        this->block_upstream();
    }

    // delta = grad . out
    void delta_from_total(int64_t i, T *delta) {
        const T *total = real(p.total) + i * H * V;
        dot_heads(b.grad, &total, 1, H, V, delta, H);
    }

    // delta = sum of alpha d alpha, the same but for a result that was rounded
    void delta_from_pairs(const Range &range, T *delta) {
        std::fill(delta, delta + H, T(0));
        for (int64_t start = range.begin; start < range.end; start += kBlock) {
            load_block(range, start);
            for (int t = 0; t < b.count; t++)
                for (int h = 0; h < H; h++) delta[h] += b.weight[t * P + h] * b.upstream[t * P + h];
        }
    }

    // The gradients of a range, whose row's delta is known; `is_loaded` where its only block is in hand.
    void run(const Range &range, const QueryGrads<T> &sums, const T *delta, int64_t chunk, bool is_loaded) {
        if (sums.query) std::fill(sums.query, sums.query + H * D, T(0));
        if (sums.edge_query) std::fill(sums.edge_query, sums.edge_query + H * F, T(0));
        if (sums.edge_sum) std::fill(sums.edge_sum, sums.edge_sum + H * F, T(0));
        for (int64_t start = range.begin; start < range.end; start += kBlock) {
            if (!is_loaded) load_block(range, start);
            this->repeat(delta, b.delta);
            this->block_steps();
            if (sums.query) this->add_steps(sums.query, b.key);
            if (p.grad_weight)
                this->with_activation([&](auto f) {
                    T *table = real(p.grad_weight) + chunk * H * D;
                    this->add_rows(table, b.step, b.query, b.key, D, ValueTerm<decltype(f)>{f});
                });
            if (!wants_pairs) continue;
            for (int t = 0; t < b.count; t++) spread_pair(t, range.row, chunk, sums);
        }
        if (sums.query) this->scale_steps(sums.query);
    }

    // What one pair adds beyond the plain gradient of its query.
    void spread_pair(int t, int64_t i, int64_t chunk, const QueryGrads<T> &sums) {
        const int64_t e = b.edge[t], r = p.relation ? p.relation[e] : 0, table = (chunk * p.num_relations + r) * H;
        const T *attr = F ? real(p.edge_attr) + e * F : nullptr;
        T *grad_attr = p.grad_edge_attr ? real(p.grad_edge_attr) + e * F : nullptr;
        if (grad_attr) std::fill(grad_attr, grad_attr + F, T(0));
        for (int h = 0; h < H; h++) {
            const T g = b.step[t * P + h];
            if (p.grad_bias) real(p.grad_bias)[e * H + h] = g;
            if (this->is_removed(t, h)) continue;
            if (p.grad_relation_bias) real(p.grad_relation_bias)[table + h] += g;
            if (wants_values) {
                const T kept = p.has_dropout ? b.weight[t * P + h] * b.scale[t * P + h] : b.weight[t * P + h];
                if (sums.edge_sum) add_scaled(sums.edge_sum + h * F, kept, attr, F);
                if (p.grad_relation_value)
                    add_scaled(real(p.grad_relation_value) + (table + h) * V, kept, b.grad[t] + h * V, V);
                if (grad_attr && p.edge_grad) add_scaled(grad_attr, kept, real(p.edge_grad) + (i * H + h) * F, F);
            }
            if (p.score != kDot) {
                additive_pair(t, h, chunk, table, attr, grad_attr);
                continue;
            }
            const T step = g * T(p.scale);
            if (p.grad_relation_key)
                add_scaled(real(p.grad_relation_key) + (table + h) * D, step, b.query[t] + h * D, D);
            if (sums.edge_query) add_scaled(sums.edge_query + h * F, step, attr, F);
            if (grad_attr && p.edge_query) add_scaled(grad_attr, step, real(p.edge_query) + (i * H + h) * F, F);
        }
    }

    void additive_pair(int t, int h, int64_t chunk, int64_t table, const T *attr, T *grad_attr) {
        if (!(p.grad_relation_key || p.grad_edge_key || (grad_attr && p.edge_key))) return;
        T *step = inner;  // the gradient of q + k
        this->with_activation([&](auto f) {
            const T g = b.step[t * P + h];
            for (int c = h * D; c < (h + 1) * D; c++)
                step[c - h * D] = g * this->additive_weight[c] * f.slope(b.query[t][c] + b.key[t][c]);
        });
        if (p.grad_relation_key) add_scaled(real(p.grad_relation_key) + (table + h) * D, T(1), step, D);
        if (!p.edge_key) return;
        for (int f = 0; f < F; f++) {
            if (p.grad_edge_key) add_scaled(real(p.grad_edge_key) + ((chunk * F + f) * H + h) * D, attr[f], step, D);
            if (grad_attr) grad_attr[f] += dot(step, real(p.edge_key) + (int64_t(f) * H + h) * D, D);
        }
    }
};

template <class T>
struct KeyRows : Rows<T> {
    using Base = Rows<T>;
    using Base::b, Base::D, Base::F, Base::H, Base::P, Base::p, Base::real, Base::V;
    Array<T> own_key, own_value;

    explicit KeyRows(const Problem &problem) : Base(problem), own_key(H * D), own_value(H * V) {}

    void run(const Range &range, T *grad_key, T *grad_value) {
        if (grad_key) std::fill(grad_key, grad_key + H * D, T(0));
        if (grad_value) std::fill(grad_value, grad_value + H * V, T(0));
        const T *key = read_row<T>(p.key, p.input_type, range.row, H * D, own_key.start);
        const T *value = read_row<T>(p.value, p.input_type, range.row, H * V, own_value.start);
        for (int64_t start = range.begin; start < range.end; start += kBlock) {
            b.count = int(std::min<int64_t>(kBlock, range.end - start));
            std::fill(b.key, b.key + kBlock, key);
            std::fill(b.value, b.value + kBlock, value);
            load_block(start);
            if (p.has_dropout) this->block_dropout();
            if (grad_key) {
                this->block_upstream();
                this->block_steps();
                this->add_steps(grad_key, b.query);
            }
            if (!grad_value) continue;
            if (p.has_dropout) this->apply_dropout(b.weight);
            this->add_rows(grad_value, b.weight, b.grad, b.grad, V);
        }
        if (grad_key) this->scale_steps(grad_key);
    }

    // alpha of a block of pairs
    void load_block(int64_t start) {
        for (int t = 0; t < b.count; t++) {
            prefetch_row(p.delta, sizeof(T) == 8 ? kFloat64 : kFloat32, p.query_index, p.wide_index, start + t + kAhead,
                         p.num_edges, 2 * H);
            b.node[t] = at(p.query_index, p.wide_index, start + t);
            const T *pair = real(p.delta) + 2 * b.node[t] * H;
            for (int h = 0; h < H; h++) {
                b.statistic[t * P + h] = pair[h];
                b.delta[t * P + h] = pair[H + h];
            }
        }
        this->set_edges(p.key_edge_id, start);
        this->gather(p.query, p.query_index, start, H * D, b.built_query, b.query);
        this->gather(p.grad_out, p.query_index, start, H * V, b.built_grad, b.grad);
        this->add_key_extras();
        this->add_value_extras();
        this->block_scores();
        this->block_weights();
    }
};

template <class T>
T *shifted(void *base, int64_t offset) {
    return base ? static_cast<T *>(base) + offset : nullptr;
}

template <class T>
void rows_backward_by_query(const Problem &p) {
    const int64_t H = p.heads, hd = H * p.width, hf = H * p.num_features;
    const auto output = [&](int64_t i) {
        return QueryGrads<T>{shifted<T>(p.grad_query, i * hd), shifted<T>(p.grad_edge_query, i * hf),
                             shifted<T>(p.edge_sum, i * hf)};
    };
    const auto recorded = [&](T *record) {
        return QueryGrads<T>{p.grad_query ? record : nullptr, p.grad_edge_query ? record + hd : nullptr,
                             p.edge_sum ? record + hd + hf : nullptr};
    };
    const bool softmax = p.normalizer == kSoftmax, sums_delta = softmax && !p.total;
    LongRows<T> long_rows(by_query(p), hd + 2 * hf);
    LongRows<T> deltas(sums_delta ? by_query(p) : RowsOf{}, H);
    // First the statistics and deltas of all rows, but the deltas of short ones that need their pairs.
    for_ranges<QueryRows<T>>(p, by_query(p), [&](auto &rows, const Range &range, int64_t) {
        T *pair = rows.pair(range.row);
        const T *statistic = static_cast<const T *>(p.statistic) + range.row * H;
        if (range.part == 0) std::copy(statistic, statistic + H, pair);
        if (range.part == 0 && !sums_delta) {
            if (softmax) { rows.start_row(range.row); rows.delta_from_total(range.row, pair + H); }
            else std::fill(pair + H, pair + 2 * H, T(0));
        }
        if (!sums_delta || range.parts == 1) return;
        rows.start_row(range.row);
        rows.delta_from_pairs(range, deltas.record(range));
    });
    for (size_t place = 0; place < deltas.row.size(); place++) {
        const T *delta = deltas.merge(place, [&](T *sum, const T *other) { add_scaled(sum, T(1), other, int(H)); });
        std::copy(delta, delta + H, static_cast<T *>(p.delta) + (2 * deltas.row[place] + 1) * H);
    }
    for_ranges<QueryRows<T>>(p, by_query(p), [&](auto &rows, const Range &range, int64_t chunk) {
        T *delta = rows.pair(range.row) + H;
        rows.start_row(range.row);
        if (range.parts > 1) return rows.run(range, recorded(long_rows.record(range)), delta, chunk, false);
        if (sums_delta) rows.delta_from_pairs(range, delta);
        const bool is_loaded = sums_delta && range.end - range.begin <= kBlock;
        rows.run(range, output(range.row), delta, chunk, is_loaded);
    });
    for (size_t place = 0; place < long_rows.row.size(); place++) {
        const auto add = [&](T *sum, const T *other) { add_scaled(sum, T(1), other, int(hd + 2 * hf)); };
        T *sum = long_rows.merge(place, add);
        const QueryGrads<T> from = recorded(sum), to = output(long_rows.row[place]);
        if (to.query) std::copy(from.query, from.query + hd, to.query);
        if (to.edge_query) std::copy(from.edge_query, from.edge_query + hf, to.edge_query);
        if (to.edge_sum) std::copy(from.edge_sum, from.edge_sum + hf, to.edge_sum);
    }
}

template <class T>
void rows_backward_by_key(const Problem &p) {
    const int64_t hd = int64_t(p.heads) * p.width, hv = int64_t(p.heads) * p.value_width;
    LongRows<T> long_rows(by_key(p), hd + hv);
    for_ranges<KeyRows<T>>(p, by_key(p), [&](auto &rows, const Range &range, int64_t) {
        if (range.parts == 1)
            return rows.run(range, shifted<T>(p.grad_key, range.row * hd), shifted<T>(p.grad_value, range.row * hv));
        T *record = long_rows.record(range);
        rows.run(range, p.grad_key ? record : nullptr, p.grad_value ? record + hd : nullptr);
    });
    for (size_t place = 0; place < long_rows.row.size(); place++) {
        const int64_t j = long_rows.row[place];
        const auto add = [&](T *sum, const T *other) { add_scaled(sum, T(1), other, int(hd + hv)); };
        const T *sum = long_rows.merge(place, add);
        if (p.grad_key) std::copy(sum, sum + hd, static_cast<T *>(p.grad_key) + j * hd);
        if (p.grad_value) std::copy(sum + hd, sum + hd + hv, static_cast<T *>(p.grad_value) + j * hv);
    }
}

}  // namespace GF_NAMESPACE
