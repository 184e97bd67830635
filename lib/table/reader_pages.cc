// SPDX-License-Identifier: BSD-3-Clause
#include "reader_pages.hh"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

namespace viommu::table {
namespace {

constexpr uint64_t bit(unsigned n) { return uint64_t{1} << n; }

/// Zeros at `at`, or anywhere.
void* map_zeros(void* at, size_t bytes, int flags) {
    return mmap(at, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
}

}  // namespace

ReaderPages::ReaderPages() {
    void* base = map_zeros(nullptr, kMaxProcesses * sizeof(ReaderPage), 0);
    if (base == MAP_FAILED) throw std::bad_alloc();
    pages_ = static_cast<const ReaderPage*>(base);
}

ReaderPages::~ReaderPages() {
    munmap(const_cast<ReaderPage*>(pages_), kMaxProcesses * sizeof(ReaderPage));
}

Result<ReaderPages::Place> ReaderPages::add() {
    const uint64_t live = live_.load(std::memory_order_relaxed);
    if (live == ~uint64_t{0})
        return fail("all {} places for reader processes are taken: end one that is not needed",
                    kMaxProcesses);
    const auto process = unsigned(std::countr_one(live));

    Fd page(memfd_create("viommu-reader", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!page) return fail("memfd_create for a reader's page: {}", std::strerror(errno));
    // The size can never change again, so the writer cannot meet SIGBUS.
    void* at = const_cast<ReaderPage*>(&pages_[process]);
    if (ftruncate(page.get(), sizeof(ReaderPage)) != 0 ||
        fcntl(page.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0 ||
        mmap(at, sizeof(ReaderPage), PROT_READ, MAP_SHARED | MAP_FIXED | MAP_POPULATE, page.get(),
             0) == MAP_FAILED)
        return fail("a reader's page: {}", std::strerror(errno));
    live_.store(live | bit(process), std::memory_order_release);  // Q6 pairs passed()
    // The process begins to read after this: either the writer sees it, or the process sees what
    // was removed (as Q1 and Q3).
    full_fence();
    return Place{process, std::move(page)};
}

void ReaderPages::remove(unsigned process) noexcept {
    live_.store(live_.load(std::memory_order_relaxed) & ~bit(process), std::memory_order_release);
    // Replaces the page in one step. It cannot fail for lack of a mapping: there is one already; if
    // it should, the page stays, which no one looks at.
    (void)map_zeros(const_cast<ReaderPage*>(&pages_[process]), sizeof(ReaderPage), MAP_FIXED);
}

bool ReaderPages::passed(uint64_t token) noexcept {
    const uint64_t live = live_.load(std::memory_order_acquire);  // Q6 pairs add()
    if (token != token_) {
        token_ = token;
        passed_ = 0;
        pending_.fill(~uint64_t{0});
    }
    uint64_t waiting = 0;
    for (uint64_t rest = live & ~passed_; rest != 0; rest &= rest - 1) {
        const auto process = unsigned(std::countr_zero(rest));
        (page_passed(process, token) ? passed_ : waiting) |= bit(process);
    }
    if (holding_up_.load(std::memory_order_relaxed) != waiting)
        holding_up_.store(waiting, std::memory_order_relaxed);
    return waiting == 0;
}

bool ReaderPages::page_passed(unsigned process, uint64_t token) noexcept {
    const ReaderPage& p = page(process);
    uint64_t& pending = pending_[process];
    pending &= p.taken().load(std::memory_order_acquire);
    for (uint64_t rest = pending; rest != 0; rest &= rest - 1) {
        const auto slot = unsigned(std::countr_zero(rest));
        const uint64_t count = p.slots[slot].count.load(std::memory_order_acquire);  // Q4 pairs Q2
        if (count == 0 || count >= token) pending &= ~bit(slot);
    }
    return pending == 0;
}

bool ReaderPages::inside(unsigned process, uint64_t token) const noexcept {
    const ReaderPage& p = page(process);
    for (uint64_t rest = p.taken().load(std::memory_order_relaxed); rest != 0; rest &= rest - 1) {
        const auto slot = unsigned(std::countr_zero(rest));
        const uint64_t count = p.slots[slot].count.load(std::memory_order_relaxed);
        if (count != 0 && count < token) return true;
    }
    return false;
}

unsigned ReaderPages::slots_taken(unsigned process) const noexcept {
    return unsigned(std::popcount(page(process).taken().load(std::memory_order_relaxed)));
}

}  // namespace viommu::table
