// SPDX-License-Identifier: BSD-3-Clause
#include "request.hh"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace viommu::guest {

using namespace wire;

namespace {

/// The device-readable part of `whole`: everything before its tail.
template <class T>
Request request_of(const T& whole) {
    Request request;
    request.out_bytes = offsetof(T, tail);
    static_assert(offsetof(T, tail) <= sizeof request.out);
    std::memcpy(request.out.data(), &whole, request.out_bytes);
    return request;
}

}  // namespace

Request Request::attach(DomainId domain, EndpointId endpoint, uint32_t flags) {
    virtio_iommu_req_attach r{};
    r.head.type = VIRTIO_IOMMU_T_ATTACH;
    r.domain = domain;
    r.endpoint = endpoint;
    r.flags = flags;
    return request_of(r);
}

Request Request::detach(DomainId domain, EndpointId endpoint) {
    virtio_iommu_req_detach r{};
    r.head.type = VIRTIO_IOMMU_T_DETACH;
    r.domain = domain;
    r.endpoint = endpoint;
    return request_of(r);
}

Request Request::map(DomainId domain, IovaRange range, Gpa gpa, uint32_t flags) {
    virtio_iommu_req_map r{};
    r.head.type = VIRTIO_IOMMU_T_MAP;
    r.domain = domain;
    r.virt_start = range.first.value;
    r.virt_end = range.last.value;
    r.phys_start = gpa.value;
    r.flags = flags;
    return request_of(r);
}

Request Request::unmap(DomainId domain, IovaRange range) {
    virtio_iommu_req_unmap r{};
    r.head.type = VIRTIO_IOMMU_T_UNMAP;
    r.domain = domain;
    r.virt_start = range.first.value;
    r.virt_end = range.last.value;
    return request_of(r);
}

std::string request_type_name(uint8_t type) {
    switch (type) {
        case VIRTIO_IOMMU_T_ATTACH:
            return "ATTACH";
        case VIRTIO_IOMMU_T_DETACH:
            return "DETACH";
        case VIRTIO_IOMMU_T_MAP:
            return "MAP";
        case VIRTIO_IOMMU_T_UNMAP:
            return "UNMAP";
        case VIRTIO_IOMMU_T_PROBE:
            return "PROBE";
        default:
            return fmt::format("type {}", type);
    }
}

std::string to_string(const Answer& answer) {
    if (!answer.trouble.empty()) return answer.trouble;
    return answer.status ? to_string(*answer.status) : "no status";
}

std::ostream& operator<<(std::ostream& out, const FaultEvent& fault) {
    return out << fmt::format("{{reason {} flags {:#x} endpoint {} address {} ({} bytes)}}",
                              fault.reason, fault.flags, format_bdf(fault.endpoint), fault.address,
                              fault.bytes);
}

void RoundTrips::add(uint64_t ns) {
    constexpr size_t kKept = 1 << 16;
    if (samples_.size() < kKept)
        samples_.push_back(ns);
    else
        samples_[count_ % kKept] = ns;
    ++count_;
}

uint64_t RoundTrips::quantile_ns(double fraction) const {
    if (samples_.empty()) return 0;
    auto sorted = samples_;
    const double rank = std::ceil(fraction * double(sorted.size()));  // of the sorted, from 1
    const auto at = sorted.begin() + (rank < 1 ? 0 : long(rank) - 1);
    std::nth_element(sorted.begin(), at, sorted.end());
    return *at;
}

Result<std::vector<ReservedRegion>> parse_properties(std::span<const std::byte> properties) {
    std::vector<ReservedRegion> regions;
    while (properties.size() >= sizeof(virtio_iommu_probe_property)) {
        virtio_iommu_probe_property head;
        std::memcpy(&head, properties.data(), sizeof head);
        const uint16_t type = head.type & VIRTIO_IOMMU_PROBE_T_MASK;
        if (type == VIRTIO_IOMMU_PROBE_T_NONE) break;
        const size_t bytes = sizeof head + head.length;
        if (bytes > properties.size())
            return fail("PROBE: a property of {} bytes in the last {}", bytes, properties.size());
        if (type == VIRTIO_IOMMU_PROBE_T_RESV_MEM) {
            virtio_iommu_probe_resv_mem region;
            if (bytes != sizeof region)
                return fail("PROBE: a RESV_MEM of {} bytes, not {}", bytes, sizeof region);
            std::memcpy(&region, properties.data(), sizeof region);
            regions.push_back({region.subtype, region.start, region.end});
        }
        properties = properties.subspan(bytes);
    }
    return regions;
}

}  // namespace viommu::guest
