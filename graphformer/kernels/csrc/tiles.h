// The walk over all windows that a graph serves by tiles.
#pragma once
#include "tile_forward.h"
#include "tile_one_pass.h"

namespace GF_NAMESPACE {

// Windows that tiles serve, chunk by chunk and head by head. `more` goes to each thread's pass.
template <class Pass, class Work, class... More>
void for_tiles(const Problem &p, const Walk &walk, const Poisoned &poisoned, Work work, const More &...more) {
    Failure failure;
#pragma omp parallel num_threads(p.threads)
    {
        std::optional<Pass> own;
        failure.guard([&] { own.emplace(p, poisoned, walk.heads_together, more...); });
#pragma omp for schedule(dynamic, 1)
        for (int64_t unit = 0; unit < walk.units(); unit++)
            failure.guard([&] {
                Pass &pass = *own;
                const int64_t chunk = unit % walk.chunks;
                const int64_t first = walk.first_window(chunk), last = walk.first_window(chunk + 1);
                const int first_head = int(unit / walk.chunks);
                const int last_head = walk.heads_together ? p.heads : first_head + 1;
                pass.begin_unit(chunk, first_head, last_head);
                for (int64_t window = first, packed = window; window < last; window++) {
                    if (window == packed) {
                        packed = std::min(window + walk.group, last);
                        pass.pack(window, packed, first_head, last_head);
                    }
                    if (!walk.rows.is_tiled(window * kWindow)) continue;
                    for (int h = first_head; h < last_head; h++) work(pass, window, h, chunk);
                }
                pass.end_unit();
            });
    }
    failure.raise();
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
    for_tiles<TileForward<T>>(p, Walk(p, by_query(p), false), poisoned,
                              [](auto &pass, int64_t window, int h, int64_t) { pass.run(window, h); });
}

template <class T>
void tiles_backward_by_query(const Problem &p) {
    if (!p.query_tile_ptr) return;
    const Poisoned poisoned = poisoned_entries<T>(p, p.key, p.value, p.num_keys);
    // The gradient of a pair's features is summed over heads.
    for_tiles<TileByQuery<T>>(p, Walk(p, by_query(p), p.grad_edge_attr != nullptr), poisoned,
                              [](auto &pass, int64_t window, int h, int64_t chunk) { pass.run(window, h, chunk); });
}

template <class T>
void tiles_backward_by_key(const Problem &p) {
    if (!p.key_tile_ptr) return;
    const Poisoned poisoned = poisoned_entries<T>(p, p.query, p.grad_out, p.num_queries);
    for_tiles<TileByKey<T>>(p, Walk(p, by_key(p), false), poisoned,
                            [](auto &pass, int64_t window, int h, int64_t) { pass.run(window, h); });
}

// Whether the backward pass is one pass over the keys' windows. What is summed for each query beside dq takes two, and
// so does a delta that needs the pairs.
inline bool takes_one_pass(const Problem &p) {
    return p.key_tile_ptr && p.score == kDot && p.grad_query && p.grad_key && !p.relation_key && !p.edge_attr &&
           !p.grad_relation_value && (p.total || p.normalizer != kSoftmax) && by_key(p).all_tiled() &&
           Spans(p, Walk(p, by_key(p), false)).pay(Walk(p, by_key(p), false));
}

template <class T>
void tiles_backward(const Problem &p) {
    const Spans spans(p, Walk(p, by_key(p), false));
    const Poisoned poisoned = poisoned_entries<T>(p, p.query, p.grad_out, p.num_queries);
    Poisoned poisoned_keys;
    poisoned_keys.scan<T>(p, p.key, p.num_keys, int64_t(p.heads) * p.width);
    find_deltas<T>(p);
    Array<T> shared;
    shared.resize(spans.shared_rows() * p.heads * p.width);
    for_tiles<TileOnePass<T>>(p, spans.walk, poisoned,
                              [](auto &pass, int64_t window, int h, int64_t chunk) { pass.run(window, h, chunk); },
                              spans, poisoned_keys, shared);
    add_shared<T>(p, spans, shared.data());
}

}  // namespace GF_NAMESPACE
