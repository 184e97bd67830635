// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

#include "viommu_base.hh"

namespace viommu::perf {

/// A `dpdk-viommu` of our own, in a folder of its own. Ends with its owner.
/// Threads: one.
class DaemonProcess {
  public:
    /// Where the daemon is: `path`; or, when that is empty, in the build folder or the installation
    /// that this program is in.
    static Result<std::string> find(const std::string& path);

    /// Start `program` with `config`, in which every "@DIR@" becomes the folder, on any of `cpus`.
    /// Errors: it did not become ready; with what it said.
    static Result<DaemonProcess> start(const std::string& program, std::string config,
                                       const std::vector<unsigned>& cpus);
    DaemonProcess(DaemonProcess&& other) noexcept;
    DaemonProcess& operator=(DaemonProcess&&) = delete;
    ~DaemonProcess();

    std::string path(const std::string& name) const { return (folder_ / name).string(); }
    pid_t pid() const { return pid_; }
    /// The thread that polls: the EAL's worker. 0: it was not found.
    pid_t poller() const;
    /// Stop and go on (SIGSTOP, SIGCONT), so that its CPU can be used for something else. pause()
    /// returns when all of its threads have stopped.
    void pause() const;
    void resume() const;
    std::string log() const;

  private:
    DaemonProcess(std::filesystem::path folder, pid_t pid)
        : folder_(std::move(folder)), pid_(pid) {}
    bool running();

    std::filesystem::path folder_;
    pid_t pid_;
};

}  // namespace viommu::perf
