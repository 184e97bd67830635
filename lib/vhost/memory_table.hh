// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "viommu_base.hh"
#include "viommu_virtq.hh"
#include "viommu_wire.hh"

namespace viommu::vhost {

/// `bytes` of `file` from `offset` on, shared and writable, at any offset and also on hugetlbfs.
/// Unmapped when the last pointer to it goes. Not part of core dumps.
/// Errors: they lie beyond the end of the file (touching them would kill us), or mmap's.
Result<std::shared_ptr<std::byte>> map_shared(const Fd& file, uint64_t offset, uint64_t bytes);

/// The memory regions of one connection, as its messages change them.
///
/// We map them ourselves: librte_vhost 22.11 to 25.11 knows no ADD_MEM_REG, holds eight regions,
/// and unmaps the old table before it knows whether the new one is good.
/// Every change makes a new MemoryMap, or fails and changes nothing. Regions that stay are not
/// mapped again, and those that go stay mapped for whoever still holds an old map.
class MemoryTable {
  public:
    /// What GET_MAX_MEM_SLOTS answers.
    static constexpr size_t kMaxRegions = 32;

    /// SET_MEM_TABLE: these regions and no others. As many `files` as regions.
    Result<void> replace(std::span<const wire::vhost_user_mem_region> regions,
                         std::span<const Fd> files);
    /// ADD_MEM_REG
    Result<void> add(const wire::vhost_user_mem_region& region, const Fd& file);
    /// REM_MEM_REG: named by addresses and size, its offset does not matter.
    Result<void> remove(const wire::vhost_user_mem_region& region);

    /// Null before the first region.
    const std::shared_ptr<const virtq::MemoryMap>& map() const { return map_; }

  private:
    Result<void> take(std::vector<virtq::MemoryRegion> regions);

    std::shared_ptr<const virtq::MemoryMap> map_;
};

}  // namespace viommu::vhost
