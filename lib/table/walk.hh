// SPDX-License-Identifier: BSD-3-Clause
/// The geometry of a domain's tree, and the one walk that both the writer and the readers need.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "layout.hh"

namespace viommu::table {

/// Which slot of a node at which level covers an address.
struct Shape {
    unsigned granule_lg2;
    unsigned levels;

    unsigned shift(unsigned level) const { return granule_lg2 + kNodeBits * level; }
    unsigned index(uint64_t iova, unsigned level) const {
        return unsigned(iova >> shift(level)) % kNodeEntries;
    }
    /// The last address that the slot around `iova` covers.
    uint64_t slot_last(uint64_t iova, unsigned level) const {
        return iova | ((uint64_t{1} << shift(level)) - 1);
    }
    uint64_t slot_first(uint64_t iova, unsigned level) const {
        return iova & ~((uint64_t{1} << shift(level)) - 1);
    }
    /// The last address that the whole tree covers.
    uint64_t tree_last() const {
        const unsigned bits = shift(levels);
        return bits >= 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1;
    }
};

/// A leaf and where it lies.
struct Leaf {
    uint64_t entry;
    uint64_t first;
    uint64_t last;
};

/// The lowest leaf below the node at `offset` that [first, last] touches. `node_at` turns an offset
/// into a Node. [first, last] lies within what that node covers.
///
/// Threads: the writer, or a reader inside a section (the answer may then be old already)
/// Cost:    a linked node is never empty, so at most two nodes of each level are searched
template <class NodeAt>
std::optional<Leaf> first_leaf(const NodeAt& node_at, const Shape& shape, uint64_t offset,
                               unsigned level, uint64_t first, uint64_t last) {
    const Node* node = node_at(offset);
    for (uint64_t at = first;;) {
        const uint64_t slot_last = shape.slot_last(at, level);
        const uint64_t e =
            node->entries[shape.index(at, level)].load(std::memory_order_acquire);  // R1 pairs W1
        if (entry::is_leaf(e)) return Leaf{e, shape.slot_first(at, level), slot_last};
        if (entry::is_table(e)) {
            const auto below = first_leaf(node_at, shape, entry::node(e), level - 1, at,
                                          std::min(last, slot_last));
            if (below) return below;
        }
        if (slot_last >= last) return std::nullopt;
        at = slot_last + 1;
    }
}

}  // namespace viommu::table
