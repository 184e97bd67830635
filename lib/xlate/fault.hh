// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "viommu_base.hh"

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

/// Where Readers report faults to: the writer's FaultQueue, or from another process its socket.
class FaultSink {
  public:
    /// Threads: any. Never blocks. False when the fault is lost; the caller counts it.
    virtual bool push(const Fault&) noexcept = 0;

  protected:
    ~FaultSink() = default;
};

}  // namespace viommu::xlate
