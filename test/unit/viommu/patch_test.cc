// SPDX-License-Identifier: BSD-3-Clause
#include "patch.hh"

#include <algorithm>
#include <deque>

#include "pool.hh"

namespace viommu::app {
namespace {

using std::chrono::microseconds;

/// Gives `incoming`, takes into `taken` while there is room for a call and in all.
struct FakeEnd final : PacketEnd {
    std::deque<rte_mbuf*> incoming;
    std::vector<rte_mbuf*> taken;
    unsigned room = 1000, room_per_call = 1000;
    bool idle = true;
    unsigned disarmed = 0;
    std::vector<int> fds;
    microseconds limit = microseconds::max();

    ~FakeEnd() override {
        for (rte_mbuf* m : incoming) rte_pktmbuf_free(m);
        for (rte_mbuf* m : taken) rte_pktmbuf_free(m);
    }
    unsigned receive(std::span<rte_mbuf*> out) noexcept override {
        unsigned n = 0;
        for (; n < out.size() && !incoming.empty(); n++) {
            out[n] = incoming.front();
            incoming.pop_front();
        }
        return n;
    }
    unsigned send(std::span<rte_mbuf*> in) noexcept override {
        const unsigned n = std::min({unsigned(in.size()), room_per_call, room});
        taken.insert(taken.end(), in.begin(), in.begin() + n);
        room -= n;
        return n;
    }
    bool arm() noexcept override { return idle; }
    void disarm() noexcept override { disarmed++; }
    std::span<const int> wake_fds() const noexcept override { return fds; }
    microseconds sleep_limit() const noexcept override { return limit; }
};

class PatchTest : public WithPool {
  protected:
    void give(FakeEnd& end, unsigned packets, uint16_t bytes) {
        for (unsigned i = 0; i < packets; i++) end.incoming.push_back(packet(bytes));
    }
};

TEST_F(PatchTest, packets_go_both_ways_in_order) {
    FakeEnd a, b;
    Patch patch(a, b);
    give(a, 3, 100);
    give(b, 2, 60);
    const std::vector<rte_mbuf*> from_a(a.incoming.begin(), a.incoming.end());
    EXPECT_EQ(patch.poll(), 5u);
    EXPECT_EQ(b.taken, from_a);
    EXPECT_EQ(a.taken.size(), 2u);
    EXPECT_EQ(patch.a_to_b().packets.was(), 3u);
    EXPECT_EQ(patch.a_to_b().bytes.was(), 300u);
    EXPECT_EQ(patch.b_to_a().packets.was(), 2u);
    EXPECT_EQ(patch.b_to_a().bytes.was(), 120u);
    EXPECT_EQ(patch.poll(), 0u);
}

TEST_F(PatchTest, one_poll_moves_one_burst) {
    FakeEnd a, b;
    Patch patch(a, b);
    give(a, Patch::kBurst + 1, 60);
    EXPECT_EQ(patch.poll(), Patch::kBurst);
    EXPECT_EQ(patch.poll(), 1u);
}

TEST_F(PatchTest, end_that_takes_some_is_offered_the_rest_once_more) {
    FakeEnd a, b;
    b.room_per_call = 5;
    Patch patch(a, b);
    give(a, 12, 10);
    EXPECT_EQ(patch.poll(), 12u);
    EXPECT_EQ(b.taken.size(), 10u);
    EXPECT_EQ(patch.a_to_b().packets.was(), 10u);
    EXPECT_EQ(patch.a_to_b().bytes.was(), 100u);
    EXPECT_EQ(patch.a_to_b().dropped_full.was(), 2u);
}

TEST_F(PatchTest, full_end_drops_and_frees_and_does_not_hold_up_the_other_way) {
    FakeEnd a, b;
    b.room = 0;
    Patch patch(a, b);
    give(a, 4, 10);
    give(b, 1, 10);
    EXPECT_EQ(patch.poll(), 5u);
    EXPECT_EQ(patch.a_to_b().dropped_full.was(), 4u);
    EXPECT_EQ(a.taken.size(), 1u);
}

TEST_F(PatchTest, discard_takes_everything) {
    FakeEnd a;
    Discard nothing;
    Patch patch(a, nothing);
    give(a, 7, 10);
    EXPECT_EQ(patch.poll(), 7u);
    EXPECT_EQ(patch.a_to_b().packets.was(), 7u);
    EXPECT_EQ(patch.a_to_b().dropped_full.was(), 0u);
}

TEST_F(PatchTest, sleeps_only_when_both_ends_may_and_for_the_shorter_limit) {
    FakeEnd a, b;
    Patch patch(a, b);
    EXPECT_TRUE(patch.arm());
    b.idle = false;
    EXPECT_FALSE(patch.arm());
    a.limit = microseconds(500);
    EXPECT_EQ(patch.sleep_limit(), microseconds(500));
    a.fds = {3};
    b.fds = {4, 5};
    const auto fds = patch.wake_fds();
    EXPECT_EQ(std::vector<int>(fds.begin(), fds.end()), (std::vector<int>{3, 4, 5}));
    patch.disarm();
    EXPECT_EQ(a.disarmed, 1u);
    EXPECT_EQ(b.disarmed, 1u);
}

}  // namespace
}  // namespace viommu::app
