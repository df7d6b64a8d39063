// Tiles: windows of 32 consecutive rows, each with the keys that its rows attend to. See graphs/tiles.py.
//
// A row is a list of runs of keys, or a list of single keys, which are read as runs. A window is swept along the keys:
// between one border of a run and the next, the set of rows that attend does not change.
#include <algorithm>
#include <bit>
#include <climits>
#include <cstdint>

namespace {

constexpr int kLanes = 32;
constexpr int32_t kNoKey = INT32_MAX;

template <class Index>
struct Rows {
    const int64_t *ptr;
    const Index *start, *stop;  // no stop: each entry is one key, and may repeat the one before
    int64_t num_rows;

    // As many threads as pay.
    int threads(int most) const { return int(std::min<int64_t>(most, 1 + (num_rows + ptr[num_rows]) / 8192)); }

    int64_t pairs(int64_t first_row, int64_t last_row) const {
        int64_t count = ptr[last_row] - ptr[first_row];
        if (stop != nullptr) {
            count = 0;
            for (int64_t e = ptr[first_row]; e < ptr[last_row]; ++e) count += stop[e] - start[e];
        }
        return count;
    }
};

struct Segment {
    int32_t first, count;
    uint32_t mask;
};

// The rows of one window, each at its next run.
template <class Index>
class Window {
  public:
    Window(const Rows<Index> &rows, int64_t first_row, int64_t last_row) : rows_(rows) {
        for (int lane = 0; lane < kLanes; ++lane) {
            const int64_t row = std::min(first_row + lane, last_row);
            next_[lane] = rows.ptr[row];
            end_[lane] = rows.ptr[std::min(row + 1, last_row)];
            advance(lane);
        }
    }

    // Hands the segments to `sink` in order; returns the number of their keys, or -1 as soon as it exceeds `most`.
    template <class Sink>
    int64_t sweep(int64_t most, Sink sink) {
        Segment open{0, 0, 0};
        int64_t entries = 0;
        for (int32_t first; (first = *std::min_element(start_, start_ + kLanes)) != kNoKey;) {
            uint32_t mask = 0;
            int32_t border = kNoKey;
            for (int lane = 0; lane < kLanes; ++lane) {
                const bool here = start_[lane] == first;
                mask |= uint32_t(here) << lane;
                border = std::min(border, here ? stop_[lane] : start_[lane]);
            }
            const bool repeats = (mask & repeats_) != 0;
            if (open.count > 0 && (repeats || open.mask != mask || open.first + open.count != first)) {
                sink(open);
                open.count = 0;
            }
            if (repeats) {
                for (uint32_t copies = 1, left = mask; left != 0; left = lanes_with(++copies, left), ++entries)
                    sink(Segment{first, 1, left});
            } else {
                if (open.count == 0) open = {first, 0, mask};
                open.count += border - first;
                entries += border - first;
            }
            if (entries > most) return -1;
            for (uint32_t left = mask; left != 0; left &= left - 1) {
                const int lane = std::countr_zero(left);
                start_[lane] = border;
                if (stop_[lane] == border) advance(lane);
            }
        }
        if (open.count > 0) sink(open);
        return entries;
    }

  private:
    // Take the next run of a row: as many keys as follow one another, or one key with its copies.
    void advance(int lane) {
        const Index *key = rows_.start;
        int64_t at = next_[lane];
        const int64_t end = end_[lane];
        repeats_ &= ~(uint32_t(1) << lane);
        if (at == end) {
            start_[lane] = kNoKey;
            return;
        }
        const int64_t begin = at;
        start_[lane] = int32_t(key[at]);
        if (rows_.stop != nullptr) {
            stop_[lane] = int32_t(rows_.stop[at++]);
        } else if (at + 1 < end && key[at + 1] == key[at]) {
            while (at < end && key[at] == key[begin]) ++at;
            stop_[lane] = start_[lane] + 1;
            copies_[lane] = uint32_t(std::min<int64_t>(at - begin, UINT32_MAX));
            repeats_ |= uint32_t(1) << lane;
        } else {
            ++at;
            while (at < end && key[at] == key[at - 1] + 1 && !(at + 1 < end && key[at + 1] == key[at])) ++at;
            stop_[lane] = int32_t(key[at - 1]) + 1;
        }
        next_[lane] = at;
    }

