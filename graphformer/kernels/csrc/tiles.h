// The tile loops: the passes over one window and head, and the walk over all windows that a graph serves by tiles.
#pragma once
#include "tile.h"

namespace GF_NAMESPACE {

template <class T>
struct TileForward : Tile<T, true> {
    using Base = Tile<T, true>;
    using Base::Base, Base::p, Base::n, Base::h, Base::H, Base::V, Base::F, Base::R, Base::count, Base::first_row;
    using Base::kInfinity, Base::real, Base::score, Base::weight, Base::statistic, Base::sum_b, Base::mask;
    Aligned<T> by_relation, by_feature;  // [R][kLanes], [F][kLanes]: sums of P
    T largest[kLanes], total[kLanes];
    std::vector<uint32_t> used;  // lanes that have a relation

    TileForward(const Problem &problem, const Poisoned &poisoned, bool heads_together)
        : Base(problem, poisoned, heads_together) {
        if (p.relation_value) by_relation.resize(int64_t(R) * kLanes), used.resize(R);
        if (p.edge_sum) by_feature.resize(int64_t(F) * kLanes);
    }

    void run(int64_t window, int head) {
        this->begin(window, head, false);
        std::fill(sum_b.data(), sum_b.data() + V * kLanes, T(0));
        if (p.relation_value) {
            std::fill(by_relation.data(), by_relation.data() + int64_t(R) * kLanes, T(0));
            std::fill(used.begin(), used.end(), 0);
        }
        if (p.edge_sum) std::fill(by_feature.data(), by_feature.data() + F * kLanes, T(0));
        std::fill(largest, largest + kLanes, -kInfinity);
        std::fill(total, total + kLanes, T(0));
        if (p.normalizer != kSoftmax)
            for (int l = 0; l < count; l++) statistic[l] = log_degree(first_row + l);
        while (this->next()) {
            this->read_first();
            this->find_scores();
            if (p.normalizer == kSoftmax) find_online_weights();
            else this->find_weights();
            const T *weights = this->dropped();
            this->read_second();
            this->spread(this->entries_b, p.value, V, weights, sum_b.data());
            if (p.relation_value) sum_by_relation(weights);
            if (p.edge_sum) sum_by_feature(weights);
        }
        finish();
    }

    // For relu and sigmoid: log of the number of pairs that are not removed.
    T log_degree(int64_t i) const {
        const int64_t begin = p.query_ptr[i], end = p.query_ptr[i + 1];
        int64_t degree = end - begin;
        if (this->pairs.removes)
            for (int64_t t = begin; t < end; t++)
                degree -= this->pairs.bias_of(this->pairs.id(p.edge_id, t), h) == -kInfinity;
        return degree ? std::log(T(degree)) : -kInfinity;
    }

    void find_online_weights() {
        T shrink[kLanes], base[kLanes], peak[kLanes];
        std::copy(largest, largest + kLanes, peak);
        for (int t = 0; t < n; t++) {
            const T *s = score.data() + t * kLanes;
            for (int l = 0; l < kLanes; l++) peak[l] = s[l] > peak[l] || s[l] != s[l] ? s[l] : peak[l];
        }
        bool grew = false;
        for (int l = 0; l < kLanes; l++) {
            base[l] = peak[l] == -kInfinity ? T(0) : peak[l];
            shrink[l] = exponential(largest[l] - base[l]);
            grew |= shrink[l] != T(1);
            total[l] *= shrink[l];
            largest[l] = peak[l];
        }
        if (grew) {
            shrink_rows(sum_b.data(), V, shrink);
            if (p.relation_value) shrink_rows(by_relation.data(), R, shrink);
            if (p.edge_sum) shrink_rows(by_feature.data(), F, shrink);
        }
        for (int t = 0; t < n; t++) {
            const T *s = score.data() + t * kLanes;
            T *w = weight.data() + t * kLanes;
            for (int l = 0; l < kLanes; l++) {
                w[l] = exponential(s[l] - base[l]);
                total[l] += w[l];
            }
        }
    }

