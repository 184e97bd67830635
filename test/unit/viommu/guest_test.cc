// SPDX-License-Identifier: BSD-3-Clause
#include "guest.hh"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <filesystem>

namespace viommu::app {
namespace {

class GuestIommuTest : public testing::Test {
  protected:
    GuestIommuTest() {
        guest_.name = "vm0";
        guest_.lcore.id = 1;
        guest_.device.endpoints = {0x20};
        guest_.device.max_mappings = 2;
        iommu_.emplace(guest_, device::Device::create(guest_.device).value(), lcores_);
        wire::virtio_iommu_req_attach attach{};
        attach.head.type = wire::VIRTIO_IOMMU_T_ATTACH;
        attach.domain = 1;
        attach.endpoint = 0x20;
        request(attach);
    }

    void map(uint64_t page) {
        wire::virtio_iommu_req_map map{};
        map.head.type = wire::VIRTIO_IOMMU_T_MAP;
        map.domain = 1;
        map.virt_start = page * 4096;
        map.virt_end = page * 4096 + 4095;
        map.flags = wire::VIRTIO_IOMMU_MAP_F_READ;
        request(map);
    }
    template <class Request>
    void request(const Request& r) {
        std::array<std::byte, 4096> reply{};
        const auto readable = std::as_bytes(std::span(&r, 1)).first(sizeof r - sizeof r.tail);
        iommu_->device().handle(readable, reply);
    }

    Guest guest_;
    Lcores lcores_{{1}, poll::Policy::kAdaptive};
    std::optional<GuestIommu> iommu_;
};

TEST_F(GuestIommuTest, quota_within_limits_warns_of_nothing) {
    map(1);
    map(2);
    EXPECT_FALSE(iommu_->quota_warning().has_value());
}

TEST_F(GuestIommuTest, quota_hit_warns_once_with_count_and_keys) {
    for (uint64_t page = 1; page <= 5; page++) map(page);
    const auto warning = iommu_->quota_warning();
    ASSERT_TRUE(warning.has_value());
    for (const char* part :
         {"guest vm0", "3 requests", "NOMEM", "raise max_mappings (2), reached 3"})
        EXPECT_NE(warning->find(part), std::string::npos) << *warning;
    for (const char* other : {"max_domains", "arena"})
        EXPECT_EQ(warning->find(other), std::string::npos) << *warning;
    EXPECT_FALSE(iommu_->quota_warning().has_value());
    map(9);
    ASSERT_TRUE(iommu_->quota_warning().has_value());
}

TEST_F(GuestIommuTest, counters_have_the_table_and_the_lost_faults) {
    map(1);
    Counters out;
    iommu_->add_counters(out, 7);
    for (const char* line : {"\nguest.vm0.requests.map 1\n", "\nguest.vm0.table.mappings 1\n",
                             "\nguest.vm0.table.domains 1\n", "\nguest.vm0.faults.lost 7\n",
                             "\nguest.vm0.queue.passes 0\n", "\nguest.vm0.refused_connections 0\n"})
        EXPECT_NE(out.text().find(line), std::string::npos) << line << out.text();
}

TEST(MakeDirectories, directory_that_cannot_be_made_is_refused_with_reason) {
    const auto made = make_directories("/proc/nonexistent/a.sock");
    ASSERT_FALSE(made.has_value());
    EXPECT_NE(made.error().message.find("/proc/nonexistent cannot be made"), std::string::npos)
        << made.error().message;
}

TEST(MakeDirectories, directories_that_are_there_keep_their_mode) {
    std::string name = (std::filesystem::temp_directory_path() / "viommu-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    chmod(name.c_str(), 0755);
    EXPECT_TRUE(make_directories(name + "/new/iommu.sock").has_value());
    struct stat status;
    ASSERT_EQ(stat(name.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0755u);
    ASSERT_EQ(stat((name + "/new").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0700u);
    std::filesystem::remove_all(name);
}

}  // namespace
}  // namespace viommu::app
