// SPDX-License-Identifier: BSD-3-Clause
#include "ethdev.hh"

#include <rte_ethdev.h>

#include <algorithm>

#include "ethdev_rss.hh"
#include "pool.hh"

namespace viommu::app {
namespace {

using Bytes = std::vector<std::byte>;

class EthdevTest : public WithPool {
  protected:
    static Peer vdev(const std::string& devargs) {
        return {Peer::Kind::kVdev, devargs, {"vm.toml", 7, "guest.a.net.b.peer"}};
    }
    void expect_refused(const Peer& peer, std::initializer_list<const char*> parts) {
        const auto opened = Ethdev::open(peer, {}, *pool_);
        ASSERT_FALSE(opened.has_value());
        for (const char* part : parts)
            EXPECT_NE(opened.error().message.find(part), std::string::npos)
                << opened.error().message;
    }
};

TEST_F(EthdevTest, vdev_is_made_and_moves_packets) {
    const auto opened = Ethdev::open(vdev("net_null0,size=100"), {}, *pool_);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    rte_mbuf* packets[4];
    ASSERT_EQ((*opened)->receive(0, packets), 4u);
    EXPECT_EQ(packets[0]->pkt_len, 100u);
    EXPECT_EQ((*opened)->send(0, packets), 4u);
}

TEST_F(EthdevTest, vdev_is_gone_afterwards) {
    {
        const auto opened = Ethdev::open(vdev("net_null1"), {}, *pool_);
        ASSERT_TRUE(opened.has_value()) << opened.error().message;
    }
    uint16_t port;
    EXPECT_NE(rte_eth_dev_get_port_by_name("net_null1", &port), 0);
}

TEST_F(EthdevTest, port_without_interrupts_limits_sleep) {
    const auto opened = Ethdev::open(vdev("net_null2"), {}, *pool_);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    ASSERT_TRUE((*opened)->wake_fds(0).empty()) << "net_null has learned to interrupt";
    EXPECT_LE((*opened)->sleep_limit(0), std::chrono::milliseconds(1));
    EXPECT_TRUE((*opened)->arm(0));
}

TEST_F(EthdevTest, device_gets_a_queue_for_each_pair) {
    const auto opened = Ethdev::open(vdev("net_ring0"), {.pairs = 4, .lcores = 2}, *pool_);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    Ethdev& ethdev = **opened;
    EXPECT_EQ(ethdev.pairs(), 4);
    EXPECT_EQ(ethdev.send_queues(), 4);
    EXPECT_TRUE(ethdev.exclusive(2));
    // What is sent to a queue of net_ring is received from it.
    for (uint16_t pair = 0; pair < 4; pair++) {
        rte_mbuf* sent[] = {packet(60)};
        uint16_t queue[1];
        ethdev.steer(sent, pair, queue);
        EXPECT_EQ(queue[0], pair);
        ASSERT_EQ(ethdev.send(queue[0], sent), 1u);
        rte_mbuf* received[4];
        ASSERT_EQ(ethdev.receive(pair, received), 1u);
        EXPECT_EQ(received[0], sent[0]);
        rte_pktmbuf_free(received[0]);
    }
}

TEST_F(EthdevTest, device_with_too_few_queues_gets_what_it_can_and_lcores_share) {
    const auto opened = Ethdev::open(vdev("net_ring1"), {.pairs = 64, .lcores = 17}, *pool_);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    Ethdev& ethdev = **opened;
    ASSERT_EQ(ethdev.pairs(), 16) << "net_ring has learned to have more queues";
    EXPECT_TRUE(ethdev.exclusive(16));
    EXPECT_FALSE(ethdev.exclusive(17));
    rte_mbuf* one[] = {packet(60)};
    uint16_t queue[1];
    constexpr std::pair<int, int> kQueueOfPair[] = {{0, 0}, {15, 15}, {16, 0}, {17, 0}, {18, 1}};
    for (const auto& [pair, expected] : kQueueOfPair) {
        ethdev.steer(one, uint16_t(pair), queue);
        EXPECT_EQ(queue[0], expected) << "pair " << pair;
    }
    rte_pktmbuf_free(one[0]);
}

TEST_F(EthdevTest, link_is_what_the_device_says) {
    const auto opened = Ethdev::open(vdev("net_ring2"), {}, *pool_);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    EXPECT_TRUE((*opened)->link_up());
    ASSERT_EQ(rte_eth_dev_set_link_down((*opened)->port()), 0);
    EXPECT_FALSE((*opened)->link_up());
    ASSERT_EQ(rte_eth_dev_set_link_up((*opened)->port()), 0);
    EXPECT_TRUE((*opened)->link_up());
}

/// A command's data: `table`, and some key.
Bytes rss_command(std::span<const uint16_t> table, uint16_t pairs) {
    Bytes b;
    const auto put = [&b](uint64_t value, int bytes) {
        for (int i = 0; i < bytes; i++) b.push_back(std::byte(value >> 8 * i));
    };
    put(net::kRssHashTypes, 4), put(table.size() - 1, 2), put(0, 2);
    for (const uint16_t pair : table) put(pair, 2);
    put(pairs, 2), put(net::kRssMaxKeyBytes, 1);
    for (int i = 0; i < net::kRssMaxKeyBytes; i++) put(uint8_t(0x6d + 3 * i), 1);
    return b;
}

TEST_F(EthdevTest, queues_get_what_the_guest_wants_by_its_pairs) {
    const auto opened = Ethdev::open(vdev("net_null4"), {.pairs = 4, .lcores = 2}, *pool_);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    const uint16_t port = (*opened)->port();
    const uint16_t table[8] = {3, 1, 0, 2, 2, 2, 1, 0};
    const auto rss = net::Rss::decode(rss_command(table, 4), 4);
    ASSERT_TRUE(rss);
    const auto done = program_rss(port, rss, 4);
    ASSERT_TRUE(done) << done.error().message;

    rte_eth_dev_info info{};
    ASSERT_EQ(rte_eth_dev_info_get(port, &info), 0);
    std::vector<rte_eth_rss_reta_entry64> got(info.reta_size / RTE_ETH_RETA_GROUP_SIZE);
    for (auto& group : got) group.mask = ~uint64_t{0};
    ASSERT_EQ(rte_eth_dev_rss_reta_query(port, got.data(), info.reta_size), 0);
    for (unsigned i = 0; i < info.reta_size; i++)
        ASSERT_EQ(got[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE], table[i % 8])
            << i;
    uint8_t key[net::kRssMaxKeyBytes];
    rte_eth_rss_conf conf{};
    conf.rss_key = key;
    ASSERT_EQ(rte_eth_dev_rss_hash_conf_get(port, &conf), 0);
    EXPECT_TRUE(std::ranges::equal(key, rss->key));
    EXPECT_NE(conf.rss_hf & RTE_ETH_RSS_NONFRAG_IPV4_TCP, 0u);

    ASSERT_TRUE(program_rss(port, std::nullopt, 3));
    ASSERT_EQ(rte_eth_dev_rss_reta_query(port, got.data(), info.reta_size), 0);
    for (unsigned i = 0; i < info.reta_size; i++)
        ASSERT_EQ(got[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE], i % 3);
}

TEST_F(EthdevTest, device_that_cannot_follow_the_guest_says_what_it_lacks) {
    const auto opened = Ethdev::open(vdev("net_ring3"), {.pairs = 2, .lcores = 2}, *pool_);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    const uint16_t table[2] = {0, 1};
    const auto done =
        program_rss((*opened)->port(), net::Rss::decode(rss_command(table, 2), 2), 2);
    ASSERT_FALSE(done);
    EXPECT_NE(done.error().message.find("no indirection table"), std::string::npos);
}

TEST_F(EthdevTest, existing_port_is_found_by_name) {
    ASSERT_EQ(rte_eal_hotplug_add("vdev", "net_null3", ""), 0);
    {
        const auto opened = Ethdev::open({Peer::Kind::kEthdev, "net_null3", {"vm.toml", 7, "peer"}},
                                         {}, *pool_);
        ASSERT_TRUE(opened.has_value()) << opened.error().message;
        uint16_t port;
        ASSERT_EQ(rte_eth_dev_get_port_by_name("net_null3", &port), 0);
        EXPECT_EQ((*opened)->port(), port);
    }
    rte_eal_hotplug_remove("vdev", "net_null3");
}

TEST_F(EthdevTest, vdev_that_dpdk_cannot_make_is_refused_with_place) {
    expect_refused(vdev("net_nonsense0,a=b"),
                   {"vm.toml:7: guest.a.net.b.peer", "vdev:net_nonsense0,a=b", "cannot make"});
}

TEST_F(EthdevTest, missing_port_is_refused_with_those_there_are) {
    expect_refused({Peer::Kind::kEthdev, "0000:01:00.0", {"vm.toml", 7, "peer"}},
                   {"vm.toml:7", "no port '0000:01:00.0'", "it has: none"});
}

}  // namespace
}  // namespace viommu::app
