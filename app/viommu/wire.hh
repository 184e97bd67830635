// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "lcores.hh"
#include "patch.hh"

namespace viommu::app {

/// Two ends that are patched together, each pair of theirs on the lcore that is to poll it.
/// Threads: control, one at a time.
class Wire {
  public:
    struct End {
        PacketEnd& end;
        std::vector<unsigned> lcores;  ///< pair i is polled by lcores[i % size]
    };

    /// Nothing is polled before resume(). The ends and `lcores` outlive it.
    Wire(const End& a, const End& b, Lcores& lcores);
    ~Wire() { pause(); }
    Wire(const Wire&) = delete;
    Wire& operator=(const Wire&) = delete;

    /// On return no lcore is at either end, nor will be before resume(). Idempotent.
    void pause();
    void resume();

    /// Threads: any.
    const Direction& a_to_b() const { return a_to_b_; }
    const Direction& b_to_a() const { return b_to_a_; }

  private:
    struct Driven {
        explicit Driven(poll::Poller& p) : poller(p) {}
        poll::Poller& poller;
        Patch patch{};
    };
    void spread(Direction& direction, const std::vector<unsigned>& ids, Lcores& lcores);

    Direction a_to_b_, b_to_a_;
    std::map<unsigned, Driven> by_lcore_;
    bool running_ = false;
};

}  // namespace viommu::app
