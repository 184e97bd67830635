// SPDX-License-Identifier: BSD-3-Clause
/// Faults, from readers to the event queue (virtio 1.3, 5.13.6.9).
#include <algorithm>

#include "device.hh"

namespace viommu::device {

using namespace wire;
using xlate::Fault;
using xlate::FaultReason;

static_assert(uint8_t(FaultReason::kUnknown) == VIRTIO_IOMMU_FAULT_R_UNKNOWN);
static_assert(uint8_t(FaultReason::kDomain) == VIRTIO_IOMMU_FAULT_R_DOMAIN);
static_assert(uint8_t(FaultReason::kMapping) == VIRTIO_IOMMU_FAULT_R_MAPPING);
static_assert(uint8_t(Access::kRead) == VIRTIO_IOMMU_FAULT_F_READ);
static_assert(uint8_t(Access::kWrite) == VIRTIO_IOMMU_FAULT_F_WRITE);

/// A token bucket per endpoint that holds one second's worth: one noisy endpoint cannot hide the
/// faults of another behind a full event queue.
bool Device::within_rate(EndpointId endpoint) noexcept {
    const auto now = std::chrono::steady_clock::now();
    const double limit = config_.faults_per_second;
    auto [it, is_new] = buckets_.try_emplace(endpoint, Bucket{limit, now});
    Bucket& b = it->second;
    b.tokens = std::min(
        limit, b.tokens + limit * std::chrono::duration<double>(now - b.refilled).count());
    b.refilled = now;
    if (b.tokens < 1) return false;
    b.tokens -= 1;
    return true;
}

bool Device::next_fault(virtio_iommu_fault& out) noexcept {
    Fault fault;
    while (faults_.pop(fault)) {
        if (!within_rate(fault.endpoint)) {
            stats_.faults_dropped_rate.add();
            continue;
        }
        out = {};
        out.reason = uint8_t(fault.reason);
        out.flags = uint32_t(fault.access & Access::kReadWrite) | VIRTIO_IOMMU_FAULT_F_ADDRESS;
        out.endpoint = fault.endpoint;
        out.address = fault.address.value;
        return true;
    }
    return false;
}

}  // namespace viommu::device
