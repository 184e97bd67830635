// SPDX-License-Identifier: BSD-3-Clause
#include "limits.hh"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

namespace viommu::app {
namespace {

Config with(size_t guests, size_t nets) {
    Config config;
    config.guests.resize(guests);
    for (Guest& guest : config.guests) guest.nets.resize(nets);
    return config;
}

TEST(Limits, sockets_that_librte_vhost_cannot_watch_are_refused) {
    EXPECT_EQ(too_many_sockets(with(511, 0)), std::nullopt);
    EXPECT_EQ(too_many_sockets(with(255, 1)), std::nullopt);
    const auto problem = too_many_sockets(with(256, 1));
    ASSERT_TRUE(problem);
    EXPECT_NE(problem->find("512 sockets"), std::string::npos) << *problem;
    EXPECT_NE(problem->find("at most 511"), std::string::npos) << *problem;
}

/// In a child without root's rights: what the limits are afterwards, or the message.
void raise_from(rlim_t soft, rlim_t hard, const Config& config) {
    const rlimit limit{soft, hard};
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) _exit(2);
    if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) _exit(2);
    const auto raised = raise_fd_limit(config);
    rlimit now{};
    getrlimit(RLIMIT_NOFILE, &now);
    fmt::print(stderr, "{} soft={}\n", raised ? "raised" : raised.error().message, now.rlim_cur);
    _exit(raised ? 0 : 1);
}

TEST(Limits, readers_need_descriptors_too) {
    Config config = with(2, 0);
    const size_t before = fds_needed(config);
    config.guests[1].readers.emplace();
    EXPECT_EQ(fds_needed(config), before + 132);  // two for each of 64 processes, and 4
}

TEST(Limits, queues_need_descriptors_too) {
    Config config = with(1, 1);
    const size_t before = fds_needed(config);
    config.guests[0].nets[0].queue_pairs = 3;
    config.guests[0].nets[0].control_queue = true;
    EXPECT_EQ(fds_needed(config), before + 5 * 3 + 2);  // and an interrupt for each pair
}

TEST(Limits, soft_limit_is_raised_to_the_hard_one) {
    EXPECT_EXIT(raise_from(200, 6000, with(256, 0)), testing::ExitedWithCode(0),
                "raised soft=6000");
}

TEST(Limits, hard_limit_below_the_need_is_an_error_that_says_how_many) {
    const Config config = with(256, 0);
    EXPECT_EXIT(raise_from(1024, 1024, config), testing::ExitedWithCode(1),
                fmt::format("256 guests.*{}.*the limit is 1024.*LimitNOFILE={}",
                            fds_needed(config), fds_needed(config)));
}

}  // namespace
}  // namespace viommu::app
