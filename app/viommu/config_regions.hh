// SPDX-License-Identifier: BSD-3-Clause
/// Ranges of addresses in the configuration, and the reserved ones among them.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "toml_section.hh"
#include "viommu_device.hh"

namespace viommu::app {

/// `range`, a table { first = , last = } of addresses that is `key` of `owner`, where the message
/// of a problem stands.
std::optional<IovaRange> read_address_range(const Section& owner, const Section& range,
                                            std::string_view key, uint64_t granule);

/// `msi` and `reserved` of a guest, into device.reserved. After input_range.
void read_common_regions(const Section& s, device::Config& device, uint64_t granule);

/// `reserved` of one endpoint. After the guest's.
std::vector<device::ReservedRegion> read_own_regions(const Section& s, const device::Config& device,
                                                     uint64_t granule);

}  // namespace viommu::app
