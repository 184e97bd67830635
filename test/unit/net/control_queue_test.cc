// SPDX-License-Identifier: BSD-3-Clause
/// Commands over a ring: what is executed, what is answered, and when.
#include "control_rig.hh"

namespace viommu::net::test {
namespace {

using namespace wire;

constexpr uint64_t kElsewhere = 0x60000000;  // nothing is mapped there
constexpr uint64_t kFormats[] = {0, kPacked, kEvents, kPacked | kEvents};

TEST(ControlQueue, command_is_executed_and_answered) {
    Pool pool(63);
    for (const uint64_t format : kFormats) {
        ControlRig rig(pool, kAllOffered | format);
        EXPECT_EQ(rig.answer(), kNoAck);
        EXPECT_EQ(rig.run(promiscuous(false)), VIRTIO_NET_OK);
        EXPECT_EQ(rig.call_control.drain(), 1u);
        EXPECT_FALSE(rig.comes(pool, kOther));
        EXPECT_EQ(rig.run(promiscuous(true)), VIRTIO_NET_OK);
        EXPECT_TRUE(rig.comes(pool, kOther));
        EXPECT_EQ(rig.run(bytes({9, 9, 9})), VIRTIO_NET_ERR);
        EXPECT_EQ(rig.commands().packets.was(), 3u);
        EXPECT_EQ(rig.commands().bytes.was(), 9u);
    }
}

TEST(ControlQueue, chain_cut_anywhere_is_the_same_command) {
    Pool pool(63);
    for (const uint64_t format : kFormats) {
        ControlRig rig(pool, kAllOffered | format);
        for (uint32_t a = 1; a < 8; ++a) {
            for (uint32_t b = a + 1; b < 8; ++b) {
                for (const bool indirect : {false, true}) {
                    ASSERT_EQ(rig.run(set_mac(10 * a + b), {a, b}, indirect), VIRTIO_NET_OK);
                    ASSERT_EQ(rig.mac(), mac_bytes(10 * a + b));
                }
            }
        }
    }
}

TEST(ControlQueue, many_commands_are_executed_in_order) {
    Pool pool(63);
    for (const uint64_t format : kFormats) {
        ControlRig rig(pool, kAllOffered | format);
        for (unsigned i = 0; i < 8; ++i) rig.issue(i == 5 ? bytes({9, 9}) : set_mac(i));
        rig.port->poll_control();
        for (unsigned i = 0; i < 8; ++i)
            EXPECT_EQ(rig.answer(), i == 5 ? VIRTIO_NET_ERR : VIRTIO_NET_OK);
        EXPECT_EQ(rig.mac(), mac_bytes(7));
    }
}

TEST(ControlQueue, ack_is_the_first_writable_byte_and_no_other) {
    Pool pool(63);
    for (const uint64_t format : kFormats) {
        ControlRig rig(pool, kAllOffered | format);
        const uint64_t at = NetRig::kData + 4 * kPage;
        const Bytes command = set_mac(3);
        rig.space.write(at, command.data(), command.size());
        rig.space.write(at + 100, Bytes(64, std::byte{0xee}).data(), 64);
        rig.issue_at({{at, 8, 0, 0},
                      {at + 100, 40, virtq::test::kWrite, 0},
                      {at + 150, 10, virtq::test::kWrite, 0}},
                     at + 100);
        rig.port->poll_control();
        EXPECT_EQ(rig.answer(), VIRTIO_NET_OK);
        Bytes want(64, std::byte{0xee});
        want[0] = std::byte{VIRTIO_NET_OK};
        EXPECT_EQ(rig.read(at + 100, 64), want);
        EXPECT_EQ(rig.mac(), mac_bytes(3));
    }
}

TEST(ControlQueue, used_length_is_the_ack) {
    Pool pool(63);
    ControlRig rig(pool, kAllOffered);
    for (const uint32_t room : {1u, 2u, 100u}) {
        rig.issue(set_mac(1), {}, false, room);
        rig.port->poll_control();
        uint32_t written = 0;
        EXPECT_EQ(rig.answer(&written), VIRTIO_NET_OK);
        EXPECT_EQ(written, 1u);
    }
}

TEST(ControlQueue, command_without_room_for_an_ack_is_malformed_and_not_executed) {
    Pool pool(63);
    for (const uint64_t format : kFormats) {
        ControlRig rig(pool, kAllOffered | format);
        rig.issue(set_mac(9), {}, false, 0);
        rig.port->poll_control();
        EXPECT_TRUE(rig.control->pop()) << "it is returned";
        EXPECT_EQ(rig.commands().drop_malformed.was(), 1u);
        EXPECT_EQ(rig.commands().packets.was(), 0u);
        EXPECT_EQ(rig.mac(), kOwn);
        EXPECT_EQ(rig.run(set_mac(5)), VIRTIO_NET_OK);
    }
}

TEST(ControlQueue, ack_that_cannot_be_written_is_a_fault_and_nothing_is_executed) {
    Pool pool(63);
    for (const uint64_t format : kFormats) {
        ControlRig rig(pool, kAllOffered | format);
        const uint64_t at = NetRig::kData + 4 * kPage, read_only = NetRig::kData + 6 * kPage;
        rig.set_rights(read_only, Access::kRead);
        const Bytes command = set_mac(9);
        rig.space.write(at, command.data(), command.size());
        for (const uint64_t ack : {kElsewhere, read_only}) {
            rig.control->chain({{at, 8, 0, 0}, {ack, 1, virtq::test::kWrite, 0}});
            rig.control->publish();
            rig.port->poll_control();
            const auto used = rig.control->pop();
            ASSERT_TRUE(used);
            EXPECT_EQ(used->len, 0u);
            expect_fault(rig, ack, Access::kWrite);
            EXPECT_EQ(rig.mac(), kOwn);
        }
        EXPECT_EQ(rig.commands().drop_fault.was(), 2u);
        EXPECT_EQ(rig.run(set_mac(5)), VIRTIO_NET_OK);
    }
}

TEST(ControlQueue, command_that_cannot_be_read_is_a_fault_and_nothing_is_executed) {
    Pool pool(63);
    for (const uint64_t format : kFormats) {
        ControlRig rig(pool, kAllOffered | format);
        // What an earlier command left in our copy must not complete it.
        EXPECT_EQ(rig.run(set_mac(1)), VIRTIO_NET_OK);
        const uint64_t at = NetRig::kData + 4 * kPage;
        const Bytes command = set_mac(9);
        rig.space.write(at, command.data(), command.size());
        for (uint32_t there = 0; there < 8; ++there) {
            std::vector<Desc> chain;
            if (there != 0) chain.push_back({at, there, 0, 0});
            chain.push_back({kElsewhere + there, 8 - there, 0, 0});
            chain.push_back({at + 100, 1, virtq::test::kWrite, 0});
            rig.space.put(at + 100, uint8_t{0xee});
            rig.issue_at(chain, at + 100);
            rig.port->poll_control();
            EXPECT_EQ(rig.answer(), 0xeeu) << "nothing is written";
            expect_fault(rig, kElsewhere + there, Access::kRead);
            EXPECT_EQ(rig.mac(), mac_bytes(1));
        }
        EXPECT_EQ(rig.commands().drop_fault.was(), 8u);
    }
}

TEST(ControlQueue, command_beyond_all_bounds_is_an_error) {
    Pool pool(63);
    for (const uint64_t format : kFormats) {
        ControlRig rig(pool, kAllOffered | format);
        // Would be right if it were cut off.
        constexpr unsigned kAddresses = (Control::kMaxCommandBytes - 10) / 6;
        Bytes table = bytes({VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET}) +
                      le(kAddresses, 4);
        for (unsigned i = 0; i < kAddresses; ++i) table = std::move(table) + mac_bytes(i & 0xff);
        table = std::move(table) + le(0, 4);
        ASSERT_LE(table.size(), Control::kMaxCommandBytes);
        EXPECT_EQ(rig.run(table, {1000, 50000}), VIRTIO_NET_OK);
        table.resize(Control::kMaxCommandBytes + 1);
        EXPECT_EQ(rig.run(table, {1000, 50000}), VIRTIO_NET_ERR);
        // Longer by far than what is there.
        const uint64_t at = NetRig::kData + 4 * kPage;
        rig.issue_at({{at, 4000, 0, 0}, {at, 0xffffffff, 0, 0}, {at, 1, virtq::test::kWrite, 0}},
                     at);
        rig.port->poll_control();
        EXPECT_NE(rig.answer(), kNoAck);
        EXPECT_EQ(rig.run(set_mac(5)), VIRTIO_NET_OK);
    }
}

/// A queue by itself, whose bursts the test begins and ends.
struct Waiting {
    explicit Waiting(const Pool& pool, uint64_t format)
        : rig(pool, kAllOffered | format),
          queue(*xlate::Reader::create(*rig.table, rig.faults, NetRig::kEndpoint), control) {
        rig.stop_control();
        control.reset(kAllOffered);
        queue.set_memory(memory.get());
        for (const auto& b : bursts) queue.add(b);
        start();
    }
    void start() { queue.start(rig.ring, rig.ring.base, rig.options.acked); }
    void stop() { rig.ring.base = queue.stop(); }
    bool accepts(const Bytes& to) {
        Pool one(1);
        rte_mbuf* m = one.packet(to + frame(60));
        const bool ok = control.filter().accepts(*m);
        rte_pktmbuf_free(m);
        return ok;
    }

