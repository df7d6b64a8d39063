// The backward passes over one window and head: lanes that are queries, then lanes that are keys.
#pragma once
#include <vector>

#include "tile.h"

namespace GF_NAMESPACE {

template <class T>
struct TileByQuery : Tile<T, true> {
    using Base = Tile<T, true>;
    using Base::Base, Base::p, Base::n, Base::h, Base::H, Base::D, Base::V, Base::F, Base::R, Base::count;
    using Base::first_row, Base::real, Base::weight, Base::upstream, Base::statistic, Base::delta, Base::sum_a;
    using Base::mask, Base::id;
    Array<T> step_by_relation, kept_by_relation, step_by_feature, kept_by_feature;  // [R][kWindow], [F][kWindow]
    std::vector<uint32_t> used;

    TileByQuery(const Problem &problem, const Poisoned &poisoned, bool heads_together)
        : Base(problem, poisoned, heads_together) {
        if (keeps_steps()) step_by_relation.resize(int64_t(R) * kWindow);
        if (p.grad_relation_value) kept_by_relation.resize(int64_t(R) * kWindow);
        if (p.relation) used.resize(R);
        if (p.grad_edge_query) step_by_feature.resize(int64_t(F) * kWindow);
        if (p.edge_sum) kept_by_feature.resize(int64_t(F) * kWindow);
    }

    // For the dot score the relation table's part of dq and its own gradient come from the steps summed by relation.
    bool keeps_steps() const { return p.relation_key && p.score == kDot && (p.grad_query || p.grad_relation_key); }

    void run(int64_t window, int head, int64_t chunk) {
        this->begin(window, head, true);
        for (auto *panel : {&step_by_relation, &kept_by_relation})
            if (panel->data()) std::fill(panel->data(), panel->data() + int64_t(R) * kWindow, T(0));
        for (auto *panel : {&step_by_feature, &kept_by_feature})
            if (panel->data()) std::fill(panel->data(), panel->data() + int64_t(F) * kWindow, T(0));
        std::fill(used.begin(), used.end(), 0);
        std::fill(sum_a.data(), sum_a.data() + D * kWindow, T(0));
        for (int l = 0; l < kWindow; l++) {
            const int64_t row = (first_row + l) * H + h;
            statistic[l] = l < count ? real(p.statistic)[row] : -Base::kInfinity;
            delta[l] = 0;
            if (l < count && p.total)
                delta[l] = dot(this->head_row(p.grad_out, first_row + l, V), real(p.total) + row * V, V);
        }
        if (p.normalizer == kSoftmax && !p.total) {
            while (this->next()) {
                block();
                for (int t = 0; t < n; t++)
                    for_bits(mask[t], [&](int l) {
                        if (!this->removed(t, l))
                            delta[l] += weight[t * kWindow + l] * upstream[t * kWindow + l];
                    });
            }
            this->rewind(window);
        }
        while (this->next()) {
            block();
            this->find_gradients();
            spread_block(chunk);
        }
        for (int l = 0; l < count; l++) {
            T *pair = real(p.delta) + 2 * (first_row + l) * H + h;
            pair[0] = statistic[l], pair[H] = delta[l];
        }
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
        if (p.grad_edge_attr && h == 0)  // the heads that follow add
            for (int t = 0; t < n; t++)
                for_bits(mask[t], [&](int l) {
                    T *attr = real(p.grad_edge_attr) + id[t * kWindow + l] * F;
                    std::fill(attr, attr + F, T(0));
                });
        if (p.grad_bias || p.grad_relation_bias) this->spread_bias(chunk);
        if (kept_by_relation.data() || kept_by_feature.data() || (p.grad_edge_attr && p.edge_grad)) spread_values();
        if (p.score == kDot) {
            if (p.grad_query) this->spread_scores();
            if (keeps_steps() || p.edge_query) spread_steps();
        } else if (p.grad_query || p.grad_relation_key || p.grad_weight) {
            spread_additive(chunk);
        }
    }

    // what follows from P: gradients of the value's relation table and edge map, and of edge features through them
    void spread_values() {
        const T *weights = this->dropped();
        for (int t = 0; t < n; t++)
            for_bits(mask[t], [&](int l) {
                if (this->removed(t, l)) return;
                const int64_t e = id[t * kWindow + l];
                const T w = weights[t * kWindow + l];
                if (kept_by_relation.data()) {
                    kept_by_relation[int64_t(p.relation[e]) * kWindow + l] += w;
                    used[p.relation[e]] |= 1u << l;
                }
                if (kept_by_feature.data())
                    for (int f = 0; f < F; f++) kept_by_feature[f * kWindow + l] += w * real(p.edge_attr)[e * F + f];
                if (p.grad_edge_attr && p.edge_grad)
                    add_scaled(real(p.grad_edge_attr) + e * F, w, real(p.edge_grad) + ((first_row + l) * H + h) * F, F);
            });
    }