    static void shrink_rows(T *panel, int64_t rows, const T *factor) {
        for (int64_t c = 0; c < rows; c++)
            for (int l = 0; l < kLanes; l++) panel[c * kLanes + l] *= factor[l];
    }

    void sum_by_relation(const T *weights) {
        for (int t = 0; t < n; t++)
            for_bits(mask[t], [&](int l) {
                if (this->removed(t, l)) return;
                const int32_t r = this->relation.data()[t * kLanes + l];
                by_relation.data()[int64_t(r) * kLanes + l] += weights[t * kLanes + l];
                used[r] |= 1u << l;
            });
    }

    void sum_by_feature(const T *weights) {
        for (int t = 0; t < n; t++)
            for_bits(mask[t], [&](int l) {
                if (this->removed(t, l)) return;
                const T *attr = real(p.edge_attr) + this->id.data()[t * kLanes + l] * F;
                for (int f = 0; f < F; f++) by_feature.data()[f * kLanes + l] += weights[t * kLanes + l] * attr[f];
            });
    }

    void finish() {
        T factor[kLanes];
        std::fill(factor, factor + kLanes, T(1));
        if (p.normalizer == kSoftmax)
            for (int l = 0; l < kLanes; l++) {
                const bool empty = total[l] == 0;
                statistic[l] = empty ? -kInfinity : largest[l] + std::log(total[l]);
                factor[l] = empty ? T(0) : 1 / total[l];
            }
        for (int l = 0; l < count; l++) real(p.statistic)[(first_row + l) * H + h] = statistic[l];
        this->write_lanes(sum_b.data(), V, factor, real(p.out));
        if (p.edge_sum) this->write_lanes(by_feature.data(), F, factor, real(p.edge_sum));
        for (int r = 0; r < int(used.size()); r++)
            for_bits(used[r], [&](int l) {
                add_scaled(real(p.out) + ((first_row + l) * H + h) * V, by_relation.data()[int64_t(r) * kLanes + l] * factor[l],
                           real(p.relation_value) + (int64_t(r) * H + h) * V, V);
            });
    }
};

template <class T>
struct TileByQuery : Tile<T, true> {
    using Base = Tile<T, true>;
    using Base::Base, Base::p, Base::n, Base::h, Base::H, Base::D, Base::V, Base::F, Base::R, Base::count, Base::first_row;
    using Base::real, Base::weight, Base::upstream, Base::statistic, Base::delta, Base::sum_a, Base::mask, Base::id;
    Aligned<T> step_by_relation, kept_by_relation, step_by_feature, kept_by_feature;  // [R][kLanes], [F][kLanes]
    std::vector<uint32_t> used;
    std::vector<T> query_rows, grad_rows, column;

    TileByQuery(const Problem &problem, const Poisoned &poisoned, bool heads_together)
        : Base(problem, poisoned, heads_together) {
        if (keeps_steps()) step_by_relation.resize(int64_t(R) * kLanes);
        if (p.grad_relation_value) kept_by_relation.resize(int64_t(R) * kLanes);
        if (p.relation) used.resize(R);
        if (p.grad_edge_query) step_by_feature.resize(int64_t(F) * kLanes);
        if (p.edge_sum) kept_by_feature.resize(int64_t(F) * kLanes);
        column.resize(D);
    }

    // For the dot score the relation table's part of dq and its own gradient come from the steps summed by relation.
    bool keeps_steps() const { return p.relation_key && p.score == kDot && (p.grad_query || p.grad_relation_key); }

