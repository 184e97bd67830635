// SPDX-License-Identifier: BSD-3-Clause
/// Private to PackedQueue: plain chains at four places of a packed ring that follow one another, a
/// cache line where the ring begins with one, handled as one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "plain.hh"
#include "queue_base.hh"

namespace viommu::virtq {

struct PackedLine {
    static constexpr uint32_t kEntries = 4, kBytes = 16 * kEntries;
    /// Of a descriptor's second word: what must be as wanted in that of a plain chain.
    static constexpr uint64_t kPlainMask =
        uint64_t{wire::VIRTQ_DESC_F_AVAIL | wire::VIRTQ_DESC_F_USED | wire::VIRTQ_DESC_F_NEXT |
                 wire::VIRTQ_DESC_F_WRITE | wire::VIRTQ_DESC_F_INDIRECT}
        << 48;

    /// A chain of a descriptor's words as they were read. Two stores: as three members, compilers
    /// take the second apart and put it together again.
    [[gnu::always_inline]] static void set(Plain& chain, uint64_t addr, uint64_t tail) noexcept {
        static_assert(offsetof(Plain, len) == 8 && offsetof(Plain, id) == 12);
        const uint64_t words[] = {addr, tail};
        std::memcpy(static_cast<void*>(&chain), words, sizeof words);
        chain.written = 0;
    }
    /// The second word of a used descriptor. `flags`: AVAIL and USED, in their place.
    [[gnu::always_inline]] static uint64_t used(uint64_t flags, const Plain& chain) noexcept {
        constexpr auto kWrite = uint64_t{wire::VIRTQ_DESC_F_WRITE} << 48;
        flags |= chain.written != 0 ? kWrite : 0;  // 2.8.3: whether anything was written
        return chain.written | uint64_t{chain.id} << 32 | flags;
    }

    /// All four, or none: then they are to be looked at one by one. Each is read once. `out` may
    /// have been written either way.
    [[gnu::always_inline]] static bool pop(const std::byte* line, uint64_t wanted,
                                           const PlainLimits& limits, Plain* out) noexcept {
        const uint64_t a = tail(line, 0), b = tail(line, 1), c = tail(line, 2), d = tail(line, 3);
        if ((((a ^ wanted) | (b ^ wanted) | (c ^ wanted) | (d ^ wanted)) & kPlainMask) != 0)
            return false;
        const uint64_t at[] = {addr(line, 0), addr(line, 1), addr(line, 2), addr(line, 3)};
        set(out[0], at[0], a);
        set(out[1], at[1], b);
        set(out[2], at[2], c);
        set(out[3], at[3], d);
        return int64_t(hold(at[0], a, limits) & hold(at[1], b, limits) & hold(at[2], c, limits) &
                       hold(at[3], d, limits)) < 0;
    }
    /// The four used descriptors.
    [[gnu::always_inline]] static void push(std::byte* line, uint64_t flags,
                                            const Plain* chains) noexcept {
        const uint64_t a = used(flags, chains[0]), b = used(flags, chains[1]);
        const uint64_t c = used(flags, chains[2]), d = used(flags, chains[3]);
        QueueBase::put(line + 8, a);
        QueueBase::put(line + 24, b);
        QueueBase::put(line + 40, c);
        QueueBase::put(line + 56, d);
    }

  private:
    /// The top bit is set when the limits hold, of addresses below 2^63.
    static uint64_t hold(uint64_t addr, uint64_t tail, const PlainLimits& limits) noexcept {
        const uint64_t len = uint32_t(tail);
        return ~((len - limits.min_bytes) | (limits.max_bytes - len) | addr);
    }
    static uint64_t addr(const std::byte* line, uint32_t i) noexcept {
        return QueueBase::load<uint64_t>(line + 16 * i);
    }
    // P1: flags before the rest of the descriptor
    static uint64_t tail(const std::byte* line, uint32_t i) noexcept {
        return QueueBase::load<uint64_t, __ATOMIC_ACQUIRE>(line + 16 * i + 8);
    }
};

}  // namespace viommu::virtq
