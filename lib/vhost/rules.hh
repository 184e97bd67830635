// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <optional>

#include "viommu_wire.hh"

namespace viommu::vhost {

enum class Owner : uint8_t { kSession, kLibrary };
enum class Names : uint8_t {
    kNoQueue,
    kQueueInState,  ///< vhost_user_vring_state, vhost_user_vring_addr
    kQueueInU64,    ///< bits 0-7
};
enum class FdRule : uint8_t { kNone, kOne, kOneSocket, kOneUnlessNoFd, kPerRegion, kAny };

/// Every request that we serve or let the library serve, and what it must look like. Others belong
/// to features that are not offered; the library has handlers for some of them that nobody should
/// reach.
struct Rule {
    wire::vhost_user_request request;
    Owner owner;
    uint32_t payload_bytes = 0;  ///< at least
    Names names = Names::kNoQueue;
    FdRule fds = FdRule::kNone;
    std::optional<unsigned> feature{};  ///< must have been offered
};

constexpr Rule kRules[] = {
    {wire::VHOST_USER_GET_FEATURES, Owner::kLibrary},
    {wire::VHOST_USER_SET_OWNER, Owner::kSession},
    {wire::VHOST_USER_GET_PROTOCOL_FEATURES, Owner::kLibrary},
    {wire::VHOST_USER_SET_PROTOCOL_FEATURES, Owner::kLibrary, 8},
    {wire::VHOST_USER_SET_BACKEND_REQ_FD, Owner::kSession, 0, Names::kNoQueue, FdRule::kOneSocket},
    {wire::VHOST_USER_SET_FEATURES, Owner::kSession, 8},
    {wire::VHOST_USER_RESET_OWNER, Owner::kSession},
    {wire::VHOST_USER_SET_MEM_TABLE, Owner::kSession, 8, Names::kNoQueue, FdRule::kPerRegion},
    {wire::VHOST_USER_GET_MAX_MEM_SLOTS, Owner::kSession},
    {wire::VHOST_USER_ADD_MEM_REG, Owner::kSession, 40, Names::kNoQueue, FdRule::kOne},
    // "The memory region to be removed ... file descriptors are ignored": some frontends send one.
    {wire::VHOST_USER_REM_MEM_REG, Owner::kSession, 40, Names::kNoQueue, FdRule::kAny},
    {wire::VHOST_USER_SET_LOG_BASE, Owner::kSession, 16, Names::kNoQueue, FdRule::kOne,
     wire::VHOST_F_LOG_ALL},
    {wire::VHOST_USER_SET_LOG_FD, Owner::kSession, 0, Names::kNoQueue, FdRule::kOne,
     wire::VHOST_F_LOG_ALL},
    {wire::VHOST_USER_SET_VRING_NUM, Owner::kSession, 8, Names::kQueueInState},
    {wire::VHOST_USER_SET_VRING_ADDR, Owner::kSession, 40, Names::kQueueInState},
    {wire::VHOST_USER_SET_VRING_BASE, Owner::kSession, 8, Names::kQueueInState},
    {wire::VHOST_USER_GET_VRING_BASE, Owner::kSession, 8, Names::kQueueInState},
    {wire::VHOST_USER_SET_VRING_KICK, Owner::kSession, 8, Names::kQueueInU64,
     FdRule::kOneUnlessNoFd},
    {wire::VHOST_USER_SET_VRING_CALL, Owner::kSession, 8, Names::kQueueInU64,
     FdRule::kOneUnlessNoFd},
    {wire::VHOST_USER_SET_VRING_ERR, Owner::kSession, 8, Names::kQueueInU64,
     FdRule::kOneUnlessNoFd},
    {wire::VHOST_USER_SET_VRING_ENABLE, Owner::kSession, 8, Names::kQueueInState},
    {wire::VHOST_USER_GET_QUEUE_NUM, Owner::kSession},
    {wire::VHOST_USER_GET_CONFIG, Owner::kSession, sizeof(wire::vhost_user_config_header),
     Names::kNoQueue, FdRule::kAny},
    {wire::VHOST_USER_SET_CONFIG, Owner::kSession, sizeof(wire::vhost_user_config_header),
     Names::kNoQueue, FdRule::kAny},
};

inline const Rule* rule_for(uint32_t request) {
    const auto found = std::ranges::find(kRules, request, &Rule::request);
    return found == std::end(kRules) ? nullptr : found;
}

}  // namespace viommu::vhost
