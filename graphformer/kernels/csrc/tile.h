// One window and head: scores, weights and gradients of a block of entries, lane by lane.
#pragma once
#include <cmath>

#include "activations.h"
#include "window.h"

namespace GF_NAMESPACE {

template <class T, bool kByQuery>
struct Tile : Window<T, kByQuery> {
    using Base = Window<T, kByQuery>;
    using Base::p, Base::H, Base::D, Base::V, Base::F, Base::R, Base::h, Base::n, Base::first_row, Base::other;
    using Base::mask, Base::every_mask, Base::bad, Base::any_bad, Base::id, Base::relation, Base::keep, Base::removes;
    using Base::kInfinity, Base::lanes_a, Base::lanes_b, Base::entries_a, Base::entries_b, Base::real, Base::head_row;

    using Whole = Vector<T, kLanes<T>>;
    const bool adds_relations;  // pair by pair, to the additive score
    // blocks [kEntries][kWindow]: alpha in weight, P in kept, d alpha and then g in upstream
    Array<T> score, weight, kept, safe, upstream;
    Array<T> sum_a, sum_b, pair_lanes;           // [D or V][kWindow]
    Array<T> relation_score, relation_upstream;  // [R][kWindow], by query
    Array<T> relation_bias;                      // [R], of this head
    T statistic[kWindow], delta[kWindow];
    T entry_statistic[kEntries], entry_delta[kEntries];
    T scales[kWindow];  // of sum_a

    Tile(const Problem &problem, const Poisoned &poisoned, bool heads_together)
        : Base(problem, poisoned, heads_together),
          adds_relations(problem.score != kDot && problem.relation_key) {
        for (auto *block : {&score, &weight, &kept, &safe, &upstream}) block->resize(kEntries * kWindow);
        sum_a.resize(int64_t(D) * kWindow);
        sum_b.resize(int64_t(V) * kWindow);
        if (p.score != kDot) pair_lanes.resize(int64_t(D) * kWindow);
        if (kByQuery && p.relation_key && p.score == kDot) relation_score.resize(int64_t(R) * kWindow);
        if (kByQuery && p.relation_value) relation_upstream.resize(int64_t(R) * kWindow);
        if (p.relation_bias) relation_bias.resize(R);
        std::fill(scales, scales + kWindow, p.score == kDot ? T(p.scale) : T(1));
    }

    void begin(int64_t window, int head, bool reads_second) {
        Base::begin(window, head, reads_second);
        if (relation_score.data())
            multiply<T, false>(real(p.relation_key) + h * D, int64_t(H) * D, R, D, lanes_a, relation_score, false);
        if (relation_upstream.data() && reads_second)
            multiply<T, false>(real(p.relation_value) + h * V, int64_t(H) * V, R, V, lanes_b, relation_upstream, false);
        for (int r = 0; relation_bias.data() && r < R; r++)
            relation_bias[r] = real(p.relation_bias)[int64_t(r) * H + h];
    }

    int64_t query_of(int t, int l) const { return kByQuery ? first_row + l : other[t]; }
    // ---------------------------------------------------------------- scores

    void find_scores() {
        if (p.score == kDot) multiply<T, false>(entries_a, D, n, D, lanes_a.data(), score.data(), false);
        else additive_scores();
        if (p.relation_key && p.score == kDot) add_relation_scores();
        if (p.edge_query) add_edge_terms(p.edge_query, T(p.scale), score.data());
        if (any_bad && p.score == kDot) mend_scores();
        if (removes) add_bias();
        if (every_mask != kAllLanes) blend(score.data(), -kInfinity);
    }

    // `instead` where a lane does not use an entry.
    void blend(T *block, T instead) const {
        for (int t = 0; t < n; t++) {
            if (mask[t] == kAllLanes) continue;
            T *row = block + t * kWindow;
            for (int l = 0; l < kWindow; l++) row[l] = mask[t] >> l & 1 ? row[l] : instead;
        }
    }

