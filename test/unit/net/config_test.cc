// SPDX-License-Identifier: BSD-3-Clause
#include "net_rig.hh"

namespace viommu::net::test {
namespace {

TEST(NetPortFeatures, offered_bits_are_these) {
    Pool pool(63);
    NetRig rig(pool);
    EXPECT_EQ(rig.port->features(), bit(32) | bit(33) | bit(28) | bit(29) | bit(34) | bit(35) |
                                        bit(40) | bit(5) | bit(16) | bit(15));
    EXPECT_EQ(rig.port->num_queues(), 2);
    NetRig with_mtu(pool, {.config = {.endpoint = NetRig::kEndpoint, .mtu = 1500}});
    EXPECT_EQ(with_mtu.port->features() & ~rig.port->features(), bit(3));
}

TEST(NetPortConfig, fields_lie_where_the_spec_puts_them) {
    Pool pool(63);
    NetRig rig(
        pool,
        {.config = {.endpoint = NetRig::kEndpoint, .mac = {0x52, 0x54, 0, 1, 2, 3}, .mtu = 9000}});
    const uint8_t want[16] = {0x52, 0x54, 0, 1, 2, 3, 1, 0, 1, 0, 0x28, 0x23, 0, 0, 0, 0};
    for (uint32_t offset = 0; offset <= 16; ++offset) {
        for (uint32_t size = 0; offset + size <= 16; ++size) {
            Bytes got(size, std::byte{0xee});
            rig.port->config_read(offset, got);
            ASSERT_TRUE(size == 0 || std::memcmp(got.data(), want + offset, size) == 0)
                << offset << "+" << size;
        }
    }
    Bytes beyond(8, std::byte{0xee});
    rig.port->config_read(0xffffffff, beyond);
    EXPECT_EQ(beyond, Bytes(8));
}

TEST(NetPortCreate, unknown_endpoint_is_refused) {
    Pool pool(63);
    auto table = *table::Table::create({});
    xlate::FaultQueue faults;
    EXPECT_FALSE(NetPort::create({.endpoint = 1}, *table, faults, pool.get()));
}

}  // namespace
}  // namespace viommu::net::test