    void run(int64_t window, int head, int64_t chunk) {
        this->begin(window, head, true);
        for (auto *panel : {&step_by_relation, &kept_by_relation})
            if (panel->data()) std::fill(panel->data(), panel->data() + int64_t(R) * kLanes, T(0));
        for (auto *panel : {&step_by_feature, &kept_by_feature})
            if (panel->data()) std::fill(panel->data(), panel->data() + int64_t(F) * kLanes, T(0));
        std::fill(used.begin(), used.end(), 0);
        std::fill(sum_a.data(), sum_a.data() + D * kLanes, T(0));
        for (int l = 0; l < kLanes; l++) {
            const int64_t row = (first_row + l) * H + h;
            statistic[l] = l < count ? real(p.statistic)[row] : -Base::kInfinity;
            delta[l] = l < count && p.total ? dot(this->head_row(p.grad_out, first_row + l, V), real(p.total) + row * V, V) : T(0);
        }
        if (p.normalizer == kSoftmax && !p.total) {
            while (this->next()) {
                block();
                for (int t = 0; t < n; t++)
                    for_bits(mask[t], [&](int l) {
                        if (!this->removed(t, l))
                            delta[l] += weight.data()[t * kLanes + l] * upstream.data()[t * kLanes + l];
                    });
            }
            this->rewind(window);
        }
        while (this->next()) {
            block();
            this->find_gradients();
            spread_block(chunk);
        }
        for (int l = 0; l < count; l++) real(p.delta)[(first_row + l) * H + h] = delta[l];
        finish(chunk);
    }

    void block() {
        this->read_first();
        this->find_scores();
        this->find_weights();
        this->read_second();
        this->find_upstream();
    }

    void spread_block(int64_t chunk) {
        if (p.grad_bias || p.grad_relation_bias) spread_bias(chunk);
        if (kept_by_relation.data() || kept_by_feature.data() || (p.grad_edge_attr && p.edge_grad)) spread_values();
        if (p.score == kDot) {
            if (p.grad_query) this->spread_scores();
            if (keeps_steps() || p.edge_query) spread_steps();
        } else if (p.grad_query || p.grad_relation_key || p.grad_edge_key || p.grad_weight || (p.grad_edge_attr && p.edge_key)) {
            spread_additive(chunk);
        }
    }

    void spread_bias(int64_t chunk) {
        for (int t = 0; t < n; t++)
            for_bits(mask[t], [&](int l) {
                const int64_t e = id.data()[t * kLanes + l];
                const T g = upstream.data()[t * kLanes + l];
                if (p.grad_bias) real(p.grad_bias)[e * H + h] = g;
                if (p.grad_relation_bias) real(p.grad_relation_bias)[(chunk * R + p.relation[e]) * H + h] += g;
            });
    }

    // what follows from P: gradients of the value's relation table and edge map, and of edge features through them
    void spread_values() {
        const T *weights = this->dropped();
        for (int t = 0; t < n; t++)
            for_bits(mask[t], [&](int l) {
                if (this->removed(t, l)) return;
                const int64_t e = id.data()[t * kLanes + l];
                const T w = weights[t * kLanes + l];
                if (kept_by_relation.data()) {
                    kept_by_relation.data()[int64_t(p.relation[e]) * kLanes + l] += w;
                    used[p.relation[e]] |= 1u << l;
                }
                if (kept_by_feature.data())
                    for (int f = 0; f < F; f++) kept_by_feature.data()[f * kLanes + l] += w * real(p.edge_attr)[e * F + f];
                if (p.grad_edge_attr && p.edge_grad)
                    add_scaled(real(p.grad_edge_attr) + e * F, w, real(p.edge_grad) + ((first_row + l) * H + h) * F, F);
            });
    }

    // what follows from g of the dot score beside dq of the keys
    void spread_steps() {
        for (int t = 0; t < n; t++)
            for_bits(mask[t], [&](int l) {
                if (this->removed(t, l)) return;
                const int64_t e = id.data()[t * kLanes + l];
                const T step = upstream.data()[t * kLanes + l] * T(p.scale);
                if (step_by_relation.data()) {
                    step_by_relation.data()[int64_t(p.relation[e]) * kLanes + l] += step;
                    used[p.relation[e]] |= 1u << l;
                }
                if (step_by_feature.data())
                    for (int f = 0; f < F; f++) step_by_feature.data()[f * kLanes + l] += step * real(p.edge_attr)[e * F + f];
                if (p.grad_edge_attr && p.edge_query)
                    add_scaled(real(p.grad_edge_attr) + e * F, step, real(p.edge_query) + ((first_row + l) * H + h) * F, F);
            });
    }

