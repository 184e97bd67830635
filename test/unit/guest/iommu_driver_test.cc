// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include "fake_iommu.hh"

namespace viommu::guest {
namespace {

using namespace wire;
using test::FakeBackend;
using test::FakeIommu;

constexpr EndpointId kEndpoint = 0x20;
constexpr IovaRange kPage{Iova{0x1000}, Iova{0x1fff}};

class IommuDriverTest : public testing::Test {
  protected:
    IommuDriverTest() {
        options.frontend = backend.frontend();
        start();
    }
    void start() {
        driver.reset();
        auto started = IommuDriver::start(*memory, options);
        if (!started) {
            ADD_FAILURE() << started.error().message;
            return;
        }
        driver = std::move(*started);
    }

    FakeIommu device;
    FakeBackend backend{device.backend()};
    std::unique_ptr<Memory> memory = std::move(*Memory::create(16 << 20));
    IommuOptions options;
    std::unique_ptr<IommuDriver> driver;
};

TEST_F(IommuDriverTest, config_is_read_and_features_are_negotiated) {
    EXPECT_EQ(driver->config().probe_size, 512u);
    EXPECT_EQ(driver->granule(), 4096u);
    EXPECT_EQ(driver->input_range(), (IovaRange{Iova{0}, Iova{(uint64_t{1} << 48) - 1}}));
    EXPECT_EQ(driver->features(), bit(VIRTIO_F_VERSION_1) | bit(VIRTIO_IOMMU_F_INPUT_RANGE) |
                                      bit(VIRTIO_IOMMU_F_MAP_UNMAP) | bit(VIRTIO_IOMMU_F_PROBE));
}

TEST_F(IommuDriverTest, requests_are_answered_with_their_status) {
    EXPECT_EQ(driver->attach(1, kEndpoint), Status::kOk);
    EXPECT_EQ(driver->map(1, kPage, Gpa{0x5000}), Status::kOk);
    EXPECT_EQ(device.translate(kEndpoint, Iova{0x1234}), Gpa{0x5234});
    EXPECT_EQ(driver->map(1, kPage, Gpa{0x6000}), Status::kInval);
    EXPECT_EQ(driver->unmap(1, {Iova{0x1000}, Iova{0x17ff}}), Status::kRange);
    EXPECT_EQ(driver->unmap(1, kPage), Status::kOk);
    EXPECT_EQ(device.mappings(), 0u);
    EXPECT_EQ(driver->detach(1, kEndpoint), Status::kOk);
    EXPECT_EQ(driver->detach(1, kEndpoint), Status::kNoEnt);
    EXPECT_EQ(driver->round_trips(VIRTIO_IOMMU_T_MAP).count(), 2u);
    EXPECT_GT(driver->round_trips(VIRTIO_IOMMU_T_MAP).quantile_ns(0.5), 0u);
}

TEST_F(IommuDriverTest, batch_larger_than_the_ring_is_answered_in_order) {
    std::vector<Request> requests;
    for (uint64_t i = 0; i < 1000; ++i) {
        const uint64_t page = i % 10 == 9 ? i - 1 : i;  // every tenth overlaps its neighbour
        requests.push_back(Request::map(1, {Iova{page << 12}, Iova{(page << 12) + 0xfff}},
                                        Gpa{i << 12}, Access::kReadWrite));
    }
    std::vector<Answer> answers(requests.size());
    driver->submit(requests, answers);
    for (uint64_t i = 0; i < 1000; ++i)
        ASSERT_EQ(answers[i], i % 10 == 9 ? Status::kInval : Status::kOk) << i;
    EXPECT_EQ(device.mappings(), 900u);
}

TEST_F(IommuDriverTest, probe_returns_reserved_regions) {
    const auto answer = driver->probe(kEndpoint);
    EXPECT_EQ(answer, Status::kOk);
    EXPECT_EQ(answer.properties.size(), 512u);
    EXPECT_EQ(answer.reserved,
              (std::vector<ReservedRegion>{{VIRTIO_IOMMU_RESV_MEM_T_MSI, 0xfee00000, 0xfeefffff}}));
}

TEST_F(IommuDriverTest, raw_request_in_pieces_is_the_same_request) {
    const auto map = Request::map(1, kPage, Gpa{0x5000}, Access::kRead);
    const std::vector<std::byte> out(map.out.begin(), map.out.begin() + map.out_bytes);
    const auto free_before = memory->free_pages();
    const auto answer = driver->submit_raw({out, {1, 3, 8, uint32_t(out.size()) - 12}, {1, 3}});
    ASSERT_TRUE(answer) << answer.error().message;
    EXPECT_EQ(answer->used_bytes, 4u);
    EXPECT_EQ(answer->in[0], std::byte(Status::kOk));
    EXPECT_EQ(device.mappings(), 1u);
    EXPECT_EQ(memory->free_pages(), free_before);
    EXPECT_FALSE(driver->submit_raw({out, {1}, {4}})) << "segments do not add up";
}

TEST_F(IommuDriverTest, unknown_request_comes_back_without_a_status) {
    Request request;
    request.out[0] = std::byte{77};
    request.out_bytes = 20;
    const auto answer = driver->submit(request);
    EXPECT_FALSE(answer.status);
    EXPECT_EQ(answer.trouble, "");
    EXPECT_FALSE(answer.ok());
    EXPECT_EQ(driver->attach(1, kEndpoint), Status::kOk) << "and the next one is answered";
}

TEST_F(IommuDriverTest, silence_is_trouble_and_a_reset_ends_it) {
    options.frontend.timeout = Milliseconds(100);
    start();
    device.silent = true;
    std::vector<Request> requests(200, Request::detach(1, kEndpoint));
    std::vector<Answer> answers(requests.size());
    driver->submit(requests, answers);
    EXPECT_NE(answers.front().trouble, "");
    EXPECT_NE(answers.back().trouble, "");
    EXPECT_FALSE(answers.front().ok());
    device.silent = false;
    const auto reset = driver->reset();
    ASSERT_TRUE(reset) << reset.error().message;
    EXPECT_EQ(driver->attach(1, kEndpoint), Status::kOk);
}

TEST_F(IommuDriverTest, faults_are_received_and_buffers_given_again) {
    const auto nothing = driver->poll_fault(Milliseconds(1));
    ASSERT_TRUE(nothing);
    EXPECT_FALSE(*nothing);
    for (uint64_t i = 0; i < 500; ++i) {  // more than the queue is long
        virtio_iommu_fault fault{};
        fault.reason = VIRTIO_IOMMU_FAULT_R_MAPPING;
        fault.flags = VIRTIO_IOMMU_FAULT_F_READ | VIRTIO_IOMMU_FAULT_F_ADDRESS;
        fault.endpoint = kEndpoint;
        fault.address = i;
        device.fault(fault);
    }
    for (uint64_t i = 0; i < 500; ++i) {
        const auto fault = driver->poll_fault(Milliseconds(2000));
        ASSERT_TRUE(fault && *fault);
        EXPECT_EQ(**fault, (FaultEvent{VIRTIO_IOMMU_FAULT_R_MAPPING,
                                       VIRTIO_IOMMU_FAULT_F_READ | VIRTIO_IOMMU_FAULT_F_ADDRESS,
                                       kEndpoint, Iova{i}, sizeof(virtio_iommu_fault)}));
    }
}

TEST_F(IommuDriverTest, rings_go_on_after_a_reconnection) {
    ASSERT_EQ(driver->attach(1, kEndpoint), Status::kOk);
    const auto ok = driver->reconnect();
    ASSERT_TRUE(ok) << ok.error().message;
    EXPECT_EQ(driver->map(1, kPage, Gpa{0x5000}), Status::kOk);
    EXPECT_EQ(device.translate(kEndpoint, Iova{0x1000}), Gpa{0x5000});
}

TEST_F(IommuDriverTest, bypass_is_written_to_its_byte) {
    ASSERT_TRUE(driver->set_bypass(true));
    EXPECT_EQ(backend.config()[offsetof(virtio_iommu_config, bypass)], std::byte{1});
}

TEST_F(IommuDriverTest, driver_gives_all_memory_back) {
    driver.reset();
    const uint64_t before = memory->free_pages();
    start();
    EXPECT_LT(memory->free_pages(), before);
    driver.reset();
    EXPECT_EQ(memory->free_pages(), before);
}

}  // namespace
}  // namespace viommu::guest
