// SPDX-License-Identifier: BSD-3-Clause
/// Receive-side scaling as its specification words it, bit by bit.
#pragma once

#include "packets.hh"

namespace viommu::e2e {

/// The key of the specification's own examples.
inline std::vector<std::byte> toeplitz_key() {
    constexpr unsigned char kKey[] = {
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
        0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
        0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};
    const auto bytes = std::as_bytes(std::span(kKey));
    return {bytes.begin(), bytes.end()};
}

/// For each bit of `input` that is set, the 32 bits of `key` that begin where it stands.
inline uint32_t toeplitz(std::span<const std::byte> key, std::span<const std::byte> input) {
    const auto bit_at = [](std::span<const std::byte> bytes, size_t n) {
        return uint32_t(bytes[n / 8] >> (7 - n % 8)) & 1;
    };
    uint32_t hash = 0;
    for (size_t i = 0; i < input.size() * 8; ++i)
        for (size_t k = 0; bit_at(input, i) != 0 && k < 32; ++k)
            hash ^= bit_at(key, i + k) << (31 - k);
    return hash;
}

/// Of a flow: addresses, and ports if they count.
inline std::vector<std::byte> hashed(const guest::Flow& flow, bool ports) {
    const auto frame = make_frame(flow, 0, {});
    const uint32_t addresses = flow.ipv6 ? 32 : 8, at = flow.l4_at() - addresses;
    return {frame.begin() + at, frame.begin() + at + addresses + (ports ? 4 : 0)};
}

/// The examples: of IPv4 with and without TCP.
inline bool toeplitz_is_right() {
    const guest::Flow flow{.source = 0x420995bb,
                           .target = 0xa18e6450,
                           .source_port = 2794,
                           .target_port = 1766};
    const auto key = toeplitz_key();
    return toeplitz(key, hashed(flow, false)) == 0x323e8fc2 &&
           toeplitz(key, hashed(flow, true)) == 0x51ccc178;
}

}  // namespace viommu::e2e
