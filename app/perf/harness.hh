// SPDX-License-Identifier: BSD-3-Clause
/// How things are measured here.
///
/// What is compared is measured in one process, interleaved: a round takes one sample of every
/// subject, each round begins with another subject, and the first round is thrown away. So a
/// machine that becomes slower for a while makes all of them slower, not one of them.
#pragma once

#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "stats.hh"

namespace viommu::perf {

/// One measurement, in the unit of its row: nearly always ns for one operation.
struct Sample {
    double value = 0;
    double cpu = NAN;  ///< the same in CPU time of the thread, where threads share CPUs
};

struct Subject {
    std::string name;
    std::function<Sample()> sample;
};

struct Measured {
    std::string name;
    Summary value;
    std::optional<Summary> cpu{};
    std::optional<Tail> tail{};
};

/// How long to measure.
struct Pace {
    unsigned samples = 41;     ///< of each subject
    double seconds = 4;        ///< for a set of subjects; fewer samples, at least 3, if it is up
    double sample_ns = 0.4e6;  ///< what one sample should take: short beside a scheduler's slice
    double warm_ns = 8e6;      ///< before a sample, where others have emptied the caches
    double window_ns = 30e6;   ///< a sample's, where threads share CPUs
    bool quick = false;
};

std::vector<Measured> measure(const std::vector<Subject>& subjects, const Pace& pace);
/// By name; must be there.
const Measured& find(const std::vector<Measured>& all, const std::string& name);

/// How many operations take about pace.sample_ns, a multiple of `step`. `run(n)` does n.
size_t operations_for(const Pace& pace, size_t step, const std::function<void(size_t)>& run);

/// ns per operation of `run()`, which does `operations`.
template <class F>
Sample time_per_operation(size_t operations, F&& run);

}  // namespace viommu::perf

#include "clock.hh"

namespace viommu::perf {

template <class F>
Sample time_per_operation(size_t operations, F&& run) {
    const uint64_t start = Clock::ticks();
    run();
    return {Clock::ns(Clock::ticks() - start) / double(operations)};
}

}  // namespace viommu::perf
