// Scalar functions, written so that the compiler lays them down vector lanes.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

// Left to itself the compiler stops inlining in a file of this size, and a call inside a loop ends the vectors.
#define GF_INLINE inline __attribute__((always_inline))

namespace GF_NAMESPACE {

// e^x to 2 ulp, for float or vectors of it: 0 below the smallest normal result, NaN for NaN.
template <class V, class Bits>
GF_INLINE V exponential_of(V x) {
    // Rounds to nearest by the magic number 1.5 * 2^23; the power's exponent ends up in the lowest bits.
    constexpr float kMagic = 12582912.0f + 127.0f;
    const V shifted = x * 1.44269504088896341f + kMagic;
    const V n = shifted - kMagic;
    const V f = (x - n * 0.693145751953125f) - n * 1.428606765330187e-06f;
    V p = f * 1.3814595e-3f + 8.368718e-3f;
    p = p * f + 4.166839e-2f;
    p = p * f + 1.6666521e-1f;
    p = p * f + 4.9999994e-1f;
    p = p * f + 1.0f;
    p = p * f + 1.0f;
    Bits bits;
    std::memcpy(&bits, &shifted, sizeof(V));
    bits <<= 23;
    V power;
    std::memcpy(&power, &bits, sizeof(V));
    const V result = p * power;
    const V zero{}, infinity = zero + std::numeric_limits<float>::infinity();
    return x < -87.3f ? zero : x > 88.0f ? infinity : result;
}
GF_INLINE float exponential(float x) { return exponential_of<float, uint32_t>(x); }
inline double exponential(double x) { return std::exp(x); }

// The natural logarithm of a positive normal number, or infinity or NaN, to 2 ulp: 2 atanh((m - 1) / (m + 1)) of its
// mantissa m in [sqrt(1/2), sqrt(2)), straight down vector lanes.
GF_INLINE float logarithm(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const int32_t power = int32_t(bits - 0x3F3504F3u) >> 23;
    bits -= uint32_t(power) << 23;
    float m;
    std::memcpy(&m, &bits, 4);
    const float s = (m - 1.0f) / (m + 1.0f), square = s * s, n = float(power);
    float p = 1.0f / 9.0f;
    p = p * square + 1.0f / 7.0f;
    p = p * square + 1.0f / 5.0f;
    p = p * square + 1.0f / 3.0f;
    const float result = n * 0.693145751953125f + (2.0f * s + (2.0f * s * square * p + n * 1.428606765330187e-06f));
    return x < std::numeric_limits<float>::infinity() ? result : x;
}
inline double logarithm(double x) { return std::log(x); }

}  // namespace GF_NAMESPACE
