// SPDX-License-Identifier: BSD-3-Clause
/// Texts that operators write and read: sizes, numbers, MAC addresses.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "config.hh"

namespace viommu::app {

/// "4096", "0x1000": decimal or hexadecimal, up to 2^64-1; nothing when it is neither.
std::optional<uint64_t> parse_number(std::string_view text);
/// A number that may end in K, M, G or T (1024 each): "4K", "64M".
std::optional<uint64_t> parse_size(std::string_view text);
/// The shortest exact form: 4096 -> "4K", 4097 -> "4097".
std::string format_size(uint64_t bytes);

/// "52:54:00:12:34:56"
std::optional<MacAddress> parse_mac(std::string_view text);
std::string format_mac(const MacAddress& mac);
/// A locally administered unicast address that is always the same for the same name.
MacAddress derive_mac(std::string_view name);

/// The page sizes of a mask, "4K 2M 1G"; "4K and every larger power of two" when it has them all.
std::string format_page_sizes(uint64_t mask);

}  // namespace viommu::app
