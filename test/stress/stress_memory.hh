// SPDX-License-Identifier: BSD-3-Clause
/// The guest memory of readers_stress.cc, and what is mapped where.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

namespace viommu::stress {

constexpr uint64_t kPage = 4096;
/// One page each, and so many pages each that they lie in more than one node and in no large leaf.
constexpr uint64_t kSmallSlots = 64, kLargeSlots = 4, kSlots = kSmallSlots + kLargeSlots;
constexpr uint64_t kLargePages = 700;
constexpr uint64_t kPoison = 0xdeadbeefdeadbeef;

constexpr uint64_t pages_of(uint64_t slot) { return slot < kSmallSlots ? 1 : kLargePages; }
/// Spread over many nodes and levels, so that nodes come and go.
constexpr uint64_t iova_of(uint64_t slot) {
    if (slot >= kSmallSlots) return (slot << 32) + 5 * kPage;
    return slot % 4 == 0 ? slot * kPage : slot * ((uint64_t{1} << 21) + kPage);
}
/// What is written into a page of a slot. The next page's is the next number.
constexpr uint64_t tag_of(uint64_t slot, uint64_t page) { return slot << 32 | page; }

/// The first of a slot's pages; nothing while it is not mapped.
using Block = std::optional<uint64_t>;

/// A word for each page, and which pages are free: enough for all slots, and twice as
/// many that wait.
/// Words are plain on purpose, see readers_stress.cc.
class Memory {
  public:
    std::vector<uint64_t> words;

    Memory() {
        for (uint64_t i = 0; i < 3 * kSlots; ++i) {
            const uint64_t slot = i / 3;
            free_[slot >= kSmallSlots].push_back(words.size());
            words.resize(words.size() + pages_of(slot), kPoison);
        }
    }
    /// Threads: the writer.
    Block take(uint64_t slot) {
        auto& free = free_[slot >= kSmallSlots];
        const uint64_t first = free.back();
        free.pop_back();
        return first;
    }
    void give_back(uint64_t slot, Block block) { free_[slot >= kSmallSlots].push_back(*block); }

  private:
    std::array<std::vector<uint64_t>, 2> free_;  // of small blocks, of large ones
};

}  // namespace viommu::stress
