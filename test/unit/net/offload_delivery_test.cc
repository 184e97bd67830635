// SPDX-License-Identifier: BSD-3-Clause
/// To a guest through a port: what it takes unfinished, what is finished or cut for it, and what is
/// left when there is not enough of something.
#include "offload_rig.hh"

namespace viommu::net::test {
namespace {

using namespace wire;

constexpr uint64_t kFormats[] = {0, kPacked};
constexpr uint64_t kSum = bit(VIRTIO_NET_F_GUEST_CSUM);

/// The only packet there is, which is freed by the port.
Received expect_one(OffloadRig& rig, rte_mbuf* packet) {
    EXPECT_EQ(rig.deliver_all({packet}), 1u);
    auto all = rig.received(true);
    EXPECT_EQ(all.size(), 1u);
    return all.empty() ? Received{} : all[0];
}
std::vector<Bytes> bytes_of(const std::vector<Received>& all) {
    std::vector<Bytes> b;
    for (const auto& r : all) b.push_back(r.bytes);
    return b;
}

TEST(OffloadToGuest, finished_packet_has_a_header_of_zeros) {
    Pool pool(63);
    for (const uint64_t format : kFormats) {
        OffloadRig rig(pool, OffloadRig::with(kOffloads | format));
        rig.provide(8, 2000);
        const auto got = expect_one(rig, pool.packet(frame(700)));
        EXPECT_TRUE(same(got.header, {}));
        EXPECT_EQ(got.bytes, frame(700));
    }
}

TEST(OffloadToGuest, checksum_is_left_to_who_takes_it_and_finished_for_others) {
    Pool pool(63);
    for (const uint64_t format : kFormats) {
        for (const uint64_t features : {uint64_t{0}, kSum}) {
            OffloadRig rig(pool, OffloadRig::with(features | format));
            rig.provide(8, 2000);
            for (const Shape& s : shapes(900)) {
                for (const size_t segment : {size_t{128}, size_t{2048}}) {
                    const auto got = expect_one(rig, unfinished(pool, s, 0, segment));
                    EXPECT_TRUE(same(got.header, features != 0 ? needs_csum(s) : virtio_net_hdr{}));
                    EXPECT_EQ(got.bytes, features != 0 ? make_packet(s) : finished(s));
                }
            }
        }
    }
}

TEST(OffloadToGuest, checksum_known_to_be_good_is_data_valid) {
    Pool pool(63);
    for (const uint64_t features : {uint64_t{0}, kSum}) {
        OffloadRig rig(pool, OffloadRig::with(features));
        rig.provide(8, 2000);
        rte_mbuf* m = pool.packet(finished({}));
        m->ol_flags = RTE_MBUF_F_RX_L4_CKSUM_GOOD;
        const auto got = expect_one(rig, m);
        EXPECT_EQ(got.header.flags, features != 0 ? VIRTIO_NET_HDR_F_DATA_VALID : 0);
        EXPECT_EQ(got.bytes, finished({}));
    }
}

TEST(OffloadToGuest, large_packet_is_whole_for_who_takes_it) {
    Pool pool(63);
    for (const uint64_t format : kFormats) {
        OffloadRig rig(pool, OffloadRig::with(kOffloads | format));
        rig.provide(32, 1500);
        for (const Shape& s : shapes(20000)) {
            const auto got = expect_one(rig, unfinished(pool, s, 1400));
            EXPECT_TRUE(same(got.header, gso(s, 1400)));
            EXPECT_EQ(got.bytes, make_packet(s));
        }
        EXPECT_EQ(rig.to().segmented.was(), 0u);
        EXPECT_EQ(rig.to().packets.was(), shapes(0).size());
    }
}

TEST(OffloadToGuest, large_packet_is_cut_for_who_does_not_take_it) {
    Pool pool(127);
    for (const uint64_t format : kFormats) {
        for (const uint64_t mergeable : {uint64_t{0}, kMergeable}) {
            for (const uint64_t features : {uint64_t{0}, kSum}) {
                OffloadRig rig(pool, {.acked = kAcked | mergeable | features | format});
                rig.provide(32, 1600);
                for (const Shape& s : shapes(14500)) {
                    ASSERT_EQ(rig.deliver_all({unfinished(pool, s, 1400)}), 1u);
                    auto got = rig.received(true);
                    for (auto& r : got) {
                        EXPECT_TRUE(
                            same(r.header, features != 0 ? needs_csum(s) : virtio_net_hdr{}));
                        if (r.header.flags != 0) finish_checksum(r.bytes, r.header);
                    }
                    check_pieces(bytes_of(got), make_packet(s), s, 1400, true);
                    if (HasFailure()) return;
                }
                EXPECT_EQ(rig.to().segmented.was(), shapes(0).size());
                EXPECT_EQ(rig.to().packets.was(), 11 * shapes(0).size());
            }
        }
    }
}

TEST(OffloadToGuest, flags_that_do_not_agree_with_the_packet_drop_it_and_no_other) {
    Pool pool(63);
    OffloadRig rig(pool, OffloadRig::with(kOffloads));
    rig.provide(16, 2000);
    std::vector<rte_mbuf*> in;
    for (unsigned i = 0; i < 8; ++i)
        in.push_back(i % 2 == 0 ? pool.packet(frame(300, i)) : unfinished(pool, {}));
    in[1]->ol_flags |= RTE_MBUF_F_TX_IPV6;
    in[3]->l3_len = 500;
    in[5]->ol_flags = RTE_MBUF_F_TX_SCTP_CKSUM | RTE_MBUF_F_TX_IPV4;
    in[7]->ol_flags = RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_IPV4;  // no size
    EXPECT_EQ(rig.deliver_all(in), 8u);
    EXPECT_EQ(rig.to().drop_offload.was(), 4u);
    const auto got = rig.received();
    ASSERT_EQ(got.size(), 4u);
    for (unsigned i = 0; i < 4; ++i) EXPECT_EQ(got[i].bytes, frame(300, 2 * i));
}

TEST(OffloadToGuest, without_a_buffer_for_the_first_piece_the_packet_stays_the_callers) {
    Pool pool(127);
    OffloadRig rig(pool, OffloadRig::with(kSum));
    const Shape s{.payload = 5000};
    rte_mbuf* in[] = {unfinished(pool, s, 1000)};
    const uint64_t flags = in[0]->ol_flags;
    EXPECT_EQ(rig.port->to_guest(0, in), 0u);
    EXPECT_EQ(rig.to().no_buffer.was(), 1u);
    EXPECT_EQ(rig.to().segmented.was() + rig.to().drop_rest.was(), 0u);
    EXPECT_EQ(in[0]->ol_flags, flags);
    rig.provide(8, 1500);
    EXPECT_EQ(rig.port->to_guest(0, in), 1u);
    auto got = rig.received();
    for (auto& r : got) finish_checksum(r.bytes, r.header);
    check_pieces(bytes_of(got), make_packet(s), s, 1000, true);
}

TEST(OffloadToGuest, packets_that_stay_the_callers_can_go_to_a_guest_of_other_features) {
    Pool pool(127);
    OffloadRig first(pool, OffloadRig::with(kOffloads)), second(pool, OffloadRig::with(0));
    second.provide(8, 2000);
    const Shape s{.payload = 900}, large{.udp = true, .payload = 3000};
    std::vector<rte_mbuf*> in{unfinished(pool, s), unfinished(pool, large, 1000)};
    ASSERT_EQ(first.port->to_guest(0, in), 0u);
    ASSERT_EQ(second.port->to_guest(0, in), 2u);
    auto got = bytes_of(second.received());
    ASSERT_EQ(got.size(), 4u);
    EXPECT_EQ(got[0], finished(s));
    got.erase(got.begin());
    check_pieces(got, make_packet(large), large, 1000, true);
}

TEST(OffloadToGuest, rest_is_dropped_when_buffers_run_out_after_the_first_piece) {
    Pool pool(127);
    OffloadRig rig(pool, OffloadRig::with(0));
    rig.provide(3, 1500);
    const Shape s{.payload = 5000};
    std::vector<rte_mbuf*> in{unfinished(pool, s, 1000), pool.packet(frame(60))};
    EXPECT_EQ(rig.deliver_all(in), 1u);
    EXPECT_EQ(rig.to().drop_rest.was(), 1u);
    EXPECT_EQ(rig.to().segmented.was(), 1u);
    EXPECT_EQ(rig.to().packets.was(), 3u);
    EXPECT_EQ(rig.to().no_buffer.was(), 1u) << "the other packet";
    const auto got = rig.received();
    ASSERT_EQ(got.size(), 3u);
    for (const auto& r : got) EXPECT_TRUE(l4_is_right(r.bytes, s));
}

TEST(OffloadToGuest, exhausted_pool_costs_the_rest_of_the_packet) {
    Pool pool(63), pieces(1);
    OffloadRig rig(pieces, OffloadRig::with(0));
    rig.provide(16, 1500);
    const Shape s{.payload = 5000};
    EXPECT_EQ(rig.deliver_all({unfinished(pool, s, 1000)}), 1u) << "one piece at a time is enough";
    EXPECT_EQ(rig.received(true).size(), 5u);
    rte_mbuf* hog = pieces.packet(frame(1));
    EXPECT_EQ(rig.deliver_all({unfinished(pool, s, 1000), pool.packet(frame(60))}), 2u);
    EXPECT_EQ(rig.to().drop_no_mbuf.was(), 1u);
    EXPECT_EQ(rig.received().size(), 1u);
    rte_pktmbuf_free(hog);
}

TEST(OffloadToGuest, too_many_pieces_of_a_packet_are_dropped_and_of_a_burst_left_for_the_next) {
    Pool pool(127);
    OffloadRig rig(pool, OffloadRig::with(0, 4096));
    rig.provide(3200, 80);
    const Shape most{.payload = 1024}, more{.payload = 1025};
    std::vector<rte_mbuf*> in{unfinished(pool, more, 1)};
    for (int i = 0; i < 3; ++i) in.push_back(unfinished(pool, most, 1));
    ASSERT_EQ(rig.port->to_guest(0, in), 3u);
    EXPECT_EQ(rig.to().drop_offload.was(), 1u);
    EXPECT_EQ(rig.to().packets.was(), 2048u);
    EXPECT_EQ(rig.to().no_buffer.was(), 0u);
    ASSERT_EQ(rig.port->to_guest(0, std::span(in).subspan(3)), 1u);
    EXPECT_EQ(rig.to().packets.was(), 3072u);
    EXPECT_EQ(rig.received().size(), 3072u);
}

TEST(OffloadToGuest, mtu_binds_pieces_and_not_what_is_taken_whole) {
    Pool pool(127);
    for (const uint64_t features : {uint64_t{0}, kOffloads}) {
        auto options = OffloadRig::with(features);
        options.config.mtu = 1500;
        OffloadRig rig(pool, options);
        rig.provide(30, 2000);
        const Shape s{.payload = 6000};
        EXPECT_EQ(rig.deliver_all({unfinished(pool, s, 1400)}), 1u);
        EXPECT_EQ(rig.received(true).size(), features != 0 ? 1u : 5u);
        EXPECT_EQ(rig.to().drop_too_big.was(), 0u);
        EXPECT_EQ(rig.deliver_all({unfinished(pool, s, 1800)}), 1u);
        EXPECT_EQ(rig.received(true).size(), 1u) << "whole, or the last piece";
        EXPECT_EQ(rig.to().drop_too_big.was(), features != 0 ? 0u : 3u);
        EXPECT_EQ(rig.deliver_all({unfinished(pool, s)}), 1u);
        EXPECT_EQ(rig.received().size(), 0u) << "not to be cut";
    }
}

TEST(OffloadToGuest, large_packet_that_no_buffer_holds_is_dropped) {
    Pool pool(127);
    OffloadRig rig(pool, {.acked = kAcked | kOffloads});
    rig.provide(8, 1600);
    EXPECT_EQ(rig.deliver_all({unfinished(pool, {.payload = 5000}, 1000)}), 1u);
    EXPECT_EQ(rig.to().drop_too_big.was(), 1u);
    EXPECT_EQ(rig.deliver_all({unfinished(pool, {.payload = 1200}, 1000)}), 1u);
    ASSERT_EQ(rig.received().size(), 1u);
}

TEST(OffloadToGuest, order_is_kept_whatever_is_done_to_the_packets) {
    Pool pool(511);
    for (const uint64_t format : kFormats) {
        OffloadRig rig(pool, OffloadRig::with(kSum | format, 256));
        rig.provide(100, 2000);
        std::vector<rte_mbuf*> in;
        std::vector<unsigned> want;  // salt of each that is to come
        std::mt19937 random(7);
        for (unsigned i = 0; i < NetPort::kBurst; ++i) {
            Shape s{.v6 = random() % 2 == 0, .udp = random() % 2 == 0, .payload = 2500, .salt = i};
            const unsigned kind = random() % 4;
            if (kind == 1 || kind == 2) s.payload = 200;
            in.push_back(unfinished(pool, s, kind == 0 ? 1000 : 0));
            if (kind == 1) in.back()->ol_flags = 0;
            if (kind == 3) {
                rte_pktmbuf_free(in.back());
                in.back() = unfinished(pool, {.payload = 300});
                in.back()->l3_len = 0;  // impossible
            }
            want.insert(want.end(), kind == 0 ? 3 : kind == 3 ? 0 : 1, i);
        }
        EXPECT_EQ(rig.deliver_all(in), NetPort::kBurst);
        const auto got = rig.received();
        ASSERT_EQ(got.size(), want.size());
        for (size_t i = 0; i < got.size(); ++i) {
            const Bytes& b = got[i].bytes;
            const bool v6 = be16(b, 12) == 0x86dd;
            EXPECT_EQ(be16(b, v6 ? 54 : 34), 5001 + want[i]) << i;
        }
    }
}

}  // namespace
}  // namespace viommu::net::test
