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

template <class T, class V>
GF_INLINE void store(T *to, const V &v) {
    std::memcpy(to, &v, sizeof(V));
}

template <class T>
GF_INLINE Vector<T, kLanes<T>> exponentials(Vector<T, kLanes<T>> x) {
    if constexpr (sizeof(T) == 4) return exponential_of<Vector<T, kLanes<T>>, Vector<uint32_t, kLanes<T>>>(x);
    else
        for (int lane = 0; lane < kLanes<T>; lane++) x[lane] = exponential(x[lane]);
    return x;
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

// What two rows make of a column c, as scalars or vectors: the product of the dot score, and the second row alone.
struct Product {
    template <class V>
    V operator()(V a, V b, int) const {
        return a * b;
    }
};
// The product with one short row, of `width` numbers, that stands repeated over a vector; the second row is not read.
template <class T>
struct WithRepeated {
    const T *row;
    int width;
    template <class V>
    V operator()(V a, V, int c) const {
        return a * load<V>(row + (sizeof(V) / sizeof(T) < size_t(width) ? c % width : 0));
    }
};
struct Plus {
    template <class V>
    GF_INLINE V operator()(V a, V b) const {
        return a + b;
    }
};
struct Second {
    template <class V>
    V operator()(V, V b, int) const {
        return b;
    }
};

// out[h] = sum of term(a[h], b[h]) for n heads from column c on, n and W powers of two
template <int W, int n, class T, class Term>
GF_INLINE void dot_group(const T *a, const T *b, int c, T *out, const Term &term) {
    constexpr int lanes = std::min(kLanes<T>, W * n), share = std::max(1, W / lanes), count = W * n / (lanes * share);
    using V = Vector<T, lanes>;
    V v[count];
#pragma GCC unroll 16
    for (int i = 0; i < count; i++) {
        const int first = c + i * share * lanes;
        v[i] = term(load<V>(a + first), load<V>(b + first), first);
#pragma GCC unroll 16
        for (int at = first + lanes; at < first + share * lanes; at += lanes)
            v[i] += term(load<V>(a + at), load<V>(b + at), at);
    }
    fold<std::min(W, lanes), count, lanes>(v);
    std::memcpy(out, v, n * sizeof(T));
}

template <int W, int n, class T, class Term>
inline void dot_row(const T *a, const T *b, int h, int heads, T *out, const Term &term) {
    for (; h + n <= heads; h += n) dot_group<W, n>(a, b, h * W, out + h, term);
    if constexpr (n > 1) {
        if (h < heads) dot_row<W, n / 2>(a, b, h, heads, out, term);
    }
}

template <int W, class T, class Term>
inline void dot_rows(const T *const *a, const T *const *b, int count, int heads, T *out, int stride, const Term &term) {
    for (int t = 0; t < count; t++) dot_row<W, kLanes<T>>(a[t], b[t], 0, heads, out + t * stride, term);
}

// The sum of term(a, b) over the columns c .. stop, any number of them: vectors of n, then of half as many, down to
// one.
template <int n, class T, class Term>
GF_INLINE T dot_columns(const T *a, const T *b, int c, int stop, const Term &term) {
    T total = 0;
    if (c + n <= stop) {
        using V = Vector<T, n>;
        V v[1] = {term(load<V>(a + c), load<V>(b + c), c)};
        for (c += n; c + n <= stop; c += n) v[0] += term(load<V>(a + c), load<V>(b + c), c);
        fold<n, 1, n>(v);
        total = v[0][0];
    }
    if constexpr (n > 1) {
        if (c < stop) total += dot_columns<n / 2>(a, b, c, stop, term);
    }
    return total;
}

template <class T>
inline T dot(const T *a, const T *b, int n) {
    return dot_columns<kLanes<T>>(a, b, 0, n, Product{});
}

// out[t * stride + h] = sum over the columns of head h of term(a[t], b[t]), for `count` pairs of rows
template <class T, class Term = Product>
void dot_heads(const T *const *a, const T *const *b, int count, int heads, int width, T *out, int stride,
               const Term &term = {}) {
    switch (width) {
        case 1: return dot_rows<1>(a, b, count, heads, out, stride, term);
        case 4: return dot_rows<4>(a, b, count, heads, out, stride, term);
        case 8: return dot_rows<8>(a, b, count, heads, out, stride, term);
        case 16: return dot_rows<16>(a, b, count, heads, out, stride, term);
        case 32: return dot_rows<32>(a, b, count, heads, out, stride, term);
        case 64: return dot_rows<64>(a, b, count, heads, out, stride, term);
        case 128: return dot_rows<128>(a, b, count, heads, out, stride, term);
    }
    for (int t = 0; t < count; t++)
        for (int h = 0; h < heads; h++)
            out[t * stride + h] = dot_columns<kLanes<T>>(a[t], b[t], h * width, (h + 1) * width, term);
}

// Columns c.. of sum [heads, W] take in those of `count` weighted terms, n vectors of them in registers.
template <int W, int n, class T, class Term>
inline void add_columns(T *sum, const T *weight, int stride, const T *const *a, const T *const *b, int count, int c,
                        int length, const Term &term) {
    constexpr int lanes = std::min(kLanes<T>, W);
    using V = Vector<T, lanes>;
    for (; c + n * lanes <= length; c += n * lanes) {
        V s[n];
#pragma GCC unroll 16
        for (int i = 0; i < n; i++) s[i] = load<V>(sum + c + i * lanes);
        for (int t = 0; t < count; t++) {
            const T *w = weight + t * stride + c / W;
#pragma GCC unroll 16
            for (int i = 0; i < n; i++) {
                const int at = c + i * lanes;
                s[i] += w[i * lanes / W] * term(load<V>(a[t] + at), load<V>(b[t] + at), at);
            }
        }
#pragma GCC unroll 16
        for (int i = 0; i < n; i++) std::memcpy(sum + c + i * lanes, &s[i], sizeof(V));
    }
    if constexpr (n > 1) {
        if (c < length) add_columns<W, n / 2>(sum, weight, stride, a, b, count, c, length, term);
    }
}

// The same for any columns c .. stop: those of one head, whose weight they share, or of heads of one column each, whose
// weights lie side by side.
template <int n, bool kShared, class T, class Term>
inline void add_any(T *sum, const T *weight, int stride, const T *const *a, const T *const *b, int count, int c,
                    int stop, const Term &term) {
    using V = Vector<T, n>;
    for (; c + n <= stop; c += n) {
        V s = load<V>(sum + c);
        for (int t = 0; t < count; t++) {
            const T *w = weight + t * stride;
            const V found = term(load<V>(a[t] + c), load<V>(b[t] + c), c);
            if constexpr (kShared) s += *w * found;
            else s += load<V>(w + c) * found;
        }
        store(sum + c, s);
    }
    if constexpr (n > 1) {
        if (c < stop) add_any<n / 2, kShared>(sum, weight, stride, a, b, count, c, stop, term);
    }
}

// One head of the sum takes in one weighted term.
template <class T, class Term>
inline void add_head(T *sum, T weight, const T *a, const T *b, int h, int width, const Term &term) {
    add_any<kLanes<T>, true>(sum, &weight, 0, &a, &b, 1, h * width, (h + 1) * width, term);
}

// sum [width] += weight[h] * table[h] over the rows of a table [heads, width], from column c on
template <int n, class T>
inline void add_table(T *sum, const T *weight, const T *table, int heads, int width, int c) {
    using V = Vector<T, n>;
    for (; c + n <= width; c += n) {
        V s = load<V>(sum + c);
        for (int h = 0; h < heads; h++) s += weight[h] * load<V>(table + h * width + c);
        store(sum + c, s);
    }
    if constexpr (n > 1) {
        if (c < width) add_table<n / 2>(sum, weight, table, heads, width, c);
    }
}

// a += w b, for n numbers
template <class T>
inline void add_scaled(T *a, T w, const T *b, int n) {
    add_any<kLanes<T>, true>(a, &w, 0, &b, &b, 1, 0, n, Second{});
}

// sum[h] += weight[t * stride + h] * term(a[t], b[t]) over `count` pairs of rows
template <class T, class Term = Second>
void add_heads(T *sum, const T *weight, int stride, const T *const *a, const T *const *b, int count, int heads,
               int width, const Term &term = {}) {
    const int length = heads * width;
    switch (width) {
        case 1: return add_any<kLanes<T>, false>(sum, weight, stride, a, b, count, 0, length, term);
        case 4: return add_columns<4, kSums>(sum, weight, stride, a, b, count, 0, length, term);
        case 8: return add_columns<8, kSums>(sum, weight, stride, a, b, count, 0, length, term);
        case 16: return add_columns<16, kSums>(sum, weight, stride, a, b, count, 0, length, term);
        case 32: return add_columns<32, kSums>(sum, weight, stride, a, b, count, 0, length, term);
        case 64: return add_columns<64, kSums>(sum, weight, stride, a, b, count, 0, length, term);
        case 128: return add_columns<128, kSums>(sum, weight, stride, a, b, count, 0, length, term);
    }
    for (int h = 0; h < heads; h++)
        add_any<kLanes<T>, true>(sum, weight + h, stride, a, b, count, h * width, (h + 1) * width, term);
}

}  // namespace GF_NAMESPACE
