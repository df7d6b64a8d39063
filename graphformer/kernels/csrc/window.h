// One window of 32 lanes and one head: its lanes, and its entries block by block with the ids of their pairs. The lanes
// are queries and the entries keys in the passes by query; in the pass by key it is the other way round.
#pragma once
#include <algorithm>
#include <limits>

#include "array.h"
#include "lanes.h"
#include "philox.h"
#include "poisoned.h"

namespace GF_NAMESPACE {

constexpr int kEntries = 64;              // of one block
constexpr int64_t kMostKnown = 4096;      // entries of a window whose ids are kept from head to head
constexpr int64_t kMostPacked = 1 << 21;  // numbers
constexpr uint32_t kAllLanes = ~uint32_t(0);

template <class T, bool kByQuery>
struct Window {
    const Problem &p;
    const Poisoned &poisoned;  // of the entries
    const RowsOf rows;         // of the lanes
    const int H, D, V, F, R;
    const bool wants_ids, removes, heads_together;
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
    bool any_bad = false, in_order = false;  // in_order: each entry is the one before and 1

    // Ids, relations and dropout of the block's pairs, [kEntries][kWindow]. What one head finds the next ones know, in
    // a window that is not too long.
    const int64_t *id = nullptr;
    const int32_t *relation = nullptr;
    Array<T> keep;
    Array<int64_t> known_id;
    Array<int32_t> known_relation;
    Array<uint8_t> known_keep;  // a bit for each of four heads
    int64_t position[kWindow], behind = 0, known_window = -1;
    bool knows = false;

    // Rows of entries [packed_first, packed_last) from head packed_head on, packed once for a group of windows.
    int64_t packed_first = 0, packed_last = 0;
    int packed_head = 0;
    Array<T> packed_a, packed_b;
    const T *entries_a = nullptr, *entries_b = nullptr;  // the block's rows

    Array<T> lanes_a, lanes_b;          // [D or V][kWindow]
    Array<T> row_a, row_b;              // [kEntries][D or V]
    Array<T> lane_rows, converted_row;  // [kWindow][D, V or F], [D or V]

    Window(const Problem &problem, const Poisoned &poisoned, bool heads_together)
        : p(problem), poisoned(poisoned), rows(kByQuery ? by_query(problem) : by_key(problem)), H(problem.heads),
          D(problem.width), V(problem.value_width), F(problem.num_features), R(problem.num_relations),
          wants_ids(problem.bias || problem.relation || problem.edge_attr || problem.has_dropout),
          removes(problem.bias || problem.relation_bias), heads_together(heads_together) {
        lanes_a.resize(int64_t(D) * kWindow);
        lanes_b.resize(int64_t(V) * kWindow);
        row_a.resize(int64_t(kEntries) * D);
        row_b.resize(int64_t(kEntries) * V);
        lane_rows.resize(int64_t(kWindow) * std::max({D, V, F}));
        converted_row.resize(std::max(D, V));
        if (p.has_dropout) keep.resize(kEntries * kWindow);
    }

    static const T *real(const void *base) { return static_cast<const T *>(base); }
    static T *real(void *base) { return static_cast<T *>(base); }
    const T *head_row(const void *base, int64_t row, int length) {  // of [rows, H, length] in the input type
        return read_row<T>(base, p.input_type, row * H + h, length, converted_row.data());
    }

    // The rows of the lanes as a panel; lanes past the end are zero.
    void read_lanes(const void *base, int length, T factor, T *panel) {
        T *row_of = lane_rows.data();
        for (int l = 0; l < count; l++) {
            const T *row = head_row(base, first_row + l, length);
            for (int c = 0; c < length; c++) row_of[l * length + c] = row[c] * factor;
        }
        std::fill(row_of + count * length, row_of + kWindow * length, T(0));
        transpose(row_of, length, kWindow, length, panel, kWindow);
    }

    // The panel's lanes as rows of [rows, H, length], each times its lane's factor.
    void write_lanes(const T *panel, int length, const T *factor, T *base) const {
        T *row_of = lane_rows.data();
        transpose(panel, kWindow, length, kWindow, row_of, length);
        for (int l = 0; l < count; l++) {
            T *row = base + ((first_row + l) * H + h) * length;
            const T scale = factor ? factor[l] : T(1);
            for (int c = 0; c < length; c++) row[c] = row_of[l * length + c] * scale;
        }
    }

    // A pass that sums along the entries has work here.
    void begin_unit(int64_t, int, int) {}
    void end_unit() {}