    // what follows from g of the dot score beside dq of the keys
    void spread_steps() {
        for (int t = 0; t < n; t++)
            for_bits(mask[t], [&](int l) {
                if (this->removed(t, l)) return;
                const int64_t e = id[t * kWindow + l];
                const T step = upstream[t * kWindow + l] * T(p.scale);
                if (step_by_relation.data()) {
                    step_by_relation[int64_t(p.relation[e]) * kWindow + l] += step;
                    used[p.relation[e]] |= 1u << l;
                }
                if (step_by_feature.data())
                    for (int f = 0; f < F; f++) step_by_feature[f * kWindow + l] += step * real(p.edge_attr)[e * F + f];
                if (p.grad_edge_attr && p.edge_query)
                    add_scaled(real(p.grad_edge_attr) + e * F, step,
                               real(p.edge_query) + ((first_row + l) * H + h) * F, F);
            });
    }

    void spread_additive(int64_t chunk) {
        T *grad_weight = p.grad_weight ? real(p.grad_weight) + (chunk * H + h) * D : nullptr;
        for (int t = 0; t < n; t++) {
            const T *step = this->additive_step(t, grad_weight);
            for (int c = 0; c < D * kWindow; c++) sum_a[c] += step[c];
            if (!p.grad_relation_key) continue;
            for_bits(mask[t], [&](int l) {
                if (this->removed(t, l)) return;
                const int64_t r = p.relation[id[t * kWindow + l]];
                T *row = real(p.grad_relation_key) + ((chunk * R + r) * H + h) * D;
                for (int c = 0; c < D; c++) row[c] += step[c * kWindow + l];
            });
        }
    }

    void finish(int64_t chunk) {
        if (p.grad_query) this->write_lanes(sum_a.data(), D, this->scales, real(p.grad_query));
        if (p.grad_edge_query) this->write_lanes(step_by_feature.data(), F, nullptr, real(p.grad_edge_query));
        if (p.edge_sum) this->write_lanes(kept_by_feature.data(), F, nullptr, real(p.edge_sum));
        if (!keeps_steps() && !kept_by_relation.data()) return;
        for (int r = 0; r < R; r++)
            for_bits(used[r], [&](int l) {
                const int64_t row = (first_row + l) * H + h, entry = int64_t(r) * kWindow + l;
                if (keeps_steps()) {
                    const T step = step_by_relation[entry];
                    if (p.grad_query)
                        add_scaled(real(p.grad_query) + row * D, step,
                                   real(p.relation_key) + (int64_t(r) * H + h) * D, D);
                    if (p.grad_relation_key)
                        add_scaled(real(p.grad_relation_key) + ((chunk * R + r) * H + h) * D, step,
                                   this->head_row(p.query, first_row + l, D), D);
                }
                if (kept_by_relation.data())
                    add_scaled(real(p.grad_relation_value) + ((chunk * R + r) * H + h) * V, kept_by_relation[entry],
                               this->head_row(p.grad_out, first_row + l, V), V);
            });
    }
};

template <class T>
struct TileByKey : Tile<T, false> {
    using Base = Tile<T, false>;
    using Base::Base, Base::p, Base::n, Base::h, Base::H, Base::D, Base::V, Base::sum_a, Base::sum_b, Base::real;

    void run(int64_t window, int head) {
        run(window, head, [] {});
    }

    // work() for every block, once its g is known
    template <class Work>
    void run(int64_t window, int head, Work work) {
        this->begin(window, head, true);
        std::fill(sum_a.data(), sum_a.data() + D * kWindow, T(0));
        std::fill(sum_b.data(), sum_b.data() + V * kWindow, T(0));
        while (this->next()) {
            this->read_first();
            this->read_second();
            for (int t = 0; t < n; t++) {
                const T *pair = real(p.delta) + 2 * this->other[t] * H + h;
                this->entry_statistic[t] = pair[0], this->entry_delta[t] = pair[H];
            }
            this->find_scores();
            this->find_weights();
            if (p.grad_value) this->spread(this->entries_b, p.grad_out, V, this->dropped(), sum_b.data());
            if (!p.grad_key) continue;
            this->find_upstream();
            this->find_gradients();
            this->spread_scores();
            work();
        }
        if (p.grad_key) this->write_lanes(sum_a.data(), D, this->scales, real(p.grad_key));
        if (p.grad_value) this->write_lanes(sum_b.data(), V, nullptr, real(p.grad_value));
    }
};

}  // namespace GF_NAMESPACE
