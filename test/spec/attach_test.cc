// SPDX-License-Identifier: BSD-3-Clause
/// ATTACH and DETACH (5.13.6.3, 5.13.6.4).
#include "fixture.hh"

namespace viommu::device::spec {
namespace {

// 5.13.6.3-D1
TEST_F(Spec, attach_reserved_not_zero_is_inval) { EXPECT_EQ(attach(1, kEndpoint, 0, 1), inval); }

// 5.13.6.3-D2
TEST_F(Spec, attach_unknown_flag_is_inval) { EXPECT_EQ(attach(1, kEndpoint, 2), inval); }

// 5.13.6.3-D3
TEST_F(Spec, attach_unknown_endpoint_is_noent) { EXPECT_EQ(attach(1, 0x99), noent); }

// 5.13.6-N3
TEST_F(Spec, attach_outside_the_domain_range_is_range) {
    EXPECT_EQ(attach(0), range);
    EXPECT_EQ(attach(101), range);
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(attach(100), ok);
}

// 5.13.6.3-D4
TEST_F(Spec, attach_of_a_second_endpoint_shares_the_domain) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, kPage - 1), ok);
    EXPECT_EQ(attach(1, kOther), ok);
    EXPECT_TRUE(access(0, Access::kRead, kOther));
}

// 5.13.6.3-D6, 5.13.6-N6
TEST_F(Spec, attach_with_inconsistent_bypass_flag_is_inval) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(attach(1, kOther, VIRTIO_IOMMU_ATTACH_F_BYPASS), inval);
    EXPECT_EQ(attach(2, kOther, VIRTIO_IOMMU_ATTACH_F_BYPASS), ok);
    EXPECT_EQ(attach(2), inval);
    EXPECT_EQ(access(0x1000, Access::kRead, kOther).gpa(), Gpa{0x1000});
    EXPECT_EQ(device->stats().attach_bypass.was(), 1u);
}

// 5.13.6.3-D7, 5.13.6.3-D8
TEST_F(Spec, attach_elsewhere_detaches_first) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, kPage - 1), ok);
    EXPECT_EQ(attach(2), ok);
    EXPECT_FALSE(access(0, Access::kRead));
    EXPECT_EQ(map(0, kPage - 1, 1), noent) << "domain 1 lost its last endpoint";
}

// 5.13.6.3-D12
TEST_F(Spec, attach_to_the_same_domain_keeps_its_mappings) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, kPage - 1), ok);
    EXPECT_EQ(attach(1), ok);
    EXPECT_TRUE(access(0, Access::kRead));
}

// 5.13.6.4-D1
TEST_F(Spec, detach_reserved_is_ignored) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(detach(1, kEndpoint, 0xff), ok);
}

// 5.13.6.4-D2
TEST_F(Spec, detach_unknown_endpoint_is_noent) { EXPECT_EQ(detach(1, 0x99), noent); }

// 5.13.6.4-D3
TEST_F(Spec, detach_from_a_domain_that_is_not_is_inval) { EXPECT_EQ(detach(1), inval); }

// 5.13.6.4-D3
TEST_F(Spec, detach_from_another_domain_is_inval) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(attach(2, kOther), ok);
    EXPECT_EQ(detach(2), inval);
}

// 5.13.6.4-D4
TEST_F(Spec, detached_endpoint_cannot_access_the_domain) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(attach(1, kOther), ok);
    EXPECT_EQ(map(0, kPage - 1), ok);
    EXPECT_EQ(detach(1), ok);
    EXPECT_FALSE(access(0, Access::kRead));
    EXPECT_TRUE(access(0, Access::kRead, kOther));
}

// 5.13.6.4-N1
TEST_F(Spec, domain_without_endpoints_ceases_to_exist) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, kPage - 1), ok);
    EXPECT_EQ(detach(1), ok);
    EXPECT_EQ(unmap(0, kPage - 1), noent);
    EXPECT_EQ(attach(1, kEndpoint, VIRTIO_IOMMU_ATTACH_F_BYPASS), ok) << "its ID can be reused";
}

// 5.13.6.3-D11
TEST_F(Spec, attach_where_a_reserved_region_is_mapped_is_unsupp) {
    auto c = config();
    c.endpoint_reserved[kOther] = {{{{0x40000000}, {0x40000fff}}}};
    device = make(c);
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0x3ff00000, 0x400fffff), ok) << "kEndpoint may";
    EXPECT_EQ(attach(1, kOther), unsupp);
    EXPECT_FALSE(access(0x3ff00000, Access::kRead, kOther));
    EXPECT_EQ(unmap(0x3ff00000, 0x400fffff), ok);
    EXPECT_EQ(attach(1, kOther), ok);
}

// 5.13.6.3-D11, 5.13.6.3-D12
TEST_F(Spec, attach_that_is_rejected_leaves_the_endpoint_where_it_was) {
    auto c = config();
    c.endpoint_reserved[kOther] = {{{{0x40000000}, {0x40000fff}}}};
    device = make(c);
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0x40000000, 0x40000fff), ok);
    EXPECT_EQ(attach(2, kOther), ok);
    EXPECT_EQ(map(0, kPage - 1, 2), ok);
    EXPECT_EQ(attach(1, kOther), unsupp);
    EXPECT_TRUE(access(0, Access::kRead, kOther));
    EXPECT_EQ(map(kPage, 2 * kPage - 1, 2), ok);
}

// 5.13.6.3-D10
TEST_F(Spec, attach_with_other_regions_that_are_free_shares_the_domain) {
    auto c = config();
    c.endpoint_reserved[kOther] = {{{{0x40000000}, {0x40000fff}}}};
    c.endpoint_reserved[kEndpoint] = {{{{0x50000000}, {0x50000fff}}}};
    device = make(c);
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0x3ffff000, 0x3fffffff), ok);
    EXPECT_EQ(map(0x40001000, 0x40001fff), ok);
    EXPECT_EQ(attach(1, kOther), ok);
    EXPECT_TRUE(access(0x3ffff000, Access::kRead, kOther));
}

// 5.13.6.3-D7
TEST_F(Spec, attach_elsewhere_leaves_the_others_of_the_domain) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(attach(1, kOther), ok);
    EXPECT_EQ(map(0, kPage - 1), ok);
    EXPECT_EQ(attach(2), ok);
    EXPECT_FALSE(access(0, Access::kRead));
    EXPECT_TRUE(access(0, Access::kRead, kOther));
    EXPECT_EQ(map(kPage, 2 * kPage - 1), ok);
}

}  // namespace
}  // namespace viommu::device::spec
