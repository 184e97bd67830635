// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <cstdlib>

#include "daemon_process.hh"

namespace viommu::e2e {

/// The daemon under test: environment variable VIOMMU_DAEMON names its program.
class Daemon : public guest::DaemonProcess {
  public:
    static Result<Daemon> start(std::string config) {
        const char* program = std::getenv("VIOMMU_DAEMON");
        if (program == nullptr) return fail("VIOMMU_DAEMON must name the daemon");
        auto process = DaemonProcess::start(program, std::move(config));
        if (!process) return tl::unexpected(process.error());
        return Daemon(std::move(*process));
    }

  private:
    explicit Daemon(guest::DaemonProcess&& process) : DaemonProcess(std::move(process)) {}
};

}  // namespace viommu::e2e
