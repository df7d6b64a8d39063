// Layouts: edges grouped by one end, the other end ascending in each row. See graphs/layout.py.
//
// Edges are first dealt, in order, to buckets of neighbouring rows that fit the cache; each bucket is then sorted by
// itself, by digits of the other end and last by row. Every step is stable and none depends on the number of threads.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <vector>

#include "failure.h"

namespace {

constexpr int64_t kBucketEdges = 8192, kMostBuckets = 1024, kMostDigitBits = 11;

template <class Index, class Id>
struct Edge {
    Index row, other;
    Id id;
};

// Edges as a caller lists them, checked while they are read.
template <class Index, class Id, class Given>
struct EdgeList {
    const Given *row, *other;
    int64_t num_rows, num_others;

    // Whether all ids are in range, and whether the edges are sorted already.
    struct Found {
        bool in_range = true, in_order = true;
    };

    Found check(int64_t begin, int64_t end) const {
        Found found;
        for (int64_t e = begin; e < end; ++e) {
            found.in_range &= uint64_t(row[e]) < uint64_t(num_rows) && uint64_t(other[e]) < uint64_t(num_others);
            found.in_order &= e == 0 || row[e - 1] < row[e] || (row[e - 1] == row[e] && other[e - 1] <= other[e]);
        }
        return found;
    }

    template <class Take>
    void each(int64_t begin, int64_t end, Take take) const {
        for (int64_t e = begin; e < end; ++e) take(Edge<Index, Id>{Index(row[e]), Index(other[e]), Id(e)});
    }

    // The offsets of the rows that begin with these edges, and the other ends; the edges are in order.
    void copy(int64_t begin, int64_t end, int64_t *ptr, Index *index) const {
        int64_t next = begin == 0 ? 0 : row[begin - 1] + 1;
        for (int64_t e = begin; e < end; ++e) {
            while (next <= row[e]) ptr[next++] = e;
            index[e] = Index(other[e]);
        }
    }
};

// The edges of a layout in its order, ends exchanged.
template <class Index, class Id>
struct Transposed {
    const int64_t *ptr;
    const Index *index;
    const Id *edge_id;  // null: the position
    int64_t num_rows;

    template <class Take>
    void each(int64_t begin, int64_t end, Take take) const {
        int64_t row = std::upper_bound(ptr, ptr + num_rows + 1, begin) - ptr - 1;
        for (int64_t e = begin; e < end; ++e) {
            while (ptr[row + 1] <= e) ++row;
            take(Edge<Index, Id>{index[e], Index(row), edge_id == nullptr ? Id(e) : edge_id[e]});
        }
    }
};

template <class Index, class Id>
class Sorter {
  public:
    using E = Edge<Index, Id>;

    Sorter(int64_t num_edges, int64_t num_rows, int threads, int64_t *ptr, void *index, void *edge_id)
        : num_edges_(num_edges), num_rows_(num_rows),
          threads_(int(std::min<int64_t>(threads, 1 + num_edges / kBucketEdges))), ptr_(ptr),
          index_(static_cast<Index *>(index)), edge_id_(static_cast<Id *>(edge_id)) {
        const int row_bits = std::bit_width(uint64_t(std::max<int64_t>(num_rows - 1, 0)));
        const uint64_t wanted = std::min(kMostBuckets, 1 + num_edges / kBucketEdges);
        shift_ = std::max(0, row_bits - int(std::bit_width(wanted - 1)));
        num_buckets_ = num_rows == 0 ? 0 : ((num_rows - 1) >> shift_) + 1;
    }

    int threads() const { return threads_; }
    int64_t chunk(int64_t c) const { return num_edges_ / threads_ * c + std::min<int64_t>(c, num_edges_ % threads_); }

    // other_bits: how many bits the other ends have; 0 where they come in ascending order.
    template <class Input>
    void sort(const Input &input, int other_bits) {
        ptr_[0] = 0;
        edges_ = std::make_unique_for_overwrite<E[]>(num_edges_);
        const std::vector<int64_t> start = deal(input);
        Failure failure;
#pragma omp parallel num_threads(threads_)
        {
            std::vector<E> spare;
#pragma omp for schedule(dynamic, 1)
            for (int64_t b = 0; b < num_buckets_; ++b)
                failure.guard([&] {
                    E *first = edges_.get() + start[b];
                    const int64_t count = start[b + 1] - start[b];
                    if (other_bits > 0) first = by_other(first, count, other_bits, spare);
                    by_row(first, count, b << shift_, std::min((b + 1) << shift_, num_rows_), start[b]);
                });
        }
        failure.raise();
    }

