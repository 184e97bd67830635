// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <bit>
#include <cstdint>
#include <optional>

#include "memory_map.hh"
#include "viommu_wire.hh"

namespace viommu::virtq {

/// A queue as a vhost-user frontend described it. Addresses are exactly what SET_VRING_ADDR said:
/// UVAs, or IOVAs when the frontend knows about the IOMMU. File descriptors belong to the transport
/// and stay open while the queue is running.
struct Vring {
    uint16_t index = 0;
    uint32_t size = 0;  ///< entries; a power of two, at most 32768
    uint64_t desc = 0;
    uint64_t avail = 0;
    uint64_t used = 0;
    uint16_t base = 0;  ///< SET_VRING_BASE
    int kick_fd = -1;   ///< eventfd the guest signals; -1: poll
    int call_fd = -1;   ///< eventfd we signal; -1: the guest polls

    /// Size and alignments are the spec's (2.7): whatever memory is there, it can be a ring.
    constexpr bool is_acceptable() const noexcept {
        return std::has_single_bit(size) && size <= wire::kMaxQueueSize && desc % 16 == 0 &&
               avail % 2 == 0 && used % 4 == 0;
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
