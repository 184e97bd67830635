// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "viommu_base.hh"

namespace viommu::guest {

inline constexpr uint64_t kPageBytes = 4096;

/// A bank of RAM: where, and how much. Both multiples of kPageBytes.
struct RegionLayout {
    Gpa first;
    uint64_t bytes;
};

/// A bank of RAM that exists: its part of the memfd, mapped on its own, so that neighbours in GPA
/// are not neighbours in UVA.
struct MemoryRegion {
    Gpa first;
    uint64_t bytes;
    uint64_t file_offset;
    std::byte* data;

    bool operator==(const MemoryRegion&) const = default;
    Uva uva() const { return {reinterpret_cast<uintptr_t>(data)}; }
    bool contains(Gpa gpa, uint64_t length) const {
        return gpa - first < bytes && length <= bytes - (gpa - first);
    }
};

/// The guest's RAM: one memfd, shared with the backends by SET_MEM_TABLE, and an allocator of its
/// pages.
///
/// Threads: one.
class Memory {
  public:
    /// Errors: no bank, a bank that is empty or not made of pages, banks that overlap; the
    /// system's.
    static Result<std::unique_ptr<Memory>> create(std::span<const RegionLayout> banks);
    /// One bank [0, bytes).
    static Result<std::unique_ptr<Memory>> create(uint64_t bytes);
    ~Memory();
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    /// Plug in another bank; what is there stays where it is. Tell the backends: Frontend's
    /// add_memory(). Errors: as create()'s.
    Result<MemoryRegion> add(const RegionLayout& bank);

    int fd() const { return fd_.get(); }
    std::span<const MemoryRegion> regions() const { return regions_; }

    /// Our pointer to [gpa, gpa + bytes); null when that is not in one bank.
    std::byte* at(Gpa gpa, uint64_t bytes = 1) const;
    /// The VMM's address of the same, which here is our pointer.
    std::optional<Uva> uva(Gpa gpa, uint64_t bytes = 1) const;

    /// Zeroed pages, adjacent in GPA. Errors: no such run is free.
    Result<Gpa> allocate(uint64_t pages);
    /// Zeroed pages of which no two that follow one another are adjacent in GPA, in either
    /// direction: what dma_alloc_coherent() may give a driver behind an IOMMU. The same every run.
    /// Errors: not enough are free; none is kept.
    Result<std::vector<Gpa>> allocate_scattered(uint64_t pages);
    /// Give back pages that were allocated, whichever way.
    void release(Gpa first, uint64_t pages = 1);
    uint64_t free_pages() const { return free_pages_; }

  private:
    Memory() = default;
    Result<void> append(const RegionLayout& bank);
    const MemoryRegion* find(Gpa gpa, uint64_t bytes) const;
    /// Pages are numbered through the file, bank after bank.
    Gpa page_gpa(uint64_t page) const;
    uint64_t page_of(Gpa gpa) const;
    void take(uint64_t page);

    Fd fd_;
    std::vector<MemoryRegion> regions_;
    std::vector<bool> used_;  // by page number
    uint64_t free_pages_ = 0;
    uint64_t next_ = 0;  // where allocate() looks first
    uint64_t random_ = 0x9e3779b97f4a7c15;
};

}  // namespace viommu::guest
