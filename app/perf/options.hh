// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <string>
#include <vector>

#include "harness.hh"
#include "results.hh"
#include "viommu_base.hh"

namespace viommu::perf {

/// What the command line asks for.
struct Options {
    Pace pace;
    bool all = false;            ///< everything, not only what says most
    std::string json, plot;      ///< files; empty: none
    std::vector<unsigned> cpus;  ///< the first: of what is measured; the second: of its partner
    std::string daemon;          ///< path of dpdk-viommu

    unsigned cpu(size_t i) const { return cpus[i % cpus.size()]; }
};

/// The scenarios. Tables are printed as they are complete. Errors: something could not be set up,
/// or a subject gave a wrong answer.
Result<void> run_translate(const Options& options, Results& results);
Result<void> run_requests(const Options& options, Results& results);
Result<void> run_table(const Options& options, Results& results);
Result<void> run_net(const Options& options, Results& results);
/// Part of run_table(): how long an UNMAP waits for readers.
Result<void> run_quiescence(const Options& options, Results& results);

}  // namespace viommu::perf
