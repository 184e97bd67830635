// SPDX-License-Identifier: BSD-3-Clause
/// Private to lib/net: the headers of a TCP or UDP packet in an mbuf, by the mbuf's own l2_len,
/// l3_len and l4_len; and its checksums.
///
/// Sums are Internet checksums (RFC 1071) as they lie in memory: no byte order.
#pragma once

#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_tcp.h>
#include <rte_udp.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace viommu::net::offload {

inline constexpr uint32_t kIpv4Bytes = 20, kIpv6Bytes = 40, kTcpBytes = 20, kUdpBytes = 8;
inline constexpr uint32_t kTcpChecksumAt = offsetof(rte_tcp_hdr, cksum);
inline constexpr uint32_t kUdpChecksumAt = offsetof(rte_udp_hdr, dgram_cksum);

/// Sum of `bytes` from `at` on, which the packet has. (rte_raw_cksum_mbuf() of DPDK 22.11 loses
/// carries where a segment begins at an odd place.)
inline uint16_t sum_of(const rte_mbuf& packet, uint32_t at, uint32_t bytes) {
    uint32_t sum = 0;
    bool odd = false;
    for (const rte_mbuf* m = &packet; m != nullptr && bytes > 0; m = m->next) {
        if (at >= m->data_len) {
            at -= m->data_len;
            continue;
        }
        const uint32_t n = std::min(bytes, m->data_len - at);
        const uint16_t part = rte_raw_cksum(rte_pktmbuf_mtod_offset(m, const std::byte*, at), n);
        sum += odd ? rte_bswap16(part) : part;
        odd ^= (n & 1) != 0;
        bytes -= n;
        at = 0;
    }
    sum = (sum & 0xffff) + (sum >> 16);
    return uint16_t((sum & 0xffff) + (sum >> 16));
}

/// Where the headers of a packet are. Threads: the packet's owner. The first segment holds all of
/// them: who makes one has checked that.
class Headers {
  public:
    explicit Headers(rte_mbuf& packet)
        : base_(rte_pktmbuf_mtod(&packet, std::byte*)),
          l3_(packet.l2_len),
          l4_(uint32_t(packet.l2_len) + packet.l3_len),
          payload_(l4_ + packet.l4_len),
          is_v4_((packet.ol_flags & RTE_MBUF_F_TX_IPV4) != 0),
          is_tcp_((packet.ol_flags & RTE_MBUF_F_TX_TCP_SEG) != 0 ||
                  (packet.ol_flags & RTE_MBUF_F_TX_L4_MASK) == RTE_MBUF_F_TX_TCP_CKSUM) {}
    /// The same headers at the beginning of another packet.
    Headers at(rte_mbuf& other) const {
        Headers h = *this;
        h.base_ = rte_pktmbuf_mtod(&other, std::byte*);
        return h;
    }

    bool is_v4() const { return is_v4_; }
    bool is_tcp() const { return is_tcp_; }
    uint32_t l3() const { return l3_; }            ///< bytes before the IP header
    uint32_t l4() const { return l4_; }            ///< bytes before the TCP or UDP header
    uint32_t payload() const { return payload_; }  ///< bytes of all headers
    uint32_t checksum_at() const { return l4_ + (is_tcp_ ? kTcpChecksumAt : kUdpChecksumAt); }

    uint16_t be16(uint32_t at) const {
        return uint16_t(unsigned(base_[at]) << 8 | unsigned(base_[at + 1]));
    }
    void set_be16(uint32_t at, uint16_t v) const {
        base_[at] = std::byte(v >> 8);
        base_[at + 1] = std::byte(v);
    }
    uint32_t be32(uint32_t at) const { return uint32_t(be16(at)) << 16 | be16(at + 2); }
    void set_be32(uint32_t at, uint32_t v) const {
        set_be16(at, uint16_t(v >> 16));
        set_be16(at + 2, uint16_t(v));
    }
    std::byte& byte(uint32_t at) const { return base_[at]; }
    std::byte& tcp_flags() const { return base_[l4_ + offsetof(rte_tcp_hdr, tcp_flags)]; }

    /// Bytes from the TCP or UDP header on, as the IP header has it. May be anything.
    int64_t l4_bytes_said() const {
        if (is_v4_) return int64_t(be16(l3_ + 2)) - int64_t(l4_ - l3_);
        return int64_t(be16(l3_ + 4)) - int64_t(l4_ - l3_ - kIpv6Bytes);
    }

    /// Of the pseudo header, for `l4_bytes` from the TCP or UDP header on.
    uint16_t pseudo_sum(uint32_t l4_bytes) const {
        const uint32_t addresses = l3_ + (is_v4_ ? 12 : 8);
        uint32_t sum = rte_raw_cksum(&base_[addresses], is_v4_ ? 8 : 32);
        sum += rte_cpu_to_be_16(is_tcp_ ? IPPROTO_TCP : IPPROTO_UDP);
        sum += rte_cpu_to_be_16(uint16_t(l4_bytes));
        sum += rte_cpu_to_be_16(uint16_t(l4_bytes >> 16));
        return fold(sum);
    }
    void set_checksum(uint16_t memory_order) const {
        std::memcpy(&base_[checksum_at()], &memory_order, sizeof memory_order);
    }
    void finish_ip() const {
        set_be16(l3_ + 10, 0);
        const uint16_t sum = uint16_t(~rte_raw_cksum(&base_[l3_], size_t{l4_ - l3_}));
        std::memcpy(&base_[l3_ + 10], &sum, sizeof sum);
    }

    static uint16_t fold(uint32_t sum) {
        sum = (sum & 0xffff) + (sum >> 16);
        return uint16_t((sum & 0xffff) + (sum >> 16));
    }
    /// What goes into a checksum field. Never 0, which means "none" in UDP and is the same as
    /// 0xffff everywhere else.
    static uint16_t complement(uint16_t sum) { return sum == 0xffff ? sum : uint16_t(~sum); }

  private:
    std::byte* base_;
    uint32_t l3_, l4_, payload_;
    bool is_v4_, is_tcp_;
};

}  // namespace viommu::net::offload
