// SPDX-License-Identifier: BSD-3-Clause
/// What goes over the socket of reader processes. One packet is one message; both ends are programs
/// of the same machine, so numbers are in its byte order.
///
///   server -> client   Hello, once, with two descriptors: the arena, the client's page
///   client -> server   FaultMessage, any number
#pragma once

#include <cstdint>

namespace viommu::share {

inline constexpr uint64_t kHelloMagic = 0x6572616873697664;  // "dvishare"
inline constexpr uint32_t kVersion = 1;

struct Hello {
    uint64_t magic = kHelloMagic;    ///< here in every version
    uint32_t version = kVersion;     ///< here in every version
    uint32_t refused = 0;            ///< 1: no descriptors; `text` says why
    uint32_t faults_per_second = 0;  ///< more from one process would be lost: do not send them
    uint32_t reserved = 0;
    char text[232] = {};  ///< ends with 0; the guest's name when not refused
};
static_assert(sizeof(Hello) == 256);

struct FaultMessage {
    static constexpr uint32_t kType = 1;

    uint32_t type = kType;
    uint32_t endpoint = 0;
    uint64_t address = 0;
    uint8_t reason = 0;  ///< xlate::FaultReason
    uint8_t access = 0;  ///< viommu::Access; at least one of READ and WRITE
    uint16_t reserved[3] = {};
    uint64_t lost = 0;  ///< faults that this process could not report, since it connected
};
static_assert(sizeof(FaultMessage) == 32);

}  // namespace viommu::share
