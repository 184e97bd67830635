// SPDX-License-Identifier: BSD-3-Clause
#include "net_rig.hh"

namespace viommu::net::test {
namespace {

constexpr uint64_t kElsewhere = 0x60000000;  // nothing is mapped there

TEST(FromGuest, frame_comes_out_without_its_header) {
    Pool pool(63);
    {
        NetRig rig(pool);
        rig.send(frame(60, 1));
        rig.send(frame(1514, 2));
        const auto got = rig.receive();
        ASSERT_EQ(got.size(), 2u);
        EXPECT_EQ(got[0], frame(60, 1));
        EXPECT_EQ(got[1], frame(1514, 2));
        EXPECT_EQ(rig.from().packets.was(), 2u);
        EXPECT_EQ(rig.from().bytes.was(), 1574u);
        for (int i = 0; i < 2; ++i) {
            const auto used = rig.tx->pop();
            ASSERT_TRUE(used);
            EXPECT_EQ(used->len, 0u);
        }
        EXPECT_TRUE(rig.receive().empty());
    }
}

TEST(FromGuest, chain_split_at_any_byte_is_the_same_frame) {
    Pool pool(63);
    NetRig rig(pool);
    const Bytes f = frame(64, 9);
    const uint32_t all = kHeader + 64;
    for (uint32_t a = 1; a < all; ++a) {
        for (const bool indirect : {false, true}) {
            // Around a page boundary of the data area.
            const uint64_t at = NetRig::kData + kPage - 30;
            rig.fill(at, f);
            std::vector<Desc> d{{at, a, 0, 0}, {at + a, all - a, 0, 0}};
            if (indirect) {
                const uint64_t table = NetRig::kData + 3 * kPage - 24;
                d[0].flags = kNext, d[0].next = 1;
                rig.space.put(table, d[0]);
                rig.space.put(table + 16, d[1]);
                d = {{table, 32, kIndirect, 0}};
            }
            rig.tx->chain(d);
            rig.tx->publish();
            const auto got = rig.receive();
            ASSERT_EQ(got.size(), 1u) << a;
            ASSERT_EQ(got[0], f) << a;
            ASSERT_TRUE(rig.tx->pop());
        }
    }
}

TEST(FromGuest, frame_larger_than_an_mbuf_is_chained) {
    Pool pool(127, 100);
    NetRig rig(pool);
    for (const uint32_t n : {99u, 100u, 101u, 200u, 1514u, 9000u}) {
        rig.send(frame(n, n));
        const auto got = rig.receive();
        ASSERT_EQ(got.size(), 1u) << n;
        EXPECT_EQ(got[0], frame(n, n));
        rig.tx->pop();
    }
}

TEST(FromGuest, largest_frame_is_accepted) {
    Pool pool(127);
    NetRig rig(pool);
    rig.send(frame(65535));
    const auto got = rig.receive();
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0], frame(65535));
}

TEST(FromGuest, frame_beyond_the_mtu_is_dropped) {
    Pool pool(63);
    NetRig rig(pool, {.config = {.endpoint = NetRig::kEndpoint, .mtu = 1500}});
    rig.send(frame(1514));
    rig.send(frame(1518));
    rig.send(frame(1600));
    EXPECT_EQ(rig.receive().size(), 2u);
    EXPECT_EQ(rig.from().drop_too_big.was(), 1u);
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(rig.tx->pop()) << "the chain is returned";
}

TEST(FromGuest, chain_of_4_gigabytes_costs_nothing) {
    Pool pool(63);
    NetRig rig(pool);
    rig.tx->chain({{NetRig::kData, 0xffffffff, 0, 0}});
    rig.tx->publish();
    EXPECT_TRUE(rig.receive().empty());
    EXPECT_EQ(rig.from().drop_too_big.was(), 1u);
    EXPECT_TRUE(rig.tx->pop());
}

