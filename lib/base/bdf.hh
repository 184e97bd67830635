// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <charconv>
#include <optional>
#include <string>
#include <string_view>

#include "address.hh"
#include "result.hh"

namespace viommu {

namespace detail {

/// Up to `max_digits` hexadecimal digits and nothing else.
inline std::optional<uint32_t> hex_field(std::string_view digits, size_t max_digits) {
    uint32_t value = 0;
    if (digits.empty() || digits.size() > max_digits) return std::nullopt;
    const char* end = digits.data() + digits.size();
    auto [stop, error] = std::from_chars(digits.data(), end, value, 16);
    if (error != std::errc{} || stop != end) return std::nullopt;
    return value;
}

}  // namespace detail

/// The endpoint ID of a PCI function written as lspci and Linux do:
/// "[segment:]bus:device.function", all hexadecimal; segment 0 when it is left out.
///
/// Source: Linux's and this project's VIOT: ID = segment << 16 | bus << 8 | device << 3 | function
/// Errors: says what was wrong with `text` and shows the form
inline Result<EndpointId> parse_bdf(std::string_view text) {
    const auto malformed = [&](std::string_view why) {
        return fail(
            "'{}' is not a PCI address: {}; write [segment:]bus:device.function in "
            "hexadecimal, e.g. 0000:00:04.0",
            text, why);
    };
    std::string_view rest = text, segment_text = "0";
    const size_t dot = rest.rfind('.');
    if (dot == rest.npos) return malformed("there is no '.function'");
    const auto function = detail::hex_field(rest.substr(dot + 1), 1);
    rest = rest.substr(0, dot);
    const size_t colon = rest.rfind(':');
    if (colon == rest.npos) return malformed("there is no 'bus:'");
    const auto device = detail::hex_field(rest.substr(colon + 1), 2);
    rest = rest.substr(0, colon);
    if (const size_t second = rest.rfind(':'); second != rest.npos) {
        segment_text = rest.substr(0, second);
        rest = rest.substr(second + 1);
    }
    const auto bus = detail::hex_field(rest, 2);
    const auto segment = detail::hex_field(segment_text, 4);
    if (!segment) return malformed("the segment is not 1 to 4 hexadecimal digits");
    if (!bus) return malformed("the bus is not 1 or 2 hexadecimal digits");
    if (!device || *device > 0x1f) return malformed("the device is not 00 to 1f");
    if (!function || *function > 7) return malformed("the function is not 0 to 7");
    return *segment << 16 | *bus << 8 | *device << 3 | *function;
}

/// "0000:00:04.0": the inverse of parse_bdf().
inline std::string format_bdf(EndpointId id) {
    return fmt::format("{:04x}:{:02x}:{:02x}.{:x}", id >> 16, (id >> 8) & 0xff, (id >> 3) & 0x1f,
                       id & 7);
}

}  // namespace viommu
