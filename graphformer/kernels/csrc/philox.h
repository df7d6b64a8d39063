// Random bits as a function of a seed and a counter.
#pragma once
#include <cstdint>

#include "math.h"

namespace GF_NAMESPACE {

// Philox4x32-10: see graphformer/_philox.py.
GF_INLINE void philox(uint64_t seed, uint64_t edge, uint32_t group, uint32_t draw[4]) {
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

}  // namespace GF_NAMESPACE
