// SPDX-License-Identifier: BSD-3-Clause
/// drivers/net/viommu in DPDK's own testpmd, between two guests.
#include <signal.h>

#include "two_guests.hh"

namespace viommu::pmd {
namespace {

class Testpmd : public TwoGuests {
  protected:
    void SetUp() override {
        start_daemon();
        ASSERT_TRUE(daemon);
    }
    /// `rx_offloads`: what testpmd asks of its ports.
    void start_testpmd(unsigned queues, uint64_t rx_offloads = 0) {
        const char* program = std::getenv("VIOMMU_TESTPMD");
        ASSERT_NE(program, nullptr) << "VIOMMU_TESTPMD must name dpdk-testpmd";
        // Its output is a file: line by line, nevertheless.
        std::vector<std::string> arguments{"stdbuf",
                                           "-oL",
                                           program,
                                           "--no-huge",
                                           "-m",
                                           "192",
                                           "--no-pci",
                                           "--no-shconf",
                                           "--no-telemetry",
                                           "--lcores",
                                           "0@0,1@1",
                                           "-d",
                                           "librte_net_viommu.so"};
        for (unsigned i : {0, 1}) {
            arguments.push_back("--vdev");
            arguments.push_back(
                fmt::format("net_viommu{},iface={},arena={},endpoint=0000:00:04.0,queues={}", i,
                            path(fmt::format("net{}.sock", i)),
                            path(fmt::format("vm{}-readers.sock", i)), queues));
        }
        for (const std::string& a :
             {std::string("--"), std::string("-i"), std::string("--no-mlockall"),
              std::string("--total-num-mbufs=8192"), std::string("--forward-mode=io"),
              fmt::format("--rx-offloads={:#x}", rx_offloads),
              fmt::format("--rxq={}", queues), fmt::format("--txq={}", queues),
              std::string("--txd=256"), std::string("--rxd=256")})
            arguments.push_back(a);
        auto started = Process::start(arguments, path("testpmd.log"));
        VIOMMU_OK(started);
        testpmd.emplace(std::move(*started));
        VIOMMU_OK(testpmd->wait_for("testpmd> "));
    }
    void start_guests(uint16_t pairs = 1) {
        for (unsigned i : {0, 1}) start_guest(i, pairs);
        ASSERT_TRUE(guests[0] && guests[1]);
    }
    std::string ask(const std::string& line) {
        // Its prompt is not at the end of each answer, as it is printed when a line was read.
        auto answer = testpmd->ask(line + "\nshow port 999999 mac_addr_nonsense", "Bad arguments");
        if (!answer) ADD_FAILURE() << answer.error().message;
        return answer ? *answer : std::string();
    }
    /// A number that stands behind `name` in what it says.
    static uint64_t number_in(const std::string& text, const std::string& name) {
        const size_t at = text.find(name);
        return at == std::string::npos ? UINT64_MAX : std::stoull(text.substr(at + name.size()));
    }
    void quit() {
        VIOMMU_OK(testpmd->type("quit"));
        ASSERT_TRUE(eventually([&] { return !testpmd->running(); })) << testpmd->said();
    }

