// SPDX-License-Identifier: BSD-3-Clause
/// Both drivers over every format of ring, and what their VMM does to them meanwhile.
#include <gtest/gtest.h>

#include "fake_net.hh"
#include "queue_bench.hh"

namespace viommu::guest {
namespace {

using namespace wire;
using test::FakeBackend;
using test::FakeIommu;
using test::FakeNet;

constexpr EndpointId kEndpoint = 0x20;
constexpr IovaRange kPage{Iova{0x1000}, Iova{0x1fff}};

struct Format {
    RingFormat ring;
    bool indirect;
    Vmm vmm;

    uint64_t features() const {
        return (ring.packed ? bit(VIRTIO_F_RING_PACKED) : 0) |
               (ring.event_idx ? bit(VIRTIO_F_EVENT_IDX) : 0) |
               (ring.in_order ? bit(VIRTIO_F_IN_ORDER) : 0) |
               (indirect ? bit(VIRTIO_F_INDIRECT_DESC) : 0);
    }
};

test::BackendOptions able(test::BackendOptions options) {
    options.features |= kRingFeatures;
    return options;
}

class IommuFormats : public testing::TestWithParam<Format> {
  protected:
    IommuFormats() {
        options.frontend = backend.frontend();
        options.frontend.vmm = GetParam().vmm;
        options.features |= GetParam().features();
        options.required |= GetParam().features();
        options.layout.indirect = GetParam().indirect;
    }
    std::unique_ptr<IommuDriver> start() {
        auto driver = IommuDriver::start(*memory, options);
        EXPECT_TRUE(driver) << driver.error().message;
        return driver ? std::move(*driver) : nullptr;
    }
    FakeIommu device;
    FakeBackend backend{able(device.backend())};
    std::unique_ptr<Memory> memory = std::move(*Memory::create(32 << 20));
    IommuOptions options;
};

TEST_P(IommuFormats, queues_of_all_sizes_answer_and_report) {
    for (const uint16_t size : {2, 3, 16, 4096}) {
        if (!DriverQueue::is_size(size, GetParam().ring)) continue;
        options.request_queue_size = options.event_queue_size = size;
        const auto driver = start();
        ASSERT_TRUE(driver);
        ASSERT_EQ(driver->features() & kRingFeatures, GetParam().features());
        ASSERT_EQ(driver->attach(1, kEndpoint), Status::kOk);
        std::vector<Request> batch;
        for (uint64_t i = 0; i < 20; ++i) batch.push_back(Request::map(i % 3, kPage, Gpa{0}, 1));
        std::vector<Answer> answers(batch.size());
        driver->submit(batch, answers);
        for (size_t i = 0; i < 20; ++i)
            ASSERT_EQ(answers[i], i < 3 ? Status::kOk : Status::kInval) << i;
        for (uint64_t i = 0; i < 10; ++i) {
            virtio_iommu_fault fault{};
            fault.address = i;
            device.fault(fault);
            const auto seen = driver->poll_fault(Milliseconds(2000));
            ASSERT_TRUE(seen && *seen);
            ASSERT_EQ((*seen)->address, Iova{i});
        }
        for (uint64_t i = 0; i < 3; ++i)
            ASSERT_EQ(driver->unmap(DomainId(i), kPage), Status::kOk);
    }
}

TEST_P(IommuFormats, requests_may_be_cut_anywhere) {
    options.request_queue_size = 64;
    const auto driver = start();
    ASSERT_TRUE(driver);
    std::vector<RequestLayout> layouts{{{}, {}, 1, false}, {{1, 2, 35, 36, 900}, {2, 3}, 7, false}};
    for (auto& layout : layouts) {
        layout.indirect = GetParam().indirect;
        ASSERT_TRUE(driver->set_layout(layout));
        ASSERT_EQ(driver->map(1, kPage, Gpa{0}), Status::kOk);
        ASSERT_EQ(driver->map(1, kPage, Gpa{0}), Status::kInval);
        ASSERT_EQ(driver->unmap(1, kPage), Status::kOk);
    }
}

TEST_P(IommuFormats, pause_and_resume_go_on_in_the_same_ring) {
    options.request_queue_size = 4;
    const auto driver = start();
    ASSERT_TRUE(driver);
    for (int i = 0; i < 10; ++i) {
        ASSERT_EQ(driver->map(1, kPage, Gpa{0}), i == 0 ? Status::kOk : Status::kInval) << i;
        ASSERT_TRUE(driver->pause());
        const auto resumed = driver->resume();
        ASSERT_TRUE(resumed) << resumed.error().message;
    }
}

TEST_P(IommuFormats, reset_queue_begins_anew_with_another_size) {
    options.request_queue_size = 4;
    const auto driver = start();
    ASSERT_TRUE(driver);
    ASSERT_EQ(driver->map(1, kPage, Gpa{0}), Status::kOk);
    for (const uint16_t size : {16, 2, 8}) {
        const uint32_t before = driver->request_queue().base();
        const auto base = driver->reset_request_queue(size);
        ASSERT_TRUE(base) << base.error().message;
        EXPECT_EQ(*base & 0xffff, before & 0xffff);
        for (int i = 0; i < 10; ++i) ASSERT_EQ(driver->map(1, kPage, Gpa{0}), Status::kInval);
    }
}

TEST_P(IommuFormats, requests_in_plugged_memory_are_read) {
    const auto driver = start();
    ASSERT_TRUE(driver);
    const auto bank = memory->add({Gpa{uint64_t{4} << 30}, 1 << 20});
    ASSERT_TRUE(bank) << bank.error().message;
    const auto told = driver->frontend().add_memory(*bank, memory->fd());
    ASSERT_TRUE(told) << told.error().message;
    const auto map = Request::map(1, kPage, Gpa{0}, Access::kRead);
    std::memcpy(bank->data, map.out.data(), map.out_bytes);
    bank->data[64] = std::byte{0xff};
    const Segment out{BusAddress{bank->first.value}, map.out_bytes};
    const Segment in{BusAddress{bank->first.value + 64}, 4};
    const auto done = driver->submit_segments({&out, 1}, {&in, 1});
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_EQ(bank->data[64], std::byte{0});
    EXPECT_EQ(driver->map(1, kPage, Gpa{0}), Status::kInval) << "and the old ring goes on";
}

std::vector<Format> all_formats() {
    std::vector<Format> all;
    for (const auto f : test::kAllFormats)
        for (const bool indirect : {false, true})
            all.push_back({f, indirect, all.size() % 3 == 0 ? Vmm::kQemu : Vmm::kCloudHypervisor});
    return all;
}
std::string format_name(const testing::TestParamInfo<Format>& info) {
    return test::name_of(info.param.ring) + (info.param.indirect ? "_indirect" : "") +
           (info.param.vmm == Vmm::kQemu ? "_qemu" : "");
}
INSTANTIATE_TEST_SUITE_P(All, IommuFormats, testing::ValuesIn(all_formats()), format_name);

class NetFormats : public testing::TestWithParam<Format> {};

TEST_P(NetFormats, packets_arrive_before_and_after_a_pause) {
    FakeIommu iommu;
    test::Wire wire;
    FakeNet net(iommu, kEndpoint, wire, wire);  // what it sends it receives
    FakeBackend iommu_backend(able(iommu.backend())), net_backend(able(net.backend()));
    GuestOptions options;
    options.vmm = GetParam().vmm;
    options.iommu_socket = iommu_backend.frontend().socket;
    options.ports = {{net_backend.frontend().socket, kEndpoint}};
    auto& port = options.ports[0].net;
    port.features |= GetParam().features();
    port.required |= GetParam().features();
    port.rx_queue_size = port.tx_queue_size = 8;
    port.max_buffers = 5;
    port.tx_layout = GetParam().indirect ? TxLayout::kIndirect : TxLayout::kTwoSegments;
    const auto guest = Guest::create(options);
    ASSERT_TRUE(guest) << guest.error().message;
    NetDriver& driver = (*guest)->port(0);
    EXPECT_EQ(driver.rx_buffers(), 5);
    for (int i = 0; i < 30; ++i) {
        const std::vector<std::byte> packet(100, std::byte(i));
        ASSERT_TRUE(*driver.transmit(packet)) << i;
        const auto received = driver.receive(Milliseconds(2000));
        ASSERT_TRUE(received) << received.error().message;
        ASSERT_EQ(*received, packet);
        if (i % 7 != 6) continue;
        ASSERT_TRUE(driver.pause());
        ASSERT_TRUE(driver.resume());
    }
    EXPECT_TRUE((*guest)->shut_down());
}

INSTANTIATE_TEST_SUITE_P(All, NetFormats, testing::ValuesIn(all_formats()), format_name);

TEST(Required, feature_that_is_not_offered_is_an_error) {
    FakeIommu device;
    FakeBackend backend(device.backend());
    const auto memory = std::move(*Memory::create(1 << 20));
    IommuOptions options;
    options.frontend = backend.frontend();
    options.features |= bit(VIRTIO_F_RING_PACKED);
    EXPECT_TRUE(IommuDriver::start(*memory, options)) << "accepted if offered";
    options.required |= bit(VIRTIO_F_RING_PACKED);
    EXPECT_FALSE(IommuDriver::start(*memory, options));
}

TEST(Required, queue_that_cannot_be_is_an_error) {
    FakeIommu device;
    FakeBackend backend(able(device.backend()));
    const auto memory = std::move(*Memory::create(1 << 20));
    IommuOptions options;
    options.frontend = backend.frontend();
    options.request_queue_size = 3;
    EXPECT_FALSE(IommuDriver::start(*memory, options)) << "a split ring of 3";
    options.features |= bit(VIRTIO_F_RING_PACKED);
    EXPECT_TRUE(IommuDriver::start(*memory, options));
    options.request_queue_size = 0;
    EXPECT_FALSE(IommuDriver::start(*memory, options));
}

}  // namespace
}  // namespace viommu::guest
