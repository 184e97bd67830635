// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <type_traits>

namespace viommu::wire {

/// What a guest that reads `out.size()` bytes at `offset` of its configuration space gets, when
/// that space is `config`: bytes past its end are zero. Any offset, any size, 0 included.
template <class Config>
void read_config_window(const Config& config, uint32_t offset, std::span<std::byte> out) noexcept {
    static_assert(std::is_trivially_copyable_v<Config>);
    const std::size_t n =
        offset < sizeof config ? std::min(out.size(), sizeof config - offset) : 0;
    if (n != 0) std::memcpy(out.data(), reinterpret_cast<const std::byte*>(&config) + offset, n);
    std::fill(out.begin() + std::ptrdiff_t(n), out.end(), std::byte{0});
}

/// The byte at `field` of the configuration space, if a write of `in` at `offset` touches it.
inline std::optional<uint8_t> written_config_byte(uint32_t field, uint32_t offset,
                                                  std::span<const std::byte> in) noexcept {
    if (offset > field || field - offset >= in.size()) return std::nullopt;
    return uint8_t(in[field - offset]);
}

}  // namespace viommu::wire
