// SPDX-License-Identifier: BSD-3-Clause
/// Apart from reader.cc: what other processes use of a Reader (libviommu) has no Table.
#include <utility>

#include "reader.hh"

namespace viommu::xlate {

Result<Reader> Reader::create(table::Table& table, FaultSink& faults, EndpointId endpoint) {
    auto section = table.readers().take();
    if (!section) return tl::unexpected(section.error());
    return create(table.arena().view(), std::move(*section), faults, endpoint);
}

}  // namespace viommu::xlate
