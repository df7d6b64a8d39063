// One window of 32 lanes and one head: its entries block by block, their scores and gradients. The lanes are queries
// and the entries keys in the passes by query; in the pass by key it is the other way round.
#pragma once
#include "lanes.h"
#include "rows.h"

namespace GF_NAMESPACE {

constexpr int kEntries = 64;  // of one block
constexpr int64_t kMostPacked = 1 << 21;  // numbers
constexpr uint32_t kAllLanes = ~uint32_t(0);

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
#pragma omp parallel num_threads(p.threads) reduction(|| : any)
        {
            std::vector<T> buffer(length);
#pragma omp for schedule(static)
            for (int64_t row = 0; row < count; row++) {
                const T *values = read_row<T>(base, p.input_type, row, int(length), buffer.data());
                T sum = 0;
#pragma omp simd reduction(+ : sum)
                for (int64_t c = 0; c < length; c++) sum += values[c] * T(0);
                if (sum != 0) found[row] = 1;  // 0 * infinity is NaN too
                any = any || found[row];
            }
        }
        if (any) rows = std::move(found);
    }
};

template <class T, bool kByQuery>
struct Tile {
    const Problem &p;
    const Poisoned &poisoned;  // of the entries
    Rows<T, 0> pairs;          // what is done pair by pair is done as in the row loops
    const int H, D, V, F, R;
    const bool wants_ids, has_pair_terms, heads_together;
    static constexpr T kInfinity = std::numeric_limits<T>::infinity();

    int h = 0, count = 0;
    int64_t first_row = 0;
    const int32_t *segment = nullptr, *last_segment = nullptr;
    int32_t done = 0;  // entries of the current segment that are behind us

    // a block of entries
    int n = 0;
    uint32_t every_mask = 0;  // lanes that use every entry
    int64_t other[kEntries];
    uint32_t mask[kEntries];
    bool bad[kEntries];
    bool any_bad = false;
    int64_t position[kLanes];

    // Rows of entries [packed_first, packed_last), packed once for a group of windows that share them.
    int64_t packed_first = 0, packed_last = 0;
    Aligned<T> packed_a, packed_b;
    const T *entries_a = nullptr, *entries_b = nullptr;  // the block's rows

    // lanes [D or V][kLanes] in and out; rows of entries [kEntries][D or V]; blocks [kEntries][kLanes]
    Aligned<T> lanes_a, lanes_b, sum_a, sum_b, row_a, row_b, lane_rows, score, weight, kept, safe, upstream, keep, pair_lanes, pair_row;
    Aligned<T> relation_score, relation_upstream;  // [R][kLanes], by query
    Aligned<int64_t> id;
    Aligned<int32_t> relation;
    T statistic[kLanes], delta[kLanes];
    T entry_statistic[kEntries], entry_delta[kEntries];


    Tile(const Problem &problem, const Poisoned &poisoned, bool heads_together)
        : p(problem), poisoned(poisoned), pairs(problem), H(problem.heads), D(problem.width), V(problem.value_width),
          F(problem.num_features), R(problem.num_relations),
          wants_ids(problem.bias || problem.relation || problem.edge_attr || problem.has_dropout),
          has_pair_terms(problem.score != kDot && (problem.relation_key || problem.edge_key)),
          heads_together(heads_together) {
        for (auto *panel : {&lanes_a, &sum_a}) panel->resize(int64_t(D) * kLanes);
        for (auto *panel : {&lanes_b, &sum_b}) panel->resize(int64_t(V) * kLanes);
        lane_rows.resize(int64_t(kLanes) * std::max({D, V, F}));
        row_a.resize(int64_t(kEntries) * D);
        row_b.resize(int64_t(kEntries) * V);
        for (auto *block : {&score, &weight, &kept, &safe, &upstream}) block->resize(kEntries * kLanes);
        if (p.has_dropout) keep.resize(kEntries * kLanes);
        if (wants_ids) id.resize(kEntries * kLanes);
        if (p.relation) relation.resize(kEntries * kLanes);
        if (p.score != kDot) pair_lanes.resize(int64_t(D) * kLanes);
        pair_row.resize(std::max(D, V));
        if (kByQuery && p.relation_key && p.score == kDot) relation_score.resize(int64_t(R) * kLanes);
        if (kByQuery && p.relation_value) relation_upstream.resize(int64_t(R) * kLanes);
    }


