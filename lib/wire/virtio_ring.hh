// SPDX-License-Identifier: BSD-3-Clause
/// Split and packed virtqueues as they lie in memory (virtio 1.3, 2.7 and 2.8).
#pragma once

#include <cstddef>
#include <cstdint>

#include "viommu_base.hh"

namespace viommu::wire {

inline constexpr uint16_t VIRTQ_DESC_F_NEXT = 1;
inline constexpr uint16_t VIRTQ_DESC_F_WRITE = 2;
inline constexpr uint16_t VIRTQ_DESC_F_INDIRECT = 4;

inline constexpr uint16_t VIRTQ_AVAIL_F_NO_INTERRUPT = 1;
inline constexpr uint16_t VIRTQ_USED_F_NO_NOTIFY = 1;

/// Packed rings only.
inline constexpr uint16_t VIRTQ_DESC_F_AVAIL = 1u << 7;
inline constexpr uint16_t VIRTQ_DESC_F_USED = 1u << 15;

inline constexpr uint16_t RING_EVENT_FLAGS_ENABLE = 0;
inline constexpr uint16_t RING_EVENT_FLAGS_DISABLE = 1;
inline constexpr uint16_t RING_EVENT_FLAGS_DESC = 2;

// Feature bits about rings (virtio 1.3, 6).
inline constexpr unsigned VIRTIO_F_INDIRECT_DESC = 28;
inline constexpr unsigned VIRTIO_F_EVENT_IDX = 29;
inline constexpr unsigned VIRTIO_F_RING_PACKED = 34;
inline constexpr unsigned VIRTIO_F_IN_ORDER = 35;
inline constexpr unsigned VIRTIO_F_NOTIFICATION_DATA = 38;
inline constexpr unsigned VIRTIO_F_RING_RESET = 40;

inline constexpr uint32_t kMaxQueueSize = 32768;

/// One descriptor: 16 bytes, 16-byte aligned in the table.
struct virtq_desc {
    le64 addr;
    le32 len;
    le16 flags;
    le16 next;
};

/// One used element, after the 4-byte used header.
struct virtq_used_elem {
    le32 id;
    le32 len;
};

/// 2.8.13. One descriptor of a packed ring: 16 bytes, 16-byte aligned. Whoever writes `flags` last
/// hands it over.
struct pvirtq_desc {
    le64 addr;
    le32 len;
    le16 id;
    le16 flags;
};

/// 2.8.14. One side's wish about notifications: an event offset (bits 0-14) and wrap counter (15),
/// and RING_EVENT_FLAGS_* in bits 0-1 of `flags`.
struct pvirtq_event_suppress {
    le16 desc;
    le16 flags;
};

/// Bytes of each part of a split queue of `size` entries. With VIRTIO_F_EVENT_IDX two more are the
/// event field: used_event after the available ring, avail_event after the used ring.
constexpr uint32_t desc_table_bytes(uint32_t size) { return 16 * size; }
constexpr uint32_t avail_ring_bytes(uint32_t size, bool event_idx = false) {
    return 4 + 2 * size + (event_idx ? 2 : 0);
}
constexpr uint32_t used_ring_bytes(uint32_t size, bool event_idx = false) {
    return 4 + 8 * size + (event_idx ? 2 : 0);
}

static_assert(sizeof(virtq_desc) == 16);
static_assert(offsetof(virtq_desc, len) == 8);
static_assert(offsetof(virtq_desc, flags) == 12);
static_assert(offsetof(virtq_desc, next) == 14);
static_assert(sizeof(virtq_used_elem) == 8);
static_assert(offsetof(virtq_used_elem, len) == 4);
static_assert(sizeof(pvirtq_desc) == 16);
static_assert(offsetof(pvirtq_desc, id) == 12);
static_assert(offsetof(pvirtq_desc, flags) == 14);
static_assert(sizeof(pvirtq_event_suppress) == 4);

}  // namespace viommu::wire
