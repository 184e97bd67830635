// SPDX-License-Identifier: BSD-3-Clause
#include "ethdev.hh"

#include <rte_ethdev.h>

#include "pool.hh"

namespace viommu::app {
namespace {

class EthdevTest : public WithPool {
  protected:
    static Peer vdev(const std::string& devargs) {
        return {Peer::Kind::kVdev, devargs, {"vm.toml", 7, "guest.a.net.b.peer"}};
    }
    void expect_refused(const Peer& peer, std::initializer_list<const char*> parts) {
        const auto opened = Ethdev::open(peer, std::nullopt, *pool_);
        ASSERT_FALSE(opened.has_value());
        for (const char* part : parts)
            EXPECT_NE(opened.error().message.find(part), std::string::npos)
                << opened.error().message;
    }
};

TEST_F(EthdevTest, vdev_is_made_and_moves_packets) {
    const auto opened = Ethdev::open(vdev("net_null0,size=100"), std::nullopt, *pool_);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    rte_mbuf* packets[4];
    ASSERT_EQ((*opened)->receive(packets), 4u);
    EXPECT_EQ(packets[0]->pkt_len, 100u);
    EXPECT_EQ((*opened)->send(packets), 4u);
}

TEST_F(EthdevTest, vdev_is_gone_afterwards) {
    {
        const auto opened = Ethdev::open(vdev("net_null1"), std::nullopt, *pool_);
        ASSERT_TRUE(opened.has_value()) << opened.error().message;
    }
    uint16_t port;
    EXPECT_NE(rte_eth_dev_get_port_by_name("net_null1", &port), 0);
}

TEST_F(EthdevTest, port_without_interrupts_limits_sleep) {
    const auto opened = Ethdev::open(vdev("net_null2"), std::nullopt, *pool_);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    ASSERT_TRUE((*opened)->wake_fds().empty()) << "net_null has learned to interrupt";
    EXPECT_LE((*opened)->sleep_limit(), std::chrono::milliseconds(1));
    EXPECT_TRUE((*opened)->arm());
}

TEST_F(EthdevTest, existing_port_is_found_by_name) {
    ASSERT_EQ(rte_eal_hotplug_add("vdev", "net_null3", ""), 0);
    {
        const auto opened = Ethdev::open({Peer::Kind::kEthdev, "net_null3", {"vm.toml", 7, "peer"}},
                                         std::nullopt, *pool_);
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
