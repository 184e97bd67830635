// SPDX-License-Identifier: BSD-3-Clause
/// From a guest through a port: what its headers leave undone is in the packets' flags.
#include "offload_rig.hh"

namespace viommu::net::test {
namespace {

using namespace wire;

constexpr uint64_t kElsewhere = 0x60000000;  // nothing is mapped there
constexpr uint64_t kFormats[] = {0, kPacked};

/// The headers of a shape, in its order of lengths.
void expect_lens(const rte_mbuf& m, const Shape& s) {
    EXPECT_EQ(m.l2_len, s.l2());
    EXPECT_EQ(m.l3_len, s.l3_bytes());
    EXPECT_EQ(m.l4_len, s.l4_bytes());
}
uint64_t checksum_flags(const Shape& s) {
    return (s.v6 ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4) |
           (s.udp ? RTE_MBUF_F_TX_UDP_CKSUM : RTE_MBUF_F_TX_TCP_CKSUM);
}
uint64_t large_flags(const Shape& s) {
    return checksum_flags(s) | (s.udp ? RTE_MBUF_F_TX_UDP_SEG : RTE_MBUF_F_TX_TCP_SEG) |
           (s.v6 ? 0 : RTE_MBUF_F_TX_IP_CKSUM);
}

TEST(OffloadFromGuest, partial_checksum_becomes_flags_and_lengths) {
    Pool pool(63);
    for (const uint64_t format : kFormats) {
        OffloadRig rig(pool, OffloadRig::with(kOffloads | format));
        for (const Shape& s : shapes(500)) {
            if (s.ip_options != 0) continue;
            rig.send(needs_csum(s), make_packet(s));
            const auto got = rig.taken();
            ASSERT_EQ(got.size(), 1u);
            EXPECT_EQ(got[0]->ol_flags, checksum_flags(s));
            expect_lens(*got[0], s);
            EXPECT_EQ(take(got[0]), make_packet(s));
            ASSERT_TRUE(rig.tx->pop());
        }
    }
}

TEST(OffloadFromGuest, checksum_that_flags_cannot_express_is_finished) {
    Pool pool(63);
    OffloadRig rig(pool, OffloadRig::with(kOffloads));
    const Shape s{.ip_options = 12};
    rig.send(needs_csum(s), make_packet(s));
    const auto got = rig.taken();
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0]->ol_flags, 0u);
    EXPECT_EQ(take(got[0]), finished(s));
}

TEST(OffloadFromGuest, large_packet_of_any_chain_and_any_mbufs_keeps_its_bytes_and_flags) {
    for (const uint16_t room : {uint16_t(200), uint16_t(2048)}) {
        Pool pool(511, room);
        for (const uint64_t format : kFormats) {
            OffloadRig rig(pool, OffloadRig::with(kOffloads | format));
            for (const Shape& s : shapes(20000)) {
                for (const bool indirect : {false, true}) {
                    rig.send(gso(s, 1400), make_packet(s), {5, 12, 13, kHeader + 60, 9000},
                             indirect);
                    const auto got = rig.taken();
                    ASSERT_EQ(got.size(), 1u);
                    EXPECT_EQ(got[0]->ol_flags, large_flags(s));
                    EXPECT_EQ(got[0]->tso_segsz, 1400u);
                    EXPECT_EQ(got[0]->nb_segs, (make_packet(s).size() - 1) / room + 1);
                    expect_lens(*got[0], s);
                    EXPECT_EQ(take(got[0]), make_packet(s));
                    ASSERT_TRUE(rig.tx->pop());
                }
            }
        }
    }
}

TEST(OffloadFromGuest, large_packet_in_one_descriptor_and_one_mbuf_is_large_too) {
    Pool pool(63);
    OffloadRig rig(pool, OffloadRig::with(kOffloads));
    const Shape s{.payload = 1400};
    rig.send(gso(s, 100), make_packet(s));
    const auto got = rig.taken();
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0]->ol_flags, large_flags(s));
    EXPECT_EQ(take(got[0]), make_packet(s));
}

TEST(OffloadFromGuest, mtu_binds_what_is_not_to_be_cut) {
    Pool pool(63);
    for (const uint16_t room : {uint16_t(512), uint16_t(4096)}) {
        Pool packets(63, room);
        auto options = OffloadRig::with(kOffloads);
        options.config.mtu = 1500;
        OffloadRig rig(packets, options);
        const Shape s{.payload = 3000};
        rig.send(gso(s, 1000), make_packet(s));
        rig.send(needs_csum(s), make_packet(s));
        rig.send({}, finished(s));
        rig.send(gso(s, 3000), make_packet(s));  // one piece: not to be cut
        const auto got = rig.taken();
        ASSERT_EQ(got.size(), 1u);
        EXPECT_TRUE(offload::is_large(*got[0]));
        rte_pktmbuf_free(got[0]);
        EXPECT_EQ(rig.from().drop_too_big.was(), 3u);
        EXPECT_EQ(rig.from().packets.was(), 1u);
        for (int i = 0; i < 4; ++i) EXPECT_TRUE(rig.tx->pop());
    }
}

