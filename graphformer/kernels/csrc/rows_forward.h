// The forward pass by rows. Queries with few keys share a block; one with many walks its keys block by block, and holds
// a running maximum, a running total and an unfinished sum.
#pragma once
#include "rows.h"
#include "schedule.h"

namespace GF_NAMESPACE {

// What part of a row adds up to, before it is divided by its total: plain arrays, so that parts can be merged.
template <class T>
struct Sums {
    T *out, *features;   // [H, V], [H, F]; features may be null
    T *largest, *total;  // [H]
};

template <class T>
struct ForwardRows : Rows<T> {
    using Base = Rows<T>;
    using Base::b, Base::D, Base::F, Base::H, Base::kInfinity, Base::P, Base::p, Base::real, Base::S, Base::V;
    Array<T> own;                 // [rows of a block, H, D], where they are converted
    Array<T> row;                 // of a long row:
    T *largest, *total, *shrink;  // [S], every pair of a step by itself

    explicit ForwardRows(const Problem &problem)
        : Base(problem, by_query(problem)), own(problem.input_type >= kBFloat16 ? kBlock * H * D : 0), row(3 * S),
          largest(row), total(row + S), shrink(row + 2 * S) {}

    struct Larger {  // NaN stays
        template <class V>
        GF_INLINE V operator()(V a, V b) const {
            return (b > a) | (b != b) ? b : a;
        }
    };
    static constexpr Larger larger{};
    static T base_of(T largest) { return largest == -kInfinity ? T(0) : largest; }

    T *statistic_of(int64_t i) const { return real(p.statistic) + i * H; }

    // Pairs with their scores.
    void load_block(const Range &range, int64_t start) {
        this->open(range, start);
        this->set_own(p.query, H * D, own, b.query);
        this->set_own_nodes();
        this->set_edges(p.edge_id, start);
        this->gather(p.key, start, H * D, b.built_key, b.key);
        this->add_key_extras();
        this->block_scores();
    }

    void load_values(int64_t start) {
        this->gather(p.value, start, H * V, b.built_value, b.value);
        this->add_value_extras();
    }

    void drop_out() {
        if (!p.has_dropout) return;
        this->block_dropout();
        this->apply_dropout(b.weight);
    }

    void find_weights() {
        this->read_rows(real(p.statistic), b.first_row, b.by_row);
        this->repeat(b.by_row, b.statistic);
        this->block_weights();
    }

    // Rows that fit into one block.
    template <class Output>
    void run(const Range &range, Output output) {
        load_block(range, range.begin);
        if (p.normalizer == kSoftmax) find_softmax();
        else find_weights();
        drop_out();
        load_values(range.begin);
        this->each_row([&](int r, int from, int to) { add_values(output(b.first_row + r), true, from, to); });
    }

    // The softmax of whole rows, and their statistics.
    void find_softmax() {
        T *largest_of = b.by_row, *total_of = b.more_by_row, *score = b.score, *weight = b.weight, *base = b.statistic;
        const int count = b.rows * P;
        this->fold_rows(score, -kInfinity, largest_of, larger);
        this->repeat(largest_of, base);
        this->each_vector([&](int k) {
#pragma omp simd
            for (int l = k; l < k + kLanes<T>; l++) weight[l] = exponential(score[l] - base_of(base[l]));
        });
        this->fold_rows(weight, T(0), total_of, Plus{});
#pragma omp simd
        for (int l = 0; l < count; l++) {
            const bool is_empty = total_of[l] == 0;
            largest_of[l] = is_empty ? -kInfinity : largest_of[l] + logarithm(total_of[l]);
            total_of[l] = is_empty ? T(0) : 1 / total_of[l];
        }
        T *statistic = statistic_of(b.first_row);
        for (int r = 0; r < b.rows; r++) std::copy(largest_of + r * P, largest_of + r * P + H, statistic + r * H);
        this->repeat(total_of, base);
        this->each_vector([&](int k) {
#pragma omp simd
            for (int l = k; l < k + kLanes<T>; l++) weight[l] *= base[l];
        });
    }

    // A long row, or a part of it; `finish` does the rest.
    void run_long(const Range &range, const Sums<T> &sums) {
        std::fill(largest, largest + S, -kInfinity);
        std::fill(total, total + S, T(0));
        const bool softmax = p.normalizer == kSoftmax;
        for (int64_t start = range.begin; start < range.end; start += kBlock) {
            load_block(range, start);
            if (!softmax) find_weights();
            else normalize();
            if (softmax && start > range.begin) rescale(sums, shrink);
            drop_out();
            load_values(start);
            add_values(sums, start == range.begin, 0, b.count);
        }
        for (int l = H; softmax && l < S; l++)
            if (l % P < H && l >= P) total[l % P] += total[l];
        std::copy(largest, largest + H, sums.largest);
        std::copy(total, total + H, sums.total);
    }

    void add_values(const Sums<T> &sums, bool is_first, int from, int to) const {
        if (is_first) std::fill(sums.out, sums.out + H * V, T(0));
        this->add_rows(sums.out, b.weight, b.value, b.value, V, from, to);
        if (!sums.features) return;
        if (is_first) std::fill(sums.features, sums.features + H * F, T(0));
        add_features(sums.features, from, to);
    }

