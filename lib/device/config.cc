// SPDX-License-Identifier: BSD-3-Clause
/// From the operator's configuration to a device, and the device's configuration space.
#include <algorithm>
#include <bit>
#include <cstring>

#include "device.hh"

namespace viommu::device {
namespace {

using Regions = std::vector<ReservedRegion>;

/// Those of every endpoint, then its own.
Regions regions_of(const Config& c, EndpointId endpoint) {
    Regions all = c.reserved;
    if (const auto own = c.endpoint_reserved.find(endpoint); own != c.endpoint_reserved.end())
        all.insert(all.end(), own->second.begin(), own->second.end());
    return all;
}

/// 5.13.6.8.1: what one endpoint is told must be disjoint, with one doorbell at most.
Result<void> check_regions(const Regions& regions) {
    for (std::size_t i = 0; i < regions.size(); ++i) {
        const ReservedRegion& r = regions[i];
        if (r.range.last < r.range.first)
            return fail("reserved region {}: the last address is below the first", r.range);
        for (std::size_t j = 0; j < i; ++j) {
            if (r.range.overlaps(regions[j].range))
                return fail("reserved regions {} and {} overlap: the guest can have only one "
                            "property for an address",
                            regions[j].range, r.range);
            if (r.type == ReservedRegion::Type::kMsi && regions[j].type == r.type)
                return fail("reserved regions {} and {} are both of type msi: one at most",
                            regions[j].range, r.range);
        }
    }
    return {};
}

Result<void> check(const Config& c) {
    if (c.page_size_mask == 0 || std::countr_zero(c.page_size_mask) < 12)
        return fail(
            "page_size_mask {:#x}: the lowest bit is the granule and must be 4 KiB (0x1000) or "
            "more",
            c.page_size_mask);
    const uint64_t granule = c.page_size_mask & -c.page_size_mask;
    if (c.input_range.last < c.input_range.first)
        return fail("input_range {}: the last address is below the first", c.input_range);
    if (((c.input_range.first.value | (c.input_range.last.value + 1)) & (granule - 1)) != 0)
        return fail("input_range {}: must begin and end at a multiple of the granule {:#x}",
                    c.input_range, granule);
    if (c.domain_last < c.domain_first)
        return fail("domain_range [{}, {}]: the last domain is below the first", c.domain_first,
                    c.domain_last);
    for (const auto& own : c.endpoint_reserved)
        if (std::find(c.endpoints.begin(), c.endpoints.end(), own.first) == c.endpoints.end())
            return fail("endpoint {:#x} has reserved regions, but is not among the endpoints",
                        own.first);
    if (auto ok = check_regions(c.reserved); !ok) return ok;
    for (const auto& own : c.endpoint_reserved)
        if (auto ok = check_regions(regions_of(c, own.first)); !ok)
            return fail("endpoint {:#x}: {}", own.first, ok.error().message);
    return {};
}

std::vector<table::Reserved> for_table(const Regions& regions) {
    std::vector<table::Reserved> out;
    for (const ReservedRegion& r : regions)
        out.push_back({r.range, r.type == ReservedRegion::Type::kReserved});
    return out;
}

/// What PROBE answers (5.13.6.7): the properties and one empty one.
std::vector<std::byte> encode_properties(const Regions& regions) {
    using namespace wire;
    std::vector<std::byte> out(regions.size() * sizeof(virtio_iommu_probe_resv_mem) +
                               sizeof(virtio_iommu_probe_property));
    std::byte* at = out.data();
    for (const ReservedRegion& r : regions) {
        virtio_iommu_probe_resv_mem p{};
        p.head.type = VIRTIO_IOMMU_PROBE_T_RESV_MEM;
        p.head.length = uint16_t(sizeof p - sizeof p.head);
        p.subtype = uint8_t(r.type);
        p.start = r.range.first.value;
        p.end = r.range.last.value;
        std::memcpy(at, &p, sizeof p);
        at += sizeof p;
    }
    return out;
}

constexpr uint32_t kBypassField = offsetof(wire::virtio_iommu_config, bypass);

}  // namespace

Result<std::unique_ptr<Device>> Device::create(const Config& config) {
    if (auto ok = check(config); !ok) return tl::unexpected(ok.error());
    std::size_t regions = config.reserved.size();
    for (const auto& own : config.endpoint_reserved)
        regions += regions_of(config, own.first).size();
    auto table = table::Table::create({
        .granule_lg2 = unsigned(std::countr_zero(config.page_size_mask)),
        .input = config.input_range,
        .max_endpoints = uint32_t(std::max<std::size_t>(1, config.endpoints.size())),
        .max_regions = uint32_t(regions),
        .max_domains = config.max_domains,
        .max_mappings = config.max_mappings,
        .arena_bytes = config.arena_bytes,
        .max_readers = config.max_readers,
        .hugepages = config.hugepages,
    });
    if (!table) return tl::unexpected(table.error());
    (*table)->set_bypass(config.bypass && !config.legacy_bypass);
    // Those with the common regions first: the table keeps equal lists once.
    const auto add = [&](bool with_own) -> Result<void> {
        for (const EndpointId endpoint : config.endpoints) {
            if ((config.endpoint_reserved.count(endpoint) != 0) != with_own) continue;
            const auto reserved = for_table(regions_of(config, endpoint));
            if (auto added = (*table)->add_endpoint(endpoint, reserved); !added) return added;
        }
        return {};
    };
    for (const bool with_own : {false, true})
        if (auto added = add(with_own); !added) return tl::unexpected(added.error());
    return std::unique_ptr<Device>(new Device(config, std::move(*table)));
}

Device::Device(const Config& config, std::unique_ptr<table::Table> table)
    : config_(config), table_(std::move(table)), properties_(encode_properties(config.reserved)) {
    for (const auto& own : config.endpoint_reserved)
        own_properties_[own.first] = encode_properties(regions_of(config, own.first));
    probe_size_ = properties_.size();
    for (const auto& own : own_properties_) probe_size_ = std::max(probe_size_, own.second.size());
    properties_.resize(probe_size_);
    for (auto& own : own_properties_) own.second.resize(probe_size_);
}

Device::~Device() = default;

uint64_t Device::features() const noexcept {
    using namespace wire;
    // 5.13.3: not both of BYPASS and BYPASS_CONFIG.
    const unsigned bypass =
        config_.legacy_bypass ? VIRTIO_IOMMU_F_BYPASS : VIRTIO_IOMMU_F_BYPASS_CONFIG;
    return uint64_t{1} << VIRTIO_F_VERSION_1 | uint64_t{1} << VIRTIO_IOMMU_F_INPUT_RANGE |
           uint64_t{1} << VIRTIO_IOMMU_F_DOMAIN_RANGE | uint64_t{1} << VIRTIO_IOMMU_F_MAP_UNMAP |
           uint64_t{1} << VIRTIO_IOMMU_F_PROBE | uint64_t{1} << VIRTIO_IOMMU_F_MMIO |
           uint64_t{1} << bypass;
}

void Device::features_acked(uint64_t features) noexcept {
    if (config_.legacy_bypass)
        table_->set_bypass((features >> wire::VIRTIO_IOMMU_F_BYPASS & 1) != 0);
}

void Device::read_config(uint32_t offset, std::span<std::byte> out) const noexcept {
    wire::virtio_iommu_config c{};
    c.page_size_mask = config_.page_size_mask;
    c.input_range.start = config_.input_range.first.value;
    c.input_range.end = config_.input_range.last.value;
    c.domain_range.start = config_.domain_first;
    c.domain_range.end = config_.domain_last;
    c.probe_size = uint32_t(probe_size_);
    c.bypass = offers(wire::VIRTIO_IOMMU_F_BYPASS_CONFIG) && table_->bypass();
    wire::read_config_window(c, offset, out);
}

bool Device::would_change(uint32_t offset, std::span<const std::byte> in) const noexcept {
    // 5.13.4: the driver may write `bypass` and nothing else, and only 0 or 1.
    if (!offers(wire::VIRTIO_IOMMU_F_BYPASS_CONFIG)) return false;
    const auto value = wire::written_config_byte(kBypassField, offset, in);
    return value && *value <= 1 && (*value == 1) != table_->bypass();
}

void Device::write_config(uint32_t offset, std::span<const std::byte> in) noexcept {
    if (wire::written_config_byte(kBypassField, offset, in)) bypass_before_.reset();
    if (would_change(offset, in)) table_->set_bypass(!table_->bypass());
}

void Device::connected() noexcept {
    if (!bypass_before_) bypass_before_ = table_->bypass();
    table_->set_bypass(config_.bypass && !config_.legacy_bypass);
}

void Device::resumed() noexcept {
    if (bypass_before_ && !config_.legacy_bypass) table_->set_bypass(*bypass_before_);
    bypass_before_.reset();
}

}  // namespace viommu::device
