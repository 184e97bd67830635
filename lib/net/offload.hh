// SPDX-License-Identifier: BSD-3-Clause
/// Checksum and segmentation offloads: between virtio-net's header and an mbuf's flags, and between
/// what a packet still needs and what its receiver can do. doc/virtio-net.md has the tables.
///
/// Inside the daemon a packet that is not finished says so by transmit flags
/// (RTE_MBUF_F_TX_TCP_CKSUM and so on), wherever it came from: from a guest by to_mbuf(), from an
/// ethdev by fit(), which turns RX_LRO and RX_L4_CKSUM_NONE into them. RTE_MBUF_F_TX_UDP_SEG is UDP
/// segmentation (USO), as NIC drivers take it, not the fragmentation that DPDK's header speaks of.
#pragma once

#include <rte_mbuf.h>

#include <cstdint>

#include "viommu_wire.hh"

namespace viommu::net::offload {

/// An mbuf with none of these flags is a finished packet with nothing to say about its checksums.
inline constexpr uint64_t kFlags = RTE_MBUF_F_TX_OFFLOAD_MASK | RTE_MBUF_F_RX_LRO |
                                   RTE_MBUF_F_RX_L4_CKSUM_MASK;

/// The largest packet, to be cut or not: an Ethernet header with two VLAN tags, and an IPv6 header,
/// whose 16-bit length is that of what follows it.
inline constexpr uint32_t kMaxBytes = 14 + 8 + 40 + 65535;

/// Asks for nothing.
inline bool is_plain(const wire::virtio_net_hdr& header) noexcept {
    return ((header.flags & wire::VIRTIO_NET_HDR_F_NEEDS_CSUM) | header.gso_type) == 0;
}
inline bool is_plain(const rte_mbuf& packet) noexcept { return (packet.ol_flags & kFlags) == 0; }
/// Cut into pieces before it is on a wire: an MTU says nothing about its size.
inline bool is_large(const rte_mbuf& packet) noexcept {
    return (packet.ol_flags & (RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_UDP_SEG)) != 0;
}

/// Give `packet`, which a guest sent behind `header`, its flags. A checksum that mbuf flags cannot
/// express (of a tunnel, say) is finished at once.
///
/// Spec:   5.1.6.2 Packet Transmission
/// `negotiated`: feature bits, as negotiated() in net_config.hh gives them
/// Guest:  every field of `header`, and the packet. DATA_VALID, other flags, hdr_len and
///         num_buffers are not looked at
/// Errors: false: malformed, or asks for what was not negotiated; the packet is to be dropped
[[nodiscard]] bool to_mbuf(const wire::virtio_net_hdr& header, uint64_t negotiated,
                           rte_mbuf& packet) noexcept;

/// What a receiver takes unfinished.
struct Receiver {
    bool ip_checksum = false;   ///< IPv4 headers without a checksum
    bool tcp_checksum = false;  ///< packets whose checksum field has the pseudo header's sum
    bool udp_checksum = false;
    bool tso4 = false, tso6 = false;
    bool ecn = false;           ///< TSO of a packet with CWR
    bool uso4 = false, uso6 = false;

    /// A guest: GUEST_CSUM, GUEST_TSO4 and so on, of negotiated features.
    static Receiver guest(uint64_t negotiated) noexcept;
    /// An ethdev's queue: RTE_ETH_TX_OFFLOAD_* that are enabled. USO is never left to an ethdev:
    /// DPDK's one bit for UDP is UFO in some drivers and USO in others.
    static Receiver ethdev(uint64_t tx_offloads) noexcept;
};

enum class Fit {
    kReady,       ///< the receiver can take it
    kSegment,     ///< to be cut by a Segmenter
    kImpossible,  ///< not in any form: what its flags say does not agree with the packet
};

/// Do all that `packet` needs for `receiver` but segmentation: finish checksums that the receiver
/// does not, or set the pseudo header's sum (over the full length, also for TSO, as virtio wants
/// it; an ethdev's own idea is rte_eth_tx_prepare()'s business).
///
/// The packet's data is written, so it must not be shared with who still reads it.
[[nodiscard]] Fit fit(rte_mbuf& packet, const Receiver& receiver) noexcept;

/// The header of `packet`, for which fit() has said kReady for guest(negotiated).
///
/// Spec: 5.1.6.4 Processing of Incoming Packets; num_buffers is left 0
[[nodiscard]] wire::virtio_net_hdr from_mbuf(const rte_mbuf& packet, uint64_t negotiated) noexcept;

}  // namespace viommu::net::offload
