// The additive score, weight . f(query + key), as terms of two rows (heads.h): f and its slope, of scalars and vectors.
#pragma once
#include <cmath>
#include <type_traits>

#include "heads.h"

namespace GF_NAMESPACE {

template <class T>
struct LeakyRelu {
    T below;
    template <class V>
    V value(V x) const {
        return x > T(0) ? x : below * x;
    }
    template <class V>
    V slope(V x) const {
        return x > T(0) ? V{} + T(1) : V{} + below;
    }
};

template <class T>
struct Tanh {
    template <class V>
    V value(V x) const {
        if constexpr (std::is_arithmetic_v<V>) return std::tanh(x);
        else {
            for (size_t l = 0; l < sizeof(V) / sizeof(T); l++) x[l] = std::tanh(x[l]);
            return x;
        }
    }
    template <class V>
    V slope(V x) const {
        const V f = value(x);
        return T(1) - f * f;
    }
};

// weight [H, D] times f of the sum: the score's term
template <class T, class Activation>
struct ScoreTerm {
    Activation activation;
    const T *weight;
    template <class V>
    V operator()(V a, V b, int c) const {
        return load<V>(weight + c) * activation.value(a + b);
    }
};

// f of the sum: what a d score gives to the weight
template <class Activation>
struct ValueTerm {
    Activation activation;
    template <class V>
    V operator()(V a, V b, int) const {
        return activation.value(a + b);
    }
};

// the slope of f at the sum: what a d score gives to query and key, but for the weight
template <class Activation>
struct SlopeTerm {
    Activation activation;
    template <class V>
    V operator()(V a, V b, int) const {
        return activation.slope(a + b);
    }
};

}  // namespace GF_NAMESPACE
