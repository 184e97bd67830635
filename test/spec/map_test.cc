// SPDX-License-Identifier: BSD-3-Clause
/// MAP (5.13.6.5), and what a mapping then allows.
#include "fixture.hh"

namespace viommu::device::spec {
namespace {

// 5.13.6.5-D1
TEST_F(Spec, map_misaligned_is_range) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(1, kPage - 1), range);
    EXPECT_EQ(map(0, kPage - 2), range);
    EXPECT_EQ(map(0, kPage - 1, 1, 3, 0x800), range);
}

TEST_F(Spec, map_backwards_is_range) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(2 * kPage, kPage - 1), range);
}

// 5.13.6-N4
TEST_F(Spec, map_outside_the_input_range_is_range) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(uint64_t{1} << 40, (uint64_t{1} << 40) + kPage - 1), range);
    EXPECT_EQ(map(0, ~uint64_t{0}), range) << "though it overlaps the reserved regions, too";
}

// 5.13.6.5-D2
TEST_F(Spec, map_over_a_mapping_is_inval) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, 4 * kPage - 1), ok);
    EXPECT_EQ(map(2 * kPage, 6 * kPage - 1), inval);
}

// 5.13.6.5-D3, v0.7-4
TEST_F(Spec, map_unknown_flag_is_inval) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, kPage - 1, 1, 8), inval);
    EXPECT_EQ(map(0, kPage - 1, 1, 0x80000000), inval);
}

// 5.13.6.5-D4
TEST_F(Spec, map_in_an_unknown_domain_is_noent) { EXPECT_EQ(map(0, kPage - 1), noent); }

// 5.13.6.5-D5
TEST_F(Spec, map_in_a_bypass_domain_is_inval) {
    EXPECT_EQ(attach(1, kEndpoint, VIRTIO_IOMMU_ATTACH_F_BYPASS), ok);
    EXPECT_EQ(map(0, kPage - 1), inval);
}

// 5.13.6.5-D6, 5.13.6.5-D7, v0.7-5
TEST_F(Spec, map_allows_only_what_it_says) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, kPage - 1, 1, VIRTIO_IOMMU_MAP_F_READ), ok);
    EXPECT_EQ(map(kPage, 2 * kPage - 1, 1, VIRTIO_IOMMU_MAP_F_WRITE), ok);
    EXPECT_TRUE(access(0, Access::kRead));
    EXPECT_FALSE(access(0, Access::kWrite));
    EXPECT_FALSE(access(kPage, Access::kRead));
    EXPECT_TRUE(access(kPage, Access::kWrite));
}

// 5.13.6.5-N1
TEST_F(Spec, map_mmio_is_recorded) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, kPage - 1, 1, VIRTIO_IOMMU_MAP_F_WRITE | VIRTIO_IOMMU_MAP_F_MMIO), ok);
    EXPECT_NE(map(0, kPage - 1, 1, VIRTIO_IOMMU_MAP_F_WRITE | VIRTIO_IOMMU_MAP_F_MMIO), ok);
    EXPECT_EQ(device->stats().map_mmio.was(), 1u);
    EXPECT_TRUE(access(0, Access::kWrite | Access::kMmio));
    EXPECT_FALSE(access(0, Access::kRead));
}

// 5.13.6.5-N2, 5.13.6-D1
TEST_F(Spec, map_translates_for_every_endpoint_of_the_domain) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(attach(1, kOther), ok);
    EXPECT_EQ(map(2 * kPage, 4 * kPage - 1, 1, 3, 0x7000000), ok);
    for (const EndpointId e : {kEndpoint, kOther}) {
        EXPECT_EQ(access(2 * kPage, Access::kRead, e).gpa(), Gpa{0x7000000});
        EXPECT_EQ(access(4 * kPage - 1, Access::kWrite, e).gpa(), Gpa{0x7001fff});
        EXPECT_FALSE(access(4 * kPage, Access::kRead, e));
        EXPECT_FALSE(access(2 * kPage - 1, Access::kRead, e));
    }
}

