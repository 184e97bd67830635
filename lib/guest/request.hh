// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "viommu_wire.hh"

namespace viommu::guest {

/// A virtio-iommu request of fixed size as the driver writes it: what the device reads, and how
/// many bytes it may write. PROBE, whose answer has the size that the device says, is apart.
///
/// Spec: virtio 1.3, 5.13.6
struct Request {
    std::array<std::byte, sizeof(wire::virtio_iommu_req_map)> out{};
    uint32_t out_bytes = 0;

    uint8_t type() const { return uint8_t(out[0]); }

    static Request attach(DomainId domain, EndpointId endpoint, uint32_t flags = 0);
    static Request detach(DomainId domain, EndpointId endpoint);
    /// `flags`: VIRTIO_IOMMU_MAP_F_*, of which Access has the bits.
    static Request map(DomainId domain, IovaRange range, Gpa gpa, uint32_t flags);
    static Request map(DomainId domain, IovaRange range, Gpa gpa, Access access) {
        return map(domain, range, gpa, uint32_t(access));
    }
    static Request unmap(DomainId domain, IovaRange range);
};

/// "MAP", "type 77".
std::string request_type_name(uint8_t type);

/// What came back for a request. Compares with Status, so that a test says what it expects:
/// `EXPECT_EQ(iommu.attach(1, 8), Status::kOk)`.
struct Answer {
    std::optional<Status> status;  ///< none: the buffer came back with used length 0
    std::string trouble;           ///< not empty: nothing came back, and why
    uint64_t round_trip_ns = 0;    ///< of the batch that this request was in

    bool ok() const { return status == Status::kOk; }
    friend bool operator==(const Answer& a, Status s) { return a.status == s; }
};
std::string to_string(const Answer& answer);
inline std::ostream& operator<<(std::ostream& out, const Answer& a) { return out << to_string(a); }

/// A region that PROBE reports (5.13.6.8.1).
struct ReservedRegion {
    uint8_t subtype = 0;
    uint64_t start = 0;
    uint64_t end = 0;  ///< inclusive; a wrong device may say less than `start`

    bool operator==(const ReservedRegion&) const = default;
};

struct ProbeAnswer : Answer {
    std::vector<ReservedRegion> reserved;
    std::vector<std::byte> properties;  ///< all probe_size bytes
};

/// A fault event (5.13.6.9) as the device wrote it.
struct FaultEvent {
    uint8_t reason = 0;
    uint32_t flags = 0;
    EndpointId endpoint = 0;
    Iova address;
    uint32_t bytes = 0;  ///< used length

    bool operator==(const FaultEvent&) const = default;
};
std::ostream& operator<<(std::ostream& out, const FaultEvent& fault);

/// Round trips of one kind. Keeps the last 64 Ki.
class RoundTrips {
  public:
    void add(uint64_t ns);
    uint64_t count() const { return count_; }
    /// By nearest rank; `fraction` 0.5: the median. 0 when there are none.
    uint64_t quantile_ns(double fraction) const;

  private:
    std::vector<uint64_t> samples_;
    uint64_t count_ = 0;
};

/// RESV_MEM properties in what PROBE returned. Errors: a length that leaves the buffer, a RESV_MEM
/// of another size than the spec's.
Result<std::vector<ReservedRegion>> parse_properties(std::span<const std::byte> properties);

}  // namespace viommu::guest
