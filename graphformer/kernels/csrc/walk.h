// How a pass of tiles goes through the windows of one side.
#pragma once
#include <algorithm>

#include "schedule.h"

namespace GF_NAMESPACE {

constexpr double kCacheBytes = 1 << 21;  // of what windows share; a backward pass keeps more beside it
constexpr int64_t kGroup = 16;           // windows that share what they read, at most
constexpr int64_t kLeastUnits = 64;

// The first window of chunk c of `count`: windows cost as their pairs do, and a little each.
inline int64_t window_start(const RowsOf &rows, int64_t num_windows, int64_t c, int64_t count) {
    if (c >= count) return num_windows;
    const double share = double(rows.ptr[rows.count] + rows.count) * double(c) / double(count);
    int64_t low = 0, high = num_windows;
    while (low < high) {
        const int64_t middle = (low + high) / 2, row = std::min(middle * kWindow, rows.count);
        if (double(rows.ptr[row] + row) < share) low = middle + 1;
        else high = middle;
    }
    return low;
}

// What follows from the graph alone. A unit is a chunk of windows, with all heads or with one, and one thread's: so
// partial sums are the same for any number of threads.
struct Walk {
    const RowsOf rows;
    const int64_t num_windows;
    bool heads_together;
    int64_t chunks, group = kGroup;
    const int heads;

    Walk(const Problem &p, const RowsOf &side, bool sums_heads)
        : rows(side), num_windows((side.count + kWindow - 1) / kWindow),
          heads_together(sums_heads || shared_rows(p) > 3 * degree()), heads(p.heads) {
        if (heads_together) group = std::clamp<int64_t>(int64_t(shared_rows(p) - degree()) / kWindow, 1, kGroup);
        const int64_t least = heads_together ? kLeastUnits : kLeastUnits / heads;
        chunks = std::clamp<int64_t>(std::max(num_windows / kGroup, least), 1, p.num_chunks);
    }

    // Heads follow one another while what a group of windows reads for all of them stays in a core's cache; else a head
    // goes through all windows before the next one does.
    double degree() const { return double(rows.ptr[rows.count]) / double(rows.count); }
    static double shared_rows(const Problem &p) {
        return kCacheBytes / (p.heads * (p.width + p.value_width) * sizeof(float) * (p.grad_out ? 4 : 1));
    }

    int64_t units() const { return chunks * (heads_together ? 1 : heads); }
    int64_t first_window(int64_t chunk) const { return window_start(rows, num_windows, chunk, chunks); }
};

}  // namespace GF_NAMESPACE
