// SPDX-License-Identifier: BSD-3-Clause
/// UNMAP (5.13.6.6): the specification's seven examples, in pages, and its errors.
#include "fixture.hh"

namespace viommu::device::spec {
namespace {

struct UnmapExample : Spec {
    void SetUp() override { ASSERT_EQ(attach(1), ok); }
    int m(uint64_t first, uint64_t last) { return map(first * kPage, (last + 1) * kPage - 1); }
    int u(uint64_t first, uint64_t last) { return unmap(first * kPage, (last + 1) * kPage - 1); }
    uint64_t left() { return device->table().usage().mappings; }
};

// 5.13.6.6-E1, 5.13.6.6-D5
TEST_F(UnmapExample, 1_of_nothing_succeeds) { EXPECT_EQ(u(0, 4), ok); }

// 5.13.6.6-E2
TEST_F(UnmapExample, 2_of_one_mapping) {
    m(0, 9);
    EXPECT_EQ(u(0, 9), ok);
    EXPECT_EQ(left(), 0u);
}

// 5.13.6.6-E3
TEST_F(UnmapExample, 3_of_two_mappings) {
    m(0, 4);
    m(5, 9);
    EXPECT_EQ(u(0, 9), ok);
    EXPECT_EQ(left(), 0u);
}

// 5.13.6.6-E4, 5.13.6.6-D4
TEST_F(UnmapExample, 4_of_a_part_fails_and_removes_nothing) {
    m(0, 9);
    EXPECT_EQ(u(0, 4), range);
    EXPECT_EQ(left(), 1u);
    EXPECT_TRUE(access(0, Access::kRead));
}

// 5.13.6.6-E5
TEST_F(UnmapExample, 5_of_the_first_of_two) {
    m(0, 4);
    m(5, 9);
    EXPECT_EQ(u(0, 4), ok);
    EXPECT_EQ(left(), 1u);
    EXPECT_FALSE(access(0, Access::kRead));
    EXPECT_TRUE(access(5 * kPage, Access::kRead));
}

// 5.13.6.6-E6, 5.13.6.6-D5
TEST_F(UnmapExample, 6_beyond_the_mapping) {
    m(0, 4);
    EXPECT_EQ(u(0, 9), ok);
    EXPECT_EQ(left(), 0u);
}

// 5.13.6.6-E7, 5.13.6.6-D5
TEST_F(UnmapExample, 7_across_a_hole) {
    m(0, 4);
    m(10, 14);
    EXPECT_EQ(u(0, 14), ok);
    EXPECT_EQ(left(), 0u);
}

// 5.13.6.6-D1
TEST_F(Spec, unmap_reserved_not_zero_is_inval) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(unmap(0, kPage - 1, 1, 1), inval);
}

// 5.13.6.6-D2
TEST_F(Spec, unmap_in_an_unknown_domain_is_noent) { EXPECT_EQ(unmap(0, kPage - 1), noent); }

// 5.13.6.6-D3
TEST_F(Spec, unmap_in_a_bypass_domain_is_inval) {
    EXPECT_EQ(attach(1, kEndpoint, VIRTIO_IOMMU_ATTACH_F_BYPASS), ok);
    EXPECT_EQ(unmap(0, kPage - 1), inval);
}

TEST_F(Spec, unmap_backwards_is_range) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(unmap(kPage, 0), range);
}

// 5.13.6.6-D4
TEST_F(UnmapExample, splitting_at_either_end_or_inside_removes_nothing) {
    m(10, 19);
    m(20, 29);
    for (const auto& [first, last] : {std::pair{10, 24}, {15, 29}, {12, 13}, {5, 15}, {25, 40}})
        EXPECT_EQ(u(uint64_t(first), uint64_t(last)), range) << first << " " << last;
    EXPECT_EQ(unmap(10 * kPage, 20 * kPage), range) << "not even at a page";
    EXPECT_EQ(left(), 2u);
    EXPECT_TRUE(access(10 * kPage, Access::kRead));
    EXPECT_TRUE(access(30 * kPage - 1, Access::kRead));
}

// 5.13.6.6-D5
TEST_F(UnmapExample, of_the_whole_64_bit_space_removes_all) {
    m(0, 0);
    m(1 << 20, (1 << 20) + 5);
    EXPECT_EQ(unmap(0, ~uint64_t{0}), ok);
    EXPECT_EQ(left(), 0u);
}

}  // namespace
}  // namespace viommu::device::spec
