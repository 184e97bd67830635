// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <functional>
#include <vector>

namespace viommu::perf {

/// A thread of a crew: where it runs, and what it does until `stop`; returns how many operations.
struct Hand {
    unsigned cpu;
    std::function<uint64_t(const std::atomic<bool>& stop)> work;
};

struct Outcome {
    uint64_t operations = 0;
    double wall_ns = 0, cpu_ns = 0;

    double wall_each() const { return wall_ns / double(operations); }
    double cpu_each() const { return cpu_ns / double(operations); }
};

/// All at the same time, for `window_ns`.
std::vector<Outcome> run_together(const std::vector<Hand>& hands, double window_ns);

}  // namespace viommu::perf
