// SPDX-License-Identifier: BSD-3-Clause
#include "dirty_log.hh"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>

#include "viommu_wire.hh"

namespace viommu::guest {

namespace {

constexpr uint64_t kWordPages = 64;

}  // namespace

Result<DirtyLog> DirtyLog::create(const Memory& memory, uint64_t extra) {
    uint64_t last = 0;
    for (const auto& r : memory.regions()) last = std::max(last, r.first.value + (r.bytes - 1));
    const uint64_t pages = (last + extra) / wire::kVhostLogPageBytes + 1;
    DirtyLog log;
    log.bytes_ = (pages + kWordPages - 1) / kWordPages * sizeof(uint64_t);
    log.fd_.reset(::memfd_create("viommu-guest-dirty", MFD_CLOEXEC));
    if (!log.fd_ || ::ftruncate(log.fd_.get(), off_t(log.bytes_)) != 0)
        return fail("dirty log: {} bytes: {}", log.bytes_, std::strerror(errno));
    void* at =
        ::mmap(nullptr, log.bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, log.fd_.get(), 0);
    if (at == MAP_FAILED)
        return fail("dirty log: mapping {} bytes: {}", log.bytes_, std::strerror(errno));
    log.words_ = static_cast<uint64_t*>(at);
    return log;
}

DirtyLog::DirtyLog(DirtyLog&& other) noexcept
    : fd_(std::move(other.fd_)),
      words_(std::exchange(other.words_, nullptr)),
      bytes_(other.bytes_) {}

DirtyLog::~DirtyLog() {
    if (words_ != nullptr) ::munmap(words_, bytes_);
}

std::vector<Gpa> DirtyLog::take() {
    std::vector<Gpa> pages;
    for (uint64_t i = 0; i < bytes_ / sizeof(uint64_t); ++i) {
        // Looked at first, so that clean words stay shared.
        std::atomic_ref word(words_[i]);
        if (word.load(std::memory_order_relaxed) == 0) continue;
        for (uint64_t bits = word.exchange(0, std::memory_order_acquire); bits != 0;
             bits &= bits - 1)
            pages.push_back(Gpa{(i * kWordPages + unsigned(std::countr_zero(bits))) *
                                wire::kVhostLogPageBytes});
    }
    return pages;
}

bool DirtyLog::is_dirty(Gpa gpa) const {
    const uint64_t page = gpa.value / wire::kVhostLogPageBytes;
    if (page >= pages()) return false;
    const uint64_t word =
        std::atomic_ref(words_[page / kWordPages]).load(std::memory_order_acquire);
    return (word >> page % kWordPages & 1) != 0;
}

}  // namespace viommu::guest
