// SPDX-License-Identifier: BSD-3-Clause
/// How a reader finds leaves. Private to lib/xlate.
#pragma once

#include <cstddef>
#include <cstdint>

#include "viommu_table.hh"

namespace viommu::xlate {

/// Walks the tree of a section, and remembers the last node of level 2 that it came through: of
/// 4 KiB granules that is the way to 512 GiB, so all but a few walks begin there.
///
/// From there on it branches only on what is as good as always the same (is it a 1 GiB leaf, is
/// anything there). 4 KiB and 2 MiB leaves in any mixture, near each other or not, cost the same,
/// and no guess of the processor goes wrong. Walks do not depend on each other, so it overlaps them.
///
/// The node is remembered in one section only: begin() finds it again.
/// Threads: the owner.
class Walker {
  public:
    /// A walk that has come to level 1, and is to go on below `entry`.
    struct Halfway {
        uint64_t leaf;   ///< what was found; 0 for the entry of a node, which is at level 0
        uint64_t below;  ///< offset of the word to look at there, or of ArenaHeader::nothing
    };

    explicit Walker(const table::View& view) noexcept : view_(view) {}

    /// A section begins. `root`: offset of its tree's root; 0 when it has none, then find() must
    /// not be called.
    void begin(uint64_t root) noexcept {
        root_ = root;
        if (near_place_ != kNowhere) remember(near_place_);
    }

    /// What covers `iova`, when that is near what was last found: three dependent loads. False: it
    /// is not, or the granule is not 4 KiB, or there is no tree; ask find().
    [[gnu::always_inline]] bool find_near(uint64_t iova, uint64_t& entry) const noexcept {
        Halfway half;
        if (!start_near(iova, half)) return false;
        entry = finish(half);
        return true;
    }
    /// What covers `iova`: a leaf, or 0. Cost: at most `levels` dependent loads.
    uint64_t find(uint64_t iova) noexcept { return finish(start(iova)); }

    /// The two halves of find_near() and find(), between which other walks may be begun.
    [[gnu::always_inline]] bool start_near(uint64_t iova, Halfway& half) const noexcept {
        if (iova >> kNearLg2 != near_place_) [[unlikely]]
            return false;
        const uint64_t entry = load(near_ + (iova >> (kNearLg2 - kIndexShift) & kIndex));
        half = {entry, 0};
        if (table::entry::is_table(entry)) [[likely]]
            half = descend(entry, iova, kGranule);
        return true;
    }
    Halfway start(uint64_t iova) noexcept;
    /// find_near() did not know: let it know now, if that is possible at all.
    [[gnu::always_inline]] void approach(uint64_t iova) noexcept {
        if (view_.granule_lg2 == kGranule && root_ != 0 && iova <= view_.input_last)
            remember(iova >> kNearLg2);
    }
    uint64_t finish(const Halfway& half) const noexcept {
        return half.leaf | load(view_.base + half.below);
    }
    /// The word that finish() looks at is wanted soon.
    void prefetch(const Halfway& half) const noexcept {
        __builtin_prefetch(view_.base + half.below);
    }

  private:
    static constexpr unsigned kGranule = table::kMinGranuleLg2;
    static constexpr unsigned kNearLg2 = kGranule + 3 * table::kNodeBits;
    // An index into a node, times the bytes of an entry: a shift right by less, and this mask.
    static constexpr unsigned kIndexShift = table::kNodeBits + 3;
    static constexpr uint64_t kIndex = (table::kNodeEntries - 1) * sizeof(table::AtomicWord);
    static constexpr uint64_t kNowhere = ~uint64_t{0};

    static uint64_t load(const std::byte* word) noexcept {
        return reinterpret_cast<const table::AtomicWord*>(word)->load(
            std::memory_order_acquire);  // R1 pairs W1
    }
    /// From the entry for a node of level 1 to the word at level 0, if there is one.
    Halfway descend(uint64_t table, uint64_t iova, unsigned granule_lg2) const noexcept {
        const uint64_t at = iova >> (granule_lg2 + table::kNodeBits - 3) & kIndex;
        const uint64_t entry = load(view_.base + table::entry::node(table) + at);
        const uint64_t slot = iova >> (granule_lg2 - 3) & kIndex;
        Halfway half{entry, table::entry::node(entry) + slot};
#if defined(__x86_64__)
        // Compilers make a branch of this, however it is put, that mixed leaves would mispredict.
        asm("testq %[table], %[leaf]\n\t"
            "cmovzq %[nothing], %[below]\n\t"
            "cmovnzq %[nothing], %[leaf]"
            : [leaf] "+r"(half.leaf), [below] "+r"(half.below)
            : [table] "i"(table::entry::kTable), [nothing] "r"(uint64_t{0})
            : "cc");
#else
        (table::entry::is_table(entry) ? half.leaf : half.below) = 0;
#endif
        return half;
    }
    /// Find the node of level 2 for a place, if there is a tree and it has one.
    [[gnu::always_inline]] void remember(uint64_t place) noexcept {
        using namespace table;
        near_place_ = kNowhere;
        if (root_ == 0) return;
        const Shape shape{kGranule, view_.levels};
        uint64_t entry = root_ | entry::kTable;
        for (unsigned level = view_.levels; level-- > kMinLevels && entry::is_table(entry);)
            entry = load(view_.base + entry::node(entry) +
                         shape.index(place << kNearLg2, level) * sizeof(AtomicWord));
        if (!entry::is_table(entry)) return;
        near_ = view_.base + entry::node(entry);
        near_place_ = place;
    }

    table::View view_;
    uint64_t root_ = 0;
    uint64_t near_place_ = kNowhere;     // addresses with these bits from kNearLg2 on
    const std::byte* near_ = nullptr;  // the node of level 2 that leads there
};

}  // namespace viommu::xlate