    // For this head and, where they follow at once, for the next ones.
    void prefetch_row(const void *base, int64_t row, int length, int heads = 1) const {
        const int64_t size = bytes_of(p.input_type) * length, bytes = heads * size;
        const char *start = static_cast<const char *>(base) + (row * H + h) * size;
        for (int64_t offset = 0; offset < bytes; offset += 64) __builtin_prefetch(start + offset);
    }

    void begin(int64_t window, int head, bool reads_second) {
        h = head;
        first_row = window * kWindow;
        count = int(std::min<int64_t>(kWindow, rows.count - first_row));
        read_lanes(kByQuery ? p.query : p.key, D, p.score == kDot ? T(p.scale) : T(1), lanes_a.data());
        if (reads_second) read_lanes(kByQuery ? p.grad_out : p.value, V, T(1), lanes_b.data());
        for (int64_t row = first_row + kWindow; row < std::min(first_row + 2 * kWindow, rows.count); row++) {
            prefetch_row(kByQuery ? p.query : p.key, row, D);
            if (reads_second) prefetch_row(kByQuery ? p.grad_out : p.value, row, V);
            if (reads_second && kByQuery && p.total) prefetch_row(p.total, row, V);
        }
        rewind(window);
    }

    void rewind(int64_t window) {
        segment = tiles() + 3 * rows.tile_ptr[window];
        last_segment = tiles() + 3 * rows.tile_ptr[window + 1];
        done = 0;
        if (!wants_ids) return;
        int64_t listed = 0;
        for (const int32_t *s = segment; s < last_segment; s += 3) listed += s[1];
        knows = window == known_window;
        known_window = heads_together && listed <= kMostKnown ? window : -1;
        const int64_t room = (known_window < 0 ? kEntries : std::max<int64_t>(listed, kEntries)) * kWindow;
        known_id.grow(room);
        if (p.relation) known_relation.grow(room);
        if (p.has_dropout) known_keep.grow(room);
        behind = 0;
        for (int l = 0; l < kWindow; l++) position[l] = l < count ? rows.ptr[first_row + l] : 0;
    }

    const int32_t *tiles() const { return kByQuery ? p.query_tiles : p.key_tiles; }

    // The next block of entries; false where there are no more.
    bool next() {
        n = 0;
        every_mask = kAllLanes;
        any_bad = false;
        in_order = true;
        while (n < kEntries && segment < last_segment) {
            const int take = std::min(kEntries - n, segment[1] - done);
            for (int k = 0; k < take; k++) {
                other[n + k] = segment[0] + done + k;
                mask[n + k] = uint32_t(segment[2]);
                bad[n + k] = poisoned[other[n + k]];
                any_bad |= bad[n + k];
            }
            every_mask &= uint32_t(segment[2]);
            in_order &= other[n] == other[0] + n;
            n += take;
            done += take;
            if (done == segment[1]) segment += 3, done = 0;
        }
        if (n && wants_ids) find_pairs();
        return n > 0;
    }

    void find_pairs() {
        const int64_t start = known_window < 0 ? 0 : behind;
        behind += int64_t(n) * kWindow;
        id = known_id.data() + start;
        relation = known_relation.data() + start;
        if (!knows) find_ids(known_id.data() + start, known_relation.data() + start);
        if (p.has_dropout) find_dropout(known_keep.data() + start);
    }

    // One running counter a lane gives each pair its position, and with it its id and relation (0 off the mask).
    void find_ids(int64_t *out, int32_t *relations) {
        const void *ids = kByQuery ? p.edge_id : p.key_edge_id;
        for (int t = 0; t < n; t++, out += kWindow) {
            for (int l = 0; l < kWindow; l++) {
                const int64_t bit = mask[t] >> l & 1;
                out[l] = bit ? position[l] : 0;
                position[l] += bit;
            }
            if (!kByQuery && p.key_run_ptr)
                for_bits(mask[t], [&](int l) { out[l] = edge_of_runs(p, other[t], first_row + l); });
            else if (ids && p.wide_id)
                for (int l = 0; l < kWindow; l++) out[l] = static_cast<const int64_t *>(ids)[out[l]];
            else if (ids)
                for (int l = 0; l < kWindow; l++) out[l] = static_cast<const int32_t *>(ids)[out[l]];
            if (p.relation)
                for (int l = 0; l < kWindow; l++) relations[t * kWindow + l] = p.relation[out[l]];
        }
    }

