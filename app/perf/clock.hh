// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <rte_cycles.h>

#include <cstdint>

namespace viommu::perf {

/// The time stamp counter, in nanoseconds of CLOCK_MONOTONIC.
/// Threads: calibrate() once, before others; the rest any.
class Clock {
  public:
    /// Takes some 50 ms.
    static void calibrate();

    static uint64_t ticks() noexcept { return rte_rdtsc(); }
    static double ns(uint64_t ticks) noexcept { return double(ticks) * ns_per_tick_; }
    static uint64_t ticks_in(double ns) noexcept { return uint64_t(ns / ns_per_tick_); }
    static double mhz() noexcept { return 1e3 / ns_per_tick_; }

  private:
    static inline double ns_per_tick_ = 1;
};

/// What the calling thread has run, in ns (CLOCK_THREAD_CPUTIME_ID).
uint64_t thread_cpu_ns() noexcept;

/// Keep the value, as a reader of it would.
template <class T>
inline void keep(const T& value) noexcept {
    asm volatile("" : : "r,m"(value) : "memory");
}

}  // namespace viommu::perf
