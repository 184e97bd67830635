// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <cstdint>

#include "reader_page.hh"
#include "viommu_base.hh"

namespace viommu::table {

/// The pages of all reader processes of one table, as its writer sees them.
///
/// There is an address for each process from the beginning, with zeros behind it while there is no
/// such process. So the writer may read any of them at any time, and needs no word with the control
/// thread when a process comes or goes.
class ReaderPages {
  public:
    static constexpr unsigned kMaxProcesses = 64;

    ReaderPages();
    ~ReaderPages();
    ReaderPages(const ReaderPages&) = delete;
    ReaderPages& operator=(const ReaderPages&) = delete;

    /// A place for one process.
    struct Place {
        unsigned process;
        Fd page;  ///< of a fixed size, for the process to map
    };
    /// On return grace periods wait for the page's sections.
    /// Threads: one control thread. Errors: all places are taken; no memory.
    Result<Place> add();
    /// The process is gone, or not to be waited for any more. On return nothing waits for it.
    /// Threads: one control thread.
    void remove(unsigned process) noexcept;

    /// Every section that began before `token`, in all processes, was left. Never blocks. Each slot
    /// is looked at until it was seen outside such a section, and not again for the same token:
    /// what a process does with its page afterwards changes nothing. Threads: the writer.
    bool passed(uint64_t token) noexcept;

    /// Bit n: the writer waits for process n (as of its last look). Threads: any.
    uint64_t holding_up() const noexcept { return holding_up_.load(std::memory_order_relaxed); }
    /// A thread of the process is, by its page, in a section that began before `token`. For whoever
    /// is about to blame it: the writer's last look may have been long ago. Threads: any.
    bool inside(unsigned process, uint64_t token) const noexcept;
    /// Bit n: there is a process n. Threads: any.
    uint64_t live() const noexcept { return live_.load(std::memory_order_relaxed); }
    /// How many threads of a process may be inside sections: what its page says. Threads: any.
    unsigned slots_taken(unsigned process) const noexcept;

  private:
    bool page_passed(unsigned process, uint64_t token) noexcept;
    const ReaderPage& page(unsigned process) const noexcept { return pages_[process]; }

    const ReaderPage* pages_;  // kMaxProcesses, always mapped
    Atomic<uint64_t> live_{0};

    // The writer's: for which token, which pages passed, and which slots of the others have not.
    uint64_t token_ = 0;
    uint64_t passed_ = 0;
    std::array<uint64_t, kMaxProcesses> pending_{};
    std::atomic<uint64_t> holding_up_{0};
};

}  // namespace viommu::table