    static const T *real(const void *base) { return static_cast<const T *>(base); }
    static T *real(void *base) { return static_cast<T *>(base); }
    const T *head_row(const void *base, int64_t row, int length) {  // of [rows, H, length] in the input type
        return read_row<T>(base, p.input_type, row * H + h, length, pair_row.data());
    }

    // The rows of the lanes as a panel; lanes past the end are zero.
    void read_lanes(const void *base, int length, T factor, T *panel) {
        T *rows = lane_rows.data();
        for (int l = 0; l < count; l++) {
            const T *row = head_row(base, first_row + l, length);
            for (int c = 0; c < length; c++) rows[l * length + c] = row[c] * factor;
        }
        std::fill(rows + count * length, rows + kLanes * length, T(0));
        transpose(rows, length, kLanes, length, panel, kLanes);
    }

    // The panel's lanes as rows of [rows, H, length], each times its lane's factor.
    void write_lanes(const T *panel, int length, const T *factor, T *base) const {
        T *rows = lane_rows.data();
        transpose(panel, kLanes, length, kLanes, rows, length);
        for (int l = 0; l < count; l++) {
            T *row = base + ((first_row + l) * H + h) * length;
            const T scale = factor ? factor[l] : T(1);
            for (int c = 0; c < length; c++) row[c] = rows[l * length + c] * scale;
        }
    }

    bool prefetches() const { return h == 0 || !heads_together; }

    // The first head that reads a row fetches it for the others too, where they follow at once.
    void prefetch_row(const void *base, int64_t row, int length) const {
        const size_t size = p.input_type == kFloat64 ? 8 : p.input_type == kFloat32 ? 4 : 2;
        const size_t bytes = (heads_together ? H : 1) * length * size;
        const char *start = static_cast<const char *>(base) + (row * H + h) * length * size;
        for (size_t offset = 0; offset < bytes; offset += 64) __builtin_prefetch(start + offset);
    }

    void begin(int64_t window, int head, bool reads_second) {
        h = head;
        first_row = window * kLanes;
        const int64_t num_rows = kByQuery ? p.num_queries : p.num_keys;
        count = int(std::min<int64_t>(kLanes, num_rows - first_row));
        read_lanes(kByQuery ? p.query : p.key, D, p.score == kDot ? T(p.scale) : T(1), lanes_a.data());
        if (reads_second) read_lanes(kByQuery ? p.grad_out : p.value, V, T(1), lanes_b.data());
        if (prefetches())
            for (int64_t row = first_row + kLanes; row < std::min(first_row + 2 * kLanes, num_rows); row++) {
                prefetch_row(kByQuery ? p.query : p.key, row, D);
                if (reads_second) prefetch_row(kByQuery ? p.grad_out : p.value, row, V);
                if (reads_second && kByQuery && p.total) prefetch_row(p.total, row, V);
            }
        if (kByQuery && p.relation_key && p.score == kDot)
            multiply<T, false>(real(p.relation_key) + h * D, int64_t(H) * D, R, D, lanes_a.data(), relation_score.data(), false);
        if (kByQuery && p.relation_value && reads_second)
            multiply<T, false>(real(p.relation_value) + h * V, int64_t(H) * V, R, V, lanes_b.data(), relation_upstream.data(), false);
        rewind(window);
    }

    void rewind(int64_t window) {
        const int64_t *tile_ptr = kByQuery ? p.query_tile_ptr : p.key_tile_ptr;
        const int32_t *tiles = kByQuery ? p.query_tiles : p.key_tiles;
        segment = tiles + 3 * tile_ptr[window];
        last_segment = tiles + 3 * tile_ptr[window + 1];
        done = 0;
        if (!wants_ids) return;
        const int64_t *ptr = kByQuery ? p.query_ptr : p.key_ptr;
        for (int l = 0; l < kLanes; l++) position[l] = l < count ? ptr[first_row + l] : 0;
    }

    // The next block of entries; false where there are no more.
    bool next() {
        n = 0;
        every_mask = kAllLanes;
        any_bad = false;
        while (n < kEntries && segment < last_segment) {
            const int take = std::min(kEntries - n, segment[1] - done);
            for (int k = 0; k < take; k++) {
                other[n + k] = segment[0] + done + k;
                mask[n + k] = uint32_t(segment[2]);
                bad[n + k] = poisoned[other[n + k]];
                any_bad |= bad[n + k];
            }
            every_mask &= uint32_t(segment[2]);
            n += take;
            done += take;
            if (done == segment[1]) segment += 3, done = 0;
        }
        if (n && wants_ids) find_ids();
        return n > 0;
    }

