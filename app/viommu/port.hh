// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>

#include "config.hh"
#include "packet_end.hh"
#include "patch.hh"
#include "report.hh"

struct rte_mempool;

namespace viommu::app {

/// A virtio-net port of a guest on its socket, as one end of a patch.
/// Threads: the main lcore.
class NetService {
  public:
    static Result<std::unique_ptr<NetService>> create(const Guest& guest, const Net& net,
                                                      device::Device& device, rte_mempool& pool);
    ~NetService();
    NetService(const NetService&) = delete;
    NetService& operator=(const NetService&) = delete;

    PacketEnd& end();
    /// `patch`, which polls this end on `poller`, is taken out while the frontend changes the port.
    void drive_with(Patch& patch, poll::Poller& poller);

    Result<void> listen();
    void close();

    const std::string& counter_prefix() const;
    void add_counters(Counters& out) const;
    /// Faults that did not reach the guest's queue.
    uint64_t lost_faults() const;

  private:
    struct Impl;
    explicit NetService(std::unique_ptr<Impl>);
    std::unique_ptr<Impl> impl_;
};

}  // namespace viommu::app
