// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

namespace viommu::perf {

/// A cache line that goes to another CPU and comes back changed: the least that a request and its
/// answer can cost. The partner only runs while it is asked.
class PingPong {
  public:
    /// `cpu`: of the partner.
    explicit PingPong(unsigned cpu) : cpu_(cpu) {}

    /// ns per round trip, of `rounds` of them.
    double measure(uint64_t rounds);

  private:
    struct alignas(128) Line {
        std::atomic<uint64_t> ball{0};
    };
    unsigned cpu_;
    Line line_;
};

}  // namespace viommu::perf
