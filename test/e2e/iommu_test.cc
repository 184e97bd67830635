// SPDX-License-Identifier: BSD-3-Clause
/// The virtio-iommu of a daemon process, over its socket.
#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "daemon.hh"
#include "viommu_guest.hh"

namespace viommu::e2e {
namespace {

using namespace guest;

constexpr const char* kConfig = R"(
poll = "adaptive"
[[guest]]
name = "vm0"
socket = "@DIR@/iommu.sock"
lcore = 1
bypass = false
max_mappings = 5000
reserved = [ { first = 0x100000, last = 0x10ffff, type = "reserved" } ]
  [[guest.endpoint]]
  id = "0000:00:04.0"
)";
constexpr EndpointId kEndpoint = 0x20;
constexpr uint64_t kPage = 4096;

IovaRange pages(uint64_t first, uint64_t n) {
    return *IovaRange::from_length({first * kPage}, n * kPage);
}

struct Iommu : testing::TestWithParam<Vmm> {
    Iommu() {
        EXPECT_TRUE(daemon) << daemon.error().message;
        options.frontend.socket = daemon->path("iommu.sock");
        options.frontend.vmm = GetParam();
    }
    std::unique_ptr<IommuDriver> connect() {
        auto driver = IommuDriver::start(*memory, options);
        EXPECT_TRUE(driver) << driver.error().message;
        return std::move(*driver);
    }
    void TearDown() override {
        const auto stopped = daemon->stop();
        EXPECT_TRUE(stopped) << stopped.error().message;
    }
    uint64_t counter(const std::string& name) {
        const auto all = daemon->counters();
        EXPECT_TRUE(all) << all.error().message;
        EXPECT_TRUE(all->count(name)) << name;
        return all->at(name);
    }

