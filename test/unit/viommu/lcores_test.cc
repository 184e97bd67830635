// SPDX-License-Identifier: BSD-3-Clause
#include "lcores.hh"

#include <gtest/gtest.h>
#include <rte_lcore.h>

#include "eal.hh"
#include "problems.hh"

namespace viommu::app {
namespace {

TEST(Lcores, function_runs_on_the_lcore_and_is_waited_for) {
    Lcores lcores({1}, poll::Policy::kAdaptive);
    ASSERT_TRUE(lcores.launch().has_value());
    unsigned ran_on = LCORE_ID_ANY;
    lcores.run_on(1, [&] { ran_on = rte_lcore_id(); });
    EXPECT_EQ(ran_on, 1u);
}

TEST(Lcores, function_runs_here_when_nothing_polls) {
    Lcores lcores({1}, poll::Policy::kAdaptive);
    unsigned ran_on = LCORE_ID_ANY;
    lcores.run_on(1, [&] { ran_on = rte_lcore_id(); });
    EXPECT_EQ(ran_on, rte_get_main_lcore());
}

TEST(Lcores, stop_frees_the_lcore_for_another_launch) {
    for (int i = 0; i < 3; i++) {
        Lcores lcores({1}, poll::Policy::kAdaptive);
        ASSERT_TRUE(lcores.launch().has_value());
        lcores.stop();
        lcores.stop();
    }
}

TEST(Lcores, lcore_in_use_is_refused) {
    Lcores first({1}, poll::Policy::kAdaptive), second({1}, poll::Policy::kAdaptive);
    ASSERT_TRUE(first.launch().has_value());
    const auto again = second.launch();
    ASSERT_FALSE(again.has_value());
    EXPECT_NE(again.error().message.find("lcore 1"), std::string::npos);
}

TEST(CheckLcores, worker_is_accepted) {
    EXPECT_TRUE(check_lcores(parse(guest_with("")).value()).empty());
}

TEST(CheckLcores, main_and_missing_ones_are_refused_with_the_workers) {
    const auto config =
        parse(guest_with(net_with("lcore = 0")) + net_with("lcore = 9", "net1", "00:06.0"));
    ASSERT_TRUE(config.has_value()) << joined(config.error());
    const auto problems = check_lcores(*config);
    ASSERT_EQ(problems.size(), 2u) << joined(problems);
    EXPECT_TRUE(problems[0].starts_with("vm.toml:11: guest.vm0.net.net0.lcore = 0: is the main"));
    EXPECT_TRUE(problems[1].starts_with("vm.toml:17: guest.vm0.net.net1.lcore = 9: is no lcore"));
    for (const auto& p : problems)
        EXPECT_NE(p.find("worker lcores are: 1"), std::string::npos) << p;
}

}  // namespace
}  // namespace viommu::app
