// SPDX-License-Identifier: BSD-3-Clause
/// From the operator's configuration to a device, and the device's configuration space.
#include <algorithm>
#include <bit>
#include <cstring>

#include "device.hh"

namespace viommu::device {
namespace {

Result<void> check(const Config& c) {
    if (c.page_size_mask == 0 || std::countr_zero(c.page_size_mask) < 12)
        return fail(
            "page_size_mask {:#x}: the lowest bit is the granule and must be 4 KiB (0x1000) or more",
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
    for (std::size_t i = 0; i < c.reserved.size(); ++i) {
        const ReservedRegion& r = c.reserved[i];
        if (r.range.last < r.range.first)
            return fail("reserved region {}: the last address is below the first", r.range);
        for (std::size_t j = 0; j < i; ++j) {
            if (r.range.overlaps(c.reserved[j].range))
                return fail("reserved regions {} and {} overlap: the guest can have only one "
                            "property for an address",
                            c.reserved[j].range, r.range);
            if (r.type == ReservedRegion::Type::kMsi && c.reserved[j].type == r.type)
                return fail("reserved regions {} and {} are both of type msi: one at most",
                            c.reserved[j].range, r.range);
        }
    }
    return {};
}

/// What PROBE answers for every endpoint (5.13.6.7): the properties and one empty one.
std::vector<std::byte> encode_properties(const Config& c) {
    using namespace wire;
    std::vector<std::byte> out(c.reserved.size() * sizeof(virtio_iommu_probe_resv_mem) +
                               sizeof(virtio_iommu_probe_property));
    std::byte* at = out.data();
    for (const ReservedRegion& r : c.reserved) {
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

}  // namespace

Result<std::unique_ptr<Device>> Device::create(const Config& config) {
    if (auto ok = check(config); !ok) return tl::unexpected(ok.error());
    auto table = table::Table::create({
        .granule_lg2 = unsigned(std::countr_zero(config.page_size_mask)),
        .input = config.input_range,
        .max_endpoints = uint32_t(std::max<std::size_t>(1, config.endpoints.size())),
        .max_domains = config.max_domains,
        .max_mappings = config.max_mappings,
        .arena_bytes = config.arena_bytes,
        .max_readers = config.max_readers,
    });
    if (!table) return tl::unexpected(table.error());
    (*table)->set_bypass(config.bypass);
    for (const EndpointId endpoint : config.endpoints)
        if (auto added = (*table)->add_endpoint(endpoint); !added)
            return tl::unexpected(added.error());
    return std::unique_ptr<Device>(new Device(config, std::move(*table)));
}

Device::Device(const Config& config, std::unique_ptr<table::Table> table)
    : config_(config), table_(std::move(table)), properties_(encode_properties(config)) {}

Device::~Device() = default;

uint64_t Device::features() const noexcept {
    using namespace wire;
    return uint64_t{1} << VIRTIO_F_VERSION_1 | uint64_t{1} << VIRTIO_IOMMU_F_INPUT_RANGE |
           uint64_t{1} << VIRTIO_IOMMU_F_DOMAIN_RANGE | uint64_t{1} << VIRTIO_IOMMU_F_MAP_UNMAP |
           uint64_t{1} << VIRTIO_IOMMU_F_PROBE | uint64_t{1} << VIRTIO_IOMMU_F_MMIO |
           uint64_t{1} << VIRTIO_IOMMU_F_BYPASS_CONFIG;
}

void Device::read_config(uint32_t offset, std::span<std::byte> out) const noexcept {
    wire::virtio_iommu_config c{};
    c.page_size_mask = config_.page_size_mask;
    c.input_range.start = config_.input_range.first.value;
    c.input_range.end = config_.input_range.last.value;
    c.domain_range.start = config_.domain_first;
    c.domain_range.end = config_.domain_last;
    c.probe_size = uint32_t(properties_.size());
    c.bypass = table_->bypass();
    std::fill(out.begin(), out.end(), std::byte{0});
    if (offset < sizeof c && !out.empty())
        std::memcpy(out.data(), reinterpret_cast<const std::byte*>(&c) + offset,
                    std::min(out.size(), sizeof c - offset));
}

void Device::write_config(uint32_t offset, std::span<const std::byte> in) noexcept {
    // 5.13.4: the driver may write `bypass` and nothing else, and only 0 or 1.
    constexpr uint32_t kBypass = offsetof(wire::virtio_iommu_config, bypass);
    if (offset > kBypass || kBypass - offset >= in.size()) return;
    const auto value = uint8_t(in[kBypass - offset]);
    if (value <= 1) table_->set_bypass(value == 1);
}

}  // namespace viommu::device
