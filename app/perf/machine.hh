// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace viommu::perf {

/// Where and with what something was measured.
struct Machine {
    std::string cpu, kernel, compiler, commit, date, governor, hypervisor;
    std::vector<unsigned> cpus;  ///< that this process may use
    double load = 0;             ///< average over a minute, at the start
    double tsc_mhz = 0;
    uint64_t hugepages_free = 0, hugepages_total = 0;  ///< of 2 MiB

    bool busy() const { return load > 0.5; }
};

Machine describe_machine();
std::string as_text(const Machine& machine);
nlohmann::ordered_json as_json(const Machine& machine);

/// The calling thread runs on this CPU only. False: it may not.
bool pin_to(unsigned cpu) noexcept;

}  // namespace viommu::perf
