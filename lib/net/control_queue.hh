// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <memory>
#include <vector>

#include "burst_count.hh"
#include "control.hh"
#include "net_queue.hh"

namespace viommu::net {

/// The controlq (virtio 1.3, 5.1.6.5): chains in, Control's acks out.
///
/// A command is answered when every receiveq has been seen outside of a burst after it: no packet
/// comes by old settings after the ack. Until then its chain lies in the ring again, as if it had
/// not been taken: nothing of it has to survive a ring that stops or goes away.
///
/// Chains may have any shape; the ack is the first writable byte. Without a place for it, or one
/// that does not translate, a command is not executed.
///
/// Threads: poll() one, the others while it does not run
class ControlQueue final : public NetQueue {
  public:
    explicit ControlQueue(xlate::Reader reader, Control& control)
        : NetQueue(std::move(reader)), control_(control), command_(Control::kMaxCommandBytes + 1) {}

    /// Bursts that go by the settings; it outlives the queue.
    void add(const BurstCount& bursts) { bursts_.push_back({&bursts, 0}); }

    /// As NetQueue's. A ring that does not go on where the last one ended is another driver's, for
    /// whom all settings are as after a reset.
    void start(const std::optional<virtq::Vring>& vring, uint32_t base, uint64_t acked);
    uint32_t stop() noexcept;

    /// Execute what there is, at most kBurst commands.
    void poll() noexcept;

  private:
    struct Watched {
        const BurstCount* bursts;
        uint64_t then;
    };

    bool serve_next() noexcept;
    bool execute() noexcept;
    bool all_over() noexcept;
    void restart() noexcept;

    Control& control_;
    std::vector<std::byte> command_;
    std::vector<Watched> bursts_;
    bool waiting_ = false;  ///< the next command has been executed, with this ack, and lies in the
    uint8_t ack_ = 0;       ///< ring until bursts are over
    bool untouched_ = false;  ///< nothing has been returned since all settings began anew
};

}  // namespace viommu::net
