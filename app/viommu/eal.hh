// SPDX-License-Identifier: BSD-3-Clause
/// Starting DPDK's EAL, and what it is told when the operator tells it nothing.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "config.hh"

namespace viommu::app {

/// What the machine is like, as far as it decides about EAL arguments.
struct Machine {
    std::vector<unsigned> cpus;  ///< this process may use, ascending; never empty
    bool hugepages = false;      ///< free ones are there
    int process = 0;             ///< its ID
};
Machine this_machine();

/// No PCI devices, nothing shared with other processes, hugepages if there are some, and every
/// lcore of `lcores` on a CPU of its own as far as they go. The main lcore, which only controls,
/// gets an ID that is not in `lcores` and shares a CPU when it must.
std::vector<std::string> default_eal_arguments(std::span<const unsigned> lcores,
                                               const Machine& machine);

/// Errors: EAL refuses `arguments`; says which they were.
Result<void> start_eal(std::vector<std::string> arguments);

/// Every lcore that `config` names is an EAL worker. Call after start_eal().
Problems check_lcores(const Config& config);

}  // namespace viommu::app
