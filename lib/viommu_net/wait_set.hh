// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <span>
#include <vector>

#include "viommu_base.hh"

namespace viommu::program {

/// What a sleeping thread waits for, as one fd that stays the same: a frontend's kick fds come and
/// go with it. Edges only, so that nobody reads an fd that is a VMM's.
class WaitSet {
  public:
    /// Errors: out of file descriptors
    static Result<WaitSet> create();

    /// Readable from an event until take().
    int fd() const noexcept { return epoll_.get(); }
    /// Threads: the one that sleeps
    void take() noexcept;

    /// Replace the kick fds. Those before must be open still. One that cannot be watched (no
    /// eventfd) makes blind() true.
    /// Threads: control
    void watch(std::span<const int> fds) noexcept;
    bool blind() const noexcept { return blind_; }
    /// Let whoever sleeps look again. Threads: any
    void ring() noexcept;

  private:
    WaitSet(Fd epoll, Fd bell) : epoll_(std::move(epoll)), bell_(std::move(bell)) {}

    Fd epoll_, bell_;
    std::vector<int> watched_;
    bool blind_ = false;
};

}  // namespace viommu::program
