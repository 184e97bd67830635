// SPDX-License-Identifier: BSD-3-Clause
/// Two pairs of ports on one lcore: whatever becomes of one pair's guest, the other goes on.
#include <chrono>

#include "daemon.hh"
#include "guest_process.hh"
#include "pump.hh"
#include "two_guests.hh"

namespace viommu::e2e {
namespace {

using namespace guest;

class DeadPeer : public testing::TestWithParam<bool> {
  protected:
    void SetUp() override {
        ASSERT_TRUE(daemon) << daemon.error().message;
        peer.emplace(start_peer());
        ASSERT_TRUE(*peer) << peer->error().message;
        auto o = options("vm0");
        for (const unsigned i : {0u, 1u, 2u})
            o.ports.push_back(port(fmt::format("vm0-net{}", i), 0x20 + 8 * i));
        auto made = Guest::create(o);
        ASSERT_TRUE(made) << made.error().message;
        guest = std::move(*made);
        lane.emplace(guest->port(0), guest->port(1), 1);
    }
    void TearDown() override {
        peer.reset();
        if (guest) {
            const auto down = guest->shut_down();
            EXPECT_TRUE(down) << down.error().message;
        }
        const auto stopped = daemon->stop();
        EXPECT_TRUE(stopped) << stopped.error().message;
    }
    GuestOptions options(const std::string& name) const {
        GuestOptions o;
        o.iommu_socket = daemon->path(name + ".sock");
        return o;
    }
    PortOptions port(const std::string& name, EndpointId endpoint) const {
        PortOptions p{daemon->path(name + ".sock"), endpoint};
        p.net.tx_buffer_bytes = 65536 + 64;
        p.net.max_buffers = 64;
        if (GetParam()) require(p.net, bit(wire::VIRTIO_F_RING_PACKED));
        return p;
    }
    Result<GuestProcess> start_peer() const {
        auto o = options("vm1");
        o.ports.push_back(port("vm1-net0", 0x20));
        return GuestProcess::start(o);
    }
    /// Packets that the live pair passes in half a second beside a flood for the other one.
    uint64_t live_packets() {
        using Clock = std::chrono::steady_clock;
        const auto end = Clock::now() + std::chrono::milliseconds(500);
        const uint64_t before = lane->stream().received();
        const std::vector<std::byte> packet(60);
        while (Clock::now() < end && !HasFatalFailure()) {
            lane->turn(true);
            const auto flood = guest->port(2).transmit(32, [&](std::span<std::byte> room) {
                std::copy(packet.begin(), packet.end(), room.begin());
                return uint32_t(packet.size());
            });
            EXPECT_TRUE(flood) << flood.error().message;
            flooded += flood ? *flood : 0;
        }
        return lane->stream().received() - before;
    }
    /// Every packet of the live pair has arrived; each of the flood arrived or was counted.
    void settle() {
        Lane* const lanes[] = {&*lane};
        pump(lanes, 0, [] {});
        ASSERT_TRUE(guest->port(2).drain(Milliseconds(5000)));
        EXPECT_EQ(lane->stream().received(), lane->stream().sent());
        auto counters = daemon->counters();
        ASSERT_TRUE(counters) << counters.error().message;
        EXPECT_EQ((*counters)["net.vm0/net2.from_guest.packets"], flooded);
        EXPECT_EQ((*counters)["net.vm1/net0.to_guest.packets"] + drops(*counters), flooded);
    }

    Result<Daemon> daemon = Daemon::start(kTwoGuests);
    std::optional<Result<GuestProcess>> peer;
    std::unique_ptr<Guest> guest;
    std::optional<Lane> lane;
    uint64_t flooded = 0;
};

TEST_P(DeadPeer, neighbour_on_the_same_lcore_keeps_its_rate_and_loses_nothing) {
    const uint64_t healthy = live_packets();
    (*peer)->stop();  // its buffers are used up at once, and its sockets stay
    const uint64_t stopped = live_packets();
    (*peer)->kill();
    const uint64_t killed = live_packets();
    settle();
    ASSERT_FALSE(HasFatalFailure());
    fmt::print("packets of the live pair in 500 ms: {}; beside a stopped peer {}, a killed {}\n",
               healthy, stopped, killed);
    // A machine that is busy with other things varies as much; a port that is waited for stops.
    EXPECT_GT(stopped, healthy / 4);
    EXPECT_GT(killed, healthy / 4);

    peer.emplace(start_peer());
    ASSERT_TRUE(*peer) << peer->error().message;
    auto counters = daemon->counters();
    ASSERT_TRUE(counters);
    const uint64_t before = (*counters)["net.vm1/net0.to_guest.packets"];
    EXPECT_GT(live_packets(), 0u);
    settle();
    counters = daemon->counters();
    ASSERT_TRUE(counters);
    EXPECT_GT((*counters)["net.vm1/net0.to_guest.packets"], before) << "it is served again";
}

INSTANTIATE_TEST_SUITE_P(All, DeadPeer, testing::Bool(),
                         [](const auto& info) { return info.param ? "packed" : "split"; });

}  // namespace
}  // namespace viommu::e2e
