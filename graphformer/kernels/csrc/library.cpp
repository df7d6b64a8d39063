// The library's face to Python: plain C, no Python and no torch inside.
#include "../../graphs/csrc/failure.h"
#include "problem.h"

#define GF_DECLARE(name)                  \
    namespace name {                      \
    void forward(const Problem &);        \
    void backward(const Problem &);       \
    int passes(const Problem &);          \
    }

GF_DECLARE(gf_baseline)
#ifdef GF_X86
GF_DECLARE(gf_avx2)
GF_DECLARE(gf_avx512)
#endif

namespace {

struct Choice {
    const char *name;
    void (*forward)(const Problem &);
    void (*backward)(const Problem &);
    int (*passes)(const Problem &);
};

Choice choose() {
#ifdef GF_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma"))
        return {"avx512", gf_avx512::forward, gf_avx512::backward, gf_avx512::passes};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
        return {"avx2", gf_avx2::forward, gf_avx2::backward, gf_avx2::passes};
#endif
    return {"baseline", gf_baseline::forward, gf_baseline::backward, gf_baseline::passes};
}

const Choice &choice() {
    static const Choice chosen = choose();
    return chosen;
}

}  // namespace

extern "C" {
int64_t gf_problem_size() { return sizeof(Problem); }
const char *gf_instruction_set() { return choice().name; }

// 0, or kOutOfMemory where there is none left.
int32_t gf_forward(const Problem *problem) {
    return or_out_of_memory<int32_t>([&] { return choice().forward(*problem), 0; });
}
int32_t gf_backward(const Problem *problem) {
    return or_out_of_memory<int32_t>([&] { return choice().backward(*problem), 0; });
}

// How many passes over the pairs the backward pass of a problem takes.
int32_t gf_backward_passes(const Problem *problem) {
    return or_out_of_memory<int32_t>([&] { return choice().passes(*problem); });
}
}