    uint32_t lanes_with(uint32_t copies, uint32_t among) const {
        uint32_t mask = 0;
        for (uint32_t left = among & repeats_; left != 0; left &= left - 1) {
            const int lane = std::countr_zero(left);
            mask |= uint32_t(copies_[lane] >= copies) << lane;
        }
        return mask;
    }

    const Rows<Index> &rows_;
    alignas(64) int32_t start_[kLanes];
    alignas(64) int32_t stop_[kLanes];
    uint32_t copies_[kLanes];
    int64_t next_[kLanes], end_[kLanes];
    uint32_t repeats_ = 0;
};

template <class Index>
int64_t count(const Rows<Index> &rows, double least_fill, int threads, int64_t *window_ptr) {
    const int64_t num_windows = (rows.num_rows + kLanes - 1) / kLanes;
#pragma omp parallel for schedule(dynamic, 32) num_threads(rows.threads(threads))
    for (int64_t w = 0; w < num_windows; ++w) {
        const int64_t first_row = w * kLanes, last_row = std::min(first_row + kLanes, rows.num_rows);
        const int64_t pairs = rows.pairs(first_row, last_row);
        // fill = pairs / (lanes * entries) is at least least_fill where there are at most so many entries
        const double most = double(pairs) / (kLanes * least_fill);
        int64_t segments = 0;
        if (pairs > 0) {
            Window<Index> window(rows, first_row, last_row);
            const int64_t entries = window.sweep(int64_t(std::min(most, 9e18)), [&](const Segment &) { ++segments; });
            if (entries < 0) segments = 0;
        }
        window_ptr[w + 1] = segments;
    }
    window_ptr[0] = 0;
    for (int64_t w = 0; w < num_windows; ++w) window_ptr[w + 1] += window_ptr[w];
    return window_ptr[num_windows];
}

template <class Index>
void fill(const Rows<Index> &rows, int threads, const int64_t *window_ptr, Segment *segments) {
    const int64_t num_windows = (rows.num_rows + kLanes - 1) / kLanes;
#pragma omp parallel for schedule(dynamic, 32) num_threads(rows.threads(threads))
    for (int64_t w = 0; w < num_windows; ++w) {
        if (window_ptr[w] == window_ptr[w + 1]) continue;
        const int64_t first_row = w * kLanes, last_row = std::min(first_row + kLanes, rows.num_rows);
        Segment *out = segments + window_ptr[w];
        Window<Index>(rows, first_row, last_row).sweep(INT64_MAX, [&](const Segment &segment) { *out++ = segment; });
    }
}

template <class Index>
Rows<Index> rows_of(const int64_t *ptr, const void *start, const void *stop, int64_t num_rows) {
    return {ptr, static_cast<const Index *>(start), static_cast<const Index *>(stop), num_rows};
}

}  // namespace

extern "C" {
// Rows in CSR: ptr [num_rows + 1]; start, and stop or null, int32 or (wide) int64 with values that fit int32. Within a
// row starts ascend; runs do not overlap. Writes window_ptr [num_windows + 1] and returns its last: the segments.
int64_t gf_count_tiles(const int64_t *ptr, const void *start, const void *stop, int32_t wide, int64_t num_rows,
                       double least_fill, int32_t threads, int64_t *window_ptr) {
    return wide ? count(rows_of<int64_t>(ptr, start, stop, num_rows), least_fill, threads, window_ptr)
                : count(rows_of<int32_t>(ptr, start, stop, num_rows), least_fill, threads, window_ptr);
}

// Writes segments [window_ptr[num_windows], 3] of the windows that gf_count_tiles gave some.
void gf_fill_tiles(const int64_t *ptr, const void *start, const void *stop, int32_t wide, int64_t num_rows,
                   int32_t threads, const int64_t *window_ptr, void *segments) {
    Segment *out = static_cast<Segment *>(segments);
    if (wide)
        fill(rows_of<int64_t>(ptr, start, stop, num_rows), threads, window_ptr, out);
    else
        fill(rows_of<int32_t>(ptr, start, stop, num_rows), threads, window_ptr, out);
}
}