    // One running counter a lane gives each pair its position, and with it its id and relation (0 off the mask).
    void find_ids() {
        const void *ids = kByQuery ? p.edge_id : p.key_edge_id;
        for (int t = 0; t < n; t++) {
            int64_t *out = id.data() + t * kLanes;
            for (int l = 0; l < kLanes; l++) {
                const int64_t bit = mask[t] >> l & 1;
                out[l] = bit ? position[l] : 0;
                position[l] += bit;
            }
            if (ids && p.wide_id)
                for (int l = 0; l < kLanes; l++) out[l] = static_cast<const int64_t *>(ids)[out[l]];
            else if (ids)
                for (int l = 0; l < kLanes; l++) out[l] = static_cast<const int32_t *>(ids)[out[l]];
            if (p.relation)
                for (int l = 0; l < kLanes; l++) relation.data()[t * kLanes + l] = p.relation[out[l]];
        }
        if (p.has_dropout) find_dropout();
    }

    void find_dropout() {
        const uint64_t threshold = uint64_t(p.dropout * 4294967296.0);
        const T grow = T(1 / (1 - p.dropout));
        const int word = h % 4;
        for (int t = 0; t < n * kLanes; t++) {
            uint32_t draw[4];
            philox(p.seed, uint64_t(id.data()[t]), uint32_t(h / 4), draw);
            keep.data()[t] = draw[word] >= threshold ? grow : T(0);
        }
    }

    const void *first_base() const { return kByQuery ? p.key : p.query; }
    const void *second_base() const { return kByQuery ? p.value : p.grad_out; }

    // Reads the rows that the windows list once for all of them, where they list many of them more than once.
    void pack(int64_t first_window, int64_t last_window, int head) {
        const int64_t *tile_ptr = kByQuery ? p.query_tile_ptr : p.key_tile_ptr;
        const int32_t *tiles = kByQuery ? p.query_tiles : p.key_tiles;
        int64_t listed = 0, first = std::numeric_limits<int64_t>::max(), last = 0;
        for (int64_t s = tile_ptr[first_window]; s < tile_ptr[last_window]; s++) {
            listed += tiles[3 * s + 1];
            first = std::min<int64_t>(first, tiles[3 * s]);
            last = std::max<int64_t>(last, int64_t(tiles[3 * s]) + tiles[3 * s + 1]);
        }
        packed_first = packed_last = 0;
        if (listed < 2 * (last - first) || (last - first) * (D + V) > kMostPacked) return;
        h = head;
        pack_rows(first_base(), first, last, D, p.score == kDot, packed_a);
        pack_rows(second_base(), first, last, V, true, packed_b);
        packed_first = first, packed_last = last;
    }

    void pack_rows(const void *base, int64_t first, int64_t last, int length, bool zero_bad, Aligned<T> &packed) {
        constexpr int64_t kAhead = 8;
        packed.grow((last - first) * length);
        for (int64_t row = first; row < last; row++) {
            if (row + kAhead < last) prefetch_row(base, row + kAhead, length);
            read_entry(base, row, length, zero_bad && poisoned[row], packed.data() + (row - first) * length);
        }
    }

    // A row that is not finite is zero where it goes into a product.
    void read_entry(const void *base, int64_t row, int length, bool as_zero, T *to) {
        if (as_zero) std::fill(to, to + length, T(0));
        else copy_row(head_row(base, row, length), to, length);
    }

    // Rows of the block's entries, one after the other.
    const T *read_entries(const void *base, int length, bool zero_bad, const Aligned<T> &packed, T *rows) {
        constexpr int kAhead = 8;
        if (packed_last > 0) {
            const T *source = packed.data() - packed_first * length;
            if (other[n - 1] - other[0] == n - 1) return source + other[0] * length;
            for (int t = 0; t < n; t++) copy_row(source + other[t] * length, rows + t * length, length);
            return rows;
        }
        for (int t = 0; t < n; t++) {
            if (prefetches() && t + kAhead < n) prefetch_row(base, other[t + kAhead], length);
            read_entry(base, other[t], length, zero_bad && bad[t], rows + t * length);
        }
        return rows;
    }

