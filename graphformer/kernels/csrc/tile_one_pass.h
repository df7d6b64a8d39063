// The whole backward pass over windows of keys: each block's g is found once, and goes to dk and dv down the lanes and
// to dq along the entries.
#pragma once
#include <vector>

#include "tile_backward.h"
#include "walk.h"

namespace GF_NAMESPACE {

constexpr int64_t kLeastShares = 8;  // units that keep most processors busy

// The queries of each chunk of key windows: [first, stop). Each query is some chunk's own, the first that may meet it;
// there the chunk writes dq, and what the others have for it is kept apart and added in order. So that this takes no
// more room than dq itself, chunks are fewer where their queries overlap much.
struct Spans {
    Walk walk;
    std::vector<int64_t> first, stop, first_own, first_shared;  // first_shared: the row of what is kept apart

    Spans(const Problem &p, const Walk &by_key) : walk(by_key) {
        for (lay(p); shared_rows() > p.num_queries && walk.chunks > 1; lay(p)) walk.chunks = walk.chunks * 3 / 4;
        if (walk.units() < kLeastShares) walk.heads_together = false, walk.group = kGroup;
    }

    int64_t shared_rows() const { return first_shared.back(); }

    // Fewer chunks than the passes by query and by key would have are no loss while every processor has some.
    bool pay(const Walk &by_key) const { return walk.units() >= std::min(kLeastShares, by_key.units()); }

  private:
    void lay(const Problem &p) {
        const int64_t chunks = walk.chunks;
        first.assign(chunks, 0), stop.assign(chunks, 0), first_own.assign(chunks, 0), first_shared.assign(1, 0);
        int64_t reached = 0;
        for (int64_t chunk = 0; chunk < chunks; chunk++) {
            int64_t least = reached, most = reached;
            for (int64_t window = walk.first_window(chunk); window < walk.first_window(chunk + 1); window++) {
                if (!walk.rows.is_tiled(window * kWindow)) continue;
                const int32_t *front = p.key_tiles + 3 * walk.rows.tile_ptr[window];
                const int32_t *back = p.key_tiles + 3 * (walk.rows.tile_ptr[window + 1] - 1);
                least = std::min<int64_t>(least, front[0]);
                most = std::max<int64_t>(most, int64_t(back[0]) + back[1]);
            }
            first[chunk] = least, first_own[chunk] = reached;
            stop[chunk] = reached = chunk + 1 < chunks ? most : p.num_queries;
            first_shared.push_back(first_shared.back() + first_own[chunk] - least);
        }
    }
};

template <class T>
struct TileOnePass : TileByKey<T> {
    using Base = TileByKey<T>;
    using Base::p, Base::n, Base::h, Base::H, Base::D, Base::real, Base::other, Base::mask, Base::upstream;
    using Base::in_order;
    const Spans &spans;
    const Poisoned &poisoned_keys;
    const Array<T> &shared;  // [shared rows, H, D]
    const int pitch;           // D, up to whole vectors
    Array<T> grad_query;     // [heads of the unit][queries of the chunk][pitch]
    Array<T> keys, steps;    // [kWindow][pitch], scaled; [kEntries][pitch]
    int64_t chunk = 0;
    int first_head = 0, last_head = 0;
    uint32_t bad_lanes = 0;

    TileOnePass(const Problem &problem, const Poisoned &poisoned, bool heads_together, const Spans &spans,
                const Poisoned &poisoned_keys, const Array<T> &shared)
        : Base(problem, poisoned, heads_together), spans(spans), poisoned_keys(poisoned_keys), shared(shared),
          pitch((D + kLanes<T> - 1) / kLanes<T> * kLanes<T>) {
        keys.resize(kWindow * pitch);
        steps.resize(kEntries * pitch);
    }

    int64_t num_rows() const { return spans.stop[chunk] - spans.first[chunk]; }
    T *row_of(int head, int64_t query) const {
        return grad_query.data() + ((head - first_head) * num_rows() + query - spans.first[chunk]) * pitch;
    }

    void begin_unit(int64_t new_chunk, int first, int last) {
        chunk = new_chunk, first_head = first, last_head = last;
        const int64_t size = (last_head - first_head) * num_rows() * pitch;
        grad_query.grow(size);
        std::fill(grad_query.data(), grad_query.data() + size, T(0));
    }