    void add_relation_scores() {
        for (int t = 0; t < n; t++) {
            const int32_t *r = relation + t * kWindow;
            T *row = score.data() + t * kWindow;
            if (kByQuery)
                for (int l = 0; l < kWindow; l++) row[l] += relation_score[r[l] * kWindow + l];
            else
                for_bits(mask[t], [&](int l) {
                    const T *extra = real(p.relation_key) + (int64_t(r[l]) * H + h) * D;
                    row[l] += T(p.scale) * dot(entries_a + t * D, extra, D);
                });
        }
    }

    // factor * nodes[i, h] . a(e): for scores and for the gradients of weights
    void add_edge_terms(const void *nodes, T factor, T *block) const {
        for (int t = 0; t < n; t++)
            for_bits(mask[t], [&](int l) {
                const T *row = real(nodes) + (query_of(t, l) * H + h) * F;
                block[t * kWindow + l] += factor * dot(row, real(p.edge_attr) + id[t * kWindow + l] * F, F);
            });
    }

    void mend_scores() {
        for (int t = 0; t < n; t++)
            if (bad[t])
                for_bits(mask[t], [&](int l) { score[t * kWindow + l] = dot_of_pair(t, l); });
    }

    T dot_of_pair(int t, int l) {
        const T *entry = head_row(this->first_base(), other[t], D);
        T sum = 0;
        for (int c = 0; c < D; c++) sum += entry[c] * lanes_a[c * kWindow + l];
        const int64_t at_pair = t * kWindow + l;
        if (p.relation_key) {
            const T *extra = real(p.relation_key) + (int64_t(relation[at_pair]) * H + h) * D;
            for (int c = 0; c < D; c++)
                sum += extra[c] * (kByQuery ? lanes_a[c * kWindow + l] : T(p.scale) * entry[c]);
        }
        if (p.edge_query) {
            const T *row = real(p.edge_query) + (query_of(t, l) * H + h) * F;
            sum += T(p.scale) * dot(row, real(p.edge_attr) + id[at_pair] * F, F);
        }
        return sum;
    }

    void add_bias() {
        for (int t = 0; t < n; t++) {
            T *row = score.data() + t * kWindow, sum[kWindow] = {};
            const int64_t *e = id + t * kWindow;
            const int32_t *r = relation + t * kWindow;
            if (p.bias)
                for (int l = 0; l < kWindow; l++) sum[l] = real(p.bias)[e[l] * H + h];
            if (p.relation_bias)
                for (int l = 0; l < kWindow; l++) sum[l] += relation_bias[r[l]];
            for (int l = 0; l < kWindow; l++) row[l] = sum[l] == -kInfinity ? -kInfinity : row[l] + sum[l];
        }
    }

    // q + k of an entry and every lane, with what is added pair by pair, in pair_lanes.
    const T *additive_inner(int t) {
        T *inner = pair_lanes.data();
        const T *entry = entries_a + t * D;
        for (int c = 0; c < D; c++)
            for (int l = 0; l < kWindow; l++) inner[c * kWindow + l] = entry[c] + lanes_a[c * kWindow + l];
        if (adds_relations)
            for_bits(mask[t], [&](int l) {
                const T *extra = real(p.relation_key) + (int64_t(relation[t * kWindow + l]) * H + h) * D;
                for (int c = 0; c < D; c++) inner[c * kWindow + l] += extra[c];
            });
        return inner;
    }

    T activate(T x) const { return p.score == kTanh ? Tanh<T>{}.value(x) : LeakyRelu<T>{T(p.slope)}.value(x); }
    T slope_at(T x, T f) const { return p.score == kTanh ? 1 - f * f : LeakyRelu<T>{T(p.slope)}.slope(x); }

    void additive_scores() {
        const T slope = T(p.slope);
        for (int t = 0; t < n; t++) {
            const T *inner = additive_inner(t);
            T sum[kWindow] = {};
            for (int c = 0; c < D; c++) {
                const T w = p.weight ? real(p.weight)[h * D + c] : T(1);
                const T *x = inner + c * kWindow;
                if (p.score == kLeakyRelu)
                    for (int l = 0; l < kWindow; l++) sum[l] += w * (x[l] > 0 ? x[l] : slope * x[l]);
                else
                    for (int l = 0; l < kWindow; l++) sum[l] += w * std::tanh(x[l]);
            }
            std::copy(sum, sum + kWindow, score.data() + t * kWindow);
        }
    }

