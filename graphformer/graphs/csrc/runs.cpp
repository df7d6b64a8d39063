// Runs of keys, row by row: joined, combined, listed. See graphs/sweep.py.
//
// What the rows give is counted first and written by a second call, so that nothing is held beside arguments and
// result.
#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "failure.h"

namespace {

constexpr int64_t kChunkRows = 256;

struct Count {
    int64_t runs = 0;
    void operator()(int64_t, int64_t) { ++runs; }
};

struct Write {
    int64_t *start, *stop;
    void operator()(int64_t first, int64_t last) {
        *start++ = first;
        *stop++ = last;
    }
};

// Takes runs by ascending start, and hands on those that touch or overlap as one.
template <class Take>
class Joiner {
  public:
    explicit Joiner(Take &take) : take_(take) {}

    void add(int64_t first, int64_t last) {
        if (first <= last_) {
            last_ = std::max(last_, last);
            return;
        }
        close();
        first_ = first;
        last_ = last;
    }

    void close() {
        if (last_ >= 0) take_(first_, last_);
        last_ = -1;
    }

  private:
    Take &take_;
    int64_t first_ = 0, last_ = -1;
};

// Each row's runs as a caller lists them: [start, stop), then the same `step` keys further on, `count` times in all.
template <class Index>
class Lines {
  public:
    Lines(const int64_t *ptr, const void *start, const int64_t *stop, const int64_t *count, const int64_t *step)
        : ptr_(ptr), start_(static_cast<const Index *>(start)), stop_(stop), count_(count), step_(step) {}

    template <class Take>
    void operator()(int64_t row, Take &take) {
        Joiner<Take> joiner(take);
        if (ascends(row)) {
            each(row, [&](int64_t first, int64_t last) { joiner.add(first, last); });
        } else {
            spare_.clear();
            each(row, [&](int64_t first, int64_t last) { spare_.emplace_back(first, last); });
            std::sort(spare_.begin(), spare_.end());
            for (const auto &[first, last] : spare_) joiner.add(first, last);
        }
        joiner.close();
    }

  private:
    int64_t length(int64_t line) const { return stop_ == nullptr ? 1 : stop_[line] - start_[line]; }
    int64_t count(int64_t line) const { return count_ == nullptr ? 1 : count_[line]; }

    bool ascends(int64_t row) const {
        int64_t before = 0;
        for (int64_t line = ptr_[row]; line < ptr_[row + 1]; ++line) {
            if (length(line) <= 0 || count(line) <= 0) continue;
            if (start_[line] < before) return false;
            before = start_[line] + (count(line) == 1 ? 0 : (count(line) - 1) * step_[line]);
        }
        return true;
    }

    template <class Take>
    void each(int64_t row, Take take) const {
        for (int64_t line = ptr_[row]; line < ptr_[row + 1]; ++line) {
            const int64_t wide = length(line);
            if (wide <= 0) continue;
            int64_t first = start_[line];
            for (int64_t turn = count(line); turn > 0; --turn) {
                take(first, first + wide);
                if (turn > 1) first += step_[line];
            }
        }
    }

    const int64_t *ptr_;
    const Index *start_;
    const int64_t *stop_, *count_, *step_;
    std::vector<std::pair<int64_t, int64_t>> spare_;
};

// A row's end points in order, starts and stops in turn.
class Ends {
  public:
    Ends(const int64_t *ptr, const int64_t *start, const int64_t *stop, int64_t row)
        : start_(start), stop_(stop), next_(2 * ptr[row]), end_(2 * ptr[row + 1]) {}

    int64_t point() const { return next_ == end_ ? INT64_MAX : is_inside() ? stop_[next_ / 2] : start_[next_ / 2]; }
    bool is_inside() const { return next_ % 2 == 1; }
    void pass(int64_t point) { next_ += this->point() == point; }

