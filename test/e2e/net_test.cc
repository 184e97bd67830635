// SPDX-License-Identifier: BSD-3-Clause
/// Packets through translated ports of a daemon process: every way to place rings and map buffers,
/// for both kinds of VMM.
#include "traffic.hh"
#include "two_ports.hh"

namespace viommu::e2e {
namespace {

using namespace guest;

struct Way {
    const char* name;
    Vmm vmm;
    RingAddresses rings;
    BufferMaps maps;
    TxLayout tx;
    uint32_t buffer_bytes;
    size_t max_bytes;
    bool mergeable;
};

struct NetWays : testing::TestWithParam<Way> {};

TEST_P(NetWays, every_packet_arrives_unchanged) {
    const Way& way = GetParam();
    auto daemon = Daemon::start(kTwoPorts);
    ASSERT_TRUE(daemon) << daemon.error().message;
    auto o = two_ports(*daemon);
    o.vmm = way.vmm;
    o.ring_addresses = way.rings;
    for (auto& port : o.ports) {
        port.net.buffer_maps = way.maps;
        port.net.tx_layout = way.tx;
        port.net.buffer_bytes = way.buffer_bytes;
        if (!way.mergeable) port.net.features &= ~bit(wire::VIRTIO_NET_F_MRG_RXBUF);
    }
    auto guest = Guest::create(o);
    ASSERT_TRUE(guest) << guest.error().message;
    EXPECT_EQ((*guest)->port(0).mac(), (std::array<uint8_t, 6>{0x52, 0x54, 0, 0, 0, 1}));
    std::mt19937 rng(1);
    exchange(**guest, 0, 1, 3000, way.max_bytes, rng);
    exchange(**guest, 1, 0, 3000, way.max_bytes, rng);
    ASSERT_FALSE(HasFatalFailure());
    const auto down = (*guest)->shut_down();
    ASSERT_TRUE(down) << down.error().message;
    auto counters = daemon->counters();
    ASSERT_TRUE(counters) << counters.error().message;
    EXPECT_EQ((*counters)["net.vm0/net0.from_guest.packets"], 3000u);
    EXPECT_EQ((*counters)["net.vm0/net0.to_guest.packets"], 3000u);
    EXPECT_EQ((*counters)["guest.vm0.faults.reported"], 0u);
    EXPECT_EQ((*counters)["guest.vm0.table.mappings"], 0u);
    const auto stopped = daemon->stop();
    EXPECT_TRUE(stopped) << stopped.error().message;
}

constexpr auto kCh = Vmm::kCloudHypervisor;
constexpr auto kQemu = Vmm::kQemu;
INSTANTIATE_TEST_SUITE_P(
    All, NetWays,
    testing::Values(
        Way{"ch_aware_one_mapping", kCh, RingAddresses::kIova, BufferMaps::kOneMapping,
            TxLayout::kOneSegment, 2048, 1500, true},
        Way{"ch_aperture_pages", kCh, RingAddresses::kUva, BufferMaps::kMappingPerBuffer,
            TxLayout::kTwoSegments, 2048, 1500, true},
        Way{"ch_aware_dynamic", kCh, RingAddresses::kIova, BufferMaps::kMappingPerPacket,
            TxLayout::kIndirect, 2048, 1500, false},
        Way{"qemu_aperture_dynamic", kQemu, RingAddresses::kUva, BufferMaps::kMappingPerPacket,
            TxLayout::kOneSegment, 2048, 1500, true},
        Way{"qemu_aperture_indirect_small_buffers", kQemu, RingAddresses::kUva,
            BufferMaps::kMappingPerBuffer, TxLayout::kIndirect, 1600, 1500, true}),
    [](const auto& info) { return std::string(info.param.name); });

struct Net : testing::Test {
    void SetUp() override {
        ASSERT_TRUE(daemon) << daemon.error().message;
        auto made = Guest::create(two_ports(*daemon));
        ASSERT_TRUE(made) << made.error().message;
        guest = std::move(*made);
    }
    Result<Daemon> daemon = Daemon::start(kTwoPorts);
    std::unique_ptr<Guest> guest;
    std::mt19937 rng{1};
};

TEST_F(Net, packet_at_an_unmapped_iova_is_a_fault_and_the_queue_goes_on) {
    const guest::Segment unmapped{BusAddress{0x10000}, 100};
    const auto sent = guest->port(0).transmit_segments({&unmapped, 1});
    ASSERT_TRUE(sent && *sent);
    const auto fault = guest->iommu().poll_fault(Milliseconds(5000));
    ASSERT_TRUE(fault) << fault.error().message;
    ASSERT_TRUE(*fault);
    EXPECT_EQ((*fault)->endpoint, kEndpoint0);
    EXPECT_EQ((*fault)->address, Iova{0x10000});
    EXPECT_EQ((*fault)->reason, wire::VIRTIO_IOMMU_FAULT_R_MAPPING);
    EXPECT_EQ((*fault)->flags,
              wire::VIRTIO_IOMMU_FAULT_F_READ | wire::VIRTIO_IOMMU_FAULT_F_ADDRESS);
    exchange(*guest, 0, 1, 100, 1500, rng);
    auto counters = daemon->counters();
    ASSERT_TRUE(counters);
    EXPECT_EQ((*counters)["net.vm0/net0.from_guest.drop_fault"], 1u);
    EXPECT_EQ((*counters)["guest.vm0.faults.reported"], 1u);
}

TEST_F(Net, ring_of_a_detached_endpoint_stalls_and_is_not_touched) {
    exchange(*guest, 0, 1, 100, 1500, rng);
    ASSERT_EQ(guest->iommu().detach(guest->domain(1), kEndpoint1), Status::kOk);
    // From the answer on nobody may write there: what the daemon would touch, we watch.
    const auto& ring = guest->port(1).rx_queue().ring();
    std::vector<std::byte> before(ring.bytes), after(ring.bytes);
    ring.read(0, before);
    const auto sent = guest->port(0).transmit(random_packet(rng, 100));
    ASSERT_TRUE(sent && *sent);
    ASSERT_TRUE(guest->port(0).drain(Milliseconds(5000)));
    auto counters = daemon->counters();
    ASSERT_TRUE(counters);
    ring.read(0, after);
    EXPECT_EQ(before, after);
    EXPECT_GE((*counters)["net.vm0/net1.to_guest.ring_unmapped"], 1u);
    EXPECT_EQ((*counters)["net.vm0/net1.to_guest.packets"], 100u);
    const auto fault = guest->iommu().poll_fault(Milliseconds(5000));
    ASSERT_TRUE(fault && *fault);
    EXPECT_EQ((*fault)->endpoint, kEndpoint1);
    EXPECT_EQ((*fault)->reason, wire::VIRTIO_IOMMU_FAULT_R_DOMAIN);
}

TEST_F(Net, reconnect_of_a_port_under_traffic_loses_no_ring) {
    for (int i = 0; i < 5; ++i) {
        exchange(*guest, 0, 1, 200, 1500, rng);
        ASSERT_TRUE(guest->port(i % 2).reconnect());
    }
    exchange(*guest, 1, 0, 200, 1500, rng);
}

TEST_F(Net, port_taken_down_and_brought_up_works_again) {
    for (int i = 0; i < 3; ++i) {
        exchange(*guest, 0, 1, 100, 1500, rng);
        for (size_t p : {0, 1}) {
            const auto down = guest->take_down(p);
            ASSERT_TRUE(down) << down.error().message;
        }
        for (size_t p : {0, 1}) {
            const auto up = guest->bring_up(p);
            ASSERT_TRUE(up) << up.error().message;
        }
    }
    exchange(*guest, 1, 0, 100, 1500, rng);
}

TEST_F(Net, daemon_ends_cleanly_with_a_guest_connected) {
    exchange(*guest, 0, 1, 100, 1500, rng);
    const auto stopped = daemon->stop();
    EXPECT_TRUE(stopped) << stopped.error().message;
}

}  // namespace
}  // namespace viommu::e2e