    // ---------------------------------------------------------------- weights

    // What belongs to the query of each pair, from a lane on: the lane's own by query, the entry's by key.
    Whole of_query(const T *by_lane, const T *by_entry, int t, int lane) const {
        return kByQuery ? load<Whole>(by_lane + lane) : by_entry[t] + Whole{};
    }
    T statistic_of(int t, int l) const { return kByQuery ? statistic[l] : entry_statistic[t]; }

    // alpha of relu and sigmoid; the statistic is the log of the degree
    T weight_of(T s, T log_degree) const {
        if (s == -kInfinity) return 0;
        if (p.normalizer == kRelu) return (s > 0 || s != s ? s : T(0)) * exponential(-log_degree);
        return 1 / (1 + exponential(log_degree - s));
    }

    // and their g
    T score_grad(T s, T alpha, T up, T log_degree) const {
        return p.normalizer == kRelu ? up * (s > 0 ? exponential(-log_degree) : T(0)) : up * alpha * (1 - alpha);
    }

    // alpha from scores and statistics
    void find_weights() {
        for (int t = 0; t < n; t++) {
            const T *s = score.data() + t * kWindow;
            T *w = weight.data() + t * kWindow;
            if (p.normalizer == kSoftmax)
#pragma GCC unroll 2
                for (int lane = 0; lane < kWindow; lane += kLanes<T>) {
                    const Whole base = of_query(statistic, entry_statistic, t, lane);
                    store(w + lane, exponentials<T>(load<Whole>(s + lane) - (base == -kInfinity ? Whole{} : base)));
                }
            else
                for (int l = 0; l < kWindow; l++) w[l] = weight_of(s[l], statistic_of(t, l));
            // A statistic may be NaN for the sake of another pair.
            if (removes)
                for (int l = 0; l < kWindow; l++) w[l] = s[l] == -kInfinity ? T(0) : w[l];
        }
        if (every_mask != kAllLanes) blend(weight.data(), T(0));
    }

    bool removed(int t, int l) const { return removes && score[t * kWindow + l] == -kInfinity; }

    // P: alpha after dropout
    const T *dropped() {
        if (!p.has_dropout) return weight.data();
        for (int c = 0; c < n * kWindow; c++) kept[c] = weight[c] * keep[c];
        return kept.data();
    }

    // sum += the entries' rows, each times its weight in each lane.
    void spread(const T *rows, const void *base, int length, const T *weights, T *sum) {
        if (!any_bad) return multiply<T, true>(rows, length, length, n, weights, sum, true);
        // Rows that are not finite are zero here, and so must be their weights: infinity times zero is no zero.
        std::copy(weights, weights + n * kWindow, safe.data());
        for (int t = 0; t < n; t++)
            if (bad[t]) std::fill(safe.data() + t * kWindow, safe.data() + (t + 1) * kWindow, T(0));
        multiply<T, true>(rows, length, length, n, safe.data(), sum, true);
        for (int t = 0; t < n; t++)
            if (bad[t]) {
                const T *row = head_row(base, other[t], length);
                for_bits(mask[t], [&](int l) {
                    if (removed(t, l)) return;
                    for (int c = 0; c < length; c++) sum[c * kWindow + l] += weights[t * kWindow + l] * row[c];
                });
            }
    }

    // ---------------------------------------------------------------- gradients

    // d alpha of the block's pairs, dropout taken in
    void find_upstream() {
        T *up = upstream.data();
        multiply<T, false>(entries_b, V, n, V, lanes_b.data(), up, false);
        if (p.relation_value)
            for (int t = 0; t < n; t++) {
                const int32_t *r = relation + t * kWindow;
                if (kByQuery)
                    for (int l = 0; l < kWindow; l++) up[t * kWindow + l] += relation_upstream[r[l] * kWindow + l];
                else
                    for_bits(mask[t], [&](int l) {
                        const T *extra = real(p.relation_value) + (int64_t(r[l]) * H + h) * V;
                        up[t * kWindow + l] += dot(entries_b + t * V, extra, V);
                    });
            }
        if (p.edge_grad) add_edge_terms(p.edge_grad, T(1), up);
        if (any_bad) mend_upstream();
        if (p.has_dropout)
            for (int c = 0; c < n * kWindow; c++) up[c] *= keep[c];
    }

