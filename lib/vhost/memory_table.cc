// SPDX-License-Identifier: BSD-3-Clause
#include "memory_table.hh"

#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace viommu::vhost {

Result<std::shared_ptr<std::byte>> map_shared(const Fd& file, uint64_t offset, uint64_t bytes) {
    struct stat status;
    if (fstat(file.get(), &status) != 0)
        return fail("its file descriptor is of no use: {}", strerror(errno));
    const uint64_t end = offset + bytes;
    if (bytes == 0 || end < offset)
        return fail("{:#x} bytes from offset {:#x} are nothing to map", bytes, offset);
    if (S_ISREG(status.st_mode) && end > uint64_t(status.st_size))
        return fail("{:#x} bytes from offset {:#x} reach beyond its file, which has {:#x}", bytes,
                    offset, uint64_t(status.st_size));
    // On hugetlbfs offset and length must be multiples of the page, which is the block size there.
    const uint64_t block = std::max<uint64_t>(uint64_t(status.st_blksize), 4096);
    const uint64_t lead = offset % block;
    if (lead + bytes > UINT64_MAX - block) return fail("{:#x} bytes are too many", bytes);
    const auto length = size_t((lead + bytes + block - 1) / block * block);
    void* const base = mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(),
                            off_t(offset - lead));
    if (base == MAP_FAILED)
        return fail("{:#x} bytes from offset {:#x} cannot be mapped: {}", bytes, offset,
                    strerror(errno));
    madvise(base, length, MADV_DONTDUMP);
    return std::shared_ptr<std::byte>(static_cast<std::byte*>(base) + lead,
                                      [base, length](std::byte*) { munmap(base, length); });
}

namespace {

Result<virtq::MemoryRegion> map_region(const wire::vhost_user_mem_region& r, const Fd& file) {
    const Gpa gpa{r.guest_phys_addr};
    auto mapped = map_shared(file, r.mmap_offset, r.memory_size);
    if (!mapped) return fail("memory region at GPA {}: {}", gpa, mapped.error().message);
    std::byte* const vva = mapped->get();
    return virtq::MemoryRegion{.gpa = gpa,
                               .uva = Uva{r.userspace_addr},
                               .bytes = r.memory_size,
                               .vva = vva,
                               .mapping = std::move(*mapped)};
}

}  // namespace

Result<void> MemoryTable::replace(std::span<const wire::vhost_user_mem_region> regions,
                                  std::span<const Fd> files) {
    std::vector<virtq::MemoryRegion> mapped;
    for (size_t i = 0; i < regions.size(); ++i) {
        auto region = map_region(regions[i], files[i]);
        if (!region) return tl::unexpected(region.error());
        mapped.push_back(std::move(*region));
    }
    return take(std::move(mapped));
}

Result<void> MemoryTable::add(const wire::vhost_user_mem_region& region, const Fd& file) {
    std::vector<virtq::MemoryRegion> regions;
    if (map_) regions.assign(map_->regions().begin(), map_->regions().end());
    if (regions.size() >= kMaxRegions)
        return fail("the guest has {} memory regions, the most that we take; use fewer or larger "
                    "memory devices",
                    regions.size());
    auto added = map_region(region, file);
    if (!added) return tl::unexpected(added.error());
    regions.push_back(std::move(*added));
    return take(std::move(regions));
}

Result<void> MemoryTable::remove(const wire::vhost_user_mem_region& gone) {
    std::vector<virtq::MemoryRegion> regions;
    if (map_) regions.assign(map_->regions().begin(), map_->regions().end());
    const size_t erased = std::erase_if(regions, [&](const virtq::MemoryRegion& r) {
        return r.gpa == Gpa{gone.guest_phys_addr} && r.uva == Uva{gone.userspace_addr} &&
               r.bytes == uint64_t(gone.memory_size);
    });
    if (erased == 0)
        return fail("there is no memory region at GPA {} with {:#x} bytes",
                    Gpa{gone.guest_phys_addr}, uint64_t(gone.memory_size));
    return take(std::move(regions));
}

Result<void> MemoryTable::take(std::vector<virtq::MemoryRegion> regions) {
    auto map = virtq::MemoryMap::create(std::move(regions));
    if (!map) return tl::unexpected(map.error());
    map_ = std::make_shared<const virtq::MemoryMap>(std::move(*map));
    return {};
}

}  // namespace viommu::vhost
