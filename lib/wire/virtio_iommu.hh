// SPDX-License-Identifier: BSD-3-Clause
/// virtio-iommu as it lies in memory (virtio 1.3, 5.13 "IOMMU Device").
#pragma once

#include <cstddef>
#include <cstdint>

#include "viommu_base.hh"

namespace viommu::wire {

inline constexpr uint32_t VIRTIO_ID_IOMMU = 23;

// Bits common to all virtio devices (virtio 1.3, 6).
inline constexpr unsigned VIRTIO_F_VERSION_1 = 32;
inline constexpr unsigned VIRTIO_F_ACCESS_PLATFORM = 33;

// Feature bits (5.13.3).
inline constexpr unsigned VIRTIO_IOMMU_F_INPUT_RANGE = 0;
inline constexpr unsigned VIRTIO_IOMMU_F_DOMAIN_RANGE = 1;
inline constexpr unsigned VIRTIO_IOMMU_F_MAP_UNMAP = 2;
inline constexpr unsigned VIRTIO_IOMMU_F_BYPASS = 3;
inline constexpr unsigned VIRTIO_IOMMU_F_PROBE = 4;
inline constexpr unsigned VIRTIO_IOMMU_F_MMIO = 5;
inline constexpr unsigned VIRTIO_IOMMU_F_BYPASS_CONFIG = 6;

// Queues (5.13.2).
inline constexpr uint16_t VIRTIO_IOMMU_VQ_REQUEST = 0;
inline constexpr uint16_t VIRTIO_IOMMU_VQ_EVENT = 1;

// Request types (5.13.6).
inline constexpr uint8_t VIRTIO_IOMMU_T_ATTACH = 1;
inline constexpr uint8_t VIRTIO_IOMMU_T_DETACH = 2;
inline constexpr uint8_t VIRTIO_IOMMU_T_MAP = 3;
inline constexpr uint8_t VIRTIO_IOMMU_T_UNMAP = 4;
inline constexpr uint8_t VIRTIO_IOMMU_T_PROBE = 5;

inline constexpr uint32_t VIRTIO_IOMMU_ATTACH_F_BYPASS = 1u << 0;

inline constexpr uint32_t VIRTIO_IOMMU_MAP_F_READ = 1u << 0;
inline constexpr uint32_t VIRTIO_IOMMU_MAP_F_WRITE = 1u << 1;
inline constexpr uint32_t VIRTIO_IOMMU_MAP_F_MMIO = 1u << 2;

inline constexpr uint16_t VIRTIO_IOMMU_PROBE_T_NONE = 0;
inline constexpr uint16_t VIRTIO_IOMMU_PROBE_T_RESV_MEM = 1;
inline constexpr uint16_t VIRTIO_IOMMU_PROBE_T_MASK = 0xfff;

inline constexpr uint8_t VIRTIO_IOMMU_RESV_MEM_T_RESERVED = 0;
inline constexpr uint8_t VIRTIO_IOMMU_RESV_MEM_T_MSI = 1;

inline constexpr uint8_t VIRTIO_IOMMU_FAULT_R_UNKNOWN = 0;
inline constexpr uint8_t VIRTIO_IOMMU_FAULT_R_DOMAIN = 1;
inline constexpr uint8_t VIRTIO_IOMMU_FAULT_R_MAPPING = 2;

inline constexpr uint32_t VIRTIO_IOMMU_FAULT_F_READ = 1u << 0;
inline constexpr uint32_t VIRTIO_IOMMU_FAULT_F_WRITE = 1u << 1;
inline constexpr uint32_t VIRTIO_IOMMU_FAULT_F_ADDRESS = 1u << 8;

struct virtio_iommu_range_64 {
    le64 start;
    le64 end;
};

struct virtio_iommu_range_32 {
    le32 start;
    le32 end;
};

/// 5.13.4 Device configuration layout.
struct virtio_iommu_config {
    le64 page_size_mask;
    virtio_iommu_range_64 input_range;
    virtio_iommu_range_32 domain_range;
    le32 probe_size;
    uint8_t bypass;
    uint8_t reserved[3];
};

struct virtio_iommu_req_head {
    uint8_t type;
    uint8_t reserved[3];
};

struct virtio_iommu_req_tail {
    uint8_t status;
    uint8_t reserved[3];
};

/// 5.13.6.3
struct virtio_iommu_req_attach {
    virtio_iommu_req_head head;
    le32 domain;
    le32 endpoint;
    le32 flags;
    uint8_t reserved[4];
    virtio_iommu_req_tail tail;
};

/// 5.13.6.4
struct virtio_iommu_req_detach {
    virtio_iommu_req_head head;
    le32 domain;
    le32 endpoint;
    uint8_t reserved[8];
    virtio_iommu_req_tail tail;
};

/// 5.13.6.5
struct virtio_iommu_req_map {
    virtio_iommu_req_head head;
    le32 domain;
    le64 virt_start;
    le64 virt_end;
    le64 phys_start;
    le32 flags;
    virtio_iommu_req_tail tail;
};

/// 5.13.6.6
struct virtio_iommu_req_unmap {
    virtio_iommu_req_head head;
    le32 domain;
    le64 virt_start;
    le64 virt_end;
    uint8_t reserved[4];
    virtio_iommu_req_tail tail;
};

/// 5.13.6.7. Followed by u8 properties[probe_size] and a virtio_iommu_req_tail.
struct virtio_iommu_req_probe {
    virtio_iommu_req_head head;
    le32 endpoint;
    uint8_t reserved[64];
};

/// 5.13.6.7. `type` holds 12 bits of type and 4 reserved bits.
struct virtio_iommu_probe_property {
    le16 type;
    le16 length;
};

/// 5.13.6.8.1
struct virtio_iommu_probe_resv_mem {
    virtio_iommu_probe_property head;
    uint8_t subtype;
    uint8_t reserved[3];
    le64 start;
    le64 end;
};

/// 5.13.6.9
struct virtio_iommu_fault {
    uint8_t reason;
    uint8_t reserved[3];
    le32 flags;
    le32 endpoint;
    le32 reserved1;
    le64 address;
};

static_assert(sizeof(virtio_iommu_range_64) == 16);
static_assert(sizeof(virtio_iommu_range_32) == 8);
static_assert(sizeof(virtio_iommu_config) == 40);
static_assert(offsetof(virtio_iommu_config, page_size_mask) == 0);
static_assert(offsetof(virtio_iommu_config, input_range) == 8);
static_assert(offsetof(virtio_iommu_config, domain_range) == 24);
static_assert(offsetof(virtio_iommu_config, probe_size) == 32);
static_assert(offsetof(virtio_iommu_config, bypass) == 36);
static_assert(offsetof(virtio_iommu_config, reserved) == 37);

static_assert(sizeof(virtio_iommu_req_head) == 4);
static_assert(offsetof(virtio_iommu_req_head, type) == 0);
static_assert(sizeof(virtio_iommu_req_tail) == 4);
static_assert(offsetof(virtio_iommu_req_tail, status) == 0);

static_assert(sizeof(virtio_iommu_req_attach) == 24);
static_assert(offsetof(virtio_iommu_req_attach, domain) == 4);
static_assert(offsetof(virtio_iommu_req_attach, endpoint) == 8);
static_assert(offsetof(virtio_iommu_req_attach, flags) == 12);
static_assert(offsetof(virtio_iommu_req_attach, reserved) == 16);
static_assert(offsetof(virtio_iommu_req_attach, tail) == 20);

static_assert(sizeof(virtio_iommu_req_detach) == 24);
static_assert(offsetof(virtio_iommu_req_detach, domain) == 4);
static_assert(offsetof(virtio_iommu_req_detach, endpoint) == 8);
static_assert(offsetof(virtio_iommu_req_detach, reserved) == 12);
static_assert(offsetof(virtio_iommu_req_detach, tail) == 20);

static_assert(sizeof(virtio_iommu_req_map) == 40);
static_assert(offsetof(virtio_iommu_req_map, domain) == 4);
static_assert(offsetof(virtio_iommu_req_map, virt_start) == 8);
static_assert(offsetof(virtio_iommu_req_map, virt_end) == 16);
static_assert(offsetof(virtio_iommu_req_map, phys_start) == 24);
static_assert(offsetof(virtio_iommu_req_map, flags) == 32);
static_assert(offsetof(virtio_iommu_req_map, tail) == 36);

static_assert(sizeof(virtio_iommu_req_unmap) == 32);
static_assert(offsetof(virtio_iommu_req_unmap, domain) == 4);
static_assert(offsetof(virtio_iommu_req_unmap, virt_start) == 8);
static_assert(offsetof(virtio_iommu_req_unmap, virt_end) == 16);
static_assert(offsetof(virtio_iommu_req_unmap, reserved) == 24);
static_assert(offsetof(virtio_iommu_req_unmap, tail) == 28);

static_assert(sizeof(virtio_iommu_req_probe) == 72);
static_assert(offsetof(virtio_iommu_req_probe, endpoint) == 4);
static_assert(offsetof(virtio_iommu_req_probe, reserved) == 8);

static_assert(sizeof(virtio_iommu_probe_property) == 4);
static_assert(offsetof(virtio_iommu_probe_property, length) == 2);

static_assert(sizeof(virtio_iommu_probe_resv_mem) == 24);
static_assert(offsetof(virtio_iommu_probe_resv_mem, subtype) == 4);
static_assert(offsetof(virtio_iommu_probe_resv_mem, start) == 8);
static_assert(offsetof(virtio_iommu_probe_resv_mem, end) == 16);

static_assert(sizeof(virtio_iommu_fault) == 24);
static_assert(offsetof(virtio_iommu_fault, flags) == 4);
static_assert(offsetof(virtio_iommu_fault, endpoint) == 8);
static_assert(offsetof(virtio_iommu_fault, reserved1) == 12);
static_assert(offsetof(virtio_iommu_fault, address) == 16);

}  // namespace viommu::wire
