// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "viommu_base.hh"

namespace viommu::virtq {

/// One piece of guest memory, mapped into this process.
struct MemoryRegion {
    Gpa gpa;         ///< where the guest sees it
    Uva uva;         ///< where the VMM sees it
    uint64_t bytes;  ///< > 0
    std::byte* vva;  ///< where we see it
};

/// The guest memory of one vhost-user connection. Immutable once built.
/// Regions do not overlap in GPA. Lookup is linear over a handful of regions.
class MemoryMap {
  public:
    MemoryMap() = default;
    /// Errors: empty or wrapping regions, overlap.
    static Result<MemoryMap> create(std::vector<MemoryRegion> regions);

    /// Our address of `gpa`, and how many bytes follow it in the same region, at most `bytes`.
    /// Empty when `gpa` is not guest memory.
    std::span<std::byte> at(Gpa gpa, uint64_t bytes) const noexcept {
        for (const auto& r : regions_) {
            const uint64_t offset = gpa - r.gpa;
            if (offset < r.bytes)
                return {r.vva + offset,
                        size_t(bytes < r.bytes - offset ? bytes : r.bytes - offset)};
        }
        return {};
    }

    /// Inverse of the frontend's GPA -> UVA conversion.
    std::optional<Gpa> gpa_of(Uva uva) const noexcept {
        for (const auto& r : regions_)
            if (uva - r.uva < r.bytes) return r.gpa + (uva - r.uva);
        return std::nullopt;
    }

    std::span<const MemoryRegion> regions() const noexcept { return regions_; }

  private:
    std::vector<MemoryRegion> regions_;
};

}  // namespace viommu::virtq