TEST(FromGuest, chain_too_short_for_a_frame_is_malformed) {
    Pool pool(63);
    NetRig rig(pool);
    for (const uint32_t bytes : {1u, kHeader - 1, kHeader, kHeader + 13}) {
        rig.tx->chain({{rig.data(bytes), bytes, 0, 0}});
        rig.tx->publish();
    }
    rig.tx->chain({{NetRig::kData, 100, virtq::test::kWrite, 0}});
    rig.tx->publish();
    rig.send(frame(14));
    const auto got = rig.receive();
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0].size(), 14u);
    EXPECT_EQ(rig.from().drop_malformed.was(), 5u);
}

TEST(FromGuest, buffer_that_is_not_mapped_is_dropped_and_reported_and_the_queue_goes_on) {
    Pool pool(63);
    NetRig rig(pool);
    rig.tx->chain({{rig.data(20), 20, 0, 0}, {kElsewhere + 123, 100, 0, 0}});
    rig.tx->publish();
    rig.send(frame(100, 3));
    const auto got = rig.receive();
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0], frame(100, 3));
    EXPECT_EQ(rig.from().drop_fault.was(), 1u);
    expect_fault(rig, kElsewhere + 123, Access::kRead);
    const auto used = rig.tx->pop();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->len, 0u);
}

TEST(FromGuest, first_byte_that_does_not_translate_is_the_one_reported) {
    Pool pool(63);
    NetRig rig(pool);
    const uint64_t at = rig.kData + 5 * kPage - 100;
    rig.unmap_page(rig.kData + 5 * kPage);
    rig.tx->chain({{at, 500, 0, 0}});
    rig.tx->publish();
    EXPECT_TRUE(rig.receive().empty());
    expect_fault(rig, rig.kData + 5 * kPage, Access::kRead);
}

TEST(FromGuest, header_alone_unmapped_is_a_fault_too) {
    Pool pool(63);
    NetRig rig(pool);
    rig.tx->chain({{kElsewhere, kHeader, 0, 0}, {rig.data(100), 100, 0, 0}});
    rig.tx->publish();
    EXPECT_TRUE(rig.receive().empty());
    expect_fault(rig, kElsewhere, Access::kRead);
}

TEST(FromGuest, indirect_table_that_is_not_mapped_is_a_fault) {
    Pool pool(63);
    NetRig rig(pool);
    rig.tx->chain({{kElsewhere, 32, kIndirect, 0}});
    rig.tx->publish();
    rig.send(frame(60));
    EXPECT_EQ(rig.receive().size(), 1u);
    EXPECT_EQ(rig.from().drop_fault.was(), 1u);
    expect_fault(rig, kElsewhere, Access::kRead);
}

TEST(FromGuest, mapping_that_may_only_be_written_is_a_fault) {
    Pool pool(63);
    NetRig rig(pool);
    rig.map_range(kElsewhere, kPage, Access::kWrite);
    rig.tx->chain({{kElsewhere, 100, 0, 0}});
    rig.tx->publish();
    EXPECT_TRUE(rig.receive().empty());
    expect_fault(rig, kElsewhere, Access::kRead);
}

TEST(FromGuest, mapping_to_what_is_not_memory_is_a_fault_of_unknown_reason) {
    Pool pool(63);
    NetRig rig(pool);
    const auto range = IovaRange::from_length(Iova{kElsewhere}, kPage);
    ASSERT_EQ(rig.table->map(NetRig::kDomain, *range, Gpa{0xfee00000}, Access::kReadWrite),
              Status::kOk);
    rig.tx->chain({{kElsewhere, 100, 0, 0}});
    rig.tx->publish();
    EXPECT_TRUE(rig.receive().empty());
    expect_fault(rig, kElsewhere, Access::kRead, xlate::FaultReason::kUnknown);
}

TEST(FromGuest, detached_endpoint_stalls_its_ring) {
    Pool pool(63);
    NetRig rig(pool);
    ASSERT_EQ(rig.table->detach(NetRig::kEndpoint, NetRig::kDomain), Status::kOk);
    rig.settle();
    rig.send(frame(60));
    EXPECT_TRUE(rig.receive().empty());
    expect_fault(rig, rig.vrings[1].desc, Access::kRead, xlate::FaultReason::kDomain);
}

