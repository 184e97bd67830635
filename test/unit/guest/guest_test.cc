// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include "fake_net.hh"

namespace viommu::guest {
namespace {

using namespace wire;
using test::FakeBackend;
using test::FakeIommu;
using test::FakeNet;

constexpr EndpointId kEndpoints[2] = {0x20, 0x28};
constexpr Milliseconds kSoon{2000}, kNever{20};

std::vector<std::byte> packet(uint64_t sequence, size_t bytes) {
    std::vector<std::byte> p(bytes);
    for (size_t i = 0; i < bytes; ++i) p[i] = std::byte(sequence * 13 + i * 7 + i / 256);
    return p;
}

virtio_iommu_config config_with_input(uint64_t start, uint64_t end) {
    auto config = FakeIommu::default_config();
    config.input_range = {start, end};
    return config;
}

/// A daemon with an IOMMU and two ports wired to each other, all fakes; and the guest's options.
struct World {
    explicit World(virtio_iommu_config config = FakeIommu::default_config()) : iommu(config) {
        options.iommu_socket = iommu_backend.frontend().socket;
        options.ports = {{net_backends[0].frontend().socket, kEndpoints[0]},
                         {net_backends[1].frontend().socket, kEndpoints[1]}};
        options.timeout = kSoon;
        for (auto& port : options.ports) {
            port.net.rx_queue_size = 64;
            port.net.tx_queue_size = 64;
        }
    }
    template <class Change>
    void each_port(Change change) {
        for (auto& port : options.ports) change(port.net);
    }
    FakeIommu iommu;
    test::Wire wires[2];
    FakeNet nets[2]{{iommu, kEndpoints[0], wires[0], wires[1]},
                    {iommu, kEndpoints[1], wires[1], wires[0]}};
    FakeBackend iommu_backend{iommu.backend()};
    FakeBackend net_backends[2]{FakeBackend{nets[0].backend()}, FakeBackend{nets[1].backend()}};
    GuestOptions options;
};

/// `count` packets both ways at once, all compared.
void exchange_packets(Guest& guest, uint64_t count, size_t bytes) {
    uint64_t sent[2] = {}, received[2] = {};
    Patience patience(kSoon);
    while (received[0] < count || received[1] < count) {
        bool moved = false;
        for (int i = 0; i < 2; ++i) {
            const uint64_t room = 32 - (sent[i] - received[1 - i]);
            const auto n = guest.port(i).transmit(
                uint32_t(std::min(room, count - sent[i])), [&](std::span<std::byte> buffer) {
                    const auto p = packet(sent[i]++ * 2 + uint64_t(i), bytes);
                    std::copy(p.begin(), p.end(), buffer.begin());
                    return uint32_t(p.size());
                });
            ASSERT_TRUE(n) << n.error().message;
            const auto r = guest.port(i).receive(8, [&](std::span<const std::byte> p) {
                const auto expected = packet(received[i]++ * 2 + uint64_t(1 - i), bytes);
                ASSERT_TRUE(std::equal(p.begin(), p.end(), expected.begin(), expected.end()))
                    << "packet " << received[i] - 1 << " of port " << i;
            });
            ASSERT_TRUE(r) << r.error().message;
            moved |= *n + *r != 0;
        }
        if (moved) patience.renew();
        ASSERT_TRUE(moved || patience.wait()) << received[0] << " and " << received[1];
    }
}

std::unique_ptr<Guest> create(const GuestOptions& options) {
    auto guest = Guest::create(options);
    if (guest) return std::move(*guest);
    ADD_FAILURE() << guest.error().message;
    return nullptr;
}

struct Way {
    const char* name;
    RingAddresses rings;
    Placement placement;
    BufferMaps maps;
    TxLayout layout;
    Vmm vmm;
};

class EveryWay : public testing::TestWithParam<Way> {};

TEST_P(EveryWay, packets_arrive_and_nothing_stays_mapped) {
    const Way& way = GetParam();
    World world;
    world.options.ring_addresses = way.rings;
    world.options.rings = way.placement;
    world.options.vmm = way.vmm;
    world.each_port([&](NetOptions& net) {
        net.buffer_maps = way.maps;
        net.tx_layout = way.layout;
    });
    const auto guest = create(world.options);
    ASSERT_TRUE(guest);
    const uint64_t before = world.iommu.mappings();
    EXPECT_GT(before, 0u);
    exchange_packets(*guest, 300, 200);
    EXPECT_EQ(guest->port(0).counters().rx_malformed, 0u);
    EXPECT_EQ(world.nets[0].indirect_chains != 0, way.layout == TxLayout::kIndirect);
    const auto down = guest->shut_down();
    ASSERT_TRUE(down) << down.error().message;
    EXPECT_EQ(world.iommu.mappings(), 0u);
    EXPECT_FALSE(world.iommu.attached(kEndpoints[0]));
}

INSTANTIATE_TEST_SUITE_P(
    Guest, EveryWay,
    testing::Values(Way{"uva_scattered_once", RingAddresses::kUva, Placement::kScattered,
                        BufferMaps::kOneMapping, TxLayout::kOneSegment, Vmm::kCloudHypervisor},
                    Way{"uva_contiguous_buffer", RingAddresses::kUva, Placement::kContiguous,
                        BufferMaps::kMappingPerBuffer, TxLayout::kTwoSegments, Vmm::kQemu},
                    Way{"uva_scattered_packet", RingAddresses::kUva, Placement::kScattered,
                        BufferMaps::kMappingPerPacket, TxLayout::kIndirect, Vmm::kCloudHypervisor},
                    Way{"iova_scattered_once", RingAddresses::kIova, Placement::kScattered,
                        BufferMaps::kOneMapping, TxLayout::kIndirect, Vmm::kCloudHypervisor},
                    Way{"iova_contiguous_packet", RingAddresses::kIova, Placement::kContiguous,
                        BufferMaps::kMappingPerPacket, TxLayout::kTwoSegments, Vmm::kQemu},
                    Way{"iova_scattered_deferred", RingAddresses::kIova, Placement::kScattered,
                        BufferMaps::kMappingPerPacketDeferred, TxLayout::kOneSegment,
                        Vmm::kCloudHypervisor}),
    [](const auto& info) { return info.param.name; });

TEST(Guest, packet_larger_than_a_buffer_is_merged_from_several) {
    World world;
    world.each_port([](NetOptions& net) { net.buffer_bytes = 512; });
    world.options.ports[0].net.buffer_bytes = 4096;
    const auto guest = create(world.options);
    ASSERT_TRUE(guest);
    for (const size_t bytes : {60u, 500u, 501u, 1500u, 4000u}) {
        const auto sent = packet(bytes, bytes);
        ASSERT_TRUE(*guest->port(0).transmit(sent));
        const auto received = guest->port(1).receive(kSoon);
        ASSERT_TRUE(received && *received) << bytes;
        EXPECT_EQ(**received, sent);
    }
    exchange_packets(*guest, 100, 400);
}

TEST(Guest, packet_of_64_kib_passes_in_chains_of_pages_and_in_merged_buffers) {
    struct Large {
        TxLayout layout;
        bool mergeable;
    };
    for (const Large& large :
         {Large{TxLayout::kOneSegment, false}, Large{TxLayout::kIndirect, true},
          Large{TxLayout::kTwoSegments, true}}) {
        World world;
        world.each_port([&](NetOptions& net) {
            net.tx_buffer_bytes = 65536 + 64;
            net.tx_segment_bytes = 4096;
            net.tx_layout = large.layout;
            net.buffer_maps = BufferMaps::kMappingPerPacketDeferred;
            net.max_buffers = 64;
            if (large.mergeable) return;
            net.features &= ~bit(wire::VIRTIO_NET_F_MRG_RXBUF);
            net.buffer_bytes = 65536 + 64;
            net.rx_segment_bytes = 4096;
        });
        const auto guest = create(world.options);
        ASSERT_TRUE(guest);
        for (const size_t bytes : {60u, 4096u, 9000u, 65536u}) {
            const auto sent = packet(bytes, bytes);
            ASSERT_TRUE(*guest->port(0).transmit(sent));
            const auto received = guest->port(1).receive(kSoon);
            ASSERT_TRUE(received && *received) << bytes;
            EXPECT_EQ(**received, sent);
        }
        const auto down = guest->shut_down();
        ASSERT_TRUE(down) << down.error().message;
        EXPECT_EQ(world.iommu.mappings(), 0u);
    }
}

TEST(Guest, number_of_buffers_that_is_a_lie_is_counted_and_survived) {
    World world;
    const auto guest = create(world.options);
    ASSERT_TRUE(guest);
    for (const int lie : {0, 2}) {
        const uint64_t before = guest->port(1).counters().rx_malformed;
        world.nets[1].lie_about_buffers = lie;
        ASSERT_TRUE(*guest->port(0).transmit(packet(1, 100)));
        Patience patience(kSoon);
        while (guest->port(1).counters().rx_malformed == before && patience.wait())
            ASSERT_EQ(*guest->port(1).receive(1, [](auto) {}), 0u);
        EXPECT_EQ(guest->port(1).counters().rx_malformed, before + 1);
    }
    world.nets[1].lie_about_buffers = -1;
    exchange_packets(*guest, 10, 100);
}

TEST(Guest, packet_from_unmapped_memory_is_a_fault_at_its_address) {
    World world;
    const auto guest = create(world.options);
    ASSERT_TRUE(guest);
    const Gpa page = *guest->memory().allocate(1);
    const BusAddress at = *guest->dma(0).map(page, kPageBytes, Access::kRead);
    ASSERT_TRUE(guest->dma(0).sync());
    const Segment segment{at, 100};
    ASSERT_TRUE(*guest->port(0).transmit_segments(std::span(&segment, 1)));
    EXPECT_TRUE(*guest->port(1).receive(kSoon));
    ASSERT_TRUE(guest->dma(0).unmap(at, kPageBytes));
    ASSERT_TRUE(guest->dma(0).sync());
    ASSERT_TRUE(*guest->port(0).transmit_segments(std::span(&segment, 1)));
    const auto fault = guest->iommu().poll_fault(kSoon);
    ASSERT_TRUE(fault && *fault);
    EXPECT_EQ((*fault)->endpoint, kEndpoints[0]);
    EXPECT_EQ((*fault)->address.value, at.value);
    EXPECT_FALSE(*guest->port(1).receive(kNever));
    EXPECT_TRUE(guest->port(0).drain(kSoon));
}

TEST(Guest, ports_go_down_and_come_up_again) {
    World world;
    const auto guest = create(world.options);
    ASSERT_TRUE(guest);
    const uint64_t free_pages = guest->memory().free_pages();
    for (int round = 0; round < 3; ++round) {
        ASSERT_TRUE(guest->take_down(0));
        const auto up = guest->bring_up(0);
        ASSERT_TRUE(up) << up.error().message;
        EXPECT_EQ(guest->memory().free_pages(), free_pages);
        exchange_packets(*guest, 20, 100);
    }
}

TEST(Guest, running_queues_survive_a_reconnection) {
    World world;
    const auto guest = create(world.options);
    ASSERT_TRUE(guest);
    const auto ok = guest->port(1).reconnect();
    ASSERT_TRUE(ok) << ok.error().message;
    exchange_packets(*guest, 20, 100);
}

// ---- where IOVAs come from

TEST(Window, of_a_vmm_that_does_not_know_lies_in_ram_and_input_range) {
    World world(config_with_input(0x100'0000, 0x3fff'ffff));
    const auto guest = Guest::connect(world.options);
    ASSERT_TRUE(guest) << guest.error().message;
    const auto window = usable_window((*guest)->iommu(), RingAddresses::kUva, {});
    ASSERT_TRUE(window);
    EXPECT_EQ(*window, (IovaRange{Iova{0x100'0000}, Iova{0x3ff'ffff}}));
}

TEST(Window, leaves_out_what_is_reserved) {
    World world;
    const auto guest = Guest::connect(world.options);
    ASSERT_TRUE(guest);
    const ReservedRegion reserved[] = {{0, 0x1000, 0x1fff}, {1, 0x300'0000, UINT64_MAX}};
    EXPECT_EQ(*usable_window((*guest)->iommu(), RingAddresses::kUva, reserved),
              (IovaRange{Iova{0x2000}, Iova{0x2ff'ffff}}));
    const ReservedRegion everything{0, 0, UINT64_MAX};
    EXPECT_FALSE(usable_window((*guest)->iommu(), RingAddresses::kUva, std::span(&everything, 1)));
}

TEST(Window, of_a_vmm_that_knows_is_below_4g_when_there_is_room) {
    World low, high(config_with_input(uint64_t{1} << 40, (uint64_t{1} << 41) - 1));
    const auto low_guest = Guest::connect(low.options), high_guest = Guest::connect(high.options);
    ASSERT_TRUE(low_guest && high_guest);
    EXPECT_EQ(*usable_window((*low_guest)->iommu(), RingAddresses::kIova, {}),
              (IovaRange{Iova{0}, Iova{UINT32_MAX}}));
    EXPECT_EQ(usable_window((*high_guest)->iommu(), RingAddresses::kIova, {})->first,
              Iova{uint64_t{1} << 40});
}

TEST(IovaAllocator, gives_whole_pages_from_the_top_and_again_what_came_back) {
    IovaAllocator iovas({Iova{0x1001}, Iova{0x5ffe}});  // pages 2, 3 and 4 are whole
    EXPECT_EQ(*iovas.take(1), Iova{0x4000});
    EXPECT_EQ(*iovas.take(2), Iova{0x2000});
    EXPECT_FALSE(iovas.take(1));
    iovas.give_back(Iova{0x2000}, 2);
    EXPECT_FALSE(iovas.take(1)) << "runs are used again whole";
    EXPECT_EQ(*iovas.take(2), Iova{0x2000});
}

TEST(IovaAllocator, window_may_be_the_whole_space) {
    IovaAllocator iovas({Iova{0}, Iova{UINT64_MAX}});
    EXPECT_EQ(*iovas.take(1), Iova{~uint64_t{0xfff}});
}

TEST(PagedDma, refusal_names_the_request) {
    World world;
    const auto guest = create(world.options);
    ASSERT_TRUE(guest);
    PagedDma& dma = guest->dma(0);
    const auto at = *dma.map(Gpa{0x5000}, 10, Access::kRead);
    ASSERT_TRUE(dma.sync());
    // Behind its back, so that its own request overlaps.
    const IovaRange next{Iova{at.value - kPageBytes}, Iova{at.value - 1}};
    ASSERT_EQ(guest->iommu().map(guest->domain(0), next, Gpa{0}), Status::kOk);
    ASSERT_TRUE(dma.map(Gpa{0x6000}, 10, Access::kRead));
    const auto refused = dma.sync();
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find(fmt::format("MAP {} -> 0x6000: INVAL", next)),
              std::string::npos)
        << refused.error().message;
}

}  // namespace
}  // namespace viommu::guest
