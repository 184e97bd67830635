// SPDX-License-Identifier: BSD-3-Clause
#include "pools.hh"

#include <rte_lcore.h>
#include <rte_mempool.h>

#include "problems.hh"

namespace viommu::app {
namespace {

unsigned needed(const std::string& net) {
    const auto config = parse(guest_with(net_with(net)));
    return config ? mbufs_needed(*config, SOCKET_ID_ANY) : 0;
}

TEST(Pools, need_grows_with_pairs_and_devices) {
    const unsigned one = needed("");
    ASSERT_GT(one, 2 * 32 * 33u) << "a burst of large packets each way";
    EXPECT_GT(needed("queue_pairs = 2"), one);
    EXPECT_GE(needed("queue_pairs = 2\npeer = \"vdev:net_ring0\""), one + 2 * 2 * 512);
    EXPECT_GT(needed("queue_pairs = 2\nlcore = [1, 2]"), needed("queue_pairs = 2"));
}

TEST(Pools, guest_without_net_ports_needs_none) {
    const auto config = parse(guest_with(""));
    ASSERT_TRUE(config.has_value());
    EXPECT_EQ(mbufs_needed(*config, SOCKET_ID_ANY), 0u);
    EXPECT_TRUE(Pools::create(*config).has_value());
}

TEST(Pools, packet_of_the_largest_mtu_is_in_one_piece) {
    const auto config = parse(guest_with(net_with("mtu = 9000")));
    ASSERT_TRUE(config.has_value()) << joined(config.error());
    const auto pools = Pools::create(*config);
    ASSERT_TRUE(pools.has_value()) << pools.error().message;
    rte_mempool& pool = pools->of(config->guests[0].nets[0]);
    EXPECT_GE(pool.size, mbufs_needed(*config, SOCKET_ID_ANY));
    EXPECT_GE(pool.elt_size, 9000u + 18);
}

}  // namespace
}  // namespace viommu::app
