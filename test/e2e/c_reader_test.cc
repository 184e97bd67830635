// SPDX-License-Identifier: BSD-3-Clause
/// examples/c-reader, as others build it (VIOMMU_C_READER: test/install/run), at a daemon's socket,
/// while a guest maps and unmaps.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>

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
readers = "@DIR@/readers.sock"
lcore = 1
bypass = false
  [[guest.endpoint]]
  id = "0000:00:04.0"
)";
constexpr EndpointId kEndpoint = 0x20;

struct CReader : testing::Test {
    void SetUp() override {
        ASSERT_NE(std::getenv("VIOMMU_C_READER"), nullptr) << "run by test/install/run";
        auto started = Daemon::start(kConfig);
        ASSERT_TRUE(started) << started.error().message;
        daemon.emplace(std::move(*started));
        IommuOptions o;
        o.frontend.socket = daemon->path("iommu.sock");
        auto driver = IommuDriver::start(*memory, o);
        ASSERT_TRUE(driver) << driver.error().message;
        iommu = std::move(*driver);
        ASSERT_EQ(iommu->attach(1, kEndpoint), Status::kOk);
    }
    /// What it prints, and its exit status.
    std::pair<std::string, int> run(const std::string& options, const std::string& addresses,
                                    EndpointId endpoint = kEndpoint) {
        const std::string command =
            fmt::format("\"$VIOMMU_C_READER\" {} {} {:#x} {} 2>&1", options,
                        daemon->path("readers.sock"), endpoint, addresses);
        FILE* pipe = popen(command.c_str(), "r");
        std::string out;
        for (char buffer[256]; fgets(buffer, sizeof buffer, pipe) != nullptr;) out += buffer;
        const int status = pclose(pipe);
        return {out, WIFEXITED(status) ? WEXITSTATUS(status) : -1};
    }

    std::optional<Daemon> daemon;
    std::unique_ptr<Memory> memory = std::move(*Memory::create(uint64_t{16} << 20));
    std::unique_ptr<IommuDriver> iommu;
};

TEST_F(CReader, sees_what_the_guest_maps_and_unmaps) {
    ASSERT_EQ(iommu->map(1, {{0x10000}, {0x11fff}}, Gpa{0x40000000}), Status::kOk);
    ASSERT_EQ(iommu->map(1, {{0x12000}, {0x12fff}}, Gpa{0x7000}, Access::kRead), Status::kOk);
    using Said = std::pair<std::string, int>;
    EXPECT_EQ(run("", "0x10008+8 0x11ff0+32 0x12000"),
              (Said{"0x10008 -> 0x40000008 8 bytes rw\n"
                    "0x11ff0 -> 0x40001ff0 16 bytes rw\n"
                    "0x12000 -> 0x7000 16 bytes r-\n"
                    "0x12000 -> 0x7000 1 bytes r-\n",
                    0}));
    EXPECT_EQ(run("-w", "0x12000"), (Said{"0x12000 fault: not mapped\n", 1}));
    ASSERT_EQ(iommu->unmap(1, {{0x10000}, {0x11fff}}), Status::kOk);
    EXPECT_EQ(run("", "0x10008"), (Said{"0x10008 fault: not mapped\n", 1}));
    ASSERT_EQ(iommu->detach(1, kEndpoint), Status::kOk);
    EXPECT_EQ(run("", "0x12000"), (Said{"0x12000 fault: no domain\n", 1}));
}

TEST_F(CReader, fault_reaches_the_guest_that_caused_it) {
    EXPECT_EQ(run("-w", "0xabc000").second, 1);
    const auto fault = iommu->poll_fault(Milliseconds(20'000));
    ASSERT_TRUE(fault) << fault.error().message;
    ASSERT_TRUE(*fault);
    EXPECT_EQ((*fault)->endpoint, kEndpoint);
    EXPECT_EQ((*fault)->address, Iova{0xabc000});
    EXPECT_EQ((*fault)->flags,
              wire::VIRTIO_IOMMU_FAULT_F_WRITE | wire::VIRTIO_IOMMU_FAULT_F_ADDRESS);
}

TEST_F(CReader, rate_is_measured_without_a_fault) {
    ASSERT_EQ(iommu->map(1, {{0x100000}, {0x2fffff}}, Gpa{0}), Status::kOk);
    const auto [said, status] = run("-r 1", "0x100000+0x200000");
    EXPECT_EQ(status, 0) << said;
    EXPECT_NE(said.find(" ns  per address; 0 faults\n"), std::string::npos) << said;
    fmt::print("{}", said);
}

TEST_F(CReader, endpoint_that_is_not_there_is_an_error_that_names_the_guest) {
    const auto [said, status] = run("", "0", 0x99);
    EXPECT_EQ(status, 2);
    for (const char* part : {"guest vm0", "0x99"})
        EXPECT_NE(said.find(part), std::string::npos) << said;
}

}  // namespace
}  // namespace viommu::e2e
