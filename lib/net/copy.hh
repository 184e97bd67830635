// SPDX-License-Identifier: BSD-3-Clause
/// Private to lib/net: copies of frames.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace viommu::net {

namespace detail {

struct Block16 {
    std::byte bytes[16];
};

/// One vector load and one store.
[[gnu::always_inline]] inline void copy16(std::byte* to, const std::byte* from) noexcept {
    Block16 block;
    __builtin_memcpy(&block, from, sizeof block);
    __builtin_memcpy(to, &block, sizeof block);
}

}  // namespace detail

/// memcpy() of a frame.
///
/// Small ones in place, by blocks of 16 bytes of which the last may overlap the one before: a call
/// would cost as much as the copy. Larger ones by the C library, which chooses AVX2 or AVX-512 when
/// the program starts; but never more at a time than it copies by vectors. From 2 or 4 KiB on it
/// takes `rep movsb`, which is ten times as slow to an address that is 12 bytes, a virtio-net
/// header, beyond a round one. Figures: doc/packet-path.md.
[[gnu::always_inline]] inline void copy_frame(std::byte* to, const std::byte* from,
                                              size_t bytes) noexcept {
    constexpr size_t kInline = 256, kAtOnce = 1536;
    if (bytes > kInline) {
        do {
            size_t now = std::min(bytes, kAtOnce);
            asm("" : "+r"(now));  // else the compiler makes `rep movsq` of what is constant
            std::memcpy(to, from, now);
            to += now;
            from += now;
            bytes -= now;
        } while (bytes != 0);
        return;
    }
    if (bytes < 16) [[unlikely]] {
        std::memcpy(to, from, bytes);
        return;
    }
    for (size_t at = 0; at + 16 < bytes; at += 16) detail::copy16(to + at, from + at);
    detail::copy16(to + bytes - 16, from + bytes - 16);
}

/// What was copied from guest memory is looked at from here on: the compiler may not look at guest
/// memory again for it.
inline void copied() noexcept { asm volatile("" : : : "memory"); }

}  // namespace viommu::net
