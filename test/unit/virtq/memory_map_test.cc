// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <array>

#include "viommu_virtq.hh"

namespace viommu::virtq {
namespace {

std::array<std::byte, 0x3000> memory;

MemoryRegion region(uint64_t gpa, uint64_t uva, uint64_t bytes, std::byte* vva = memory.data()) {
    return {Gpa{gpa}, Uva{uva}, bytes, vva};
}

TEST(MemoryMap, addresses_are_found_in_their_region_and_shortened_at_its_end) {
    const auto map = MemoryMap::create(
        {region(0x100000, 0x7000, 0x1000), region(0, 0x9000, 0x1000, memory.data() + 0x1000)});
    ASSERT_TRUE(map);
    EXPECT_EQ(map->at(Gpa{0x100010}, 16).data(), memory.data() + 0x10);
    EXPECT_EQ(map->at(Gpa{0x100010}, 16).size(), 16u);
    EXPECT_EQ(map->at(Gpa{0xff8}, 0x100).data(), memory.data() + 0x1ff8);
    EXPECT_EQ(map->at(Gpa{0xff8}, 0x100).size(), 8u);
    EXPECT_TRUE(map->at(Gpa{0x1000}, 1).empty());
    EXPECT_TRUE(map->at(Gpa{0xfffff}, 1).empty());
    EXPECT_TRUE(map->at(Gpa{~uint64_t{0}}, 1).empty());
}

TEST(MemoryMap, frontend_addresses_are_inverted) {
    const auto map = MemoryMap::create({region(0x100000, 0x7000, 0x1000)});
    EXPECT_EQ(map->gpa_of(Uva{0x7000}), Gpa{0x100000});
    EXPECT_EQ(map->gpa_of(Uva{0x7fff}), Gpa{0x100fff});
    EXPECT_FALSE(map->gpa_of(Uva{0x8000}));
    EXPECT_FALSE(map->gpa_of(Uva{0x6fff}));
}

TEST(MemoryMap, regions_that_cannot_be_are_refused) {
    EXPECT_FALSE(MemoryMap::create({region(0, 0, 0)}));
    EXPECT_FALSE(MemoryMap::create({region(~uint64_t{0} - 0xfff, 0, 0x1001)}));
    EXPECT_FALSE(MemoryMap::create({region(0, ~uint64_t{0} - 0xfff, 0x1001)}));
    EXPECT_FALSE(MemoryMap::create({region(0, 0x10000, 0x1001), region(0x1000, 0x20000, 0x1000)}));
    const auto overlap =
        MemoryMap::create({region(0x2000, 0x10000, 0x1000), region(0, 0x20000, 0x2001)});
    ASSERT_FALSE(overlap);
    EXPECT_NE(overlap.error().message.find("0x2000"), std::string::npos);
}

TEST(MemoryMap, regions_that_touch_or_end_with_the_address_space_are_accepted) {
    EXPECT_TRUE(MemoryMap::create({region(0, 0x10000, 0x1000), region(0x1000, 0x20000, 0x1000)}));
    EXPECT_TRUE(MemoryMap::create({region(~uint64_t{0} - 0xfff, 0, 0x1000)}));
    EXPECT_TRUE(MemoryMap::create({}));
}

TEST(Vring, ring_addresses_of_an_unaware_frontend_are_inverted) {
    const auto map = MemoryMap::create({region(0x100000, 0x7000, 0x2000)});
    Vring v;
    v.index = 1;
    v.desc = 0x7000;
    v.avail = 0x7100;
    v.used = 0x8000;
    const auto inverted = from_uva(v, *map);
    ASSERT_TRUE(inverted);
    EXPECT_EQ(inverted->desc, 0x100000u);
    EXPECT_EQ(inverted->avail, 0x100100u);
    EXPECT_EQ(inverted->used, 0x101000u);
    EXPECT_EQ(inverted->index, 1u);
    v.used = 0x9000;
    EXPECT_FALSE(from_uva(v, *map));
}

TEST(GpaSpace, without_a_map_nothing_resolves) {
    EXPECT_TRUE(GpaSpace{}.resolve(0, 1, Access::kRead).empty());
}

}  // namespace
}  // namespace viommu::virtq
