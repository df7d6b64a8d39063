// The hot file, compiled once for each instruction set.
#include "rows.h"

namespace GF_NAMESPACE {
GF_BY_WIDTH(forward)
GF_BY_WIDTH(backward)
}  // namespace GF_NAMESPACE
