// SPDX-License-Identifier: BSD-3-Clause
#include "rate_limit.hh"

#include <algorithm>

namespace viommu::share {

bool RateLimit::take(Clock::time_point now) noexcept {
    constexpr int64_t kSecond = 1'000'000'000;
    if (per_second_ == 0) return false;
    const int64_t interval = std::max<int64_t>(1, kSecond / per_second_);
    const int64_t now_ns = std::chrono::nanoseconds(now.time_since_epoch()).count();
    int64_t due = due_ns_.load(std::memory_order_relaxed);
    for (;;) {
        const int64_t from = std::max(due, now_ns);
        if (from - now_ns > kSecond - interval) return false;
        if (due_ns_.compare_exchange_weak(due, from + interval, std::memory_order_relaxed))
            return true;
    }
}

}  // namespace viommu::share
