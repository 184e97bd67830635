// SPDX-License-Identifier: BSD-3-Clause
/// Private to lib/table.
#pragma once

#include <unordered_map>
#include <vector>

#include "nodes.hh"
#include "table.hh"
#include "tree.hh"

namespace viommu::table {

/// RegionSlots that some endpoints of a domain have.
struct Table::RegionSet {
    uint32_t first, count;
    uint32_t endpoints;
};

/// What only the writer knows. All of it can be made again from the arena.
struct Table::Impl {
    explicit Impl(Arena& arena)
        : nodes(arena),
          shape{arena.header().granule_lg2, arena.header().levels},
          region_sets(arena.header().max_domains) {
        for (uint32_t slot = arena.header().max_domains; slot-- > 0;) free_domains.push_back(slot);
    }

    Nodes nodes;
    Shape shape;
    std::unordered_map<EndpointId, uint32_t> endpoint_slots;
    std::unordered_map<DomainId, uint32_t> domain_slots;
    std::vector<uint32_t> free_domains;
    /// Per domain slot: the different sets of regions that its endpoints have. Nearly always one.
    std::vector<std::vector<RegionSet>> region_sets;
    uint64_t regions = 0;  // RegionSlots in use
    uint64_t mappings = 0;
    bool dirty = false;  // something was taken from readers since the last start_grace()
};

}  // namespace viommu::table
