// SPDX-License-Identifier: BSD-3-Clause
/// Packets made and judged without the code under test: bytes, and the Internet checksum as RFC
/// 1071 tells it, 16 bits at a time in network order.
#pragma once

#include "net_rig.hh"

namespace viommu::net::test {

inline uint16_t be16(const Bytes& b, size_t at) {
    return uint16_t(unsigned(b.at(at)) << 8 | unsigned(b.at(at + 1)));
}
inline uint32_t be32(const Bytes& b, size_t at) {
    return uint32_t(be16(b, at)) << 16 | be16(b, at + 2);
}
inline void put16(Bytes& b, size_t at, unsigned v) {
    b.at(at) = std::byte(v >> 8);
    b.at(at + 1) = std::byte(v);
}
inline void put32(Bytes& b, size_t at, uint32_t v) {
    put16(b, at, v >> 16);
    put16(b, at + 2, v & 0xffff);
}

/// Ones' complement sum of [from, to).
inline uint32_t ones_sum(const Bytes& b, size_t from, size_t to, uint32_t sum = 0) {
    for (size_t i = from; i < to; i += 2) {
        sum += unsigned(b.at(i)) << 8;
        if (i + 1 < to) sum += unsigned(b.at(i + 1));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return sum;
}

struct Shape {
    bool v6 = false;
    bool udp = false;
    unsigned vlans = 0;
    unsigned ip_options = 0;   ///< bytes of it, IPv4; a multiple of 4
    unsigned tcp_options = 0;  ///< bytes; a multiple of 4
    size_t payload = 100;
    unsigned salt = 0;
    uint8_t tcp_flags = 0x10;  // ACK

    size_t l2() const { return 14 + 4 * vlans; }
    size_t l3_bytes() const { return v6 ? 40 : 20 + ip_options; }
    size_t l4() const { return l2() + l3_bytes(); }
    size_t l4_bytes() const { return udp ? 8 : 20 + tcp_options; }
    size_t headers() const { return l4() + l4_bytes(); }
    size_t checksum_at() const { return l4() + (udp ? 6 : 16); }
};

/// The sum of the pseudo header for what begins at `s.l4()` and is `l4_bytes` long.
inline uint32_t pseudo(const Bytes& b, const Shape& s, size_t l4_bytes) {
    uint32_t sum = s.v6 ? ones_sum(b, s.l2() + 8, s.l2() + 40)
                        : ones_sum(b, s.l2() + 12, s.l2() + 20);
    sum += (s.udp ? 17 : 6) + uint32_t(l4_bytes & 0xffff) + uint32_t(l4_bytes >> 16);
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

/// A whole packet with the checksum field holding the pseudo header's sum: what a guest gives with
/// NEEDS_CSUM. The IPv4 header is finished.
inline Bytes make_packet(const Shape& s) {
    Bytes b(s.headers());
    const Bytes macs = frame(12, s.salt + 1);
    std::copy(macs.begin(), macs.end(), b.begin());
    b[0] = std::byte{0x52};
    for (unsigned i = 0; i < s.vlans; ++i) {
        put16(b, 12 + 4 * i, s.vlans == 2 && i == 0 ? 0x88a8 : 0x8100);
        put16(b, 14 + 4 * i, 100 + i);
    }
    put16(b, s.l2() - 2, s.v6 ? 0x86dd : 0x0800);
    const size_t l4_all = s.l4_bytes() + s.payload;
    const size_t ip = s.l2();
    if (s.v6) {
        b[ip] = std::byte{0x60};
        put16(b, ip + 4, unsigned(l4_all));
        b[ip + 6] = std::byte(s.udp ? 17 : 6);
        b[ip + 7] = std::byte{64};
        for (unsigned i = 0; i < 32; ++i) b[ip + 8 + i] = std::byte(0x20 + i * 7 + s.salt);
    } else {
        b[ip] = std::byte(0x40 | s.l3_bytes() / 4);
        put16(b, ip + 2, unsigned(s.l3_bytes() + l4_all));
        put16(b, ip + 4, 0xfffe);  // identification: wraps in a few segments
        put16(b, ip + 6, 0x4000);
        b[ip + 8] = std::byte{64};
        b[ip + 9] = std::byte(s.udp ? 17 : 6);
        for (unsigned i = 0; i < 8; ++i) b[ip + 12 + i] = std::byte(10 + i * 13 + s.salt);
        for (unsigned i = 0; i < s.ip_options; ++i) b[ip + 20 + i] = std::byte{1};
        put16(b, ip + 10, uint16_t(~ones_sum(b, ip, ip + s.l3_bytes())));
    }
    put16(b, s.l4(), 5001 + s.salt);
    put16(b, s.l4() + 2, 80);
    if (s.udp) {
        put16(b, s.l4() + 4, unsigned(l4_all));
    } else {
        put32(b, s.l4() + 4, 0xfffffc00 + s.salt);  // sequence: wraps
        put32(b, s.l4() + 8, 77);
        b[s.l4() + 12] = std::byte(s.l4_bytes() / 4 << 4);
        b[s.l4() + 13] = std::byte{s.tcp_flags};
        put16(b, s.l4() + 14, 512);
        for (unsigned i = 0; i < s.tcp_options; ++i) b[s.l4() + 20 + i] = std::byte{1};
    }
    const Bytes data = frame(s.payload, s.salt);
    b.insert(b.end(), data.begin(), data.end());
    put16(b, s.checksum_at(), pseudo(b, s, l4_all));
    return b;
}

/// RFC 1071: with its checksum in it, what is summed is all ones.
inline bool l4_is_right(const Bytes& b, const Shape& s) {
    const size_t l4_all = b.size() - s.l4();
    if (s.udp && be16(b, s.checksum_at()) == 0) return false;  // "none"
    return ones_sum(b, s.l4(), b.size(), pseudo(b, s, l4_all)) == 0xffff;
}
inline bool ip_is_right(const Bytes& b, const Shape& s) {
    return s.v6 || ones_sum(b, s.l2(), s.l2() + s.l3_bytes()) == 0xffff;
}
/// Lengths in the headers agree with the packet.
inline bool lengths_are_right(const Bytes& b, const Shape& s) {
    const size_t ip = s.v6 ? 40u + be16(b, s.l2() + 4) : be16(b, s.l2() + 2);
    return ip == b.size() - s.l2() && (!s.udp || be16(b, s.l4() + 4) == b.size() - s.l4());
}

/// All shapes that the offloads know.
inline std::vector<Shape> shapes(size_t payload) {
    std::vector<Shape> all;
    for (const bool v6 : {false, true})
        for (const bool udp : {false, true})
            for (const unsigned vlans : {0u, 1u, 2u})
                for (const unsigned options : {0u, 12u}) {
                    if (v6 && options != 0 && udp) continue;
                    all.push_back({.v6 = v6,
                                   .udp = udp,
                                   .vlans = vlans,
                                   .ip_options = v6 ? 0 : options,
                                   .tcp_options = udp ? 0 : options,
                                   .payload = payload,
                                   .salt = unsigned(all.size())});
                }
    return all;
}

/// All offloads there are, both ways.
inline constexpr uint64_t kOffloads =
    bit(wire::VIRTIO_NET_F_CSUM) | bit(wire::VIRTIO_NET_F_GUEST_CSUM) |
    bit(wire::VIRTIO_NET_F_GUEST_TSO4) | bit(wire::VIRTIO_NET_F_GUEST_TSO6) |
    bit(wire::VIRTIO_NET_F_GUEST_ECN) | bit(wire::VIRTIO_NET_F_HOST_TSO4) |
    bit(wire::VIRTIO_NET_F_HOST_TSO6) | bit(wire::VIRTIO_NET_F_HOST_ECN) |
    bit(wire::VIRTIO_NET_F_GUEST_USO4) | bit(wire::VIRTIO_NET_F_GUEST_USO6) |
    bit(wire::VIRTIO_NET_F_HOST_USO);

/// The header of a packet whose checksum is to be finished.
inline wire::virtio_net_hdr needs_csum(const Shape& s) {
    wire::virtio_net_hdr h{};
    h.flags = wire::VIRTIO_NET_HDR_F_NEEDS_CSUM;
    h.csum_start = uint16_t(s.l4());
    h.csum_offset = uint16_t(s.udp ? 6 : 16);
    return h;
}
/// Of one that is to be cut.
inline wire::virtio_net_hdr gso(const Shape& s, uint16_t size) {
    wire::virtio_net_hdr h = needs_csum(s);
    h.gso_type = s.udp  ? wire::VIRTIO_NET_HDR_GSO_UDP_L4
                 : s.v6 ? wire::VIRTIO_NET_HDR_GSO_TCPV6
                        : wire::VIRTIO_NET_HDR_GSO_TCPV4;
    h.gso_size = size;
    h.hdr_len = uint16_t(s.headers());
    return h;
}
inline bool same(const wire::virtio_net_hdr& a, const wire::virtio_net_hdr& b) {
    return std::memcmp(&a, &b, sizeof a) == 0;
}

/// What NEEDS_CSUM says, done as a receiving kernel does it.
inline void finish_checksum(Bytes& b, const wire::virtio_net_hdr& h) {
    const unsigned sum = 0xffff & ~ones_sum(b, h.csum_start, b.size());
    put16(b, size_t{h.csum_start} + h.csum_offset, sum == 0 ? 0xffff : sum);
}
/// A whole packet with nothing left to do.
inline Bytes finished(const Shape& s) {
    Bytes b = make_packet(s);
    finish_checksum(b, needs_csum(s));
    return b;
}

/// Pieces of at most `mss` bytes make up the original stream, and each is a right packet.
inline void check_pieces(const std::vector<Bytes>& pieces, const Bytes& whole, const Shape& s,
                         size_t mss, bool finished) {
    Bytes stream;
    ASSERT_EQ(pieces.size(), (s.payload + mss - 1) / mss);
    for (size_t i = 0; i < pieces.size(); ++i) {
        const Bytes& p = pieces[i];
        ASSERT_GT(p.size(), s.headers());
        EXPECT_LE(p.size(), s.headers() + mss);
        EXPECT_TRUE(lengths_are_right(p, s)) << i;
        EXPECT_TRUE(ip_is_right(p, s)) << i;
        if (finished) {
            EXPECT_TRUE(l4_is_right(p, s)) << i;
        } else {
            EXPECT_EQ(be16(p, s.checksum_at()), pseudo(p, s, p.size() - s.l4())) << i;
        }
        EXPECT_TRUE(std::equal(p.begin(), p.begin() + long(s.l2()), whole.begin())) << i;
        if (!s.v6) {
            EXPECT_EQ(be16(p, s.l2() + 4), uint16_t(0xfffe + i)) << "identification";
        }
        if (!s.udp) {
            EXPECT_EQ(be32(p, s.l4() + 4), uint32_t(be32(whole, s.l4() + 4) + stream.size()));
            uint8_t want = s.tcp_flags;
            if (i != 0) want &= uint8_t(~0x80);                  // CWR
            if (i + 1 != pieces.size()) want &= uint8_t(~0x09);  // PSH, FIN
            EXPECT_EQ(uint8_t(p[s.l4() + 13]), want) << i;
        }
        stream.insert(stream.end(), p.begin() + long(s.headers()), p.end());
    }
    EXPECT_EQ(stream, Bytes(whole.begin() + long(s.headers()), whole.end()));
}

}  // namespace viommu::net::test
