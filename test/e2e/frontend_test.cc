// SPDX-License-Identifier: BSD-3-Clause
/// What a VMM does to a running device, in Cloud Hypervisor's and in QEMU's order of messages, and
/// what is left of the mappings afterwards.
#include "traffic.hh"
#include "two_ports.hh"

namespace viommu::e2e {
namespace {

using namespace guest;

constexpr uint64_t kPage = 4096;
constexpr IovaRange kRange{{kPage}, {2 * kPage - 1}};

struct Case {
    Vmm vmm;
    bool packed;
};

class Scenarios : public TwoPorts, public testing::WithParamInterface<Case> {
  protected:
    uint64_t ring_features() const {
        return GetParam().packed ? bit(wire::VIRTIO_F_RING_PACKED) : 0;
    }
    /// One that is attached, with one mapping.
    std::unique_ptr<IommuDriver> iommu_with(uint64_t more = 0) {
        IommuOptions o;
        o.frontend.socket = daemon->path("iommu.sock");
        o.frontend.vmm = GetParam().vmm;
        o.request_queue_size = 16;
        require(o, ring_features() | more);
        auto driver = IommuDriver::start(*memory, o);
        EXPECT_TRUE(driver) << driver.error().message;
        if (!driver) return nullptr;
        EXPECT_EQ((*driver)->attach(1, kEndpoint0), Status::kOk);
        EXPECT_EQ((*driver)->map(1, kRange, Gpa{0}), Status::kOk);
        return std::move(*driver);
    }
    std::unique_ptr<Guest> whole_guest() {
        auto o = two_ports(*daemon);
        o.vmm = GetParam().vmm;
        require(o.iommu, ring_features());
        for (auto& port : o.ports) {
            port.net.rx_queue_size = port.net.tx_queue_size = 32;
            require(port.net, ring_features());
        }
        auto guest = Guest::create(o);
        EXPECT_TRUE(guest) << guest.error().message;
        return guest ? std::move(*guest) : nullptr;
    }
    /// An UNMAP of kRange, its bytes at `at` and its answer 64 bytes behind.
    std::pair<Segment, Segment> write_unmap(Gpa at) {
        const auto unmap = Request::unmap(1, kRange);
        std::memcpy(memory->at(at, 128), unmap.out.data(), unmap.out_bytes);
        memory->at(at)[64] = std::byte{0xff};
        return {{BusAddress{at.value}, unmap.out_bytes}, {BusAddress{at.value + 64}, 4}};
    }

