// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>

#include "viommu_base.hh"

struct rte_ring;

namespace viommu::xlate {

/// Why an access could not be translated. Values are VIRTIO_IOMMU_FAULT_R_* (virtio 1.3, 5.13.6.9).
enum class FaultReason : uint8_t {
    kUnknown = 0,
    kDomain = 1,   ///< the endpoint is attached to no domain and not in bypass mode
    kMapping = 2,  ///< not mapped, or the mapping does not allow the access
};

/// One untranslatable access.
struct Fault {
    Iova address;
    EndpointId endpoint;
    FaultReason reason;
    Access access;
    uint16_t reserved = 0;
};
static_assert(sizeof(Fault) == 16);

/// Faults on their way from any number of readers to the one writer (an rte_ring; producers
/// serialise head and tail, so the ring works when readers share a core).
class FaultQueue {
  public:
    /// `capacity`: faults held at most, rounded up to 2^n - 1.
    explicit FaultQueue(unsigned capacity = 1023);
    ~FaultQueue();
    FaultQueue(const FaultQueue&) = delete;
    FaultQueue& operator=(const FaultQueue&) = delete;

    /// Threads: any. False when the queue is full; the caller counts the loss.
    bool push(const Fault&) noexcept;
    /// Threads: the writer. False when there is none.
    bool pop(Fault&) noexcept;
    /// Threads: any; may be old by the time it is looked at.
    bool was_empty() const noexcept;

  private:
    rte_ring* ring_;
};

}  // namespace viommu::xlate
