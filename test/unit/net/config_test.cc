// SPDX-License-Identifier: BSD-3-Clause
#include "net_rig.hh"

namespace viommu::net::test {
namespace {

TEST(NetPortFeatures, offered_bits_are_these) {
    Pool pool(63);
    const auto features = [&](Config config) {
        config.endpoint = NetRig::kEndpoint;
        return NetRig(pool, {.config = config, .run = false}).port->features();
    };
    // VERSION_1, ACCESS_PLATFORM, rings; MAC, STATUS, MRG_RXBUF
    constexpr uint64_t kLeast = bit(32) | bit(33) | bit(28) | bit(29) | bit(34) | bit(35) |
                                bit(40) | bit(5) | bit(16) | bit(15);
    constexpr uint64_t kTakes = bit(1) | bit(7) | bit(8) | bit(9) | bit(54) | bit(55),
                       kCutting = bit(11) | bit(12) | bit(13) | bit(56),
                       kOffloads = kTakes | bit(0) | kCutting;
    EXPECT_EQ(features({.offloads = false}), kLeast);
    EXPECT_EQ(features({}), kLeast | kOffloads);
    EXPECT_EQ(features({.may_leave = MayLeave::kChecksums}), kLeast | kTakes | bit(0));
    EXPECT_EQ(features({.may_leave = MayLeave::kNothing}), kLeast | kTakes);
    EXPECT_EQ(features({.mtu = 1500}), kLeast | kOffloads | bit(3));
    EXPECT_EQ(features({.speed_mbps = 1000}), kLeast | kOffloads | bit(63));
    constexpr uint64_t kCommands = bit(17) | bit(18) | bit(19) | bit(20) | bit(23);
    EXPECT_EQ(features({.control_queue = true, .offloads = false}), kLeast | kCommands);
    EXPECT_EQ(features({.control_queue = true}), kLeast | kOffloads | kCommands | bit(2));
    EXPECT_EQ(features({.queue_pairs = 2, .control_queue = true, .offloads = false}),
              kLeast | kCommands | bit(22) | bit(60));
    EXPECT_EQ(features({.queue_pairs = 2, .offloads = false}), kLeast)
        << "the VMM has the control queue";
    EXPECT_EQ(NetRig(pool).port->num_queues(), 2);
    NetRig all(pool, {.config = {.endpoint = NetRig::kEndpoint, .queue_pairs = 3,
                                 .control_queue = true}});
    EXPECT_EQ(all.port->num_queues(), 7);
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