    std::unique_ptr<Memory> memory = std::move(*Memory::create(uint64_t{16} << 20));
    std::mt19937 rng{1};
};

#define NEEDS_IOMMU(more) \
    VIOMMU_NEEDS(daemon->path("iommu.sock"), ring_features() | (more))
#define NEEDS_NET(more) \
    VIOMMU_NEEDS(daemon->path("net0.sock"), ring_features() | (more))

TEST_P(Scenarios, pause_stops_requests_and_resume_keeps_mappings) {
    NEEDS_IOMMU(0);
    auto iommu = iommu_with();
    ASSERT_TRUE(iommu);
    for (int round = 0; round < 12; ++round) {  // more requests than the ring is long
        const auto paused = iommu->pause();
        ASSERT_TRUE(paused) << paused.error().message;
        const Gpa at = *memory->allocate(1);
        const auto [out, in] = write_unmap(at);
        DriverQueue& queue = iommu->request_queue();
        ASSERT_TRUE(queue.add({&out, 1}, {&in, 1}, 7));
        queue.kick();
        std::this_thread::sleep_for(std::chrono::milliseconds(3));
        ASSERT_FALSE(queue.pop()) << "answered while the VM stood still";
        ASSERT_EQ(memory->at(at)[64], std::byte{0xff});
        const auto resumed = iommu->resume();
        ASSERT_TRUE(resumed) << resumed.error().message;
        Patience patience(Milliseconds(5000));
        std::optional<Completion> done;
        while (!(done = queue.pop()) && patience.wait()) {
        }
        ASSERT_TRUE(done) << queue.broken();
        EXPECT_EQ(memory->at(at)[64], std::byte{0}) << "UNMAP: the mapping was there";
        memory->release(at);
        ASSERT_EQ(iommu->map(1, kRange, Gpa{0}), Status::kOk) << "the domain is there";
    }
}

TEST_P(Scenarios, device_reset_drops_everything) {
    NEEDS_IOMMU(0);
    auto iommu = iommu_with();
    ASSERT_TRUE(iommu);
    for (int round = 0; round < 3; ++round) {
        const auto ok = iommu->reset();
        ASSERT_TRUE(ok) << ok.error().message;
        EXPECT_EQ(iommu->map(1, kRange, Gpa{0}), Status::kNoEnt);
        EXPECT_EQ(iommu->attach(1, kEndpoint0), Status::kOk);
        EXPECT_EQ(iommu->map(1, kRange, Gpa{0}), Status::kOk);
    }
}

TEST_P(Scenarios, reset_after_a_pause_drops_everything) {
    NEEDS_IOMMU(0);
    auto iommu = iommu_with();
    ASSERT_TRUE(iommu);
    ASSERT_TRUE(iommu->pause());
    ASSERT_TRUE(iommu->resume());
    ASSERT_TRUE(iommu->reset());
    EXPECT_EQ(iommu->map(1, kRange, Gpa{0}), Status::kNoEnt);
}

TEST_P(Scenarios, reconnection_of_a_running_guest_keeps_mappings) {
    NEEDS_IOMMU(0);
    auto iommu = iommu_with();
    ASSERT_TRUE(iommu);
    for (int round = 0; round < 12; ++round) {
        // Of a packed ring no VMM can guess where it was: this one has been told.
        const auto ok = GetParam().packed ? iommu->reconnect(iommu->request_queue().base())
                                          : iommu->reconnect();
        ASSERT_TRUE(ok) << ok.error().message;
        ASSERT_EQ(iommu->map(1, kRange, Gpa{0}), Status::kInval) << "it is there";
    }
    EXPECT_EQ(iommu->unmap(1, kRange), Status::kOk);
}

TEST_P(Scenarios, rebooted_vm_on_a_new_connection_finds_nothing) {
    NEEDS_IOMMU(0);
    for (int round = 0; round < 3; ++round) {
        auto iommu = iommu_with();  // ATTACH and MAP succeed each time
        ASSERT_TRUE(iommu);
        iommu.reset();
        memory = std::move(*Memory::create(uint64_t{16} << 20));
    }
}

TEST_P(Scenarios, memory_that_is_plugged_in_is_used_and_mappings_stay) {
    NEEDS_IOMMU(0);
    auto iommu = iommu_with();
    ASSERT_TRUE(iommu);
    for (uint64_t i = 0; i < 3; ++i) {
        const auto bank = memory->add({Gpa{(4 + i) << 30}, uint64_t{2} << 20});
        ASSERT_TRUE(bank) << bank.error().message;
        const auto told = iommu->frontend().add_memory(*bank, memory->fd());
        ASSERT_TRUE(told) << told.error().message;
        // The request and its answer lie in the new memory.
        const auto [out, in] = write_unmap(bank->first + kPage);
        const auto done = iommu->submit_segments({&out, 1}, {&in, 1});
        ASSERT_TRUE(done) << done.error().message;
        EXPECT_EQ(memory->at(bank->first + kPage)[64], std::byte{0}) << "UNMAP found the mapping";
        EXPECT_EQ(iommu->map(1, kRange, Gpa{0}), Status::kOk) << "the old ring goes on";
    }
}

TEST_P(Scenarios, queue_reset_keeps_mappings_and_begins_a_fresh_ring) {
    NEEDS_IOMMU(bit(wire::VIRTIO_F_RING_RESET));
    auto iommu = iommu_with(bit(wire::VIRTIO_F_RING_RESET));
    ASSERT_TRUE(iommu);
    for (const uint16_t size : {32, 4, 64}) {
        const auto base = iommu->reset_request_queue(size);
        ASSERT_TRUE(base) << base.error().message;
        EXPECT_EQ(iommu->map(1, kRange, Gpa{0}), Status::kInval) << "it is there";
    }
}

TEST_P(Scenarios, base_says_where_the_queue_stopped) {
    NEEDS_IOMMU(0);
    auto iommu = iommu_with();
    ASSERT_TRUE(iommu);
    for (int i = 0; i < 5; ++i) ASSERT_EQ(iommu->attach(1, kEndpoint0), Status::kOk);
    const uint32_t expected = iommu->request_queue().base();
    const auto bases = iommu->frontend().reset();
    ASSERT_TRUE(bases) << bases.error().message;
    // A backend may leave the used half of a packed base out, as librte_vhost does.
    EXPECT_EQ((*bases)[0] & 0xffff, expected & 0xffff);
}

TEST_P(Scenarios, what_the_device_writes_is_logged) {
    NEEDS_IOMMU(bit(wire::VHOST_F_LOG_ALL));
    auto iommu = iommu_with();
    ASSERT_TRUE(iommu);
    auto log = DirtyLog::create(*memory);
    ASSERT_TRUE(log) << log.error().message;
    const Gpa quiet = *memory->allocate(1), at = *memory->allocate(1);
    const auto started = iommu->frontend().start_logging(*log);
    ASSERT_TRUE(started) << started.error().message;
    log->take();
    const auto [out, in] = write_unmap(at);
    ASSERT_TRUE(iommu->submit_segments({&out, 1}, {&in, 1}));
    const Gpa used = Gpa{GetParam().packed ? iommu->request_queue().desc().value
                                           : iommu->request_queue().used().value};
    // What is written is marked a moment later.
    Patience patience(Milliseconds(5000));
    while (!(log->is_dirty(at) && log->is_dirty(used)) && patience.wait()) {
    }
    const auto dirty = log->take();
    const auto has = [&](Gpa page) {
        return std::find(dirty.begin(), dirty.end(), page) != dirty.end();
    };
    EXPECT_TRUE(has(at)) << "the answer";
    EXPECT_TRUE(has(Gpa{used.value / kPage * kPage})) << "the used ring";
    EXPECT_FALSE(has(quiet));
    const auto stopped = iommu->frontend().stop_logging();
    ASSERT_TRUE(stopped) << stopped.error().message;
    log->take();  // what stopping it took
    EXPECT_EQ(iommu->map(1, kRange, Gpa{0}), Status::kOk);
    EXPECT_EQ(log->take(), std::vector<Gpa>{});
}

// ---- ports

TEST_P(Scenarios, paused_ports_go_on_where_they_were) {
    NEEDS_IOMMU(0);
    NEEDS_NET(0);
    auto guest = whole_guest();
    ASSERT_TRUE(guest);
    for (int round = 0; round < 5; ++round) {
        exchange(*guest, round % 2, 1 - round % 2, 50, 1500, rng);
        ASSERT_FALSE(HasFatalFailure()) << "round " << round;
        for (size_t p : {0, 1}) ASSERT_TRUE(guest->port(p).pause());
        ASSERT_TRUE(guest->iommu().pause());
        const auto iommu = guest->iommu().resume();
        ASSERT_TRUE(iommu) << iommu.error().message;
        for (size_t p : {0, 1}) {
            const auto port = guest->port(p).resume();
            ASSERT_TRUE(port) << port.error().message;
        }
    }
    const auto down = guest->shut_down();
    EXPECT_TRUE(down) << down.error().message;
}

TEST_P(Scenarios, reconnected_ports_go_on_where_they_were) {
    if (GetParam().packed)
        GTEST_SKIP() << "doc/architecture.md, \"Limits of this version\": a packed queue goes on "
                        "only where the frontend says from where";
    NEEDS_IOMMU(0);
    NEEDS_NET(0);
    auto guest = whole_guest();
    ASSERT_TRUE(guest);
    for (int round = 0; round < 4; ++round) {
        exchange(*guest, 0, 1, 50, 1500, rng);
        ASSERT_FALSE(HasFatalFailure()) << "round " << round;
        const auto again = guest->port(size_t(round % 2)).reconnect();
        ASSERT_TRUE(again) << again.error().message;
    }
    exchange(*guest, 1, 0, 50, 1500, rng);
}

TEST_P(Scenarios, packet_in_plugged_memory_arrives) {
    NEEDS_IOMMU(0);
    NEEDS_NET(0);
    auto guest = whole_guest();
    ASSERT_TRUE(guest);
    const auto bank = guest->memory().add({Gpa{uint64_t{4} << 30}, uint64_t{2} << 20});
    ASSERT_TRUE(bank) << bank.error().message;
    for (size_t p : {0, 1}) {
        const auto told = guest->port(p).frontend().add_memory(*bank, guest->memory().fd());
        ASSERT_TRUE(told) << told.error().message;
    }
    const auto packet = random_packet(rng, 300);
    std::copy(packet.begin(), packet.end(),
              bank->data + sizeof(wire::virtio_net_hdr));  // behind a header of zeroes
    const auto at = guest->dma(0).map(bank->first, kPage, Access::kRead);
    ASSERT_TRUE(at) << at.error().message;
    ASSERT_TRUE(guest->dma(0).sync());
    const Segment segment{*at, uint32_t(sizeof(wire::virtio_net_hdr) + packet.size())};
    const auto sent = guest->port(0).transmit_segments({&segment, 1});
    ASSERT_TRUE(sent && *sent);
    const auto received = guest->port(1).receive(Milliseconds(5000));
    ASSERT_TRUE(received && *received) << "nothing arrived";
    EXPECT_EQ(**received, packet);
    exchange(*guest, 0, 1, 50, 1500, rng);
}

INSTANTIATE_TEST_SUITE_P(Vmm, Scenarios,
                         testing::Values(Case{Vmm::kCloudHypervisor, false},
                                         Case{Vmm::kQemu, false}, Case{Vmm::kCloudHypervisor, true},
                                         Case{Vmm::kQemu, true}),
                         [](const auto& info) {
                             return std::string(info.param.vmm == Vmm::kQemu ? "qemu"
                                                                             : "cloud_hypervisor") +
                                    (info.param.packed ? "_packed" : "_split");
                         });

}  // namespace
}  // namespace viommu::e2e
