// SPDX-License-Identifier: BSD-3-Clause
#include "config_regions.hh"

#include <algorithm>

#include "units.hh"

namespace viommu::app {
namespace {

using Region = device::ReservedRegion;

constexpr IovaRange kMsiDoorbell{{0xfee00000}, {0xfeefffff}};  // x86: where MSIs are written to
constexpr uint64_t kMaxAddress = ~uint64_t{0};

std::optional<Region> read_region(const Section& owner, const Section& s, uint64_t granule) {
    s.check_keys({"first", "last", "type"});
    Region region;
    const auto type = s.string("type", "\"reserved\"").value_or("reserved");
    if (type == "msi")
        region.type = Region::Type::kMsi;
    else if (type != "reserved")
        s.problem("type", "is no type of region; write type = \"reserved\" or type = \"msi\"");
    const auto range = read_address_range(owner, s, "reserved", granule);
    if (!range) return std::nullopt;
    region.range = *range;
    return region;
}

/// What is wrong with `region` beside `others`, which the same endpoint has.
/// `default_msi`: the first of them is what the key `msi` adds.
void check_region(const Section& s, const Region& region, const std::vector<Region>& others,
                  const device::Config& device, bool default_msi) {
    for (const Region& other : others) {
        if (!region.range.overlaps(other.range)) continue;
        const bool is_default = default_msi && &other == &others.front();
        s.problem("reserved", fmt::format("{} overlaps {}{}; make them disjoint{}", region.range,
                                          other.range,
                                          is_default ? ", the MSI region that 'msi' adds" : "",
                                          is_default ? ", or write msi = false" : ""));
    }
    const auto same_type = [&](const Region& r) { return r.type == region.type; };
    if (region.type == Region::Type::kMsi && std::any_of(others.begin(), others.end(), same_type))
        s.problem("reserved",
                  fmt::format("{} is a second region of type msi{}; a guest can have one",
                              region.range,
                              default_msi ? " (write msi = false to drop the first)" : ""));
    if (region.type == Region::Type::kReserved && !region.range.overlaps(device.input_range))
        s.problem("reserved", fmt::format("{} is outside input_range {}, where nothing can be "
                                          "mapped anyway; leave it out",
                                          region.range, device.input_range));
    if (region.range.contains(device.input_range))
        s.problem("reserved", fmt::format("{} covers all of input_range {}, so that nothing "
                                          "could be mapped; make it smaller",
                                          region.range, device.input_range));
}

/// Those of the key `reserved`, checked against `all` and each other; they are added to it.
std::vector<Region> read_regions(const Section& s, std::vector<Region>& all,
                                 const device::Config& device, uint64_t granule,
                                 bool default_msi) {
    std::vector<Region> read;
    const auto tables =
        s.tables("reserved",
                 "reserved = [ { first = 0xc0000000, last = 0xfebfffff, type = \"reserved\" } ]");
    for (const Section& r : tables) {
        const auto region = read_region(s, r, granule);
        if (!region) continue;
        check_region(s, *region, all, device, default_msi);
        all.push_back(*region);
        read.push_back(*region);
    }
    return read;
}

bool starts_with_default_msi(const device::Config& device) {
    return !device.reserved.empty() && device.reserved.front().range == kMsiDoorbell &&
           device.reserved.front().type == Region::Type::kMsi;
}

}  // namespace

/// A table { first = , last = } of addresses. The message of a problem stands at the table's key.
std::optional<IovaRange> read_address_range(const Section& owner, const Section& range,
                                            std::string_view key, uint64_t granule) {
    const bool both = range.has("first") && range.has("last");
    if (!range.has("first")) range.missing("first", "0x1000000");
    if (!range.has("last")) range.missing("last", "0x3fffffff");
    const auto first = range.number("first", 0, kMaxAddress, "0x1000000");
    const auto last = range.number("last", 0, kMaxAddress, "0x3fffffff");
    if (!both || !first || !last) return std::nullopt;
    const auto bounds = IovaRange::from_bounds({*first}, {*last});
    if (!bounds) {
        owner.problem(key, fmt::format("is reversed: first {:#x} is above last {:#x}; swap them",
                                       *first, *last));
        return std::nullopt;
    }
    if (*first % granule != 0 || (*last + 1) % granule != 0) {
        owner.problem(key,
                      fmt::format("is not aligned to the smallest page, {}; the first address "
                                  "must be a multiple of it and the last one short of a "
                                  "multiple, e.g. first = {:#x}, last = {:#x}",
                                  format_size(granule), *first & -granule, *last | (granule - 1)));
        return std::nullopt;
    }
    return bounds;
}

void read_common_regions(const Section& s, device::Config& device, uint64_t granule) {
    const bool msi = s.boolean("msi").value_or(true);
    if (msi) device.reserved.push_back({kMsiDoorbell, Region::Type::kMsi});
    read_regions(s, device.reserved, device, granule, msi);
}

std::vector<Region> read_own_regions(const Section& s, const device::Config& device,
                                     uint64_t granule) {
    std::vector<Region> all = device.reserved;
    return read_regions(s, all, device, granule, starts_with_default_msi(device));
}

}  // namespace viommu::app
