// SPDX-License-Identifier: BSD-3-Clause
#include "ping_pong.hh"

#include "clock.hh"
#include "machine.hh"

namespace viommu::perf {

double PingPong::measure(uint64_t rounds) {
    constexpr uint64_t kReady = UINT64_MAX;
    std::atomic<uint64_t>& ball = line_.ball;
    ball.store(0, std::memory_order_relaxed);
    // An odd number is the partner's turn: it makes it even.
    std::thread partner([&] {
        (void)pin_to(cpu_);
        ball.store(kReady, std::memory_order_release);
        for (uint64_t i = 0; i < rounds; ++i) {
            while (ball.load(std::memory_order_acquire) != 2 * i + 1) {
            }
            ball.store(2 * i + 2, std::memory_order_release);
        }
    });
    while (ball.load(std::memory_order_acquire) != kReady) std::this_thread::yield();
    const uint64_t start = Clock::ticks();
    for (uint64_t i = 0; i < rounds; ++i) {
        ball.store(2 * i + 1, std::memory_order_release);
        while (ball.load(std::memory_order_acquire) != 2 * i + 2) {
        }
    }
    const double ns = Clock::ns(Clock::ticks() - start) / double(rounds);
    partner.join();
    return ns;
}

}  // namespace viommu::perf
