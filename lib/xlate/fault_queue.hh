// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>

#include "fault.hh"

struct rte_ring;

namespace viommu::xlate {

/// Faults on their way from any number of readers to the one writer (an rte_ring; producers
/// serialise head and tail, so the ring works when readers share a core).
class FaultQueue final : public FaultSink {
  public:
    /// `capacity`: faults held at most, rounded up to 2^n - 1.
    explicit FaultQueue(unsigned capacity = 1023);
    ~FaultQueue();
    FaultQueue(const FaultQueue&) = delete;
    FaultQueue& operator=(const FaultQueue&) = delete;

    /// Threads: any. False when the queue is full.
    bool push(const Fault&) noexcept override;
    /// Threads: the writer. False when there is none.
    bool pop(Fault&) noexcept;
    /// Threads: any; may be old by the time it is looked at.
    bool was_empty() const noexcept;

  private:
    rte_ring* ring_;
};

}  // namespace viommu::xlate
