// SPDX-License-Identifier: BSD-3-Clause
#include "nowhere.hh"

namespace viommu::program {

Result<std::unique_ptr<Nowhere>> Nowhere::create(EndpointId endpoint, unsigned readers) {
    table::Geometry geometry;
    geometry.max_endpoints = geometry.max_regions = geometry.max_domains = 1;
    geometry.max_mappings = 1;
    geometry.arena_bytes = uint64_t{1} << 20;
    geometry.max_readers = readers;
    geometry.hugepages = table::Hugepages::kNever;
    auto table = table::Table::create(geometry);
    if (!table) return tl::unexpected(table.error());
    if (auto added = (*table)->add_endpoint(endpoint); !added) return tl::unexpected(added.error());
    return std::unique_ptr<Nowhere>(new Nowhere(std::move(*table), endpoint));
}

}  // namespace viommu::program
