// SPDX-License-Identifier: BSD-3-Clause
/// vhost-user messages (QEMU's docs/interop/vhost-user.rst; rust-vmm's crate `vhost`, message.rs).
#pragma once

#include <cstddef>
#include <cstdint>

#include "viommu_base.hh"

namespace viommu::wire {

/// Front-end requests. Values and spelling are the protocol's.
enum vhost_user_request : uint32_t {
    VHOST_USER_GET_FEATURES = 1,
    VHOST_USER_SET_FEATURES = 2,
    VHOST_USER_SET_OWNER = 3,
    VHOST_USER_RESET_OWNER = 4,
    VHOST_USER_SET_MEM_TABLE = 5,
    VHOST_USER_SET_LOG_BASE = 6,
    VHOST_USER_SET_LOG_FD = 7,
    VHOST_USER_SET_VRING_NUM = 8,
    VHOST_USER_SET_VRING_ADDR = 9,
    VHOST_USER_SET_VRING_BASE = 10,
    VHOST_USER_GET_VRING_BASE = 11,
    VHOST_USER_SET_VRING_KICK = 12,
    VHOST_USER_SET_VRING_CALL = 13,
    VHOST_USER_SET_VRING_ERR = 14,
    VHOST_USER_GET_PROTOCOL_FEATURES = 15,
    VHOST_USER_SET_PROTOCOL_FEATURES = 16,
    VHOST_USER_GET_QUEUE_NUM = 17,
    VHOST_USER_SET_VRING_ENABLE = 18,
    VHOST_USER_SET_BACKEND_REQ_FD = 21,
    VHOST_USER_GET_CONFIG = 24,
    VHOST_USER_SET_CONFIG = 25,
    VHOST_USER_GET_MAX_MEM_SLOTS = 36,
    VHOST_USER_ADD_MEM_REG = 37,
    VHOST_USER_REM_MEM_REG = 38,
};

/// Back-end requests: what we send on the channel of SET_BACKEND_REQ_FD.
enum vhost_user_backend_request : uint32_t {
    VHOST_USER_BACKEND_CONFIG_CHANGE_MSG = 2,
};

inline constexpr uint32_t kVhostUserVersion = 1;
inline constexpr uint32_t kVhostUserReply = 1u << 2;
inline constexpr uint32_t kVhostUserNeedReply = 1u << 3;

/// Transport bits that travel with the device's feature bits.
inline constexpr unsigned VHOST_F_LOG_ALL = 26;
inline constexpr unsigned VHOST_USER_F_PROTOCOL_FEATURES = 30;

inline constexpr unsigned VHOST_USER_PROTOCOL_F_MQ = 0;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_LOG_SHMFD = 1;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_REPLY_ACK = 3;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_BACKEND_REQ = 5;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_CONFIG = 9;
inline constexpr unsigned VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15;

/// What one bit of a dirty log stands for.
inline constexpr uint64_t kVhostLogPageBytes = 4096;

/// In SET_VRING_KICK and SET_VRING_CALL: no file descriptor comes with the message.
inline constexpr uint64_t kVhostUserVringNoFd = 1u << 8;

struct vhost_user_header {
    le32 request;
    le32 flags;
    le32 size;
};

struct vhost_user_vring_state {
    le32 index;
    le32 num;
};

/// In vhost_user_vring_addr::flags: `log` is the address under which writes into the used ring are
/// logged. (VHOST_VRING_F_LOG is a macro of rte_vhost.h, and a bit number.)
inline constexpr uint32_t kVhostUserVringLog = 1u << 0;

struct vhost_user_vring_addr {
    le32 index;
    le32 flags;
    le64 desc;
    le64 used;
    le64 avail;
    le64 log;
};

struct vhost_user_mem_region {
    le64 guest_phys_addr;
    le64 memory_size;
    le64 userspace_addr;
    le64 mmap_offset;
};

/// Followed by `num_regions` vhost_user_mem_region.
struct vhost_user_mem_header {
    le32 num_regions;
    le32 padding;
};

/// ADD_MEM_REG, REM_MEM_REG.
struct vhost_user_mem_reg {
    le64 padding;
    vhost_user_mem_region region;
};

/// SET_LOG_BASE and its reply, when LOG_SHMFD is negotiated.
struct vhost_user_log {
    le64 mmap_size;
    le64 mmap_offset;
};

/// GET_CONFIG, SET_CONFIG; followed by `size` bytes.
struct vhost_user_config_header {
    le32 offset;
    le32 size;
    le32 flags;
};

static_assert(sizeof(vhost_user_header) == 12);
static_assert(sizeof(vhost_user_vring_state) == 8);
static_assert(sizeof(vhost_user_vring_addr) == 40);
static_assert(offsetof(vhost_user_vring_addr, used) == 16);
static_assert(offsetof(vhost_user_vring_addr, avail) == 24);
static_assert(sizeof(vhost_user_mem_region) == 32);
static_assert(sizeof(vhost_user_mem_header) == 8);
static_assert(sizeof(vhost_user_mem_reg) == 40);
static_assert(sizeof(vhost_user_log) == 16);
static_assert(sizeof(vhost_user_config_header) == 12);

}  // namespace viommu::wire
