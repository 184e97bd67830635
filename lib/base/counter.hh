// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>

namespace viommu {

/// An event count with one writing thread and any number of reading ones.
/// Cost: a plain load, add and store for the writer; no locked instruction.
class Counter {
  public:
    /// Threads: the one writer.
    void add(uint64_t n = 1) noexcept {
        value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
    }
    /// Threads: any. The value may be old by the time it is looked at.
    uint64_t was() const noexcept { return value_.load(std::memory_order_relaxed); }

  private:
    std::atomic<uint64_t> value_{0};
};

}  // namespace viommu
