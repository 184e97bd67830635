// SPDX-License-Identifier: BSD-3-Clause
/// One domain's radix tree, as the writer sees it. Private to lib/table.
#pragma once

#include <cstdint>
#include <optional>

#include "arena.hh"
#include "nodes.hh"
#include "walk.hh"

namespace viommu::table {

/// What publishing a mapping would take; nothing when something is mapped in the range already.
/// `range` lies in the tree.
std::optional<uint64_t> nodes_needed(Nodes& nodes, const Shape& shape, uint64_t root,
                                     IovaRange range);

/// Publish a mapping. nodes_needed() said that there is room and nothing in the way.
void publish(Nodes& nodes, const Shape& shape, uint64_t root, IovaRange range, Gpa gpa,
             Access rights);

/// The leaf that covers `iova`.
std::optional<Leaf> find_leaf(Nodes& nodes, const Shape& shape, uint64_t root, uint64_t iova);

/// Something is mapped in `range`.
bool occupied(Nodes& nodes, const Shape& shape, uint64_t root, IovaRange range);

/// Clear every leaf in `range`, which splits no mapping; nodes left empty are unlinked and retired.
/// Returns how many mappings that were.
///
/// Cost: a subtree that `range` covers is unlinked whole, whatever is in it; so at most two nodes
/// of each level are looked through, 1024 entries times the levels, however much is unmapped.
uint64_t unpublish(Nodes& nodes, const Shape& shape, uint64_t root, IovaRange range);

}  // namespace viommu::table
