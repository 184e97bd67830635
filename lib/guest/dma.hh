// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstring>
#include <vector>

#include "memory.hh"

namespace viommu::guest {

/// What a driver writes into rings and descriptors: a GPA when its device is not behind an IOMMU,
/// an IOVA when it is. A driver cannot tell, and must not.
using BusAddress = Address<struct BusTag>;

/// Memory that a device sees at [bus, bus + bytes) and the driver page by page, wherever the pages
/// are. Views are values; the pages belong to the Dma that gave them.
struct DmaBlock {
    BusAddress bus;
    uint64_t bytes = 0;
    std::vector<Gpa> pages;        ///< page i holds bytes [i * kPageBytes, ...)
    std::vector<std::byte*> data;  ///< the driver's pointer to page i

    /// The driver's pointer to one byte; what follows it is good to the end of the page.
    std::byte* at(uint64_t offset) const { return data[offset / kPageBytes] + offset % kPageBytes; }
    Gpa gpa(uint64_t offset) const { return pages[offset / kPageBytes] + offset % kPageBytes; }

    /// Across page boundaries. [offset, offset + size) must be inside the block.
    void write(uint64_t offset, std::span<const std::byte> from) const;
    void read(uint64_t offset, std::span<std::byte> to) const;
};

/// How the pages of a block lie in GPA space.
enum class Placement { kContiguous, kScattered };

/// How a driver makes memory visible to its device: Linux's dma_alloc_coherent() and
/// dma_map_page(). The driver of a translated device is given another Dma and is otherwise the
/// same.
///
/// Threads: one, the guest's.
class Dma {
  public:
    virtual ~Dma() = default;

    /// Zeroed memory that driver and device share for long: rings, tables. Usable at once.
    virtual Result<DmaBlock> allocate(uint64_t bytes) = 0;
    virtual Result<void> release(const DmaBlock& block) = 0;

    /// Make [gpa, gpa + bytes) visible to the device. Usable by the device after sync().
    virtual Result<BusAddress> map(Gpa gpa, uint64_t bytes, Access access) = 0;
    /// Take it away. Only after sync() may the memory be used for something else.
    virtual Result<void> unmap(BusAddress bus, uint64_t bytes) = 0;
    /// Wait until every map() and unmap() has taken effect. Errors: the first that was refused.
    virtual Result<void> sync() = 0;
};

/// No requests: the bus address of a GPA is GPA + `offset`, modulo 2^64. With offset 0 this is a
/// device that no IOMMU translates (the IOMMU itself, an endpoint in bypass) or an identity
/// mapping; else whoever made it has mapped all memory at that offset.
class OffsetDma final : public Dma {
  public:
    explicit OffsetDma(Memory& memory, uint64_t offset = 0) : memory_(memory), offset_(offset) {}

    Result<DmaBlock> allocate(uint64_t bytes) override;
    Result<void> release(const DmaBlock& block) override;
    Result<BusAddress> map(Gpa gpa, uint64_t, Access) override {
        return BusAddress{gpa.value + offset_};
    }
    Result<void> unmap(BusAddress, uint64_t) override { return {}; }
    Result<void> sync() override { return {}; }

  private:
    Memory& memory_;
    uint64_t offset_;
};

/// `bytes` of memory, pages as asked for, at no bus address yet.
Result<DmaBlock> allocate_block(Memory& memory, uint64_t bytes, Placement placement);
/// The inverse.
void release_block(Memory& memory, const DmaBlock& block);

}  // namespace viommu::guest
