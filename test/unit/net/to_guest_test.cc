// SPDX-License-Identifier: BSD-3-Clause
#include "net_rig.hh"

namespace viommu::net::test {
namespace {

constexpr uint64_t kElsewhere = 0x60000000;  // nothing is mapped there

/// The next used element must be `bytes` long.
void expect_used(NetRig& rig, uint32_t bytes) {
    const auto used = rig.rx->pop();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->len, bytes);
}
Bytes header(uint16_t buffers) {
    Bytes h(kHeader);
    h[10] = std::byte(buffers);
    h[11] = std::byte(buffers >> 8);
    return h;
}

TEST(ToGuest, frame_comes_behind_a_header_of_one_buffer) {
    Pool pool(63);
    for (const uint64_t mergeable : {uint64_t{0}, kMergeable}) {
        NetRig rig(pool, {.acked = kAcked | mergeable});
        const uint64_t at = rig.post(2000);
        ASSERT_TRUE(rig.deliver(pool.packet(frame(1514))));
        expect_used(rig, kHeader + 1514);
        EXPECT_EQ(rig.read(at, kHeader), header(1));
        EXPECT_EQ(rig.read(at + kHeader, 1514), frame(1514));
        EXPECT_EQ(rig.to().packets.was(), 1u);
        EXPECT_EQ(rig.to().bytes.was(), 1514u);
    }
}

TEST(ToGuest, packet_of_many_segments_is_put_together) {
    Pool pool(255);
    NetRig rig(pool);
    const uint64_t at = rig.post(2000);
    ASSERT_TRUE(rig.deliver(pool.packet(frame(1500), 17)));
    expect_used(rig, kHeader + 1500);
    EXPECT_EQ(rig.read(at + kHeader, 1500), frame(1500));
}

TEST(ToGuest, buffer_split_at_any_byte_is_the_same_frame) {
    Pool pool(63);
    NetRig rig(pool);
    const uint64_t at = NetRig::kData + kPage - 30;
    const uint32_t all = kHeader + 64;
    for (uint32_t a = 1; a < all; ++a) {
        const Bytes f = frame(64, a);
        rig.rx->chain({{at, a, virtq::test::kWrite, 0}, {at + a, all - a, virtq::test::kWrite, 0}});
        rig.rx->publish();
        ASSERT_TRUE(rig.deliver(pool.packet(f)));
        expect_used(rig, all);
        ASSERT_EQ(rig.read(at, kHeader), header(1)) << a;
        ASSERT_EQ(rig.read(at + kHeader, 64), f) << a;
    }
}

TEST(ToGuest, mergeable_buffers_take_a_large_frame_together) {
    Pool pool(63);
    NetRig rig(pool);
    std::vector<uint64_t> at;
    for (int i = 0; i < 5; ++i) at.push_back(rig.post(1000));
    ASSERT_TRUE(rig.deliver(pool.packet(frame(3500))));
    Bytes got;
    for (int i = 0; i < 4; ++i) {
        const auto used = rig.rx->pop();
        ASSERT_TRUE(used);
        const Bytes part = rig.read(at[size_t(i)], used->len);
        got.insert(got.end(), part.begin(), part.end());
    }
    EXPECT_FALSE(rig.rx->pop()) << "the fifth was not needed";
    Bytes want = header(4);
    const Bytes f = frame(3500);
    want.insert(want.end(), f.begin(), f.end());
    EXPECT_EQ(got, want);
}

TEST(ToGuest, more_than_255_buffers_are_counted_in_two_bytes) {
    Pool pool(63);
    NetRig rig(pool, {.size = 512});
    const uint64_t first = rig.post(20);
    for (int i = 1; i < 256; ++i) rig.post(20);
    ASSERT_TRUE(rig.deliver(pool.packet(frame(256 * 20 - kHeader), 2000)));
    EXPECT_EQ(rig.read(first, kHeader), header(256));
    ASSERT_EQ(rig.split(rig.rx).used_index(), 256);
}

TEST(ToGuest, too_few_buffers_leave_the_packet_and_the_buffers_alone) {
    Pool pool(63);
    NetRig rig(pool);
    rig.post(1000);
    EXPECT_FALSE(rig.deliver(pool.packet(frame(1500))));
    EXPECT_FALSE(rig.rx->pop());
    EXPECT_EQ(rig.to().no_buffer.was(), 1u);
    rig.post(1000);
    EXPECT_TRUE(rig.deliver(pool.packet(frame(1500))));
    expect_used(rig, 1000);
    expect_used(rig, 512);
}

TEST(ToGuest, packets_without_a_buffer_stay_the_callers) {
    Pool pool(63);
    NetRig rig(pool);
    rig.post(100);
    rig.post(100);
    std::array<rte_mbuf*, 5> in;
    for (unsigned i = 0; i < 5; ++i) in[i] = pool.packet(frame(60, i));
    EXPECT_EQ(rig.port->to_guest(0, in), 2u);
    EXPECT_EQ(rig.to().no_buffer.was(), 3u);
    for (unsigned i = 2; i < 5; ++i) EXPECT_EQ(take(in[i]), frame(60, i));
}

TEST(ToGuest, packet_larger_than_a_buffer_that_cannot_be_merged_is_dropped_and_the_buffer_kept) {
    Pool pool(63);
    NetRig rig(pool, {.acked = kAcked});
    rig.post(1000);
    EXPECT_TRUE(rig.deliver(pool.packet(frame(1000))));
    EXPECT_EQ(rig.to().drop_too_big.was(), 1u);
    EXPECT_FALSE(rig.rx->pop());
    EXPECT_TRUE(rig.deliver(pool.packet(frame(1000 - kHeader))));
    expect_used(rig, 1000);
}

TEST(ToGuest, packet_larger_than_the_whole_ring_can_hold_is_dropped) {
    Pool pool(63);
    NetRig rig(pool, {.size = 4});
    for (int i = 0; i < 4; ++i) rig.post(100);
    EXPECT_TRUE(rig.deliver(pool.packet(frame(389))));
    EXPECT_EQ(rig.to().drop_too_big.was(), 1u);
    EXPECT_TRUE(rig.deliver(pool.packet(frame(388))));
    for (int i = 0; i < 4; ++i) expect_used(rig, 100);
}

TEST(ToGuest, packet_beyond_the_mtu_is_dropped) {
    Pool pool(63);
    NetRig rig(pool, {.config = {.endpoint = NetRig::kEndpoint, .mtu = 1500}});
    rig.post(4000);
    EXPECT_TRUE(rig.deliver(pool.packet(frame(1600))));
    EXPECT_EQ(rig.to().drop_too_big.was(), 1u);
    EXPECT_TRUE(rig.deliver(pool.packet(frame(1514))));
    expect_used(rig, kHeader + 1514);
}

TEST(ToGuest, buffer_that_is_not_mapped_goes_back_unused_and_is_reported) {
    Pool pool(63);
    NetRig rig(pool);
    rig.post_at(kElsewhere, 2000);
    rig.post(2000);
    EXPECT_TRUE(rig.deliver(pool.packet(frame(60, 1))));
    EXPECT_EQ(rig.to().drop_fault.was(), 1u);
    expect_fault(rig, kElsewhere, Access::kWrite);
    expect_used(rig, 0);
    EXPECT_TRUE(rig.deliver(pool.packet(frame(60, 2))));
    expect_used(rig, kHeader + 60);
    EXPECT_EQ(rig.to().packets.was(), 1u);
}

TEST(ToGuest, fault_in_a_later_buffer_returns_all_of_them_unused) {
    Pool pool(63);
    NetRig rig(pool);
    rig.post(1000);
    rig.post_at(kElsewhere, 1000);
    rig.post(1000);
    EXPECT_TRUE(rig.deliver(pool.packet(frame(1500))));
    EXPECT_EQ(rig.to().drop_fault.was(), 1u);
    expect_fault(rig, kElsewhere, Access::kWrite);
    expect_used(rig, 0);
    expect_used(rig, 0);
    EXPECT_FALSE(rig.rx->pop()) << "the third was not taken";
}

TEST(ToGuest, read_only_memory_is_not_written) {
    Pool pool(63);
    NetRig rig(pool);
    rig.map_range(kElsewhere, kPage, Access::kRead);
    const auto before = rig.read(kElsewhere, kPage);
    rig.post_at(kElsewhere, 2000);
    EXPECT_TRUE(rig.deliver(pool.packet(frame(60, 1))));
    expect_fault(rig, kElsewhere, Access::kWrite);
    EXPECT_EQ(rig.read(kElsewhere, kPage), before);
}

TEST(ToGuest, bytes_past_the_packet_need_not_be_mapped) {
    Pool pool(63);
    NetRig rig(pool);
    rig.map_range(kElsewhere, kPage);
    rig.post_at(kElsewhere, 4 * kPage);
    EXPECT_TRUE(rig.deliver(pool.packet(frame(1514))));
    expect_used(rig, kHeader + 1514);
    EXPECT_TRUE(rig.take_faults().empty());
}

TEST(ToGuest, buffers_that_cannot_begin_a_packet_go_back_and_the_next_is_tried) {
    Pool pool(63);
    NetRig rig(pool);
    rig.rx->chain({{rig.data(100), 100, 0, 0}});      // not writable
    rig.post(kHeader - 1);                            // no room for a header
    rig.rx->chain({{kElsewhere, 32, kIndirect, 0}});  // a table that is not there
    const uint64_t at = rig.post(100);
    EXPECT_TRUE(rig.deliver(pool.packet(frame(60))));
    for (int i = 0; i < 3; ++i) expect_used(rig, 0);
    expect_used(rig, kHeader + 60);
    EXPECT_EQ(rig.read(at, kHeader), header(1));
    EXPECT_EQ(rig.to().bad_buffer.was(), 3u);
    expect_fault(rig, kElsewhere, Access::kRead);
}

TEST(ToGuest, bad_buffer_in_the_middle_is_never_part_of_a_packet) {
    Pool pool(63);
    NetRig rig(pool);
    rig.post(100);
    rig.post(5);
    rig.post(100);
    EXPECT_TRUE(rig.deliver(pool.packet(frame(150))));
    expect_used(rig, 0);
    expect_used(rig, 0);
    EXPECT_EQ(rig.to().packets.was() + rig.to().drop_malformed.was(), 1u);
}

TEST(ToGuest, ring_of_nothing_but_bad_buffers_is_used_up_and_no_more) {
    Pool pool(63);
    NetRig rig(pool, {.acked = kAcked});
    for (int i = 0; i < 64; ++i) rig.post(4);
    EXPECT_FALSE(rig.deliver(pool.packet(frame(60))));
    EXPECT_EQ(rig.to().bad_buffer.was(), 64u);
    for (int i = 0; i < 64; ++i) expect_used(rig, 0);
    rig.post(200);
    EXPECT_TRUE(rig.deliver(pool.packet(frame(60))));
}

TEST(ToGuest, stopped_queue_takes_nothing) {
    Pool pool(63);
    NetRig rig(pool, {.run = false});
    EXPECT_FALSE(rig.deliver(pool.packet(frame(60))));
    EXPECT_EQ(rig.to().not_running.was(), 1u);
    rig.start();
    rig.post(100);
    EXPECT_TRUE(rig.deliver(pool.packet(frame(60))));
    rig.port->queue_stopped(0);
    rig.post(100);
    EXPECT_FALSE(rig.deliver(pool.packet(frame(60))));
    EXPECT_EQ(rig.to().not_running.was(), 2u);
}

TEST(ToGuest, guest_is_signalled_once_per_burst) {
    Pool pool(63);
    NetRig rig(pool);
    for (int i = 0; i < 3; ++i) rig.post(100);
    std::array<rte_mbuf*, 3> in;
    for (auto& m : in) m = pool.packet(frame(60));
    EXPECT_EQ(rig.port->to_guest(0, in), 3u);
    EXPECT_EQ(rig.call[0].drain(), 1u);
}

TEST(ToGuest, head_outside_the_table_stops_the_queue) {
    Pool pool(63);
    NetRig rig(pool);
    rig.post(100);
    rig.split(rig.rx).offer(64);
    rig.rx->publish();
    EXPECT_FALSE(rig.deliver(pool.packet(frame(150)))) << "needs both";
    EXPECT_EQ(rig.to().ring_broken.was(), 1u);
    EXPECT_FALSE(rig.rx->pop());
}

}  // namespace
}  // namespace viommu::net::test
