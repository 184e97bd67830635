// SPDX-License-Identifier: BSD-3-Clause
/// One domain's radix tree, as the writer sees it. Private to lib/table.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "arena.hh"
#include "nodes.hh"

namespace viommu::table {

/// The geometry of a tree: which slot of a node at which level covers an address.
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

/// What publishing a mapping would take; nothing when something is mapped in the range already.
/// `range` lies in the tree.
std::optional<uint64_t> nodes_needed(Nodes& nodes, const Shape& shape, uint64_t root,
                                     IovaRange range);

/// Publish a mapping. nodes_needed() said that there is room and nothing in the way.
void publish(Nodes& nodes, const Shape& shape, uint64_t root, IovaRange range, Gpa gpa,
             Access rights);

/// The leaf that covers `iova`.
std::optional<Leaf> find_leaf(Nodes& nodes, const Shape& shape, uint64_t root, uint64_t iova);

/// Clear every leaf in `range`, which splits no mapping; nodes left empty are unlinked and retired.
/// Returns how many mappings that were.
uint64_t unpublish(Nodes& nodes, const Shape& shape, uint64_t root, IovaRange range);

}  // namespace viommu::table
