// SPDX-License-Identifier: BSD-3-Clause
#include "memory.hh"

#include <sys/mman.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <cstring>

namespace viommu::guest {

namespace {

Result<void> check(std::span<const RegionLayout> banks) {
    if (banks.empty()) return fail("guest memory: no bank; give at least one");
    for (size_t i = 0; i < banks.size(); ++i) {
        const auto range = GpaRange::from_length(banks[i].first, banks[i].bytes);
        if (!range || banks[i].first.value % kPageBytes != 0 || banks[i].bytes % kPageBytes != 0)
            return fail("guest memory: bank {} ({}, {} bytes) is not made of {}-byte pages", i,
                        banks[i].first, banks[i].bytes, kPageBytes);
        for (size_t j = 0; j < i; ++j)
            if (range->overlaps(*GpaRange::from_length(banks[j].first, banks[j].bytes)))
                return fail("guest memory: banks {} and {} overlap", j, i);
    }
    return {};
}

}  // namespace

Result<std::unique_ptr<Memory>> Memory::create(uint64_t bytes) {
    const RegionLayout bank{Gpa{0}, bytes};
    return create(std::span(&bank, 1));
}

Result<std::unique_ptr<Memory>> Memory::create(std::span<const RegionLayout> banks) {
    if (auto ok = check(banks); !ok) return tl::unexpected(ok.error());
    std::unique_ptr<Memory> memory(new Memory);
    memory->fd_.reset(::memfd_create("viommu-guest", MFD_CLOEXEC));
    if (!memory->fd_) return fail("guest memory: memfd_create: {}", std::strerror(errno));
    for (const auto& bank : banks)
        if (auto ok = memory->append(bank); !ok) return tl::unexpected(ok.error());
    // Address 0 stays free for whoever takes it for "none".
    if (memory->find(Gpa{0}, 1) != nullptr) memory->take(memory->page_of(Gpa{0}));
    return memory;
}

Result<MemoryRegion> Memory::add(const RegionLayout& bank) {
    std::vector<RegionLayout> banks;
    for (const auto& r : regions_) banks.push_back({r.first, r.bytes});
    banks.push_back(bank);
    if (auto ok = check(banks); !ok) return tl::unexpected(ok.error());
    if (auto ok = append(bank); !ok) return tl::unexpected(ok.error());
    return regions_.back();
}

/// A bank at the end of the file, mapped and free.
Result<void> Memory::append(const RegionLayout& bank) {
    const uint64_t offset = used_.size() * kPageBytes;
    if (::ftruncate(fd_.get(), off_t(offset + bank.bytes)) != 0)
        return fail("guest memory: {} bytes: {}", offset + bank.bytes, std::strerror(errno));
    void* at = ::mmap(nullptr, bank.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(),
                      off_t(offset));
    if (at == MAP_FAILED)
        return fail("guest memory: mapping {} bytes: {}", bank.bytes, std::strerror(errno));
    regions_.push_back({bank.first, bank.bytes, offset, static_cast<std::byte*>(at)});
    used_.resize((offset + bank.bytes) / kPageBytes);
    free_pages_ += bank.bytes / kPageBytes;
    return {};
}

Memory::~Memory() {
    for (const auto& region : regions_) ::munmap(region.data, region.bytes);
}

const MemoryRegion* Memory::find(Gpa gpa, uint64_t bytes) const {
    for (const auto& region : regions_)
        if (region.contains(gpa, bytes)) return &region;
    return nullptr;
}

std::byte* Memory::at(Gpa gpa, uint64_t bytes) const {
    const auto* region = find(gpa, bytes);
    return region != nullptr ? region->data + (gpa - region->first) : nullptr;
}

std::optional<Uva> Memory::uva(Gpa gpa, uint64_t bytes) const {
    const auto* region = find(gpa, bytes);
    if (region == nullptr) return std::nullopt;
    return region->uva() + (gpa - region->first);
}

Gpa Memory::page_gpa(uint64_t page) const {
    const uint64_t offset = page * kPageBytes;
    for (const auto& region : regions_)
        if (offset - region.file_offset < region.bytes)
            return region.first + (offset - region.file_offset);
    assert(false);
    return {};
}

uint64_t Memory::page_of(Gpa gpa) const {
    const auto* region = find(gpa, 1);
    assert(region != nullptr);
    return (region->file_offset + (gpa - region->first)) / kPageBytes;
}

void Memory::take(uint64_t page) {
    assert(!used_[page]);
    used_[page] = true;
    --free_pages_;
    std::memset(at(page_gpa(page), kPageBytes), 0, kPageBytes);
}

Result<Gpa> Memory::allocate(uint64_t pages) {
    uint64_t run = 0;
    // Twice round, so that a run which starts before `next_` and ends behind it is found.
    for (uint64_t step = 0; pages != 0 && step < 2 * used_.size(); ++step) {
        const uint64_t page = (next_ + step) % used_.size();
        const bool follows =
            run != 0 && page != 0 && page_gpa(page) == page_gpa(page - 1) + kPageBytes;
        run = used_[page] ? 0 : follows ? run + 1 : 1;
        if (run < pages) continue;
        const uint64_t first = page + 1 - pages;
        for (uint64_t p = first; p <= page; ++p) take(p);
        next_ = page + 1;
        return page_gpa(first);
    }
    return fail("guest memory: no run of {} free pages ({} are free); make the guest larger", pages,
                free_pages_);
}

Result<std::vector<Gpa>> Memory::allocate_scattered(uint64_t pages) {
    std::vector<Gpa> result;
    for (uint64_t n = 0; n < pages; ++n) {
        random_ ^= random_ << 13, random_ ^= random_ >> 7, random_ ^= random_ << 17;
        uint64_t tried = 0;
        for (; tried < used_.size(); ++tried) {
            const uint64_t page = (random_ + tried) % used_.size();
            const Gpa gpa = page_gpa(page);
            const bool adjacent = !result.empty() && (gpa == result.back() + kPageBytes ||
                                                      result.back() == gpa + kPageBytes);
            if (used_[page] || adjacent) continue;
            take(page);
            result.push_back(gpa);
            break;
        }
        if (tried == used_.size()) {
            for (const Gpa gpa : result) release(gpa);
            return fail(
                "guest memory: {} scattered pages wanted, {} are free; make the guest larger",
                pages, free_pages_);
        }
    }
    return result;
}

void Memory::release(Gpa first, uint64_t pages) {
    const uint64_t page = page_of(first);
    for (uint64_t p = page; p < page + pages; ++p) {
        assert(used_[p]);
        used_[p] = false;
    }
    free_pages_ += pages;
}

}  // namespace viommu::guest