// 5.13.6.5-D6
TEST_F(Spec, map_without_rights_allows_nothing) {
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(0, kPage - 1, 1, 0), ok);
    EXPECT_EQ(map(kPage, 2 * kPage - 1, 1, VIRTIO_IOMMU_MAP_F_MMIO), ok);
    for (const uint64_t iova : {uint64_t{0}, kPage})
        for (const Access need : {Access::kRead, Access::kWrite}) {
            EXPECT_FALSE(access(iova, need));
            EXPECT_EQ(access(iova, need).fault(), xlate::FaultReason::kMapping);
        }
}

// 5.13.6.5-N1, 5.13.6.8.1-N1, v0.7-3
TEST_F(Spec, map_of_a_doorbell_is_told_from_memory) {
    auto c = config();
    c.reserved.clear();  // no MSI region: the driver maps the doorbell
    device = make(c);
    EXPECT_EQ(attach(1), ok);
    constexpr uint32_t kDoorbell = VIRTIO_IOMMU_MAP_F_WRITE | VIRTIO_IOMMU_MAP_F_MMIO;
    EXPECT_EQ(map(0x8000000, 0x8000fff, 1, 3, 0xfedff000), ok);
    EXPECT_EQ(map(0x8001000, 0x8001fff, 1, kDoorbell, 0xfee00000), ok);
    const auto bell = access(0x8001040, Access::kWrite);
    EXPECT_TRUE(bell.is_mmio());
    EXPECT_EQ(bell.gpa(), Gpa{0xfee00040});
    EXPECT_FALSE(access(0x8000000, Access::kWrite).is_mmio());
    auto reader = std::move(*xlate::Reader::create(device->table(), device->faults(), kEndpoint));
    reader.enter();
    EXPECT_EQ(reader.translate({0x8000000}, 2 * kPage, Access::kWrite).bytes(), kPage)
        << "a run that is memory ends where registers begin";
    const auto found = reader.next_mapping({0x8001000});
    reader.leave();
    ASSERT_TRUE(found);
    EXPECT_EQ(found->range, (IovaRange{{0x8001000}, {0x8001fff}}));
    EXPECT_EQ(found->rights, Access::kWrite | Access::kMmio);
}

struct PageSize : Spec, testing::WithParamInterface<unsigned> {};

// 5.13.6-N2, 5.13.4-D2
TEST_P(PageSize, granule_is_the_lowest_bit_of_the_mask_and_large_pages_are_hints) {
    const uint64_t granule = uint64_t{1} << GetParam();
    auto c = config();
    c.reserved.clear();
    c.page_size_mask = granule | granule << 9 | granule << 18;
    device = make(c);
    EXPECT_EQ(read_config().page_size_mask, c.page_size_mask);
    EXPECT_EQ(attach(1), ok);
    EXPECT_EQ(map(granule / 2, granule - 1), range);
    EXPECT_EQ(map(0, granule / 2 - 1), range);
    EXPECT_EQ(map(0, granule - 1, 1, 3, granule / 2), range);
    EXPECT_EQ(map(0, granule - 1, 1, 3, granule), ok);
    EXPECT_EQ(map(granule, 4 * granule - 1, 1, 3, 16 * granule), ok) << "of no size in the mask";
    EXPECT_EQ(access(2 * granule + 5, Access::kRead).gpa(), Gpa{17 * granule + 5});
    EXPECT_FALSE(access(4 * granule, Access::kRead));
    EXPECT_EQ(unmap(granule, 2 * granule - 1), range);
    EXPECT_EQ(unmap(granule, 4 * granule - 1), ok);

    // One leaf for what one page of the mask holds: no node more than for a granule.
    const uint64_t large = granule << 18;
    const uint64_t before = device->table().usage().nodes_used;
    EXPECT_EQ(map(4 * large, 5 * large - 1, 1, 1, 8 * large), ok);
    EXPECT_EQ(device->table().usage().nodes_used, before);
    EXPECT_EQ(access(5 * large - 1, Access::kRead).gpa(), Gpa{9 * large - 1});
    EXPECT_EQ(map(6 * large, 6 * large + 2 * (granule << 9) - 1, 1, 1, 8 * large), ok);
    EXPECT_EQ(device->table().usage().nodes_used, before + 1);
}
INSTANTIATE_TEST_SUITE_P(Granules, PageSize, testing::Values(12, 14, 16), [](const auto& info) {
    return std::to_string((1 << info.param) / 1024) + "K";
});

}  // namespace
}  // namespace viommu::device::spec