TEST(OffloadFromGuest, malformed_header_costs_its_packet_and_no_other) {
    const uint64_t features = kOffloads & ~bit(VIRTIO_NET_F_HOST_USO);
    const Shape s{.payload = 1000}, udp{.udp = true, .payload = 1000};
    const auto unknown = [&] {
        auto h = gso(s, 100);
        h.gso_type = 7;
        return h;
    };
    const auto no_checksum = [&] {
        auto h = gso(s, 100);
        h.flags = 0;
        return h;
    };
    const auto beyond = [&] {
        auto h = needs_csum(s);
        h.csum_start = 5000;
        return h;
    };
    for (const uint64_t format : kFormats) {
        for (const bool chained : {false, true}) {
            Pool pool(63, chained ? 300 : 2048);
            OffloadRig rig(pool, OffloadRig::with(features | format));
            const Bytes b = make_packet(s);
            rig.send({}, frame(200, 1));
            rig.send(gso(s, 0), b);
            rig.send(unknown(), b);
            rig.send({}, frame(200, 2));
            rig.send(gso(udp, 100), make_packet(udp));  // not negotiated
            rig.send(no_checksum(), b);
            rig.send(beyond(), b);
            rig.send(needs_csum(s), b);
            const auto got = rig.taken();
            ASSERT_EQ(got.size(), 3u);
            EXPECT_TRUE(offload::is_plain(*got[0]));
            EXPECT_TRUE(offload::is_plain(*got[1]));
            EXPECT_EQ(got[2]->ol_flags, checksum_flags(s));
            EXPECT_EQ(take(got[0]), frame(200, 1));
            EXPECT_EQ(take(got[1]), frame(200, 2));
            EXPECT_EQ(take(got[2]), b);
            EXPECT_EQ(rig.from().drop_malformed.was(), 5u);
            EXPECT_EQ(rig.from().packets.was(), 3u);
            for (int i = 0; i < 8; ++i) EXPECT_TRUE(rig.tx->pop());
        }
    }
}

TEST(OffloadFromGuest, header_in_two_pages_is_read_whole) {
    Pool pool(63);
    OffloadRig rig(pool, OffloadRig::with(kOffloads));
    const Shape s{.payload = 300};
    const Bytes b = make_packet(s);
    const auto h = needs_csum(s);
    for (uint32_t before = 1; before < kHeader; ++before) {
        const uint64_t at = NetRig::kData + 3 * kPage - before;
        rig.space.write(at, &h, kHeader);
        rig.space.write(at + kHeader, b.data(), b.size());
        rig.tx->chain({{at, uint32_t(kHeader + b.size()), 0, 0}});
        rig.tx->publish();
        const auto got = rig.taken();
        ASSERT_EQ(got.size(), 1u);
        EXPECT_EQ(got[0]->ol_flags, checksum_flags(s)) << before;
        EXPECT_EQ(take(got[0]), b);
        ASSERT_TRUE(rig.tx->pop());
    }
}

TEST(OffloadFromGuest, header_that_is_not_mapped_is_a_fault) {
    Pool pool(63);
    OffloadRig rig(pool, OffloadRig::with(kOffloads));
    const uint64_t second = NetRig::kData + 5 * kPage;
    rig.unmap_page(second);
    rig.tx->chain({{second - 4, 200, 0, 0}});
    rig.tx->publish();
    EXPECT_TRUE(rig.taken().empty());
    expect_fault(rig, second, Access::kRead);
    rig.tx->chain({{kElsewhere, kHeader, 0, 0}, {NetRig::kData, 100, 0, 0}});
    rig.tx->publish();
    EXPECT_TRUE(rig.taken().empty());
    expect_fault(rig, kElsewhere, Access::kRead);
    EXPECT_EQ(rig.from().drop_fault.was(), 2u);
    EXPECT_EQ(rig.from().drop_malformed.was(), 0u);
}

TEST(OffloadFromGuest, without_the_feature_a_header_means_nothing) {
    Pool pool(63);
    // Also offloads that lack their requirement.
    for (const uint64_t features : {uint64_t{0}, kOffloads & ~bit(VIRTIO_NET_F_CSUM)}) {
        OffloadRig rig(pool, OffloadRig::with(features));
        const Shape s{.payload = 1000};
        virtio_net_hdr junk;
        std::memset(&junk, 0xff, sizeof junk);
        for (const auto& h : {junk, gso(s, 100), needs_csum(s), gso(s, 0)}) {
            for (const std::vector<uint32_t>& cuts : {std::vector<uint32_t>{}, {7u, 40u}}) {
                rig.send(h, make_packet(s), cuts);
                const auto got = rig.taken();
                ASSERT_EQ(got.size(), 1u);
                EXPECT_EQ(got[0]->ol_flags, 0u);
                EXPECT_EQ(take(got[0]), make_packet(s));
            }
        }
        EXPECT_EQ(rig.from().drop_malformed.was(), 0u);
    }
}

TEST(OffloadFromGuest, large_packet_for_which_the_pool_does_not_suffice_is_dropped) {
    Pool pool(4, 1000);
    OffloadRig rig(pool, OffloadRig::with(kOffloads));
    const Shape s{.payload = 5000};
    rig.send(gso(s, 1000), make_packet(s));
    rig.send(needs_csum({}), make_packet({}));
    const auto got = rig.taken();
    EXPECT_EQ(rig.from().drop_no_mbuf.was(), 1u);
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(take(got[0]), make_packet({}));
}

TEST(OffloadFromGuest, largest_packet_passes_and_a_larger_one_does_not) {
    Pool pool(127);
    OffloadRig rig(pool, OffloadRig::with(kOffloads));
    const Shape s{.v6 = true, .vlans = 2, .payload = 65535 - 20};
    rig.send(gso(s, 1400), make_packet(s));
    const auto got = rig.taken();
    ASSERT_EQ(got.size(), 1u);
    EXPECT_EQ(got[0]->pkt_len, offload::kMaxBytes);
    rte_pktmbuf_free(got[0]);
    Bytes more = make_packet(s);
    more.push_back(std::byte{0});
    rig.send(gso(s, 1400), more);
    EXPECT_TRUE(rig.taken().empty());
    EXPECT_EQ(rig.from().drop_too_big.was(), 1u);
}

}  // namespace
}  // namespace viommu::net::test
