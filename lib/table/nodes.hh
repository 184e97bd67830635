// SPDX-License-Identifier: BSD-3-Clause
/// Where tree nodes come from and go to. Private to lib/table.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "arena.hh"
#include "readers.hh"

namespace viommu::table {

/// The node pool of an arena. A node goes round: free (all zero) -> linked into a tree -> retired
/// (unlinked; readers may still be in it) -> waiting for a grace period -> free.
/// Threads: the writer.
class Nodes {
  public:
    explicit Nodes(Arena& arena);

    Node* at(uint64_t offset) noexcept { return arena_.node(offset); }

    uint64_t available() const noexcept { return free_.size() + (max_ - fresh_); }
    /// A zero node. available() > 0.
    uint64_t take() noexcept;

    /// Entries in use in a node: writer's book, not in the arena (a walk recreates it).
    uint16_t& used(uint64_t offset) noexcept { return used_[number(offset)]; }

    /// `offset` was unlinked, with everything below it (`level` counts from 0 for the lowest).
    void retire(uint64_t offset) { retired_.push_back(offset); }
    /// All that was retired so far waits for `token`.
    void start_waiting(Readers::Token token);
    /// Free what waited for tokens up to `token`.
    void grace_over(Readers::Token token);

    uint64_t taken() const noexcept { return fresh_ - free_.size(); }
    /// Retired and waiting subtrees, by their roots.
    uint64_t waiting() const noexcept { return retired_.size() + waiting_count_; }
    uint64_t max() const noexcept { return max_; }

    /// Number of nodes in the subtree at `offset`.
    uint64_t count(uint64_t offset) noexcept;
    /// Number of nodes in all retired and waiting subtrees.
    uint64_t count_waiting() noexcept;

  private:
    struct Batch {
        Readers::Token token;
        std::vector<uint64_t> roots;
    };

    uint64_t number(uint64_t offset) const noexcept { return (offset - first_) / kNodeBytes; }
    void free_tree(uint64_t offset);

    Arena& arena_;
    uint64_t first_;  // offset of node 0
    uint64_t max_;
    uint64_t fresh_ = 0;  // nodes from here on were never taken
    std::vector<uint64_t> free_;
    std::vector<uint16_t> used_;
    std::vector<uint64_t> retired_;
    std::deque<Batch> waiting_;
    uint64_t waiting_count_ = 0;
};

}  // namespace viommu::table
