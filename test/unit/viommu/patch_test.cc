// SPDX-License-Identifier: BSD-3-Clause
#include "patch.hh"

#include "fake_end.hh"
#include "pool.hh"

namespace viommu::app {
namespace {

using std::chrono::microseconds;

/// Both directions between two ends on one lcore, all pairs.
struct Both {
    Both(FakeEnd& a, FakeEnd& b, unsigned lcores = 1) : to_b(a, b, lcores), to_a(b, a, lcores) {
        for (uint16_t pair = 0; pair < a.pairs(); pair++) patch.add(to_b, pair);
        for (uint16_t pair = 0; pair < b.pairs(); pair++) patch.add(to_a, pair);
    }
    Direction to_b, to_a;
    Patch patch;
};

class PatchTest : public WithPool {
  protected:
    void give(FakeEnd& end, unsigned packets, uint16_t bytes, uint16_t pair = 0) {
        for (unsigned i = 0; i < packets; i++) end.incoming[pair].push_back(packet(bytes));
    }
};

TEST_F(PatchTest, packets_go_both_ways_in_order) {
    FakeEnd a, b;
    Both both(a, b);
    give(a, 3, 100);
    give(b, 2, 60);
    const std::vector<rte_mbuf*> from_a(a.incoming[0].begin(), a.incoming[0].end());
    EXPECT_EQ(both.patch.poll(), 5u);
    EXPECT_EQ(b.taken[0], from_a);
    EXPECT_EQ(a.taken[0].size(), 2u);
    EXPECT_EQ(both.to_b.counters(0).packets.was(), 3u);
    EXPECT_EQ(both.to_b.counters(0).bytes.was(), 300u);
    EXPECT_EQ(both.to_a.counters(0).packets.was(), 2u);
    EXPECT_EQ(both.to_a.counters(0).bytes.was(), 120u);
    EXPECT_EQ(both.patch.poll(), 0u);
}

TEST_F(PatchTest, one_poll_moves_one_burst) {
    FakeEnd a, b;
    Both both(a, b);
    give(a, Patch::kBurst + 1, 60);
    EXPECT_EQ(both.patch.poll(), Patch::kBurst);
    EXPECT_EQ(both.patch.poll(), 1u);
}

TEST_F(PatchTest, end_that_takes_some_is_offered_the_rest_once_more) {
    FakeEnd a, b;
    b.room_per_call = 5;
    Both both(a, b);
    give(a, 12, 10);
    EXPECT_EQ(both.patch.poll(), 12u);
    EXPECT_EQ(b.taken[0].size(), 10u);
    EXPECT_EQ(both.to_b.counters(0).packets.was(), 10u);
    EXPECT_EQ(both.to_b.counters(0).bytes.was(), 100u);
    EXPECT_EQ(both.to_b.counters(0).dropped_full.was(), 2u);
}

TEST_F(PatchTest, full_end_drops_and_frees_and_does_not_hold_up_the_other_way) {
    FakeEnd a, b;
    b.room = 0;
    Both both(a, b);
    give(a, 4, 10);
    give(b, 1, 10);
    EXPECT_EQ(both.patch.poll(), 5u);
    EXPECT_EQ(both.to_b.counters(0).dropped_full.was(), 4u);
    EXPECT_EQ(a.taken[0].size(), 1u);
    EXPECT_EQ(b.sends, 2u) << "offered once, and once more";
}

TEST_F(PatchTest, discard_takes_everything) {
    FakeEnd a;
    Discard nothing;
    Direction to_nothing(a, nothing, 2);
    EXPECT_FALSE(to_nothing.guarded());
    Patch patch;
    patch.add(to_nothing, 0);
    give(a, 7, 10);
    EXPECT_EQ(patch.poll(), 7u);
    EXPECT_EQ(to_nothing.counters(0).packets.was(), 7u);
    EXPECT_EQ(to_nothing.counters(0).dropped_full.was(), 0u);
}

TEST_F(PatchTest, packets_go_to_the_queues_that_the_receiver_wants_each_in_order) {
    FakeEnd a, b(4);
    b.queue_of = [](const rte_mbuf& m) { return uint16_t(m.pkt_len % 4); };
    Both both(a, b);
    std::vector<std::vector<rte_mbuf*>> expected(4);
    for (uint16_t bytes : {8, 9, 8, 10, 9, 8, 11, 12, 13}) {
        a.incoming[0].push_back(packet(bytes));
        expected[bytes % 4].push_back(a.incoming[0].back());
    }
    EXPECT_EQ(both.patch.poll(), 9u);
    EXPECT_EQ(b.taken, expected);
    EXPECT_EQ(b.sends, 4u) << "one burst for each queue";
    EXPECT_EQ(both.to_b.counters(0).packets.was(), 9u);
    EXPECT_EQ(both.to_b.counters(0).bytes.was(), 88u);
}

TEST_F(PatchTest, pairs_are_counted_each_on_its_own) {
    FakeEnd a(2), b(2);
    Both both(a, b);
    give(a, 3, 10, 0);
    give(a, 4, 20, 1);
    both.patch.poll();
    EXPECT_EQ(both.to_b.counters(0).packets.was(), 3u);
    EXPECT_EQ(both.to_b.counters(0).bytes.was(), 30u);
    EXPECT_EQ(both.to_b.counters(1).packets.was(), 4u);
    EXPECT_EQ(both.to_b.counters(1).bytes.was(), 80u);
}

/// A port of many pairs must not have a larger share of its lcore than one of one pair.
TEST_F(PatchTest, work_of_a_poll_does_not_grow_with_pairs_and_all_have_their_turn) {
    FakeEnd a(4), b(4);
    Both both(a, b);
    for (uint16_t pair = 0; pair < 4; pair++) give(a, 2 * Patch::kBurst, 10, pair);
    for (unsigned polls = 1; polls <= 8; polls++) {
        EXPECT_EQ(both.patch.poll(), Patch::kBurst);
        for (uint16_t pair = 0; pair < 4; pair++)
            EXPECT_EQ(both.to_b.counters(pair).packets.was(),
                      Patch::kBurst * ((polls + 3 - pair) / 4));
    }
}

TEST_F(PatchTest, nearly_full_bursts_end_a_poll_below_two) {
    FakeEnd a(3), b(3);
    Both both(a, b);
    give(a, Patch::kBurst - 1, 10, 0);
    for (uint16_t pair : {1, 2}) give(a, Patch::kBurst, 10, pair);
    EXPECT_EQ(both.patch.poll(), 2 * Patch::kBurst - 1);
    EXPECT_EQ(both.patch.poll(), Patch::kBurst);
}

TEST_F(PatchTest, control_queue_is_polled_with_pair_0_only) {
    FakeEnd a(2), b(2);
    Direction to_b(a, b, 2);
    Patch first, second;
    first.add(to_b, 0);
    second.add(to_b, 1);
    first.poll();
    second.poll();
    EXPECT_EQ(a.controls, 1u);
    EXPECT_EQ(b.controls, 0u);
}

TEST_F(PatchTest, queues_are_guarded_only_where_lcores_can_meet) {
    FakeEnd a(2), b(2);
    EXPECT_FALSE(Direction(a, b, 1).guarded());
    EXPECT_TRUE(Direction(a, b, 2).guarded());
}

TEST_F(PatchTest, packets_for_a_queue_in_use_are_kept_and_go_first_when_it_is_free) {
    FakeEnd a(2), b(2);
    Both both(a, b, 2);
    give(a, 5, 10);
    const std::vector<rte_mbuf*> all(a.incoming[0].begin(), a.incoming[0].end());
    ASSERT_TRUE(both.to_b.enter(0));  // another lcore
    EXPECT_FALSE(both.to_b.enter(0));
    both.patch.poll();
    EXPECT_EQ(b.sends, 0u);
    EXPECT_EQ(both.to_b.counters(0).waits.was(), 1u);
    EXPECT_FALSE(both.patch.arm()) << "it has packets, and must not sleep";

    give(a, 3, 10);
    give(a, 2, 10, 1);
    EXPECT_EQ(both.patch.poll(), 2u) << "what waits is no work done; the other pair goes on";
    EXPECT_EQ(a.incoming[0].size(), 3u) << "nothing more is taken from the pair that waits";
    EXPECT_EQ(both.to_b.counters(1).packets.was(), 2u);

    both.to_b.leave(0);
    EXPECT_EQ(both.patch.poll(), 5u);
    EXPECT_EQ(b.taken[0], all) << "in their order";
    EXPECT_TRUE(both.patch.arm());
    EXPECT_EQ(both.patch.poll(), 3u);
    EXPECT_EQ(both.to_b.counters(0).packets.was(), 8u);
    EXPECT_EQ(both.to_b.counters(0).dropped_full.was(), 0u);
}

TEST_F(PatchTest, only_packets_for_the_queue_in_use_are_kept) {
    FakeEnd a, b(2);
    b.queue_of = [](const rte_mbuf& m) { return uint16_t(m.pkt_len % 2); };
    Direction to_b(a, b, 2);
    Patch patch;
    patch.add(to_b, 0);
    for (uint16_t bytes : {10, 11, 12, 13}) a.incoming[0].push_back(packet(bytes));
    ASSERT_TRUE(to_b.enter(0));
    patch.poll();
    EXPECT_EQ(b.taken[1].size(), 2u);
    EXPECT_EQ(b.taken[0].size(), 0u);
    to_b.leave(0);
    EXPECT_EQ(patch.poll(), 2u);
    ASSERT_EQ(b.taken[0].size(), 2u);
    EXPECT_EQ(b.taken[0][0]->pkt_len, 10u);
}

TEST_F(PatchTest, packets_that_wait_are_freed_at_the_end) {
    FakeEnd a, b;
    Direction to_b(a, b, 2);
    Patch patch;
    patch.add(to_b, 0);
    give(a, 5, 10);
    ASSERT_TRUE(to_b.enter(0));
    patch.poll();  // WithPool sees whether they are
}

TEST_F(PatchTest, sleeps_only_when_all_pairs_may_and_for_the_shortest_limit) {
    FakeEnd a(2), b;
    Both both(a, b);
    EXPECT_TRUE(both.patch.arm());
    a.busy_pair = 1;
    EXPECT_FALSE(both.patch.arm());
    a.limit = microseconds(500);
    EXPECT_EQ(both.patch.sleep_limit(), microseconds(500));
    a.fds = {3, 4};
    b.fds = {5};
    const auto fds = both.patch.wake_fds();
    EXPECT_EQ(std::vector<int>(fds.begin(), fds.end()), (std::vector<int>{3, 4, 5}));
    both.patch.disarm();
    EXPECT_EQ(a.disarmed, (std::vector<unsigned>{1, 1}));
    EXPECT_EQ(b.disarmed, std::vector<unsigned>{1});
}

}  // namespace
}  // namespace viommu::app
