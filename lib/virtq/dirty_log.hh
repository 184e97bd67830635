// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "memory_map.hh"
#include "viommu_base.hh"
#include "viommu_wire.hh"

namespace viommu::virtq {

/// Tells a VMM that migrates its guest which pages of guest memory the device has written: a bitmap
/// that both share, a bit for each 4 KiB page, from GPA 0 on.
///
/// wrote() comes after the write. The VMM takes bits out and then copies pages, at any time; a bit
/// that is set before its page is written may be taken too early, and the write would be lost.
///
/// What was written is named by our own address, which leads to the GPA whatever the addresses in
/// the ring mean: GPAs, IOVAs, or IOVAs that the VMM took for GPAs. (The log address of
/// SET_VRING_ADDR is what the VMM takes for the used ring's GPA, so it is not used.)
///
/// Threads: any number of writers; the VMM.
class DirtyLog {
  public:
    /// `bits`: the bitmap, `bytes` long, kept mapped by it.
    DirtyLog(std::shared_ptr<const MemoryMap> memory, std::shared_ptr<std::byte> bits,
             uint64_t bytes)
        : memory_(std::move(memory)), bits_(std::move(bits)), bytes_(bytes) {}

    /// `bytes` > 0 of guest memory from `at` on, within one region, have been written.
    void wrote(const std::byte* at, size_t bytes) const noexcept {
        const auto gpa = memory_->gpa_of(at);
        if (!gpa) return;  // not guest memory, so the VMM does not copy it either
        const uint64_t last = (gpa->value + (bytes - 1)) / wire::kVhostLogPageBytes;
        for (uint64_t page = gpa->value / wire::kVhostLogPageBytes; page <= last; ++page)
            mark(page);
    }
    void wrote(std::span<const std::byte> what) const noexcept {
        if (!what.empty()) wrote(what.data(), what.size());
    }

    /// Pages written that lie beyond the bitmap: the VMM made it too small. Threads: any.
    uint64_t missed() const noexcept { return missed_.load(std::memory_order_relaxed); }

  private:
    void mark(uint64_t page) const noexcept {
        if (page / 8 >= bytes_) [[unlikely]] {
            missed_.fetch_add(1, std::memory_order_relaxed);
            return;
        }
        auto* const byte = reinterpret_cast<uint8_t*>(bits_.get()) + page / 8;
        // Release: who takes the bit out sees what was written to the page.
        __atomic_fetch_or(byte, uint8_t(1u << page % 8), __ATOMIC_RELEASE);
    }

    std::shared_ptr<const MemoryMap> memory_;
    std::shared_ptr<std::byte> bits_;
    uint64_t bytes_;
    mutable std::atomic<uint64_t> missed_{0};
};

}  // namespace viommu::virtq
