// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <optional>
#include <string>

#include "viommu_base.hh"
#include "viommu_net.h"

namespace viommu::pmd {

/// What `--vdev net_viommu0,...` says. The keys are in doc/pmd.md.
struct Arguments {
    std::string iface, arena;
    uint16_t queues = 1;  ///< at most, and what an application is told
    uint16_t mtu = 0;     ///< 0: the application's, if it sets one
    /// The rest, with `readers` and `socket` still to be pointed to the strings above.
    viommu_net_options options = VIOMMU_NET_OPTIONS_INIT;
};

/// Errors: an unknown key, a value out of range, a key that is missing.
Result<Arguments> parse(const char* devargs);

/// The keys with their values, as RTE_PMD_REGISTER_PARAM_STRING wants them.
#define VIOMMU_PMD_KEYS                                                                           \
    "iface=<path> arena=<path> endpoint=<bdf or number> queues=<1-64> mac=<address> mtu=<bytes> " \
    "control=<0|1> offloads=<0|1> dirty-log=<0|1> rings=<auto|iova|uva> speed=<Mb/s> "            \
    "timeout=<ms>"

}  // namespace viommu::pmd
