// SPDX-License-Identifier: BSD-3-Clause
#include "decode.hh"

#include <algorithm>
#include <cstring>

namespace viommu::wire {
namespace {

/// The device-readable bytes of each request: all of the structure but its tail.
template <class Req>
constexpr std::size_t kReadableBytes = offsetof(Req, tail);
template <>
constexpr std::size_t kReadableBytes<virtio_iommu_req_probe> = sizeof(virtio_iommu_req_probe);

template <class Req>
std::optional<Req> read(std::span<const std::byte> bytes) {
    if (bytes.size() < kReadableBytes<Req>) return std::nullopt;
    Req req{};
    std::memcpy(&req, bytes.data(), kReadableBytes<Req>);
    return req;
}

template <std::size_t N>
bool all_zero(const uint8_t (&bytes)[N]) {
    return std::all_of(bytes, bytes + N, [](uint8_t b) { return b == 0; });
}

}  // namespace

std::optional<Request> decode(std::span<const std::byte> bytes) {
    if (bytes.size() < sizeof(virtio_iommu_req_head)) return std::nullopt;
    switch (uint8_t(bytes[offsetof(virtio_iommu_req_head, type)])) {
        case VIRTIO_IOMMU_T_ATTACH:
            if (auto r = read<virtio_iommu_req_attach>(bytes))
                return AttachRequest{r->domain, r->endpoint, r->flags, all_zero(r->reserved)};
            break;
        case VIRTIO_IOMMU_T_DETACH:
            if (auto r = read<virtio_iommu_req_detach>(bytes))
                return DetachRequest{r->domain, r->endpoint};
            break;
        case VIRTIO_IOMMU_T_MAP:
            if (auto r = read<virtio_iommu_req_map>(bytes))
                return MapRequest{r->domain, Iova{r->virt_start}, Iova{r->virt_end},
                                  Gpa{r->phys_start}, r->flags};
            break;
        case VIRTIO_IOMMU_T_UNMAP:
            if (auto r = read<virtio_iommu_req_unmap>(bytes))
                return UnmapRequest{r->domain, Iova{r->virt_start}, Iova{r->virt_end},
                                    all_zero(r->reserved)};
            break;
        case VIRTIO_IOMMU_T_PROBE:
            if (auto r = read<virtio_iommu_req_probe>(bytes)) return ProbeRequest{r->endpoint};
            break;
    }
    return std::nullopt;
}

}  // namespace viommu::wire