    // The four words of a draw belong to four heads.
    void find_dropout(uint8_t *bits) {
        const uint64_t threshold = uint64_t(p.dropout * 4294967296.0);
        const int word = h % 4;
        if (!knows || word == 0)
            for (int t = 0; t < n * kWindow; t++) {
                uint32_t draw[4];
                philox(p.seed, uint64_t(id[t]), uint32_t(h / 4), draw);
                bits[t] = uint8_t((draw[0] >= threshold) | (draw[1] >= threshold) << 1 | (draw[2] >= threshold) << 2 |
                                  (draw[3] >= threshold) << 3);
            }
        const T grow = T(1 / (1 - p.dropout));
        for (int t = 0; t < n * kWindow; t++) keep[t] = bits[t] >> word & 1 ? grow : T(0);
    }

    const void *first_base() const { return kByQuery ? p.key : p.query; }
    const void *second_base() const { return kByQuery ? p.value : p.grad_out; }

    // Reads the rows that the windows list once for all of them, where they list many of them more than once.
    void pack(int64_t first_window, int64_t last_window, int first_head, int last_head) {
        int64_t listed = 0, first = std::numeric_limits<int64_t>::max(), last = 0;
        for (int64_t s = rows.tile_ptr[first_window]; s < rows.tile_ptr[last_window]; s++) {
            const int32_t *segment = tiles() + 3 * s;
            listed += segment[1];
            first = std::min<int64_t>(first, segment[0]);
            last = std::max<int64_t>(last, int64_t(segment[0]) + segment[1]);
        }
        packed_first = packed_last = 0;
        if (listed == 0 || listed < 2 * (last - first)) return;
        if ((last - first) * (last_head - first_head) * (D + V) > kMostPacked) return;
        packed_first = first, packed_last = last, packed_head = first_head;
        pack_rows(first_base(), last_head, D, p.score == kDot, packed_a);
        pack_rows(second_base(), last_head, V, true, packed_b);
    }

    void pack_rows(const void *base, int last_head, int length, bool zero_bad, Array<T> &packed) {
        constexpr int64_t kRowsAhead = 16;
        packed.grow((last_head - packed_head) * (packed_last - packed_first) * length);
        for (int64_t row = packed_first; row < packed_last; row++) {
            h = packed_head;
            if (row + kRowsAhead < packed_last) prefetch_row(base, row + kRowsAhead, length, last_head - packed_head);
            for (; h < last_head; h++)
                read_entry(base, row, length, zero_bad && poisoned[row], packed_row(packed, row, length));
        }
    }

    T *packed_row(const Array<T> &packed, int64_t row, int length) const {
        return packed.data() + ((h - packed_head) * (packed_last - packed_first) + row - packed_first) * length;
    }

    // A row that is not finite is zero where it goes into a product.
    void read_entry(const void *base, int64_t row, int length, bool as_zero, T *to) {
        if (as_zero) std::fill(to, to + length, T(0));
        else copy_row(head_row(base, row, length), to, length);
    }

    // Rows of the block's entries, one after the other.
    const T *read_entries(const void *base, int length, bool zero_bad, const Array<T> &packed, T *rows) {
        constexpr int kRowsAhead = 8;
        if (packed_last > 0) {
            if (in_order) return packed_row(packed, other[0], length);
            for (int t = 0; t < n; t++) copy_row(packed_row(packed, other[t], length), rows + t * length, length);
            return rows;
        }
        for (int t = 0; t < n; t++) {
            if ((h == 0 || !heads_together) && t + kRowsAhead < n)
                prefetch_row(base, other[t + kRowsAhead], length, heads_together ? H : 1);
            read_entry(base, other[t], length, zero_bad && bad[t], rows + t * length);
        }
        return rows;
    }

    // The second rows of a packed block are asked for while its scores are found.
    void read_first() {
        if (packed_last > 0 && in_order) {
            const char *start = reinterpret_cast<const char *>(packed_row(packed_b, other[0], V));
            const int64_t bytes = int64_t(n) * V * int64_t(sizeof(T));
            for (int64_t offset = 0; offset < bytes; offset += 64) __builtin_prefetch(start + offset);
        }
        entries_a = read_entries(first_base(), D, p.score == kDot, packed_a, row_a.data());
    }
    void read_second() { entries_b = read_entries(second_base(), V, true, packed_b, row_b.data()); }
};

}  // namespace GF_NAMESPACE
