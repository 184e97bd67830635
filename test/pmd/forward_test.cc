// SPDX-License-Identifier: BSD-3-Clause
/// examples/forward (VIOMMU_FORWARD) between two guests, in a process that is not the daemon; and
/// what happens when any of the four processes goes away under traffic.
#include <signal.h>

#include <thread>

#include "two_guests.hh"

namespace viommu::pmd {
namespace {

class Forward : public TwoGuests {
  protected:
    void SetUp() override {
        start_daemon();
        ASSERT_TRUE(daemon);
        start_forward();
        ASSERT_TRUE(forward);
        for (unsigned i : {0, 1}) start_guest(i);
        ASSERT_TRUE(guests[0] && guests[1]);
        there.emplace(port(0), port(1), 0, 1);
        back.emplace(port(1), port(0), 0, 2);
    }
    void start_forward() {
        const char* program = std::getenv("VIOMMU_FORWARD");
        ASSERT_NE(program, nullptr) << "VIOMMU_FORWARD must name the example";
        auto started = Process::start(
            {program, "--no-huge", "-m", "128", "--no-pci", "--no-shconf", "--no-telemetry",
             "--lcores", "0", "--", port_argument(0), port_argument(1)},
            path("forward.log"));
        VIOMMU_OK(started);
        forward.emplace(std::move(*started));
        VIOMMU_OK(forward->wait_for("forward: ready\n"));
    }
    std::string port_argument(unsigned i) const {
        return fmt::format("{},0x20,{}", path(fmt::format("vm{}-readers.sock", i)),
                           path(fmt::format("net{}.sock", i)));
    }
    void stop_forward() {
        const auto stopped = forward->stop(SIGTERM);
        VIOMMU_OK(stopped);
    }
    uint64_t counter(const std::string& name) {
        const std::string said = forward->said();
        const size_t at = said.rfind("forward." + name + " ");
        return at == std::string::npos
                   ? 0
                   : std::stoull(said.substr(at + name.size() + sizeof "forward."));
    }
    /// Both ways, `count` packets each, none lost.
    void exchange(uint64_t count) {
        VIOMMU_OK(there->deliver(count));
        VIOMMU_OK(back->deliver(count));
    }
    /// Packets under way in both directions, so that something is going on.
    void pump() {
        for (unsigned i = 0; i < 500; ++i) {
            VIOMMU_OK(there->pump(UINT64_MAX));
            VIOMMU_OK(back->pump(UINT64_MAX));
        }
    }
    void recover() {
        VIOMMU_OK(there->recover());
        VIOMMU_OK(back->recover());
        exchange(500);
    }

    std::optional<Process> forward;
    std::optional<Flow> there, back;
};

TEST_F(Forward, packets_arrive_unchanged_and_are_counted) {
    exchange(5000);
    ASSERT_FALSE(HasFatalFailure());
    stop_forward();
    for (const char* name : {"port0.from_guest.packets", "port0.to_guest.packets",
                             "port1.from_guest.packets", "port1.to_guest.packets"})
        EXPECT_EQ(counter(name), 5000u) << name;
    for (const char* name : {"port0.not_taken", "port1.not_taken", "port0.lost_faults"})
        EXPECT_EQ(counter(name), 0u) << name;
    EXPECT_GE(counter("port0.translations"), 10000u);
}

TEST_F(Forward, idle_one_sleeps_and_is_woken_by_the_guest) {
    exchange(10);
    for (unsigned i = 0; i < 20 && !HasFatalFailure(); ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        exchange(1);
    }
}

TEST_F(Forward, packet_at_an_unmapped_address_is_a_fault_that_the_guest_learns_of) {
    exchange(10);
    const guest::Segment unmapped{guest::BusAddress{0x10000}, 100};
    const auto sent = port(0).transmit_segments({&unmapped, 1});
    ASSERT_TRUE(sent && *sent);
    const auto fault = guests[0]->iommu().poll_fault(guest::Milliseconds(20000));
    VIOMMU_OK(fault);
    ASSERT_TRUE(*fault);
    EXPECT_EQ((*fault)->endpoint, kEndpoint);
    EXPECT_EQ((*fault)->address, Iova{0x10000});
    exchange(100);
    stop_forward();
    EXPECT_EQ(counter("port0.from_guest.drop_fault"), 1u);
}

TEST_F(Forward, guest_whose_connection_is_cut_under_traffic_goes_on) {
    for (unsigned i = 0; i < 4; ++i) {
        pump();
        ASSERT_FALSE(HasFatalFailure());
        VIOMMU_OK(port(i % 2).reconnect());
        recover();
    }
}

TEST_F(Forward, guest_that_dies_under_traffic_is_followed_by_another) {
    for (unsigned i : {0, 1}) {
        pump();
        guests[i].reset();
        start_guest(i);
        ASSERT_TRUE(guests[i]);
        there->connect(port(0), port(1));
        back->connect(port(1), port(0));
        recover();
    }
}

TEST_F(Forward, forwarder_killed_under_traffic_is_followed_by_another) {
    for (unsigned i = 0; i < 2; ++i) {
        pump();
        ASSERT_FALSE(HasFatalFailure());
        forward->kill();
        start_forward();
        for (unsigned p : {0, 1}) VIOMMU_OK(port(p).reconnect());
        recover();
    }
    // The daemon saw it leave, and come.
    const auto counters = daemon->counters();
    VIOMMU_OK(counters);
    EXPECT_EQ(counters->at("guest.vm0.readers.accepted"), 3u);
    EXPECT_EQ(counters->at("guest.vm0.readers.left"), 2u);
}

TEST_F(Forward, without_a_daemon_nothing_moves_and_with_the_next_one_everything) {
    for (unsigned i = 1; i <= 2; ++i) {
        pump();
        ASSERT_FALSE(HasFatalFailure());
        daemon.reset();  // SIGKILL
        VIOMMU_OK(forward->wait_for("port 0: daemon away, VMM there", i));
        VIOMMU_OK(forward->wait_for("port 1: daemon away, VMM there", i));
        // What had been forwarded before that.
        for (unsigned n = 0; n < 100; ++n) VIOMMU_OK(there->pump(0));
        const uint64_t before = there->received();
        VIOMMU_OK(there->pump(UINT64_MAX));
        for (unsigned n = 0; n < 50; ++n) {
            nap();
            VIOMMU_OK(there->pump(0));
        }
        EXPECT_EQ(there->received(), before);

        start_daemon();
        ASSERT_TRUE(daemon);
        VIOMMU_OK(forward->wait_for("port 0: daemon there, VMM there", i));
        // Their tables died with the daemon, so guests have to begin anew.
        for (unsigned g : {0, 1}) {
            guests[g].reset();
            start_guest(g);
            ASSERT_TRUE(guests[g]);
        }
        there.emplace(port(0), port(1), 0, 5 + i);
        back.emplace(port(1), port(0), 0, 7 + i);
        exchange(1000);
        ASSERT_FALSE(HasFatalFailure());
    }
    stop_forward();
    EXPECT_EQ(counter("port0.daemons_lost"), 2u);
}

}  // namespace
}  // namespace viommu::pmd
