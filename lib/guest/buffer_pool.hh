// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "dma.hh"

namespace viommu::guest {

/// How packet buffers are made visible to the device.
enum class BufferMaps {
    kOneMapping,        ///< all of them adjacent, mapped once: a driver with its own big pool
    kMappingPerBuffer,  ///< scattered pages, each mapped once: DPDK in a guest
    kMappingPerPacket,  ///< scattered pages, mapped when posted, unmapped when done: Linux
};

/// Packet buffers, each in a page of its own, at offsets that differ so that their first bytes do
/// not compete for one set of the cache.
class BufferPool {
  public:
    /// `bytes` of each: at most kPageBytes. `memory` and `dma` must outlive the pool.
    static Result<BufferPool> create(Memory& memory, Dma& dma, uint16_t count, uint32_t bytes,
                                     Access access, BufferMaps maps);
    /// All of them; none may be lent any more.
    Result<void> release();

    uint16_t count() const { return uint16_t(buffers_.size()); }
    std::span<std::byte> data(uint16_t buffer) const { return {buffers_[buffer].data, bytes_}; }

    /// The buffer's address for a device which may use it after sync().
    Result<BusAddress> lend(uint16_t buffer);
    /// The device is done with it; may be used after sync().
    Result<void> take_back(uint16_t buffer);
    Result<void> sync() { return dma_->sync(); }

  private:
    struct Buffer {
        std::byte* data;
        Gpa gpa;
        BusAddress bus;
    };
    BufferPool(Memory& memory, Dma& dma) : memory_(&memory), dma_(&dma) {}
    Result<void> map_all();

    Memory* memory_;
    Dma* dma_;
    std::vector<Buffer> buffers_;
    std::vector<Gpa> pages_;
    BusAddress base_;  // of all of them, with kOneMapping
    uint32_t bytes_ = 0;
    Access access_ = Access::kNone;
    BufferMaps maps_ = BufferMaps::kOneMapping;
};

}  // namespace viommu::guest
