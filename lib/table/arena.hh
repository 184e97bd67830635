// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>

#include "layout.hh"
#include "viommu_base.hh"

namespace viommu::table {

/// What an arena's memory is made of.
enum class Hugepages : uint8_t {
    kAuto,    ///< hugepages of 2 MiB when enough are free and the arena fills one, else normal pages
    kNever,   ///< normal pages
    kAlways,  ///< hugepages, or an error
};

/// What a guest's table can hold. Fixed when it is created.
struct Geometry {
    unsigned granule_lg2 = 12;                            ///< smallest page, log2 bytes; >= 12
    IovaRange input{{0}, {(uint64_t{1} << 48) - 1}};      ///< IOVAs that can be mapped
    uint32_t max_endpoints = 256;
    uint32_t max_regions = 64;                            ///< reserved regions, see add_endpoint()
    uint32_t max_domains = 1024;                          ///< quota
    uint64_t max_mappings = 1u << 20;                     ///< quota, over all domains of the guest
    uint64_t arena_bytes = uint64_t{64} << 20;            ///< address space; memory is used as touched
    unsigned max_readers = 1024;                          ///< concurrent Readers
    /// With hugepages arena_bytes is rounded up to them, and all of them are taken at once.
    Hugepages hugepages = Hugepages::kAuto;
};

/// An arena mapped into this process, as a reader needs it: values copied out of the header once,
/// so that nothing in shared memory can change them later.
struct View {
    const std::byte* base = nullptr;
    const ArenaHeader* header = nullptr;
    unsigned granule_lg2 = 0;
    unsigned levels = 0;
    uint64_t input_last = 0;
    const RegionSlot* regions = nullptr;
    const EndpointSlot* endpoints = nullptr;
    uint32_t max_endpoints = 0;

    const Node* node(uint64_t offset) const noexcept {
        return reinterpret_cast<const Node*>(base + offset);
    }
    /// Null when there is no such endpoint. Stays valid as long as the mapping does. Cost: linear in
    /// the number of endpoints.
    const EndpointSlot* endpoint(EndpointId id) const noexcept;
};

/// Where everything lies in an arena for `geometry`.
/// Errors: a geometry that cannot be (says which value and the limit).
Result<ArenaLayout> lay_out(const Geometry& geometry);
/// The View of an arena mapped at `base`.
View view_of(const std::byte* base, const ArenaLayout& layout) noexcept;

/// The shared memory object: a memfd, laid out and mapped read-write by its one writer.
class Arena {
  public:
    /// Errors: a geometry that cannot be (says which value and the limit), memfd or mmap failure.
    static Result<Arena> create(const Geometry& geometry);
    Arena(Arena&& other) noexcept;
    Arena& operator=(Arena&&) = delete;
    ~Arena();

    ArenaHeader& header() noexcept { return *reinterpret_cast<ArenaHeader*>(base_); }
    const ArenaHeader& header() const noexcept {
        return *reinterpret_cast<const ArenaHeader*>(base_);
    }
    EndpointSlot* endpoints() noexcept;
    DomainSlot* domains() noexcept;
    RegionSlot* regions() noexcept;
    Node* node(uint64_t offset) noexcept { return reinterpret_cast<Node*>(base_ + offset); }
    View view() const noexcept { return view_of(base_, header()); }
    /// The shared memory object, which no one can map writable any more, whoever holds it. Other
    /// processes map it read-only: MappedArena.
    int fd() const noexcept { return fd_; }
    /// Of the pages it got: 2 MiB, or the system's. (Of normal pages, the kernel may make large ones.)
    uint64_t page_bytes() const noexcept { return page_bytes_; }

  private:
    static Result<Arena> create(const Geometry& geometry, bool huge);
    Arena(int fd, std::byte* base, uint64_t bytes, uint64_t page_bytes)
        : fd_(fd), base_(base), bytes_(bytes), page_bytes_(page_bytes) {}
    int fd_;
    std::byte* base_;
    uint64_t bytes_;
    uint64_t page_bytes_;
};

}  // namespace viommu::table