    void spread_additive(int64_t chunk) {
        T *grad_weight = p.grad_weight ? real(p.grad_weight) + (chunk * H + h) * D : nullptr;
        for (int t = 0; t < n; t++) {
            const T *step = this->additive_step(t, grad_weight);
            for (int c = 0; c < D * kLanes; c++) sum_a.data()[c] += step[c];
            if (!p.grad_relation_key && !p.edge_key) continue;
            for_bits(mask[t], [&](int l) {
                if (this->removed(t, l)) return;
                const int64_t e = id.data()[t * kLanes + l];
                for (int c = 0; c < D; c++) column[c] = step[c * kLanes + l];
                if (p.grad_relation_key)
                    add_scaled(real(p.grad_relation_key) + ((chunk * R + p.relation[e]) * H + h) * D, T(1), column.data(), D);
                if (!p.edge_key) return;
                for (int f = 0; f < F; f++) {
                    if (p.grad_edge_key)
                        add_scaled(real(p.grad_edge_key) + ((chunk * F + f) * H + h) * D, real(p.edge_attr)[e * F + f], column.data(), D);
                    if (p.grad_edge_attr)
                        real(p.grad_edge_attr)[e * F + f] += dot(column.data(), real(p.edge_key) + (int64_t(f) * H + h) * D, D);
                }
            });
        }
    }

    void finish(int64_t chunk) {
        if (p.grad_query) this->write_lanes(sum_a.data(), D, nullptr, real(p.grad_query));
        if (p.grad_edge_query) this->write_lanes(step_by_feature.data(), F, nullptr, real(p.grad_edge_query));
        if (p.edge_sum) this->write_lanes(kept_by_feature.data(), F, nullptr, real(p.edge_sum));
        if (!keeps_steps() && !kept_by_relation.data()) return;
        for (int r = 0; r < R; r++)
            for_bits(used[r], [&](int l) {
                const int64_t row = (first_row + l) * H + h, entry = int64_t(r) * kLanes + l;
                if (keeps_steps()) {
                    const T step = step_by_relation.data()[entry];
                    if (p.grad_query) add_scaled(real(p.grad_query) + row * D, step, real(p.relation_key) + (int64_t(r) * H + h) * D, D);
                    if (p.grad_relation_key)
                        add_scaled(real(p.grad_relation_key) + ((chunk * R + r) * H + h) * D, step, this->head_row(p.query, first_row + l, D), D);
                }
                if (kept_by_relation.data())
                    add_scaled(real(p.grad_relation_value) + ((chunk * R + r) * H + h) * V, kept_by_relation.data()[entry],
                               this->head_row(p.grad_out, first_row + l, V), V);
            });
    }
};

template <class T>
struct TileByKey : Tile<T, false> {
    using Base = Tile<T, false>;
    using Base::Base, Base::p, Base::n, Base::h, Base::H, Base::D, Base::V, Base::sum_a, Base::sum_b, Base::real;

