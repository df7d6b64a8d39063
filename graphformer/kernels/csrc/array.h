// Memory on cache lines.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>

namespace GF_NAMESPACE {

template <class T>
class Array {
    static constexpr std::align_val_t kLine{64};
    struct Free {
        void operator()(T *memory) const { ::operator delete(memory, kLine); }
    };
    std::unique_ptr<T, Free> memory;
    int64_t size = 0;

  public:
    Array() = default;
    explicit Array(int64_t count) {
        resize(count);
        std::fill(data(), data() + count, T(0));
    }
    // What it held is lost, and what it holds then is anything.
    void resize(int64_t count) {
        memory.reset(static_cast<T *>(::operator new(size_t(std::max<int64_t>(count, 1)) * sizeof(T), kLine)));
        size = count;
    }
    void grow(int64_t count) {
        if (count > size) resize(count);
    }
    T *data() const { return memory.get(); }  // null before the first resize
    operator T *() const { return data(); }
};

}  // namespace GF_NAMESPACE
