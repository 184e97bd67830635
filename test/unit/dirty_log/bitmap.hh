// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <gtest/gtest.h>

#include <set>

#include "viommu_virtq.hh"

namespace viommu::virtq::test {

using Pages = std::set<uint64_t>;

/// A dirty bitmap, and the VMM's end of it.
class Bitmap {
  public:
    explicit Bitmap(uint64_t bytes) : bytes_(bytes), bits_(new std::byte[bytes]()) {}

    std::shared_ptr<DirtyLog> log(std::shared_ptr<const MemoryMap> memory) const {
        const std::shared_ptr<std::byte> bits(bits_, bits_.get());
        return std::make_shared<DirtyLog>(std::move(memory), bits, bytes_);
    }
    /// Pages that have been written since this was last asked. Threads: any.
    Pages take() {
        Pages pages;
        for (uint64_t i = 0; i < bytes_; ++i) {
            auto* const byte = reinterpret_cast<uint8_t*>(bits_.get() + i);
            if (__atomic_load_n(byte, __ATOMIC_RELAXED) == 0) continue;
            const uint8_t taken = __atomic_exchange_n(byte, uint8_t{0}, __ATOMIC_ACQ_REL);
            for (unsigned b = 0; b < 8; ++b)
                if (taken & 1 << b) pages.insert(8 * i + b);
        }
        return pages;
    }

  private:
    uint64_t bytes_;
    std::shared_ptr<std::byte[]> bits_;
};

}  // namespace viommu::virtq::test
