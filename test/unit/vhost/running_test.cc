// SPDX-License-Identifier: BSD-3-Clause
#include "fixture.hh"

namespace viommu::vhost::test {
namespace {

using Running = SocketTest;

TEST_F(Running, get_vring_base_stops_and_answers_what_the_device_said) {
    Frontend f(path);
    start(f);
    recorder.advance = 0x1234;
    EXPECT_EQ(0x1234u, f.get_base(1));
    EXPECT_EQ(Events{"stop 1 get_base"}, recorder.take());
    EXPECT_EQ(0x1234u, f.get_base(1));  // again: nothing to stop, same answer
    EXPECT_EQ(Events{}, recorder.take());
    ASSERT_TRUE(f.set_enable(1, true));  // starting needs addresses and a kick again
    EXPECT_EQ(Events{}, recorder.take());
    set_up(f, 1, 0x1234);
    EXPECT_TRUE(recorder.happened(started(1, 0x1234) + " no call"));
}

TEST_F(Running, get_vring_base_of_a_paused_queue_answers_where_it_paused) {
    Frontend f(path);
    start(f);
    recorder.advance = 77;
    ASSERT_TRUE(f.set_enable(0, false));
    EXPECT_EQ(77u, f.get_base(0));
    EXPECT_EQ(Events{"stop 0 disabled"}, recorder.take());
}

TEST_F(Running, get_vring_base_of_a_queue_never_started_answers_set_vring_base) {
    Frontend f(path);
    ASSERT_TRUE(f.set_features(kVersion1 | kProtocolFeaturesBit));
    ASSERT_TRUE(f.set_base(0, 0xabcd));
    EXPECT_EQ(0xabcdu, f.get_base(0));
}

TEST_F(Running, disable_and_enable_pauses_and_goes_on) {
    Frontend f(path);
    start(f);
    recorder.advance = 5;
    ASSERT_TRUE(f.set_enable(0, false));
    ASSERT_TRUE(f.set_enable(0, false));
    EXPECT_EQ(Events{"stop 0 disabled"}, recorder.take());
    ASSERT_TRUE(f.set_enable(0, true));
    ASSERT_TRUE(f.set_enable(0, true));
    EXPECT_EQ(Events{started(0, 5)}, recorder.take());
}

TEST_F(Running, set_vring_call_churn_changes_fds_only_while_stopped) {
    Frontend f(path);
    start(f);
    recorder.advance = 1;
    const int before = count_fds();
    for (uint16_t i = 1; i <= 200; ++i) {
        const Fd call = make_eventfd();
        ASSERT_TRUE(f.set_call(0, call));
        ASSERT_EQ((Events{"stop 0 reconfigured", started(0, i)}), recorder.take());
        eventfd_t count = 0;
        ASSERT_EQ(0, eventfd_read(call, &count)) << "not the new call fd";
    }
    EXPECT_EQ(before, count_fds());
    ASSERT_TRUE(f.set_call(0, -1));
    EXPECT_EQ((Events{"stop 0 reconfigured", started(0, 201) + " no call"}), recorder.take());
}

TEST_F(Running, set_vring_kick_changes_the_fd) {
    Frontend f(path);
    start(f);
    const Fd kick = make_eventfd();
    ASSERT_TRUE(f.set_kick(1, kick));
    EXPECT_EQ((Events{"stop 1 reconfigured", started(1)}), recorder.take());
    eventfd_write(kick, 3);
    ASSERT_TRUE(f.set_enable(1, false));
    EXPECT_EQ(3u, recorder.kicks);
}

TEST_F(Running, set_mem_table_stops_and_restarts_all_queues) {
    Frontend f(path);
    start(f);
    recorder.advance = 9;
    const Region bigger[] = {{.gpa = 0, .bytes = 0x20'0000, .uva = kUva}};
    ASSERT_TRUE(f.set_mem_table(bigger));
    EXPECT_EQ((Events{"stop 0 reconfigured", "stop 1 reconfigured",
                      "memory 0x0+0x200000@0x7f0000000000", started(0, 9), started(1, 9)}),
              recorder.take());
}

TEST_F(Running, set_vring_num_addr_base_restart_the_queue_with_the_new_value) {
    Frontend f(path);
    start(f);
    ASSERT_TRUE(f.set_num(0, 128));
    EXPECT_EQ((Events{"stop 0 reconfigured",
                      "start 0 size 128 at 0x7f0000000000 0x7f0000001000 0x7f0000002000 base 0"}),
              recorder.take());
    ASSERT_TRUE(f.set_addr(0, 1, 2, 3));
    EXPECT_EQ((Events{"stop 0 reconfigured", "start 0 size 128 at 0x1 0x2 0x3 base 0"}),
              recorder.take());
    ASSERT_TRUE(f.set_base(0, 40));
    EXPECT_EQ((Events{"stop 0 reconfigured", "start 0 size 128 at 0x1 0x2 0x3 base 40"}),
              recorder.take());
}

TEST_F(Running, set_features_may_change_while_queues_run) {
    Frontend f(path);
    start(f);
    ASSERT_TRUE(f.set_features(kVersion1 | kProtocolFeaturesBit | 1));
    EXPECT_EQ((Events{"stop 0 reconfigured", "stop 1 reconfigured",
                      fmt::format("features {:#x}", kVersion1 | kProtocolFeaturesBit | 1),
                      started(0), started(1)}),
              recorder.take());
}

TEST_F(Running, set_features_not_offered_changes_nothing) {
    Frontend f(path);
    start(f);
    EXPECT_FALSE(f.set_features(kVersion1 | kProtocolFeaturesBit | uint64_t(1) << 40));
    EXPECT_EQ(Events{}, recorder.take());
}

TEST_F(Running, reset_owner_disables_all_queues) {
    Frontend f(path);
    start(f);
    ASSERT_TRUE(f.ack(VHOST_USER_RESET_OWNER));
    EXPECT_EQ((Events{"stop 0 disabled", "stop 1 disabled"}), recorder.take());
    ASSERT_TRUE(f.set_enable(1, true));
    EXPECT_EQ(Events{started(1)}, recorder.take());
}

TEST_F(Running, set_vring_err_is_none_of_the_queues_business) {
    Frontend f(path);
    start(f);
    const int before = count_fds();
    {
        const Fd err = make_eventfd();
        const int fd = err;
        ASSERT_TRUE(f.ack(VHOST_USER_SET_VRING_ERR, bytes_of(uint64_t(0)), std::span(&fd, 1)));
    }
    EXPECT_EQ(Events{}, recorder.take());
    EXPECT_EQ(before, count_fds());
}

}  // namespace
}  // namespace viommu::vhost::test
