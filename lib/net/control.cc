// SPDX-License-Identifier: BSD-3-Clause
#include "control.hh"

#include <cstring>
#include <optional>

#include "net_config.hh"

namespace viommu::net {

using namespace wire;

namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr size_t kMac = 6;

/// All of `data`, as a T.
template <class T>
std::optional<T> exactly(std::span<const std::byte> data) {
    if (data.size() != sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(&value, data.data(), sizeof value);
    return value;
}

/// struct virtio_net_ctrl_mac, taken from the front of `data`.
std::optional<std::span<const std::byte>> take_table(std::span<const std::byte>& data) {
    if (data.size() < sizeof(le32)) return std::nullopt;
    const uint64_t bytes = uint64_t{*exactly<le32>(data.first(sizeof(le32)))} * kMac;
    data = data.subspan(sizeof(le32));
    if (bytes > data.size()) return std::nullopt;
    const auto table = data.first(size_t(bytes));
    data = data.subspan(size_t(bytes));
    return table;
}

/// The addresses are of the kind that the table is for.
bool all_are(std::span<const std::byte> table, bool multicast) {
    for (size_t i = 0; i < table.size(); i += kMac)
        if (((table[i] & std::byte{1}) != std::byte{0}) != multicast) return false;
    return true;
}

}  // namespace

void Control::reset(uint64_t negotiated) noexcept {
    negotiated_ = negotiated;
    restart();
}

void Control::restart() noexcept {
    features_.store(negotiated_, kRelaxed);
    filter_.reset(limits_.mac, accepted(VIRTIO_NET_F_CTRL_VLAN));
    steering_.set_pairs(1);
}

uint8_t Control::execute(std::span<const std::byte> bytes) noexcept {
    if (bytes.size() < sizeof(virtio_net_ctrl_hdr) || bytes.size() > kMaxCommandBytes)
        return VIRTIO_NET_ERR;
    const auto head = *exactly<virtio_net_ctrl_hdr>(bytes.first(sizeof(virtio_net_ctrl_hdr)));
    const Data data = bytes.subspan(sizeof head);
    bool ok = false;
    switch (head.class_) {
        case VIRTIO_NET_CTRL_RX: ok = receive_mode(head.command, data); break;
        case VIRTIO_NET_CTRL_MAC: ok = mac(head.command, data); break;
        case VIRTIO_NET_CTRL_VLAN: ok = vlan(head.command, data); break;
        case VIRTIO_NET_CTRL_MQ: ok = multi_queue(head.command, data); break;
        case VIRTIO_NET_CTRL_GUEST_OFFLOADS: ok = guest_offloads(head.command, data); break;
    }
    return ok ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
}

bool Control::receive_mode(uint8_t command, Data data) noexcept {
    const bool extra = command >= VIRTIO_NET_CTRL_RX_ALLUNI;
    if (command > VIRTIO_NET_CTRL_RX_NOBCAST || data.size() != 1 || uint8_t(data[0]) > 1 ||
        !accepted(extra ? VIRTIO_NET_F_CTRL_RX_EXTRA : VIRTIO_NET_F_CTRL_RX))
        return false;
    filter_.set_mode(command, data[0] != std::byte{0});
    return true;
}

bool Control::mac(uint8_t command, Data data) noexcept {
    if (command == VIRTIO_NET_CTRL_MAC_TABLE_SET) return mac_table(data);
    if (command != VIRTIO_NET_CTRL_MAC_ADDR_SET || !accepted(VIRTIO_NET_F_CTRL_MAC_ADDR))
        return false;
    const auto mac = exactly<std::array<uint8_t, kMac>>(data);
    if (!mac) return false;
    filter_.set_mac(*mac);
    return true;
}

bool Control::mac_table(Data data) noexcept {
    if (!accepted(VIRTIO_NET_F_CTRL_RX)) return false;
    const auto unicast = take_table(data);
    if (!unicast) return false;
    const auto multicast = take_table(data);
    if (!multicast || !data.empty() || !all_are(*unicast, false) || !all_are(*multicast, true))
        return false;
    filter_.set_table(*unicast, *multicast);
    return true;
}

bool Control::vlan(uint8_t command, Data data) noexcept {
    const auto id = exactly<le16>(data);
    if (!accepted(VIRTIO_NET_F_CTRL_VLAN) || command > VIRTIO_NET_CTRL_VLAN_DEL || !id ||
        *id >= Filter::kVlans)
        return false;
    filter_.set_vlan(*id, command == VIRTIO_NET_CTRL_VLAN_ADD);
    return true;
}

bool Control::multi_queue(uint8_t command, Data data) noexcept {
    if (command == VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET && accepted(VIRTIO_NET_F_MQ)) {
        const auto pairs = exactly<le16>(data);
        if (!pairs || *pairs == 0 || *pairs > limits_.max_pairs) return false;
        steering_.set_pairs(*pairs);
    } else if (command == VIRTIO_NET_CTRL_MQ_RSS_CONFIG && accepted(VIRTIO_NET_F_RSS)) {
        const auto rss = Rss::decode(data, limits_.max_pairs);
        if (!rss) return false;
        steering_.set(*rss);
    } else {
        return false;
    }
    return true;
}

bool Control::guest_offloads(uint8_t command, Data data) noexcept {
    const auto wanted = exactly<le64>(data);
    // 5.1.6.5.8.1.1: only what has been negotiated.
    if (command != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET ||
        !accepted(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) || !wanted ||
        (*wanted & ~(negotiated_ & guest_offload_bits())) != 0)
        return false;
    features_.store(negotiated((negotiated_ & ~guest_offload_bits()) | *wanted), kRelaxed);
    return true;
}

}  // namespace viommu::net
