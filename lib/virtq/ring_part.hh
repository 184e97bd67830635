// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "address_space.hh"

namespace viommu::virtq {

/// One part of a ring (descriptor table, available ring or used ring), found in our memory.
///
/// The part is contiguous in its address space and may be scattered over 4 KiB pages in ours
/// (dma_alloc_coherent behind an IOMMU). Every access must lie within one page: aligned accesses of
/// up to 16 bytes do, when the part is as aligned as the spec wants it.
template <uint32_t kMaxBytes>
class RingPart {
  public:
    /// Find [addr, addr + bytes). False when some of it cannot be accessed, when a 4 KiB page of
    /// the address space is not contiguous in ours, or when ours is not 16-byte aligned where the
    /// space is; then the part must not be used.
    template <AddressSpace Space>
    bool resolve(Space& space, uint64_t addr, uint32_t bytes, Access need) noexcept {
        addr_ = addr;
        bytes_ = bytes;
        need_ = need;
        skew_ = uint32_t(addr & kPageMask);
        flat_ = nullptr;
        if (bytes == 0 || bytes > kMaxBytes || addr + (bytes - 1) < addr) return false;
        bool contiguous = true;
        std::byte* begin = nullptr;
        std::byte* expected = nullptr;
        for (uint32_t done = 0; done < bytes;) {
            const auto run = space.resolve(addr + done, bytes - done, need);
            if (run.empty()) return false;
            if (done == 0) begin = run.data();
            if (((uintptr_t(run.data()) ^ (addr + done)) & 15) != 0) return false;
            if (done != 0 && run.data() != expected) {
                if (((addr + done) & kPageMask) != 0) return false;
                contiguous = false;
            }
            remember(run, skew_ + done);
            expected = run.data() + run.size();
            done += uint32_t(run.size());
        }
        if (contiguous) flat_ = begin;
        return true;
    }

    /// Whether all of what resolve() found (it was true) is found at the same places now.
    template <AddressSpace Space>
    bool is_unmoved(Space& space) const noexcept {
        for (uint32_t done = 0; done < bytes_;) {
            const auto run = space.resolve(addr_ + done, bytes_ - done, need_);
            if (run.empty()) return false;
            // The beginning of the run, and of every page in it.
            for (uint32_t in = 0; in < run.size();) {
                if (at(done + in) != run.data() + in) return false;
                in = flat_ != nullptr ? uint32_t(run.size())
                                      : in + kPageMask + 1 - ((skew_ + done + in) & kPageMask);
            }
            done += uint32_t(run.size());
        }
        return true;
    }

    /// Our address of the byte at `offset`; the access that follows must not leave its page.
    std::byte* at(uint32_t offset) const noexcept {
        if (flat_ != nullptr) [[likely]]
            return flat_ + offset;
        const uint32_t o = skew_ + offset;
        return pages_[o >> kPageLg2] + (o & kPageMask);
    }

    /// The same for an access that may leave its page: null when what follows is somewhere else.
    std::byte* at_whole(uint32_t offset, uint32_t bytes) const noexcept {
        if (flat_ != nullptr) [[likely]]
            return flat_ + offset;
        const uint32_t in_page = (skew_ + offset) & kPageMask;
        return in_page + bytes <= kPageMask + 1 ? at(offset) : nullptr;
    }

    bool is_flat() const noexcept { return flat_ != nullptr; }

  private:
    static constexpr unsigned kPageLg2 = 12;
    static constexpr uint32_t kPageMask = (1u << kPageLg2) - 1;
    // Wherever it begins, the part touches no more pages than this.
    static constexpr uint32_t kPages = ((kMaxBytes + kPageMask - 1) >> kPageLg2) + 1;

    /// Enter every page that `run`, which begins `o` bytes into the first page, has bytes of.
    void remember(std::span<std::byte> run, uint32_t o) noexcept {
        const uint32_t last = o + uint32_t(run.size()) - 1;
        for (uint32_t page = o >> kPageLg2; page <= last >> kPageLg2; ++page)
            pages_[page] = run.data() + (std::ptrdiff_t(page << kPageLg2) - std::ptrdiff_t(o));
    }

    uint64_t addr_ = 0;
    uint32_t bytes_ = 0;
    Access need_ = Access::kNone;
    std::byte* flat_ = nullptr;  // when the whole part is contiguous in our memory
    uint32_t skew_ = 0;          // of the part in its first page
    std::array<std::byte*, kPages> pages_{};
};

}  // namespace viommu::virtq
