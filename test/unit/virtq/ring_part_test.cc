// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include "page_space.hh"

namespace viommu::virtq::test {
namespace {

constexpr uint64_t kAt = 0x70000000;
constexpr uint32_t kBytes = 3 * kPage;
using Part = RingPart<kBytes>;

TEST(RingPart, scattered_pages_every_byte_is_where_the_space_says) {
    for (const bool scattered : {false, true}) {
        for (const uint32_t skew : {0u, 2u, 16u, 2048u, 4094u}) {
            PageSpace space(8);
            space.add(kAt, kBytes + skew, scattered);
            Part part;
            ASSERT_TRUE(part.resolve(space, kAt + skew, kBytes, Access::kReadWrite));
            EXPECT_EQ(part.is_flat(), !scattered);
            for (uint32_t o = 0; o < kBytes; ++o)
                ASSERT_EQ(part.at(o), space.host_at(kAt + skew + o)) << o << " skew " << skew;
        }
    }
}

TEST(RingPart, contiguous_memory_found_in_pieces_is_flat) {
    PageSpace space(8);
    space.add(kAt, 2 * kPage, false);
    struct Halves {  // resolves 16 bytes at a time
        PageSpace& space;
        std::span<std::byte> resolve(uint64_t a, uint64_t n, Access need) noexcept {
            return space.resolve(a, std::min<uint64_t>(n, 16), need);
        }
    } halves{space};
    Part part;
    ASSERT_TRUE(part.resolve(halves, kAt + 32, kPage + 8, Access::kRead));
    EXPECT_TRUE(part.is_flat());
    EXPECT_EQ(part.at(kPage + 7), space.host_at(kAt + 32 + kPage + 7));
}

TEST(RingPart, page_that_is_not_contiguous_is_refused) {
    alignas(16) static std::array<std::byte, 2 * kPage> memory;
    // Two regions of guest memory that meet within a page and are apart in ours.
    const auto map = MemoryMap::create({{Gpa{0}, Uva{0}, 2048, memory.data()},
                                        {Gpa{2048}, Uva{2048}, 2048, memory.data() + 4096}});
    ASSERT_TRUE(map);
    GpaSpace space(*map);
    Part part;
    EXPECT_FALSE(part.resolve(space, 0, 4096, Access::kRead));
    EXPECT_TRUE(part.resolve(space, 0, 2048, Access::kRead));
    EXPECT_TRUE(part.resolve(space, 2048, 2048, Access::kRead));
}

TEST(RingPart, memory_less_aligned_than_its_address_is_refused) {
    alignas(16) static std::array<std::byte, kPage> memory;
    const auto map = MemoryMap::create({{Gpa{0}, Uva{0}, 2048, memory.data() + 1}});
    GpaSpace space(*map);
    Part part;
    EXPECT_FALSE(part.resolve(space, 0, 16, Access::kRead));
}

TEST(RingPart, missing_page_or_right_is_refused) {
    PageSpace space(8);
    space.add(kAt, kBytes, true);
    space.map(kAt + kPage, 1, Access::kRead);
    Part part;
    EXPECT_TRUE(part.resolve(space, kAt, kBytes, Access::kRead));
    EXPECT_FALSE(part.resolve(space, kAt, kBytes, Access::kReadWrite));
    space.unmap(kAt + 2 * kPage);
    EXPECT_FALSE(part.resolve(space, kAt, kBytes, Access::kRead));
    EXPECT_TRUE(part.resolve(space, kAt, 2 * kPage, Access::kRead));
}

TEST(RingPart, range_that_wraps_or_is_too_long_is_refused) {
    PageSpace space(8);
    space.map(~uint64_t{0}, 0);
    space.map(0, 1);
    Part part;
    EXPECT_FALSE(part.resolve(space, ~uint64_t{0} - 15, 32, Access::kRead));
    EXPECT_TRUE(part.resolve(space, ~uint64_t{0} - 15, 16, Access::kRead));
    EXPECT_FALSE(part.resolve(space, 0, kBytes + 1, Access::kRead));
    EXPECT_FALSE(part.resolve(space, 0, 0, Access::kRead));
}

}  // namespace
}  // namespace viommu::virtq::test
