// Running out of memory: no exception may leave a parallel region, nor the library.
#pragma once
#include <atomic>
#include <cstdint>
#include <exception>
#include <new>

namespace {  // each file's own, for they are compiled for different instruction sets

constexpr int32_t kOutOfMemory = -2;

// Parts of the work of a parallel region; once one has failed, the others are left out.
class Failure {
  public:
    template <class Work>
    void guard(Work work) {
        if (failed_.load(std::memory_order_relaxed)) return;
        try {
            work();
        } catch (const std::exception &) {
            failed_ = true;
        }
    }

    // Behind the region.
    bool failed() const { return failed_; }
    void raise() const {
        if (failed_) throw std::bad_alloc();
    }

  private:
    std::atomic<bool> failed_{false};
};

// What `work` returns, or kOutOfMemory.
template <class Result, class Work>
Result or_out_of_memory(Work work) {
    try {
        return work();
    } catch (const std::exception &) {
        return kOutOfMemory;
    }
}

}  // namespace
