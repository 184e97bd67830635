// SPDX-License-Identifier: BSD-3-Clause
/// Split virtqueues as they lie in memory (virtio 1.3, 2.7).
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

inline constexpr unsigned VIRTIO_F_INDIRECT_DESC = 28;
inline constexpr unsigned VIRTIO_F_EVENT_IDX = 29;

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

/// Bytes of each part of a split queue of `size` entries, without the EVENT_IDX field.
constexpr uint32_t desc_table_bytes(uint32_t size) { return 16 * size; }
constexpr uint32_t avail_ring_bytes(uint32_t size) { return 4 + 2 * size; }
constexpr uint32_t used_ring_bytes(uint32_t size) { return 4 + 8 * size; }

static_assert(sizeof(virtq_desc) == 16);
static_assert(offsetof(virtq_desc, len) == 8);
static_assert(offsetof(virtq_desc, flags) == 12);
static_assert(offsetof(virtq_desc, next) == 14);
static_assert(sizeof(virtq_used_elem) == 8);
static_assert(offsetof(virtq_used_elem, len) == 4);

}  // namespace viommu::wire
