// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>

#include "config.hh"
#include "packet_end.hh"

struct rte_mempool;

namespace viommu::app {

/// A DPDK port as the other end of a net port: queue 0 each way, promiscuous.
class Ethdev final : public PacketEnd {
  public:
    /// Open what `peer` says, which is kVdev or kEthdev; a vdev is made first, and removed at the
    /// end. It gets `mtu`, if there is one. Received packets are in mbufs of `pool`.
    /// Errors: no such device or port, or it cannot be started; says what DPDK said.
    static Result<std::unique_ptr<Ethdev>> open(const Peer& peer, std::optional<uint16_t> mtu,
                                                rte_mempool& pool);
    ~Ethdev() override;

    unsigned receive(std::span<rte_mbuf*> out) noexcept override;
    unsigned send(std::span<rte_mbuf*> in) noexcept override;

    bool arm() noexcept override;
    void disarm() noexcept override;
    std::span<const int> wake_fds() const noexcept override;
    std::chrono::microseconds sleep_limit() const noexcept override;

    /// DPDK's port number.
    uint16_t port() const { return port_; }

  private:
    Ethdev(uint16_t port, std::string vdev) : port_(port), vdev_(std::move(vdev)) {}
    Result<void> start(std::optional<uint16_t> mtu, rte_mempool& pool);

    uint16_t port_;
    std::string vdev_;  ///< the name of the vdev that is ours; empty: the port was there
    bool started_ = false;
    int interrupt_fd_ = -1;  ///< signalled when packets come; -1: the driver has none
};

}  // namespace viommu::app
