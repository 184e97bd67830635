// SPDX-License-Identifier: BSD-3-Clause
#include "paged_dma.hh"

#include <cassert>

namespace viommu::guest {

namespace {

/// The pages that [first, first + bytes) touches.
uint64_t pages_of(uint64_t first, uint64_t bytes) {
    return (first % kPageBytes + bytes + kPageBytes - 1) / kPageBytes;
}

IovaRange run_of(Iova first, uint64_t pages) { return {first, first + (pages * kPageBytes - 1)}; }

std::string describe(const Request& request) {
    const auto decoded = wire::decode(std::span(request.out).first(request.out_bytes));
    if (const auto* map = std::get_if<wire::MapRequest>(&*decoded))
        return fmt::format("MAP {} -> {}", IovaRange{map->first, map->last}, map->gpa);
    const auto& unmap = std::get<wire::UnmapRequest>(*decoded);
    return fmt::format("UNMAP {}", IovaRange{unmap.first, unmap.last});
}

}  // namespace

IovaAllocator::IovaAllocator(IovaRange window) : window_(window) {
    // Counted in pages, for 2^64 bytes have no length.
    const uint64_t first = window.first.value / kPageBytes + (window.first.value % kPageBytes != 0);
    const uint64_t end = window.last.value / kPageBytes + (window.last.value % kPageBytes == 0xfff);
    left_ = end > first ? end - first : 0;
    window_.first = Iova{first * kPageBytes};
}

Result<Iova> IovaAllocator::take(uint64_t pages) {
    assert(pages != 0);
    if (auto& returned = returned_[pages]; !returned.empty()) {
        const Iova first = returned.back();
        returned.pop_back();
        return first;
    }
    if (pages > left_)
        return fail("{} pages of IOVA wanted, {} are left in {}; give a larger window", pages,
                    left_, window_);
    left_ -= pages;
    return window_.first + left_ * kPageBytes;
}

void IovaAllocator::give_back(Iova first, uint64_t pages) { returned_[pages].push_back(first); }

Result<DmaBlock> PagedDma::allocate(uint64_t bytes) {
    auto block = allocate_block(iommu_.memory(), bytes, placement_);
    if (!block) return block;
    const uint64_t count = block->pages.size();
    const auto first = iovas_.take(count);
    if (!first) return tl::unexpected(first.error());
    block->bus = {first->value};
    for (uint64_t i = 0, run = 1; i < count; i += run) {
        for (run = 1; i + run < count; ++run)
            if (block->pages[i + run] != block->pages[i] + run * kPageBytes) break;
        pending_.push_back(Request::map(domain_, run_of(*first + i * kPageBytes, run),
                                        block->pages[i], Access::kReadWrite));
    }
    if (auto ok = sync(); !ok) return tl::unexpected(ok.error());
    return block;
}

Result<void> PagedDma::release(const DmaBlock& block) {
    if (auto ok = unmap(block.bus, block.bytes); !ok) return ok;
    if (auto ok = sync(); !ok) return ok;
    release_block(iommu_.memory(), block);
    return {};
}

Result<BusAddress> PagedDma::map(Gpa gpa, uint64_t bytes, Access access) {
    const uint64_t pages = pages_of(gpa.value, bytes);
    const uint64_t offset = gpa.value % kPageBytes;
    const auto first = iovas_.take(pages);
    if (!first) return tl::unexpected(first.error());
    pending_.push_back(Request::map(domain_, run_of(*first, pages), gpa - offset, access));
    return BusAddress{first->value + offset};
}

Result<void> PagedDma::unmap(BusAddress bus, uint64_t bytes) {
    const uint64_t pages = pages_of(bus.value, bytes);
    const Iova first{bus.value - bus.value % kPageBytes};
    pending_.push_back(Request::unmap(domain_, run_of(first, pages)));
    freed_.push_back({first, pages});
    return {};
}

Result<void> PagedDma::sync() {
    if (pending_.empty()) return {};
    answers_.assign(pending_.size(), {});
    iommu_.submit(pending_, answers_);
    Result<void> result;
    for (size_t i = 0; i < pending_.size() && result; ++i)
        if (!answers_[i].ok())
            result =
                fail("domain {}: {}: {}", domain_, describe(pending_[i]), to_string(answers_[i]));
    pending_.clear();
    for (const auto& freed : freed_) iovas_.give_back(freed.first, freed.pages);
    freed_.clear();
    return result;
}

}  // namespace viommu::guest
