// SPDX-License-Identifier: BSD-3-Clause
/// The Atomic (lib/base/atomic.hh) of the model test: every access is a decision of sched.hh's
/// scheduler while a scenario runs, and a plain access otherwise. Same size and bytes as the value,
/// and zeros are a value, so that it can lie in an arena.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace viommu::model {

bool running() noexcept;
uint64_t load(const void* at, size_t bytes) noexcept;
void store(void* at, size_t bytes, uint64_t value, std::memory_order order) noexcept;
uint64_t add(void* at, size_t bytes, uint64_t n, std::memory_order order) noexcept;
void full_fence() noexcept;
/// Where the last load was made outside of a run.
inline const void* last_load = nullptr;

template <class T>
class Atom {
  public:
    static constexpr bool is_always_lock_free = std::atomic<T>::is_always_lock_free;
    Atom() = default;
    constexpr Atom(T value) : value_(value) {}
    Atom(const Atom&) = delete;
    Atom& operator=(const Atom&) = delete;

    T load(std::memory_order = std::memory_order_seq_cst) const noexcept {
        if (running()) return T(model::load(&value_, sizeof value_));
        last_load = &value_;
        return value_;
    }
    void store(T value, std::memory_order order = std::memory_order_seq_cst) noexcept {
        if (running())
            model::store(&value_, sizeof value_, uint64_t(value), order);
        else
            value_ = value;
    }
    T fetch_add(T n, std::memory_order order = std::memory_order_seq_cst) noexcept {
        if (running()) return T(model::add(&value_, sizeof value_, uint64_t(n), order));
        const T old = value_;
        value_ = T(value_ + n);
        return old;
    }

  private:
    T value_{};
};

}  // namespace viommu::model
