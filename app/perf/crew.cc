// SPDX-License-Identifier: BSD-3-Clause
#include "crew.hh"

#include <chrono>
#include <thread>

#include "clock.hh"
#include "machine.hh"

namespace viommu::perf {

std::vector<Outcome> run_together(const std::vector<Hand>& hands, double window_ns) {
    std::vector<Outcome> outcomes(hands.size());
    std::atomic<size_t> ready = 0;
    std::atomic<bool> stop = false;
    std::vector<std::thread> threads;
    for (size_t i = 0; i < hands.size(); ++i)
        threads.emplace_back([&, i] {
            (void)pin_to(hands[i].cpu);
            ready.fetch_add(1, std::memory_order_acq_rel);
            while (ready.load(std::memory_order_acquire) < hands.size()) std::this_thread::yield();
            const uint64_t cpu = thread_cpu_ns();
            const uint64_t start = Clock::ticks();
            const uint64_t operations = hands[i].work(stop);
            outcomes[i] = {operations, Clock::ns(Clock::ticks() - start),
                           double(thread_cpu_ns() - cpu)};
        });
    while (ready.load(std::memory_order_acquire) < hands.size()) std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::nanoseconds(int64_t(window_ns)));
    stop.store(true, std::memory_order_release);
    for (auto& thread : threads) thread.join();
    return outcomes;
}

}  // namespace viommu::perf
