// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "viommu_wire.hh"

namespace viommu::net {

/// 5.1.3: what a device may offer, and what of it may be accepted.
///
/// Feature bits of virtio-net only: those of the transport and the rings are left as they are.

/// What a guest may leave undone in the packets that it sends: not what is finished here anyway, but
/// what whoever takes the packets from the port knows how to deal with.
enum class MayLeave {
    kNothing,
    kChecksums,  ///< VIRTIO_NET_F_CSUM
    kCutting,    ///< and HOST_TSO4 and so on: packets are as large as 64 KiB then
};

/// What the device of a guest is to be.
struct Offer {
    bool mtu;
    bool offloads;       ///< checksum and segmentation: towards the guest, and what it may leave
    MayLeave may_leave;
    bool control_queue;  ///< ours: with all that is done by commands
    uint16_t queue_pairs;
    bool speed;
};
[[nodiscard]] uint64_t offered(const Offer& offer) noexcept;

/// Of feature bits that a driver has accepted, those that it may rely on: bits whose requirements
/// (5.1.3.1) are missing are as if not accepted.
[[nodiscard]] uint64_t negotiated(uint64_t acked) noexcept;

/// Receive offloads that VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET switches, as feature bits.
[[nodiscard]] uint64_t guest_offload_bits() noexcept;

/// 5.1.4. Fields whose feature is not offered are 0, except max_virtqueue_pairs, which is always 1
/// or more.
struct ConfigSpace {
    std::array<uint8_t, 6> mac{};
    bool link_up = true;
    uint16_t queue_pairs = 1;
    std::optional<uint16_t> mtu{};
    std::optional<uint32_t> speed_mbps{};
    bool rss = false;

    wire::virtio_net_config layout() const noexcept;
};

}  // namespace viommu::net
