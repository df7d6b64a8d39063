// Rows of the inputs, whatever their type.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "math.h"
#include "problem.h"

namespace GF_NAMESPACE {

GF_INLINE int64_t at(const void *array, bool wide, int64_t position) {
    return wide ? static_cast<const int64_t *>(array)[position] : static_cast<const int32_t *>(array)[position];
}

constexpr int kAhead = 32;  // pairs between asking for a row and using it

inline size_t bytes_of(int32_t type) { return type == kFloat64 ? 8 : type == kFloat32 ? 4 : 2; }

// Asks for the row [length] of the pair at a position, if there is one, without waiting. Rows of the graph lie one
// after another, so that what follows the last pair of a row is nearly always what is read next.
GF_INLINE void prefetch_row(const void *base, int32_t type, const void *index, bool wide, int64_t position,
                            int64_t num_edges, int length) {
    if (position >= num_edges) return;
    const int64_t size = int64_t(bytes_of(type)) * length;
    const char *row = static_cast<const char *>(base) + at(index, wide, position) * size;
    for (int64_t offset = 0; offset < size; offset += 64) __builtin_prefetch(row + offset, 0, 2);
}

// Rows of the inputs as `real`: where they are stored, or converted into a buffer.
template <class T>
GF_INLINE const T *read_row(const void *base, int32_t type, int64_t row, int length, T *buffer) {
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

}  // namespace GF_NAMESPACE
