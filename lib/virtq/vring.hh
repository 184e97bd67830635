// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <bit>
#include <cstdint>
#include <optional>

#include "memory_map.hh"
#include "viommu_wire.hh"

namespace viommu::virtq {

/// Whether `features`, as the driver accepted them, have this bit.
constexpr bool negotiated(uint64_t features, unsigned bit) { return (features >> bit & 1) != 0; }

/// What a device whose queues are of this library, and which returns chains in the order in which
/// it took them, can offer.
///
/// Not VIRTIO_F_NOTIFICATION_DATA: a kick is an eventfd here and carries no data. We could ignore
/// what the driver adds, but a VMM must know of the feature to route the wider write to the
/// eventfd, and most do not.
inline constexpr uint64_t kRingFeatures = uint64_t{1} << wire::VIRTIO_F_INDIRECT_DESC |
                                          uint64_t{1} << wire::VIRTIO_F_EVENT_IDX |
                                          uint64_t{1} << wire::VIRTIO_F_RING_PACKED |
                                          uint64_t{1} << wire::VIRTIO_F_IN_ORDER |
                                          uint64_t{1} << wire::VIRTIO_F_RING_RESET;

/// A queue as a vhost-user frontend described it. Addresses are exactly what SET_VRING_ADDR said:
/// UVAs, or IOVAs when the frontend knows about the IOMMU. File descriptors belong to the transport
/// and stay open while the queue is running.
struct Vring {
    uint16_t index = 0;
    uint32_t size = 0;  ///< entries, 1 to 32768
    uint64_t desc = 0;
    uint64_t avail = 0;  ///< packed: the driver area
    uint64_t used = 0;   ///< packed: the device area
    /// SET_VRING_BASE's num. Split: the next available index. Packed: bits 0-14 the place of the
    /// next available descriptor, 15 its wrap counter, 16-31 the same of the next used one.
    uint32_t base = 0;
    int kick_fd = -1;  ///< eventfd the guest signals; -1: poll
    int call_fd = -1;  ///< eventfd we signal; -1: the guest polls

    /// Size and alignments are the spec's (2.7, 2.8.10.1): whatever memory is there, it can be a
    /// ring of the format that `features` say.
    constexpr bool is_acceptable(uint64_t features) const noexcept {
        if (size == 0 || size > wire::kMaxQueueSize || desc % 16 != 0 || used % 4 != 0)
            return false;
        return negotiated(features, wire::VIRTIO_F_RING_PACKED)
                   ? avail % 4 == 0
                   : avail % 2 == 0 && std::has_single_bit(size);
    }
};

/// The same queue with its UVAs turned back into what the frontend made them from: GPAs, or, when
/// the frontend does not know about the IOMMU, IOVAs that it took for GPAs.
/// Nothing when an address is in no region.
inline std::optional<Vring> from_uva(Vring vring, const MemoryMap& memory) {
    for (uint64_t* address : {&vring.desc, &vring.avail, &vring.used}) {
        const auto gpa = memory.gpa_of(Uva{*address});
        if (!gpa) return std::nullopt;
        *address = gpa->value;
    }
    return vring;
}

}  // namespace viommu::virtq
