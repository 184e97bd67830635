// SPDX-License-Identifier: BSD-3-Clause
/// Packets at addresses that do not translate: the guest hears of them by its event queue, they are
/// dropped and counted, and the queue goes on.
#include "traffic.hh"
#include "two_ports.hh"

namespace viommu::e2e {
namespace {

using namespace guest;

constexpr uint32_t kHeader = sizeof(wire::virtio_net_hdr);
constexpr Milliseconds kSoon{5000};

class PacketFaults : public TwoPorts, public testing::WithParamInterface<bool> {
  protected:
    void SetUp() override {
        auto o = two_ports(*daemon);
        for (auto& port : o.ports) {
            port.net.buffer_maps = BufferMaps::kMappingPerBuffer;
            if (GetParam()) require(port.net, bit(wire::VIRTIO_F_RING_PACKED));
        }
        auto made = Guest::create(o);
        ASSERT_TRUE(made) << made.error().message;
        guest = std::move(*made);
        before = counters();
    }
    std::map<std::string, uint64_t> counters() const {
        auto all = daemon->counters();
        EXPECT_TRUE(all) << all.error().message;
        return all ? std::move(*all) : std::map<std::string, uint64_t>{};
    }
    /// How much a counter has grown in this test.
    uint64_t grown(const std::string& name) const {
        auto now = counters();
        EXPECT_TRUE(now.contains(name)) << name;
        const auto was = before.find(name);
        return now[name] - (was == before.end() ? 0 : was->second);
    }
    std::vector<std::byte> numbered(unsigned i) {
        auto packet = random_packet(rng, 60 + 40 * (i % 30));
        packet[20] = std::byte(i);
        return packet;
    }
    void send(unsigned i) {
        sent.push_back(numbered(i));
        const auto ok = guest->port(0).transmit(sent.back());
        ASSERT_TRUE(ok && *ok);
    }
    /// What was sent arrives at port 1, but for `lost`, and nothing else.
    void receive_all_but(std::optional<size_t> lost) {
        for (size_t i = 0; i < sent.size(); ++i) {
            if (i == lost) continue;
            const auto packet = guest->port(1).receive(kSoon);
            ASSERT_TRUE(packet && *packet) << "packet " << i;
            ASSERT_EQ(**packet, sent[i]) << "packet " << i;
        }
        const auto more = guest->port(1).receive(Milliseconds(20));
        ASSERT_TRUE(more && !*more);
        sent.clear();
    }
    void expect_fault(EndpointId endpoint, BusAddress at, uint32_t access) {
        const auto fault = guest->iommu().poll_fault(kSoon);
        ASSERT_TRUE(fault && *fault);
        EXPECT_EQ((*fault)->endpoint, endpoint);
        EXPECT_EQ((*fault)->address, Iova{at.value});
        EXPECT_EQ((*fault)->reason, wire::VIRTIO_IOMMU_FAULT_R_MAPPING);
        EXPECT_EQ((*fault)->flags, access | wire::VIRTIO_IOMMU_FAULT_F_ADDRESS);
        const auto another = guest->iommu().poll_fault(Milliseconds(20));
        ASSERT_TRUE(another);
        EXPECT_FALSE(*another) << **another;
    }

    std::unique_ptr<Guest> guest;
    std::map<std::string, uint64_t> before;
    std::mt19937 rng{1};
    std::vector<std::vector<std::byte>> sent;
};

TEST_P(PacketFaults, bad_packet_among_32_that_are_sent_is_dropped_alone) {
    constexpr BusAddress kNowhere{0x10000};
    const BusAddress mapped = guest->port(0).tx().bus_of(0);
    const BusAddress write_only = guest->port(0).rx().bus_of(0);
    struct Bad {
        std::vector<Segment> segments;
        BusAddress fault;
    };
    const Bad bad[] = {
        {{{kNowhere, 100}}, kNowhere},
        {{{mapped, kHeader}, {kNowhere, 100}}, kNowhere},
        {{{mapped, 200}, {kNowhere + 0x800, 60}, {mapped, 100}}, kNowhere + 0x800},
        {{{mapped, kHeader}, {write_only, 100}}, write_only},
    };
    unsigned number = 0;
    for (const Bad& b : bad) {
        // All of them are there before the first is looked at.
        daemon->pause();
        for (unsigned i = 0; i < 16; ++i) send(number++);
        ASSERT_TRUE(guest->port(0).tx().add_segments(b.segments));
        for (unsigned i = 0; i < 16; ++i) send(number++);
        daemon->resume();
        receive_all_but({});
        ASSERT_FALSE(HasFatalFailure());
        ASSERT_TRUE(guest->port(0).drain(kSoon)) << "the bad one comes back, too";
        expect_fault(kEndpoint0, b.fault, wire::VIRTIO_IOMMU_FAULT_F_READ);
        ASSERT_FALSE(HasFatalFailure());
    }
    EXPECT_EQ(grown("net.vm0/net0.from_guest.packets"), number);
    EXPECT_EQ(grown("net.vm0/net0.from_guest.drop_fault"), std::size(bad));
    EXPECT_EQ(grown("guest.vm0.faults.reported"), std::size(bad));
    exchange(*guest, 0, 1, 600, 1500, rng);
}

TEST_P(PacketFaults, bad_buffer_among_32_costs_the_packet_that_meets_it) {
    constexpr unsigned kBad = 16;
    const BusAddress at = guest->port(1).rx().bus_of(kBad);
    const Iova page{at.value - at.value % kPageBytes};
    ASSERT_EQ(guest->iommu().unmap(guest->domain(1), {page, page + (kPageBytes - 1)}),
              Status::kOk);
    for (unsigned i = 0; i < 33; ++i) send(i);
    receive_all_but(kBad);
    ASSERT_FALSE(HasFatalFailure());
    expect_fault(kEndpoint1, at, wire::VIRTIO_IOMMU_FAULT_F_WRITE);
    EXPECT_EQ(guest->port(1).counters().rx_malformed, 1u) << "the buffer came back, empty";
    EXPECT_EQ(grown("net.vm0/net1.to_guest.packets"), 32u);
    EXPECT_EQ(grown("net.vm0/net1.to_guest.drop_fault"), 1u);
    EXPECT_EQ(grown("guest.vm0.faults.reported"), 1u);
    exchange(*guest, 0, 1, 200, 1500, rng);
    exchange(*guest, 1, 0, 200, 1500, rng);
}

INSTANTIATE_TEST_SUITE_P(All, PacketFaults, testing::Bool(),
                         [](const auto& info) { return info.param ? "packed" : "split"; });

}  // namespace
}  // namespace viommu::e2e
