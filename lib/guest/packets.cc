// SPDX-License-Identifier: BSD-3-Clause
#include "packets.hh"

#include <fmt/format.h>

#include <cassert>

namespace viommu::guest {

using namespace wire;

namespace {

constexpr uint32_t kEthernet = 14;
constexpr uint8_t kTcp = 6, kUdp = 17;

constexpr uint8_t kCwr = 0x80;

// 5.1.6: VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_*
constexpr uint8_t kNeedsCsum = 1, kGsoTcp4 = 1, kGsoTcp6 = 4, kGsoUdp = 5, kGsoEcn = 0x80;

void put16(std::span<std::byte> at, uint32_t offset, uint32_t value) {
    at[offset] = std::byte(value >> 8);
    at[offset + 1] = std::byte(value);
}
void put32(std::span<std::byte> at, uint32_t offset, uint32_t value) {
    put16(at, offset, value >> 16);
    put16(at, offset + 2, value);
}
uint32_t get16(std::span<const std::byte> at, uint32_t offset) {
    return uint32_t(at[offset]) << 8 | uint32_t(at[offset + 1]);
}
uint32_t get32(std::span<const std::byte> at, uint32_t offset) {
    return get16(at, offset) << 16 | get16(at, offset + 2);
}

uint8_t protocol_of(const Flow& flow) { return flow.udp ? kUdp : kTcp; }

/// Of RFC 9293, 3.1, RFC 768 and RFC 8200, 8.1, over `bytes` of TCP or UDP.
uint16_t pseudo_sum(const Flow& flow, std::span<const std::byte> frame, uint32_t bytes) {
    // Both addresses stand at the end of the IP header.
    const uint32_t addresses = flow.ipv6 ? 32 : 8;
    const uint32_t rest = bytes / 0x10000 + bytes % 0x10000 + protocol_of(flow);
    return internet_sum(frame.subspan(flow.l4_at() - addresses, addresses), rest);
}

void write_ip(const Flow& flow, std::span<std::byte> frame) {
    const auto ip = frame.subspan(kEthernet);
    if (flow.ipv6) {
        ip[0] = std::byte{0x60};
        put16(ip, 4, uint32_t(ip.size()) - 40);
        ip[6] = std::byte{protocol_of(flow)};
        ip[7] = std::byte{64};
        put16(ip, 8, 0xfd00), put32(ip, 20, flow.source);
        put16(ip, 24, 0xfd00), put32(ip, 36, flow.target);
        return;
    }
    ip[0] = std::byte{0x45};
    put16(ip, 2, uint32_t(ip.size()));
    put16(ip, 6, 0x4000);  // don't fragment
    ip[8] = std::byte{64};
    ip[9] = std::byte{protocol_of(flow)};
    put32(ip, 12, flow.source), put32(ip, 16, flow.target);
    put16(ip, 10, uint16_t(~internet_sum(ip.first(20))));
}

/// With the sum of the pseudo header where the checksum goes.
std::vector<std::byte> begin_frame(const Flow& flow, uint32_t tcp_sequence,
                                   std::span<const std::byte> payload) {
    std::vector<std::byte> frame(flow.payload_at());
    frame.insert(frame.end(), payload.begin(), payload.end());
    std::fill_n(frame.begin(), 6, std::byte{0xff});
    frame[6] = std::byte{0x02};
    put16(frame, 12, flow.ipv6 ? 0x86dd : 0x0800);
    assert(frame.size() - kEthernet - (flow.ipv6 ? 40 : 0) <= 0xffff);
    write_ip(flow, frame);
    const auto l4 = std::span(frame).subspan(flow.l4_at());
    put16(l4, 0, flow.source_port), put16(l4, 2, flow.target_port);
    if (flow.udp) {
        put16(l4, 4, uint32_t(l4.size()));
    } else {
        put32(l4, 4, tcp_sequence);
        l4[12] = std::byte{5 << 4};
        l4[13] = std::byte{flow.tcp_flags};
        put16(l4, 14, 0xffff);
    }
    put16(l4, flow.checksum_offset(), pseudo_sum(flow, frame, uint32_t(l4.size())));
    return frame;
}

/// What is wrong with the frame before TCP or UDP; `end`: of the IP packet.
std::string trouble_of_ip(const Flow& flow, std::span<const std::byte> frame, uint32_t& end) {
    if (frame.size() < flow.payload_at()) return fmt::format("{} bytes long", frame.size());
    const auto ip = frame.subspan(kEthernet);
    if (get16(frame, 12) != (flow.ipv6 ? 0x86ddu : 0x0800u)) return "another EtherType";
    if (uint8_t(flow.ipv6 ? ip[6] : ip[9]) != protocol_of(flow)) return "another protocol";
    if (get32(ip, flow.ipv6 ? 20 : 12) != flow.source) return "from another address";
    if (get32(ip, flow.ipv6 ? 36 : 16) != flow.target) return "to another address";
    if (!flow.ipv6 && internet_sum(ip.first(20)) != 0xffff) return "IP header checksum is wrong";
    end = kEthernet + (flow.ipv6 ? 40 + get16(ip, 4) : get16(ip, 2));
    if (end < flow.payload_at() || end > frame.size())
        return fmt::format("IP says it ends at {} of {}", end, frame.size());
    return {};
}

}  // namespace

uint16_t internet_sum(std::span<const std::byte> bytes, uint32_t before) {
    uint64_t sum = before;
    size_t i = 0;
    for (; i + 1 < bytes.size(); i += 2) sum += get16(bytes, uint32_t(i));
    if (i < bytes.size()) sum += uint32_t(bytes[i]) << 8;
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
    return uint16_t(sum);
}

std::vector<std::byte> make_frame(const Flow& flow, uint32_t tcp_sequence,
                                  std::span<const std::byte> payload) {
    auto frame = begin_frame(flow, tcp_sequence, payload);
    const auto l4 = std::span(frame).subspan(flow.l4_at());
    const auto checksum = uint16_t(~internet_sum(l4));
    // UDP: 0 is none.
    put16(l4, flow.checksum_offset(), flow.udp && checksum == 0 ? 0xffff : checksum);
    return frame;
}

std::vector<std::byte> make_unfinished_frame(const Flow& flow, uint32_t tcp_sequence,
                                             std::span<const std::byte> payload,
                                             virtio_net_hdr& header) {
    header.flags = kNeedsCsum;
    header.csum_start = uint16_t(flow.l4_at());
    header.csum_offset = uint16_t(flow.checksum_offset());
    return begin_frame(flow, tcp_sequence, payload);
}

std::vector<std::byte> make_giant_frame(const Flow& flow, uint32_t tcp_sequence,
                                        std::span<const std::byte> payload, uint16_t gso_bytes,
                                        virtio_net_hdr& header) {
    header.gso_type = flow.udp ? kGsoUdp : flow.ipv6 ? kGsoTcp6 : kGsoTcp4;
    if (!flow.udp && (flow.tcp_flags & kCwr) != 0) header.gso_type |= kGsoEcn;
    header.gso_size = gso_bytes;
    header.hdr_len = uint16_t(flow.payload_at());
    return make_unfinished_frame(flow, tcp_sequence, payload, header);
}

void finish_frame(const virtio_net_hdr& header, std::span<std::byte> frame) {
    const auto summed = frame.subspan(header.csum_start);
    put16(summed, header.csum_offset, uint16_t(~internet_sum(summed)));
}

ReadFrame read_frame(const Flow& flow, std::span<const std::byte> frame) {
    ReadFrame read;
    uint32_t end = 0;
    if (read.trouble = trouble_of_ip(flow, frame, end); !read.trouble.empty()) return read;
    // What follows the IP packet is padding.
    const auto l4 = frame.subspan(flow.l4_at(), end - flow.l4_at());
    if (get16(l4, 0) != flow.source_port || get16(l4, 2) != flow.target_port)
        read.trouble = fmt::format("from port {} to {}", get16(l4, 0), get16(l4, 2));
    if (flow.udp && get16(l4, 4) != l4.size())
        read.trouble = fmt::format("UDP says {} bytes of {}", get16(l4, 4), l4.size());
    if (!flow.udp) read.tcp_sequence = get32(l4, 4), read.tcp_flags = uint8_t(l4[13]);
    if (!flow.ipv6) read.ipv4_id = uint16_t(get16(frame, kEthernet + 4));
    const uint16_t pseudo = pseudo_sum(flow, frame, uint32_t(l4.size()));
    read.checksum_good = internet_sum(l4, pseudo) == 0xffff;
    read.checksum_begun = get16(l4, flow.checksum_offset()) == pseudo;
    read.payload = l4.subspan(flow.l4_bytes());
    return read;
}

}  // namespace viommu::guest
