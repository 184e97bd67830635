// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>

#include "traffic.hh"

namespace viommu::example {

/// What there is to say at the end.
struct Report {
    uint32_t packet_bytes = 0;
    Passed passed;
    uint64_t faults = 0;
    guest::FaultEvent fault;  ///< the last one
};

std::string as_table(guest::Guest& guest, const Report& report);
std::string as_json(guest::Guest& guest, const Report& report);

}  // namespace viommu::example
