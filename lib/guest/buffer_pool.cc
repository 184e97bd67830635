// SPDX-License-Identifier: BSD-3-Clause
#include "buffer_pool.hh"

namespace viommu::guest {

Result<BufferPool> BufferPool::create(Memory& memory, Dma& dma, uint16_t count, uint32_t bytes,
                                      Access access, BufferMaps maps) {
    if (bytes == 0 || bytes > kPageBytes)
        return fail("packet buffers of {} bytes: from 1 to {} are possible", bytes, kPageBytes);
    BufferPool pool(memory, dma);
    pool.bytes_ = bytes;
    pool.access_ = access;
    pool.maps_ = maps;
    const auto placement =
        maps == BufferMaps::kOneMapping ? Placement::kContiguous : Placement::kScattered;
    auto block = allocate_block(memory, count * kPageBytes, placement);
    if (!block) return tl::unexpected(block.error());
    constexpr uint64_t kLine = 64;
    const uint64_t colours = (kPageBytes - bytes) / kLine + 1;
    for (uint16_t i = 0; i < count; ++i) {
        const uint64_t at = i * kPageBytes + i % colours * kLine;
        pool.buffers_.push_back({block->at(at), block->gpa(at), {}});
    }
    pool.pages_ = std::move(block->pages);
    if (auto ok = pool.map_all(); !ok) return tl::unexpected(ok.error());
    return pool;
}

Result<void> BufferPool::map_all() {
    if (maps_ == BufferMaps::kMappingPerPacket) return {};
    if (maps_ == BufferMaps::kOneMapping) {
        const auto base = dma_->map(pages_[0], pages_.size() * kPageBytes, access_);
        if (!base) return tl::unexpected(base.error());
        base_ = *base;
        for (auto& b : buffers_) b.bus = base_ + (b.gpa - pages_[0]);
    } else {
        for (auto& b : buffers_) {
            const auto bus = dma_->map(b.gpa, bytes_, access_);
            if (!bus) return tl::unexpected(bus.error());
            b.bus = *bus;
        }
    }
    return dma_->sync();
}

Result<void> BufferPool::release() {
    if (maps_ == BufferMaps::kOneMapping)
        if (auto ok = dma_->unmap(base_, pages_.size() * kPageBytes); !ok) return ok;
    if (maps_ == BufferMaps::kMappingPerBuffer)
        for (const auto& b : buffers_)
            if (auto ok = dma_->unmap(b.bus, bytes_); !ok) return ok;
    if (auto ok = dma_->sync(); !ok) return ok;
    for (const Gpa page : pages_) memory_->release(page);
    pages_.clear();
    buffers_.clear();
    return {};
}

Result<BusAddress> BufferPool::lend(uint16_t buffer) {
    Buffer& b = buffers_[buffer];
    if (maps_ == BufferMaps::kMappingPerPacket) {
        const auto bus = dma_->map(b.gpa, bytes_, access_);
        if (!bus) return bus;
        b.bus = *bus;
    }
    return b.bus;
}

Result<void> BufferPool::take_back(uint16_t buffer) {
    if (maps_ != BufferMaps::kMappingPerPacket) return {};
    return dma_->unmap(buffers_[buffer].bus, bytes_);
}

}  // namespace viommu::guest
