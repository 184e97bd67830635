// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <cstring>

#include "viommu_guest.hh"

namespace viommu::guest {
namespace {

using namespace wire;

std::optional<wire::Request> decoded(const Request& r) {
    return wire::decode(std::span(r.out).first(r.out_bytes));
}

TEST(Request, every_kind_decodes_to_what_it_was_made_of) {
    const auto map = std::get<MapRequest>(
        *decoded(Request::map(7, {Iova{0x1000}, Iova{0x2fff}}, Gpa{0x9000}, Access::kWrite)));
    EXPECT_EQ(map.domain, 7u);
    EXPECT_EQ(map.first, Iova{0x1000});
    EXPECT_EQ(map.last, Iova{0x2fff});
    EXPECT_EQ(map.gpa, Gpa{0x9000});
    EXPECT_EQ(map.flags, VIRTIO_IOMMU_MAP_F_WRITE);
    const auto unmap =
        std::get<UnmapRequest>(*decoded(Request::unmap(8, {Iova{0}, Iova{UINT64_MAX}})));
    EXPECT_EQ(unmap.domain, 8u);
    EXPECT_EQ(unmap.last, Iova{UINT64_MAX});
    EXPECT_TRUE(unmap.reserved_is_zero);
    const auto attach =
        std::get<AttachRequest>(*decoded(Request::attach(9, 0x20, VIRTIO_IOMMU_ATTACH_F_BYPASS)));
    EXPECT_EQ(attach.domain, 9u);
    EXPECT_EQ(attach.endpoint, 0x20u);
    EXPECT_EQ(attach.flags, VIRTIO_IOMMU_ATTACH_F_BYPASS);
    const auto detach = std::get<DetachRequest>(*decoded(Request::detach(10, 0x21)));
    EXPECT_EQ(detach.domain, 10u);
    EXPECT_EQ(detach.endpoint, 0x21u);
}

TEST(Answer, compares_with_a_status_and_prints_what_happened) {
    EXPECT_EQ((Answer{Status::kRange, "", 0}), Status::kRange);
    EXPECT_FALSE((Answer{std::nullopt, "", 0}) == Status::kOk);
    EXPECT_EQ(to_string(Answer{Status::kRange, "", 0}), "RANGE");
    EXPECT_EQ(to_string(Answer{std::nullopt, "", 0}), "no status");
    EXPECT_EQ(to_string(Answer{std::nullopt, "no answer in 5 ms", 0}), "no answer in 5 ms");
}

std::vector<std::byte> resv_mem(uint16_t type, uint16_t length, uint64_t start, uint64_t end) {
    virtio_iommu_probe_resv_mem r{};
    r.head.type = type;
    r.head.length = length;
    r.subtype = VIRTIO_IOMMU_RESV_MEM_T_MSI;
    r.start = start;
    r.end = end;
    const auto bytes = std::as_bytes(std::span(&r, 1));
    return {bytes.begin(), bytes.end()};
}

TEST(Properties, regions_are_read_up_to_the_end_mark) {
    auto bytes = resv_mem(VIRTIO_IOMMU_PROBE_T_RESV_MEM, 20, 0xfee00000, 0xfeefffff);
    const auto unknown = resv_mem(0x123, 20, 0, 0);
    bytes.insert(bytes.end(), unknown.begin(), unknown.end());
    const auto second = resv_mem(VIRTIO_IOMMU_PROBE_T_RESV_MEM | 0xf000, 20, 1, 2);
    bytes.insert(bytes.end(), second.begin(), second.end());
    bytes.resize(bytes.size() + 100);
    const auto regions = parse_properties(bytes);
    ASSERT_TRUE(regions) << regions.error().message;
    EXPECT_EQ(*regions, (std::vector<ReservedRegion>{{1, 0xfee00000, 0xfeefffff}, {1, 1, 2}}));
}

TEST(Properties, lengths_that_lie_are_errors) {
    EXPECT_FALSE(parse_properties(resv_mem(VIRTIO_IOMMU_PROBE_T_RESV_MEM, 21, 0, 0)));
    auto longer = resv_mem(VIRTIO_IOMMU_PROBE_T_RESV_MEM, 21, 0, 0);
    longer.resize(64);
    EXPECT_FALSE(parse_properties(longer));
}

TEST(RoundTrips, quantiles_are_those_of_the_samples) {
    RoundTrips trips;
    EXPECT_EQ(trips.quantile_ns(0.5), 0u);
    for (uint64_t ns = 1000; ns > 0; --ns) trips.add(ns);
    EXPECT_EQ(trips.count(), 1000u);
    EXPECT_EQ(trips.quantile_ns(0.5), 500u);
    EXPECT_EQ(trips.quantile_ns(0.99), 990u);
    RoundTrips two;
    two.add(1), two.add(2);
    EXPECT_EQ(two.quantile_ns(0.5), 1u);
    EXPECT_EQ(two.quantile_ns(0.99), 2u);
}

}  // namespace
}  // namespace viommu::guest
