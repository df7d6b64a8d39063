// The hot file, compiled once for each instruction set. Windows of rows that share their keys are served by tiles, the
// others row by row.
#include "rows_backward.h"
#include "rows_forward.h"
#include "tiles.h"

namespace GF_NAMESPACE {

template <class T>
void forward_of(const Problem &p) {
    rows_forward<T>(p);
    tiles_forward<T>(p);
}

template <class T>
void backward_of(const Problem &p) {
    if (takes_one_pass(p)) {
        rows_backward_by_key<T>(p);  // zeros, for the keys of windows without pairs
        return tiles_backward<T>(p);
    }
    // The pass by key reads what the pass by query leaves: the statistic and delta of every query.
    rows_backward_by_query<T>(p);
    tiles_backward_by_query<T>(p);
    if (!p.grad_key && !p.grad_value) return;
    rows_backward_by_key<T>(p);
    tiles_backward_by_key<T>(p);
}

int passes(const Problem &p) { return takes_one_pass(p) ? 1 : 2; }
void forward(const Problem &p) { p.input_type == kFloat64 ? forward_of<double>(p) : forward_of<float>(p); }
void backward(const Problem &p) { p.input_type == kFloat64 ? backward_of<double>(p) : backward_of<float>(p); }

}  // namespace GF_NAMESPACE
