// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "address_space.hh"
#include "chain.hh"

namespace viommu::virtq {

/// An indirect table in guest memory: anywhere, at any alignment, its descriptors in any order; one
/// may straddle pieces of it. Each call of read() reads a descriptor once.
template <AddressSpace Space>
class IndirectTable {
  public:
    static constexpr uint32_t kEntryBytes = 16;
    using Entry = std::array<uint64_t, 2>;  // either format's descriptor

    IndirectTable(Space& space, uint64_t addr, uint32_t bytes) noexcept
        : space_(space), addr_(addr), bytes_(bytes) {}

    /// Whole descriptors, at least one, and it does not wrap.
    bool is_acceptable() const noexcept {
        return bytes_ != 0 && bytes_ % kEntryBytes == 0 && addr_ + (bytes_ - 1) >= addr_;
    }
    uint32_t entries() const noexcept { return bytes_ / kEntryBytes; }

    /// `index` < entries(). False: the address did not resolve.
    bool read(uint32_t index, Entry& out) noexcept {
        const uint32_t at = index * kEntryBytes;
        for (uint32_t got = 0; got < kEntryBytes;) {
            const uint32_t from = at + got;
            if (from - window_at_ >= window_.size()) {
                // Enough for what follows when it follows in order, and a bounded amount of work
                // when the guest jumps about.
                const uint32_t want = std::min(kWindow, bytes_ - from);
                window_ = space_.resolve(addr_ + from, want, Access::kRead);
                if (window_.empty()) return false;
                window_at_ = from;
            }
            const auto piece = window_.subspan(from - window_at_);
            const auto part = std::min(piece.size(), size_t{kEntryBytes - got});
            copy_once(reinterpret_cast<std::byte*>(out.data()) + got, piece.data(), part);
            got += uint32_t(part);
        }
        return true;
    }

  private:
    static constexpr uint32_t kWindow = 4096;  // bytes of the table found at a time

    Space& space_;
    const uint64_t addr_;
    const uint32_t bytes_;
    std::span<std::byte> window_;  // of the table in our memory, from byte `window_at_` on
    uint32_t window_at_ = 0;
};

}  // namespace viommu::virtq
