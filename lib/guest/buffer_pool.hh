// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "dma.hh"

namespace viommu::guest {

/// How packet buffers are made visible to the device.
enum class BufferMaps {
    kOneMapping,                ///< all of them adjacent, mapped once: a driver with its own pool
    kMappingPerBuffer,          ///< scattered pages, each buffer mapped once: DPDK in a guest
    kMappingPerPacket,          ///< mapped when posted, unmapped when done: Linux, iommu.strict=1
    kMappingPerPacketDeferred,  ///< the same, but UNMAPs are sent in batches: Linux's flush queue
};

/// Packet buffers, each in a page, or adjacent pages, of its own. Those that fit into a page are at
/// offsets that differ, so that their first bytes do not compete for one set of the cache.
class BufferPool {
  public:
    /// UNMAPs that are kept back with kMappingPerPacketDeferred. Until they are sent, the device
    /// may go on using what they are of.
    static constexpr size_t kFlushBatch = 256;

    /// `bytes` of each. `memory` and `dma` must outlive the pool.
    static Result<BufferPool> create(Memory& memory, Dma& dma, uint16_t count, uint32_t bytes,
                                     Access access, BufferMaps maps);
    /// All of them. What is lent is taken back: the device has been reset.
    Result<void> release();

    uint16_t count() const { return uint16_t(buffers_.size()); }
    uint32_t bytes() const { return bytes_; }
    std::span<std::byte> data(uint16_t buffer) const { return {buffers_[buffer].data, bytes_}; }
    BusAddress bus(uint16_t buffer) const { return buffers_[buffer].bus; }

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
        bool mapped;  ///< for one packet
    };
    BufferPool(Memory& memory, Dma& dma) : memory_(&memory), dma_(&dma) {}
    Result<void> allocate(uint16_t count);
    Result<void> map_all();
    Result<void> flush();
    bool per_packet() const { return maps_ >= BufferMaps::kMappingPerPacket; }

    Memory* memory_;
    Dma* dma_;
    std::vector<Buffer> buffers_;
    std::vector<Gpa> pages_;
    std::vector<BusAddress> stale_;  ///< to be unmapped with the next batch
    BusAddress base_;                ///< of all of them, with kOneMapping
    uint32_t bytes_ = 0;
    Access access_ = Access::kNone;
    BufferMaps maps_ = BufferMaps::kOneMapping;
};

}  // namespace viommu::guest
