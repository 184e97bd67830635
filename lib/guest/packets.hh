// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "viommu_wire.hh"

namespace viommu::guest {

/// RFC 1071: the one's complement sum of 16-bit words in network order, folded; not complemented.
/// `before`: of what came before, which had an even length.
uint16_t internet_sum(std::span<const std::byte> bytes, uint32_t before = 0);

/// A direction of a TCP connection, or of UDP between two ports.
struct Flow {
    bool ipv6 = false;
    bool udp = false;
    uint32_t source = 0x0a000001, target = 0x0a000002;  ///< IPv4; the end of an IPv6 address
    uint16_t source_port = 1024, target_port = 80;
    uint8_t tcp_flags = 0x10;  ///< ACK

    uint32_t ip_bytes() const { return ipv6 ? 40 : 20; }
    uint32_t l4_bytes() const { return udp ? 8 : 20; }
    uint32_t l4_at() const { return 14 + ip_bytes(); }
    uint32_t payload_at() const { return l4_at() + l4_bytes(); }
    uint32_t checksum_offset() const { return udp ? 6 : 16; }
};

/// A frame from a network stack: Ethernet (to everybody), IP, and TCP or UDP, with all checksums.
std::vector<std::byte> make_frame(const Flow& flow, uint32_t tcp_sequence,
                                  std::span<const std::byte> payload);
/// The same from a stack that leaves checksums to the device: `header` says so, and the field has
/// the sum of the pseudo header.
/// Spec: virtio 1.3, 5.1.6.2
std::vector<std::byte> make_unfinished_frame(const Flow& flow, uint32_t tcp_sequence,
                                             std::span<const std::byte> payload,
                                             wire::virtio_net_hdr& header);
/// And from one that leaves to the device to cut the payload into pieces of `gso_bytes`, too. With
/// CWR among the flags it is a packet of GSO_ECN.
std::vector<std::byte> make_giant_frame(const Flow& flow, uint32_t tcp_sequence,
                                        std::span<const std::byte> payload, uint16_t gso_bytes,
                                        wire::virtio_net_hdr& header);

/// What a network stack does with the first of these, when it comes to be read or sent on.
void finish_frame(const wire::virtio_net_hdr& header, std::span<std::byte> frame);

/// What a receiver makes of a frame.
struct ReadFrame {
    std::string trouble;  ///< not empty: it is none of `flow`'s, or lengths or the IP header lie
    bool checksum_good = false;   ///< of TCP or UDP, over all of it
    bool checksum_begun = false;  ///< it has the sum of the pseudo header
    uint32_t tcp_sequence = 0;
    uint8_t tcp_flags = 0;
    uint16_t ipv4_id = 0;
    std::span<const std::byte> payload{};
};
ReadFrame read_frame(const Flow& flow, std::span<const std::byte> frame);

}  // namespace viommu::guest
