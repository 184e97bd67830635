// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sched.h>

#include <cstdint>

#include "atomic.hh"

namespace viommu::nic {

/// Keeps one polling thread out of what a control thread changes, without a lock: the polling
/// thread never waits, and a control thread cannot be starved by one that polls all the time, as
/// it could with a spinlock that is free for nanoseconds only.
///
/// Cost:    enter() a store and a full fence, leave() a store, as a reader's section; per burst
/// Threads: enter(), leave() one at a time; close(), open() one at a time, of any other
class Gate {
  public:
    /// False: what is behind the gate is being changed; leave it alone, and do not leave().
    bool enter() noexcept {
        inside_.store(true, std::memory_order_relaxed);
        full_fence();                                             // G1 pairs G2
        if (!closed_.load(std::memory_order_acquire)) [[likely]]  // G6 pairs G5
            return true;
        leave();
        return false;
    }
    void leave() noexcept { inside_.store(false, std::memory_order_release); }  // G3 pairs G4

    /// On return nobody is inside, nor will be before open(). Waits for at most one burst. It
    /// yields rather than spins: who is inside may need this very core to get out.
    void close() noexcept {
        shut();
        while (!empty()) sched_yield();
    }
    void open() noexcept { closed_.store(false, std::memory_order_release); }  // G5 pairs G6

    /// The halves of close(): ask, and see whether it is so.
    void shut() noexcept {
        closed_.store(true, std::memory_order_relaxed);
        full_fence();  // G2 pairs G1
    }
    bool empty() const noexcept {
        return !inside_.load(std::memory_order_acquire);  // G4 pairs G3
    }

  private:
    friend class GateModel;  // test/model

    // One line: both are the polling thread's, except when something changes.
    alignas(64) Atomic<uint64_t> inside_{false};
    Atomic<uint64_t> closed_{false};
};

}  // namespace viommu::nic
