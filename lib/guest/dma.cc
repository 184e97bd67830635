// SPDX-License-Identifier: BSD-3-Clause
#include "dma.hh"

#include <algorithm>
#include <cassert>

namespace viommu::guest {

namespace {

/// Call `piece(pointer, done, size)` for each part of [offset, offset + size) that is in one page.
template <class Piece>
void for_each_piece(const DmaBlock& block, uint64_t offset, uint64_t size, Piece piece) {
    assert(offset <= block.bytes && size <= block.bytes - offset);
    for (uint64_t done = 0; done < size;) {
        const uint64_t left_in_page = kPageBytes - (offset + done) % kPageBytes;
        const uint64_t n = std::min(size - done, left_in_page);
        piece(block.at(offset + done), done, n);
        done += n;
    }
}

}  // namespace

void DmaBlock::write(uint64_t offset, std::span<const std::byte> from) const {
    for_each_piece(*this, offset, from.size(), [&](std::byte* at, uint64_t done, uint64_t n) {
        std::memcpy(at, from.data() + done, n);
    });
}

void DmaBlock::read(uint64_t offset, std::span<std::byte> to) const {
    for_each_piece(*this, offset, to.size(), [&](const std::byte* at, uint64_t done, uint64_t n) {
        std::memcpy(to.data() + done, at, n);
    });
}

Result<DmaBlock> allocate_block(Memory& memory, uint64_t bytes, Placement placement) {
    DmaBlock block;
    block.bytes = bytes;
    const uint64_t pages = (bytes + kPageBytes - 1) / kPageBytes;
    if (placement == Placement::kScattered) {
        auto scattered = memory.allocate_scattered(pages);
        if (!scattered) return tl::unexpected(scattered.error());
        block.pages = std::move(*scattered);
    } else {
        const auto first = memory.allocate(pages);
        if (!first) return tl::unexpected(first.error());
        for (uint64_t i = 0; i < pages; ++i) block.pages.push_back(*first + i * kPageBytes);
    }
    for (const Gpa page : block.pages) block.data.push_back(memory.at(page, kPageBytes));
    return block;
}

void release_block(Memory& memory, const DmaBlock& block) {
    for (const Gpa page : block.pages) memory.release(page);
}

Result<DmaBlock> OffsetDma::allocate(uint64_t bytes) {
    auto block = allocate_block(memory_, bytes, Placement::kContiguous);
    if (block) block->bus = {block->pages[0].value + offset_};
    return block;
}

Result<void> OffsetDma::release(const DmaBlock& block) {
    release_block(memory_, block);
    return {};
}

}  // namespace viommu::guest
