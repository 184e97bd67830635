// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <variant>

#include "virtio_iommu.hh"

namespace viommu::wire {

/// The largest device-readable part of a request: PROBE's. Callers copy at most this many bytes of
/// a chain before decoding; a longer chain is decoded from its first bytes.
inline constexpr std::size_t kMaxRequestBytes = sizeof(virtio_iommu_req_probe);

struct AttachRequest {
    DomainId domain;
    EndpointId endpoint;
    uint32_t flags;
    bool reserved_is_zero;
};

struct DetachRequest {
    DomainId domain;
    EndpointId endpoint;
};

/// `last` < `first` is possible: the guest wrote it.
struct MapRequest {
    DomainId domain;
    Iova first;
    Iova last;
    Gpa gpa;
    uint32_t flags;
};

struct UnmapRequest {
    DomainId domain;
    Iova first;
    Iova last;
    bool reserved_is_zero;
};

struct ProbeRequest {
    EndpointId endpoint;
};

using Request = std::variant<AttachRequest, DetachRequest, MapRequest, UnmapRequest, ProbeRequest>;

/// Read the device-readable part of a request.
///
/// Spec:    5.13.6 Device operations
/// Guest:   `bytes` must be a private copy; every value in the result is still the guest's
/// Errors:  nothing when the type is unknown or the bytes end before the request does; the caller
///          then returns the buffer with used length 0
[[nodiscard]] std::optional<Request> decode(std::span<const std::byte> bytes);

}  // namespace viommu::wire