    void read_first() { entries_a = read_entries(first_base(), D, p.score == kDot, packed_a, row_a.data()); }
    void read_second() { entries_b = read_entries(second_base(), V, true, packed_b, row_b.data()); }

    int64_t query_of(int t, int l) const { return kByQuery ? first_row + l : other[t]; }
    int64_t key_of(int t, int l) const { return kByQuery ? other[t] : first_row + l; }

    // ---------------------------------------------------------------- scores

    void find_scores() {
        if (p.score == kDot) multiply<T, false>(entries_a, D, n, D, lanes_a.data(), score.data(), false);
        else additive_scores();
        if (p.relation_key && p.score == kDot) add_relation_scores();
        if (p.edge_query) add_edge_terms(p.edge_query, T(p.scale), score.data());
        if (any_bad && p.score == kDot) mend_scores();
        if (pairs.removes) add_bias();
        if (every_mask != kAllLanes) blend(score.data(), -kInfinity);
    }

    // `instead` where a lane does not use an entry.
    void blend(T *block, T instead) const {
        for (int t = 0; t < n; t++) {
            if (mask[t] == kAllLanes) continue;
            T *row = block + t * kLanes;
            for (int l = 0; l < kLanes; l++) row[l] = mask[t] >> l & 1 ? row[l] : instead;
        }
    }

    void add_relation_scores() {
        for (int t = 0; t < n; t++) {
            const int32_t *r = relation.data() + t * kLanes;
            T *row = score.data() + t * kLanes;
            if (kByQuery)
                for (int l = 0; l < kLanes; l++) row[l] += relation_score.data()[r[l] * kLanes + l];
            else
                for_bits(mask[t], [&](int l) {
                    row[l] += T(p.scale) * dot(entries_a + t * D, real(p.relation_key) + (int64_t(r[l]) * H + h) * D, D);
                });
        }
    }

    // factor * nodes[i, h] . a(e): for scores and for the gradients of weights
    void add_edge_terms(const void *nodes, T factor, T *block) const {
        for (int t = 0; t < n; t++)
            for_bits(mask[t], [&](int l) {
                const T *row = real(nodes) + (query_of(t, l) * H + h) * F;
                block[t * kLanes + l] += factor * dot(row, real(p.edge_attr) + id.data()[t * kLanes + l] * F, F);
            });
    }

    void mend_scores() {
        for (int t = 0; t < n; t++)
            if (bad[t])
                for_bits(mask[t], [&](int l) { score.data()[t * kLanes + l] = dot_of_pair(t, l); });
    }

    T dot_of_pair(int t, int l) {
        const T *entry = head_row(first_base(), other[t], D);
        T sum = 0;
        for (int c = 0; c < D; c++) sum += entry[c] * lanes_a.data()[c * kLanes + l];
        const int64_t at_pair = t * kLanes + l;
        if (p.relation_key) {
            const T *extra = real(p.relation_key) + (int64_t(relation.data()[at_pair]) * H + h) * D;
            for (int c = 0; c < D; c++)
                sum += extra[c] * (kByQuery ? lanes_a.data()[c * kLanes + l] : T(p.scale) * entry[c]);
        }
        if (p.edge_query)
            sum += T(p.scale) * dot(real(p.edge_query) + (query_of(t, l) * H + h) * F, real(p.edge_attr) + id.data()[at_pair] * F, F);
        return sum;
    }

    void add_bias() {
        for (int t = 0; t < n; t++) {
            T *row = score.data() + t * kLanes;
            const int64_t *e = id.data() + t * kLanes;
            for (int l = 0; l < kLanes; l++) {
                T bias = p.bias ? real(p.bias)[e[l] * H + h] : T(0);
                if (p.relation_bias) bias += real(p.relation_bias)[int64_t(relation.data()[t * kLanes + l]) * H + h];
                row[l] = bias == -kInfinity ? -kInfinity : row[l] + bias;
            }
        }
    }

