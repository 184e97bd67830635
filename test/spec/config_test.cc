// SPDX-License-Identifier: BSD-3-Clause
/// Feature bits, configuration space and reset (5.13.3 to 5.13.5).
#include "fixture.hh"

namespace viommu::device::spec {
namespace {

// 5.13.4-D1, 5.13.4-D2
TEST_F(Spec, config_says_what_was_configured) {
    virtio_iommu_config c;
    device->read_config(0, std::as_writable_bytes(std::span(&c, 1)));
    EXPECT_EQ(c.page_size_mask, ~uint64_t{0xfff});
    EXPECT_EQ(c.input_range.end, (uint64_t{1} << 40) - 1);
    EXPECT_EQ(c.domain_range.start, 1u);
    EXPECT_EQ(c.domain_range.end, 100u);
    EXPECT_EQ(c.bypass, 0);
}

TEST_F(Spec, config_reads_at_any_offset_and_size_agree) {
    uint8_t whole[64];
    device->read_config(0, std::as_writable_bytes(std::span(whole)));
    for (uint32_t offset = 0; offset < 60; ++offset)
        for (std::size_t size : {1u, 2u, 4u}) {
            uint8_t part[4];
            device->read_config(offset, std::as_writable_bytes(std::span(part, size)));
            EXPECT_EQ(std::memcmp(part, whole + offset, size), 0) << offset << " " << size;
        }
    uint8_t far[8] = {1};
    device->read_config(0xfffffff0, std::as_writable_bytes(std::span(far)));
    EXPECT_EQ(far[0], 0);
}

// 5.13.4-D5, 5.13.6-N5
TEST_F(Spec, config_write_changes_bypass_and_nothing_else) {
    const std::byte one{1}, two{2}, zero{0};
    device->write_config(36, {&two, 1});
    EXPECT_FALSE(device->table().bypass()) << "neither 0 nor 1";
    device->write_config(0, {&one, 1});
    device->write_config(37, {&one, 1});
    EXPECT_FALSE(device->table().bypass());
    device->write_config(36, {&one, 1});
    EXPECT_TRUE(device->table().bypass());
    EXPECT_EQ(access(0x1234000, Access::kRead).gpa(), Gpa{0x1234000});
    device->write_config(36, {&zero, 1});
    EXPECT_FALSE(access(0x1234000, Access::kRead));
}

// 5.13.3-D1, 5.13.3-D2, 5.13.3-D3
TEST_F(Spec, features_are_map_unmap_and_bypass_config_but_not_bypass) {
    const uint64_t f = device->features();
    EXPECT_TRUE(f >> VIRTIO_IOMMU_F_MAP_UNMAP & 1);
    EXPECT_TRUE(f >> VIRTIO_IOMMU_F_BYPASS_CONFIG & 1);
    EXPECT_FALSE(f >> VIRTIO_IOMMU_F_BYPASS & 1);
    EXPECT_TRUE(f >> VIRTIO_F_VERSION_1 & 1);
}

// 5.13.4-D4, 5.13.5-N1
TEST_F(Spec, reset_detaches_all_and_keeps_bypass) {
    const std::byte one{1};
    device->write_config(36, {&one, 1});
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, kPage - 1), ok);
    device->reset();
    finish();
    EXPECT_EQ(device->table().usage().domains, 0u);
    EXPECT_TRUE(device->table().bypass());
    EXPECT_EQ(access(0x5000, Access::kRead).gpa(), Gpa{0x5000});
}

// 5.13.4-D3, 5.13.6-N5
TEST_F(Spec, bypass_begins_as_configured_whatever_the_driver_accepts) {
    auto c = config();
    c.bypass = true;
    device = make(c);
    EXPECT_EQ(read_config().bypass, 1);
    EXPECT_EQ(access(0x5000, Access::kWrite).gpa(), Gpa{0x5000});
    device->features_acked(uint64_t{1} << VIRTIO_F_VERSION_1);
    EXPECT_EQ(access(0x5000, Access::kWrite).gpa(), Gpa{0x5000});
    EXPECT_EQ(attach(1), ok);
    EXPECT_FALSE(access(0x5000, Access::kWrite));
    EXPECT_EQ(detach(1), ok);
    EXPECT_TRUE(access(0x5000, Access::kWrite)) << "detached, it is in bypass mode again";
}