    // Weights of the block relative to the largest score so far, and what shrinks the sums of the blocks before.
    void normalize() {
        T *score = b.score, *weight = b.weight;
        const int count = b.count * P, stop = (count + S - 1) / S * S;
        for (int l = count; l < stop; l++) score[l] = -kInfinity;
        std::copy(largest, largest + S, shrink);
        for (int k = 0; k < stop; k += S)
            for (int l = 0; l < S; l++) largest[l] = larger(largest[l], score[k + l]);
        for (int half = S / 2; half >= P; half /= 2)
            for (int l = 0; l < half; l++) largest[l] = larger(largest[l], largest[l + half]);
        for (int l = P; l < S; l++) largest[l] = largest[l - P];
#pragma omp simd
        for (int l = 0; l < S; l++) {
            shrink[l] = exponential(shrink[l] - base_of(largest[l]));
            total[l] *= shrink[l];
        }
        for (int k = 0; k < stop; k += S)
#pragma omp simd
            for (int l = 0; l < S; l++) {
                weight[k + l] = exponential(score[k + l] - base_of(largest[l]));
                total[l] += weight[k + l];
            }
    }

    void add_features(T *features, int from, int to) const {
        for (int t = from; t < to; t++)
            for (int h = 0; h < H; h++)
                if (!this->is_removed(t, h))
                    add_scaled(features + h * F, b.weight[t * P + h], real(p.edge_attr) + b.edge[t] * F, F);
    }

    void rescale(const Sums<T> &sums, const T *factor) const {
        for (int h = 0; h < H; h++) {
            for (int c = 0; c < V; c++) sums.out[h * V + c] *= factor[h];
            if (sums.features)
                for (int f = 0; f < F; f++) sums.features[h * F + f] *= factor[h];
        }
    }

    // Takes `other`, a later part of the same row, into `sums`.
    void merge(const Sums<T> &sums, const Sums<T> &other) {
        T *shrink_other = b.scale;
        for (int h = 0; h < H; h++) {
            const T both = larger(sums.largest[h], other.largest[h]);
            shrink[h] = exponential(sums.largest[h] - base_of(both));
            shrink_other[h] = exponential(other.largest[h] - base_of(both));
            if (p.normalizer != kSoftmax) shrink[h] = shrink_other[h] = 1;
            sums.largest[h] = both;
            sums.total[h] = sums.total[h] * shrink[h] + other.total[h] * shrink_other[h];
        }
        rescale(sums, shrink);
        for (int h = 0; h < H; h++) {
            add_scaled(sums.out + h * V, shrink_other[h], other.out + h * V, V);
            if (sums.features) add_scaled(sums.features + h * F, shrink_other[h], other.features + h * F, F);
        }
    }

    void finish(const Sums<T> &sums, T *statistic) {
        if (p.normalizer != kSoftmax) return;
        for (int h = 0; h < H; h++) {
            const bool empty = sums.total[h] == 0;
            statistic[h] = empty ? -kInfinity : sums.largest[h] + logarithm(sums.total[h]);
            shrink[h] = empty ? T(0) : 1 / sums.total[h];
        }
        rescale(sums, shrink);
    }
};

template <class T>
void rows_forward(const Problem &p) {
    const int H = p.heads;
    const size_t hv = size_t(H) * p.value_width, hf = p.edge_sum ? size_t(H) * p.num_features : 0;
    const auto output = [&](int64_t i) {
        T *features = p.edge_sum ? static_cast<T *>(p.edge_sum) + i * hf : nullptr;
        return Sums<T>{static_cast<T *>(p.out) + i * hv, features, nullptr, nullptr};
    };
    const auto recorded = [&](T *record) {
        return Sums<T>{record, p.edge_sum ? record + hv : nullptr, record + hv + hf, record + hv + hf + H};
    };
    LongRows<T> long_rows(by_query(p), hv + hf + 2 * H);
    if (p.normalizer != kSoftmax)
        for_ranges<ForwardRows<T>>(p, by_query(p), [&](auto &rows, const Range &range, int64_t) {
            for (int64_t i = range.row; i < range.row + range.rows && range.part == 0; i++)
                rows.count_row(p.edge_id, p.query_ptr[i], p.query_ptr[i + 1], rows.statistic_of(i));
        });
    for_ranges<ForwardRows<T>>(p, by_query(p), [&](auto &rows, const Range &range, int64_t) {
        if (range.fits()) return rows.run(range, output);
        if (range.parts > 1) return rows.run_long(range, recorded(long_rows.record(range)));
        Sums<T> sums = output(range.row);
        sums.largest = rows.largest, sums.total = rows.total;
        rows.run_long(range, sums);
        rows.finish(sums, rows.statistic_of(range.row));
    });
    ForwardRows<T> rows(p);
    for (size_t place = 0; place < long_rows.row.size(); place++) {
        const int64_t i = long_rows.row[place];
        const Sums<T> sums = recorded(
            long_rows.merge(place, [&](T *sum, T *other) { rows.merge(recorded(sum), recorded(other)); }));
        rows.finish(sums, rows.statistic_of(i));
        const Sums<T> out = output(i);
        std::copy(sums.out, sums.out + hv, out.out);
        if (hf) std::copy(sums.features, sums.features + hf, out.features);
    }
}

}  // namespace GF_NAMESPACE
