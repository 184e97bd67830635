// SPDX-License-Identifier: BSD-3-Clause
/// Private to lib/net.
#pragma once

#include "port.hh"

namespace viommu::net {

/// A reader section for one burst. True when the ring can be used in it. At its end what was pushed
/// is published inside the section, and the guest is signalled after it: a system call does not
/// hold up UNMAPs.
class NetPort::Burst {
  public:
    Burst(NetPort& port, Queue& queue) noexcept : port_(port), queue_(queue) {
        if (!queue.vring) return;
        port_.reader_.enter();
        inside_ = true;
        port_.descriptors_ = 0;
        ready_ = port_.ready(queue);
    }
    ~Burst() {
        if (!inside_) return;
        const bool signal = ready_ && queue_.ring.flush() && queue_.ring.needs_signal();
        port_.reader_.leave();
        port_.translations_.add(port_.space_.take_asked());
        if (signal) queue_.ring.signal();
    }
    Burst(const Burst&) = delete;
    Burst& operator=(const Burst&) = delete;

    explicit operator bool() const noexcept { return ready_; }

  private:
    NetPort& port_;
    Queue& queue_;
    bool inside_ = false;
    bool ready_ = false;
};

}  // namespace viommu::net