    std::optional<Process> testpmd;
};

TEST_F(Testpmd, forwards_both_ways_and_counts_every_packet_and_drop) {
    start_testpmd(1);
    ASSERT_TRUE(testpmd);
    ask("start");
    start_guests();
    Flow there(port(0), port(1), 0, 1), back(port(1), port(0), 0, 2);
    VIOMMU_OK(there.deliver(3000));
    VIOMMU_OK(back.deliver(2000));
    const guest::Segment unmapped{guest::BusAddress{0x10000}, 100};
    const auto sent = port(0).transmit_segments({&unmapped, 1});
    ASSERT_TRUE(sent && *sent);
    VIOMMU_OK(port(0).drain(guest::Milliseconds(20000)));
    VIOMMU_OK(there.deliver(10));
    const std::string stats = ask("show port stats 0");
    EXPECT_EQ(number_in(stats, "RX-packets: "), 3010u) << stats;
    EXPECT_EQ(number_in(stats, "TX-packets: "), 2000u) << stats;
    EXPECT_EQ(number_in(stats, "RX-errors: "), 1u) << stats;
    const std::string xstats = ask("show port xstats 0");
    EXPECT_EQ(number_in(xstats, "rx_q0_drop_fault: "), 1u) << xstats;
    EXPECT_EQ(number_in(xstats, "tx_q0_packets: "), 2000u) << xstats;
    ask("clear port xstats 0");
    EXPECT_EQ(number_in(ask("show port xstats 0"), "rx_q0_drop_fault: "), 0u);
    quit();
}

TEST_F(Testpmd, several_queues_carry_their_own_pairs) {
    constexpr uint16_t kPairs = 3;
    start_testpmd(kPairs);
    ASSERT_TRUE(testpmd);
    ask("start");
    start_guests(kPairs);
    for (uint16_t pair = 0; pair < kPairs; ++pair) {
        Flow there(port(0), port(1), pair, 1), back(port(1), port(0), pair, 2);
        VIOMMU_OK(there.deliver(500u + pair));
        VIOMMU_OK(back.deliver(100));
    }
    const std::string xstats = ask("show port xstats 0");
    for (unsigned pair = 0; pair < kPairs; ++pair)
        EXPECT_EQ(number_in(xstats, fmt::format("rx_q{}_packets: ", pair)), 500u + pair) << xstats;
    quit();
}

TEST_F(Testpmd, link_follows_the_guest_and_is_told_of) {
    start_testpmd(1);
    ASSERT_TRUE(testpmd);
    EXPECT_NE(ask("show port info 0").find("Link status: down"), std::string::npos);
    start_guests();
    VIOMMU_OK(testpmd->wait_for("Port 0: link state change event"));
    EXPECT_NE(ask("show port info 0").find("Link status: up"), std::string::npos);
    guests[0].reset();
    VIOMMU_OK(testpmd->wait_for("Port 0: link state change event", 2));
    EXPECT_NE(ask("show port info 0").find("Link status: down"), std::string::npos);
    daemon.reset();
    VIOMMU_OK(testpmd->wait_for("Port 1: link state change event", 2));
    quit();
}

TEST_F(Testpmd, port_stopped_and_started_closed_and_left_forwards_again) {
    start_testpmd(1);
    ASSERT_TRUE(testpmd);
    ask("start");
    start_guests();
    Flow there(port(0), port(1), 0, 1);
    for (unsigned i = 0; i < 3; ++i) {
        VIOMMU_OK(there.deliver(300));
        ask("stop");
        ask("port stop all");
        ask("port start all");
        ask("start");
    }
    VIOMMU_OK(there.deliver(300));
    // Another MTU is another device for the guest: it is offered when the port starts again.
    EXPECT_EQ(port(0).config().mtu, 0);
    ask("stop");
    ask("port stop all");
    ask("port config mtu 0 1400");
    ask("port start all");
    ask("start");
    guests[0].reset();
    start_guest(0);
    ASSERT_TRUE(guests[0]);
    EXPECT_EQ(port(0).config().mtu, 1400);
    ask("stop");
    ask("port stop all");
    ask("port close all");
    quit();
}

// RTE_ETH_RX_OFFLOAD_*
constexpr uint64_t kUdpChecksum = 1 << 2, kTcpChecksum = 1 << 3, kTcpLro = 1 << 4;

TEST_F(Testpmd, guest_may_leave_undone_what_the_application_can_deal_with) {
    constexpr uint64_t kChecksum = guest::bit(wire::VIRTIO_NET_F_CSUM),
                       kCutting = guest::bit(wire::VIRTIO_NET_F_HOST_TSO4) |
                                  guest::bit(wire::VIRTIO_NET_F_HOST_USO),
                       kTakes = guest::bit(wire::VIRTIO_NET_F_GUEST_CSUM) |
                                guest::bit(wire::VIRTIO_NET_F_GUEST_TSO4);
    struct {
        uint64_t asked, offered;
    } const cases[] = {{0, kTakes},
                       {kTcpChecksum, kTakes},
                       {kUdpChecksum | kTcpChecksum, kTakes | kChecksum},
                       {kUdpChecksum | kTcpChecksum | kTcpLro, kTakes | kChecksum | kCutting}};
    for (const auto& c : cases) {
        start_testpmd(1, c.asked);
        ASSERT_TRUE(testpmd);
        start_guest(0, 1, c.offered);
        ASSERT_TRUE(guests[0]);
        EXPECT_EQ(port(0).frontend().features() & (kTakes | kChecksum | kCutting), c.offered)
            << c.asked;
        guests[0].reset();
        quit();
    }
}

TEST_F(Testpmd, unfinished_packets_pass_and_are_finished_for_a_guest_that_does_not_take_them) {
    constexpr uint64_t kLeaves = guest::bit(wire::VIRTIO_NET_F_CSUM) |
                                 guest::bit(wire::VIRTIO_NET_F_HOST_TSO4),
                       kTakes = guest::bit(wire::VIRTIO_NET_F_GUEST_CSUM) |
                                guest::bit(wire::VIRTIO_NET_F_GUEST_TSO4);
    constexpr uint16_t kPiece = 1000;
    const guest::Flow flow;
    std::vector<std::byte> payload(8 * kPiece);
    for (size_t i = 0; i < payload.size(); ++i) payload[i] = std::byte(i * 7 + (i >> 8));

    start_testpmd(1, kUdpChecksum | kTcpChecksum | kTcpLro);
    ASSERT_TRUE(testpmd);
    ask("start");
    start_guest(0, 1, kLeaves);
    ASSERT_TRUE(guests[0]);
    for (const uint64_t takes : {uint64_t{0}, kTakes}) {
        guests[1].reset();
        start_guest(1, 1, takes);
        ASSERT_TRUE(guests[1]);
        // To the end of its way: what was sent to the guest before this one is lost.
        ASSERT_TRUE(eventually([&] {
            return ask("show port info 1").find("Link status: up") != std::string::npos;
        }));
        const auto sent = port(0).tx().transmit(
            1, [&](wire::virtio_net_hdr& header, std::span<std::byte> room) {
                const auto frame = make_giant_frame(flow, 0, payload, kPiece, header);
                std::copy(frame.begin(), frame.end(), room.begin());
                return uint32_t(frame.size());
            });
        ASSERT_TRUE(sent && *sent == 1);
        std::vector<std::byte> got;
        unsigned packets = 0;
        ASSERT_TRUE(eventually([&] {
            const auto some = port(1).rx().receive(
                32, [&](const wire::virtio_net_hdr& header, std::span<const std::byte> packet) {
                    const auto read = read_frame(flow, packet);
                    EXPECT_EQ(read.trouble, "");
                    EXPECT_EQ(read.tcp_sequence, got.size());
                    EXPECT_TRUE(takes != 0 ? read.checksum_begun : read.checksum_good);
                    EXPECT_EQ(header.gso_type, takes != 0 ? wire::VIRTIO_NET_HDR_GSO_TCPV4 : 0);
                    EXPECT_EQ(uint16_t{header.gso_size}, takes != 0 ? kPiece : 0);
                    got.insert(got.end(), read.payload.begin(), read.payload.end());
                    ++packets;
                });
            EXPECT_TRUE(some) << some.error().message;
            return got.size() >= payload.size();
        })) << got.size();
        EXPECT_EQ(got, payload);
        EXPECT_EQ(packets, takes != 0 ? 1u : 8u);
    }
    EXPECT_EQ(number_in(ask("show port xstats 1"), "tx_q0_segmented: "), 1u);
    quit();
}

TEST_F(Testpmd, bad_device_arguments_are_refused_with_the_key_and_the_remedy) {
    const char* program = std::getenv("VIOMMU_TESTPMD");
    ASSERT_NE(program, nullptr);
    for (const auto& [arguments, said] :
         {std::pair{"arena=a,endpoint=0x20", "iface="},
          std::pair{"iface=a,arena=b,endpoint=0x20,queues=65", "queues=65"},
          std::pair{"iface=a,arena=b,endpoint=00:99.0", "PCI address"},
          std::pair{"iface=a,arena=b,endpoint=1,colour=red", "the keys are"}}) {
        auto started = Process::start(
            {program, "--no-huge", "-m", "64", "--no-pci", "--no-shconf", "--no-telemetry",
             "--lcores", "0", "-d", "librte_net_viommu.so", "--vdev",
             fmt::format("net_viommu0,{}", arguments), "--", "--no-mlockall"},
            path("refused.log"));
        VIOMMU_OK(started);
        EXPECT_TRUE(eventually([&] { return started->said().find(said) != std::string::npos; }))
            << arguments << ":\n"
            << started->said();
    }
}

}  // namespace
}  // namespace viommu::pmd
