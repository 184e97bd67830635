// SPDX-License-Identifier: BSD-3-Clause
/// virtio-net as it lies in memory (virtio 1.3, 5.1 "Network Device").
#pragma once

#include <cstddef>
#include <cstdint>

#include "viommu_base.hh"

namespace viommu::wire {

inline constexpr uint32_t VIRTIO_ID_NET = 1;

/// 5.1.3 Feature bits, those that we know
inline constexpr unsigned VIRTIO_NET_F_CSUM = 0;
inline constexpr unsigned VIRTIO_NET_F_GUEST_CSUM = 1;
inline constexpr unsigned VIRTIO_NET_F_CTRL_GUEST_OFFLOADS = 2;
inline constexpr unsigned VIRTIO_NET_F_MTU = 3;
inline constexpr unsigned VIRTIO_NET_F_MAC = 5;
inline constexpr unsigned VIRTIO_NET_F_GUEST_TSO4 = 7;
inline constexpr unsigned VIRTIO_NET_F_GUEST_TSO6 = 8;
inline constexpr unsigned VIRTIO_NET_F_GUEST_ECN = 9;
inline constexpr unsigned VIRTIO_NET_F_HOST_TSO4 = 11;
inline constexpr unsigned VIRTIO_NET_F_HOST_TSO6 = 12;
inline constexpr unsigned VIRTIO_NET_F_HOST_ECN = 13;
inline constexpr unsigned VIRTIO_NET_F_MRG_RXBUF = 15;
inline constexpr unsigned VIRTIO_NET_F_STATUS = 16;
inline constexpr unsigned VIRTIO_NET_F_CTRL_VQ = 17;
inline constexpr unsigned VIRTIO_NET_F_CTRL_RX = 18;
inline constexpr unsigned VIRTIO_NET_F_CTRL_VLAN = 19;
inline constexpr unsigned VIRTIO_NET_F_CTRL_RX_EXTRA = 20;
inline constexpr unsigned VIRTIO_NET_F_GUEST_ANNOUNCE = 21;
inline constexpr unsigned VIRTIO_NET_F_MQ = 22;
inline constexpr unsigned VIRTIO_NET_F_CTRL_MAC_ADDR = 23;
inline constexpr unsigned VIRTIO_NET_F_GUEST_USO4 = 54;
inline constexpr unsigned VIRTIO_NET_F_GUEST_USO6 = 55;
inline constexpr unsigned VIRTIO_NET_F_HOST_USO = 56;
inline constexpr unsigned VIRTIO_NET_F_RSS = 60;
inline constexpr unsigned VIRTIO_NET_F_SPEED_DUPLEX = 63;

inline constexpr uint16_t VIRTIO_NET_S_LINK_UP = 1;

/// `duplex`. The text of 5.1.4 and its device requirements contradict each other; drivers take 1.
inline constexpr uint8_t VIRTIO_NET_DUPLEX_FULL = 1;
inline constexpr uint8_t VIRTIO_NET_DUPLEX_UNKNOWN = 0xff;
inline constexpr uint32_t VIRTIO_NET_SPEED_UNKNOWN = 0xffffffff;

/// 5.1.6.4.3.1 Hash types; without those for IPv6 extension headers, which we do not offer
inline constexpr uint32_t VIRTIO_NET_HASH_TYPE_IPv4 = 1 << 0;
inline constexpr uint32_t VIRTIO_NET_HASH_TYPE_TCPv4 = 1 << 1;
inline constexpr uint32_t VIRTIO_NET_HASH_TYPE_UDPv4 = 1 << 2;
inline constexpr uint32_t VIRTIO_NET_HASH_TYPE_IPv6 = 1 << 3;
inline constexpr uint32_t VIRTIO_NET_HASH_TYPE_TCPv6 = 1 << 4;
inline constexpr uint32_t VIRTIO_NET_HASH_TYPE_UDPv6 = 1 << 5;

/// 5.1.4 Device configuration layout, up to the fields we can offer.
struct virtio_net_config {
    uint8_t mac[6];
    le16 status;
    le16 max_virtqueue_pairs;
    le16 mtu;
    le32 speed;
    uint8_t duplex;
    uint8_t rss_max_key_size;
    le16 rss_max_indirection_table_length;
    le32 supported_hash_types;
};

inline constexpr uint8_t VIRTIO_NET_HDR_F_NEEDS_CSUM = 1;
inline constexpr uint8_t VIRTIO_NET_HDR_F_DATA_VALID = 2;

inline constexpr uint8_t VIRTIO_NET_HDR_GSO_NONE = 0;
inline constexpr uint8_t VIRTIO_NET_HDR_GSO_TCPV4 = 1;
inline constexpr uint8_t VIRTIO_NET_HDR_GSO_UDP = 3;
inline constexpr uint8_t VIRTIO_NET_HDR_GSO_TCPV6 = 4;
inline constexpr uint8_t VIRTIO_NET_HDR_GSO_UDP_L4 = 5;
inline constexpr uint8_t VIRTIO_NET_HDR_GSO_ECN = 0x80;

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

// --- 5.1.6.5 Control virtqueue ---------------------------------------------------------------

/// What every command begins with. `class` is a word of C++.
struct virtio_net_ctrl_hdr {
    uint8_t class_;
    uint8_t command;
};

inline constexpr uint8_t VIRTIO_NET_OK = 0;
inline constexpr uint8_t VIRTIO_NET_ERR = 1;

inline constexpr uint8_t VIRTIO_NET_CTRL_RX = 0;
inline constexpr uint8_t VIRTIO_NET_CTRL_RX_PROMISC = 0;
inline constexpr uint8_t VIRTIO_NET_CTRL_RX_ALLMULTI = 1;
inline constexpr uint8_t VIRTIO_NET_CTRL_RX_ALLUNI = 2;
inline constexpr uint8_t VIRTIO_NET_CTRL_RX_NOMULTI = 3;
inline constexpr uint8_t VIRTIO_NET_CTRL_RX_NOUNI = 4;
inline constexpr uint8_t VIRTIO_NET_CTRL_RX_NOBCAST = 5;

inline constexpr uint8_t VIRTIO_NET_CTRL_MAC = 1;
inline constexpr uint8_t VIRTIO_NET_CTRL_MAC_TABLE_SET = 0;
inline constexpr uint8_t VIRTIO_NET_CTRL_MAC_ADDR_SET = 1;

inline constexpr uint8_t VIRTIO_NET_CTRL_VLAN = 2;
inline constexpr uint8_t VIRTIO_NET_CTRL_VLAN_ADD = 0;
inline constexpr uint8_t VIRTIO_NET_CTRL_VLAN_DEL = 1;

inline constexpr uint8_t VIRTIO_NET_CTRL_MQ = 4;
inline constexpr uint8_t VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET = 0;
inline constexpr uint8_t VIRTIO_NET_CTRL_MQ_RSS_CONFIG = 1;

inline constexpr uint8_t VIRTIO_NET_CTRL_GUEST_OFFLOADS = 5;
inline constexpr uint8_t VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET = 0;

/// 5.1.6.5.7.1: the fields before the indirection table, and those after it before the key.
struct virtio_net_rss_config_head {
    le32 hash_types;
    le16 indirection_table_mask;
    le16 unclassified_queue;  ///< struct rss_rq_id
};
struct virtio_net_rss_config_tail {
    le16 max_tx_vq;
    uint8_t hash_key_length;
};

static_assert(sizeof(virtio_net_config) == 24);
static_assert(offsetof(virtio_net_config, status) == 6);
static_assert(offsetof(virtio_net_config, max_virtqueue_pairs) == 8);
static_assert(offsetof(virtio_net_config, mtu) == 10);
static_assert(offsetof(virtio_net_config, speed) == 12);
static_assert(offsetof(virtio_net_config, duplex) == 16);
static_assert(offsetof(virtio_net_config, rss_max_key_size) == 17);
static_assert(offsetof(virtio_net_config, rss_max_indirection_table_length) == 18);
static_assert(offsetof(virtio_net_config, supported_hash_types) == 20);
static_assert(sizeof(virtio_net_hdr) == 12);
static_assert(offsetof(virtio_net_hdr, hdr_len) == 2);
static_assert(offsetof(virtio_net_hdr, num_buffers) == 10);
static_assert(sizeof(virtio_net_rss_config_head) == 8);
static_assert(sizeof(virtio_net_rss_config_tail) == 3);

}  // namespace viommu::wire
