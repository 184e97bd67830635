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

/// Something that a Poller drives. All calls come from the Poller's thread.
class Pollable {
  public:
    virtual ~Pollable() = default;

    /// Do a bounded amount of work. Returns how much was done (0: idle).
    virtual unsigned poll() noexcept = 0;

    /// About to sleep: ask the other side for notifications. False when there is work already, in
    /// which case the Poller does not sleep. After a sleep disarm() is called.
    virtual bool arm() noexcept { return true; }
    virtual void disarm() noexcept {}

    /// Event fds that end the sleep; read (drained) by the Poller. Constant between add and remove.
    virtual std::span<const int> wake_fds() const noexcept { return {}; }

    /// The longest sleep this Pollable tolerates, for sources that have no fd to wait for (an
    /// ethdev without interrupts). Zero: never sleep.
    virtual std::chrono::microseconds sleep_limit() const noexcept {
        return std::chrono::microseconds::max();
    }
};

enum class Policy { kBusy, kAdaptive };

class Poller {
  public:
    explicit Poller(Policy policy);
    ~Poller();
    Poller(const Poller&) = delete;
    Poller& operator=(const Poller&) = delete;

    /// Threads: any but the polling one. `p` must outlive its removal.
    void add(Pollable& p);
    /// Threads: any but the polling one. On return the polling thread is not in `p` and will not be.
    /// Returns at once when `p` was not added, or run() is not running.
    void remove(Pollable& p);

    /// Poll until stop(). Threads: exactly one.
    void run() noexcept;
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
