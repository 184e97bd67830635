// SPDX-License-Identifier: BSD-3-Clause
/// What drivers of the drafts before virtio 1.2 send, and what becomes of it.
#include "fixture.hh"

namespace viommu::device::spec {
namespace {

struct Draft : Spec {
    /// Sends bytes as they are; the length that the guest is told.
    uint32_t send_bytes(std::initializer_list<uint8_t> bytes) {
        std::vector<uint8_t> copy(bytes);
        std::byte reply[4];
        const uint32_t written =
            device->handle(std::as_bytes(std::span(copy)), reply).written;
        finish();
        return written;
    }
};

// v0.7-2
TEST_F(Draft, attach_and_detach_of_v07_go_back_unwritten) {
    EXPECT_EQ(send_bytes({VIRTIO_IOMMU_T_ATTACH, 0, 0, 0, 1, 0, 0, 0, kEndpoint, 0, 0, 0,
                          0, 0, 0, 0}),
              0u);
    EXPECT_EQ(device->table().usage().domains, 0u);
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(send_bytes({VIRTIO_IOMMU_T_DETACH, 0, 0, 0, kEndpoint, 0, 0, 0, 0, 0, 0, 0}), 0u);
    EXPECT_EQ(device->table().usage().domains, 1u);
    EXPECT_EQ(device->stats().unreadable.was(), 2u);
}

// v0.7-6
TEST_F(Draft, exec_of_v07_grants_no_access) {
    constexpr uint32_t kExec = 1u << 2;
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, kPage - 1, 1, kExec), ok);
    EXPECT_FALSE(access(0, Access::kRead));
    EXPECT_FALSE(access(0, Access::kWrite));
    EXPECT_EQ(map(kPage, 2 * kPage - 1, 1, kExec | VIRTIO_IOMMU_MAP_F_READ), ok);
    EXPECT_TRUE(access(kPage, Access::kRead));
    EXPECT_TRUE(access(kPage, Access::kRead).is_mmio());
    EXPECT_FALSE(access(kPage, Access::kWrite));
}

// v0.5-3
TEST_F(Draft, probe_with_too_much_room_is_answered_behind_probe_size) {
    const std::size_t n = probe_size();
    const auto reply = probe(kEndpoint, n + 100);
    ASSERT_EQ(reply.size(), n + 4) << "what was written; more would not be ours to fill";
    EXPECT_EQ(reply[n], ok);
}

}  // namespace
}  // namespace viommu::device::spec
