// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdint>

#include "chain.hh"

namespace viommu::virtq {

/// A chain of one direct descriptor, which is what nearly all chains of a packet path are: a copy
/// that was read once and checked.
struct Plain {
    uint64_t addr;
    uint32_t len;      ///< within the limits that were asked for; addr + len - 1 does not wrap
    uint16_t id;       ///< as Taken::id
    uint16_t unused;   ///< len, id and this are one word, as in a packed ring
    uint32_t written;  ///< for push_plain(): bytes written into it

    Taken taken() const noexcept { return {.id = id, .slots = 1}; }
};

/// What a chain must be to be taken as a plain one; any other is left for pop().
struct PlainLimits {
    bool writable;  ///< its one buffer is written by the device, or read
    uint32_t min_bytes;  ///< > 0
    uint32_t max_bytes;

    bool hold(uint64_t addr, uint32_t len) const noexcept {
        return len >= min_bytes && len <= max_bytes && addr + (len - 1) >= addr;
    }
};

}  // namespace viommu::virtq
