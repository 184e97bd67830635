// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "viommu_base.hh"

namespace viommu::net {

/// The bursts of one queue, counted at both ends, for a thread that has changed what bursts go by
/// and wants to know when none goes by the old any more. Nobody waits: that thread asks again.
///
/// Who bursts:  begin(), a full fence, then the first look at what may change; end()
/// Who changes: the change, a full fence, then now() of each queue; from then on is_over()
///
/// Threads: begin(), end(): the queue's; the rest any
class BurstCount {
  public:
    void begin() noexcept { count_.store(mine() + 1, std::memory_order_relaxed); }  // N3 pairs N4
    void end() noexcept { count_.store(mine() + 1, std::memory_order_release); }    // N5 pairs N6

    /// Odd: inside of a burst.
    uint64_t now() const noexcept {
        return count_.load(std::memory_order_acquire);  // N6 pairs N5
    }
    /// The burst that was on at `then`, if any, has ended.
    bool is_over(uint64_t then) const noexcept { return (then & 1) == 0 || now() != then; }

  private:
    friend class BurstCountModel;  // test/model
    uint64_t mine() const noexcept { return count_.load(std::memory_order_relaxed); }

    Atomic<uint64_t> count_{0};
};

}  // namespace viommu::net
