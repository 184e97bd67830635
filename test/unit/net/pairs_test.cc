// SPDX-License-Identifier: BSD-3-Clause
/// Several queue pairs. The rig's two rings stand for whichever queues a test makes of them.
#include "net_rig.hh"

namespace viommu::net::test {
namespace {

struct PairsRig : NetRig {
    explicit PairsRig(const Pool& pool, uint16_t pairs)
        : NetRig(pool, {.config = {.endpoint = kEndpoint, .queue_pairs = pairs}, .run = false}) {}
    /// The rig's rings are now the queues of this pair.
    void start_as(uint16_t pair) {
        for (uint16_t q = 0; q < 2; ++q) {
            vrings[q].index = uint16_t(2 * pair + q);
            port->queue_started(vrings[q]);
        }
    }
    void stop(uint16_t pair) {
        port->queue_stopped(NetPort::receiveq(pair));
        port->queue_stopped(NetPort::transmitq(pair));
    }
};

TEST(Pairs, each_has_queues_and_counters_of_its_own) {
    Pool pool(63);
    PairsRig rig(pool, 3);
    EXPECT_EQ(rig.port->num_queues(), 6);
    EXPECT_EQ(rig.port->max_pairs(), 3);
    rig.start_as(2);
    rig.send(frame(60, 1));
    rte_mbuf* got[NetPort::kBurst];
    for (const uint16_t other : {0, 1}) EXPECT_EQ(rig.port->from_guest(other, got), 0u);
    ASSERT_EQ(rig.port->from_guest(2, got), 1u);
    EXPECT_EQ(take(got[0]), frame(60, 1));

    const uint64_t at = rig.post(100);
    rte_mbuf* one[] = {pool.packet(frame(61, 2))};
    EXPECT_EQ(rig.port->to_guest(1, one), 0u);
    ASSERT_EQ(rig.port->to_guest(2, one), 1u);
    EXPECT_EQ(rig.read(at + kHeader, 61), frame(61, 2));

    EXPECT_EQ(rig.port->from_guest_counters(2).packets.was(), 1u);
    EXPECT_EQ(rig.port->to_guest_counters(2).packets.was(), 1u);
    EXPECT_EQ(rig.port->to_guest_counters(1).not_running.was(), 1u);
    EXPECT_EQ(rig.from().packets.was() + rig.to().packets.was(), 0u);
}

TEST(Pairs, sleeping_concerns_one_pair) {
    Pool pool(63);
    PairsRig rig(pool, 2);
    rig.start_as(1);
    EXPECT_TRUE(rig.port->wake_fds(0).empty());
    EXPECT_EQ(rig.port->wake_fds(1).size(), 2u);
    EXPECT_TRUE(rig.port->arm(0));
    EXPECT_TRUE(rig.port->arm(1));
    rig.send(frame(60));
    EXPECT_TRUE(rig.port->arm(0));
    EXPECT_FALSE(rig.port->arm(1));
    rig.unmap_page(rig.vrings[1].desc);
    EXPECT_TRUE(rig.port->arm(1));
    EXPECT_EQ(rig.port->sleep_limit(0), std::chrono::microseconds::max());
    EXPECT_EQ(rig.port->sleep_limit(1), std::chrono::microseconds(1000));
}

TEST(Pairs, active_are_those_from_the_first_on_that_run) {
    Pool pool(63);
    PairsRig rig(pool, 4);
    rte_mbuf* packet = pool.packet(frame(60));
    EXPECT_EQ(rig.port->active_pairs(), 1);
    rig.start_as(0);
    EXPECT_EQ(rig.port->active_pairs(), 1);
    rig.start_as(1);
    EXPECT_EQ(rig.port->active_pairs(), 2);
    rig.start_as(3);
    EXPECT_EQ(rig.port->active_pairs(), 2) << "not 3 without 2";
    rig.start_as(2);
    EXPECT_EQ(rig.port->active_pairs(), 4);
    for (uint16_t from = 0; from < 9; ++from)
        EXPECT_EQ(rig.port->pair_for(*packet, from), from % 4);
    rig.port->queue_stopped(NetPort::transmitq(1));
    EXPECT_EQ(rig.port->active_pairs(), 1);
    for (uint16_t from = 0; from < 9; ++from) EXPECT_EQ(rig.port->pair_for(*packet, from), 0);
    rte_pktmbuf_free(packet);
}

TEST(Pairs, as_many_as_the_spec_of_a_port_allows) {
    Pool pool(63);
    xlate::FaultQueue faults;
    auto table = *table::Table::create({});
    ASSERT_TRUE(table->add_endpoint(NetRig::kEndpoint));
    Config config{.endpoint = NetRig::kEndpoint};
    for (const uint16_t pairs : {0, 65, 65535}) {
        config.queue_pairs = pairs;
        const auto refused = NetPort::create(config, *table, faults, pool.get());
        ASSERT_FALSE(refused);
        EXPECT_NE(refused.error().message.find("1 to 64"), std::string::npos);
    }
    config.queue_pairs = NetPort::kMaxPairs;
    const auto port = NetPort::create(config, *table, faults, pool.get());
    ASSERT_TRUE(port) << port.error().message;
    EXPECT_EQ((*port)->num_queues(), 128);
}

TEST(Pairs, readers_that_run_out_are_an_error_and_come_back) {
    Pool pool(63);
    xlate::FaultQueue faults;
    auto table = *table::Table::create({.max_readers = 5});
    ASSERT_TRUE(table->add_endpoint(NetRig::kEndpoint));
    Config config{.endpoint = NetRig::kEndpoint, .queue_pairs = 3};
    EXPECT_FALSE(NetPort::create(config, *table, faults, pool.get()));
    config.queue_pairs = 2;
    EXPECT_TRUE(NetPort::create(config, *table, faults, pool.get()));
}

TEST(Link, state_is_in_the_configuration_space_and_changes_are_told) {
    Pool pool(63);
    NetRig rig(pool);
    const auto status = [&] {
        std::array<std::byte, 2> bytes;
        rig.port->config_read(offsetof(wire::virtio_net_config, status), bytes);
        return unsigned(bytes[0]) | unsigned(bytes[1]) << 8;
    };
    EXPECT_EQ(status(), 1u);
    EXPECT_FALSE(rig.port->set_link(true));
    EXPECT_TRUE(rig.port->set_link(false));
    EXPECT_EQ(status(), 0u);
    EXPECT_FALSE(rig.port->set_link(false));
    EXPECT_TRUE(rig.port->set_link(true));
    EXPECT_EQ(status(), 1u);
}

}  // namespace
}  // namespace viommu::net::test
