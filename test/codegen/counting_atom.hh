// SPDX-License-Identifier: BSD-3-Clause
/// An Atomic (lib/base/atomic.hh) that counts. One thread.
#pragma once

#include <atomic>
#include <cstdint>

namespace viommu::model {

inline uint64_t loads = 0, stores = 0, fences = 0;

template <class T>
class Atom {
  public:
    static constexpr bool is_always_lock_free = std::atomic<T>::is_always_lock_free;
    Atom() = default;
    constexpr Atom(T value) : value_(value) {}
    Atom(const Atom&) = delete;
    Atom& operator=(const Atom&) = delete;

    T load(std::memory_order = std::memory_order_seq_cst) const noexcept {
        ++loads;
        return value_;
    }
    void store(T value, std::memory_order = std::memory_order_seq_cst) noexcept {
        ++stores;
        value_ = value;
    }
    T fetch_add(T n, std::memory_order = std::memory_order_seq_cst) noexcept {
        ++loads;
        ++stores;
        const T old = value_;
        value_ = T(value_ + n);
        return old;
    }

  private:
    T value_{};
};

inline void full_fence() noexcept { ++fences; }

}  // namespace viommu::model
