// SPDX-License-Identifier: BSD-3-Clause
#include "filter.hh"

#include <rte_ether.h>
#include <rte_mbuf.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace viommu::net {

using namespace wire;

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr uint64_t kBroadcast = 0xffffffffffff;

/// The first byte on the wire is the lowest.
uint64_t to_word(const void* mac) noexcept {
    uint64_t word = 0;
    std::memcpy(&word, mac, 6);
    return word;
}
constexpr bool is_multicast(uint64_t mac) noexcept { return (mac & 1) != 0; }
constexpr uint32_t mode(uint8_t command) noexcept { return 1u << command; }

}  // namespace

void Filter::reset(std::array<uint8_t, 6> mac, bool vlans) noexcept {
    static_assert(std::endian::native == std::endian::little);
    modes_.store(kPromiscuous, kRelaxed);
    set_mac(mac);
    set_table({}, {});
    for (auto& word : vlans_) word.store(0, kRelaxed);
    vlans_filtered_.store(vlans, kRelaxed);
}

void Filter::set_mode(uint8_t command, bool on) noexcept {
    const uint32_t modes = modes_.load(kRelaxed);
    modes_.store(on ? modes | mode(command) : modes & ~mode(command), kRelaxed);
}

void Filter::set_mac(std::array<uint8_t, 6> mac) noexcept {
    mac_.store(to_word(mac.data()), kRelaxed);
}

std::array<uint8_t, 6> Filter::mac() const noexcept {
    const uint64_t word = mac_.load(kRelaxed);
    std::array<uint8_t, 6> mac;
    std::memcpy(mac.data(), &word, mac.size());
    return mac;
}

void Filter::set_table(std::span<const std::byte> unicast,
                       std::span<const std::byte> multicast) noexcept {
    unicast_.set(unicast);
    multicast_.set(multicast);
}

void Filter::Table::set(std::span<const std::byte> bytes) noexcept {
    const size_t n = bytes.size() / 6;
    for (size_t i = 0; i < std::min(n, kMaxAddresses); ++i)
        address[i].store(to_word(&bytes[6 * i]), kRelaxed);
    count.store(uint32_t(n), kRelaxed);
}

bool Filter::Table::has(uint64_t mac) const noexcept {
    const uint32_t n = count.load(kRelaxed);
    if (n > kMaxAddresses) return true;
    for (uint32_t i = 0; i < n; ++i)
        if (address[i].load(kRelaxed) == mac) return true;
    return false;
}

void Filter::set_vlan(uint16_t id, bool on) noexcept {
    auto& word = vlans_[id / 64];
    const uint64_t bit = uint64_t{1} << id % 64;
    const uint64_t was = word.load(kRelaxed);
    word.store(on ? was | bit : was & ~bit, kRelaxed);
}

bool Filter::looks_right(const rte_mbuf& packet) const noexcept {
    std::byte copy[RTE_ETHER_HDR_LEN + RTE_VLAN_HLEN];
    const auto* head = static_cast<const std::byte*>(
        rte_pktmbuf_read(&packet, 0, RTE_ETHER_HDR_LEN, copy));
    if (head == nullptr) return false;
    const uint64_t to = to_word(head);
    const auto type = unsigned(head[12]) << 8 | unsigned(head[13]);
    if (vlans_filtered_.load(kRelaxed) &&
        (type == RTE_ETHER_TYPE_VLAN || type == RTE_ETHER_TYPE_QINQ)) {
        head = static_cast<const std::byte*>(rte_pktmbuf_read(&packet, 0, sizeof copy, copy));
        if (head == nullptr) return false;
        const unsigned id = (unsigned(head[14]) << 8 | unsigned(head[15])) & (kVlans - 1);
        if ((vlans_[id / 64].load(kRelaxed) >> id % 64 & 1) == 0) return false;
    }
    const uint32_t modes = modes_.load(kRelaxed);
    const auto is = [modes](uint8_t command) { return (modes & mode(command)) != 0; };
    if (to == kBroadcast) return !is(VIRTIO_NET_CTRL_RX_NOBCAST);
    if (is_multicast(to))
        return !is(VIRTIO_NET_CTRL_RX_NOMULTI) &&
               (is(VIRTIO_NET_CTRL_RX_ALLMULTI) || multicast_.has(to));
    return !is(VIRTIO_NET_CTRL_RX_NOUNI) &&
           (is(VIRTIO_NET_CTRL_RX_ALLUNI) || to == mac_.load(kRelaxed) || unicast_.has(to));
}

}  // namespace viommu::net
