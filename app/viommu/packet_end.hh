// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <chrono>
#include <span>

struct rte_mbuf;

namespace viommu::app {

/// Where packets come from and go to. Threads: the lcore of the patch it is an end of, except where
/// said otherwise.
class PacketEnd {
  public:
    virtual ~PacketEnd() = default;

    /// Packets that have come in, at most out.size(); the caller owns them.
    virtual unsigned receive(std::span<rte_mbuf*> out) noexcept = 0;
    /// Take packets from the front of `in`. Returns how many it took; the rest stay the caller's.
    virtual unsigned send(std::span<rte_mbuf*> in) noexcept = 0;

    // As poll::Pollable's.
    virtual bool arm() noexcept { return true; }
    virtual void disarm() noexcept {}
    virtual std::span<const int> wake_fds() const noexcept { return {}; }
    virtual std::chrono::microseconds sleep_limit() const noexcept {
        return std::chrono::microseconds::max();
    }
};

/// The end of a port without a peer: takes everything, gives nothing.
class Discard final : public PacketEnd {
  public:
    unsigned receive(std::span<rte_mbuf*>) noexcept override { return 0; }
    unsigned send(std::span<rte_mbuf*> in) noexcept override;
};

}  // namespace viommu::app
