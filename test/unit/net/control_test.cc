// SPDX-License-Identifier: BSD-3-Clause
/// Commands by themselves, and which features may be relied on.
#include "control.hh"

#include "control_rig.hh"

namespace viommu::net::test {
namespace {

using namespace wire;

constexpr uint64_t kOffered = bit(VIRTIO_NET_F_CTRL_VQ) | bit(VIRTIO_NET_F_CTRL_RX) |
                              bit(VIRTIO_NET_F_CTRL_RX_EXTRA) | bit(VIRTIO_NET_F_CTRL_MAC_ADDR) |
                              bit(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) | bit(VIRTIO_NET_F_MQ) |
                              bit(VIRTIO_NET_F_RSS) | bit(VIRTIO_NET_F_CSUM) |
                              bit(VIRTIO_NET_F_GUEST_CSUM) | bit(VIRTIO_NET_F_GUEST_TSO4) |
                              bit(VIRTIO_NET_F_HOST_TSO4);
constexpr uint64_t kVlan = bit(VIRTIO_NET_F_CTRL_VLAN);

/// A device's settings, with what every command must leave alone.
struct Commands : testing::Test {
    Pool pool{63};
    Control control{{kOwnMac, 4}};

    Commands() { control.reset(kOffered | kVlan); }
    uint8_t run(const Bytes& b) { return control.execute(b); }
    bool accepts(const Bytes& to, int vlan = -1, size_t segment = 2048) {
        Bytes b = to + frame(60);
        put16(b, 12, 0x0800);
        if (vlan >= 0) {
            put16(b, 12, 0x8100);
            put16(b, 14, unsigned(vlan) | 0x6000);  // with a priority
        }
        rte_mbuf* m = pool.packet(b, segment);
        const bool ok = control.filter().accepts(*m);
        rte_pktmbuf_free(m);
        return ok;
    }
};
constexpr unsigned kRx = VIRTIO_NET_CTRL_RX;

TEST_F(Commands, guest_is_promiscuous_until_it_says_otherwise) {
    for (const auto& to : {kOwn, kOther, kMulti, kBroadcast}) {
        EXPECT_TRUE(accepts(to));
        EXPECT_TRUE(accepts(to, 5));
    }
    EXPECT_EQ(run(bytes({kRx, VIRTIO_NET_CTRL_RX_PROMISC, 0})), VIRTIO_NET_OK);
    EXPECT_TRUE(accepts(kOwn));
    EXPECT_TRUE(accepts(kOwn, -1, 5));
    EXPECT_FALSE(accepts(kOther));
    EXPECT_FALSE(accepts(kMulti));
    EXPECT_TRUE(accepts(kBroadcast));
    control.reset(kOffered);
    EXPECT_TRUE(accepts(kOther)) << "a reset";
}

TEST_F(Commands, receive_modes_do_what_the_spec_says) {
    const auto set = [&](unsigned command, unsigned on) {
        EXPECT_EQ(run(bytes({kRx, command, on})), VIRTIO_NET_OK);
    };
    set(VIRTIO_NET_CTRL_RX_PROMISC, 0);
    set(VIRTIO_NET_CTRL_RX_ALLMULTI, 1);
    EXPECT_TRUE(accepts(kMulti));
    EXPECT_FALSE(accepts(kOther));
    set(VIRTIO_NET_CTRL_RX_NOMULTI, 1);
    EXPECT_FALSE(accepts(kMulti)) << "wins over ALLMULTI";
    EXPECT_TRUE(accepts(kBroadcast)) << "is not about broadcast";
    set(VIRTIO_NET_CTRL_RX_NOBCAST, 1);
    EXPECT_FALSE(accepts(kBroadcast));
    set(VIRTIO_NET_CTRL_RX_ALLUNI, 1);
    EXPECT_TRUE(accepts(kOther));
    set(VIRTIO_NET_CTRL_RX_NOUNI, 1);
    EXPECT_FALSE(accepts(kOther));
    EXPECT_FALSE(accepts(kOwn));
    set(VIRTIO_NET_CTRL_RX_PROMISC, 1);
    for (const auto& to : {kOwn, kOther, kMulti, kBroadcast}) EXPECT_TRUE(accepts(to));
}

TEST_F(Commands, mac_table_and_address_are_what_is_accepted) {
    run(bytes({kRx, VIRTIO_NET_CTRL_RX_PROMISC, 0}));
    const Bytes head = bytes({VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET});
    EXPECT_EQ(run(head + le(2, 4) + mac_bytes(1) + mac_bytes(2) + le(1, 4) + kMulti),
              VIRTIO_NET_OK);
    EXPECT_TRUE(accepts(mac_bytes(1)));
    EXPECT_TRUE(accepts(mac_bytes(2)));
    EXPECT_FALSE(accepts(mac_bytes(3)));
    EXPECT_TRUE(accepts(kMulti));
    EXPECT_FALSE(accepts(mac_bytes(2, 0x01)));
    EXPECT_TRUE(accepts(kOwn));
    // Wrong ones change nothing.
    for (const Bytes& bad :
         {head, head + le(0, 4), head + le(1, 4) + le(0, 4), head + le(0, 4) + le(1, 4),
          head + le(0, 4) + le(0, 4) + bytes({0}), head + le(0xffffffff, 4) + le(0, 4),
          head + le(1, 4) + kMulti + le(0, 4), head + le(0, 4) + le(1, 4) + mac_bytes(7),
          head + le(0x2aaaaaab, 4) + mac_bytes(7) + le(0, 4)})
        EXPECT_EQ(run(bad), VIRTIO_NET_ERR);
    EXPECT_TRUE(accepts(mac_bytes(1)));
    // More than there is room for: all of that kind.
    Bytes many = head + le(65, 4);
    for (unsigned i = 0; i < 65; ++i) many = many + mac_bytes(i);
    EXPECT_EQ(run(many + le(0, 4)), VIRTIO_NET_OK);
    EXPECT_TRUE(accepts(mac_bytes(200)));
    EXPECT_FALSE(accepts(kMulti));

    EXPECT_EQ(run(head + le(0, 4) + le(0, 4)), VIRTIO_NET_OK);
    EXPECT_FALSE(accepts(mac_bytes(1)));
    const Bytes address = bytes({VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET});
    EXPECT_EQ(run(address + bytes({2, 0, 0, 0, 0})), VIRTIO_NET_ERR);
    EXPECT_EQ(run(address + mac_bytes(7) + bytes({0})), VIRTIO_NET_ERR);
    EXPECT_EQ(run(address + mac_bytes(7)), VIRTIO_NET_OK);
    EXPECT_TRUE(accepts(mac_bytes(7)));
    EXPECT_FALSE(accepts(kOwn));
    EXPECT_EQ(control.filter().mac(), (std::array<uint8_t, 6>{2, 0, 0, 0, 0, 7}));
}

TEST_F(Commands, vlans_are_filtered_if_that_is_negotiated) {
    run(bytes({kRx, VIRTIO_NET_CTRL_RX_PROMISC, 0}));
    EXPECT_FALSE(accepts(kOwn, 5)) << "the table begins empty";
    EXPECT_TRUE(accepts(kOwn)) << "not tagged";
    const auto vlan = [&](unsigned command, unsigned id) {
        return run(bytes({VIRTIO_NET_CTRL_VLAN, command}) + le(id, 2));
    };
    EXPECT_EQ(vlan(VIRTIO_NET_CTRL_VLAN_ADD, 5), VIRTIO_NET_OK);
    EXPECT_EQ(vlan(VIRTIO_NET_CTRL_VLAN_ADD, 4095), VIRTIO_NET_OK);
    EXPECT_TRUE(accepts(kOwn, 5));
    EXPECT_TRUE(accepts(kOwn, 5, 13));
    EXPECT_TRUE(accepts(kOwn, 4095));
    EXPECT_FALSE(accepts(kOwn, 6));
    EXPECT_FALSE(accepts(kOther, 5)) << "the address counts as well";
    EXPECT_EQ(vlan(VIRTIO_NET_CTRL_VLAN_ADD, 4096), VIRTIO_NET_ERR);
    EXPECT_EQ(vlan(2, 5), VIRTIO_NET_ERR);
    EXPECT_EQ(vlan(VIRTIO_NET_CTRL_VLAN_DEL, 5), VIRTIO_NET_OK);
    EXPECT_FALSE(accepts(kOwn, 5));
    control.reset(kOffered);
    run(bytes({kRx, VIRTIO_NET_CTRL_RX_PROMISC, 0}));
    EXPECT_TRUE(accepts(kOwn, 5)) << "5.1.6.5.3.1: all, when it is not negotiated";
}

TEST_F(Commands, the_last_of_pairs_and_rss_counts) {
    const auto pairs = [&](unsigned n) {
        return run(bytes({VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET}) + le(n, 2));
    };
    EXPECT_EQ(control.steering().pairs(), 1u);
    EXPECT_EQ(pairs(4), VIRTIO_NET_OK);
    EXPECT_EQ(pairs(0), VIRTIO_NET_ERR);
    EXPECT_EQ(pairs(5), VIRTIO_NET_ERR);
    EXPECT_EQ(control.steering().pairs(), 4u);
    const uint64_t version = control.steering().version();
    EXPECT_EQ(run(rss_command(3)), VIRTIO_NET_OK);
    EXPECT_NE(control.steering().version(), version);
    EXPECT_EQ(control.steering().pairs(), 3u);
    const auto rss = control.steering().snapshot();
    ASSERT_TRUE(rss);
    const Bytes command = rss_command(3);
    EXPECT_EQ(*rss, *Rss::decode(std::span(command).subspan(2), 4));
    EXPECT_EQ(run(rss_command(5)), VIRTIO_NET_ERR);
    EXPECT_EQ(control.steering().snapshot(), rss);
    EXPECT_EQ(pairs(2), VIRTIO_NET_OK);
    EXPECT_FALSE(control.steering().snapshot());
    EXPECT_EQ(run(bytes({VIRTIO_NET_CTRL_MQ, 2}) + Bytes(13)), VIRTIO_NET_ERR) << "HASH_CONFIG";
}

TEST_F(Commands, receive_offloads_are_switched_within_what_is_negotiated) {
    const auto set = [&](uint64_t offloads) {
        return run(bytes({VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET}) +
                   le(offloads, 8));
    };
    const uint64_t before = control.features();
    EXPECT_EQ(set(bit(VIRTIO_NET_F_GUEST_TSO6)), VIRTIO_NET_ERR) << "not negotiated";
    EXPECT_EQ(set(bit(VIRTIO_NET_F_CSUM)), VIRTIO_NET_ERR) << "not of these";
    EXPECT_EQ(control.features(), before);
    EXPECT_EQ(set(bit(VIRTIO_NET_F_GUEST_CSUM)), VIRTIO_NET_OK);
    EXPECT_EQ(control.features(), before & ~bit(VIRTIO_NET_F_GUEST_TSO4));
    EXPECT_EQ(set(bit(VIRTIO_NET_F_GUEST_TSO4)), VIRTIO_NET_OK);
    EXPECT_EQ(control.features(), before & ~bit(VIRTIO_NET_F_GUEST_TSO4) &
                                      ~bit(VIRTIO_NET_F_GUEST_CSUM))
        << "TSO needs the checksum";
    EXPECT_EQ(set(bit(VIRTIO_NET_F_GUEST_TSO4) | bit(VIRTIO_NET_F_GUEST_CSUM)), VIRTIO_NET_OK);
    EXPECT_EQ(control.features(), before);
}

/// One good command of each kind.
std::vector<std::pair<Bytes, unsigned>> good_commands() {
    std::vector<std::pair<Bytes, unsigned>> all;
    for (unsigned c = 0; c <= 5; ++c)
        all.push_back({bytes({kRx, c, 1}),
                       c < 2 ? VIRTIO_NET_F_CTRL_RX : VIRTIO_NET_F_CTRL_RX_EXTRA});
    all.push_back(
        {bytes({1, 0}) + le(1, 4) + mac_bytes(1) + le(1, 4) + kMulti, VIRTIO_NET_F_CTRL_RX});
    all.push_back({bytes({1, 1}) + mac_bytes(1), VIRTIO_NET_F_CTRL_MAC_ADDR});
    all.push_back({bytes({2, 0}) + le(5, 2), VIRTIO_NET_F_CTRL_VLAN});
    all.push_back({bytes({2, 1}) + le(5, 2), VIRTIO_NET_F_CTRL_VLAN});
    all.push_back({bytes({4, 0}) + le(2, 2), VIRTIO_NET_F_MQ});
    all.push_back({rss_command(2), VIRTIO_NET_F_RSS});
    all.push_back({bytes({5, 0}) + le(bit(VIRTIO_NET_F_GUEST_CSUM), 8),
                   VIRTIO_NET_F_CTRL_GUEST_OFFLOADS});
    return all;
}

TEST_F(Commands, truncated_or_longer_is_an_error) {
    for (const auto& [command, feature] : good_commands()) {
        EXPECT_EQ(run(command), VIRTIO_NET_OK);
        for (size_t n = 0; n < command.size(); ++n)
            EXPECT_EQ(run(Bytes(command.begin(), command.begin() + long(n))), VIRTIO_NET_ERR) << n;
        const bool may_have_padding = feature == VIRTIO_NET_F_RSS;
        EXPECT_EQ(run(command + bytes({0})), may_have_padding ? VIRTIO_NET_OK : VIRTIO_NET_ERR);
        EXPECT_EQ(run(command + bytes({0, 0})), VIRTIO_NET_ERR);
    }
}

TEST_F(Commands, what_is_not_negotiated_is_an_error) {
    for (const auto& [command, feature] : good_commands()) {
        control.reset((kOffered | kVlan) & ~bit(feature));
        EXPECT_EQ(run(command), VIRTIO_NET_ERR) << feature;
        control.reset((kOffered | kVlan));
        EXPECT_EQ(run(command), VIRTIO_NET_OK) << feature;
    }
}

TEST_F(Commands, unknown_ones_are_an_error) {
    for (unsigned c = 0; c < 256; ++c)
        for (const unsigned command : {0u, 1u, 2u, 6u, 255u})
            for (const size_t data : {0u, 1u, 2u, 6u, 8u})
                if (c == 3 || c > 5) {
                    EXPECT_EQ(run(bytes({c, command}) + Bytes(data)), VIRTIO_NET_ERR);
                }
    EXPECT_EQ(run(bytes({kRx, 6, 1})), VIRTIO_NET_ERR);
    EXPECT_EQ(run(bytes({kRx, VIRTIO_NET_CTRL_RX_PROMISC, 2})), VIRTIO_NET_ERR);
    EXPECT_EQ(run(Bytes(Control::kMaxCommandBytes + 1)), VIRTIO_NET_ERR);
}

TEST(Negotiated, bit_without_its_requirement_is_not_accepted) {
    // 5.1.3.1, pair by pair.
    const struct {
        unsigned bit;
        std::vector<unsigned> one_of;
    } requirements[] = {
        {VIRTIO_NET_F_GUEST_TSO4, {VIRTIO_NET_F_GUEST_CSUM}},
        {VIRTIO_NET_F_GUEST_TSO6, {VIRTIO_NET_F_GUEST_CSUM}},
        {VIRTIO_NET_F_GUEST_USO4, {VIRTIO_NET_F_GUEST_CSUM}},
        {VIRTIO_NET_F_GUEST_USO6, {VIRTIO_NET_F_GUEST_CSUM}},
        {VIRTIO_NET_F_GUEST_ECN, {VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6}},
        {VIRTIO_NET_F_HOST_TSO4, {VIRTIO_NET_F_CSUM}},
        {VIRTIO_NET_F_HOST_TSO6, {VIRTIO_NET_F_CSUM}},
        {VIRTIO_NET_F_HOST_USO, {VIRTIO_NET_F_CSUM}},
        {VIRTIO_NET_F_HOST_ECN, {VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6}},
        {VIRTIO_NET_F_CTRL_RX, {VIRTIO_NET_F_CTRL_VQ}},
        {VIRTIO_NET_F_CTRL_VLAN, {VIRTIO_NET_F_CTRL_VQ}},
        {VIRTIO_NET_F_MQ, {VIRTIO_NET_F_CTRL_VQ}},
        {VIRTIO_NET_F_CTRL_MAC_ADDR, {VIRTIO_NET_F_CTRL_VQ}},
        {VIRTIO_NET_F_RSS, {VIRTIO_NET_F_CTRL_VQ}},
    };
    const uint64_t all = offered({.mtu = true,
                                  .offloads = true,
                                  .may_leave = MayLeave::kCutting,
                                  .control_queue = true,
                                  .queue_pairs = 4,
                                  .speed = true});
    EXPECT_EQ(negotiated(all), all);
    for (const auto& r : requirements) {
        uint64_t without = all;
        for (const unsigned b : r.one_of) without &= ~bit(b);
        EXPECT_EQ(negotiated(without) & bit(r.bit), 0u) << r.bit;
        for (const unsigned b : r.one_of) {
            // With the one, and all that the one needs.
            EXPECT_NE(negotiated(without | bit(b)) & bit(r.bit), 0u) << r.bit << " with " << b;
        }
    }
    EXPECT_EQ(negotiated(bit(VIRTIO_NET_F_GUEST_TSO4) | bit(VIRTIO_NET_F_GUEST_ECN)), 0u)
        << "a requirement of a requirement";
}

}  // namespace
}  // namespace viommu::net::test
