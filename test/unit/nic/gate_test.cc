// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "viommu_nic.hh"

namespace viommu::nic {
namespace {

TEST(Gate, closed_one_lets_nobody_in_until_it_is_opened) {
    Gate gate;
    EXPECT_TRUE(gate.enter());
    gate.leave();
    gate.close();
    EXPECT_FALSE(gate.enter());
    EXPECT_FALSE(gate.enter());
    gate.open();
    EXPECT_TRUE(gate.enter());
    gate.leave();
}

TEST(Gate, thread_that_is_inside_is_waited_for) {
    Gate gate;
    ASSERT_TRUE(gate.enter());
    std::atomic<bool> closed = false;
    std::thread control([&] {
        gate.close();
        closed.store(true);
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_FALSE(closed.load());
    gate.leave();
    control.join();
    EXPECT_TRUE(closed.load());
}

/// What both threads use is not atomic: TSan, and the sum, say whether they met.
TEST(Gate, busy_polling_thread_neither_meets_nor_starves_a_control_thread) {
    constexpr unsigned kChanges = 2000;
    Gate gate;
    uint64_t value = 0, turns = 0;
    std::atomic<bool> stop = false;
    std::thread poller([&] {
        while (!stop.load(std::memory_order_relaxed)) {
            if (!gate.enter()) continue;
            value += 1;
            turns += 1;
            gate.leave();
        }
    });
    for (unsigned i = 0; i < kChanges; ++i) {
        gate.close();
        value += 1;
        gate.open();
    }
    stop.store(true);
    poller.join();
    EXPECT_EQ(value, turns + kChanges);
}

}  // namespace
}  // namespace viommu::nic
