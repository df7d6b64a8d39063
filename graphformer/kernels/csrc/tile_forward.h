// The forward pass over one window and head: online softmax down the lanes, weighted values.
#pragma once
#include <vector>

#include "tile.h"

namespace GF_NAMESPACE {

template <class T>
struct TileForward : Tile<T, true> {
    using Base = Tile<T, true>;
    using Base::Base, Base::p, Base::n, Base::h, Base::H, Base::V, Base::F, Base::R, Base::count, Base::first_row;
    using Whole = Vector<T, kLanes<T>>;
    using Base::kInfinity, Base::real, Base::score, Base::weight, Base::statistic, Base::sum_b, Base::mask;
    Array<T> by_relation, by_feature;  // [R][kWindow], [F][kWindow]: sums of P
    T largest[kWindow], total[kWindow];
    std::vector<uint32_t> used;  // lanes that have a relation

    TileForward(const Problem &problem, const Poisoned &poisoned, bool heads_together)
        : Base(problem, poisoned, heads_together) {
        if (p.relation_value) by_relation.resize(int64_t(R) * kWindow), used.resize(R);
        if (p.edge_sum) by_feature.resize(int64_t(F) * kWindow);
    }

    void run(int64_t window, int head) {
        this->begin(window, head, false);
        std::fill(sum_b.data(), sum_b.data() + V * kWindow, T(0));
        if (p.relation_value) {
            std::fill(by_relation.data(), by_relation.data() + int64_t(R) * kWindow, T(0));
            std::fill(used.begin(), used.end(), 0);
        }
        if (p.edge_sum) std::fill(by_feature.data(), by_feature.data() + F * kWindow, T(0));
        std::fill(largest, largest + kWindow, -kInfinity);
        std::fill(total, total + kWindow, T(0));
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
        for (int64_t t = begin; this->removes && t < end; t++) {
            const int64_t e = p.edge_id ? at(p.edge_id, p.wide_id, t) : t;
            T bias = p.bias ? real(p.bias)[e * H + h] : T(0);
            if (p.relation_bias) bias += this->relation_bias[p.relation[e]];
            degree -= bias == -kInfinity;
        }
        return degree ? std::log(T(degree)) : -kInfinity;
    }

    void find_online_weights() {
        T shrink[kWindow], base[kWindow];
        if (grows(shrink)) {
            for (int l = 0; l < kWindow; l++) total[l] *= shrink[l];
            shrink_rows(sum_b.data(), V, shrink);
            if (p.relation_value) shrink_rows(by_relation.data(), R, shrink);
            if (p.edge_sum) shrink_rows(by_feature.data(), F, shrink);
        }
        for (int l = 0; l < kWindow; l++) base[l] = largest[l] == -kInfinity ? T(0) : largest[l];
        for (int lane = 0; lane < kWindow; lane += kLanes<T>) {
            const Whole minus = load<Whole>(base + lane);
            Whole sum = load<Whole>(total + lane);
            for (int t = lane; t < n * kWindow; t += kWindow) {
                const Whole w = exponentials<T>(load<Whole>(score.data() + t) - minus);
                sum += w;
                store(weight.data() + t, w);
            }
            store(total + lane, sum);
        }
    }

    // Raises what is taken off the scores of each lane where one exceeds it by much; false where nothing changed.
    bool grows(T *shrink) {
        constexpr T kMuch = 16;
        constexpr int kVectors = kWindow / kLanes<T>;
        Whole peak[kVectors];
#pragma GCC unroll 16
        for (int i = 0; i < kVectors; i++) peak[i] = load<Whole>(largest + i * kLanes<T>);
        for (int t = 0; t < n; t++)
#pragma GCC unroll 16
            for (int i = 0; i < kVectors; i++) {
                const Whole s = load<Whole>(score.data() + t * kWindow + i * kLanes<T>);
                peak[i] = s > peak[i] ? s : peak[i];
            }
        T top[kWindow];
#pragma GCC unroll 16
        for (int i = 0; i < kVectors; i++) store(top + i * kLanes<T>, peak[i]);
        bool any = false;
        for (int l = 0; l < kWindow; l++) any |= top[l] > largest[l] + kMuch;
        for (int l = 0; any && l < kWindow; l++) {
            const T raised = top[l] > largest[l] + kMuch ? top[l] : largest[l];
            shrink[l] = raised == -kInfinity ? T(1) : exponential(largest[l] - raised);
            largest[l] = raised;
        }
        return any;
    }

    static void shrink_rows(T *panel, int64_t rows, const T *factor) {
        for (int64_t c = 0; c < rows; c++)
            for (int l = 0; l < kWindow; l++) panel[c * kWindow + l] *= factor[l];
    }

    void sum_by_relation(const T *weights) {
        for (int t = 0; t < n; t++)
            for_bits(mask[t], [&](int l) {
                if (this->removed(t, l)) return;
                const int32_t r = this->relation[t * kWindow + l];
                by_relation[int64_t(r) * kWindow + l] += weights[t * kWindow + l];
                used[r] |= 1u << l;
            });
    }

    void sum_by_feature(const T *weights) {
        for (int t = 0; t < n; t++)
            for_bits(mask[t], [&](int l) {
                if (this->removed(t, l)) return;
                const T *attr = real(p.edge_attr) + this->id[t * kWindow + l] * F;
                for (int f = 0; f < F; f++) by_feature[f * kWindow + l] += weights[t * kWindow + l] * attr[f];
            });
    }

    void finish() {
        T factor[kWindow];
        std::fill(factor, factor + kWindow, T(1));
        if (p.normalizer == kSoftmax)
            for (int l = 0; l < kWindow; l++) {
                const bool empty = total[l] == 0;
                statistic[l] = empty ? -kInfinity : largest[l] + std::log(total[l]);
                factor[l] = empty ? T(0) : 1 / total[l];
            }
        for (int l = 0; l < count; l++) real(p.statistic)[(first_row + l) * H + h] = statistic[l];
        this->write_lanes(sum_b.data(), V, factor, real(p.out));
        if (p.edge_sum) this->write_lanes(by_feature.data(), F, factor, real(p.edge_sum));
        for (int r = 0; r < int(used.size()); r++)
            for_bits(used[r], [&](int l) {
                const T weight = by_relation[int64_t(r) * kWindow + l] * factor[l];
                add_scaled(real(p.out) + ((first_row + l) * H + h) * V, weight,
                           real(p.relation_value) + (int64_t(r) * H + h) * V, V);
            });
    }
};

}  // namespace GF_NAMESPACE
