// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>

#include "config.hh"
#include "ethdev.hh"
#include "packet_end.hh"
#include "report.hh"
#include "wire.hh"

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
    /// `wire`, which this end is at, is paused while the frontend changes the port.
    /// Before listen().
    void drive_with(Wire& wire);

    Result<void> listen();
    void close();

    /// The port's cable is in or not: the guest is told if its frontend can be; a guest that could
    /// not be told of the link's return has one always.
    void set_link(bool up);

    /// Threads: for what may be asked from any
    const net::NetPort& port() const;

    /// `sent`: what the wire made of this port's packets; `received`: of its peer's. `device`: the
    /// peer, if it is one.
    void add_counters(Counters& out, const Direction& sent, const Direction& received,
                      const Ethdev* device) const;
    /// Faults that did not reach the guest's queue.
    uint64_t lost_faults() const;

  private:
    struct Impl;
    explicit NetService(std::unique_ptr<Impl>);
    std::unique_ptr<Impl> impl_;
};

}  // namespace viommu::app
