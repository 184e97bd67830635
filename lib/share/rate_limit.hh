// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace viommu::share {

/// A token bucket that holds one second's worth, in one word (the generic cell rate algorithm):
/// when the next event would be due if all came evenly.
/// Threads: any.
class RateLimit {
  public:
    using Clock = std::chrono::steady_clock;

    explicit RateLimit(uint32_t per_second) : per_second_(per_second) {}
    /// Whether one more is within the rate; then it counts.
    bool take(Clock::time_point now = Clock::now()) noexcept;

  private:
    const uint32_t per_second_;
    std::atomic<int64_t> due_ns_{INT64_MIN};
};

}  // namespace viommu::share
