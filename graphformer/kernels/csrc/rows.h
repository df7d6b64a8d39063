// The row loops: a query walks its keys (forward, gradients by query), a key walks its queries (gradients by key).
// Compiled once for each instruction set, in the namespace GF_NAMESPACE. The letters follow DESIGN.md section 6.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "problem.h"

namespace GF_NAMESPACE {

constexpr int kBlock = 64;     // edges whose scores are held at once
constexpr int kPrefetch = 8;   // edges ahead

// e^x to 2 ulp, straight down vector lanes: 0 below the smallest normal result, NaN for NaN.
inline float exponential(float x) {
    const float shifted = x * 1.44269504088896341f + 12582912.0f;  // round to nearest by the magic number 1.5 * 2^23
    const float n = shifted - 12582912.0f;
    const float f = (x - n * 0.693145751953125f) - n * 1.428606765330187e-06f;
    float p = 1.9875691500e-4f;
    p = p * f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * f * f + f + 1.0f;
    uint32_t bits;
    std::memcpy(&bits, &shifted, 4);
    bits = (bits - 0x4B400000u + 127u) << 23;
    float power;
    std::memcpy(&power, &bits, 4);
    const float result = p * power;
    return x < -87.3f ? 0.0f : x > 88.0f ? std::numeric_limits<float>::infinity() : result;
}
inline double exponential(double x) { return std::exp(x); }

template <class T>
inline T dot(const T *a, const T *b, int n) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int c = 0; c < n; c++) sum += a[c] * b[c];
    return sum;
}

template <class T>
inline void add_scaled(T *a, T w, const T *b, int n) {
#pragma omp simd
    for (int c = 0; c < n; c++) a[c] += w * b[c];
}

inline int64_t at(const void *array, bool wide, int64_t position) {
    return wide ? static_cast<const int64_t *>(array)[position] : static_cast<const int32_t *>(array)[position];
}

