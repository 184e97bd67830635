// SPDX-License-Identifier: BSD-3-Clause
/// What is different with packed rings, and with EVENT_IDX: where rings begin, stalls, signals.
#include "net_rig.hh"

namespace viommu::net::test {
namespace {

using virtq::test::PackedDriver;

void expect_working(NetRig& rig, unsigned salt = 0) {
    rig.send(frame(60, salt));
    const auto got = rig.receive();
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0], frame(60, salt));
    EXPECT_TRUE(rig.tx->pop());
}

TEST(PackedRings, position_is_kept_when_the_ring_is_bound_again) {
    Pool pool(63);
    NetRig rig(pool, {.size = 7, .acked = kAcked | kPacked, .start = 0x8000});
    for (unsigned i = 0; i < 20; ++i) {
        expect_working(rig, i);
        const uint64_t at = i % 2 != 0 ? rig.vrings[1].desc : rig.vrings[1].used;
        const size_t page = rig.page_of(at);
        rig.unmap_page(at);
        rig.send(frame(60, 100 + i));
        EXPECT_TRUE(rig.receive().empty()) << "stalled";
        rig.map_page(at, page);
        const auto got = rig.receive();
        ASSERT_EQ(got.size(), 1u);
        EXPECT_EQ(got[0], frame(60, 100 + i));
        EXPECT_TRUE(rig.tx->pop());
        rig.take_faults();
    }
    EXPECT_EQ(rig.from().ring_unmapped.was(), 20u);
}

TEST(PackedRings, stopped_they_begin_at_the_base_that_they_answered) {
    Pool pool(63);
    NetRig rig(pool, {.size = 5, .acked = kAcked | kPacked, .start = 0x8000});
    for (unsigned i = 0; i < 12; ++i) {
        expect_working(rig, i);
        // A frontend may keep the lower half only.
        const uint32_t base = rig.port->queue_stopped(1);
        EXPECT_EQ(base & 0x7fff, (i + 1) % 5);
        EXPECT_EQ(base >> 16, base & 0xffff);
        rig.vrings[1].base = i % 2 != 0 ? base : base & 0xffff;
        rig.port->queue_started(rig.vrings[1]);
    }
}

TEST(PackedRings, base_outside_the_ring_breaks_it_and_is_counted) {
    Pool pool(63);
    NetRig rig(pool, {.size = 5, .acked = kAcked | kPacked, .run = false});
    rig.vrings[1].base = 0x80058005;
    rig.start();
    rig.send(frame(60));
    EXPECT_TRUE(rig.receive().empty());
    EXPECT_EQ(rig.from().ring_broken.was(), 1u);
}

TEST(PackedRings, addresses_of_an_unaware_frontend_are_turned_back) {
    Pool pool(63);
    NetRig rig(pool, {.size = 6,
                      .acked = kAcked | kPacked,
                      .config = {.endpoint = NetRig::kEndpoint,
                                 .ring_addresses = RingAddresses::kUva},
                      .run = false});
    virtq::Vring v = rig.vrings[1];
    v.desc = NetRig::kLowGpa + 16 * kPage;
    v.avail = NetRig::kLowGpa + 20 * kPage + 4;
    v.used = NetRig::kLowGpa + 20 * kPage + 8;
    v.base = 0x80038003;
    rig.map_range(v.desc, 6 * 16);
    rig.map_range(v.avail, 8);
    rig.tx = rig.make_driver(v);
    for (uint64_t* a : {&v.desc, &v.avail, &v.used}) *a = *a - NetRig::kLowGpa + NetRig::kLowUva;
    rig.port->queue_started(v);
    for (unsigned i = 0; i < 9; ++i) expect_working(rig, i);
}

TEST(PackedRings, notifications_are_off_from_the_start_and_on_while_armed) {
    Pool pool(63);
    for (const uint64_t events : {uint64_t{0}, kEvents}) {
        NetRig rig(pool, {.size = 6, .acked = kAcked | kPacked | events, .start = 0x8000});
        rig.send(frame(60));
        EXPECT_FALSE(rig.tx->needs_kick());
        EXPECT_FALSE(rig.port->arm(0)) << "there is a packet";
        EXPECT_EQ(rig.receive().size(), 1u);
        EXPECT_TRUE(rig.port->arm(0));
        rig.send(frame(60));
        EXPECT_TRUE(rig.tx->needs_kick());
        rig.port->disarm(0);
        rig.send(frame(60));
        EXPECT_FALSE(rig.tx->needs_kick());
    }
}

/// One signal for a burst that passes the event, none for one that does not.
TEST(EventIdx, guest_is_signalled_when_a_burst_passes_its_event) {
    Pool pool(63);
    for (const uint64_t packed : {uint64_t{0}, kPacked}) {
        NetRig rig(pool,
                   {.acked = kAcked | kEvents | packed, .start = uint16_t(packed ? 0x8000 : 0)});
        rig.tx->want_interrupt_after(3);
        for (int i = 0; i < 3; ++i) rig.send(frame(60));
        EXPECT_EQ(rig.receive().size(), 3u);
        EXPECT_EQ(rig.call[1].drain(), 0u);
        for (int i = 0; i < 3; ++i) rig.send(frame(60));
        EXPECT_EQ(rig.receive().size(), 3u);
        EXPECT_EQ(rig.call[1].drain(), 1u);
        rig.send(frame(60));
        EXPECT_EQ(rig.receive().size(), 1u);
        EXPECT_EQ(rig.call[1].drain(), 0u) << "the event has passed";
    }
}

TEST(BurstWork, long_chains_end_the_burst_and_are_all_taken_in_the_end) {
    Pool pool(63);
    for (const uint64_t packed : {uint64_t{0}, kPacked}) {
        NetRig rig(pool, {.size = 32768, .acked = kAcked | packed, .start = 0x8000});
        // Frames in pieces of one byte.
        const uint32_t bytes = 8000;
        const uint64_t at = rig.data(kHeader + bytes);
        rig.fill(at, frame(bytes, 3));
        std::vector<Desc> pieces;
        for (uint32_t i = 0; i < kHeader + bytes; ++i) pieces.push_back({at + i, 1, 0, 0});
        for (int i = 0; i < 4; ++i) ASSERT_TRUE(rig.tx->chain(pieces));
        rig.tx->publish();
        for (const size_t want : {3u, 1u, 0u}) {
            const auto got = rig.receive();
            ASSERT_EQ(got.size(), want);
            for (const Bytes& f : got) EXPECT_EQ(f, frame(bytes, 3));
        }
    }
}

}  // namespace
}  // namespace viommu::net::test
