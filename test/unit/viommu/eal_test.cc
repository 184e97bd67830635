// SPDX-License-Identifier: BSD-3-Clause
#include "eal.hh"

#include <gtest/gtest.h>

#include <algorithm>

namespace viommu::app {
namespace {

std::string value_of(const std::vector<std::string>& arguments, const std::string& option) {
    const auto at = std::find(arguments.begin(), arguments.end(), option);
    return at == arguments.end() || at + 1 == arguments.end() ? "" : at[1];
}

bool has(const std::vector<std::string>& arguments, const std::string& option) {
    return std::find(arguments.begin(), arguments.end(), option) != arguments.end();
}

TEST(DefaultEal, enough_cpus_give_every_lcore_its_own) {
    const unsigned lcores[] = {1, 2};
    const auto args = default_eal_arguments(lcores, {{4, 5, 6}, false, 7});
    EXPECT_EQ(value_of(args, "--lcores"), "0@4,1@5,2@6");
    EXPECT_EQ(value_of(args, "--main-lcore"), "0");
}

TEST(DefaultEal, main_lcore_shares_before_workers_do) {
    const unsigned lcores[] = {1, 2};
    EXPECT_EQ(value_of(default_eal_arguments(lcores, {{0, 1}, false, 7}), "--lcores"),
              "0@0,1@0,2@1");
}

TEST(DefaultEal, one_cpu_is_shared_by_all) {
    const unsigned lcores[] = {1, 2, 5};
    EXPECT_EQ(value_of(default_eal_arguments(lcores, {{3}, false, 7}), "--lcores"),
              "0@3,1@3,2@3,5@3");
}

TEST(DefaultEal, main_lcore_gets_an_id_that_polls_nothing) {
    const unsigned lcores[] = {0, 1};
    const auto args = default_eal_arguments(lcores, {{0, 1, 2, 3}, false, 7});
    EXPECT_EQ(value_of(args, "--lcores"), "2@0,0@1,1@2");
    EXPECT_EQ(value_of(args, "--main-lcore"), "2");
}

TEST(DefaultEal, hugepages_decide_about_memory) {
    const unsigned lcores[] = {1};
    const auto without = default_eal_arguments(lcores, {{0}, false, 7});
    EXPECT_TRUE(has(without, "--no-huge"));
    EXPECT_FALSE(has(without, "--in-memory")) << "DPDK 22.11 refuses both together";
    const auto with = default_eal_arguments(lcores, {{0}, true, 7});
    EXPECT_FALSE(has(with, "--no-huge"));
    EXPECT_TRUE(has(with, "--in-memory"));
}

TEST(DefaultEal, daemons_do_not_share_a_prefix) {
    const unsigned lcores[] = {1};
    EXPECT_TRUE(has(default_eal_arguments(lcores, {{0}, false, 7}), "--file-prefix=dpdk-viommu-7"));
}

TEST(ThisMachine, has_a_cpu_and_a_process) {
    EXPECT_FALSE(this_machine().cpus.empty());
    EXPECT_GT(this_machine().process, 0);
}

}  // namespace
}  // namespace viommu::app
