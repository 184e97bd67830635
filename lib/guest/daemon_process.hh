// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "viommu_base.hh"

namespace viommu::guest {

/// A `dpdk-viommu` of our own, in a temporary folder of its own. Killed with its owner, and when
/// the thread that started it ends.
/// Threads: one.
class DaemonProcess {
  public:
    /// Where the daemon is: `path`; or, when that is empty, in the build folder or the installation
    /// that this program is in.
    static Result<std::string> find(const std::string& path);

    /// Start `program` with `config`, in which every "@DIR@" becomes the folder, on any of `cpus`;
    /// none: on any that we may use.
    /// Errors: it did not become ready; with what it said.
    static Result<DaemonProcess> start(const std::string& program, std::string config,
                                       const std::vector<unsigned>& cpus = {});
    DaemonProcess(DaemonProcess&& other) noexcept;
    DaemonProcess& operator=(DaemonProcess&&) = delete;
    ~DaemonProcess();

    std::string path(const std::string& name) const { return (folder_ / name).string(); }
    pid_t pid() const { return pid_; }
    bool running();
    /// What it has said so far, on both outputs.
    std::string log() const;
    /// Counters, as SIGUSR1 prints them.
    Result<std::map<std::string, uint64_t>> counters();
    /// SIGTERM. Errors: it did not end in time, or not with status 0.
    Result<void> stop();

    /// The thread that polls: the EAL's worker. 0: it was not found.
    pid_t poller() const;
    /// Stop and go on (SIGSTOP, SIGCONT), so that its CPU can be used for something else. pause()
    /// returns when all of its threads have stopped.
    void pause() const;
    void resume() const;

  private:
    DaemonProcess(std::filesystem::path folder, pid_t pid)
        : folder_(std::move(folder)), pid_(pid) {}

    std::filesystem::path folder_;
    pid_t pid_;  ///< -1: it has ended, or is another's
};

}  // namespace viommu::guest