    void run(int64_t window, int head, int64_t) {
        read_keys(window, head);
        Base::run(window, head, [&] {
            if (p.grad_bias || p.grad_relation_bias) this->spread_bias(chunk);
            spread_queries();
        });
    }

    // The rows of the lanes' keys; one that is not finite is zero here, as it must not meet the zeros off the mask.
    void read_keys(int64_t window, int head) {
        h = head;
        bad_lanes = 0;
        std::fill(keys.data(), keys.data() + kWindow * pitch, T(0));
        for (int l = 0; l < kWindow && window * kWindow + l < p.num_keys; l++) {
            const int64_t key = window * kWindow + l;
            if (poisoned_keys[key]) {
                bad_lanes |= 1u << l;
                continue;
            }
            const T *row = this->head_row(p.key, key, D);
            for (int c = 0; c < D; c++) keys[l * pitch + c] = row[c] * T(p.scale);
        }
    }

    // dq of the block's entries += g * scale * key
    void spread_queries() {
        const T *g = upstream.data();
        if (in_order) {
            multiply<T, false>(g, kWindow, n, kWindow, keys.data(), row_of(h, other[0]), true, pitch);
        } else {
            multiply<T, false>(g, kWindow, n, kWindow, keys.data(), steps.data(), false, pitch);
            for (int t = 0; t < n; t++) add_scaled(row_of(h, other[t]), T(1), steps.data() + t * pitch, pitch);
        }
        if (bad_lanes == 0) return;
        for (int t = 0; t < n; t++)
            for_bits(mask[t] & bad_lanes, [&](int l) {
                if (this->removed(t, l)) return;
                const T *key = this->head_row(p.key, this->first_row + l, D);
                add_scaled(row_of(h, other[t]), g[t * kWindow + l] * T(p.scale), key, D);
            });
    }

    void end_unit() {
        const int64_t own = spans.first_own[chunk], start = spans.first[chunk];
        for (int head = first_head; head < last_head; head++) {
            T *apart = shared.data() + (spans.first_shared[chunk] * H + head) * D;
            for (int64_t i = start; i < own; i++) copy_row(row_of(head, i), apart + (i - start) * H * D, D);
            T *rows = real(p.grad_query) + int64_t(head) * D;
            for (int64_t i = own; i < spans.stop[chunk]; i++) copy_row(row_of(head, i), rows + i * H * D, D);
        }
    }
};

// The statistic and delta of every query, side by side.
template <class T>
void find_deltas(const Problem &p) {
    const int H = p.heads, V = p.value_width;
    Failure failure;
#pragma omp parallel num_threads(p.threads)
    {
        std::vector<T> buffer;
        failure.guard([&] { buffer.resize(V); });
#pragma omp for schedule(static)
        for (int64_t i = 0; i < p.num_queries; i++)
            for (int h = 0; h < H && !failure.failed(); h++) {
                const int64_t row = i * H + h;
                T *pair = static_cast<T *>(p.delta) + 2 * i * H + h;
                pair[0] = static_cast<const T *>(p.statistic)[row];
                pair[H] = p.total ? dot(read_row<T>(p.grad_out, p.input_type, row, V, buffer.data()),
                                        static_cast<const T *>(p.total) + row * V, V)
                                  : T(0);
            }
    }
    failure.raise();
}

// dq takes in what chunks have for queries that are another's, chunk by chunk.
template <class T>
void add_shared(const Problem &p, const Spans &spans, const T *shared) {
    const int64_t length = int64_t(p.heads) * p.width, threads = p.threads;
#pragma omp parallel for num_threads(p.threads) schedule(static)
    for (int64_t part = 0; part < threads; part++)
        for (int64_t chunk = 0; chunk < spans.walk.chunks; chunk++) {
            const int64_t start = spans.first[chunk], first = std::max(start, p.num_queries * part / threads);
            const int64_t stop = std::min(spans.first_own[chunk], p.num_queries * (part + 1) / threads);
            for (int64_t i = first; i < stop; i++)
                add_scaled(static_cast<T *>(p.grad_query) + i * length, T(1),
                           shared + (spans.first_shared[chunk] + i - start) * length, int(length));
        }
}

}  // namespace GF_NAMESPACE
