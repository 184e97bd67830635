// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <fmt/format.h>

#include <compare>
#include <cstdint>
#include <optional>

namespace viommu {

/// A 64-bit address in one address space. Different spaces do not mix: an Iova cannot be passed
/// where a Gpa is meant. Arithmetic wraps like uint64_t; check ranges with Range before using it
/// on guest numbers.
template <class Tag>
struct Address {
    uint64_t value = 0;

    constexpr auto operator<=>(const Address&) const = default;
    constexpr Address operator+(uint64_t bytes) const { return {value + bytes}; }
    constexpr Address operator-(uint64_t bytes) const { return {value - bytes}; }
    /// Distance in bytes, modulo 2^64.
    constexpr uint64_t operator-(Address other) const { return value - other.value; }
};

/// What an endpoint's descriptors hold when it is behind the IOMMU.
using Iova = Address<struct IovaTag>;
/// Guest-physical address.
using Gpa = Address<struct GpaTag>;
/// The VMM's own virtual address, as vhost-user messages carry it.
using Uva = Address<struct UvaTag>;

/// An inclusive range [first, last]: the only form in which 2^64-1 can be the end.
/// Invariant: first <= last.
template <class A>
struct Range {
    A first;
    A last;

    constexpr bool operator==(const Range&) const = default;

    /// [first, first + bytes - 1], or nothing when bytes is 0 or the end passes 2^64-1.
    static constexpr std::optional<Range> from_length(A first, uint64_t bytes) {
        if (bytes == 0 || first.value + (bytes - 1) < first.value) return std::nullopt;
        return Range{first, first + (bytes - 1)};
    }
    /// [first, last], or nothing when last < first.
    static constexpr std::optional<Range> from_bounds(A first, A last) {
        if (last < first) return std::nullopt;
        return Range{first, last};
    }

    constexpr bool contains(A a) const { return first <= a && a <= last; }
    constexpr bool contains(const Range& r) const { return first <= r.first && r.last <= last; }
    constexpr bool overlaps(const Range& r) const { return first <= r.last && r.first <= last; }
    /// Number of bytes minus one: the whole 64-bit space has no 64-bit length.
    constexpr uint64_t extent() const { return last - first; }
};

using IovaRange = Range<Iova>;
using GpaRange = Range<Gpa>;

/// A device behind the IOMMU: PCI segment << 16 | bus << 8 | device << 3 | function.
using EndpointId = uint32_t;
/// An address space of mappings, named by the driver.
using DomainId = uint32_t;

/// What an access does, and what a mapping allows. Bit values are VIRTIO_IOMMU_MAP_F_*.
enum class Access : uint8_t {
    kNone = 0,
    kRead = 1,
    kWrite = 2,
    kReadWrite = 3,
    kMmio = 4,
};
constexpr Access operator|(Access a, Access b) {
    return Access(uint8_t(a) | uint8_t(b));
}
constexpr Access operator&(Access a, Access b) {
    return Access(uint8_t(a) & uint8_t(b));
}
/// Every right in `needed` is in `granted`.
constexpr bool allows(Access granted, Access needed) {
    return (granted & needed) == needed;
}

}  // namespace viommu

namespace viommu::detail {
// Compiled once: whoever inlines fmt::format_to() compiles all of fmt's formatting with it.
fmt::appender write_hex(fmt::appender out, uint64_t value);
fmt::appender write_hex_range(fmt::appender out, uint64_t first, uint64_t last);
}  // namespace viommu::detail

template <class Tag>
struct fmt::formatter<viommu::Address<Tag>> {
    constexpr auto parse(format_parse_context& ctx) { return ctx.begin(); }
    auto format(viommu::Address<Tag> a, format_context& ctx) const {
        return viommu::detail::write_hex(ctx.out(), a.value);
    }
};

template <class A>
struct fmt::formatter<viommu::Range<A>> {
    constexpr auto parse(format_parse_context& ctx) { return ctx.begin(); }
    auto format(const viommu::Range<A>& r, format_context& ctx) const {
        return viommu::detail::write_hex_range(ctx.out(), r.first.value, r.last.value);
    }
};
