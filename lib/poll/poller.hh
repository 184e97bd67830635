// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "viommu_base.hh"

namespace viommu::poll {

/// Something that a Poller drives. All calls come from the Poller's thread, except wake_fds().
class Pollable {
  public:
    virtual ~Pollable() = default;

    /// Do a bounded amount of work. Returns how much was done (0: idle).
    virtual unsigned poll() noexcept = 0;

    /// About to sleep: ask the other side for notifications. False when there is work already, in
    /// which case the Poller does not sleep. Afterwards disarm() is called, whatever arm() said;
    /// after a sleep also on Pollables that were added meanwhile.
    virtual bool arm() noexcept { return true; }
    virtual void disarm() noexcept {}

    /// Event fds that end the sleep when they are signalled. The Poller only watches for their
    /// edges and never reads them: they come from a guest's VMM, and a read could block.
    ///
    /// Threads: the caller of Poller::add(). Constant, and open, between add and remove.
    virtual std::span<const int> wake_fds() const noexcept { return {}; }

    /// The longest sleep this Pollable tolerates, for sources that have no fd to wait for (an
    /// ethdev without interrupts). Zero: never sleep. Asked before each sleep.
    virtual std::chrono::microseconds sleep_limit() const noexcept {
        return std::chrono::microseconds::max();
    }
};

enum class Policy {
    kBusy,      ///< never sleeps, never yields: give it a core of its own
    kAdaptive,  ///< idle costs nothing; shares a core with others
};

class Poller {
  public:
    /// Errors: throws std::system_error when the process is out of file descriptors or memory.
    explicit Poller(Policy policy);
    ~Poller();
    Poller(const Poller&) = delete;
    Poller& operator=(const Poller&) = delete;

    /// Threads: any but the polling one. `p` must outlive its removal.
    void add(Pollable& p);
    /// Threads: any but the polling one. On return the polling thread is not in `p` and will not
    /// be, and nothing refers to its fds. Waits for at most one round of polls. Returns at once
    /// when `p` was not added, or run() is not running.
    void remove(Pollable& p);

    /// Poll until stop(). Threads: exactly one.
    void run() noexcept;
    /// End one run(): the current one, or the next when none is running.
    ///
    /// Threads: any; also from a signal handler.
    void stop() noexcept;

    /// Rounds in which nothing was done, rounds with work, and sleeps. Threads: any.
    struct Stats {
        uint64_t idle_rounds, busy_rounds, sleeps;
    };
    Stats stats() const noexcept;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace viommu::poll
