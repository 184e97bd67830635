// SPDX-License-Identifier: BSD-3-Clause
/// A daemon in a process of its own, for tests.
#pragma once

#include <chrono>
#include <filesystem>
#include <map>
#include <string>

#include "viommu_base.hh"

namespace viommu::e2e {

/// Runs `dpdk-viommu` (environment variable VIOMMU_DAEMON) with `config`, in which every "@DIR@" is
/// replaced by a temporary directory of its own. Stopped, and checked to end well, by stop().
class Daemon {
  public:
    static Result<Daemon> start(std::string config);
    Daemon(Daemon&& other) noexcept;
    ~Daemon();

    std::string path(const std::string& name) const { return (directory_ / name).string(); }
    pid_t pid() const { return pid_; }
    bool running();
    /// Counters, as SIGUSR1 prints them.
    Result<std::map<std::string, uint64_t>> counters();
    /// SIGTERM. Errors: it did not end in time, or not with status 0.
    Result<void> stop();
    std::string log() const;

  private:
    Daemon(std::filesystem::path directory, pid_t pid) : directory_(directory), pid_(pid) {}

    std::filesystem::path directory_;
    pid_t pid_;
};

}  // namespace viommu::e2e
