// SPDX-License-Identifier: BSD-3-Clause
#include <rte_ethdev.h>

#include "net_config.hh"
#include "offload_segmenter.hh"
#include "packets.hh"

namespace viommu::net::test {
namespace {

using namespace wire;
using namespace offload;

constexpr uint64_t kAll = kOffloads;

/// What a receiver gets of one packet.
std::vector<Bytes> adapt(Pool& pool, rte_mbuf* packet, const Receiver& receiver,
                         Adapter* adapter = nullptr, uint64_t* flags = nullptr) {
    Adapter own(pool.get());
    Adapter& a = adapter != nullptr ? *adapter : own;
    std::vector<Bytes> all;
    rte_mbuf* in[] = {packet};
    rte_mbuf* out[7];
    auto moved = a.run(in, out, receiver);
    EXPECT_EQ(moved.taken, 1u);
    for (;;) {
        for (unsigned i = 0; i < moved.made; ++i) {
            if (flags != nullptr) *flags |= out[i]->ol_flags;
            all.push_back(take(out[i]));
        }
        if (!a.pending()) return all;
        moved = a.run({}, out, receiver);
    }
}

TEST(ToMbuf, header_of_zeros_asks_for_nothing) {
    Pool pool(63);
    rte_mbuf* m = pool.packet(frame(60));
    EXPECT_TRUE(to_mbuf({}, kAll, *m));
    EXPECT_TRUE(is_plain(*m));
    rte_pktmbuf_free(m);
}

TEST(ToMbuf, checksum_of_every_shape_survives_to_a_guest_and_is_right_without_offloads) {
    Pool pool(63);
    for (const size_t payload : {0u, 1u, 100u, 1457u, 5000u}) {
        for (const Shape& s : shapes(payload)) {
            SCOPED_TRACE(fmt::format("v6 {} udp {} vlans {} options {} payload {}", s.v6, s.udp,
                                     s.vlans, s.ip_options, payload));
            const Bytes b = make_packet(s);
            // Where it stays partial, the header comes out as it went in.
            rte_mbuf* m = pool.packet(b);
            ASSERT_TRUE(to_mbuf(needs_csum(s), kAll, *m));
            ASSERT_EQ(fit(*m, Receiver::guest(kAll)), Fit::kReady);
            const auto h = from_mbuf(*m, kAll);
            const Bytes got = take(m);
            if (h.flags != 0) {
                EXPECT_TRUE(same(h, needs_csum(s)));
                EXPECT_EQ(got, b);
            } else {
                EXPECT_TRUE(l4_is_right(got, s));  // IP options: finished at once
                EXPECT_NE(s.ip_options, 0u);
            }
            // And for a guest that takes no partial checksums.
            m = pool.packet(b);
            ASSERT_TRUE(to_mbuf(needs_csum(s), kAll, *m));
            ASSERT_EQ(fit(*m, Receiver{}), Fit::kReady);
            EXPECT_TRUE(same(from_mbuf(*m, 0), {}));
            const Bytes finished = take(m);
            EXPECT_TRUE(l4_is_right(finished, s));
            EXPECT_TRUE(ip_is_right(finished, s));
            // Nothing else changed.
            Bytes expected = b;
            put16(expected, s.checksum_at(), be16(finished, s.checksum_at()));
            EXPECT_EQ(finished, expected);
        }
    }
}

TEST(ToMbuf, checksum_that_comes_out_as_zero_is_written_as_ffff) {
    Pool pool(63);
    Shape s{.udp = true, .payload = 2};
    // The payload makes the sum all ones, so that its complement is 0.
    Bytes b = make_packet(s);
    put16(b, s.headers(), 0);
    const uint32_t sum = ones_sum(b, s.l4(), b.size());
    put16(b, s.headers(), 0xffff - sum);
    rte_mbuf* m = pool.packet(b);
    ASSERT_TRUE(to_mbuf(needs_csum(s), kAll, *m));
    ASSERT_EQ(fit(*m, Receiver{}), Fit::kReady);
    EXPECT_EQ(be16(take(m), s.checksum_at()), 0xffff);
}

TEST(ToMbuf, wrong_pseudo_sum_of_a_guest_is_not_passed_on) {
    Pool pool(63);
    const Shape s;
    Bytes b = make_packet(s);
    const Bytes right = b;
    put16(b, s.checksum_at(), 0xdead);
    for (const bool partial : {false, true}) {
        rte_mbuf* m = pool.packet(b);
        ASSERT_TRUE(to_mbuf(needs_csum(s), kAll, *m));
        ASSERT_EQ(fit(*m, Receiver::guest(partial ? kAll : 0)), Fit::kReady);
        const Bytes got = take(m);
        if (partial) {
            EXPECT_EQ(got, right);
        } else {
            EXPECT_TRUE(l4_is_right(got, s));
        }
    }
}

TEST(ToMbuf, padding_behind_the_ip_packet_is_not_summed) {
    Pool pool(63);
    const Shape s{.payload = 1};
    Bytes b = make_packet(s);
    const size_t real = b.size();
    b.resize(60, std::byte{0xaa});
    rte_mbuf* m = pool.packet(b);
    ASSERT_TRUE(to_mbuf(needs_csum(s), kAll, *m));
    ASSERT_EQ(fit(*m, Receiver{}), Fit::kReady);
    Bytes got = take(m);
    ASSERT_EQ(got.size(), 60u);
    got.resize(real);
    EXPECT_TRUE(l4_is_right(got, s));
}

TEST(ToMbuf, checksum_anywhere_is_finished_to_the_letter) {
    Pool pool(511);
    std::mt19937 random(choose_seed());
    for (int i = 0; i < 3000; ++i) {
        const size_t size = 14 + random() % 300;
        Bytes b = frame(size, random());
        const uint32_t start = random() % (size - 1);
        const uint32_t at = start + random() % (size - 1 - start);
        virtio_net_hdr h{};
        h.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        h.csum_start = uint16_t(start);
        h.csum_offset = uint16_t(at - start);
        rte_mbuf* m = pool.packet(b, 1 + random() % 100);
        ASSERT_TRUE(to_mbuf(h, kAll, *m));
        ASSERT_TRUE(is_plain(*m));
        const unsigned want = 0xffff & ~ones_sum(b, start, b.size());
        put16(b, at, want == 0 ? 0xffff : want);
        ASSERT_EQ(take(m), b) << "start " << start << " at " << at << " of " << size;
    }
}

TEST(ToMbuf, checksum_outside_of_the_packet_is_malformed) {
    Pool pool(63);
    const Shape s;
    const Bytes b = make_packet(s);
    const auto try_it = [&](uint32_t start, uint32_t offset) {
        rte_mbuf* m = pool.packet(b);
        virtio_net_hdr h = needs_csum(s);
        h.csum_start = uint16_t(start);
        h.csum_offset = uint16_t(offset);
        const bool ok = to_mbuf(h, kAll, *m);
        rte_pktmbuf_free(m);
        return ok;
    };
    const auto n = uint32_t(b.size());
    EXPECT_TRUE(try_it(0, n - 2));
    EXPECT_FALSE(try_it(0, n - 1));
    EXPECT_FALSE(try_it(1, n - 2));
    EXPECT_TRUE(try_it(n - 2, 0));
    EXPECT_FALSE(try_it(n - 1, 0));
    EXPECT_FALSE(try_it(0xffff, 0xffff));
    EXPECT_FALSE(try_it(0xffff, 1)) << "no wrap at 16 bits";
}

TEST(ToMbuf, what_was_not_negotiated_is_malformed) {
    Pool pool(63);
    const struct {
        virtio_net_hdr header;
        Shape shape;
        uint64_t without;
    } cases[] = {
        {needs_csum({}), {}, bit(VIRTIO_NET_F_CSUM)},
        {gso({}, 50), {}, bit(VIRTIO_NET_F_HOST_TSO4)},
        {gso({}, 50), {}, bit(VIRTIO_NET_F_CSUM)},
        {gso({.v6 = true}, 50), {.v6 = true}, bit(VIRTIO_NET_F_HOST_TSO6)},
        {gso({.udp = true}, 50), {.udp = true}, bit(VIRTIO_NET_F_HOST_USO)},
        {gso({.v6 = true, .udp = true}, 50), {.v6 = true, .udp = true}, bit(VIRTIO_NET_F_HOST_USO)},
    };
    for (const auto& c : cases) {
        rte_mbuf* m = pool.packet(make_packet(c.shape));
        EXPECT_FALSE(to_mbuf(c.header, negotiated(kAll & ~c.without), *m));
        EXPECT_TRUE(to_mbuf(c.header, negotiated(kAll), *m));
        rte_pktmbuf_free(m);
    }
    virtio_net_hdr h = gso({}, 50);
    h.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
    rte_mbuf* m = pool.packet(make_packet({}));
    EXPECT_FALSE(to_mbuf(h, kAll & ~bit(VIRTIO_NET_F_HOST_ECN), *m));
    EXPECT_TRUE(to_mbuf(h, kAll, *m));
    rte_pktmbuf_free(m);
}

TEST(ToMbuf, segmentation_that_makes_no_sense_is_malformed) {
    Pool pool(63);
    const auto try_it = [&](const virtio_net_hdr& h, const Bytes& b, size_t segment = 2048) {
        rte_mbuf* m = pool.packet(b, segment);
        const bool ok = to_mbuf(h, kAll, *m);
        if (!ok) {
            EXPECT_TRUE(is_plain(*m));
        }
        rte_pktmbuf_free(m);
        return ok;
    };
    const Shape s{.payload = 1000};
    const Bytes b = make_packet(s);
    const virtio_net_hdr good = gso(s, 100);
    ASSERT_TRUE(try_it(good, b));
    auto h = good;
    h.flags = 0;
    EXPECT_FALSE(try_it(h, b)) << "5.1.6.2.1: GSO only with NEEDS_CSUM";
    h = good;
    h.gso_size = 0;
    EXPECT_FALSE(try_it(h, b));
    for (unsigned type = 0; type < 256; ++type) {
        h = good;
        h.gso_type = uint8_t(type);
        const bool known = type == 0 || (type & 0x7f) == VIRTIO_NET_HDR_GSO_TCPV4;
        EXPECT_EQ(try_it(h, b), known) << type;
    }
    h = good;
    h.csum_start = uint16_t(s.l4() + 1);
    EXPECT_FALSE(try_it(h, b));
    h = good;
    h.csum_offset = 6;
    EXPECT_FALSE(try_it(h, b));
    h = good;
    h.hdr_len = 0xffff;
    EXPECT_TRUE(try_it(h, b)) << "a hint, and not ours to believe";

    Bytes bad = b;
    put16(bad, s.l2() + 6, 0x2000);
    EXPECT_FALSE(try_it(good, bad)) << "a fragment";
    bad = b;
    bad[s.l4() + 12] = std::byte{0x40};
    EXPECT_FALSE(try_it(good, bad)) << "a TCP header shorter than one";
    bad = b;
    bad[s.l2()] = std::byte{0x44};
    EXPECT_FALSE(try_it(good, bad)) << "an IP header shorter than one";
    bad = b;
    bad[s.l4() + 12] = std::byte{0xf0};
    bad.resize(s.l4() + 59);
    EXPECT_FALSE(try_it(good, bad)) << "a TCP header longer than the packet";
    bad.resize(s.l4() + 10);
    h = good;
    EXPECT_FALSE(try_it(h, bad)) << "cut off in the TCP header";
    EXPECT_FALSE(try_it(good, b, 40)) << "headers in two segments: our own pool is too small";
    Bytes arp = frame(200);
    put16(arp, 12, 0x0806);
    EXPECT_FALSE(try_it(good, arp));
}

TEST(ToMbuf, one_piece_is_no_segmentation) {
    Pool pool(63);
    const Shape s{.payload = 100};
    for (const uint16_t size : {uint16_t(100), uint16_t(5000)}) {
        rte_mbuf* m = pool.packet(make_packet(s));
        ASSERT_TRUE(to_mbuf(gso(s, size), kAll, *m));
        EXPECT_FALSE(is_large(*m));
        EXPECT_EQ(m->ol_flags & RTE_MBUF_F_TX_L4_MASK, RTE_MBUF_F_TX_TCP_CKSUM);
        rte_pktmbuf_free(m);
    }
}

TEST(ToMbuf, flags_are_what_an_ethdev_wants) {
    Pool pool(63);
    const Shape s{.vlans = 1, .tcp_options = 12, .payload = 3000};
    rte_mbuf* m = pool.packet(make_packet(s));
    ASSERT_TRUE(to_mbuf(gso(s, 1000), kAll, *m));
    EXPECT_EQ(m->ol_flags, RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV4 |
                               RTE_MBUF_F_TX_IP_CKSUM);
    EXPECT_EQ(m->l2_len, 18u);
    EXPECT_EQ(m->l3_len, 20u);
    EXPECT_EQ(m->l4_len, 32u);
    EXPECT_EQ(m->tso_segsz, 1000u);
    rte_pktmbuf_free(m);
}

TEST(FromMbuf, large_packets_of_every_shape_keep_their_header_between_guests) {
    Pool pool(63);
    for (const Shape& s : shapes(20000)) {
        const Bytes b = make_packet(s);
        rte_mbuf* m = pool.packet(b);
        ASSERT_TRUE(to_mbuf(gso(s, 1400), kAll, *m));
        ASSERT_EQ(fit(*m, Receiver::guest(kAll)), Fit::kReady);
        EXPECT_TRUE(same(from_mbuf(*m, kAll), gso(s, 1400)));
        EXPECT_EQ(take(m), b);
    }
}

TEST(FromMbuf, checksum_found_good_is_data_valid_if_that_is_negotiated) {
    Pool pool(63);
    const struct {
        uint64_t flags;
        uint8_t want;
    } cases[] = {{RTE_MBUF_F_RX_L4_CKSUM_GOOD, VIRTIO_NET_HDR_F_DATA_VALID},
                 {RTE_MBUF_F_RX_L4_CKSUM_BAD, 0},
                 {0, 0}};
    for (const auto& c : cases) {
        rte_mbuf* m = pool.packet(make_packet({}));
        m->ol_flags = c.flags;
        ASSERT_EQ(fit(*m, Receiver::guest(kAll)), Fit::kReady);
        EXPECT_EQ(from_mbuf(*m, kAll).flags, c.want);
        EXPECT_EQ(from_mbuf(*m, kAll & ~bit(VIRTIO_NET_F_GUEST_CSUM)).flags, 0);
        rte_pktmbuf_free(m);
    }
}

TEST(FromMbuf, received_without_a_checksum_is_partial_or_finished) {
    Pool pool(63);
    for (const Shape& s : shapes(700)) {
        Bytes b = make_packet(s);
        put16(b, s.checksum_at(), 0x1234);  // RX_L4_CKSUM_NONE: not correct in the packet
        rte_mbuf* m = pool.packet(b);
        m->ol_flags = RTE_MBUF_F_RX_L4_CKSUM_NONE;
        ASSERT_EQ(fit(*m, Receiver::guest(kAll)), Fit::kReady);
        EXPECT_TRUE(same(from_mbuf(*m, kAll), needs_csum(s)));
        EXPECT_EQ(take(m), make_packet(s));
        m = pool.packet(b);
        m->ol_flags = RTE_MBUF_F_RX_L4_CKSUM_NONE;
        ASSERT_EQ(fit(*m, Receiver{}), Fit::kReady);
        EXPECT_TRUE(l4_is_right(take(m), s));
    }
}

TEST(FromMbuf, lro_of_a_nic_is_a_large_packet) {
    Pool pool(63);
    const Shape s{.payload = 8000};
    rte_mbuf* m = pool.packet(make_packet(s));
    m->ol_flags = RTE_MBUF_F_RX_LRO | RTE_MBUF_F_RX_L4_CKSUM_GOOD;
    m->tso_segsz = 1448;
    ASSERT_EQ(fit(*m, Receiver::guest(kAll)), Fit::kReady);
    EXPECT_TRUE(same(from_mbuf(*m, kAll), gso(s, 1448)));
    EXPECT_EQ(take(m), make_packet(s));
}

TEST(Adapter, large_packet_is_cut_into_right_packets_for_who_cannot_take_it) {
    Pool pool(127);
    for (const size_t payload : {1001u, 3000u, 20011u, 65000u}) {
        for (Shape s : shapes(payload)) {
            s.tcp_flags = 0x99;  // CWR, ACK, PSH, FIN
            for (const size_t mss : {1000u, 1448u, 8948u}) {
                if (payload <= mss) continue;
                for (const bool checksums : {false, true}) {
                    const Bytes b = make_packet(s);
                    rte_mbuf* m = pool.packet(b);
                    ASSERT_TRUE(to_mbuf(gso(s, uint16_t(mss)), kAll, *m));
                    Receiver r;
                    r.tcp_checksum = r.udp_checksum = checksums;
                    uint64_t flags = 0;
                    check_pieces(adapt(pool, m, r, nullptr, &flags), b, s, mss, !checksums);
                    EXPECT_EQ((flags & RTE_MBUF_F_TX_L4_MASK) != 0, checksums);
                    EXPECT_EQ(flags & (RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_UDP_SEG), 0u);
                    if (HasFailure()) return;
                }
            }
        }
    }
}

TEST(Adapter, each_kind_of_segmentation_needs_its_own_feature) {
    Pool pool(127);
    for (const Shape& s : {Shape{.payload = 4000}, Shape{.v6 = true, .payload = 4000},
                           Shape{.udp = true, .payload = 4000},
                           Shape{.v6 = true, .udp = true, .payload = 4000}}) {
        const unsigned feature = s.udp ? (s.v6 ? VIRTIO_NET_F_GUEST_USO6 : VIRTIO_NET_F_GUEST_USO4)
                                       : (s.v6 ? VIRTIO_NET_F_GUEST_TSO6 : VIRTIO_NET_F_GUEST_TSO4);
        const auto count = [&](uint64_t features) {
            rte_mbuf* m = pool.packet(make_packet(s));
            EXPECT_TRUE(to_mbuf(gso(s, 1000), kAll, *m));
            return adapt(pool, m, Receiver::guest(negotiated(features))).size();
        };
        EXPECT_EQ(count(kAll), 1u);
        EXPECT_EQ(count(kAll & ~bit(feature)), 4u);
        EXPECT_EQ(count(bit(VIRTIO_NET_F_GUEST_CSUM) | bit(feature)), 1u);
        EXPECT_EQ(count(bit(feature)), 4u) << "5.1.3.1: not without GUEST_CSUM";
    }
}

TEST(Adapter, cwr_needs_guest_ecn) {
    Pool pool(127);
    for (const uint8_t tcp_flags : {uint8_t(0x10), uint8_t(0x90)}) {
        const Shape s{.payload = 4000, .tcp_flags = tcp_flags};
        for (const uint64_t features : {kAll, kAll & ~bit(VIRTIO_NET_F_GUEST_ECN)}) {
            rte_mbuf* m = pool.packet(make_packet(s));
            ASSERT_TRUE(to_mbuf(gso(s, 1000), kAll, *m));
            const bool whole = (tcp_flags & 0x80) == 0 || features == kAll;
            if (whole) {
                ASSERT_EQ(fit(*m, Receiver::guest(features)), Fit::kReady);
                auto want = gso(s, 1000);
                if ((tcp_flags & 0x80) != 0) want.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
                EXPECT_TRUE(same(from_mbuf(*m, features), want));
                rte_pktmbuf_free(m);
            } else {
                EXPECT_EQ(adapt(pool, m, Receiver::guest(features)).size(), 4u);
            }
        }
    }
}

TEST(Adapter, ethdev_gets_what_its_offloads_say) {
    Pool pool(127);
    const Shape s{.payload = 4000};
    const auto run = [&](uint64_t offloads, const Shape& shape) {
        rte_mbuf* m = pool.packet(make_packet(shape));
        EXPECT_TRUE(to_mbuf(gso(shape, 1000), kAll, *m));
        return adapt(pool, m, Receiver::ethdev(offloads)).size();
    };
    constexpr uint64_t kSums = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_CKSUM |
                               RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
    EXPECT_EQ(run(0, s), 4u);
    EXPECT_EQ(run(kSums, s), 4u);
    EXPECT_EQ(run(kSums | RTE_ETH_TX_OFFLOAD_TCP_TSO, s), 1u);
    EXPECT_EQ(run(kSums | RTE_ETH_TX_OFFLOAD_TCP_TSO, {.udp = true, .payload = 4000}), 4u);
    EXPECT_EQ(run(~uint64_t{0}, {.udp = true, .payload = 4000}), 4u) << "UFO or USO, who knows";
}

TEST(Adapter, order_is_kept_and_plain_packets_are_not_touched) {
    Pool pool(127);
    Adapter adapter(pool.get());
    const Shape s{.payload = 2500};
    rte_mbuf* large = pool.packet(make_packet(s));
    ASSERT_TRUE(to_mbuf(gso(s, 1000), kAll, *large));
    rte_mbuf* in[] = {pool.packet(frame(60, 1)), large, pool.packet(frame(60, 2))};
    rte_mbuf* const first = in[0];
    rte_mbuf* out[8];
    const auto moved = adapter.run(in, out, Receiver{});
    EXPECT_EQ(moved.taken, 3u);
    ASSERT_EQ(moved.made, 5u);
    EXPECT_EQ(out[0], first);
    EXPECT_EQ(take(out[0]), frame(60, 1));
    for (unsigned i = 1; i < 4; ++i) EXPECT_TRUE(l4_is_right(take(out[i]), s));
    EXPECT_EQ(take(out[4]), frame(60, 2));
    EXPECT_EQ(adapter.segmented.was(), 1u);
}

TEST(Adapter, exhausted_pool_costs_the_packet_and_no_mbuf) {
    Pool pool(40);
    Pool pieces(2);
    Adapter adapter(pieces.get());
    const Shape s{.payload = 20000};
    rte_mbuf* m = pool.packet(make_packet(s));
    ASSERT_TRUE(to_mbuf(gso(s, 1000), kAll, *m));
    rte_mbuf* in[] = {m};
    rte_mbuf* out[32];
    const auto moved = adapter.run(in, out, Receiver{});
    EXPECT_EQ(moved.made, 2u);
    EXPECT_FALSE(adapter.pending());
    EXPECT_EQ(adapter.drop_no_mbuf.was(), 1u);
    for (unsigned i = 0; i < moved.made; ++i) rte_pktmbuf_free(out[i]);
}

TEST(Adapter, too_many_pieces_are_dropped) {
    Pool pool(127);
    Adapter adapter(pool.get());
    for (const unsigned payload : {1024u, 1025u}) {
        const Shape s{.payload = payload};
        rte_mbuf* m = pool.packet(make_packet(s));
        ASSERT_TRUE(to_mbuf(gso(s, 1), kAll, *m));
        EXPECT_EQ(adapt(pool, m, Receiver{}, &adapter).size(), payload == 1024 ? 1024u : 0u);
    }
    EXPECT_EQ(adapter.drop_offload.was(), 1u);
}

TEST(Adapter, flags_that_lie_about_the_packet_drop_it) {
    Pool pool(63);
    const struct {
        uint64_t flags;
        unsigned l2, l3, l4, size;
    } cases[] = {
        {RTE_MBUF_F_TX_TCP_CKSUM, 14, 20, 20, 0},                       // no IP version
        {RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV4, 14, 0, 0, 0},    // no l3_len
        {RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV4, 14, 200, 0, 0},  // beyond the segment
        {RTE_MBUF_F_TX_SCTP_CKSUM | RTE_MBUF_F_TX_IPV4, 14, 20, 0, 0},
        {RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_IPV4, 14, 20, 20, 0},    // no size
        {RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_IPV4, 14, 20, 0, 100},   // no l4_len
        {RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_TUNNEL_VXLAN, 14, 20, 20, 100},
        // Two protocols; lengths that go beyond the segment by one of them.
        {RTE_MBUF_F_TX_UDP_SEG | RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IPV4, 14, 20, 8, 100},
        {RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_UDP_CKSUM | RTE_MBUF_F_TX_IPV4, 14, 20, 20, 100},
        {RTE_MBUF_F_TX_UDP_SEG | RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_IPV4, 14, 20, 20, 100},
        {RTE_MBUF_F_TX_UDP_SEG | RTE_MBUF_F_TX_UDP_CKSUM | RTE_MBUF_F_TX_IPV4, 14, 20, 200, 100},
        {RTE_MBUF_F_TX_UDP_SEG | RTE_MBUF_F_TX_UDP_CKSUM | RTE_MBUF_F_TX_IPV4, 14, 20, 12, 100},
    };
    for (const auto& c : cases) {
        rte_mbuf* m = pool.packet(make_packet({}));
        m->ol_flags = c.flags;
        m->l2_len = c.l2 & 0x7f;
        m->l3_len = c.l3 & 0x1ff;
        m->l4_len = c.l4 & 0xff;
        m->tso_segsz = uint16_t(c.size);
        EXPECT_EQ(fit(*m, Receiver::guest(kAll)), Fit::kImpossible);
        EXPECT_EQ(fit(*m, Receiver{}), Fit::kImpossible);
        rte_pktmbuf_free(m);
    }
}

TEST(ToMbuf, random_headers_and_packets_are_refused_or_come_out_whole) {
    Pool pool(255);
    std::mt19937 random(choose_seed());
    unsigned accepted = 0;
    for (int i = 0; i < 20000; ++i) {
        Shape s{.v6 = random() % 2 == 0,
                .udp = random() % 2 == 0,
                .vlans = unsigned(random() % 3),
                .payload = random() % 4000,
                .salt = unsigned(random() % 100)};
        Bytes b = make_packet(s);
        virtio_net_hdr h = random() % 2 == 0 ? gso(s, uint16_t(random() % 2000)) : needs_csum(s);
        for (unsigned n = random() % 3; n > 0; --n)
            reinterpret_cast<uint8_t*>(&h)[random() % sizeof h] = uint8_t(random());
        for (unsigned n = random() % 3; n > 0; --n)
            b[random() % std::min<size_t>(b.size(), 90)] = std::byte(random());
        if (random() % 4 == 0) b.resize(14 + random() % (b.size() - 13));
        rte_mbuf* m = pool.packet(b);
        if (!to_mbuf(h, kAll, *m)) {
            rte_pktmbuf_free(m);
            continue;
        }
        ++accepted;
        const bool large = is_large(*m);
        const size_t payload = b.size() - m->l2_len - m->l3_len - m->l4_len;
        const size_t size = m->tso_segsz;
        const uint64_t features = negotiated(random() % 2 == 0 ? kAll : kAll & random());
        const auto out = adapt(pool, m, Receiver::guest(features));
        if (!large) {
            ASSERT_EQ(out.size(), 1u);
            ASSERT_EQ(out[0].size(), b.size());
        } else if (out.size() != 1) {
            ASSERT_TRUE(out.size() == (payload + size - 1) / size || out.empty());
        }
    }
    EXPECT_GT(accepted, 2000u);
}

}  // namespace
}  // namespace viommu::net::test
