// SPDX-License-Identifier: BSD-3-Clause
/// Every interleaving of two bursts and one change that waits for them: the real BurstCount, with
/// an Atom that asks the scheduler.
#include <gtest/gtest.h>

#include <set>

#include "burst_count.hh"
#include "sched.hh"

namespace viommu::net {

class BurstCountModel {
  public:
    static void declare(model::World& world, BurstCount& bursts) {
        world.readers_words(&bursts.count_, &bursts.count_, sizeof bursts.count_);
    }
};

namespace {

using model::Broken;

struct Run {
    BurstCount bursts;
    Atomic<uint64_t> setting{0};
    bool by_old = false;   // a burst that goes by the old setting is on
    bool changed = false;  // who changed it believes that there is none, nor will be
    bool overlap = false;
};

/// A burst, as ReceiveQueue::send() has it: the fence is the section's.
void burst(Run& run) {
    run.bursts.begin();
    full_fence();
    if (run.setting.load(std::memory_order_relaxed) == 0) {
        run.by_old = true;
        run.overlap = run.overlap || run.changed;
        model::step();  // a packet; the other may find out here that nobody goes by the old
        run.overlap = run.overlap || run.changed;
        run.by_old = false;
    }
    run.bursts.end();
}

/// A change, as ControlQueue has it. Returns when it was over.
std::string change(Run& run) {
    run.setting.store(1, std::memory_order_relaxed);
    full_fence();
    const uint64_t then = run.bursts.now();
    for (const char* answer : {"at once", "later"}) {
        if (!run.bursts.is_over(then)) continue;
        run.changed = true;
        run.overlap = run.overlap || run.by_old;
        return answer;
    }
    return "not yet";
}

/// What happened in all of them: "overlap", and when the change was over.
std::set<std::string> outcomes(Broken broken) {
    std::set<std::string> found;
    const model::Scenario scenario = [&](model::World& world) {
        auto run = std::make_shared<Run>();
        auto left = std::make_shared<int>(2);
        const auto done = [=, &found] {
            if (--*left == 0 && run->overlap) found.insert("overlap");
        };
        BurstCountModel::declare(world, run->bursts);
        world.thread([=, &found] {
            found.insert(change(*run));
            done();
        });
        world.thread([=] {
            burst(*run);
            burst(*run);
            done();
        });
    };
    const model::Report report = explore(scenario, broken, 8, 1000000);
    EXPECT_TRUE(report.complete);
    EXPECT_EQ(report.violation, "");
    return found;
}

TEST(BurstCountModel, change_that_is_over_has_no_burst_by_the_old_setting) {
    EXPECT_EQ(outcomes(Broken::kNothing), (std::set<std::string>{"at once", "later", "not yet"}));
}

TEST(BurstCountModel, without_either_fence_there_is_one) {
    EXPECT_TRUE(outcomes(Broken::kNoReaderFence).count("overlap"));
    EXPECT_TRUE(outcomes(Broken::kNoWriterFence).count("overlap"));
}

}  // namespace
}  // namespace viommu::net
