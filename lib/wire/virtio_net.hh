// SPDX-License-Identifier: BSD-3-Clause
/// virtio-net as it lies in memory (virtio 1.3, 5.1 "Network Device").
#pragma once

#include <cstddef>
#include <cstdint>

#include "viommu_base.hh"

namespace viommu::wire {

inline constexpr uint32_t VIRTIO_ID_NET = 1;

inline constexpr unsigned VIRTIO_NET_F_MTU = 3;
inline constexpr unsigned VIRTIO_NET_F_MAC = 5;
inline constexpr unsigned VIRTIO_NET_F_MRG_RXBUF = 15;
inline constexpr unsigned VIRTIO_NET_F_STATUS = 16;

inline constexpr uint16_t VIRTIO_NET_S_LINK_UP = 1;

/// 5.1.4 Device configuration layout, up to the fields we can offer.
struct virtio_net_config {
    uint8_t mac[6];
    le16 status;
    le16 max_virtqueue_pairs;
    le16 mtu;
};

/// 5.1.6. With VIRTIO_F_VERSION_1 `num_buffers` is always there.
struct virtio_net_hdr {
    uint8_t flags;
    uint8_t gso_type;
    le16 hdr_len;
    le16 gso_size;
    le16 csum_start;
    le16 csum_offset;
    le16 num_buffers;
};

static_assert(sizeof(virtio_net_config) == 12);
static_assert(offsetof(virtio_net_config, status) == 6);
static_assert(offsetof(virtio_net_config, max_virtqueue_pairs) == 8);
static_assert(offsetof(virtio_net_config, mtu) == 10);
static_assert(sizeof(virtio_net_hdr) == 12);
static_assert(offsetof(virtio_net_hdr, hdr_len) == 2);
static_assert(offsetof(virtio_net_hdr, num_buffers) == 10);

}  // namespace viommu::wire