  private:
    const int64_t *start_, *stop_;
    int64_t next_, end_;
};

// rule[2 * a + b] says whether a key belongs to the result, a and b whether it lies in the first and in the second.
template <class Take>
void combine(Ends a, Ends b, const bool *rule, Take &take) {
    int64_t first = 0;
    bool is_open = false;
    for (int64_t point; (point = std::min(a.point(), b.point())) != INT64_MAX;) {
        a.pass(point);
        b.pass(point);
        const bool belongs = rule[2 * a.is_inside() + b.is_inside()];
        if (belongs && !is_open) first = point;
        if (!belongs && is_open) take(first, point);
        is_open = belongs;
    }
}

// As many threads as pay.
int used(int64_t num_rows, int32_t most) { return int(std::min<int64_t>(most, 1 + num_rows / kChunkRows)); }

void add_up(int64_t num_rows, int64_t *ptr) {
    ptr[0] = 0;
    for (int64_t r = 0; r < num_rows; ++r) ptr[r + 1] += ptr[r];
}

// Without `start`, counts each row's runs into offsets and returns their sum; with it, writes them. kOutOfMemory where
// there is none left.
template <class Row>
int64_t sweep(int64_t num_rows, int32_t threads, int64_t *ptr, int64_t *start, int64_t *stop, const Row &row) {
    Failure failure;
#pragma omp parallel num_threads(used(num_rows, threads))
    {
        Row mine = row;
#pragma omp for schedule(dynamic, kChunkRows)
        for (int64_t r = 0; r < num_rows; ++r)
            failure.guard([&] {
                if (start == nullptr) {
                    Count count;
                    mine(r, count);
                    ptr[r + 1] = count.runs;
                } else {
                    Write write{start + ptr[r], stop + ptr[r]};
                    mine(r, write);
                }
            });
    }
    if (failure.failed()) return kOutOfMemory;
    if (start == nullptr) add_up(num_rows, ptr);
    return ptr[num_rows];
}

template <class Index>
void list(int64_t num_rows, const int64_t *ptr, const int64_t *start, const int64_t *stop, const int64_t *pair_ptr,
          int32_t threads, Index *keys) {
#pragma omp parallel for num_threads(used(num_rows, threads)) schedule(dynamic, kChunkRows)
    for (int64_t r = 0; r < num_rows; ++r) {
        Index *next = keys + pair_ptr[r];
        for (int64_t run = ptr[r]; run < ptr[r + 1]; ++run)
            for (int64_t key = start[run]; key < stop[run]; ++key) *next++ = Index(key);
    }
}

}  // namespace

extern "C" {
// The canonical runs of rows whose runs lie in any order, may be empty, touch or overlap. No stop: each is one key. No
// count: each comes once. `wide` says that `start` is int64 rather than int32. Called without start_out it writes
// ptr_out [num_rows + 1], with it start_out and stop_out; returns the number of runs, or kOutOfMemory.
int64_t gf_join_runs(int64_t num_rows, const int64_t *ptr, const void *start, const int64_t *stop, const int64_t *count,
                     const int64_t *step, int32_t wide, int32_t threads, int64_t *ptr_out, int64_t *start_out,
                     int64_t *stop_out) {
    if (wide)
        return sweep(num_rows, threads, ptr_out, start_out, stop_out, Lines<int64_t>(ptr, start, stop, count, step));
    return sweep(num_rows, threads, ptr_out, start_out, stop_out, Lines<int32_t>(ptr, start, stop, count, step));
}

// What a rule [4], see combine, makes of two sets of canonical runs; the rest as in gf_join_runs.
int64_t gf_combine_runs(int64_t num_rows, const int64_t *ptr_a, const int64_t *start_a, const int64_t *stop_a,
                        const int64_t *ptr_b, const int64_t *start_b, const int64_t *stop_b, const bool *rule,
                        int32_t threads, int64_t *ptr_out, int64_t *start_out, int64_t *stop_out) {
    return sweep(num_rows, threads, ptr_out, start_out, stop_out, [=](int64_t row, auto &take) {
        combine(Ends(ptr_a, start_a, stop_a, row), Ends(ptr_b, start_b, stop_b, row), rule, take);
    });
}

// How many pairs the rows' runs hold, as offsets, pair_ptr [num_rows + 1].
void gf_count_pairs(int64_t num_rows, const int64_t *ptr, const int64_t *start, const int64_t *stop, int32_t threads,
                    int64_t *pair_ptr) {
#pragma omp parallel for num_threads(used(num_rows, threads)) schedule(dynamic, kChunkRows)
    for (int64_t r = 0; r < num_rows; ++r) {
        pair_ptr[r + 1] = 0;
        for (int64_t run = ptr[r]; run < ptr[r + 1]; ++run) pair_ptr[r + 1] += stop[run] - start[run];
    }
    add_up(num_rows, pair_ptr);
}

// The keys of the rows' runs, row after row, int64 where `wide`, else int32.
void gf_list_keys(int64_t num_rows, const int64_t *ptr, const int64_t *start, const int64_t *stop,
                  const int64_t *pair_ptr, int32_t wide, int32_t threads, void *keys) {
    if (wide)
        list(num_rows, ptr, start, stop, pair_ptr, threads, static_cast<int64_t *>(keys));
    else
        list(num_rows, ptr, start, stop, pair_ptr, threads, static_cast<int32_t *>(keys));
}
}