TEST(FromGuest, malformed_chain_is_returned_and_the_queue_goes_on) {
    Pool pool(63);
    NetRig rig(pool);
    rig.split(rig.tx).desc(40, {NetRig::kData, 100, kNext, 40});
    rig.split(rig.tx).offer(40);
    rig.send(frame(60));
    EXPECT_EQ(rig.receive().size(), 1u);
    EXPECT_EQ(rig.from().drop_malformed.was(), 1u);
    EXPECT_EQ(rig.space.get<uint32_t>(rig.vrings[1].used + 4), 40u);
}

TEST(FromGuest, exhausted_pool_leaves_packets_in_the_ring) {
    Pool pool(4);
    NetRig rig(pool);
    for (unsigned i = 0; i < 6; ++i) rig.send(frame(60, i));
    std::array<rte_mbuf*, 6> held{};
    EXPECT_EQ(rig.port->from_guest(0, held), 4u) << "as many as the pool has";
    EXPECT_EQ(rig.from().no_mbuf.was(), 1u);
    EXPECT_TRUE(rig.receive().empty());
    for (unsigned i = 0; i < 4; ++i) EXPECT_EQ(take(held[i]), frame(60, i));
    const auto rest = rig.receive();
    ASSERT_EQ(rest.size(), 2u);
    EXPECT_EQ(rest[0], frame(60, 4));
    EXPECT_EQ(rest[1], frame(60, 5));
    EXPECT_EQ(rig.from().drop_no_mbuf.was(), 0u);
}

TEST(FromGuest, pool_exhausted_within_a_packet_drops_it) {
    Pool pool(3, 100);
    NetRig rig(pool);
    rig.send(frame(1000));
    rig.send(frame(250, 5));
    EXPECT_TRUE(rig.receive(1).empty());
    EXPECT_EQ(rig.from().drop_no_mbuf.was(), 1u);
    EXPECT_EQ(rig.from().drop_fault.was(), 0u);
    const auto got = rig.receive(1);
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0], frame(250, 5));
}

TEST(FromGuest, burst_is_bounded_by_what_is_asked_for) {
    Pool pool(127);
    NetRig rig(pool);
    for (unsigned i = 0; i < 50; ++i) rig.send(frame(60, i));
    EXPECT_EQ(rig.receive(5).size(), 5u);
    EXPECT_EQ(rig.receive(100).size(), NetPort::kBurst);
    EXPECT_EQ(rig.receive(100).size(), 50u - 5 - NetPort::kBurst);
}

TEST(FromGuest, guest_is_signalled_once_per_burst_when_it_wants_to_be) {
    Pool pool(63);
    NetRig rig(pool);
    rig.send(frame(60));
    rig.send(frame(60));
    rig.receive();
    EXPECT_EQ(rig.call[1].drain(), 1u);
    rig.receive();
    EXPECT_EQ(rig.call[1].drain(), 0u);
    rig.tx->want_interrupts(false);
    rig.send(frame(60));
    rig.receive();
    EXPECT_EQ(rig.call[1].drain(), 0u);
}

TEST(FromGuest, index_that_jumps_stops_the_queue_until_it_is_restarted) {
    Pool pool(63);
    NetRig rig(pool);
    rig.split(rig.tx).publish_index(65);
    EXPECT_TRUE(rig.receive().empty());
    rig.split(rig.tx).publish_index(0);
    rig.send(frame(60));
    EXPECT_TRUE(rig.receive().empty());
    EXPECT_EQ(rig.from().ring_broken.was(), 1u);
    EXPECT_EQ(rig.port->queue_stopped(1), 0);
    rig.port->queue_started(rig.vrings[1]);
    EXPECT_EQ(rig.receive().size(), 1u);
}

}  // namespace
}  // namespace viommu::net::test
