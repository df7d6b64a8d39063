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
    Array<T> own_query, own_grad;  // [rows of a block, H, D or V], where they are converted
    Array<T> inner;

    explicit QueryRows(const Problem &problem)
        : Base(problem, by_query(problem)),
          wants_values(p.edge_sum || p.grad_relation_value || (p.grad_edge_attr && p.edge_grad)),
          wants_pairs(wants_values || p.grad_bias || p.grad_relation_bias || p.grad_relation_key || p.grad_edge_attr ||
                      p.grad_edge_query || p.grad_edge_key),
          own_query(this->builds ? kBlock * H * D : 0),
          own_grad(this->builds ? kBlock * H * V : 0),
          inner(D) {}

    // [2, H]: statistic and delta
    T *record_of(int64_t i) const { return real(p.delta) + 2 * i * H; }

    // alpha and d alpha of a block of pairs
    void load_block(const Range &range, int64_t start) {
        this->open(range, start);
        this->set_own(p.query, H * D, own_query, b.query);
        this->set_own(p.grad_out, H * V, own_grad, b.grad);
        this->set_own_nodes();
        this->set_edges(p.edge_id, start);
        this->gather(p.key, start, H * D, b.built_key, b.key);
        this->gather(p.value, start, H * V, b.built_value, b.value);
        this->add_key_extras();
        this->add_value_extras();
        this->block_scores();
        this->read_rows(real(p.statistic), b.first_row, b.by_row);
        this->repeat(b.by_row, b.statistic);
        this->block_weights();
        if (p.has_dropout) this->block_dropout();
        this->block_upstream();
    }

    // delta = grad . out of one row
    void delta_from_total(int64_t i, T *delta) const {
        const T *grad = read_row<T>(p.grad_out, p.input_type, i, H * V, own_grad), *total = real(p.total) + i * H * V;
        dot_heads(&grad, &total, 1, H, V, delta, H);
    }

    // delta = sum of alpha d alpha, the same but for a result that was rounded; added to `delta` [H] of a long row
    void add_deltas(const Range &range, T *delta) {
        for (int64_t start = range.begin; start < range.end; start += kBlock) {
            load_block(range, start);
            fold_deltas();
            for (int h = 0; h < H; h++) delta[h] += b.by_row[h];
        }
    }

    void fold_deltas() {
        T *product = b.step;  // the steps come later
        const T *weight = b.weight, *upstream = b.upstream;
        this->each_vector([&](int k) {
#pragma omp simd
            for (int l = k; l < k + kLanes<T>; l++) product[l] = weight[l] * upstream[l];
        });
        this->fold_rows(product, T(0), b.by_row, Plus{});
    }

    // Rows that fit into one block: what the pass by key will read of them, and their gradients.
    template <class Output>
    void run(const Range &range, Output output, int64_t chunk) {
        load_block(range, range.begin);
        if (p.normalizer == kSoftmax && !p.total) fold_deltas();
        for (int r = 0; r < b.rows; r++) {
            const int64_t i = b.first_row + r;
            T *record = record_of(i), *delta = b.by_row + r * P;
            if (p.normalizer == kSoftmax && p.total) delta_from_total(i, delta);
            else if (p.normalizer != kSoftmax) std::fill(delta, delta + H, T(0));
            std::copy(real(p.statistic) + i * H, real(p.statistic) + (i + 1) * H, record);
            std::copy(delta, delta + H, record + H);
        }
        this->repeat(b.by_row, b.delta);
        this->block_steps();
        this->each_row([&](int r, int from, int to) {
            const QueryGrads<T> sums = output(b.first_row + r);
            clear(sums);
            add_pairs(sums, chunk, from, to);
            scale(sums);
        });
    }

    void scale(const QueryGrads<T> &sums) const {
        if (sums.query) this->scale_steps(sums.query);
        for (int l = 0; sums.edge_query && l < H * F; l++) sums.edge_query[l] *= T(p.scale);
    }

    // The gradients of a long row, or a part of it, whose delta is known.
    void run_long(const Range &range, const QueryGrads<T> &sums, int64_t chunk) {
        const T *delta = record_of(range.row) + H;
        clear(sums);
        for (int64_t start = range.begin; start < range.end; start += kBlock) {
            load_block(range, start);
            std::copy(delta, delta + H, b.by_row.data());
            this->repeat(b.by_row, b.delta);
            this->block_steps();
            add_pairs(sums, chunk, 0, b.count);
        }
        scale(sums);
    }

    void clear(const QueryGrads<T> &sums) const {
        if (sums.query) std::fill(sums.query, sums.query + H * D, T(0));
        if (sums.edge_query) std::fill(sums.edge_query, sums.edge_query + H * F, T(0));
        if (sums.edge_sum) std::fill(sums.edge_sum, sums.edge_sum + H * F, T(0));
    }

    // What the pairs from .. to, all of one row, give.
    void add_pairs(const QueryGrads<T> &sums, int64_t chunk, int from, int to) {
        if (sums.query) this->add_steps(sums.query, b.key, from, to);
        if (p.grad_weight)
            this->with_activation([&](auto f) {
                T *table = real(p.grad_weight) + chunk * H * D;
                this->add_rows(table, b.step, b.query, b.key, D, from, to, ValueTerm<decltype(f)>{f});
            });
        // Nothing is removed: what edge features take part in is summed over pairs or heads in registers.
        const bool whole = F && !b.has_removed;
        if (whole) spread_features(sums, from, to);
        const bool left = !whole || p.grad_bias || p.grad_relation_bias || p.grad_relation_value ||
                          p.grad_relation_key || p.score != kDot;
        for (int t = from; wants_pairs && left && t < to; t++) spread_pair(t, b.node[t], chunk, sums, !whole);
    }

    // What edge features give, and their own gradient; for the additive score without what comes through its key.
    void spread_features(const QueryGrads<T> &sums, int from, int to) {
        const T *kept = b.weight, *step = b.step;
        if (p.has_dropout && wants_values) {
            T *product = b.statistic;  // no longer asked for
            for (int l = from * P; l < to * P; l++) product[l] = b.weight[l] * b.scale[l];
            kept = product;
        }
        const T *attr[kBlock];
        for (int t = from; t < to; t++) attr[t] = real(p.edge_attr) + b.edge[t] * F;
        const auto add = [&](T *sum, const T *weight) {
            for (int h = 0; sum && h < H; h++)
                add_any<kLanes<T>, true>(sum + h * F, weight + from * P + h, P, attr + from, attr + from, to - from, 0,
                                         F, Second{});
        };
        add(sums.edge_sum, kept);
        if (p.score == kDot) add(sums.edge_query, step);
        if (!p.grad_edge_attr) return;
        for (int t = from; t < to; t++) {
            T *grad = real(p.grad_edge_attr) + b.edge[t] * F;
            std::fill(grad, grad + F, T(0));
            const int64_t row = b.node[t] * H * F;
            if (p.score == kDot && p.edge_query) {
                add_table<kLanes<T>>(grad, step + t * P, real(p.edge_query) + row, H, F, 0);
                for (int f = 0; f < F; f++) grad[f] *= T(p.scale);
            }
            if (p.edge_grad) add_table<kLanes<T>>(grad, kept + t * P, real(p.edge_grad) + row, H, F, 0);
        }
    }

    // What one pair adds beyond the plain gradient of its query; `features`: also through its edge features.
    void spread_pair(int t, int64_t i, int64_t chunk, const QueryGrads<T> &sums, bool features) {
        const int64_t e = b.edge[t], r = p.relation ? p.relation[e] : 0, table = (chunk * p.num_relations + r) * H;
        const T *attr = F ? real(p.edge_attr) + e * F : nullptr;
        T *grad_attr = p.grad_edge_attr ? real(p.grad_edge_attr) + e * F : nullptr;
        if (grad_attr && features) std::fill(grad_attr, grad_attr + F, T(0));
        for (int h = 0; h < H; h++) {
            const T g = b.step[t * P + h];
            if (p.grad_bias) real(p.grad_bias)[e * H + h] = g;
            if (this->is_removed(t, h)) continue;
            if (p.grad_relation_bias) real(p.grad_relation_bias)[table + h] += g;
            if (wants_values) {
                const T kept = p.has_dropout ? b.weight[t * P + h] * b.scale[t * P + h] : b.weight[t * P + h];
                if (sums.edge_sum && features) add_scaled(sums.edge_sum + h * F, kept, attr, F);
                if (p.grad_relation_value)
                    add_scaled(real(p.grad_relation_value) + (table + h) * V, kept, b.grad[t] + h * V, V);
                if (grad_attr && features && p.edge_grad)
                    add_scaled(grad_attr, kept, real(p.edge_grad) + (i * H + h) * F, F);
            }
            if (p.score != kDot) {
                additive_pair(t, h, chunk, table, attr, grad_attr);
                continue;
            }
            const T step = g * T(p.scale);
            if (p.grad_relation_key)
                add_scaled(real(p.grad_relation_key) + (table + h) * D, step, b.query[t] + h * D, D);
            if (!features) continue;
            if (sums.edge_query) add_scaled(sums.edge_query + h * F, g, attr, F);
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
    Array<T> own_key, own_value;  // [rows of a block, H, D or V], where they are converted

    explicit KeyRows(const Problem &problem)
        : Base(problem, by_key(problem)), own_key(this->builds ? kBlock * H * D : 0),
          own_value(this->builds ? kBlock * H * V : 0) {}

    // grad_key(j) and grad_value(j): where the gradients of key j go, or null
    template <class GradKey, class GradValue>
    void run(const Range &range, GradKey grad_key, GradValue grad_value) {
        for (int64_t start = range.begin; start == range.begin || start < range.end; start += kBlock) {
            load_block(range, start);
            if (p.has_dropout) this->block_dropout();
            if (p.grad_key) {
                this->block_upstream();
                this->block_steps();
            }
            if (p.has_dropout) this->apply_dropout(b.weight);
            const bool is_first = start == range.begin, is_last = start + kBlock >= range.end;
            this->each_row([&](int r, int from, int to) {
                add_pairs(grad_key(b.first_row + r), grad_value(b.first_row + r), is_first, is_last, from, to);
            });
        }
    }

    void add_pairs(T *grad_key, T *grad_value, bool is_first, bool is_last, int from, int to) {
        if (grad_key) {
            if (is_first) std::fill(grad_key, grad_key + H * D, T(0));
            this->add_steps(grad_key, b.query, from, to);
            if (is_last) this->scale_steps(grad_key);
        }
        if (grad_value) {
            if (is_first) std::fill(grad_value, grad_value + H * V, T(0));
            this->add_rows(grad_value, b.weight, b.grad, b.grad, V, from, to);
        }
    }

    void set_edges_of_runs() {
        if (!(p.bias || p.relation || p.edge_attr || p.has_dropout)) return;
        this->each_row([&](int r, int from, int to) {
            for (int t = from; t < to; t++) b.edge[t] = edge_of_runs(p, b.other[t], b.first_row + r);
        });
    }

    // Statistic and delta of each pair's query.
    void read_records() {
        const T *records = real(p.delta);
        T *statistic = b.statistic, *delta = b.delta;
        if (H == P)
            return this->with_columns([&](auto n) {
                using Heads = Vector<T, n>;
                for (int t = 0; t < b.count; t++)
                    for (int first = 0; first < P; first += n) {
                        const T *record = records + 2 * b.node[t] * P + first;
                        const Heads a = load<Heads>(record), c = load<Heads>(record + P);
                        std::memcpy(statistic + t * P + first, &a, sizeof(a));
                        std::memcpy(delta + t * P + first, &c, sizeof(c));
                    }
            });
        for (int t = 0; t < b.count; t++)
            for (int h = 0; h < H; h++) {
                statistic[t * P + h] = records[2 * b.node[t] * H + h];
                delta[t * P + h] = records[(2 * b.node[t] + 1) * H + h];
            }
    }

    // The rows of numbers [.., length] that the pairs to come have at their queries.
    void ask_for(const void *numbers, int64_t start, int length) const {
        constexpr int32_t type = sizeof(T) == 8 ? kFloat64 : kFloat32;
        for (int t = 0; t < b.count; t++)
            prefetch_row(numbers, type, p.query_index, p.wide_index, start + t + kAhead, p.num_edges, length);
    }

    // alpha of a block of pairs
    void load_block(const Range &range, int64_t start) {
        this->open(range, start);
        this->set_own(p.key, H * D, own_key, b.key);
        this->set_own(p.value, H * V, own_value, b.value);
        std::copy(b.other, b.other + b.count, b.node);
        if (this->side.index) {
            ask_for(p.delta, start, 2 * H);
            if (p.edge_query) ask_for(p.edge_query, start, H * F);
            if (p.edge_grad) ask_for(p.edge_grad, start, H * F);
        }
        read_records();
        if (p.key_run_ptr) set_edges_of_runs();
        else this->set_edges(p.key_edge_id, start);
        this->gather(p.query, start, H * D, b.built_query, b.query);
        this->gather(p.grad_out, start, H * V, b.built_grad, b.grad);
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
    // First the statistics and deltas of long rows: their parts need them all.
    for_ranges<QueryRows<T>>(p, by_query(p), [&](auto &rows, const Range &range, int64_t) {
        if (range.fits()) return;
        T *record = rows.record_of(range.row), *delta = record + H;
        const T *statistic = static_cast<const T *>(p.statistic) + range.row * H;
        if (range.part == 0) {
            std::copy(statistic, statistic + H, record);
            std::fill(delta, delta + H, T(0));
            if (softmax && p.total) rows.delta_from_total(range.row, delta);
        }
        if (sums_delta) rows.add_deltas(range, range.parts > 1 ? deltas.record(range) : delta);
    });
    for (size_t place = 0; place < deltas.row.size(); place++) {
        const T *delta = deltas.merge(place, [&](T *sum, const T *other) { add_scaled(sum, T(1), other, int(H)); });
        std::copy(delta, delta + H, static_cast<T *>(p.delta) + (2 * deltas.row[place] + 1) * H);
    }
    for_ranges<QueryRows<T>>(p, by_query(p), [&](auto &rows, const Range &range, int64_t chunk) {
        if (range.fits()) return rows.run(range, output, chunk);
        rows.run_long(range, range.parts > 1 ? recorded(long_rows.record(range)) : output(range.row), chunk);
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
        T *record = range.parts > 1 ? long_rows.record(range) : nullptr;
        rows.run(
            range, [&](int64_t j) { return record && p.grad_key ? record : shifted<T>(p.grad_key, j * hd); },
            [&](int64_t j) { return record && p.grad_value ? record + hd : shifted<T>(p.grad_value, j * hv); });
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