// 5.13.4-D4
TEST_F(Spec, bypass_is_initial_for_a_new_vm_and_kept_for_one_that_reconnects) {
    write_bypass(1);
    device->connected();
    EXPECT_EQ(read_config().bypass, 0) << "perhaps another VM, whose firmware runs now";
    device->connected();
    device->resumed();
    EXPECT_EQ(read_config().bypass, 1) << "it was the same one";
    device->connected();
    device->reset();
    device->resumed();
    EXPECT_EQ(read_config().bypass, 0) << "it was another one";
    write_bypass(1);
    device->connected();
    write_bypass(0);
    device->resumed();
    EXPECT_EQ(read_config().bypass, 0) << "what the driver wrote last stands";
}

// 5.13.4-D5
TEST_F(Spec, config_write_that_changes_nothing_is_known_before) {
    const auto would = [&](uint32_t offset, std::initializer_list<uint8_t> bytes) {
        return device->would_change(offset,
                                    std::as_bytes(std::span(bytes.begin(), bytes.size())));
    };
    EXPECT_FALSE(would(36, {0}));
    EXPECT_TRUE(would(36, {1}));
    EXPECT_FALSE(would(36, {2}));
    EXPECT_FALSE(would(36, {}));
    EXPECT_FALSE(would(37, {1}));
    EXPECT_FALSE(would(35, {1}));
    EXPECT_TRUE(would(35, {0, 1}));
    EXPECT_TRUE(would(32, {0, 0, 0, 0, 1, 0, 0, 0}));
    EXPECT_FALSE(would(0xffffffff, {1, 1}));
    write_bypass(1);
    EXPECT_TRUE(would(36, {0}));
    EXPECT_FALSE(would(36, {1}));
}

struct LegacyBypass : Spec {
    static constexpr uint64_t kAccepted =
        uint64_t{1} << VIRTIO_F_VERSION_1 | uint64_t{1} << VIRTIO_IOMMU_F_BYPASS;
    void SetUp() override {
        auto c = config();
        c.legacy_bypass = true;
        c.bypass = true;  // means nothing then
        device = make(c);
    }
    bool bypasses() { return bool(access(0x5000, Access::kRead)); }
};

// 5.13.3-D3
TEST_F(LegacyBypass, offers_one_bit_and_not_the_other) {
    const uint64_t f = device->features();
    EXPECT_TRUE(f >> VIRTIO_IOMMU_F_BYPASS & 1);
    EXPECT_FALSE(f >> VIRTIO_IOMMU_F_BYPASS_CONFIG & 1);
}

// 5.13.6-N7, v0.4-1, v0.7-9
TEST_F(LegacyBypass, unattached_endpoints_bypass_once_the_bit_is_accepted) {
    EXPECT_FALSE(bypasses()) << "not negotiated yet";
    EXPECT_EQ(access(0x5000, Access::kRead).fault(), xlate::FaultReason::kDomain);
    device->features_acked(kAccepted);
    EXPECT_TRUE(device->table().dirty()) << "readers are to be waited for";
    EXPECT_TRUE(bypasses());
    EXPECT_EQ(attach(1), ok);
    EXPECT_FALSE(bypasses());
    EXPECT_EQ(detach(1), ok);
    EXPECT_TRUE(bypasses());
    device->reset();
    finish();
    EXPECT_TRUE(bypasses()) << "SET_FEATURES comes before the queue that makes us reset";
}

// 5.13.6-N7, 5.13.6-D4
TEST_F(LegacyBypass, unattached_endpoints_are_blocked_when_the_bit_is_not_accepted) {
    device->features_acked(uint64_t{1} << VIRTIO_F_VERSION_1);
    EXPECT_FALSE(bypasses());
    device->features_acked(kAccepted);
    device->features_acked(uint64_t{1} << VIRTIO_F_VERSION_1);
    EXPECT_FALSE(bypasses()) << "a driver that does not want it followed";
    device->features_acked(kAccepted);
    device->connected();
    EXPECT_FALSE(bypasses()) << "nothing is negotiated with this one";
}

// 5.13.6.3-D2
TEST_F(LegacyBypass, config_field_and_attach_flag_are_not_there) {
    EXPECT_EQ(attach(1, kEndpoint, VIRTIO_IOMMU_ATTACH_F_BYPASS), inval);
    device->features_acked(kAccepted);
    EXPECT_EQ(read_config().bypass, 0);
    write_bypass(0);
    write_bypass(1);
    EXPECT_TRUE(bypasses());
    EXPECT_EQ(read_config().bypass, 0);
}

}  // namespace
}  // namespace viommu::device::spec
