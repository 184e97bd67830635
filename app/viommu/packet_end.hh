// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <span>

struct rte_mbuf;

namespace viommu::app {

/// Where packets come from and go to: pairs of queues to receive from, and queues to send to.
///
/// Threads: one lcore at a time for a pair, and one for a queue that is sent to; the two may
/// differ. Numbers of pairs and queues are constant.
class PacketEnd {
  public:
    virtual ~PacketEnd() = default;

    virtual uint16_t pairs() const noexcept { return 1; }
    /// Packets that have come in by `pair`, at most out.size(); the caller owns them.
    virtual unsigned receive(uint16_t pair, std::span<rte_mbuf*> out) noexcept = 0;
    /// Commands of the guest; by whoever has pair 0. Nothing to do: one load.
    virtual void poll_control() noexcept {}

    virtual uint16_t send_queues() const noexcept { return 1; }
    /// Lcores 0 to lcores - 1, of which pair i of the other end belongs to i % lcores, never meet
    /// at a queue that they send to, whatever steer() says.
    virtual bool exclusive(unsigned lcores) const noexcept { return lcores <= 1; }
    /// The queue that each packet goes to; all have come from `pair` of the other end. Packets of
    /// a flow go to one queue as long as the guest does not change its mind.
    virtual void steer(std::span<rte_mbuf* const> packets, uint16_t pair,
                       std::span<uint16_t> queues) const noexcept {
        (void)pair;
        std::fill_n(queues.begin(), packets.size(), uint16_t{0});
    }
    /// Take packets from the front of `in`. Returns how many it took; the rest stay the caller's.
    virtual unsigned send(uint16_t queue, std::span<rte_mbuf*> in) noexcept = 0;

    // As poll::Pollable's, for one pair.
    virtual bool arm(uint16_t) noexcept { return true; }
    virtual void disarm(uint16_t) noexcept {}
    virtual std::span<const int> wake_fds(uint16_t) const noexcept { return {}; }
    virtual std::chrono::microseconds sleep_limit(uint16_t) const noexcept {
        return std::chrono::microseconds::max();
    }
};

/// The end of a port without a peer: takes everything, gives nothing.
class Discard final : public PacketEnd {
  public:
    uint16_t pairs() const noexcept override { return 0; }
    unsigned receive(uint16_t, std::span<rte_mbuf*>) noexcept override { return 0; }
    bool exclusive(unsigned) const noexcept override { return true; }
    unsigned send(uint16_t, std::span<rte_mbuf*> in) noexcept override;
};

}  // namespace viommu::app
