// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "config.hh"
#include "ethdev_sender.hh"
#include "packet_end.hh"

struct rte_mempool;

namespace viommu::app {

/// A DPDK port as the other end of a net port, promiscuous. It has as many queues each way as the
/// net port has pairs, or as many as the device can have; then several pairs send to one, those of
/// an lcore to the same. Packets that a guest has left unfinished are finished by the device where
/// it can, and else here.
class Ethdev final : public PacketEnd {
  public:
    /// Of each queue's ring, unless the device wants another number.
    static constexpr uint16_t kDescriptors = 512;

    /// What the net port is like.
    struct Options {
        std::optional<uint16_t> mtu{};
        uint16_t pairs = 1;
        unsigned lcores = 1;  ///< pair i is that of number i % lcores
        bool offloads = true;
    };

    /// Open what `peer` says, which is kVdev or kEthdev; a vdev is made first, and removed at the
    /// end. It gets the MTU, if there is one. Received packets are in mbufs of `pool`.
    /// Errors: no such device or port, or it cannot be started; says what DPDK said.
    static Result<std::unique_ptr<Ethdev>> open(const Peer& peer, const Options& options,
                                                rte_mempool& pool);
    ~Ethdev() override;

    uint16_t pairs() const noexcept override { return queues_; }
    unsigned receive(uint16_t pair, std::span<rte_mbuf*> out) noexcept override;
    uint16_t send_queues() const noexcept override { return queues_; }
    bool exclusive(unsigned lcores) const noexcept override {
        return queues_ >= options_.pairs || queues_ >= lcores;
    }
    void steer(std::span<rte_mbuf* const> packets, uint16_t pair,
               std::span<uint16_t> queues) const noexcept override;
    unsigned send(uint16_t queue, std::span<rte_mbuf*> in) noexcept override;

    bool arm(uint16_t pair) noexcept override;
    void disarm(uint16_t pair) noexcept override;
    std::span<const int> wake_fds(uint16_t pair) const noexcept override;
    std::chrono::microseconds sleep_limit(uint16_t pair) const noexcept override;

    /// Of one of send_queues().
    const EthdevSender& sender(uint16_t queue) const noexcept { return *senders_[queue]; }

    /// A device that does not say has a link. Threads: any.
    bool link_up() const noexcept;

    /// Spread what is received as the guest of `port` wants it, if that has changed, and if the
    /// device can (ethdev_rss.hh). Threads: control
    void steer_like(const net::NetPort& port);
    struct Steering {
        Counter programmed;  ///< times that the device was set as the guest wants it
        Counter refused;     ///< times that it could not be

        /// f(name, value)
        template <class F>
        void for_each(F&& f) const {
            f("rss_programmed", programmed.was());
            f("rss_refused", refused.was());
        }
    };
    /// Threads: any.
    const Steering& steering() const noexcept { return steering_; }

    /// DPDK's port number.
    uint16_t port() const { return port_; }

  private:
    Ethdev(uint16_t port, std::string vdev, const Options& options)
        : options_(options), port_(port), vdev_(std::move(vdev)) {}
    Result<void> start(rte_mempool& pool);
    struct Wishes {
        bool interrupts, rss, offloads;
    };
    int configure(const Wishes& wishes);
    Result<void> set_up_queues(rte_mempool& pool);

    const Options options_;
    uint16_t port_;
    std::string vdev_;  ///< the name of the vdev that is ours; empty: the port was there
    uint16_t queues_ = 1;
    uint64_t tx_offloads_ = 0;
    bool started_ = false;
    Steering steering_;
    uint64_t steered_like_ = 0;  ///< NetPort::rss_version(), when that was looked at last
    bool by_guest_ = false;      ///< the guest had set RSS then
    std::vector<std::unique_ptr<EthdevSender>> senders_;  ///< by queue
    /// By queue: signalled when packets come; -1: the driver has none.
    std::vector<int> interrupt_fds_;
};

}  // namespace viommu::app
