// The hot file, compiled once for each instruction set: rows, and the windows that tiles serve.
#include "tiles.h"

namespace GF_NAMESPACE {

template <class T, int W>
void run_forward(const Problem &p) {
    for_rows<T, W>(p, p.query_ptr, p.num_queries, [&](auto &rows, int64_t i, int64_t) {
        if (!served_by_tiles(p.query_tile_ptr, i)) rows.forward(i);
    });
    tiles_forward<T>(p);
}

template <class T, int W>
void run_backward(const Problem &p) {
    for_rows<T, W>(p, p.query_ptr, p.num_queries, [&](auto &rows, int64_t i, int64_t c) {
        if (!served_by_tiles(p.query_tile_ptr, i)) rows.backward_by_query(i, c);
    });
    tiles_backward_by_query<T>(p);
    if (!p.grad_key && !p.grad_value) return;
    for_rows<T, W>(p, p.key_ptr, p.num_keys, [&](auto &rows, int64_t j, int64_t) {
        if (!served_by_tiles(p.key_tile_ptr, j)) rows.backward_by_key(j);
    });
    tiles_backward_by_key<T>(p);
}

#define GF_BY_WIDTH(function)                                              \
    void function(const Problem &p) {                                      \
        if (p.input_type == kFloat64) return run_##function<double, 0>(p); \
        switch (p.width == p.value_width ? p.width : 0) {                  \
            case 8: return run_##function<float, 8>(p);                    \
            case 16: return run_##function<float, 16>(p);                  \
            case 32: return run_##function<float, 32>(p);                  \
            case 64: return run_##function<float, 64>(p);                  \
            case 128: return run_##function<float, 128>(p);                \
            default: return run_##function<float, 0>(p);                   \
        }                                                                  \
    }

GF_BY_WIDTH(forward)
GF_BY_WIDTH(backward)

}  // namespace GF_NAMESPACE
