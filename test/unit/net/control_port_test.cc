// SPDX-License-Identifier: BSD-3-Clause
/// What commands do to a port, and how long.
#include "control_rig.hh"

namespace viommu::net::test {
namespace {

using namespace wire;

constexpr uint64_t kFormats[] = {0, kPacked};

TEST(ControlPort, queue_lies_at_2_or_behind_all_pairs) {
    Pool pool(63);
    const uint64_t mq = kAllOffered | bit(VIRTIO_NET_F_MQ);
    const uint64_t rss = kAllOffered | bit(VIRTIO_NET_F_RSS);
    for (const uint64_t features : {kAllOffered, mq, rss, kPairsOffered}) {
        for (const uint16_t pairs : {uint16_t(1), uint16_t(3)}) {
            ControlRig rig(pool, features, pairs);
            EXPECT_EQ(rig.ring.index, features == kAllOffered ? 2 : 2 * pairs);
            EXPECT_EQ(rig.port->num_queues(), 2 * pairs + 1);
            EXPECT_EQ(rig.run(set_mac(1)), VIRTIO_NET_OK);
        }
    }
}

TEST(ControlPort, without_a_control_queue_index_2_is_a_receiveq) {
    Pool pool(63);
    ControlRig rig(pool, kOffloads, 2);
    rig.issue(set_mac(1));
    rig.port->poll_control();
    EXPECT_EQ(rig.answer(), kNoAck);
    EXPECT_EQ(rig.mac(), kOwn);
}

TEST(ControlPort, settings_last_as_long_as_the_ring_goes_on) {
    Pool pool(63);
    for (const uint64_t format : kFormats) {
        ControlRig rig(pool, kAllOffered | format);
        EXPECT_EQ(rig.run(promiscuous(false)), VIRTIO_NET_OK);
        EXPECT_EQ(rig.run(set_mac(7)), VIRTIO_NET_OK);
        for (int i = 0; i < 3; ++i) {
            rig.stop_control();
            EXPECT_EQ(rig.port->queue_stopped(rig.ring.index), rig.ring.base) << "twice";
            rig.port->features_acked(rig.options.acked | bit(VHOST_F_LOG_ALL));
            rig.port->queue_started(rig.ring);
            EXPECT_EQ(rig.mac(), mac_bytes(7)) << "the VM was paused";
            EXPECT_FALSE(rig.comes(pool, kOther));
            EXPECT_EQ(rig.run(promiscuous(false)), VIRTIO_NET_OK);
        }
        rig.stop_control();
        rig.new_driver();
        rig.port->queue_started(rig.ring);
        EXPECT_EQ(rig.mac(), kOwn) << "another driver";
        EXPECT_TRUE(rig.comes(pool, kOther));
    }
}

TEST(ControlPort, settings_end_with_the_features) {
    Pool pool(63);
    ControlRig rig(pool, kAllOffered);
    EXPECT_EQ(rig.run(promiscuous(false)), VIRTIO_NET_OK);
    rig.port->features_acked(rig.options.acked);
    EXPECT_FALSE(rig.comes(pool, kOther));
    rig.port->features_acked(rig.options.acked & ~kOffloads);
    EXPECT_TRUE(rig.comes(pool, kOther));
}

TEST(ControlPort, ring_that_is_found_late_is_another_drivers_or_not) {
    Pool pool(63);
    for (const uint64_t format : kFormats) {
        for (const bool same : {false, true}) {
            ControlRig rig(pool, kAllOffered | format);
            EXPECT_EQ(rig.run(set_mac(7)), VIRTIO_NET_OK);
            rig.stop_control();
            if (!same) rig.new_driver();
            const size_t page = rig.page_of(rig.ring.desc);
            rig.unmap_page(rig.ring.desc);
            rig.port->queue_started(rig.ring);
            rig.port->poll_control();
            EXPECT_EQ(rig.mac(), mac_bytes(7)) << "not known yet";
            rig.map_page(rig.ring.desc, page);
            EXPECT_TRUE(rig.port->arm(0)) << "finds the ring, too";
            rig.port->poll_control();
            EXPECT_EQ(rig.mac(), same ? mac_bytes(7) : kOwn);
        }
    }
}

TEST(ControlPort, what_the_filter_keeps_away_is_counted) {
    Pool pool(63);
    for (const uint64_t format : kFormats) {
        ControlRig rig(pool, kAllOffered | format);
        EXPECT_EQ(rig.run(promiscuous(false)), VIRTIO_NET_OK);
        rig.provide(16, 2000);
        std::vector<rte_mbuf*> in;
        for (unsigned i = 0; i < 12; ++i)
            in.push_back(pool.packet((i % 3 == 0 ? kOther : i % 3 == 1 ? kOwn : kBroadcast) +
                                     frame(60, i)));
        in[3]->ol_flags = RTE_MBUF_F_TX_SCTP_CKSUM;  // would be impossible as well
        EXPECT_EQ(rig.deliver_all(in), 12u);
        EXPECT_EQ(rig.to().drop_filtered.was(), 4u);
        EXPECT_EQ(rig.to().drop_offload.was(), 0u);
        const auto got = rig.received();
        ASSERT_EQ(got.size(), 8u);
        for (unsigned i = 0; i < 8; ++i)
            EXPECT_EQ(Bytes(got[i].bytes.begin() + 6, got[i].bytes.end()),
                      frame(60, i / 2 * 3 + 1 + i % 2));
    }
}

TEST(ControlPort, pair_that_is_not_in_use_gets_nothing) {
    Pool pool(63);
    ControlRig rig(pool, kPairsOffered, 2, 1);  // the rings are pair 1's
    EXPECT_EQ(rig.port->active_pairs(), 1);
    EXPECT_FALSE(rig.comes(pool, kOwn, 1)) << "5.1.6.5.5: one, until the guest says otherwise";
    EXPECT_EQ(rig.port->to_guest_counters(1).not_running.was(), 1u);
    EXPECT_EQ(rig.run(set_pairs(2)), VIRTIO_NET_OK);
    EXPECT_EQ(rig.port->active_pairs(), 2);
    EXPECT_TRUE(rig.comes(pool, kOwn, 1));
    EXPECT_EQ(rig.run(set_pairs(3)), VIRTIO_NET_ERR);
    EXPECT_TRUE(rig.comes(pool, kOwn, 1));
    EXPECT_EQ(rig.run(set_pairs(1)), VIRTIO_NET_OK);
    EXPECT_FALSE(rig.comes(pool, kOwn, 1));
    EXPECT_EQ(rig.port->to_guest_counters(1).not_running.was(), 2u);
    EXPECT_EQ(rig.run(rss_command(2)), VIRTIO_NET_OK);
    EXPECT_TRUE(rig.comes(pool, kOwn, 1));
}

TEST(ControlPort, packets_are_steered_as_the_guest_says) {
    Pool pool(63);
    ControlRig rig(pool, kPairsOffered, 4);
    EXPECT_FALSE(rig.port->rss());
    Steering by_hash;
    const Bytes command = rss_command(3);
    by_hash.set(*Rss::decode(std::span(command).subspan(2), 4));
    const uint64_t version = rig.port->rss_version();
    EXPECT_EQ(rig.run(command), VIRTIO_NET_OK);
    EXPECT_NE(rig.port->rss_version(), version);
    EXPECT_EQ(rig.port->rss(), by_hash.snapshot());
    std::map<uint16_t, unsigned> pairs;
    for (unsigned salt = 0; salt < 100; ++salt) {
        rte_mbuf* m = pool.packet(make_packet({.salt = salt}));
        const uint16_t pair = rig.port->pair_for(*m, 3);
        EXPECT_EQ(pair, by_hash.pair_for(*m, 3));
        ++pairs[pair];
        rte_pktmbuf_free(m);
    }
    EXPECT_EQ(pairs.size(), 3u);
    EXPECT_EQ(rig.run(set_pairs(2)), VIRTIO_NET_OK);
    EXPECT_FALSE(rig.port->rss());
    rte_mbuf* m = pool.packet(make_packet({}));
    for (uint16_t from = 0; from < 6; ++from) EXPECT_EQ(rig.port->pair_for(*m, from), from % 2);
    rte_pktmbuf_free(m);
}

TEST(ControlPort, receive_offloads_that_are_switched_off_are_done_here) {
    Pool pool(63);
    ControlRig rig(pool, kAllOffered);
    rig.provide(32, 1600);
    const Shape s{.payload = 5000};
    const auto arrive = [&] {
        EXPECT_EQ(rig.deliver_all({unfinished(pool, s, 1000)}), 1u);
        return rig.received(true);
    };
    EXPECT_EQ(arrive().size(), 1u);
    EXPECT_EQ(rig.run(set_offloads(bit(VIRTIO_NET_F_GUEST_CSUM))), VIRTIO_NET_OK);
    auto got = arrive();
    ASSERT_EQ(got.size(), 5u);
    for (const auto& r : got) EXPECT_TRUE(same(r.header, needs_csum(s)));
    EXPECT_EQ(rig.run(set_offloads(0)), VIRTIO_NET_OK);
    got = arrive();
    ASSERT_EQ(got.size(), 5u);
    for (const auto& r : got) {
        EXPECT_TRUE(same(r.header, {}));
        EXPECT_TRUE(l4_is_right(r.bytes, s));
    }
    EXPECT_EQ(rig.run(set_offloads(bit(VIRTIO_NET_F_GUEST_CSUM) | bit(VIRTIO_NET_F_GUEST_TSO4))),
              VIRTIO_NET_OK);
    EXPECT_EQ(arrive().size(), 1u);
    // Of what the guest sends nothing has been switched off.
    rig.send(gso(s, 1000), make_packet(s));
    for (rte_mbuf* m : rig.taken()) {
        EXPECT_TRUE(offload::is_large(*m));
        rte_pktmbuf_free(m);
    }
    EXPECT_EQ(rig.from().packets.was(), 1u);
}

TEST(ControlPort, sleep_of_pair_0_ends_with_a_command) {
    Pool pool(63);
    for (const uint64_t format : {uint64_t{0}, kPacked, kEvents, kPacked | kEvents}) {
        ControlRig rig(pool, kPairsOffered | format, 2);
        const auto fds = rig.port->wake_fds(0);
        EXPECT_NE(std::find(fds.begin(), fds.end(), rig.kick_control.fd), fds.end());
        EXPECT_TRUE(rig.port->wake_fds(1).empty());
        EXPECT_TRUE(rig.port->arm(0));
        rig.issue(set_mac(1));
        EXPECT_TRUE(rig.control->needs_kick());
        EXPECT_FALSE(rig.port->arm(0));
        EXPECT_TRUE(rig.port->arm(1));
        rig.port->disarm(0);
        rig.port->poll_control();
        EXPECT_EQ(rig.answer(), VIRTIO_NET_OK);
        rig.issue(set_mac(2));
        EXPECT_FALSE(rig.control->needs_kick()) << "it is polled";
        rig.port->poll_control();
        EXPECT_TRUE(rig.port->arm(0));
        rig.stop_control();
        EXPECT_EQ(rig.port->wake_fds(0).size(), 2u);
    }
}

TEST(ControlPort, stalled_ring_goes_on_where_it_was) {
    Pool pool(63);
    for (const uint64_t format : kFormats) {
        ControlRig rig(pool, kAllOffered | format);
        EXPECT_EQ(rig.run(promiscuous(false)), VIRTIO_NET_OK);
        const size_t page = rig.page_of(rig.ring.desc);
        rig.unmap_page(rig.ring.desc);
        rig.issue(set_mac(7));
        rig.port->poll_control();
        EXPECT_EQ(rig.answer(), kNoAck);
        EXPECT_EQ(rig.commands().ring_unmapped.was(), 1u);
        EXPECT_EQ(rig.port->sleep_limit(0), std::chrono::microseconds(1000));
        rig.map_page(rig.ring.desc, page);
        rig.port->poll_control();
        EXPECT_EQ(rig.answer(), VIRTIO_NET_OK);
        EXPECT_EQ(rig.port->sleep_limit(0), std::chrono::microseconds::max());
        EXPECT_EQ(rig.mac(), mac_bytes(7));
        EXPECT_FALSE(rig.comes(pool, kOther)) << "the same driver's";
    }
}

TEST(ControlPort, loop_is_malformed_and_junk_breaks_no_more_than_its_ring) {
    Pool pool(63);
    std::mt19937 random(choose_seed());
    for (const uint64_t format : kFormats) {
        for (unsigned run = 0; run < 100; ++run) {
            ControlRig rig(pool, kAllOffered | format);
            // Nothing but commands of other addresses in memory, so whatever is executed whole
            // shows, and what is executed in part would show as a mixture.
            for (unsigned i = 0; i < 8; ++i) rig.issue(bytes({1, 1}) + Bytes(6, std::byte(2 * i)));
            if (format == 0 && run == 0) {
                for (uint32_t i = 0; i < rig.ring.size; ++i)
                    rig.space.put(rig.ring.desc + 16 * i + 14, uint16_t(i));  // next: itself
            } else {
                for (unsigned n = 1 + random() % 4; n > 0; --n) {
                    const uint64_t where = rig.ring.desc + 16 * (random() % rig.ring.size);
                    rig.space.put(where + 12, uint32_t(random() & 0x8003000f));
                    rig.space.put(where + 8, uint32_t(random() % 3 == 0 ? random() : 8));
                }
            }
            for (unsigned i = 0; i < 20; ++i) rig.port->poll_control();
            rig.take_faults();
            const Bytes mac = rig.mac();
            if (mac != kOwn) {
                EXPECT_EQ(mac, Bytes(6, mac[0]));
            }
            rig.stop_control();
            rig.new_driver();
            rig.port->queue_started(rig.ring);
            EXPECT_EQ(rig.run(set_mac(5)), VIRTIO_NET_OK);
            if (HasFailure()) return;
        }
    }
}

}  // namespace
}  // namespace viommu::net::test
