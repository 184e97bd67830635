// SPDX-License-Identifier: BSD-3-Clause
/// Where tree nodes come from and go to. Private to lib/table.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>
#include <vector>

#include "arena.hh"
#include "readers.hh"

namespace viommu::table {

/// What the writer knows of a node; not in the arena, since a walk recreates it.
struct Book {
    uint64_t mappings;  ///< that begin in the subtree
    uint32_t nodes;     ///< in the subtree, this one included
    uint16_t used;      ///< entries of this node
};

/// The node pool of an arena. A node goes round: free -> linked into a tree -> retired (unlinked
/// with everything below it; readers may still be in it) -> waiting for a grace period -> free.
///
/// No step costs more than the work on one node: subtrees are retired and freed by their roots, and
/// a freed one is taken apart node by node, as nodes are needed again.
/// Threads: the writer.
class Nodes {
  public:
    explicit Nodes(Arena& arena);

    Node* at(uint64_t offset) noexcept { return arena_.node(offset); }
    Book& book(uint64_t offset) noexcept { return books_[(offset - first_) / kNodeBytes]; }

    uint64_t available() const noexcept { return free_nodes_ + (max_ - fresh_); }
    /// A zero node. available() > 0.
    uint64_t take() noexcept;

    /// `offset` was unlinked, with everything below it.
    void retire(uint64_t offset);
    /// All that was retired so far waits for `token`.
    void start_waiting(Readers::Token token);
    /// Free what waited for tokens up to `token`.
    void grace_over(Readers::Token token);

    uint64_t taken() const noexcept { return fresh_ - free_nodes_; }
    /// Retired and waiting subtrees, by their roots.
    uint64_t waiting() const noexcept { return retired_.roots.size() + waiting_count_; }
    uint64_t max() const noexcept { return max_; }

    /// Number of nodes in the subtree at `offset`, found by a walk.
    uint64_t count(uint64_t offset) noexcept;
    /// The same of all retired and waiting subtrees.
    uint64_t count_waiting() noexcept;

  private:
    struct Batch {
        Readers::Token token = 0;
        std::vector<uint64_t> roots;
        uint64_t nodes = 0;  // in all of them
    };
    struct Free {
        void operator()(Book* books) const { std::free(books); }
    };

    Arena& arena_;
    uint64_t first_;  // offset of node 0
    uint64_t max_;
    uint64_t fresh_ = 0;            // nodes from here on were never taken
    std::vector<uint64_t> free_;    // roots of free subtrees, not zero yet
    uint64_t free_nodes_ = 0;       // nodes in these
    std::unique_ptr<Book[], Free> books_;  // of all nodes; memory is used as nodes are
    Batch retired_;
    std::deque<Batch> waiting_;
    uint64_t waiting_count_ = 0;
};

}  // namespace viommu::table
