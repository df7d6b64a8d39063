// The hot file, compiled once for each instruction set.
#include "rows_backward.h"
#include "rows_forward.h"

namespace GF_NAMESPACE {

void forward(const Problem &p) { p.input_type == kFloat64 ? run_forward<double>(p) : run_forward<float>(p); }
void backward(const Problem &p) { p.input_type == kFloat64 ? run_backward<double>(p) : run_backward<float>(p); }

}  // namespace GF_NAMESPACE