// Philox4x32-10: see graphformer/_philox.py.
inline void philox(uint64_t seed, uint64_t edge, uint32_t group, uint32_t draw[4]) {
    uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
    uint32_t c0 = uint32_t(edge), c1 = uint32_t(edge >> 32), c2 = group, c3 = 0;
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = uint64_t(0xD2511F53u) * c0, p1 = uint64_t(0xCD9E8D57u) * c2;
        c0 = uint32_t(p1 >> 32) ^ c1 ^ k0;
        c1 = uint32_t(p1);
        c2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
        c3 = uint32_t(p0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    draw[0] = c0, draw[1] = c1, draw[2] = c2, draw[3] = c3;
}

// Rows of the inputs as `real`: where they are stored, or converted into a buffer.
template <class T>
inline const T *read_row(const void *base, int32_t type, int64_t row, int length, T *buffer) {
    if constexpr (std::is_same_v<T, double>) return static_cast<const double *>(base) + row * length;
    else {
        if (type == kFloat32) return static_cast<const float *>(base) + row * length;
        const uint16_t *source = static_cast<const uint16_t *>(base) + row * length;
        if (type == kBFloat16) {
            for (int c = 0; c < length; c++) {
                const uint32_t bits = uint32_t(source[c]) << 16;
                std::memcpy(buffer + c, &bits, 4);
            }
        } else {
            for (int c = 0; c < length; c++) {
                _Float16 half;
                std::memcpy(&half, source + c, 2);
                buffer[c] = float(half);
            }
        }
        return buffer;
    }
}

template <class T>
struct Buffers {
    std::vector<T> query, key, value, grad, sum_key, sum_value, score, weight, scale, upstream, row, features, inner;
    Buffers(const Problem &p) {
        const size_t hd = size_t(p.heads) * p.width, hv = size_t(p.heads) * p.value_width;
        const size_t hf = size_t(p.heads) * p.num_features;
        for (auto *b : {&query, &key, &sum_key, &inner}) b->resize(hd);
        for (auto *b : {&value, &grad, &sum_value}) b->resize(hv);
        for (auto *b : {&score, &weight, &scale, &upstream}) b->resize(size_t(kBlock) * p.heads);
        row.resize(3 * size_t(p.heads));
        features.resize(2 * hf);
    }
};

// W is the width of query, key and value where it is known at compile time, else 0.
template <class T, int W>
struct Rows {
    const Problem &p;
    Buffers<T> b;
    const int H, D, V, F;
    const bool removes, has_key_extras;
    static constexpr T kInfinity = std::numeric_limits<T>::infinity();

    explicit Rows(const Problem &problem)
        : p(problem),
          b(problem),
          H(problem.heads),
          D(W ? W : problem.width),
          V(W ? W : problem.value_width),
          F(problem.num_features),
          removes(problem.bias || problem.relation_bias),
          has_key_extras(problem.relation_key || problem.edge_key) {}

    static const T *real(const void *base) { return static_cast<const T *>(base); }
    static T *real(void *base) { return static_cast<T *>(base); }

    int64_t id(const void *ids, int64_t position) const { return ids ? at(ids, p.wide_id, position) : position; }

    void prefetch(const void *base, const void *index, int64_t position, int64_t end, int length) const {
        if (position >= end) return;
        const size_t size = p.input_type == kFloat64 ? 8 : p.input_type == kFloat32 ? 4 : 2;
        const char *start = static_cast<const char *>(base) + at(index, p.wide_index, position) * length * size;
        for (size_t offset = 0; offset < length * size; offset += 64) __builtin_prefetch(start + offset);
    }

    // k[j] + relation_key + a @ edge_key (the last for the additive score)
    const T *key_row(const T *key, int64_t e) {
        if (!has_key_extras) return key;
        const int n = H * D;
        T *sum = b.sum_key.data();
        std::copy(key, key + n, sum);
        if (p.relation_key) add_scaled(sum, T(1), real(p.relation_key) + int64_t(p.relation[e]) * n, n);
        if (p.edge_key)
            for (int f = 0; f < F; f++) add_scaled(sum, real(p.edge_attr)[e * F + f], real(p.edge_key) + int64_t(f) * n, n);
        return sum;
    }

    // v[j] + relation_value; the edge features' part is taken through edge_sum and edge_grad
    const T *value_row(const T *value, int64_t e) {
        if (!p.relation_value) return value;
        const int n = H * V;
        T *sum = b.sum_value.data();
        const T *table = real(p.relation_value) + int64_t(p.relation[e]) * n;
        for (int c = 0; c < n; c++) sum[c] = value[c] + table[c];
        return sum;
    }

    T activate(T x) const { return p.score == kTanh ? std::tanh(x) : x > 0 ? x : T(p.slope) * x; }
    T slope(T x, T f) const { return p.score == kTanh ? 1 - f * f : x > 0 ? T(1) : T(p.slope); }

    T bias_of(int64_t e, int h) const {
        T sum = 0;
        if (p.bias) sum += real(p.bias)[e * H + h];
        if (p.relation_bias) sum += real(p.relation_bias)[int64_t(p.relation[e]) * H + h];
        return sum;
    }

    void scores_of(const T *query, const T *key, const T *edge_query, int64_t e, T *score) const {
        if (p.score == kDot) {
            const T scale = T(p.scale);
            for (int h = 0; h < H; h++) score[h] = scale * dot(query + h * D, key + h * D, D);
            if (edge_query)
                for (int h = 0; h < H; h++) score[h] += scale * dot(edge_query + h * F, real(p.edge_attr) + e * F, F);
        } else {
            const T *weight = real(p.weight);
            for (int h = 0; h < H; h++) {
                T sum = 0;
                const T *q = query + h * D, *k = key + h * D;
                if (p.score == kLeakyRelu) {
                    const T slope = T(p.slope);
#pragma omp simd reduction(+ : sum)
                    for (int c = 0; c < D; c++) {
                        const T x = q[c] + k[c];
                        sum += (weight ? weight[h * D + c] : T(1)) * (x > 0 ? x : slope * x);
                    }
                } else {
                    for (int c = 0; c < D; c++) sum += (weight ? weight[h * D + c] : T(1)) * std::tanh(q[c] + k[c]);
                }
                score[h] = sum;
            }
        }
        if (removes)
            for (int h = 0; h < H; h++) {
                const T bias = bias_of(e, h);
                score[h] = bias == -kInfinity ? -kInfinity : score[h] + bias;
            }
    }

    // alpha from the score and the row's statistic, for relu and sigmoid
    T weight_of(T score, T statistic) const {
        if (score == -kInfinity) return 0;
        if (p.normalizer == kRelu) return (score > 0 || score != score ? score : T(0)) * exponential(-statistic);
        return 1 / (1 + exponential(statistic - score));
    }

    void dropout_scales(int64_t e, T *scale) const {
        const uint64_t threshold = uint64_t(p.dropout * 4294967296.0);
        const T grow = T(1 / (1 - p.dropout));
        uint32_t draw[4];
        for (int h = 0; h < H; h++) {
            if (h % 4 == 0) philox(p.seed, uint64_t(e), uint32_t(h / 4), draw);
            scale[h] = draw[h % 4] >= threshold ? grow : T(0);
        }
    }

    void weights_of(const T *score, const T *statistic, T *weight) const {
        if (p.normalizer == kSoftmax) {
#pragma omp simd
            for (int h = 0; h < H; h++)
                weight[h] = exponential(score[h] - (statistic[h] == -kInfinity ? T(0) : statistic[h]));
        } else {
            for (int h = 0; h < H; h++) weight[h] = weight_of(score[h], statistic[h]);
        }
    }

    // For relu and sigmoid: log of the number of pairs that are not removed.
    void count_rows(int64_t begin, int64_t end, T *statistic) const {
        for (int h = 0; h < H; h++) {
            int64_t count = end - begin;
            if (removes) {
                count = 0;
                for (int64_t t = begin; t < end; t++) count += bias_of(id(p.edge_id, t), h) != -kInfinity;
            }
            statistic[h] = count ? std::log(T(count)) : -kInfinity;
        }
    }

    void block_scores(int64_t i, const T *query, int64_t start, int64_t stop, int64_t end) {
        const T *edge_query = p.edge_query ? real(p.edge_query) + i * H * F : nullptr;
        for (int64_t t = start; t < stop; t++) {
            prefetch(p.key, p.key_index, t + kPrefetch, end, H * D);
            const int64_t e = id(p.edge_id, t);
            const T *key = read_row<T>(p.key, p.input_type, at(p.key_index, p.wide_index, t), H * D, b.key.data());
            scores_of(query, key_row(key, e), edge_query, e, b.score.data() + (t - start) * H);
        }
    }

    void forward(int64_t i) {
        const int64_t begin = p.query_ptr[i], end = p.query_ptr[i + 1];
        const T *query = read_row<T>(p.query, p.input_type, i, H * D, b.query.data());
        T *out = real(p.out) + i * H * V, *statistic = real(p.statistic) + i * H;
        T *features = p.edge_sum ? real(p.edge_sum) + i * H * F : nullptr;
        T *largest = b.row.data(), *total = largest + H, *shrink = total + H;
        std::fill(out, out + H * V, T(0));
        if (features) std::fill(features, features + H * F, T(0));
        std::fill(largest, largest + H, -kInfinity);
        std::fill(total, total + H, T(0));
        const bool softmax = p.normalizer == kSoftmax;
        if (!softmax) count_rows(begin, end, statistic);
        for (int64_t start = begin; start < end; start += kBlock) {
            const int64_t stop = std::min(start + kBlock, end);
            const int n = int(stop - start);
            block_scores(i, query, start, stop, end);
            T *score = b.score.data(), *weight = b.weight.data();
            if (softmax) {
                for (int h = 0; h < H; h++) shrink[h] = largest[h];
                for (int t = 0; t < n; t++)
                    for (int h = 0; h < H; h++) {
                        const T s = score[t * H + h];
                        largest[h] = s > largest[h] || s != s ? s : largest[h];
                    }
                for (int h = 0; h < H; h++) {
                    const T base = largest[h] == -kInfinity ? T(0) : largest[h];
                    shrink[h] = exponential(shrink[h] - base);
                    total[h] *= shrink[h];
                }
                if (start > begin) rescale(out, features, shrink);
                for (int h = 0; h < H; h++) shrink[h] = largest[h] == -kInfinity ? T(0) : largest[h];
                for (int t = 0; t < n; t++) {
#pragma omp simd
                    for (int h = 0; h < H; h++) {
                        weight[t * H + h] = exponential(score[t * H + h] - shrink[h]);
                        total[h] += weight[t * H + h];
                    }
                }
            } else {
                for (int t = 0; t < n; t++)
                    weights_of(score + t * H, statistic, weight + t * H);
            }
            if (p.has_dropout)
                for (int t = 0; t < n; t++) {
                    T *scale = b.scale.data();
                    dropout_scales(id(p.edge_id, start + t), scale);
                    for (int h = 0; h < H; h++) weight[t * H + h] *= scale[h];
                }
            for (int t = 0; t < n; t++) {
                prefetch(p.value, p.key_index, start + t + kPrefetch, end, H * V);
                const int64_t e = id(p.edge_id, start + t);
                const int64_t j = at(p.key_index, p.wide_index, start + t);
                const T *value = value_row(read_row<T>(p.value, p.input_type, j, H * V, b.value.data()), e);
                for (int h = 0; h < H; h++) {
                    if (removes && score[t * H + h] == -kInfinity) continue;
                    add_scaled(out + h * V, weight[t * H + h], value + h * V, V);
                    if (features) add_scaled(features + h * F, weight[t * H + h], real(p.edge_attr) + e * F, F);
                }
            }
        }
        if (!softmax) return;
        for (int h = 0; h < H; h++) {
            const bool empty = total[h] == 0;
            statistic[h] = empty ? -kInfinity : largest[h] + std::log(total[h]);
            shrink[h] = empty ? T(0) : 1 / total[h];
        }
        rescale(out, features, shrink);
    }

    void rescale(T *out, T *features, const T *factor) const {
        for (int h = 0; h < H; h++) {
            for (int c = 0; c < V; c++) out[h * V + c] *= factor[h];
            if (features)
                for (int f = 0; f < F; f++) features[h * F + f] *= factor[h];
        }
    }

    // d alpha of a pair, dropout taken in; and its dropout scales, in b.scale
    void upstream_of(const T *grad, const T *value, const T *edge_grad, int64_t e, const T *score, T *upstream) {
        T *scale = b.scale.data();
        if (p.has_dropout) dropout_scales(e, scale);
        for (int h = 0; h < H; h++) {
            if (removes && score[h] == -kInfinity) {
                upstream[h] = 0;
                continue;
            }
            T sum = dot(grad + h * V, value + h * V, V);
            if (edge_grad) sum += dot(edge_grad + h * F, real(p.edge_attr) + e * F, F);
            upstream[h] = p.has_dropout ? sum * scale[h] : sum;
        }
    }

    // g of a pair from alpha, d alpha and the row's delta
    T score_grad(T score, T alpha, T upstream, T statistic, T delta) const {
        if (p.normalizer == kSoftmax) return alpha * (upstream - delta);
        if (p.normalizer == kRelu) return upstream * (score > 0 ? exponential(-statistic) : T(0));
        return upstream * alpha * (1 - alpha);
    }

    void backward_by_query(int64_t i, int64_t chunk) {
        const int64_t begin = p.query_ptr[i], end = p.query_ptr[i + 1];
        const T *query = read_row<T>(p.query, p.input_type, i, H * D, b.query.data());
        const T *grad = read_row<T>(p.grad_out, p.input_type, i, H * V, b.grad.data());
        const T *statistic = real(p.statistic) + i * H;
        T *delta = real(p.delta) + i * H;
        const bool sums_delta = p.normalizer == kSoftmax && !p.total;
        for (int h = 0; h < H; h++)
            delta[h] = p.total ? dot(grad + h * V, real(p.total) + (i * H + h) * V, V) : T(0);
        if (p.grad_query) std::fill(real(p.grad_query) + i * H * D, real(p.grad_query) + (i + 1) * H * D, T(0));
        if (p.edge_sum) std::fill(real(p.edge_sum) + i * H * F, real(p.edge_sum) + (i + 1) * H * F, T(0));
        if (p.grad_edge_query)
            std::fill(real(p.grad_edge_query) + i * H * F, real(p.grad_edge_query) + (i + 1) * H * F, T(0));
        const bool one_block = end - begin <= kBlock;
        for (int sweep = sums_delta ? 0 : 1; sweep < 2; sweep++)
            for (int64_t start = begin; start < end; start += kBlock) {
                const int64_t stop = std::min(start + kBlock, end);
                if (sweep == 0 || !one_block || !sums_delta) block_gradients(i, query, grad, start, stop, end);
                for (int64_t t = start; t < stop; t++) {
                    const T *alpha = b.weight.data() + (t - start) * H, *up = b.upstream.data() + (t - start) * H;
                    if (sweep == 0)
                        for (int h = 0; h < H; h++) delta[h] += alpha[h] * up[h];
                    else
                        spread_by_query(i, chunk, query, grad, t, b.score.data() + (t - start) * H, alpha, up, statistic, delta);
                }
            }
    }

    // alpha and d alpha of a block of pairs
    void block_gradients(int64_t i, const T *query, const T *grad, int64_t start, int64_t stop, int64_t end) {
        block_scores(i, query, start, stop, end);
        const T *statistic = real(p.statistic) + i * H;
        const T *edge_grad = p.edge_grad ? real(p.edge_grad) + i * H * F : nullptr;
        for (int64_t t = start; t < stop; t++) {
            prefetch(p.value, p.key_index, t + kPrefetch, end, H * V);
            const int64_t e = id(p.edge_id, t), j = at(p.key_index, p.wide_index, t);
            const T *value = value_row(read_row<T>(p.value, p.input_type, j, H * V, b.value.data()), e);
            const T *score = b.score.data() + (t - start) * H;
            upstream_of(grad, value, edge_grad, e, score, b.upstream.data() + (t - start) * H);
            weights_of(score, statistic, b.weight.data() + (t - start) * H);
        }
    }

    void spread_by_query(int64_t i, int64_t chunk, const T *query, const T *grad, int64_t t, const T *score, const T *alpha,
                         const T *upstream, const T *statistic, const T *delta) {
        const int64_t e = id(p.edge_id, t);
        const int64_t r = p.relation ? p.relation[e] : 0;
        const T *attr = F ? real(p.edge_attr) + e * F : nullptr;
        T *grad_attr = p.grad_edge_attr ? real(p.grad_edge_attr) + e * F : nullptr;
        if (grad_attr) std::fill(grad_attr, grad_attr + F, T(0));
        const bool wants_values = p.edge_sum || p.grad_relation_value || (grad_attr && p.edge_grad);
        if (wants_values && p.has_dropout) dropout_scales(e, b.scale.data());
        const bool wants_key = p.grad_query || p.grad_relation_key || p.grad_edge_key || p.grad_weight ||
                               (grad_attr && p.edge_key);
        const T *key = nullptr;
        if (wants_key)
            key = key_row(read_row<T>(p.key, p.input_type, at(p.key_index, p.wide_index, t), H * D, b.key.data()), e);
        for (int h = 0; h < H; h++) {
            const bool removed = removes && score[h] == -kInfinity;
            const T g = removed ? T(0) : score_grad(score[h], alpha[h], upstream[h], statistic[h], delta[h]);
            if (p.grad_bias) real(p.grad_bias)[e * H + h] = g;
            if (removed) continue;
            if (p.grad_relation_bias) real(p.grad_relation_bias)[(chunk * p.num_relations + r) * H + h] += g;
            if (wants_values) {
                const T kept = p.has_dropout ? alpha[h] * b.scale[h] : alpha[h];
                if (p.edge_sum) add_scaled(real(p.edge_sum) + (i * H + h) * F, kept, attr, F);
                if (p.grad_relation_value)
                    add_scaled(real(p.grad_relation_value) + ((chunk * p.num_relations + r) * H + h) * V, kept, grad + h * V, V);
                if (grad_attr && p.edge_grad) add_scaled(grad_attr, kept, real(p.edge_grad) + (i * H + h) * F, F);
            }
            if (p.score == kDot) {
                const T step = g * T(p.scale);
                if (p.grad_query) add_scaled(real(p.grad_query) + (i * H + h) * D, step, key + h * D, D);
                if (p.grad_relation_key)
                    add_scaled(real(p.grad_relation_key) + ((chunk * p.num_relations + r) * H + h) * D, step, query + h * D, D);
                if (p.edge_query) {
                    if (p.grad_edge_query) add_scaled(real(p.grad_edge_query) + (i * H + h) * F, step, attr, F);
                    if (grad_attr) add_scaled(grad_attr, step, real(p.edge_query) + (i * H + h) * F, F);
                }
            } else if (wants_key) {
                additive_by_query(i, chunk, r, h, g, query + h * D, key + h * D, attr, grad_attr);
            }
        }
    }

    // the gradient of q + k of a pair, into b.inner
    const T *additive_step(int h, T g, const T *query, const T *key, T *grad_weight) {
        T *step = b.inner.data();
        const T *weight = p.weight ? real(p.weight) + h * D : nullptr;
        for (int c = 0; c < D; c++) {
            const T x = query[c] + key[c], f = activate(x);
            if (grad_weight) grad_weight[c] += g * f;
            step[c] = g * (weight ? weight[c] : T(1)) * slope(x, f);
        }
        return step;
    }

    void additive_by_query(int64_t i, int64_t chunk, int64_t r, int h, T g, const T *query, const T *key, const T *attr,
                           T *grad_attr) {
        T *grad_weight = p.grad_weight ? real(p.grad_weight) + (chunk * H + h) * D : nullptr;
        const T *step = additive_step(h, g, query, key, grad_weight);
        if (p.grad_query) add_scaled(real(p.grad_query) + (i * H + h) * D, T(1), step, D);
        if (p.grad_relation_key)
            add_scaled(real(p.grad_relation_key) + ((chunk * p.num_relations + r) * H + h) * D, T(1), step, D);
        if (!p.edge_key) return;
        for (int f = 0; f < F; f++) {
            if (p.grad_edge_key) add_scaled(real(p.grad_edge_key) + ((chunk * F + f) * H + h) * D, attr[f], step, D);
            if (grad_attr) grad_attr[f] += dot(step, real(p.edge_key) + (int64_t(f) * H + h) * D, D);
        }
    }

    void backward_by_key(int64_t j) {
        const int64_t begin = p.key_ptr[j], end = p.key_ptr[j + 1];
        T *grad_key = p.grad_key ? real(p.grad_key) + j * H * D : nullptr;
        T *grad_value = p.grad_value ? real(p.grad_value) + j * H * V : nullptr;
        if (grad_key) std::fill(grad_key, grad_key + H * D, T(0));
        if (grad_value) std::fill(grad_value, grad_value + H * V, T(0));
        const T *own_key = read_row<T>(p.key, p.input_type, j, H * D, b.key.data());
        const T *own_value = read_row<T>(p.value, p.input_type, j, H * V, b.value.data());
        T *score = b.score.data(), *upstream = b.upstream.data();
        for (int64_t t = begin; t < end; t++) {
            prefetch(p.query, p.query_index, t + kPrefetch, end, H * D);
            prefetch(p.grad_out, p.query_index, t + kPrefetch, end, H * V);
            const int64_t i = at(p.query_index, p.wide_index, t), e = id(p.key_edge_id, t);
            const T *query = read_row<T>(p.query, p.input_type, i, H * D, b.query.data());
            const T *grad = read_row<T>(p.grad_out, p.input_type, i, H * V, b.grad.data());
            const T *key = key_row(own_key, e);
            scores_of(query, key, p.edge_query ? real(p.edge_query) + i * H * F : nullptr, e, score);
            if (grad_key) {
                const T *edge_grad = p.edge_grad ? real(p.edge_grad) + i * H * F : nullptr;
                upstream_of(grad, value_row(own_value, e), edge_grad, e, score, upstream);
            } else if (p.has_dropout) {
                dropout_scales(e, b.scale.data());
            }
            const T *statistic = real(p.statistic) + i * H, *delta = real(p.delta) + i * H;
            T *weight = b.weight.data();
            weights_of(score, statistic, weight);
            for (int h = 0; h < H; h++) {
                if (removes && score[h] == -kInfinity) continue;
                const T alpha = weight[h];
                if (grad_value)
                    add_scaled(grad_value + h * V, p.has_dropout ? alpha * b.scale[h] : alpha, grad + h * V, V);
                if (!grad_key) continue;
                const T g = score_grad(score[h], alpha, upstream[h], statistic[h], delta[h]);
                if (p.score == kDot)
                    add_scaled(grad_key + h * D, g * T(p.scale), query + h * D, D);
                else
                    add_scaled(grad_key + h * D, T(1), additive_step(h, g, query + h * D, key + h * D, nullptr), D);
            }
        }
    }
};

// Rows of chunk c of `count`: the boundaries follow from the offsets alone, never from the threads.
inline int64_t chunk_start(const int64_t *ptr, int64_t num_rows, int64_t c, int64_t count) {
    if (c >= count) return num_rows;
    // Rows cost as their edges do, and a little each.
    const double share = double(ptr[num_rows] + num_rows) * double(c) / double(count);
    int64_t low = 0, high = num_rows;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (double(ptr[middle] + middle) < share) low = middle + 1;
        else high = middle;
    }
    return low;
}

template <class T, int W, class Work>
void for_rows(const Problem &p, const int64_t *ptr, int64_t num_rows, Work work) {
#pragma omp parallel num_threads(p.threads)
    {
        Rows<T, W> rows(p);
#pragma omp for schedule(dynamic, 1)
        for (int64_t c = 0; c < p.num_chunks; c++) {
            const int64_t stop = chunk_start(ptr, num_rows, c + 1, p.num_chunks);
            for (int64_t row = chunk_start(ptr, num_rows, c, p.num_chunks); row < stop; row++) work(rows, row, c);
        }
    }
}

// Whether the row lies in a window of 32 rows that is left to the tile loops.
inline bool served_by_tiles(const int64_t *tile_ptr, int64_t row) {
    return tile_ptr && tile_ptr[row / 32] < tile_ptr[row / 32 + 1];
}

}  // namespace GF_NAMESPACE
