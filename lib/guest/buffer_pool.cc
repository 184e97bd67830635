// SPDX-License-Identifier: BSD-3-Clause
#include "buffer_pool.hh"

namespace viommu::guest {

Result<BufferPool> BufferPool::create(Memory& memory, Dma& dma, uint16_t count, uint32_t bytes,
                                      Access access, BufferMaps maps) {
    if (bytes == 0) return fail("packet buffers of 0 bytes are not possible");
    BufferPool pool(memory, dma);
    pool.bytes_ = bytes;
    pool.access_ = access;
    pool.maps_ = maps;
    if (auto ok = pool.allocate(count); !ok) return tl::unexpected(ok.error());
    if (auto ok = pool.map_all(); !ok) return tl::unexpected(ok.error());
    return pool;
}

Result<void> BufferPool::allocate(uint16_t count) {
    const uint64_t pages_each = (bytes_ + kPageBytes - 1) / kPageBytes;
    const auto add = [&](Gpa at) {
        buffers_.push_back({memory_->at(at, bytes_), at, {}, false});
    };
    if (pages_each > 1 && maps_ != BufferMaps::kOneMapping) {
        for (uint16_t i = 0; i < count; ++i) {
            const auto first = memory_->allocate(pages_each);
            if (!first) return tl::unexpected(first.error());
            for (uint64_t p = 0; p < pages_each; ++p) pages_.push_back(*first + p * kPageBytes);
            add(*first);
        }
        return {};
    }
    const auto placement =
        maps_ == BufferMaps::kOneMapping ? Placement::kContiguous : Placement::kScattered;
    auto block = allocate_block(*memory_, count * pages_each * kPageBytes, placement);
    if (!block) return tl::unexpected(block.error());
    constexpr uint64_t kLine = 64;
    const uint64_t colours = (pages_each * kPageBytes - bytes_) / kLine + 1;
    for (uint16_t i = 0; i < count; ++i)
        add(block->gpa(i * pages_each * kPageBytes + i % colours * kLine));
    pages_ = std::move(block->pages);
    return {};
}

Result<void> BufferPool::map_all() {
    if (per_packet()) return {};
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
    for (const auto& b : buffers_)
        if (maps_ == BufferMaps::kMappingPerBuffer || b.mapped)
            if (auto ok = dma_->unmap(b.bus, bytes_); !ok) return ok;
    if (auto ok = flush(); !ok) return ok;
    if (auto ok = dma_->sync(); !ok) return ok;
    for (const Gpa page : pages_) memory_->release(page);
    pages_.clear();
    buffers_.clear();
    return {};
}

Result<BusAddress> BufferPool::lend(uint16_t buffer) {
    Buffer& b = buffers_[buffer];
    if (per_packet()) {
        const auto bus = dma_->map(b.gpa, bytes_, access_);
        if (!bus) return bus;
        b.bus = *bus;
        b.mapped = true;
    }
    return b.bus;
}

Result<void> BufferPool::take_back(uint16_t buffer) {
    if (!per_packet()) return {};
    Buffer& b = buffers_[buffer];
    b.mapped = false;
    if (maps_ == BufferMaps::kMappingPerPacket) return dma_->unmap(b.bus, bytes_);
    stale_.push_back(b.bus);
    return stale_.size() < kFlushBatch ? Result<void>{} : flush();
}

Result<void> BufferPool::flush() {
    for (const BusAddress bus : stale_)
        if (auto ok = dma_->unmap(bus, bytes_); !ok) return ok;
    stale_.clear();
    return {};
}

}  // namespace viommu::guest
