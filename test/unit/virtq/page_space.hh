// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "viommu_virtq.hh"

namespace viommu::virtq::test {

inline constexpr uint64_t kPage = 4096;

/// An address space of 4 KiB pages, each anywhere in a pool of host pages or nowhere.
class PageSpace {
  public:
    explicit PageSpace(size_t host_pages)
        : pool_(new (std::align_val_t{kPage}) std::byte[host_pages * kPage]()),
          pages_(host_pages) {}

    /// Map one page at `addr` to host page `index`.
    void map(uint64_t addr, size_t index, Access rights = Access::kReadWrite) {
        map_[addr / kPage] = {host(index), rights};
    }
    void unmap(uint64_t addr) { map_.erase(addr / kPage); }

    /// Map the pages around [addr, addr + bytes) to host pages that are not used yet: in order, or
    /// in reverse order, so that no two neighbours are neighbours in the host.
    void add(uint64_t addr, uint64_t bytes, bool scattered, Access rights = Access::kReadWrite) {
        const uint64_t first = addr / kPage, last = (addr + bytes - 1) / kPage;
        for (uint64_t p = first; p <= last; ++p) {
            const size_t index = scattered ? next_ + (last - p) : next_ + (p - first);
            map(p * kPage, index, rights);
        }
        next_ += last - first + 1;
    }

    std::span<std::byte> resolve(uint64_t addr, uint64_t bytes, Access need) noexcept {
        ++resolves;
        longest = std::max(longest, bytes);
        std::byte* begin = at(addr, need);
        if (begin == nullptr || bytes == 0) return {};
        uint64_t have = kPage - addr % kPage;
        while (have < bytes && addr + have > addr && at(addr + have, need) == begin + have)
            have += kPage;
        return {begin, size_t(std::min(have, bytes))};
    }

    /// As the guest: nothing is checked.
    void write(uint64_t addr, const void* from, size_t bytes) {
        for (size_t i = 0; i < bytes; ++i)
            *host_at(addr + i) = static_cast<const std::byte*>(from)[i];
    }
    void read(uint64_t addr, void* to, size_t bytes) {
        for (size_t i = 0; i < bytes; ++i) static_cast<std::byte*>(to)[i] = *host_at(addr + i);
    }
    template <class T>
    void put(uint64_t addr, T v) {
        write(addr, &v, sizeof v);
    }
    template <class T>
    T get(uint64_t addr) {
        T v;
        read(addr, &v, sizeof v);
        return v;
    }
    std::byte* host_at(uint64_t addr) { return at(addr, Access::kNone); }
    std::byte* host(size_t index) { return pool_.get() + index * kPage; }
    std::vector<std::byte> snapshot() const { return {pool_.get(), pool_.get() + pages_ * kPage}; }

    uint64_t resolves = 0;  ///< calls of resolve()
    uint64_t longest = 0;   ///< the most bytes asked of it

  private:
    struct Page {
        std::byte* host;
        Access rights;
    };
    struct AlignedDelete {
        void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{kPage}); }
    };

    std::byte* at(uint64_t addr, Access need) {
        const auto it = map_.find(addr / kPage);
        if (it == map_.end() || !allows(it->second.rights, need)) return nullptr;
        return it->second.host + addr % kPage;
    }

    std::unique_ptr<std::byte[], AlignedDelete> pool_;
    size_t pages_;
    size_t next_ = 0;
    std::map<uint64_t, Page> map_;
};
static_assert(AddressSpace<PageSpace>);

}  // namespace viommu::virtq::test
