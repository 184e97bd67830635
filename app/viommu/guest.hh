// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>

#include "config.hh"
#include "iommu_port.hh"
#include "lcores.hh"
#include "report.hh"
#include "viommu_device.hh"
#include "viommu_vhost.hh"

namespace viommu::app {

/// A guest's virtio-iommu: the device, its place on an lcore, and its socket.
/// Threads: the main lcore.
class GuestIommu {
  public:
    /// `guest` outlives it. No socket is there before listen().
    GuestIommu(const Guest& guest, std::unique_ptr<device::Device> device, Lcores& lcores);

    Result<void> listen();
    /// Disconnect the frontend and remove the socket.
    void close();

    device::Device& device() { return *device_; }

    /// `faults_lost`: by the readers of this guest.
    void add_counters(Counters& out, uint64_t faults_lost);

    /// A text for the operator when requests were answered NOMEM since the last call: which quota,
    /// its value and the key to raise. The guest's driver may ignore that status (Linux does for
    /// MAPs that it sends without waiting).
    std::optional<std::string> quota_warning();

  private:
    const Guest& guest_;
    std::unique_ptr<device::Device> device_;
    Lcores& lcores_;
    vhost::IommuPort port_;
    std::unique_ptr<vhost::Socket> socket_;
    uint64_t refused_connections_ = 0;  // of a socket that was closed
    std::array<uint64_t, table::kQuotas> told_{};            // of Stats::exhausted
};

/// Create the directories that lead to `socket`, for this user only. Those that are there stay as
/// they are. Errors: says which one and why.
Result<void> make_directories(const std::string& socket);

}  // namespace viommu::app