    Result<Daemon> daemon = Daemon::start(kConfig);
    std::unique_ptr<Memory> memory = std::move(*Memory::create(uint64_t{16} << 20));
    IommuOptions options;
};

TEST_P(Iommu, requests_of_every_type_get_their_status) {
    auto iommu = connect();
    auto probed = iommu->probe(kEndpoint);
    EXPECT_EQ(probed, Status::kOk);
    std::ranges::sort(probed.reserved, {}, &ReservedRegion::start);
    EXPECT_EQ(probed.reserved, (std::vector<ReservedRegion>{
                                   {wire::VIRTIO_IOMMU_RESV_MEM_T_RESERVED, 0x100000, 0x10ffff},
                                   {wire::VIRTIO_IOMMU_RESV_MEM_T_MSI, 0xfee00000, 0xfeefffff}}));
    EXPECT_EQ(iommu->probe(0x99), Status::kNoEnt);
    EXPECT_EQ(iommu->attach(1, 0x99), Status::kNoEnt);
    EXPECT_EQ(iommu->map(1, pages(1, 1), Gpa{0}), Status::kNoEnt);
    EXPECT_EQ(iommu->attach(1, kEndpoint), Status::kOk);
    EXPECT_EQ(iommu->map(1, pages(1, 10), Gpa{0}), Status::kOk);
    EXPECT_EQ(iommu->map(1, pages(5, 1), Gpa{0}), Status::kInval);
    EXPECT_EQ(iommu->map(1, {{0x100000}, {0x100fff}}, Gpa{0}), Status::kInval);
    EXPECT_EQ(iommu->unmap(1, pages(1, 5)), Status::kRange);
    EXPECT_EQ(iommu->unmap(1, pages(0, 20)), Status::kOk);
    EXPECT_EQ(iommu->detach(1, kEndpoint), Status::kOk);
    EXPECT_EQ(iommu->detach(1, kEndpoint), Status::kInval);
    EXPECT_EQ(counter("guest.vm0.requests.map"), 4u);
    EXPECT_EQ(counter("guest.vm0.requests.unmap"), 2u);
}

TEST_P(Iommu, batch_larger_than_the_ring_is_answered_in_order) {
    auto iommu = connect();
    ASSERT_EQ(iommu->attach(1, kEndpoint), Status::kOk);
    std::vector<Request> batch;
    for (uint64_t i = 0; i < 2000; ++i) {
        batch.push_back(Request::map(1, pages(512 + i, 1), Gpa{i * kPage}, Access::kReadWrite));
        if (i % 3 == 2) batch.push_back(Request::unmap(1, pages(512 + i, 1)));
    }
    std::vector<Answer> answers(batch.size());
    iommu->submit(batch, answers);
    for (size_t i = 0; i < answers.size(); ++i) ASSERT_EQ(answers[i], Status::kOk) << i;
    EXPECT_EQ(counter("guest.vm0.table.mappings"), 2000u - 666u);
}

TEST_P(Iommu, request_in_any_segments_is_understood) {
    auto iommu = connect();
    const auto r = Request::attach(1, kEndpoint);
    for (uint32_t cut = 1; cut < r.out_bytes; ++cut) {
        RawRequest raw;
        raw.out.assign(r.out.begin(), r.out.begin() + r.out_bytes);
        raw.out_segments = {cut, r.out_bytes - cut};
        raw.in_segments = {1, 2, 1};
        const auto answer = iommu->submit_raw(raw);
        ASSERT_TRUE(answer) << answer.error().message;
        EXPECT_EQ(answer->used_bytes, 4u);
        EXPECT_EQ(answer->in[0], std::byte{0});
    }
}

TEST_P(Iommu, unreadable_request_is_returned_unwritten) {
    auto iommu = connect();
    for (uint8_t type : {0, 6, 255}) {
        RawRequest raw;
        raw.out.assign(72, std::byte{type});
        raw.in_segments = {4};
        const auto answer = iommu->submit_raw(raw);
        ASSERT_TRUE(answer) << answer.error().message;
        EXPECT_EQ(answer->used_bytes, 0u);
    }
    EXPECT_EQ(counter("guest.vm0.requests.unreadable"), 3u);
}

TEST_P(Iommu, device_reset_forgets_domains) {
    auto iommu = connect();
    ASSERT_EQ(iommu->attach(1, kEndpoint), Status::kOk);
    ASSERT_EQ(iommu->map(1, pages(1, 1), Gpa{0}), Status::kOk);
    ASSERT_TRUE(iommu->reset());
    EXPECT_EQ(iommu->map(1, pages(2, 1), Gpa{0}), Status::kNoEnt);
    EXPECT_EQ(iommu->attach(1, kEndpoint), Status::kOk);
    EXPECT_EQ(iommu->map(1, pages(1, 1), Gpa{0}), Status::kOk);
}

TEST_P(Iommu, reconnect_of_the_same_guest_keeps_domains) {
    auto iommu = connect();
    ASSERT_EQ(iommu->attach(1, kEndpoint), Status::kOk);
    ASSERT_EQ(iommu->map(1, pages(1, 1), Gpa{0}), Status::kOk);
    const auto again = iommu->reconnect();
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(iommu->map(1, pages(1, 1), Gpa{0}), Status::kInval) << "it is there";
    EXPECT_EQ(iommu->unmap(1, pages(1, 1)), Status::kOk);
}

TEST_P(Iommu, new_guest_after_a_vanished_one_finds_nothing) {
    auto iommu = connect();
    ASSERT_EQ(iommu->attach(1, kEndpoint), Status::kOk);
    ASSERT_EQ(iommu->map(1, pages(1, 1), Gpa{0}), Status::kOk);
    iommu->frontend().disconnect();
    iommu.reset();
    memory = std::move(*Memory::create(uint64_t{16} << 20));
    iommu = connect();
    EXPECT_EQ(iommu->map(1, pages(1, 1), Gpa{0}), Status::kNoEnt);
}

TEST_P(Iommu, second_frontend_is_refused_while_the_first_lives) {
    auto iommu = connect();
    auto second = options.frontend;
    second.timeout = Milliseconds(1000);
    EXPECT_FALSE(Frontend::connect(second));
    EXPECT_EQ(iommu->attach(1, kEndpoint), Status::kOk);
    EXPECT_GE(counter("guest.vm0.refused_connections"), 1u);
}

TEST_P(Iommu, driver_without_event_queue_is_served) {
    options.event_queue = false;
    auto iommu = connect();
    EXPECT_EQ(iommu->attach(1, kEndpoint), Status::kOk);
}

TEST_P(Iommu, quota_is_nomem_and_told_to_the_operator) {
    auto iommu = connect();
    ASSERT_EQ(iommu->attach(1, kEndpoint), Status::kOk);
    std::vector<Request> batch;
    for (uint64_t i = 0; i < 5001; ++i)
        batch.push_back(Request::map(1, pages(512 + i, 1), Gpa{0}, Access::kRead));
    std::vector<Answer> answers(batch.size());
    iommu->submit(batch, answers);
    EXPECT_EQ(answers[4999], Status::kOk);
    EXPECT_EQ(answers[5000], Status::kNoMem);
    EXPECT_EQ(counter("guest.vm0.status.nomem"), 1u);
    std::this_thread::sleep_for(std::chrono::milliseconds(2500));
    EXPECT_NE(daemon->log().find("max_mappings"), std::string::npos) << daemon->log();
}

TEST_P(Iommu, bypass_is_what_the_driver_writes) {
    auto iommu = connect();
    EXPECT_EQ(iommu->config().bypass, 0);
    ASSERT_TRUE(iommu->set_bypass(true));
    wire::virtio_iommu_config c;
    ASSERT_TRUE(iommu->frontend().read_config(0, std::as_writable_bytes(std::span(&c, 1))));
    EXPECT_EQ(c.bypass, 1);
    ASSERT_TRUE(iommu->reset());
    ASSERT_TRUE(iommu->frontend().read_config(0, std::as_writable_bytes(std::span(&c, 1))));
    EXPECT_EQ(c.bypass, 1) << "sticky over device reset";
}

INSTANTIATE_TEST_SUITE_P(Vmm, Iommu, testing::Values(Vmm::kCloudHypervisor, Vmm::kQemu),
                         [](const auto& info) {
                             return info.param == Vmm::kQemu ? "qemu" : "cloud_hypervisor";
                         });

}  // namespace
}  // namespace viommu::e2e
