// SPDX-License-Identifier: BSD-3-Clause
#include "memory_map.hh"

#include <algorithm>
#include <utility>

namespace viommu::virtq {

Result<MemoryMap> MemoryMap::create(std::vector<MemoryRegion> regions) {
    for (const MemoryRegion& r : regions) {
        if (r.bytes == 0)
            return fail("memory region at GPA {} is empty: the VMM's memory table is wrong", r.gpa);
        if (!GpaRange::from_length(r.gpa, r.bytes) || !Range<Uva>::from_length(r.uva, r.bytes))
            return fail(
                "memory region at GPA {} (VMM address {}, {:#x} bytes) wraps around the end of the "
                "address space: the VMM's memory table is wrong",
                r.gpa, r.uva, r.bytes);
    }
    std::sort(regions.begin(), regions.end(),
              [](const MemoryRegion& a, const MemoryRegion& b) { return a.gpa < b.gpa; });
    for (size_t i = 1; i < regions.size(); ++i) {
        const MemoryRegion& before = regions[i - 1];
        if (regions[i].gpa - before.gpa < before.bytes)
            return fail(
                "memory regions at GPA {} ({:#x} bytes) and {} overlap: the VMM's memory table is "
                "wrong",
                before.gpa, before.bytes, regions[i].gpa);
    }
    MemoryMap map;
    map.regions_ = std::move(regions);
    return map;
}

}  // namespace viommu::virtq
