// The walk over all windows that a graph serves by tiles.
#pragma once
#include "tile_backward.h"
#include "tile_forward.h"

namespace GF_NAMESPACE {

constexpr double kCacheBytes = 1 << 18;
constexpr int64_t kGroup = 8;  // windows that share what they read
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

// Windows that tiles serve, chunk by chunk and head by head. A chunk's head is one thread's, and the windows of a chunk
// follow from the graph alone, so partial tables are the same for any number of threads.
template <class Pass, class Work>
void for_tiles(const Problem &p, const RowsOf &rows, const Poisoned &poisoned, bool sums_heads, Work work) {
    const int64_t num_windows = (rows.count + kWindow - 1) / kWindow;
    // Heads follow one another while what a window reads for all of them stays in a core's cache; else a head goes
    // through all windows before the next one does.
    const double degree = double(rows.ptr[rows.count]) / double(rows.count);
    const bool heads_together = sums_heads || degree * p.heads * (p.width + p.value_width) * sizeof(float) < kCacheBytes;
    const int64_t least = heads_together ? kLeastUnits : kLeastUnits / p.heads;
    const int64_t chunks = std::clamp<int64_t>(std::max(num_windows / kGroup, least), 1, p.num_chunks);
    const int64_t units = chunks * (heads_together ? 1 : p.heads);
#pragma omp parallel num_threads(p.threads)
    {
        Pass pass(p, poisoned, heads_together);
#pragma omp for schedule(dynamic, 1)
        for (int64_t unit = 0; unit < units; unit++) {
            const int64_t chunk = unit % chunks, last = window_start(rows, num_windows, chunk + 1, chunks);
            const int first_head = int(unit / chunks), last_head = heads_together ? p.heads : first_head + 1;
            for (int64_t window = window_start(rows, num_windows, chunk, chunks), packed = window; window < last; window++) {
                if (!heads_together && window == packed) {
                    packed = std::min(window + kGroup, last);
                    pass.pack(window, packed, first_head);
                }
                if (!rows.is_tiled(window * kWindow)) continue;
                for (int h = first_head; h < last_head; h++) work(pass, window, h, chunk);
            }
        }
    }
}

// Of the rows that windows list: the additive score takes the first ones lane by lane, so they may be what they are.
template <class T>
Poisoned poisoned_entries(const Problem &p, const void *first, const void *second, int64_t count) {
    Poisoned poisoned;
    if (p.score == kDot) poisoned.scan<T>(p, first, count, int64_t(p.heads) * p.width);
    poisoned.scan<T>(p, second, count, int64_t(p.heads) * p.value_width);
    return poisoned;
}

template <class T>
void tiles_forward(const Problem &p) {
    if (!p.query_tile_ptr) return;
    const Poisoned poisoned = poisoned_entries<T>(p, p.key, p.value, p.num_keys);
    for_tiles<TileForward<T>>(p, by_query(p), poisoned, false, [](auto &pass, int64_t window, int h, int64_t) { pass.run(window, h); });
}

template <class T>
void tiles_backward_by_query(const Problem &p) {
    if (!p.query_tile_ptr) return;
    const Poisoned poisoned = poisoned_entries<T>(p, p.key, p.value, p.num_keys);
    // The gradient of a pair's features is summed over heads.
    for_tiles<TileByQuery<T>>(p, by_query(p), poisoned, p.grad_edge_attr != nullptr,
                              [](auto &pass, int64_t window, int h, int64_t chunk) { pass.run(window, h, chunk); });
}

template <class T>
void tiles_backward_by_key(const Problem &p) {
    if (!p.key_tile_ptr) return;
    const Poisoned poisoned = poisoned_entries<T>(p, p.query, p.grad_out, p.num_queries);
    for_tiles<TileByKey<T>>(p, by_key(p), poisoned, false, [](auto &pass, int64_t window, int h, int64_t) { pass.run(window, h); });
}

}  // namespace GF_NAMESPACE
