// SPDX-License-Identifier: BSD-3-Clause
#include "offload.hh"

#include <rte_ethdev.h>
#include <rte_net.h>

#include <algorithm>
#include <optional>

#include "offload_packet.hh"

namespace viommu::net::offload {

using namespace wire;

namespace {

constexpr bool has(uint64_t features, unsigned n) { return (features >> n & 1) != 0; }

constexpr uint64_t kTunnels = RTE_MBUF_F_TX_TUNNEL_MASK | RTE_MBUF_F_TX_OUTER_IP_CKSUM |
                              RTE_MBUF_F_TX_OUTER_UDP_CKSUM | RTE_MBUF_F_TX_OUTER_IPV4 |
                              RTE_MBUF_F_TX_OUTER_IPV6;
constexpr uint64_t kLarge = RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_UDP_SEG;
constexpr uint64_t kUnfinished = kLarge | RTE_MBUF_F_TX_L4_MASK | RTE_MBUF_F_TX_IP_CKSUM;

/// A TCP or UDP packet in IPv4 or IPv6, not a fragment, whose headers are in the first segment.
struct Layout {
    uint32_t l2, l3, l4;
    bool is_v4, is_tcp;
    bool is_simple;  ///< no IP options or extension headers, whose addresses the sum may be about

    uint32_t payload() const { return l2 + l3 + l4; }
    /// Into the mbuf, without any flag that asks for something.
    void apply(rte_mbuf& packet) const {
        packet.l2_len = l2 & 0x7f;
        packet.l3_len = l3 & 0x1ff;
        packet.l4_len = l4 & 0xff;
        packet.ol_flags |= is_v4 ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6;
    }
    uint64_t checksum_flag() const {
        return is_tcp ? RTE_MBUF_F_TX_TCP_CKSUM : RTE_MBUF_F_TX_UDP_CKSUM;
    }
};

std::optional<Layout> parse(const rte_mbuf& packet) noexcept {
    rte_net_hdr_lens lens{};
    const uint32_t type = rte_net_get_ptype(
        &packet, &lens, RTE_PTYPE_L2_MASK | RTE_PTYPE_L3_MASK | RTE_PTYPE_L4_MASK);
    const uint32_t l3 = type & RTE_PTYPE_L3_MASK, l4 = type & RTE_PTYPE_L4_MASK;
    Layout l{lens.l2_len, lens.l3_len,   lens.l4_len, RTE_ETH_IS_IPV4_HDR(type) != 0,
             l4 == RTE_PTYPE_L4_TCP, l3 == RTE_PTYPE_L3_IPV4 || l3 == RTE_PTYPE_L3_IPV6};
    if (!l.is_v4 && !RTE_ETH_IS_IPV6_HDR(type)) return std::nullopt;
    if (l4 != RTE_PTYPE_L4_TCP && l4 != RTE_PTYPE_L4_UDP) return std::nullopt;
    // rte_net_get_ptype() takes the TCP header's own word for its length.
    if (l.l4 < (l.is_tcp ? kTcpBytes : kUdpBytes)) return std::nullopt;
    // The widths of the mbuf's bit fields.
    if (l.l2 > 0x7f || l.l3 > 0x1ff || l.l4 > 0xff) return std::nullopt;
    if (l.payload() > packet.data_len) return std::nullopt;
    return l;
}

/// The IP header agrees with the packet about how much of it there is.
bool length_agrees(rte_mbuf& packet) noexcept {
    const Headers h(packet);
    const int64_t said = h.l4_bytes_said();
    return said >= int64_t(packet.l4_len) && said <= int64_t(packet.pkt_len) - h.l4();
}

void store(rte_mbuf& packet, uint32_t at, const std::byte* bytes, uint32_t n) noexcept {
    for (rte_mbuf* m = &packet; m != nullptr && n > 0; m = m->next) {
        for (; at < m->data_len && n > 0; ++at, --n)
            *rte_pktmbuf_mtod_offset(m, std::byte*, at) = *bytes++;
        if (n > 0) at -= m->data_len;
    }
}

/// What NEEDS_CSUM asks for, to the letter. The bounds have been checked.
void finish_by_header(rte_mbuf& packet, uint32_t start, uint32_t at) noexcept {
    const uint16_t sum = Headers::complement(sum_of(packet, start, packet.pkt_len - start));
    std::byte bytes[sizeof sum];
    std::memcpy(bytes, &sum, sizeof sum);
    store(packet, at, bytes, sizeof bytes);
}

void finish_l4(rte_mbuf& packet) noexcept {
    const Headers h(packet);
    const auto bytes =
        length_agrees(packet) ? uint32_t(h.l4_bytes_said()) : packet.pkt_len - h.l4();
    h.set_checksum(h.pseudo_sum(bytes));
    h.set_checksum(Headers::complement(sum_of(packet, h.l4(), bytes)));
}

void set_pseudo_sum(rte_mbuf& packet) noexcept {
    const Headers h(packet);
    const bool by_header = !is_large(packet) && length_agrees(packet);
    h.set_checksum(
        h.pseudo_sum(by_header ? uint32_t(h.l4_bytes_said()) : packet.pkt_len - h.l4()));
}

bool has_cwr(rte_mbuf& packet) noexcept {
    return (Headers(packet).tcp_flags() & std::byte{RTE_TCP_CWR_FLAG}) != std::byte{0};
}

bool takes_large(const Receiver& r, rte_mbuf& packet) noexcept {
    const bool v4 = (packet.ol_flags & RTE_MBUF_F_TX_IPV4) != 0;
    if ((packet.ol_flags & RTE_MBUF_F_TX_UDP_SEG) != 0)
        return r.udp_checksum && (v4 ? r.uso4 : r.uso6);
    return r.tcp_checksum && (v4 ? r.tso4 : r.tso6) && (r.ecn || !has_cwr(packet));
}

/// A received packet's flags become those of one to be sent.
void take_over(rte_mbuf& packet) noexcept {
    const bool is_lro = (packet.ol_flags & RTE_MBUF_F_RX_LRO) != 0;
    const bool is_partial = (packet.ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) ==
                            RTE_MBUF_F_RX_L4_CKSUM_NONE;
    if (!is_lro && !is_partial) return;
    packet.ol_flags &= ~(RTE_MBUF_F_RX_LRO | (is_partial ? RTE_MBUF_F_RX_L4_CKSUM_MASK : 0));
    if ((packet.ol_flags & kUnfinished) != 0) return;  // it says the same in both ways
    const auto l = parse(packet);
    if (!l) return;  // neither TCP nor UDP: nothing that a guest could be told
    if (is_lro && l->is_tcp && packet.tso_segsz != 0 &&
        packet.pkt_len - l->payload() > packet.tso_segsz) {
        packet.ol_flags &= ~RTE_MBUF_F_RX_L4_CKSUM_MASK;
        l->apply(packet);
        packet.ol_flags |= RTE_MBUF_F_TX_TCP_SEG | (l->is_v4 ? RTE_MBUF_F_TX_IP_CKSUM : 0);
    } else if (is_partial) {
        l->apply(packet);
        packet.ol_flags |= l->checksum_flag();
    }
}

/// Lengths and flags are not a guest's here, but a program's; it may still be wrong.
bool headers_are_there(rte_mbuf& packet) noexcept {
    const uint64_t flags = packet.ol_flags;
    const uint64_t l4 = flags & RTE_MBUF_F_TX_L4_MASK;
    const bool v4 = (flags & RTE_MBUF_F_TX_IPV4) != 0;
    if ((flags & kTunnels) != 0 || v4 == ((flags & RTE_MBUF_F_TX_IPV6) != 0)) return false;
    if (packet.l3_len < (v4 ? kIpv4Bytes : kIpv6Bytes)) return false;
    // One protocol: Headers goes by the first flag that says so.
    const bool tcp = (flags & RTE_MBUF_F_TX_TCP_SEG) != 0 || l4 == RTE_MBUF_F_TX_TCP_CKSUM;
    const bool udp = (flags & RTE_MBUF_F_TX_UDP_SEG) != 0 || l4 == RTE_MBUF_F_TX_UDP_CKSUM;
    if (tcp && udp) return false;
    uint32_t l4_bytes = 0;
    if ((flags & RTE_MBUF_F_TX_TCP_SEG) != 0)
        l4_bytes = std::max<uint32_t>(kTcpBytes, packet.l4_len);
    else if (udp)
        l4_bytes = kUdpBytes;
    else if (tcp)
        l4_bytes = kTcpBytes;
    else if (l4 != 0)
        return false;  // SCTP: a CRC that nobody here has asked for
    // The payload begins behind l4_len, all of which must be there: UDP has no options.
    if ((flags & kLarge) != 0 && (packet.tso_segsz == 0 || packet.l4_len != l4_bytes)) return false;
    return uint32_t(packet.l2_len) + packet.l3_len + l4_bytes <= packet.data_len;
}

/// Of the header's GSO type. 0: unknown, or not negotiated.
uint64_t segmentation_flag(uint8_t type, uint64_t negotiated, const Layout& l) noexcept {
    const bool ecn = (type & VIRTIO_NET_HDR_GSO_ECN) != 0;
    if (ecn && !has(negotiated, VIRTIO_NET_F_HOST_ECN)) return 0;
    switch (type & ~VIRTIO_NET_HDR_GSO_ECN) {
        case VIRTIO_NET_HDR_GSO_TCPV4:
            return has(negotiated, VIRTIO_NET_F_HOST_TSO4) && l.is_tcp && l.is_v4
                       ? RTE_MBUF_F_TX_TCP_SEG
                       : 0;
        case VIRTIO_NET_HDR_GSO_TCPV6:
            return has(negotiated, VIRTIO_NET_F_HOST_TSO6) && l.is_tcp && !l.is_v4
                       ? RTE_MBUF_F_TX_TCP_SEG
                       : 0;
        case VIRTIO_NET_HDR_GSO_UDP_L4:
            return has(negotiated, VIRTIO_NET_F_HOST_USO) && !l.is_tcp && !ecn
                       ? RTE_MBUF_F_TX_UDP_SEG
                       : 0;
    }
    return 0;
}

}  // namespace

bool to_mbuf(const virtio_net_hdr& header, uint64_t negotiated, rte_mbuf& packet) noexcept {
    const bool needs_checksum = (header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) != 0;
    const bool large = header.gso_type != VIRTIO_NET_HDR_GSO_NONE;
    if (!needs_checksum) return !large;  // 5.1.6.2.1: GSO needs NEEDS_CSUM
    if (!has(negotiated, VIRTIO_NET_F_CSUM)) return false;
    const uint32_t start = header.csum_start, at = start + header.csum_offset;
    if (at + sizeof(uint16_t) > packet.pkt_len) return false;

    const auto l = parse(packet);
    const bool is_l4 = l && start == l->l2 + l->l3 &&
                       header.csum_offset == (l->is_tcp ? kTcpChecksumAt : kUdpChecksumAt);
    if (large) {
        if (!is_l4 || header.gso_size == 0) return false;
        const uint64_t flag = segmentation_flag(header.gso_type, negotiated, *l);
        if (flag == 0) return false;
        if (packet.pkt_len - l->payload() > header.gso_size) {
            l->apply(packet);
            packet.tso_segsz = header.gso_size;
            packet.ol_flags |= flag | l->checksum_flag() | (l->is_v4 ? RTE_MBUF_F_TX_IP_CKSUM : 0);
            return true;
        }
        // One piece: no more than a checksum to do.
    }
    if (is_l4 && l->is_simple) {
        const uint64_t before = packet.ol_flags;
        l->apply(packet);
        packet.ol_flags |= l->checksum_flag();
        if (length_agrees(packet)) return true;
        packet.ol_flags = before;
    }
    finish_by_header(packet, start, at);
    return true;
}

Receiver Receiver::guest(uint64_t negotiated) noexcept {
    Receiver r;
    r.tcp_checksum = r.udp_checksum = has(negotiated, VIRTIO_NET_F_GUEST_CSUM);
    r.tso4 = has(negotiated, VIRTIO_NET_F_GUEST_TSO4);
    r.tso6 = has(negotiated, VIRTIO_NET_F_GUEST_TSO6);
    r.ecn = has(negotiated, VIRTIO_NET_F_GUEST_ECN);
    r.uso4 = has(negotiated, VIRTIO_NET_F_GUEST_USO4);
    r.uso6 = has(negotiated, VIRTIO_NET_F_GUEST_USO6);
    return r;
}

Receiver Receiver::ethdev(uint64_t tx_offloads) noexcept {
    Receiver r;
    r.ip_checksum = (tx_offloads & RTE_ETH_TX_OFFLOAD_IPV4_CKSUM) != 0;
    r.tcp_checksum = (tx_offloads & RTE_ETH_TX_OFFLOAD_TCP_CKSUM) != 0;
    r.udp_checksum = (tx_offloads & RTE_ETH_TX_OFFLOAD_UDP_CKSUM) != 0;
    const bool tso = (tx_offloads & RTE_ETH_TX_OFFLOAD_TCP_TSO) != 0;
    r.tso4 = tso && r.ip_checksum;
    r.tso6 = r.ecn = tso;
    return r;
}

Fit fit(rte_mbuf& packet, const Receiver& receiver) noexcept {
    take_over(packet);
    if ((packet.ol_flags & kUnfinished) == 0) return Fit::kReady;
    if (!headers_are_there(packet)) return Fit::kImpossible;
    const bool large = is_large(packet);
    if (large && !takes_large(receiver, packet)) return Fit::kSegment;

    if ((packet.ol_flags & RTE_MBUF_F_TX_IP_CKSUM) != 0 && !receiver.ip_checksum) {
        Headers(packet).finish_ip();
        packet.ol_flags &= ~RTE_MBUF_F_TX_IP_CKSUM;
    }
    const uint64_t l4 = packet.ol_flags & RTE_MBUF_F_TX_L4_MASK;
    if (large || (l4 == RTE_MBUF_F_TX_TCP_CKSUM && receiver.tcp_checksum) ||
        (l4 == RTE_MBUF_F_TX_UDP_CKSUM && receiver.udp_checksum)) {
        set_pseudo_sum(packet);
    } else if (l4 != 0) {
        finish_l4(packet);
        packet.ol_flags &= ~RTE_MBUF_F_TX_L4_MASK;
    }
    return Fit::kReady;
}

virtio_net_hdr from_mbuf(const rte_mbuf& packet, uint64_t negotiated) noexcept {
    virtio_net_hdr header{};
    const uint64_t flags = packet.ol_flags;
    if ((flags & (kLarge | RTE_MBUF_F_TX_L4_MASK)) == 0) {
        if ((flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_GOOD &&
            has(negotiated, VIRTIO_NET_F_GUEST_CSUM))
            header.flags = VIRTIO_NET_HDR_F_DATA_VALID;
        return header;
    }
    const Headers h(const_cast<rte_mbuf&>(packet));  // only read
    header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    header.csum_start = uint16_t(h.l4());
    header.csum_offset = uint16_t(h.is_tcp() ? kTcpChecksumAt : kUdpChecksumAt);
    if ((flags & kLarge) == 0) return header;
    header.gso_size = packet.tso_segsz;
    header.hdr_len = uint16_t(h.payload());
    if (!h.is_tcp()) {
        header.gso_type = VIRTIO_NET_HDR_GSO_UDP_L4;
    } else {
        header.gso_type = h.is_v4() ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
        if ((h.tcp_flags() & std::byte{RTE_TCP_CWR_FLAG}) != std::byte{0})
            header.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
    }
    return header;
}

}  // namespace viommu::net::offload
