// Panels of 32 lanes, one for each row of a window, and the one product that the tile loops are made of. A panel is
// [rows][kWindow]: each of its columns belongs to one query (or one key) of a window, so that sums, maxima and masks
// run straight down vector lanes and what is wrong with one lane never reaches another.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "heads.h"
#include "schedule.h"

namespace GF_NAMESPACE {

constexpr int kRowsAtOnce = kVectorBytes == 64 ? 8 : 4;  // two vectors each in registers

// R rows and N vectors of C (+)= A B, the sums in registers. A(m, k) is a[m * stride + k], or a[k * stride + m].
template <class T, int R, int N, bool kByColumn>
inline void multiply_vectors(const T *a, int64_t stride, int depth, const T *b, T *c, int pitch, bool add) {
    using Whole = Vector<T, kLanes<T>>;
    constexpr int kSize = kLanes<T>;
    Whole sum[R][N];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int i = 0; i < N; i++)
            sum[r][i] = add ? *reinterpret_cast<const Whole *>(c + r * pitch + i * kSize) : Whole{};
    for (int k = 0; k < depth; k++, b += pitch) {
        Whole right[N];
#pragma GCC unroll 2
        for (int i = 0; i < N; i++) right[i] = *reinterpret_cast<const Whole *>(b + i * kSize);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) {
            const T factor = kByColumn ? a[k * stride + r] : a[r * stride + k];
#pragma GCC unroll 2
            for (int i = 0; i < N; i++) sum[r][i] += factor * right[i];
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
        for (int i = 0; i < N; i++) *reinterpret_cast<Whole *>(c + r * pitch + i * kSize) = sum[r][i];
}

template <class T, int R, bool kByColumn>
inline void multiply_rows(const T *a, int64_t stride, int depth, const T *b, T *c, int pitch, bool add) {
    int lane = 0;
    for (; lane + 2 * kLanes<T> <= pitch; lane += 2 * kLanes<T>)
        multiply_vectors<T, R, 2, kByColumn>(a, stride, depth, b + lane, c + lane, pitch, add);
    if (lane < pitch) multiply_vectors<T, R, 1, kByColumn>(a, stride, depth, b + lane, c + lane, pitch, add);
}

// C (+)= A B. Shapes: C [rows][pitch], B [depth][pitch], whole vectors; A by `stride` as above.
template <class T, bool kByColumn>
void multiply(const T *a, int64_t stride, int64_t rows, int depth, const T *b, T *c, bool add, int pitch = kWindow) {
    const int64_t step = kByColumn ? 1 : stride;
    int64_t m = 0;
    for (; m + kRowsAtOnce <= rows; m += kRowsAtOnce)
        multiply_rows<T, kRowsAtOnce, kByColumn>(a + m * step, stride, depth, b, c + m * pitch, pitch, add);
    if constexpr (kRowsAtOnce > 4)
        for (; m + 4 <= rows; m += 4)
            multiply_rows<T, 4, kByColumn>(a + m * step, stride, depth, b, c + m * pitch, pitch, add);
    for (; m + 2 <= rows; m += 2)
        multiply_rows<T, 2, kByColumn>(a + m * step, stride, depth, b, c + m * pitch, pitch, add);
    for (; m < rows; m++) multiply_rows<T, 1, kByColumn>(a + m * step, stride, depth, b, c + m * pitch, pitch, add);
}

// Copies a short row without a call.
template <class T>
inline void copy_row(const T *from, T *to, int length) {
    constexpr int kStep = 64 / sizeof(T);
    int c = 0;
    for (; c + kStep <= length; c += kStep) std::memcpy(to + c, from + c, 64);
    for (; c < length; c++) to[c] = from[c];
}

// For each step of a transposition, which elements of two rows (numbered one after the other) make the two new rows.
template <class T>
struct Exchange {
    static constexpr int kSize = kLanes<T>;
    using Element = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
    alignas(64) Element first[6][kSize], second[6][kSize];

    constexpr Exchange() : first{}, second{} {
        for (int level = 0, step = 1; step < kSize; level++, step *= 2)
            for (int c = 0; c < kSize; c++) {
                first[level][c] = c & step ? kSize + c - step : c;
                second[level][c] = c & step ? kSize + c : c + step;
            }
    }
};

// A square block of vectors, transposed: out[c * out_stride + r] = in[r * in_stride + c].
template <class T>
inline void transpose_block(const T *in, int in_stride, T *out, int out_stride) {
    using Whole = Vector<T, kLanes<T>>;
    using Index = Vector<typename Exchange<T>::Element, kLanes<T>>;
    static constexpr Exchange<T> exchange;
    constexpr int kSize = kLanes<T>;
    Whole rows[kSize];
#pragma GCC unroll 16
    for (int r = 0; r < kSize; r++) std::memcpy(&rows[r], in + r * in_stride, kVectorBytes);
    // Each step exchanges, between rows that are `step` apart, the columns that are.
#pragma GCC unroll 4
    for (int level = 0; (1 << level) < kSize; level++) {
        const int step = 1 << level;
        Index first, second;
        std::memcpy(&first, exchange.first[level], kVectorBytes);
        std::memcpy(&second, exchange.second[level], kVectorBytes);
#pragma GCC unroll 16
        for (int r = 0; r < kSize; r++) {
            if (r & step) continue;
            const Whole a = rows[r], b = rows[r + step];
            rows[r] = __builtin_shuffle(a, b, first);
            rows[r + step] = __builtin_shuffle(a, b, second);
        }
    }
#pragma GCC unroll 16
    for (int c = 0; c < kSize; c++) std::memcpy(out + c * out_stride, &rows[c], kVectorBytes);
}

// out[c][r] = in[r][c] for `rows` x `columns`, each row of `in` and `out` at its stride.
template <class T>
void transpose(const T *in, int in_stride, int rows, int columns, T *out, int out_stride) {
    constexpr int kSize = kLanes<T>;
    const int whole_rows = rows / kSize * kSize, whole_columns = columns / kSize * kSize;
    for (int r = 0; r < whole_rows; r += kSize)
        for (int c = 0; c < whole_columns; c += kSize)
            transpose_block(in + r * in_stride + c, in_stride, out + c * out_stride + r, out_stride);
    for (int r = 0; r < rows; r++)
        for (int c = r < whole_rows ? whole_columns : 0; c < columns; c++)
            out[c * out_stride + r] = in[r * in_stride + c];
}

// Calls work(lane) for each bit that is set.
template <class Work>
inline void for_bits(uint32_t mask, Work work) {
    for (; mask; mask &= mask - 1) work(__builtin_ctz(mask));
}

}  // namespace GF_NAMESPACE
