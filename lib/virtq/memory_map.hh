// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <memory>
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
    /// Keeps `vva` mapped; none for memory that somebody else keeps.
    std::shared_ptr<const void> mapping{};
};

/// The guest memory of one vhost-user connection. Immutable once built; as long as it lives, its
/// regions stay mapped. Regions do not overlap in GPA, and none of them reaches 2^64-1.
class MemoryMap {
  public:
    MemoryMap() = default;
    /// Errors: empty or wrapping regions, overlap.
    static Result<MemoryMap> create(std::vector<MemoryRegion> regions);

    /// Our address of `gpa`, and how many bytes follow it in the same region, at most `bytes`.
    /// Empty when `gpa` is not guest memory.
    ///
    /// Cost: a branchless binary search; no step for one region, five for 32.
    std::span<std::byte> at(Gpa gpa, uint64_t bytes) const noexcept {
        const MemoryRegion* r = region_of(gpa);
        if (r == nullptr) return {};
        const uint64_t offset = gpa - r->gpa;
        return {r->vva + offset, size_t(bytes < r->bytes - offset ? bytes : r->bytes - offset)};
    }

    /// The region that `gpa` is in, or null.
    const MemoryRegion* region_of(Gpa gpa) const noexcept {
        size_t n = regions_.size();
        if (n == 0) return nullptr;
        const MemoryRegion* r = regions_.data();  // the last that begins at or before gpa, if any
        while (n > 1) {
            const size_t half = n / 2;
            r += r[half].gpa <= gpa ? half : 0;
            n -= half;
        }
        return gpa - r->gpa < r->bytes ? r : nullptr;
    }

    /// Inverse of the frontend's GPA -> UVA conversion.
    std::optional<Gpa> gpa_of(Uva uva) const noexcept {
        for (const auto& r : regions_)
            if (uva - r.uva < r.bytes) return r.gpa + (uva - r.uva);
        return std::nullopt;
    }

    /// Inverse of at(), for what lies in one of the regions' memory in this process.
    std::optional<Gpa> gpa_of(const std::byte* vva) const noexcept {
        for (const auto& r : regions_)
            if (const auto offset = uint64_t(uintptr_t(vva) - uintptr_t(r.vva)); offset < r.bytes)
                return r.gpa + offset;
        return std::nullopt;
    }

    std::span<const MemoryRegion> regions() const noexcept { return regions_; }

  private:
    std::vector<MemoryRegion> regions_;
};

}  // namespace viommu::virtq
