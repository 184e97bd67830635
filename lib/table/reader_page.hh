// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include "layout.hh"

namespace viommu::table {

/// The one page that a reader process writes and the table's writer reads: where its threads say
/// that they are inside a section.
///
/// The page is hostile to the writer: it may hold anything at any time. Nothing is indexed by what
/// stands here; the worst that nonsense does is that its own process is not waited for, or waited
/// for until the bound for stalled readers ends it (lib/share).
///
/// A page of zeros means: nobody here. That is what a process leaves behind.
struct ReaderPage {
    /// Readers in one process.
    static constexpr unsigned kSlots = 64;

    /// One thread's. A line of its own: threads do not slow one another down.
    struct alignas(64) Slot {
        /// 0 outside sections; inside one, ArenaHeader::reader_token as of its beginning.
        AtomicWord count;
        /// Of slot 0 only, on the line that the writer looks at anyway: bit n says that slot n is
        /// in use, so that the writer looks at no more lines than there are readers.
        AtomicWord taken;
    };
    Slot slots[kSlots];

    AtomicWord& taken() noexcept { return slots[0].taken; }
    const AtomicWord& taken() const noexcept { return slots[0].taken; }
};
static_assert(sizeof(ReaderPage) == 4096);

}  // namespace viommu::table