    ControlRig rig;
    Control control{{kOwnMac, 1}};
    BurstCount bursts[2];
    ControlQueue queue;
    std::shared_ptr<const virtq::MemoryMap> memory = rig.memory();
};

TEST(ControlAck, waits_until_the_burst_of_every_receiveq_is_over) {
    Pool pool(63);
    for (const uint64_t format : kFormats) {
        Waiting w(pool, format);
        for (auto& b : w.bursts) b.begin();
        w.rig.issue(promiscuous(false));
        w.rig.issue(promiscuous(true));
        w.queue.poll();
        EXPECT_EQ(w.rig.answer(), kNoAck);
        EXPECT_FALSE(w.accepts(kOther)) << "it is executed, and the next is not";
        EXPECT_FALSE(w.queue.arm()) << "nobody sleeps over it";
        w.bursts[0].end();
        w.queue.poll();
        EXPECT_EQ(w.rig.answer(), kNoAck);
        w.bursts[1].end();
        for (auto& b : w.bursts) b.begin();  // others, that go by the new settings
        w.queue.poll();
        EXPECT_EQ(w.rig.answer(), VIRTIO_NET_OK);
        EXPECT_EQ(w.rig.answer(), kNoAck) << "the second waits for these";
        EXPECT_TRUE(w.accepts(kOther));
        for (auto& b : w.bursts) b.end();
        w.queue.poll();
        EXPECT_EQ(w.rig.answer(), VIRTIO_NET_OK);
        EXPECT_EQ(w.queue.counters().packets.was(), 2u);
        EXPECT_EQ(w.queue.counters().bytes.was(), 6u);
    }
}

TEST(ControlAck, is_given_once_by_a_queue_that_stops_and_goes_on_meanwhile) {
    Pool pool(63);
    for (const uint64_t format : kFormats) {
        Waiting w(pool, format);
        w.rig.issue(promiscuous(false));
        w.queue.poll();
        ASSERT_EQ(w.rig.answer(), VIRTIO_NET_OK);
        w.bursts[0].begin();
        w.rig.issue(set_mac(7));
        w.queue.poll();
        for (int i = 0; i < 3; ++i) {
            w.stop();
            w.start();
            w.queue.poll();
            EXPECT_EQ(w.rig.answer(), kNoAck);
        }
        w.stop();
        w.bursts[0].end();
        w.start();
        w.queue.poll();
        EXPECT_EQ(w.rig.answer(), VIRTIO_NET_OK);
        EXPECT_EQ(w.rig.answer(), kNoAck);
        EXPECT_EQ(w.queue.counters().packets.was(), 2u);
        EXPECT_FALSE(w.accepts(kOwn));
        EXPECT_TRUE(w.accepts(mac_bytes(7)));
        EXPECT_FALSE(w.accepts(kOther)) << "what was set before is still set";
    }
}

TEST(ControlAck, that_never_came_leaves_nothing_to_another_driver) {
    Pool pool(63);
    for (const uint64_t format : kFormats) {
        Waiting w(pool, format);
        w.bursts[0].begin();
        w.rig.issue(promiscuous(false));
        w.queue.poll();
        EXPECT_FALSE(w.accepts(kOther));
        w.stop();
        w.rig.new_driver();
        w.start();
        w.queue.poll();
        EXPECT_TRUE(w.accepts(kOther));
    }
}

TEST(ControlAck, of_a_chain_that_was_changed_meanwhile_hurts_nobody_else) {
    Pool pool(63);
    for (const bool command : {false, true}) {
        Waiting w(pool, 0);
        const uint64_t at = NetRig::kData + 4 * kPage;
        const Bytes first = set_mac(7), other = set_mac(8);
        w.rig.space.write(at, first.data(), first.size());
        w.bursts[0].begin();
        w.rig.issue_at({{at, 8, 0, 0}, {at + 100, 1, virtq::test::kWrite, 0}}, at + 100);
        w.queue.poll();
        if (command)
            w.rig.space.write(at, other.data(), other.size());
        else
            for (uint32_t i = 0; i < w.rig.ring.size; ++i)
                w.rig.space.put(w.rig.ring.desc + 16 * i, kElsewhere);
        w.bursts[0].end();
        w.queue.poll();
        EXPECT_EQ(w.queue.counters().drop_fault.was(), command ? 0u : 1u);
        EXPECT_EQ(w.queue.counters().packets.was(), command ? 1u : 0u);
        EXPECT_TRUE(w.rig.control->pop());
        EXPECT_EQ(w.control.filter().mac()[5], 7) << "executed once, as it was";
        w.rig.issue(set_mac(9));
        w.queue.poll();
        EXPECT_EQ(w.rig.answer(), VIRTIO_NET_OK);
        EXPECT_EQ(w.control.filter().mac()[5], 9) << "and the next is not taken for it";
    }
}

}  // namespace
}  // namespace viommu::net::test