    void mend_upstream() {
        for (int t = 0; t < n; t++) {
            if (!bad[t]) continue;
            const T *row = head_row(this->second_base(), other[t], V);
            for_bits(mask[t], [&](int l) {
                const int64_t at_pair = t * kWindow + l;
                T sum = 0;
                for (int c = 0; c < V; c++) sum += row[c] * lanes_b[c * kWindow + l];
                if (p.relation_value) {
                    const T *extra = real(p.relation_value) + (int64_t(relation[at_pair]) * H + h) * V;
                    for (int c = 0; c < V; c++) sum += extra[c] * (kByQuery ? lanes_b[c * kWindow + l] : row[c]);
                }
                if (p.edge_grad) {
                    const T *grad = real(p.edge_grad) + (query_of(t, l) * H + h) * F;
                    sum += dot(grad, real(p.edge_attr) + id[at_pair] * F, F);
                }
                upstream[at_pair] = sum;
            });
        }
    }

    // g from d alpha, in its place; exactly zero off the mask and for removed pairs
    void find_gradients() {
        for (int t = 0; t < n; t++) {
            const T *s = score.data() + t * kWindow, *alpha = weight.data() + t * kWindow;
            T *g = upstream.data() + t * kWindow;
            if (p.normalizer == kSoftmax)
#pragma GCC unroll 2
                for (int lane = 0; lane < kWindow; lane += kLanes<T>) {
                    const Whole above = load<Whole>(g + lane) - of_query(delta, entry_delta, t, lane);
                    store(g + lane, load<Whole>(alpha + lane) * above);
                }
            else
                for (int l = 0; l < kWindow; l++) g[l] = score_grad(s[l], alpha[l], g[l], statistic_of(t, l));
            if (removes)
                for (int l = 0; l < kWindow; l++) g[l] = s[l] == -kInfinity ? T(0) : g[l];
        }
        if (every_mask != kAllLanes) blend(upstream.data(), T(0));
    }

    // g is the gradient of a pair's bias, and summed that of its relation's.
    void spread_bias(int64_t chunk) {
        for (int t = 0; t < n; t++) {
            const T *g = upstream.data() + t * kWindow;  // zero off the mask
            if (p.grad_bias)
                for_bits(mask[t], [&](int l) { real(p.grad_bias)[id[t * kWindow + l] * H + h] = g[l]; });
            if (!p.grad_relation_bias) continue;
            T *table = real(p.grad_relation_bias) + chunk * R * H + h;
            for (int l = 0; l < kWindow; l++) table[int64_t(relation[t * kWindow + l]) * H] += g[l];
        }
    }

    // The gradient of q + k of an entry and every lane, into pair_lanes; and of the score's weight.
    const T *additive_step(int t, T *grad_weight) {
        additive_inner(t);
        const T *g = upstream.data() + t * kWindow;
        uint32_t live = mask[t];
        if (removes) for_bits(mask[t], [&](int l) { live &= ~(uint32_t(removed(t, l)) << l); });
        for (int c = 0; c < D; c++) {
            const T w = p.weight ? real(p.weight)[h * D + c] : T(1);
            T *x = pair_lanes.data() + c * kWindow, sum = 0;
            for (int l = 0; l < kWindow; l++) {
                const bool lives = live >> l & 1;
                const T f = activate(x[l]), slope = slope_at(x[l], f);
                if (grad_weight) sum += lives ? g[l] * f : T(0);
                x[l] = lives ? g[l] * w * slope : T(0);
            }
            if (grad_weight) grad_weight[c] += sum;
        }
        return pair_lanes.data();
    }

    // sum_a += the step of each pair through its score: g * entry (the scale follows at the end), or the additive step
    void spread_scores() {
        if (p.score == kDot) return spread(entries_a, this->first_base(), D, upstream.data(), sum_a.data());
        for (int t = 0; t < n; t++) {
            const T *step = additive_step(t, nullptr);
            for (int c = 0; c < D * kWindow; c++) sum_a[c] += step[c];
        }
    }
};

}  // namespace GF_NAMESPACE