  private:
    // Move the edges to their buckets, keeping their order; returns where each bucket starts.
    template <class Input>
    std::vector<int64_t> deal(const Input &input) {
        std::vector<int64_t> place(threads_ * num_buckets_), start(num_buckets_ + 1);
#pragma omp parallel for num_threads(threads_) schedule(static, 1)
        for (int c = 0; c < threads_; ++c) {
            int64_t *count = place.data() + c * num_buckets_;
            input.each(chunk(c), chunk(c + 1), [&](const E &edge) { ++count[edge.row >> shift_]; });
        }
        int64_t total = 0;
        for (int64_t b = 0; b < num_buckets_; ++b) {
            start[b] = total;
            for (int c = 0; c < threads_; ++c) {
                const int64_t count = place[c * num_buckets_ + b];
                place[c * num_buckets_ + b] = total;
                total += count;
            }
        }
        start[num_buckets_] = total;
#pragma omp parallel for num_threads(threads_) schedule(static, 1)
        for (int c = 0; c < threads_; ++c) {
            int64_t *next = place.data() + c * num_buckets_;
            E *edges = edges_.get();
            input.each(chunk(c), chunk(c + 1), [&](const E &edge) { edges[next[edge.row >> shift_]++] = edge; });
        }
        return start;
    }

    // Sort by the other end, from its lowest digit to its highest; returns where the result lies.
    static E *by_other(E *edges, int64_t count, int bits, std::vector<E> &spare) {
        const auto comes_first = [](const E &a, const E &b) { return a.other < b.other; };
        if (std::is_sorted(edges, edges + count, comes_first)) return edges;
        if (int64_t(spare.size()) < count) spare.resize(count);
        E *from = edges, *to = spare.data();
        const int passes = (bits + kMostDigitBits - 1) / kMostDigitBits, digit_bits = (bits + passes - 1) / passes;
        for (int low = 0; low < bits; low += digit_bits) {
            const auto digit = [&](const E &edge) { return (edge.other >> low) & ((Index(1) << digit_bits) - 1); };
            int64_t next[int64_t(1) << kMostDigitBits];
            std::fill_n(next, int64_t(1) << digit_bits, 0);
            for (int64_t e = 0; e < count; ++e) ++next[digit(from[e])];
            int64_t total = 0;
            for (int64_t d = 0; d < int64_t(1) << digit_bits; ++d) {
                const int64_t here = next[d];
                next[d] = total;
                total += here;
            }
            for (int64_t e = 0; e < count; ++e) to[next[digit(from[e])]++] = from[e];
            std::swap(from, to);
        }
        return from;
    }

    // Write a bucket's rows. While they are filled, the offset of a row's end is where its next edge goes.
    void by_row(const E *edges, int64_t count, int64_t first_row, int64_t last_row, int64_t start) {
        std::fill(ptr_ + first_row + 1, ptr_ + last_row + 1, 0);
        for (int64_t e = 0; e < count; ++e) ++ptr_[edges[e].row + 1];
        for (int64_t row = first_row; row < last_row; ++row) {
            const int64_t here = ptr_[row + 1];
            ptr_[row + 1] = start;
            start += here;
        }
        for (int64_t e = 0; e < count; ++e) {
            const int64_t place = ptr_[edges[e].row + 1]++;
            index_[place] = edges[e].other;
            edge_id_[place] = edges[e].id;
        }
    }