    // q + k of an entry and every lane, with what is added pair by pair, in pair_lanes.
    const T *additive_inner(int t) {
        T *inner = pair_lanes.data();
        const T *entry = entries_a + t * D;
        for (int c = 0; c < D; c++)
            for (int l = 0; l < kLanes; l++) inner[c * kLanes + l] = entry[c] + lanes_a.data()[c * kLanes + l];
        if (has_pair_terms)
            for_bits(mask[t], [&](int l) {
                const int64_t e = id.data()[t * kLanes + l];
                for (int c = 0; c < D; c++) {
                    T extra = p.relation_key ? real(p.relation_key)[(int64_t(p.relation[e]) * H + h) * D + c] : T(0);
                    if (p.edge_key)
                        for (int f = 0; f < F; f++)
                            extra += real(p.edge_attr)[e * F + f] * real(p.edge_key)[(int64_t(f) * H + h) * D + c];
                    inner[c * kLanes + l] += extra;
                }
            });
        return inner;
    }

    void additive_scores() {
        const T slope = T(p.slope);
        for (int t = 0; t < n; t++) {
            const T *inner = additive_inner(t);
            T sum[kLanes] = {};
            for (int c = 0; c < D; c++) {
                const T w = p.weight ? real(p.weight)[h * D + c] : T(1);
                const T *x = inner + c * kLanes;
                if (p.score == kLeakyRelu)
                    for (int l = 0; l < kLanes; l++) sum[l] += w * (x[l] > 0 ? x[l] : slope * x[l]);
                else
                    for (int l = 0; l < kLanes; l++) sum[l] += w * std::tanh(x[l]);
            }
            std::copy(sum, sum + kLanes, score.data() + t * kLanes);
        }
    }

    // ---------------------------------------------------------------- weights

    // The statistic of each pair of an entry's lanes: the lane's own by query, the entry's by key.
    const T *statistic_of(int t, T *buffer) const {
        if (kByQuery) return statistic;
        std::fill(buffer, buffer + kLanes, entry_statistic[t]);
        return buffer;
    }

    // alpha from scores and statistics
    void find_weights() {
        T buffer[kLanes];
        for (int t = 0; t < n; t++) {
            const T *s = score.data() + t * kLanes, *base = statistic_of(t, buffer);
            T *w = weight.data() + t * kLanes;
            if (p.normalizer == kSoftmax)
                for (int l = 0; l < kLanes; l++) w[l] = exponential(s[l] - (base[l] == -kInfinity ? T(0) : base[l]));
            else
                for (int l = 0; l < kLanes; l++) w[l] = pairs.weight_of(s[l], base[l]);
            // A statistic may be NaN for the sake of another pair.
            if (pairs.removes)
                for (int l = 0; l < kLanes; l++) w[l] = s[l] == -kInfinity ? T(0) : w[l];
        }
        if (every_mask != kAllLanes) blend(weight.data(), T(0));
    }

    bool removed(int t, int l) const { return pairs.removes && score.data()[t * kLanes + l] == -kInfinity; }

    // P: alpha after dropout
    const T *dropped() {
        if (!p.has_dropout) return weight.data();
        for (int c = 0; c < n * kLanes; c++) kept.data()[c] = weight.data()[c] * keep.data()[c];
        return kept.data();
    }

    // sum += the entries' rows, each times its weight in each lane.
    void spread(const T *rows, const void *base, int length, const T *weights, T *sum) {
        if (!any_bad) return multiply<T, true>(rows, length, length, n, weights, sum, true);
        // Rows that are not finite are zero here, and so must be their weights: infinity times zero is no zero.
        std::copy(weights, weights + n * kLanes, safe.data());
        for (int t = 0; t < n; t++)
            if (bad[t]) std::fill(safe.data() + t * kLanes, safe.data() + (t + 1) * kLanes, T(0));
        multiply<T, true>(rows, length, length, n, safe.data(), sum, true);
        for (int t = 0; t < n; t++)
            if (bad[t]) {
                const T *row = head_row(base, other[t], length);
                for_bits(mask[t], [&](int l) {
                    if (removed(t, l)) return;
                    for (int c = 0; c < length; c++) sum[c * kLanes + l] += weights[t * kLanes + l] * row[c];
                });
            }
    }

    // ---------------------------------------------------------------- gradients

