// SPDX-License-Identifier: BSD-3-Clause
/// A port whose control queue is the daemon's: what commands change, what they must not, how long
/// it lasts.
#include "cargo.hh"
#include "control_port.hh"
#include "pump.hh"
#include "toeplitz.hh"

namespace viommu::e2e {
namespace {

using namespace guest;
using namespace wire;

constexpr uint64_t kMq = kCommands | bit(VIRTIO_NET_F_MQ);
constexpr uint64_t kRss = kCommands | bit(VIRTIO_NET_F_RSS);

TEST_P(ControlQueue, pairs_change_under_traffic_and_flows_stay_in_order) {
    boot_with(kMq);
    ASSERT_FALSE(HasFatalFailure());
    for (int round = 0; round < 40; ++round) {
        const auto pairs = uint16_t(1 + rng() % kPairs);
        forget();
        send_all(20);
        const auto set = receiver().use_pairs(pairs);
        ASSERT_TRUE(set) << set.error().message;
        std::vector<uint32_t> sent;
        for (const auto& f : flows) sent.push_back(f.sent);
        // What is there came by the old number, and that was the last of it.
        for (uint16_t pair = pairs; pair < kPairs; ++pair)
            while (receive(pair) != 0) {
            }
        std::vector<size_t> old;
        for (const auto& f : flows) old.push_back(f.arrivals.size());
        pass(20);
        ASSERT_FALSE(HasFatalFailure());
        for (uint16_t f = 0; f < flows.size(); ++f) {
            const uint16_t here = f % kPairs % pairs;
            std::map<uint16_t, uint32_t> last;
            uint32_t before_here = 0, first_here = ~0u;
            for (size_t i = 0; i < flows[f].arrivals.size(); ++i) {
                const auto [pair, number] = flows[f].arrivals[i];
                ASSERT_TRUE(i < old[f] || pair < pairs) << "after the answer, by a pair of before";
                ASSERT_TRUE(number < sent[f] || pair == here) << "sent later, by another pair";
                ASSERT_TRUE(!last.contains(pair) || last[pair] < number) << "out of order";
                last[pair] = number;
                if (pair == here) first_here = std::min(first_here, number);
            }
            // (Here may have been before, too: then it never was elsewhere.)
            for (const auto& [pair, number] : last)
                if (pair != here) before_here = std::max(before_here, number + 1);
            ASSERT_LE(before_here, first_here) << "a flow that goes to and fro";
        }
    }
    EXPECT_EQ(receiver().use_pairs(kPairs + 1).has_value(), false);
    EXPECT_EQ(grown("control.packets"), 41u);
    EXPECT_EQ(drops(counters()), drops(before));
}

TEST_P(ControlQueue, rss_sends_each_flow_where_its_toeplitz_hash_says) {
    boot_with(kRss);
    ASSERT_FALSE(HasFatalFailure());
    ASSERT_TRUE(toeplitz_is_right());
    // Ports of UDP in IPv6 are left out.
    constexpr uint32_t kTypes = VIRTIO_NET_HASH_TYPE_IPv4 | VIRTIO_NET_HASH_TYPE_TCPv4 |
                                VIRTIO_NET_HASH_TYPE_UDPv4 | VIRTIO_NET_HASH_TYPE_IPv6 |
                                VIRTIO_NET_HASH_TYPE_TCPv6;
    NetDriver::Rss rss{.hash_types = kTypes,
                       .unclassified = 2,
                       .max_tx_pairs = kPairs,
                       .key = toeplitz_key()};
    for (uint16_t i = 1; i < 16; ++i) rss.table.push_back(i % kPairs);
    const auto check = [&] {
        std::array<unsigned, kPairs> by{};
        for (uint32_t i = 0; i < 128; ++i) {
            const Flow flow{.ipv6 = (i & 1) != 0,
                            .udp = (i & 2) != 0,
                            .source = uint32_t(rng()),
                            .source_port = uint16_t(rng())};
            auto frame = make_frame(flow, i, std::array<std::byte, 64>{});
            uint16_t pair = rss.unclassified;
            if (i % 16 == 15)
                frame[12] = std::byte{0x88};  // neither IPv4 nor IPv6
            else
                pair = rss.table[toeplitz(rss.key, hashed(flow, !(flow.ipv6 && flow.udp))) % 16];
            ASSERT_TRUE(send(frame, uint16_t(rng() % kPairs)));
            uint32_t n = 0;
            for (Patience patience(kSoon); n == 0 && patience.wait();) {
                const auto got = receiver().rx(pair).receive(
                    1, [&](std::span<const std::byte> p) {
                        EXPECT_TRUE(std::ranges::equal(p, frame));
                    });
                ASSERT_TRUE(got);
                n = *got;
            }
            ASSERT_EQ(n, 1u) << "packet " << i << " does not come by pair " << pair;
            ++by[pair];
        }
        for (const unsigned n : by) EXPECT_GT(n, 10u) << "pairs are used evenly, more or less";
    };
    for (int tables = 0; tables < 3; ++tables) {
        std::ranges::shuffle(rss.table, rng);
        const auto set = receiver().set_rss(rss);
        ASSERT_TRUE(set) << set.error().message;
        check();
        ASSERT_FALSE(HasFatalFailure());
    }
}

TEST_P(ControlQueue, filters_keep_away_what_the_guest_does_not_want) {
    boot_with(kMq);
    ASSERT_FALSE(HasFatalFailure());
    expect_filtered(false);
    filter();
    expect_filtered(true);
    EXPECT_EQ(mode(VIRTIO_NET_CTRL_RX_ALLMULTI, true), VIRTIO_NET_OK);
    EXPECT_TRUE(arrives(bytes({1, 0, 0x5e, 0, 0, 2})));
    EXPECT_FALSE(arrives(kOther));
    EXPECT_EQ(mode(VIRTIO_NET_CTRL_RX_ALLUNI, true), VIRTIO_NET_OK);
    EXPECT_TRUE(arrives(kOther));
    EXPECT_EQ(mode(VIRTIO_NET_CTRL_RX_ALLMULTI, false), VIRTIO_NET_OK);
    EXPECT_EQ(mode(VIRTIO_NET_CTRL_RX_ALLUNI, false), VIRTIO_NET_OK);
    expect_filtered(true);

    EXPECT_EQ(run(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, kOther), VIRTIO_NET_OK);
    EXPECT_TRUE(arrives(kOther));
    EXPECT_FALSE(arrives(kOwn));
    ASSERT_TRUE(receiver().read_config());
    EXPECT_EQ(receiver().mac(), (std::array<uint8_t, 6>{2, 0, 0, 0, 0, 8}));
    EXPECT_EQ(run(VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_DEL, le(5, 2)), VIRTIO_NET_OK);
    EXPECT_FALSE(arrives(kOther, 5));

    EXPECT_EQ(mode(VIRTIO_NET_CTRL_RX_PROMISC, true), VIRTIO_NET_OK);
    expect_filtered(false);
    EXPECT_EQ(grown("control.packets"), commands);
}

TEST_P(ControlQueue, receive_offloads_are_switched_off_and_on) {
    constexpr uint64_t kSums = bit(VIRTIO_NET_F_GUEST_CSUM);
    constexpr uint64_t kAll = kSums | bit(VIRTIO_NET_F_GUEST_TSO4);
    boot_with(kMq | kAll | bit(VIRTIO_NET_F_CSUM) | bit(VIRTIO_NET_F_HOST_TSO4) |
              bit(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS));
    ASSERT_FALSE(HasFatalFailure());
    const auto check = [&](uint64_t on, unsigned pieces) {
        Cargo cargo({}, on, false);
        const auto load = cargo.send(1900, 500, true);
        ASSERT_TRUE(*sender().tx().transmit(1, [&](virtio_net_hdr& header, auto room) {
            header = load.header;
            std::ranges::copy(load.frame, room.begin());
            return uint32_t(load.frame.size());
        }));
        unsigned n = 0;
        for (Patience patience(kSoon); cargo.due() != 0 && patience.wait();)
            ASSERT_TRUE(receiver().rx().receive(8, [&](const virtio_net_hdr& header, auto frame) {
                ++n;
                EXPECT_EQ(cargo.receive(header, frame), "");
            }));
        EXPECT_EQ(n, pieces);
    };
    check(kAll, 1);
    for (const auto& [on, pieces] : {std::pair{kSums, 4}, std::pair{uint64_t{0}, 4},
                                    std::pair{kAll, 1}, std::pair{uint64_t{0}, 4}}) {
        EXPECT_EQ(offloads(on), VIRTIO_NET_OK);
        check(on, unsigned(pieces));
        EXPECT_EQ(offloads(kAll | bit(VIRTIO_NET_F_GUEST_TSO6)), VIRTIO_NET_ERR)
            << "not negotiated";
        EXPECT_EQ(offloads(bit(VIRTIO_NET_F_MRG_RXBUF)), VIRTIO_NET_ERR) << "not an offload";
        check(on, unsigned(pieces));
    }
    EXPECT_EQ(grown("to_guest.segmented"), 6u);
}

TEST_P(ControlQueue, wrong_commands_are_refused_change_nothing_and_the_queue_goes_on) {
    boot_with(kMq | bit(VIRTIO_NET_F_RSS));
    ASSERT_FALSE(HasFatalFailure());
    constexpr uint8_t kRx = VIRTIO_NET_CTRL_RX, kMac = VIRTIO_NET_CTRL_MAC,
                      kVlan = VIRTIO_NET_CTRL_VLAN, kMulti = VIRTIO_NET_CTRL_MQ;
    const auto rss = [](unsigned mask, unsigned pair, unsigned tx, unsigned key) {
        return le(VIRTIO_NET_HASH_TYPE_IPv4, 4) + le(mask, 2) + le(0, 2) + le(pair, 2) +
               le(pair, 2) + le(tx, 2) + le(key, 1) + Bytes(40);
    };
    struct Wrong {
        uint8_t class_, command;
        Bytes data;
    };
    const Wrong all[] = {
        {9, 0, {}},
        {3, 0, {}},  // ANNOUNCE, which is not offered
        {kRx, 0, {}},
        {kRx, 0, le(2, 1)},
        {kRx, 0, le(0, 2)},
        {kRx, 6, le(0, 1)},
        {kMac, 0, {}},
        {kMac, 0, le(0, 4)},
        {kMac, 0, le(2, 4) + kListed + le(0, 4)},
        {kMac, 0, le(1, 4) + kGroup + le(0, 4)},
        {kMac, 0, le(0xffffffff, 4) + le(0, 4)},
        {kMac, 1, le(0, 5)},
        {kMac, 2, kListed},
        {kVlan, 0, le(4096, 2)},
        {kVlan, 2, le(1, 2)},
        {kMulti, 0, le(0, 2)},
        {kMulti, 0, le(5, 2)},
        {kMulti, 0, le(1, 1)},
        {kMulti, 0, le(1, 4)},
        {kMulti, 1, {}},
        {kMulti, 1, rss(2, 0, 1, 40)},    // three entries
        {kMulti, 1, rss(1, 4, 1, 40)},    // no such pair
        {kMulti, 1, rss(1, 0, 5, 40)},
        {kMulti, 1, rss(1, 0, 1, 38)},    // more key than is said
        {kMulti, 1, rss(1, 0, 1, 41)},
        {kMulti, 2, le(0, 8)},            // HASH_CONFIG, which is not offered
        {5, 0, le(0, 8)},                 // GUEST_OFFLOADS, which was not accepted
        {kRx, 0, Bytes(6000)},
    };
    for (const Wrong& w : all)
        EXPECT_EQ(run(w.class_, w.command, w.data), VIRTIO_NET_ERR)
            << unsigned(w.class_) << "." << unsigned(w.command) << ", " << w.data.size();

    // Without a place for an answer; at an address that is not mapped.
    const Segment command{receiver().tx().bus_of(0), 3}, nowhere{BusAddress{0x10000}, 3};
    const Segment ack{receiver().rx().bus_of(0), 1};
    auto& queue = receiver().control()->queue();
    const auto return_of = [&](std::span<const Segment> in, std::span<const Segment> out) {
        EXPECT_TRUE(queue.add(in, out, 7));
        queue.kick();
        std::optional<Completion> done;
        for (Patience patience(kSoon); !(done = queue.pop()) && patience.wait();) {
        }
        ASSERT_TRUE(done);
        EXPECT_EQ(done->bytes, 0u);
    };
    return_of({&command, 1}, {});
    return_of({&nowhere, 1}, {&ack, 1});
    return_of({&command, 1}, {&nowhere, 1});
    for (int i = 0; i < 2; ++i) {
        const auto fault = guest->iommu().poll_fault(kSoon);
        ASSERT_TRUE(fault && *fault);
        EXPECT_EQ((*fault)->endpoint, kEndpoint1);
        EXPECT_EQ((*fault)->address, Iova{nowhere.at.value});
    }
    EXPECT_EQ(grown("control.packets"), std::size(all));
    EXPECT_EQ(grown("control.drop_malformed"), 1u);
    EXPECT_EQ(grown("control.drop_fault"), 2u);

    expect_filtered(false);
    pass(50);
    ASSERT_FALSE(HasFatalFailure());
    expect_pairs(kPairs);
    // However a command is cut.
    for (const auto& layout : {CommandLayout{{1}}, CommandLayout{{1, 1}}, CommandLayout{{2, 1}},
                               CommandLayout{{3}}, CommandLayout{{1, 2}}}) {
        EXPECT_EQ(run(kMulti, 0, le(1 + rng() % kPairs, 2), layout), VIRTIO_NET_OK);
        EXPECT_EQ(run(kMulti, 0, le(0x0101, 2), layout), VIRTIO_NET_ERR);
    }
}

TEST_P(ControlQueue, settings_last_until_the_device_is_reset) {
    boot_with(kRss);
    ASSERT_FALSE(HasFatalFailure());
    for (int life = 0; life < 2; ++life) {
        pass(20);
        expect_pairs(1);
        filter();
        EXPECT_EQ(run(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, kOwn), VIRTIO_NET_OK);
        ASSERT_TRUE(receiver().set_rss({.unclassified = 3}));
        const auto check = [&](const char* after) {
            SCOPED_TRACE(after);
            expect_filtered(true);
            forget();
            pass(20);
            for (const auto& f : flows)
                for (const auto& a : f.arrivals) ASSERT_EQ(a.pair, 3);
        };
        check("the commands");
        for (NetDriver* driver : {&receiver(), &sender()}) {
            ASSERT_TRUE(driver->pause());
            ASSERT_TRUE(driver->resume());
            check("pause and resume");
            ASSERT_TRUE(driver->reconnect());
            check("a new connection");
            ASSERT_FALSE(HasFatalFailure());
        }
        EXPECT_EQ(run(VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, kOther), VIRTIO_NET_OK);
        const auto down = guest->take_down(1);
        ASSERT_TRUE(down) << down.error().message;
        const auto up = guest->bring_up(1);
        ASSERT_TRUE(up) << up.error().message;
        EXPECT_EQ(receiver().mac(), (std::array<uint8_t, 6>{0x52, 0x54, 0, 0, 0, 2}));
        expect_filtered(false);
        forget();
    }
}

const Setting kSettings[] = {
    {"split_cloud_hypervisor", 0, Vmm::kCloudHypervisor},
    {"packed_cloud_hypervisor", bit(VIRTIO_F_RING_PACKED), Vmm::kCloudHypervisor},
    {"split_qemu", 0, Vmm::kQemu},
    {"packed_qemu", bit(VIRTIO_F_RING_PACKED) | bit(VIRTIO_F_EVENT_IDX), Vmm::kQemu},
};
INSTANTIATE_TEST_SUITE_P(All, ControlQueue, testing::ValuesIn(kSettings),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace viommu::e2e