    int64_t num_edges_, num_rows_, num_buckets_;
    int threads_, shift_;
    int64_t *ptr_;
    Index *index_;
    Id *edge_id_;
    std::unique_ptr<E[]> edges_;
};

struct Sizes {
    int64_t num_edges, num_rows, num_others;
    int32_t threads;
};

template <class Index, class Id, class Given>
int32_t make(const Sizes &n, const void *row, const void *other, int64_t *ptr, void *index, void *edge_id) {
    const EdgeList<Index, Id, Given> list{static_cast<const Given *>(row), static_cast<const Given *>(other),
                                          n.num_rows, n.num_others};
    Sorter<Index, Id> sorter(n.num_edges, n.num_rows, n.threads, ptr, index, edge_id);
    std::atomic<bool> in_range{true}, in_order{true};
#pragma omp parallel for num_threads(sorter.threads()) schedule(static, 1)
    for (int c = 0; c < sorter.threads(); ++c) {
        const auto found = list.check(sorter.chunk(c), sorter.chunk(c + 1));
        if (!found.in_range) in_range = false;
        if (!found.in_order) in_order = false;
    }
    if (!in_range) return -1;
    if (!in_order) {
        sorter.sort(list, int(std::bit_width(uint64_t(std::max<int64_t>(n.num_others - 1, 0)))));
        return 0;
    }
#pragma omp parallel for num_threads(sorter.threads()) schedule(static, 1)
    for (int c = 0; c < sorter.threads(); ++c)
        list.copy(sorter.chunk(c), sorter.chunk(c + 1), ptr, static_cast<Index *>(index));
    const int64_t last = n.num_edges == 0 ? -1 : int64_t(list.row[n.num_edges - 1]);
    std::fill(ptr + last + 1, ptr + n.num_rows + 1, n.num_edges);
    return 1;
}

template <class Index, class Id>
int32_t transpose(const Sizes &n, const int64_t *ptr, const void *index, const void *edge_id, int64_t *key_ptr,
               void *key_index, void *key_edge_id) {
    const Transposed<Index, Id> layout{ptr, static_cast<const Index *>(index), static_cast<const Id *>(edge_id),
                                       n.num_rows};
    Sorter<Index, Id>(n.num_edges, n.num_others, n.threads, key_ptr, key_index, key_edge_id).sort(layout, 0);
    return 0;
}

}  // namespace

// The flags say which arrays are int64 rather than int32: the ends as given, the ends as written, the ids. Both return
// kOutOfMemory where there is none left.
extern "C" {
// Edges sorted by (row, other, id) into ptr [num_rows + 1], index [E], edge_id [E]. Returns -1 where an id is out of
// range (nothing is written then), 1 where the edges were in order (then edge_id, the positions, is not written), else
// 0.
int32_t gf_make_layout(const void *row, const void *other, int32_t wide_given, int64_t num_edges, int64_t num_rows,
                       int64_t num_others, int32_t wide_index, int32_t wide_id, int32_t threads, int64_t *ptr,
                       void *index, void *edge_id) {
    const Sizes sizes{num_edges, num_rows, num_others, threads};
    const auto run = [&](auto maker) {
        return or_out_of_memory<int32_t>([&] { return maker(sizes, row, other, ptr, index, edge_id); });
    };
    if (wide_given) {
        if (wide_index)
            return wide_id ? run(make<int64_t, int64_t, int64_t>) : run(make<int64_t, int32_t, int64_t>);
        return wide_id ? run(make<int32_t, int64_t, int64_t>) : run(make<int32_t, int32_t, int64_t>);
    }
    if (wide_index) return wide_id ? run(make<int64_t, int64_t, int32_t>) : run(make<int64_t, int32_t, int32_t>);
    return wide_id ? run(make<int32_t, int64_t, int32_t>) : run(make<int32_t, int32_t, int32_t>);
}

// The layout by the other end of a layout: ptr_out [num_others + 1], index_out [E], edge_id_out [E]. Returns 0.
int32_t gf_transpose_layout(const int64_t *ptr, const void *index, const void *edge_id, int64_t num_edges,
                            int64_t num_rows, int64_t num_others, int32_t wide_index, int32_t wide_id, int32_t threads,
                            int64_t *ptr_out, void *index_out, void *edge_id_out) {
    const Sizes sizes{num_edges, num_rows, num_others, threads};
    const auto run = [&](auto maker) {
        return or_out_of_memory<int32_t>(
            [&] { return maker(sizes, ptr, index, edge_id, ptr_out, index_out, edge_id_out); });
    };
    if (wide_index) return wide_id ? run(transpose<int64_t, int64_t>) : run(transpose<int64_t, int32_t>);
    return wide_id ? run(transpose<int32_t, int64_t>) : run(transpose<int32_t, int32_t>);
}
}
