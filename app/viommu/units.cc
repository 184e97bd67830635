// SPDX-License-Identifier: BSD-3-Clause
#include "units.hh"

#include <bit>
#include <charconv>

#include "join.hh"

namespace viommu::app {

std::optional<uint64_t> parse_number(std::string_view text) {
    int base = 10;
    if (text.starts_with("0x") || text.starts_with("0X")) {
        base = 16;
        text.remove_prefix(2);
    }
    uint64_t value = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value, base);
    if (text.empty() || error != std::errc{} || stop != end) return std::nullopt;
    return value;
}

std::optional<uint64_t> parse_size(std::string_view text) {
    constexpr std::string_view kUnits = "KMGT";
    unsigned shift = 0;
    if (!text.empty()) {
        const size_t unit = kUnits.find(text.back());
        if (unit != kUnits.npos) {
            shift = unsigned(unit + 1) * 10;
            text.remove_suffix(1);
        }
    }
    const auto number = parse_number(text);
    if (!number || (*number << shift) >> shift != *number) return std::nullopt;
    return *number << shift;
}

std::string format_size(uint64_t bytes) {
    constexpr std::string_view kUnits = "KMGT";
    size_t unit = 0;
    while (unit < kUnits.size() && bytes != 0 && bytes % 1024 == 0) {
        bytes /= 1024;
        unit++;
    }
    return unit == 0 ? fmt::format("{}", bytes) : fmt::format("{}{}", bytes, kUnits[unit - 1]);
}

std::optional<MacAddress> parse_mac(std::string_view text) {
    MacAddress mac;
    if (text.size() != 17) return std::nullopt;
    for (size_t i = 0; i < mac.size(); i++) {
        const char* digits = text.data() + 3 * i;
        const auto [stop, error] = std::from_chars(digits, digits + 2, mac[i], 16);
        if (error != std::errc{} || stop != digits + 2) return std::nullopt;
        if (i + 1 < mac.size() && digits[2] != ':') return std::nullopt;
    }
    return mac;
}

std::string format_mac(const MacAddress& mac) {
    return join(mac, ":", [](uint8_t byte) { return fmt::format("{:02x}", byte); });
}

MacAddress derive_mac(std::string_view name) {
    uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
    for (char c : name) hash = (hash ^ uint8_t(c)) * 0x100000001b3;
    MacAddress mac;
    for (size_t i = 0; i < mac.size(); i++) mac[i] = uint8_t(hash >> (8 * i));
    mac[0] = uint8_t((mac[0] & ~0x01) | 0x02);
    return mac;
}

std::string format_page_sizes(uint64_t mask) {
    if (mask == 0) return "none";
    const uint64_t smallest = mask & -mask;
    if (mask == -smallest)
        return fmt::format("{} and every larger power of two", format_size(smallest));
    std::vector<std::string> sizes;
    for (uint64_t rest = mask; rest != 0; rest &= rest - 1)
        sizes.push_back(format_size(rest & -rest));
    return join(sizes, " ");
}

}  // namespace viommu::app
