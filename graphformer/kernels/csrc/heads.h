// Products of rows [H, width] head by head, in vectors of the processor's own width: nearly all the arithmetic is here.
#pragma once
#include <algorithm>
#include <cstring>
#include <utility>

#include "math.h"

namespace GF_NAMESPACE {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kSums = 16;  // sums held in registers at once
#elif defined(__AVX__)
constexpr int kVectorBytes = 32, kSums = 8;
#else
constexpr int kVectorBytes = 16, kSums = 8;
#endif
template <class T>
constexpr int kLanes = kVectorBytes / sizeof(T);

template <class T, int lanes>
struct VectorOf {
    typedef T type __attribute__((vector_size(lanes * sizeof(T))));
};
template <class T, int lanes>
using Vector = typename VectorOf<T, lanes>::type;

template <class V, class T>
GF_INLINE V load(const T *from) {
    V v;
    std::memcpy(&v, from, sizeof(V));
    return v;
}

// The sums of neighbouring lanes of a, then those of b.
template <class V, size_t... i>
GF_INLINE V add_neighbours(const V &a, const V &b, std::index_sequence<i...>) {
    return __builtin_shufflevector(a, b, (2 * i)...) + __builtin_shufflevector(a, b, (2 * i + 1)...);
}

// Sums groups of `width` lanes of `count` vectors; the sums end up in order from the first lane of the first vector.
template <int width, int count, int lanes, class V>
GF_INLINE void fold(V *v) {
    if constexpr (width > 1) {
        constexpr int left = (count + 1) / 2;
#pragma GCC unroll 16
        for (int i = 0; i < left; i++)
            v[i] = add_neighbours(v[2 * i], v[std::min(2 * i + 1, count - 1)], std::make_index_sequence<lanes>());
        fold<width / 2, left, lanes>(v);
    }
}

// out[h] = a[h] . b[h] for n heads, n and W powers of two
template <int W, int n, class T>
GF_INLINE void dot_group(const T *a, const T *b, T *out) {
    constexpr int lanes = std::min(kLanes<T>, W * n), share = std::max(1, W / lanes), count = W * n / (lanes * share);
    using V = Vector<T, lanes>;
    V v[count];
#pragma GCC unroll 16
    for (int i = 0; i < count; i++) {
        v[i] = load<V>(a + i * share * lanes) * load<V>(b + i * share * lanes);
#pragma GCC unroll 16
        for (int s = 1; s < share; s++)
            v[i] += load<V>(a + (i * share + s) * lanes) * load<V>(b + (i * share + s) * lanes);
    }
    fold<std::min(W, lanes), count, lanes>(v);
    std::memcpy(out, v, n * sizeof(T));
}

template <int W, int n, class T>
inline void dot_row(const T *a, const T *b, int heads, T *out) {
    int h = 0;
    for (; h + n <= heads; h += n) dot_group<W, n>(a + h * W, b + h * W, out + h);
    if constexpr (n > 1) {
        if (h < heads) dot_row<W, n / 2>(a + h * W, b + h * W, heads - h, out + h);
    }
}

template <int W, class T>
inline void dot_rows(const T *const *a, const T *const *b, int count, int heads, T *out, int stride) {
    for (int t = 0; t < count; t++) dot_row<W, kLanes<T>>(a[t], b[t], heads, out + t * stride);
}

// out[t * stride + h] = a[t][h] . b[t][h] for `count` pairs of rows
template <class T>
inline void dot_heads(const T *const *a, const T *const *b, int count, int heads, int width, T *out, int stride) {
    switch (width) {
        case 8: return dot_rows<8>(a, b, count, heads, out, stride);
        case 16: return dot_rows<16>(a, b, count, heads, out, stride);
        case 32: return dot_rows<32>(a, b, count, heads, out, stride);
        case 64: return dot_rows<64>(a, b, count, heads, out, stride);
        case 128: return dot_rows<128>(a, b, count, heads, out, stride);
    }
    for (int t = 0; t < count; t++)
        for (int h = 0; h < heads; h++) out[t * stride + h] = dot(a[t] + h * width, b[t] + h * width, width);
}

// Columns c.. of sum [heads, W] take in those of `count` weighted rows, n vectors of them in registers.
template <int W, int n, class T>
inline void add_columns(T *sum, const T *weight, int stride, const T *const *rows, int count, int c, int length) {
    constexpr int lanes = std::min(kLanes<T>, W);
    using V = Vector<T, lanes>;
    for (; c + n * lanes <= length; c += n * lanes) {
        V s[n];
#pragma GCC unroll 16
        for (int i = 0; i < n; i++) s[i] = load<V>(sum + c + i * lanes);
        for (int t = 0; t < count; t++) {
            const T *row = rows[t] + c, *w = weight + t * stride + c / W;
#pragma GCC unroll 16
            for (int i = 0; i < n; i++) s[i] += w[i * lanes / W] * load<V>(row + i * lanes);
        }
#pragma GCC unroll 16
        for (int i = 0; i < n; i++) std::memcpy(sum + c + i * lanes, &s[i], sizeof(V));
    }
    if constexpr (n > 1) {
        if (c < length) add_columns<W, n / 2>(sum, weight, stride, rows, count, c, length);
    }
}

// sum[h] += weight[t * stride + h] * rows[t][h] over `count` rows
template <class T>
inline void add_heads(T *sum, const T *weight, int stride, const T *const *rows, int count, int heads, int width) {
    const int length = heads * width;
    switch (width) {
        case 8: return add_columns<8, kSums>(sum, weight, stride, rows, count, 0, length);
        case 16: return add_columns<16, kSums>(sum, weight, stride, rows, count, 0, length);
        case 32: return add_columns<32, kSums>(sum, weight, stride, rows, count, 0, length);
        case 64: return add_columns<64, kSums>(sum, weight, stride, rows, count, 0, length);
        case 128: return add_columns<128, kSums>(sum, weight, stride, rows, count, 0, length);
    }
    for (int t = 0; t < count; t++)
        for (int h = 0; h < heads; h++) add_scaled(sum + h * width, weight[t * stride + h], rows[t] + h * width, width);
}

}  // namespace GF_NAMESPACE