    void run(int64_t window, int head) {
        this->begin(window, head, true);
        std::fill(sum_a.data(), sum_a.data() + D * kLanes, T(0));
        std::fill(sum_b.data(), sum_b.data() + V * kLanes, T(0));
        while (this->next()) {
            this->read_first();
            this->read_second();
            for (int t = 0; t < n; t++) {
                this->entry_statistic[t] = real(p.statistic)[this->other[t] * H + h];
                this->entry_delta[t] = real(p.delta)[this->other[t] * H + h];
            }
            this->find_scores();
            this->find_weights();
            if (p.grad_value) this->spread(this->entries_b, p.grad_out, V, this->dropped(), sum_b.data());
            if (!p.grad_key) continue;
            this->find_upstream();
            this->find_gradients();
            this->spread_scores();
        }
        if (p.grad_key) this->write_lanes(sum_a.data(), D, nullptr, real(p.grad_key));
        if (p.grad_value) this->write_lanes(sum_b.data(), V, nullptr, real(p.grad_value));
    }
};

constexpr double kCacheBytes = 1 << 18;
constexpr int64_t kGroup = 8;  // windows
constexpr int64_t kLeastUnits = 64;

// Windows that tiles serve, chunk by chunk and head by head. A chunk's head is one thread's, and the windows of a chunk
// follow from the graph alone, so partial tables are the same for any number of threads.
template <class Pass, class Work>
void for_tiles(const Problem &p, const Poisoned &poisoned, bool by_query, bool sums_heads, Work work) {
    const int64_t *ptr = by_query ? p.query_ptr : p.key_ptr, *tile_ptr = by_query ? p.query_tile_ptr : p.key_tile_ptr;
    const int64_t num_rows = by_query ? p.num_queries : p.num_keys, num_windows = (num_rows + kLanes - 1) / kLanes;
    // Heads follow one another while what a window reads for all of them stays in a core's cache; else a head goes
    // through all windows before the next one does.
    const double window_bytes = double(ptr[num_rows]) / double(num_rows) * p.heads * (p.width + p.value_width) * sizeof(float);
    const bool heads_together = sums_heads || window_bytes < kCacheBytes;
    // Windows are taken in groups that share what they read, so chunks hold several where that leaves work to share out.
    const int64_t least = heads_together ? kLeastUnits : kLeastUnits / p.heads;
    const int64_t chunks = std::clamp<int64_t>(std::max(num_windows / kGroup, least), 1, p.num_chunks);
    const int64_t units = chunks * (heads_together ? 1 : p.heads);
#pragma omp parallel num_threads(p.threads)
    {
        Pass pass(p, poisoned, heads_together);
#pragma omp for schedule(dynamic, 1)
        for (int64_t unit = 0; unit < units; unit++) {
            const int64_t chunk = unit % chunks, head = unit / chunks;
            const int64_t start = chunk_start(ptr, num_rows, chunk, chunks), stop = chunk_start(ptr, num_rows, chunk + 1, chunks);
            // a window is the chunk's where its first row is
            const int64_t last = chunk + 1 == chunks ? num_windows : (stop + kLanes - 1) / kLanes;
            for (int64_t window = (start + kLanes - 1) / kLanes, packed = window; window < last; window++) {
                if (!heads_together && window == packed) {
                    packed = std::min(window + kGroup, last);
                    pass.pack(window, packed, int(head));
                }
                if (tile_ptr[window] == tile_ptr[window + 1]) continue;
                for (int h = int(head); h < (heads_together ? p.heads : int(head) + 1); h++) work(pass, window, h, chunk);
            }
        }
    }
}

template <class T>
void tiles_forward(const Problem &p) {
    if (!p.query_tile_ptr) return;
    Poisoned poisoned;
    if (p.score == kDot) poisoned.scan<T>(p, p.key, p.num_keys, int64_t(p.heads) * p.width);
    poisoned.scan<T>(p, p.value, p.num_keys, int64_t(p.heads) * p.value_width);
    for_tiles<TileForward<T>>(p, poisoned, true, false, [](auto &pass, int64_t window, int h, int64_t) { pass.run(window, h); });
}

template <class T>
void tiles_backward_by_query(const Problem &p) {
    if (!p.query_tile_ptr) return;
    Poisoned poisoned;
    if (p.score == kDot) poisoned.scan<T>(p, p.key, p.num_keys, int64_t(p.heads) * p.width);
    poisoned.scan<T>(p, p.value, p.num_keys, int64_t(p.heads) * p.value_width);
    // The gradient of a pair's features is summed over heads.
    for_tiles<TileByQuery<T>>(p, poisoned, true, p.grad_edge_attr != nullptr,
                              [](auto &pass, int64_t window, int h, int64_t chunk) { pass.run(window, h, chunk); });
}

template <class T>
void tiles_backward_by_key(const Problem &p) {
    if (!p.key_tile_ptr) return;
    Poisoned poisoned;
    if (p.score == kDot) poisoned.scan<T>(p, p.query, p.num_queries, int64_t(p.heads) * p.width);
    poisoned.scan<T>(p, p.grad_out, p.num_queries, int64_t(p.heads) * p.value_width);
    for_tiles<TileByKey<T>>(p, poisoned, false, false, [](auto &pass, int64_t window, int h, int64_t) { pass.run(window, h); });
}

}  // namespace GF_NAMESPACE
