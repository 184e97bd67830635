// SPDX-License-Identifier: BSD-3-Clause
#include "net_config.hh"

#include <algorithm>

#include "rss.hh"

namespace viommu::net {

using namespace wire;

namespace {

constexpr uint64_t bits(std::initializer_list<unsigned> numbers) {
    uint64_t all = 0;
    for (const unsigned n : numbers) all |= uint64_t{1} << n;
    return all;
}

constexpr uint64_t kHostCutting =
    bits({VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_ECN,
          VIRTIO_NET_F_HOST_USO});
constexpr uint64_t kGuestOffloads =
    bits({VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
          VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6});

/// 5.1.3.1: each of `these` needs one of `of`. In an order in which one pass is enough.
struct Requirement {
    uint64_t these, of;
};
constexpr Requirement kRequirements[] = {
    {bits({VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_USO4,
           VIRTIO_NET_F_GUEST_USO6}),
     bits({VIRTIO_NET_F_GUEST_CSUM})},
    {bits({VIRTIO_NET_F_GUEST_ECN}), bits({VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6})},
    {bits({VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_USO}),
     bits({VIRTIO_NET_F_CSUM})},
    {bits({VIRTIO_NET_F_HOST_ECN}), bits({VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6})},
    {bits({VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_RX_EXTRA, VIRTIO_NET_F_CTRL_VLAN,
           VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_MQ, VIRTIO_NET_F_CTRL_MAC_ADDR,
           VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_RSS}),
     bits({VIRTIO_NET_F_CTRL_VQ})},
};

}  // namespace

uint64_t offered(const Offer& o) noexcept {
    uint64_t f = bits({VIRTIO_NET_F_MAC, VIRTIO_NET_F_STATUS, VIRTIO_NET_F_MRG_RXBUF});
    if (o.mtu) f |= bits({VIRTIO_NET_F_MTU});
    if (o.speed) f |= bits({VIRTIO_NET_F_SPEED_DUPLEX});
    if (o.offloads) f |= kGuestOffloads;
    if (o.offloads && o.may_leave >= MayLeave::kChecksums) f |= bits({VIRTIO_NET_F_CSUM});
    if (o.offloads && o.may_leave >= MayLeave::kCutting) f |= kHostCutting;
    if (!o.control_queue) return f;
    f |= bits({VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_RX_EXTRA,
               VIRTIO_NET_F_CTRL_VLAN, VIRTIO_NET_F_CTRL_MAC_ADDR});
    if (o.offloads) f |= bits({VIRTIO_NET_F_CTRL_GUEST_OFFLOADS});
    if (o.queue_pairs > 1) f |= bits({VIRTIO_NET_F_MQ, VIRTIO_NET_F_RSS});
    return f;
}

uint64_t negotiated(uint64_t acked) noexcept {
    for (const auto& r : kRequirements)
        if ((acked & r.of) == 0) acked &= ~r.these;
    return acked;
}

uint64_t guest_offload_bits() noexcept {
    return kGuestOffloads;
}

virtio_net_config ConfigSpace::layout() const noexcept {
    virtio_net_config c{};
    std::copy(mac.begin(), mac.end(), c.mac);
    c.status = link_up ? VIRTIO_NET_S_LINK_UP : uint16_t{0};
    c.max_virtqueue_pairs = queue_pairs;
    c.mtu = mtu.value_or(0);
    if (speed_mbps) {
        c.speed = *speed_mbps;
        c.duplex = VIRTIO_NET_DUPLEX_FULL;
    }
    if (rss) {
        c.rss_max_key_size = kRssMaxKeyBytes;
        c.rss_max_indirection_table_length = kRssMaxTable;
        c.supported_hash_types = kRssHashTypes;
    }
    return c;
}

}  // namespace viommu::net
