// SPDX-License-Identifier: BSD-3-Clause
#pragma once

#include <sched.h>

#include <chrono>
#include <thread>

namespace viommu::guest {

using Milliseconds = std::chrono::milliseconds;

/// One iteration of a loop that waits for the other side of a shared cache line.
inline void cpu_relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield" ::: "memory");
#endif
}

/// Polling with manners: spin a little, then give the CPU away, then sleep a little, so that guest
/// and daemon make progress on one core too. Lasts until a deadline.
class Patience {
  public:
    explicit Patience(Milliseconds limit) : limit_(limit) {}

    /// Wait a bit. False: the time is up.
    bool wait() {
        ++rounds_;
        if (rounds_ <= kSpins) {
            cpu_relax();
            return true;
        }
        const auto now = std::chrono::steady_clock::now();
        if (rounds_ == kSpins + 1) deadline_ = now + limit_;
        if (now >= deadline_) return false;
        if (rounds_ <= kSpins + kYields)
            sched_yield();
        else
            std::this_thread::sleep_for(std::chrono::microseconds(50));
        return true;
    }
    /// Something happened: spin again, and give it the whole time again.
    void renew() { rounds_ = 0; }

  private:
    static constexpr unsigned kSpins = 200;
    static constexpr unsigned kYields = 2000;

    Milliseconds limit_;
    unsigned rounds_ = 0;
    std::chrono::steady_clock::time_point deadline_{};
};

}  // namespace viommu::guest
