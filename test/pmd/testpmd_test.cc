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
    /// `more`: further device arguments, with a comma before each.
    void start_testpmd(unsigned queues, const std::string& mode = "io",
                       const std::string& more = "") {
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
                fmt::format("net_viommu{},iface={},arena={},endpoint=0000:00:04.0,queues={}{}", i,
                            path(fmt::format("net{}.sock", i)),
                            path(fmt::format("vm{}-readers.sock", i)), queues, more));
        }
        for (const std::string& a :
             {std::string("--"), std::string("-i"), std::string("--no-mlockall"),
              std::string("--total-num-mbufs=8192"), "--forward-mode=" + mode,
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
