// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

namespace viommu {

/// What a request is answered with. Values are VIRTIO_IOMMU_S_* (virtio 1.3, 5.13.6).
enum class Status : uint8_t {
    kOk = 0,      ///< done
    kIoErr = 1,   ///< virtio communication error
    kUnsupp = 2,  ///< unsupported request
    kDevErr = 3,  ///< internal device error
    kInval = 4,   ///< invalid parameters
    kRange = 5,   ///< parameters out of range
    kNoEnt = 6,   ///< no such domain or endpoint
    kFault = 7,   ///< bad address
    kNoMem = 8,   ///< a quota or the arena is exhausted
};

constexpr const char* to_string(Status s) {
    constexpr const char* kNames[] = {"OK",    "IOERR", "UNSUPP", "DEVERR", "INVAL",
                                      "RANGE", "NOENT", "FAULT",  "NOMEM"};
    return uint8_t(s) < sizeof(kNames) / sizeof(kNames[0]) ? kNames[uint8_t(s)] : "?";
}

}  // namespace viommu
