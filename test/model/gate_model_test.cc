// SPDX-License-Identifier: BSD-3-Clause
/// Every interleaving of one burst and one change behind a Gate: the real code, with an Atom that
/// asks the scheduler.
#include <gtest/gtest.h>

#include <set>

#include "gate.hh"
#include "sched.hh"

namespace viommu::nic {

class GateModel {
  public:
    static void declare(model::World& world, Gate& gate) {
        world.readers_words(&gate.inside_, &gate.inside_, sizeof gate.inside_);
    }
};

namespace {

using model::Broken;

struct Run {
    Gate gate;
    bool polled = false, changed = false;  // what each got
    bool polling = false;                  // and that they do not get it at one time
    bool overlap = false;
};

/// What happened in all of them: "poll", "change", "both" one after the other, "neither".
std::set<std::string> outcomes(Broken broken) {
    std::set<std::string> found;
    const model::Scenario scenario = [&](model::World& world) {
        auto run = std::make_shared<Run>();
        auto left = std::make_shared<int>(2);
        const auto done = [=, &found] {
            if (--*left != 0) return;
            if (run->overlap) found.insert("overlap");
            found.insert(run->polled    ? run->changed ? "both" : "poll"
                         : run->changed ? "change"
                                        : "neither");
        };
        GateModel::declare(world, run->gate);
        world.thread([=] {
            run->gate.shut();
            if (run->gate.empty()) {
                run->changed = true;
                run->overlap = run->overlap || run->polling;
            }
            done();
        });
        world.thread([=] {
            if (run->gate.enter()) {
                run->polled = run->polling = true;
                // A burst: the control thread may find out at any point of it that it may go on.
                model::step();
                run->overlap = run->overlap || run->changed;
                run->polling = false;
                run->gate.leave();
            }
            done();
        });
    };
    const model::Report report = explore(scenario, broken, 8, 1000000);
    EXPECT_TRUE(report.complete);
    EXPECT_EQ(report.violation, "");
    return found;
}

TEST(GateModel, burst_and_change_never_overlap) {
    const auto found = outcomes(Broken::kNothing);
    EXPECT_FALSE(found.count("overlap"));
    for (const char* possible : {"poll", "change"}) EXPECT_TRUE(found.count(possible)) << possible;
}

TEST(GateModel, without_either_fence_they_overlap) {
    EXPECT_TRUE(outcomes(Broken::kNoReaderFence).count("overlap"));
    EXPECT_TRUE(outcomes(Broken::kNoWriterFence).count("overlap"));
}

}  // namespace
}  // namespace viommu::nic
