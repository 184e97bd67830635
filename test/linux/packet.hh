// SPDX-License-Identifier: BSD-3-Clause
/// The few packets that it takes to have a peer send back what one sends: ARP, ICMP echo.
#pragma once

#include <arpa/inet.h>
#include <linux/icmp.h>
#include <linux/if_arp.h>
#include <linux/if_ether.h>
#include <linux/ip.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace guest {

using Bytes = std::vector<uint8_t>;

struct Mac {
    uint8_t byte[ETH_ALEN];
};

/// Who sends, who answers. Addresses in network order.
struct Parties {
    Mac mac, peer_mac;
    uint32_t ip, peer_ip;
};

/// ARP over Ethernet for IPv4, after arphdr.
struct ArpBody {
    Mac sender_mac;
    uint32_t sender_ip;
    Mac target_mac;
    uint32_t target_ip;
} __attribute__((packed));

/// Internet checksum (RFC 1071) of `bytes`; 0 over a header that has a right one.
inline uint16_t checksum(std::span<const uint8_t> bytes) {
    uint32_t sum = 0;
    for (size_t i = 0; i < bytes.size(); ++i) sum += i % 2 ? bytes[i] : uint32_t(bytes[i]) << 8;
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    return htons(uint16_t(~sum));
}

template <class T>
void append(Bytes& out, const T& value) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
    out.insert(out.end(), bytes, bytes + sizeof value);
}

/// The T at `at`; false if the packet ends before.
template <class T>
bool at(std::span<const uint8_t> packet, size_t at, T& out) {
    if (packet.size() < at + sizeof out) return false;
    std::memcpy(&out, packet.data() + at, sizeof out);
    return true;
}

inline void append_ethernet(Bytes& out, const Mac& to, const Mac& from, uint16_t type) {
    append(out, to);
    append(out, from);
    append(out, htons(type));
}

inline Bytes arp_request(const Parties& p) {
    Bytes out;
    append_ethernet(out, Mac{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}, p.mac, ETH_P_ARP);
    append(out, arphdr{htons(ARPHRD_ETHER), htons(ETH_P_IP), ETH_ALEN, 4, htons(ARPOP_REQUEST)});
    append(out, ArpBody{p.mac, p.ip, Mac{}, p.peer_ip});
    return out;
}

/// Whether `frame` is the answer to arp_request(); then the peer's address is known.
inline bool take_arp_reply(std::span<const uint8_t> frame, Parties& p) {
    ethhdr ethernet;
    arphdr arp;
    ArpBody body;
    if (!at(frame, 0, ethernet) || ethernet.h_proto != htons(ETH_P_ARP)) return false;
    if (!at(frame, sizeof ethernet, arp) || arp.ar_op != htons(ARPOP_REPLY)) return false;
    if (!at(frame, sizeof ethernet + sizeof arp, body) || body.sender_ip != p.peer_ip) return false;
    if (std::memcmp(&body.target_mac, &p.mac, sizeof p.mac) != 0 || body.target_ip != p.ip)
        return false;
    p.peer_mac = body.sender_mac;
    return true;
}

inline Bytes echo_request(const Parties& p, uint16_t sequence, std::span<const uint8_t> payload) {
    icmphdr icmp{};
    icmp.type = ICMP_ECHO;
    icmp.un.echo.id = htons(0x5649);
    icmp.un.echo.sequence = htons(sequence);
    Bytes message;
    append(message, icmp);
    message.insert(message.end(), payload.begin(), payload.end());
    const uint16_t sum = checksum(message);
    std::memcpy(&message[offsetof(icmphdr, checksum)], &sum, sizeof sum);

    iphdr ip{};
    ip.version = 4;
    ip.ihl = sizeof ip / 4;
    ip.tot_len = htons(uint16_t(sizeof ip + message.size()));
    ip.ttl = 64;
    ip.protocol = IPPROTO_ICMP;
    ip.saddr = p.ip;
    ip.daddr = p.peer_ip;
    Bytes header;
    append(header, ip);
    ip.check = checksum(header);

    Bytes out;
    append_ethernet(out, p.peer_mac, p.mac, ETH_P_IP);
    append(out, ip);
    out.insert(out.end(), message.begin(), message.end());
    return out;
}

/// Whether `frame` is the peer's answer to echo number `sequence`; `payload` is then what came
/// back.
inline bool take_echo_reply(std::span<const uint8_t> frame, const Parties& p, uint16_t sequence,
                            Bytes& payload) {
    ethhdr ethernet;
    iphdr ip;
    icmphdr icmp;
    if (!at(frame, 0, ethernet) || ethernet.h_proto != htons(ETH_P_IP)) return false;
    if (!at(frame, sizeof ethernet, ip) || ip.ihl != sizeof ip / 4 || ip.protocol != IPPROTO_ICMP)
        return false;
    if (ip.saddr != p.peer_ip || ip.daddr != p.ip) return false;
    const size_t length = ntohs(ip.tot_len);
    if (length < sizeof ip + sizeof icmp || frame.size() < sizeof ethernet + length) return false;
    const auto message = frame.subspan(sizeof ethernet + sizeof ip, length - sizeof ip);
    if (!at(message, 0, icmp) || icmp.type != ICMP_ECHOREPLY || checksum(message) != 0)
        return false;
    if (icmp.un.echo.sequence != htons(sequence)) return false;
    payload.assign(message.begin() + sizeof icmp, message.end());
    return true;
}

}  // namespace guest