    // d alpha of the block's pairs, dropout taken in
    void find_upstream() {
        T *up = upstream.data();
        multiply<T, false>(entries_b, V, n, V, lanes_b.data(), up, false);
        if (p.relation_value)
            for (int t = 0; t < n; t++) {
                const int32_t *r = relation.data() + t * kLanes;
                if (kByQuery)
                    for (int l = 0; l < kLanes; l++) up[t * kLanes + l] += relation_upstream.data()[r[l] * kLanes + l];
                else
                    for_bits(mask[t], [&](int l) {
                        up[t * kLanes + l] += dot(entries_b + t * V, real(p.relation_value) + (int64_t(r[l]) * H + h) * V, V);
                    });
            }
        if (p.edge_grad) add_edge_terms(p.edge_grad, T(1), up);
        if (any_bad) mend_upstream();
        if (p.has_dropout)
            for (int c = 0; c < n * kLanes; c++) up[c] *= keep.data()[c];
    }

    void mend_upstream() {
        for (int t = 0; t < n; t++) {
            if (!bad[t]) continue;
            const T *row = head_row(second_base(), other[t], V);
            for_bits(mask[t], [&](int l) {
                const int64_t at_pair = t * kLanes + l;
                T sum = 0;
                for (int c = 0; c < V; c++) sum += row[c] * lanes_b.data()[c * kLanes + l];
                if (p.relation_value) {
                    const T *extra = real(p.relation_value) + (int64_t(relation.data()[at_pair]) * H + h) * V;
                    for (int c = 0; c < V; c++) sum += extra[c] * (kByQuery ? lanes_b.data()[c * kLanes + l] : row[c]);
                }
                if (p.edge_grad)
                    sum += dot(real(p.edge_grad) + (query_of(t, l) * H + h) * F, real(p.edge_attr) + id.data()[at_pair] * F, F);
                upstream.data()[at_pair] = sum;
            });
        }
    }

    // g from d alpha, in its place; exactly zero off the mask and for removed pairs
    void find_gradients() {
        T buffer[kLanes], deltas[kLanes];
        for (int t = 0; t < n; t++) {
            const T *s = score.data() + t * kLanes, *alpha = weight.data() + t * kLanes;
            const T *base = statistic_of(t, buffer), *minus = delta;
            if (!kByQuery) std::fill(deltas, deltas + kLanes, entry_delta[t]), minus = deltas;
            T *g = upstream.data() + t * kLanes;
            if (p.normalizer == kSoftmax)
                for (int l = 0; l < kLanes; l++) g[l] = alpha[l] * (g[l] - minus[l]);
            else
                for (int l = 0; l < kLanes; l++) g[l] = pairs.score_grad(s[l], alpha[l], g[l], base[l], minus[l]);
            if (pairs.removes)
                for (int l = 0; l < kLanes; l++) g[l] = s[l] == -kInfinity ? T(0) : g[l];
        }
        if (every_mask != kAllLanes) blend(upstream.data(), T(0));
    }

    // The gradient of q + k of an entry and every lane, into pair_lanes; and of the score's weight.
    const T *additive_step(int t, T *grad_weight) {
        additive_inner(t);
        const T *g = upstream.data() + t * kLanes;
        uint32_t live = mask[t];
        if (pairs.removes) for_bits(mask[t], [&](int l) { live &= ~(uint32_t(removed(t, l)) << l); });
        for (int c = 0; c < D; c++) {
            const T w = p.weight ? real(p.weight)[h * D + c] : T(1);
            T *x = pair_lanes.data() + c * kLanes, sum = 0;
            for (int l = 0; l < kLanes; l++) {
                const bool lives = live >> l & 1;
                const T f = pairs.activate(x[l]), slope = pairs.slope(x[l], f);
                if (grad_weight) sum += lives ? g[l] * f : T(0);
                x[l] = lives ? g[l] * w * slope : T(0);
            }
            if (grad_weight) grad_weight[c] += sum;
        }
        return pair_lanes.data();
    }

    // sum_a += the step of each pair through its score: g * scale * entry, or the additive step
    void spread_scores() {
        if (p.score == kDot) {
            T *g = kept.data();
            for (int c = 0; c < n * kLanes; c++) g[c] = upstream.data()[c] * T(p.scale);
            spread(entries_a, first_base(), D, g, sum_a.data());
            return;
        }
        for (int t = 0; t < n; t++) {
            const T *step = additive_step(t, nullptr);
            for (int c = 0; c < D * kLanes; c++) sum_a.data()[c] += step[c];
        }
    }
};

}  // namespace GF_NAMESPACE
