// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "viommu_poll.hh"

namespace viommu::poll::test {

using namespace std::chrono_literals;

/// True as soon as `condition` holds; false when it does not within ten seconds.
inline bool eventually(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + 10s;
    while (!condition()) {
        if (std::chrono::steady_clock::now() > deadline) return false;
        std::this_thread::sleep_for(100us);
    }
    return true;
}

/// A Poller that runs on its own thread until the end of the scope.
class RunningPoller {
  public:
    explicit RunningPoller(Policy policy) : poller(policy), thread_([this] { poller.run(); }) {}
    ~RunningPoller() { stop(); }
    void stop() {
        if (!thread_.joinable()) return;
        poller.stop();
        thread_.join();
    }
    /// Somebody else stops it.
    void join() { thread_.join(); }
    pthread_t thread() { return thread_.native_handle(); }

    /// It comes to rest: it has slept before and makes no rounds any more.
    bool falls_asleep() {
        return eventually([&] {
            const auto before = poller.stats();
            std::this_thread::sleep_for(20ms);
            const auto now = poller.stats();
            return now.sleeps > 0 && now.idle_rounds == before.idle_rounds &&
                   now.busy_rounds == before.busy_rounds;
        });
    }

    Poller poller;

  private:
    std::thread thread_;
};

class EventFd {
  public:
    EventFd() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
    ~EventFd() { close(fd_); }
    EventFd(const EventFd&) = delete;
    EventFd& operator=(const EventFd&) = delete;
    void signal() const { eventfd_write(fd_, 1); }
    int fd() const { return fd_; }

  private:
    int fd_;
};

/// Counts calls; work, arm()'s answer, sleep limit and fds are set by the test.
struct Probe : Pollable {
    unsigned poll() noexcept override {
        polls.fetch_add(1);
        return work.exchange(0);
    }
    bool arm() noexcept override {
        arms.fetch_add(1);
        return may_sleep.load();
    }
    void disarm() noexcept override { disarms.fetch_add(1); }
    std::span<const int> wake_fds() const noexcept override { return fds; }
    std::chrono::microseconds sleep_limit() const noexcept override { return limit; }

    std::atomic<uint64_t> polls{0}, arms{0}, disarms{0};
    std::atomic<unsigned> work{0};
    std::atomic<bool> may_sleep{true};
    std::chrono::microseconds limit = std::chrono::microseconds::max();
    std::vector<int> fds;
};

}  // namespace viommu::poll::test
