// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <vector>

#include "packet_end.hh"
#include "viommu_poll.hh"

namespace viommu::app {

/// Moves packets between two ends, both ways, a burst at a time. What an end does not take is
/// offered once more, then dropped and counted: a guest that does not provide buffers must not
/// hold up the other direction.
class Patch final : public poll::Pollable {
  public:
    static constexpr unsigned kBurst = 32;

    Patch(PacketEnd& a, PacketEnd& b) : a_(a), b_(b) {}

    unsigned poll() noexcept override;
    bool arm() noexcept override { return a_.arm() && b_.arm(); }
    void disarm() noexcept override;
    std::span<const int> wake_fds() const noexcept override;
    std::chrono::microseconds sleep_limit() const noexcept override;

    struct Direction {
        Counter packets;       ///< taken by the receiving end
        Counter bytes;         ///< of these
        Counter dropped_full;  ///< not taken
    };
    /// Threads: any.
    const Direction& a_to_b() const noexcept { return a_to_b_; }
    const Direction& b_to_a() const noexcept { return b_to_a_; }

  private:
    static unsigned move(PacketEnd& from, PacketEnd& to, Direction& counters) noexcept;

    PacketEnd& a_;
    PacketEnd& b_;
    Direction a_to_b_, b_to_a_;
    mutable std::vector<int> wake_fds_;  ///< of both ends, made by wake_fds()
};

}  // namespace viommu::app
