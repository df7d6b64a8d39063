// Which rows of a tensor must be kept out of products.
#pragma once
#include <memory>
#include <vector>

#include "../../graphs/csrc/failure.h"
#include "inputs.h"

namespace GF_NAMESPACE {

// Rows of a tensor that hold a value that is not finite. They must not enter a product with a lane that does not use
// them (0 * NaN is NaN), so the tile loops take their pairs one by one.
struct Poisoned {
    std::unique_ptr<uint8_t[]> rows;  // null where every value is finite

    bool operator[](int64_t row) const { return rows && rows[row]; }

    template <class T>
    void scan(const Problem &p, const void *base, int64_t count, int64_t length) {
        bool any = rows != nullptr;
        auto found = std::move(rows);
        if (!found) found = std::make_unique<uint8_t[]>(size_t(count));
        Failure failure;
#pragma omp parallel num_threads(p.threads) reduction(|| : any)
        {
            std::vector<T> buffer;
            failure.guard([&] { buffer.resize(length); });
#pragma omp for schedule(static)
            for (int64_t row = 0; row < count; row++) {
                if (failure.failed()) continue;
                const T *values = read_row<T>(base, p.input_type, row, int(length), buffer.data());
                T sum = 0;
#pragma omp simd reduction(+ : sum)
                for (int64_t c = 0; c < length; c++) sum += values[c] * T(0);
                if (sum != 0) found[row] = 1;  // 0 * infinity is NaN too
                any = any || found[row];
            }
        }
        failure.raise();
        if (any) rows = std::move(found);
    }
};

}  // namespace GF_NAMESPACE
