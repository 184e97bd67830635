// SPDX-License-Identifier: BSD-3-Clause
#include "rate_limit.hh"

#include <gtest/gtest.h>

namespace viommu::share {
namespace {

using namespace std::chrono_literals;

unsigned taken(RateLimit& limit, RateLimit::Clock::time_point now, unsigned tries = 1000) {
    unsigned n = 0;
    for (unsigned i = 0; i < tries; ++i) n += limit.take(now);
    return n;
}

TEST(RateLimit, one_second_of_events_can_come_at_once_and_then_the_rate) {
    const auto t = RateLimit::Clock::time_point(100s);
    RateLimit limit(100);
    EXPECT_EQ(taken(limit, t), 100u);
    EXPECT_EQ(taken(limit, t + 9ms), 0u);
    EXPECT_EQ(taken(limit, t + 10ms), 1u);
    EXPECT_EQ(taken(limit, t + 260ms), 25u);
    EXPECT_EQ(taken(limit, t + 60s), 100u);  // no more is saved up
}

TEST(RateLimit, zero_lets_nothing_through) {
    RateLimit none(0);
    EXPECT_EQ(taken(none, RateLimit::Clock::now()), 0u);
}

}  // namespace
}  // namespace viommu::share
