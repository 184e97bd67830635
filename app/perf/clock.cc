// SPDX-License-Identifier: BSD-3-Clause
#include "clock.hh"

#include <time.h>
#include <unistd.h>

namespace viommu::perf {
namespace {

uint64_t read_ns(clockid_t clock) noexcept {
    timespec t{};
    clock_gettime(clock, &t);
    return uint64_t(t.tv_sec) * 1'000'000'000 + uint64_t(t.tv_nsec);
}

struct Instant {
    uint64_t ticks, ns;
};

/// Both clocks at one moment: of several tries, the one that was interrupted least.
Instant both_clocks() noexcept {
    Instant best{};
    uint64_t narrowest = UINT64_MAX;
    for (int i = 0; i < 50; ++i) {
        const uint64_t before = Clock::ticks();
        const uint64_t ns = read_ns(CLOCK_MONOTONIC);
        const uint64_t after = Clock::ticks();
        if (after - before >= narrowest) continue;
        narrowest = after - before;
        best = {before + narrowest / 2, ns};
    }
    return best;
}

}  // namespace

void Clock::calibrate() {
    const Instant from = both_clocks();
    usleep(50'000);
    const Instant to = both_clocks();
    ns_per_tick_ = double(to.ns - from.ns) / double(to.ticks - from.ticks);
}

uint64_t thread_cpu_ns() noexcept { return read_ns(CLOCK_THREAD_CPUTIME_ID); }

}  // namespace viommu::perf
