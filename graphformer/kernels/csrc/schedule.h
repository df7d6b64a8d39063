// Who works on what: chunks of rows, and parts of rows that are long. The cuts follow from the offsets alone, never
// from the threads, so that every sum is taken in one order whatever their number.
#pragma once
#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "../../graphs/csrc/failure.h"
#include "problem.h"

namespace GF_NAMESPACE {

constexpr int64_t kPartEdges = 4096;  // the most edges in one part of a row
constexpr int kBlock = 64;            // pairs that are worked on at once: of one row, or of several short ones

constexpr int kWindow = 32;  // rows in a window of tiles: see graphs/tiles.py

// The rows of one side: their offsets, which windows are left to the tile loops, and the other ends of their pairs, one
// by one or in runs.
struct RowsOf {
    const int64_t *ptr = nullptr, *tile_ptr = nullptr;
    int64_t count = 0;
    const void *index = nullptr;
    bool is_wide = false;
    const int64_t *run_ptr = nullptr, *run_start = nullptr, *run_stop = nullptr;

    bool is_tiled(int64_t row) const { return tile_ptr && tile_ptr[row / kWindow] < tile_ptr[row / kWindow + 1]; }

    // Whether tiles serve every row that has pairs.
    bool all_tiled() const {
        for (int64_t row = 0; row < count; row += kWindow)
            if (!is_tiled(row) && ptr[row] < ptr[std::min(row + kWindow, count)]) return false;
        return true;
    }
};

inline RowsOf by_query(const Problem &p) {
    return {p.query_ptr, p.query_tile_ptr, p.num_queries, p.key_index, bool(p.wide_index), p.query_run_ptr,
            p.query_run_start, p.query_run_stop};
}
inline RowsOf by_key(const Problem &p) {
    return {p.key_ptr, p.key_tile_ptr, p.num_keys, p.query_index, bool(p.wide_index), p.key_run_ptr, p.key_run_start,
            p.key_run_stop};
}

// The id of a pair that the runs by query hold: its position there.
inline int64_t edge_of_runs(const Problem &p, int64_t query, int64_t key) {
    const int64_t *stop = p.query_run_stop, *runs = p.query_run_ptr + query;
    return key + p.query_run_shift[std::upper_bound(stop + runs[0], stop + runs[1], key) - stop];
}

// The positions begin .. end: part `part` of `parts` of a row, or several rows that fit into one block.
struct Range {
    int64_t row, rows, part, parts, begin, end;

    bool fits() const { return parts == 1 && end - begin <= kBlock; }
};

inline int64_t count_parts(int64_t edges) { return edges > kPartEdges ? (edges + kPartEdges - 1) / kPartEdges : 1; }

struct Cut {
    int64_t row, part;
};

// Where chunk c of `count` starts.
inline Cut chunk_start(const int64_t *ptr, int64_t num_rows, int64_t c, int64_t count) {
    if (c >= count) return {num_rows, 0};
    // Rows cost as their edges do, and a little each.
    const double share = double(ptr[num_rows] + num_rows) * double(c) / double(count);
    int64_t low = 0, high = num_rows;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (double(ptr[middle] + middle) < share) low = middle + 1;
        else high = middle;
    }
    if (low == 0) return {0, 0};
    const int64_t row = low - 1, edges = ptr[low] - ptr[row], parts = count_parts(edges);
    const double inside = (share - double(ptr[row] + row)) / double(edges + 1);
    const int64_t part = int64_t(inside * double(parts)) + 1;
    return part < parts ? Cut{row, part} : Cut{low, 0};
}

// Rows that are cut into parts, each part with a record of its own.
template <class T>
struct LongRows {
    std::vector<int64_t> row, first;  // the first record of each row, and at the end their number
    std::vector<T> records;
    size_t size;

    LongRows(const RowsOf &rows, size_t record_size) : size(record_size) {
        first.push_back(0);
        for (int64_t i = 0; i < rows.count; i++)
            if (const int64_t parts = count_parts(rows.ptr[i + 1] - rows.ptr[i]); parts > 1 && !rows.is_tiled(i)) {
                row.push_back(i);
                first.push_back(first.back() + parts);
            }
        records.resize(size_t(first.back()) * size);
    }

    T *record(const Range &range) {
        const int64_t place = std::lower_bound(row.begin(), row.end(), range.row) - row.begin();
        return records.data() + size_t(first[place] + range.part) * size;
    }

    // The records of a row, in order, taken in by its first.
    template <class Merge>
    T *merge(size_t place, Merge merge) {
        T *start = records.data() + size_t(first[place]) * size;
        for (int64_t part = 1; part < first[place + 1] - first[place]; part++)
            merge(start, start + size_t(part) * size);
        return start;
    }
};

// The rows from `row` on, all before `stop`, that share a block: as many as fit, but at least that one.
inline int64_t rows_of_block(const RowsOf &all, int64_t row, int64_t stop) {
    int64_t last = row + 1;
    const auto fits = [&] { return last - row < kBlock && all.ptr[last + 1] - all.ptr[row] <= kBlock; };
    while (last < stop && fits() && !all.is_tiled(last)) last++;
    return last - row;
}

// work(loops, range, chunk) for every range of rows; each thread has loops of its own.
template <class Loops, class Work>
void for_ranges(const Problem &p, const RowsOf &all, Work work) {
    const int64_t *ptr = all.ptr;
    const int64_t num_rows = all.count;
    Failure failure;
#pragma omp parallel num_threads(p.threads)
    {
        std::optional<Loops> loops;
        failure.guard([&] { loops.emplace(p); });
#pragma omp for schedule(dynamic, 1)
        for (int64_t c = 0; c < p.num_chunks; c++)
            failure.guard([&] {
                const Cut stop = chunk_start(ptr, num_rows, c + 1, p.num_chunks);
                Cut at = chunk_start(ptr, num_rows, c, p.num_chunks);
                while (at.row < stop.row || (at.row == stop.row && at.part < stop.part)) {
                    const int64_t begin = ptr[at.row], edges = ptr[at.row + 1] - begin, parts = count_parts(edges);
                    if (all.is_tiled(at.row)) {
                        at = {at.row + 1, 0};
                    } else if (parts == 1) {
                        const int64_t rows = rows_of_block(all, at.row, stop.row);
                        work(*loops, Range{at.row, rows, 0, 1, begin, ptr[at.row + rows]}, c);
                        at = {at.row + rows, 0};
                    } else {
                        const int64_t start = begin + edges * at.part / parts;
                        const int64_t end = begin + edges * (at.part + 1) / parts;
                        work(*loops, Range{at.row, 1, at.part, parts, start, end}, c);
                        at = at.part + 1 < parts ? Cut{at.row, at.part + 1} : Cut{at.row + 1, 0};
                    }
                }
            });
    }
    failure.raise();
}

}  // namespace GF_NAMESPACE
