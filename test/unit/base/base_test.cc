// SPDX-License-Identifier: BSD-3-Clause
#include "viommu_base.hh"

#include <gtest/gtest.h>

#include <cstring>

namespace viommu {
namespace {

constexpr uint64_t kTop = ~uint64_t{0};

TEST(range, from_length_ends_at_the_last_byte) {
    EXPECT_EQ(IovaRange::from_length({0x1000}, 0x1000), (IovaRange{{0x1000}, {0x1fff}}));
    EXPECT_EQ(IovaRange::from_length({kTop}, 1), (IovaRange{{kTop}, {kTop}}));
    EXPECT_EQ(IovaRange::from_length({0}, kTop)->last, Iova{kTop - 1});
}

TEST(range, from_length_of_nothing_or_past_the_end_is_none) {
    EXPECT_FALSE(IovaRange::from_length({5}, 0));
    EXPECT_FALSE(IovaRange::from_length({kTop}, 2));
    EXPECT_FALSE(IovaRange::from_length({2}, kTop));
}

TEST(range, from_bounds_backwards_is_none) {
    EXPECT_FALSE(IovaRange::from_bounds({2}, {1}));
    EXPECT_EQ(IovaRange::from_bounds({1}, {1})->extent(), 0u);
    EXPECT_EQ(IovaRange::from_bounds({0}, {kTop})->extent(), kTop);
}

TEST(range, contains_and_overlaps_are_inclusive) {
    constexpr IovaRange r{{10}, {20}};
    static_assert(r.contains(Iova{10}) && r.contains(Iova{20}));
    static_assert(!r.contains(Iova{9}) && !r.contains(Iova{21}));
    static_assert(r.contains(IovaRange{{10}, {20}}) && !r.contains(IovaRange{{10}, {21}}));
    static_assert(r.overlaps({{20}, {30}}) && r.overlaps({{0}, {10}}) && r.overlaps({{0}, {99}}));
    static_assert(!r.overlaps({{21}, {30}}) && !r.overlaps({{0}, {9}}));
}

TEST(address, arithmetic_wraps_and_prints_as_hex) {
    EXPECT_EQ((Gpa{kTop} + 1).value, 0u);
    EXPECT_EQ(Gpa{5} - Gpa{7}, kTop - 1);
    EXPECT_EQ(fmt::format("{} {}", Iova{0x1f}, IovaRange{{1}, {2}}), "0x1f [0x1, 0x2]");
}

template <class A, class B>
concept Comparable = requires(A a, B b) { a == b; };

TEST(address, spaces_do_not_mix) {
    static_assert(Comparable<Iova, Iova>);
    static_assert(!Comparable<Iova, Gpa>);
    static_assert(!std::is_convertible_v<Iova, Gpa>);
}

TEST(access, allows_needs_every_right) {
    static_assert(allows(Access::kReadWrite, Access::kRead));
    static_assert(allows(Access::kRead, Access::kNone));
    static_assert(!allows(Access::kRead, Access::kReadWrite));
    static_assert(!allows(Access::kReadWrite, Access::kMmio));
}

TEST(le, bytes_are_little_endian_wherever_they_lie) {
    struct Packed {
        uint8_t pad;
        le16 a;
        le64 b;
    };
    static_assert(sizeof(Packed) == 11);
    Packed p{0, 0x1234, 0x0102030405060708};
    const uint8_t want[] = {0, 0x34, 0x12, 8, 7, 6, 5, 4, 3, 2, 1};
    EXPECT_EQ(std::memcmp(&p, want, sizeof want), 0);
    EXPECT_EQ(p.a, 0x1234);
    EXPECT_EQ(p.b, 0x0102030405060708u);
}

TEST(result, fail_carries_its_message) {
    const Result<int> r = fail("{}: {}", "key", 7);
    ASSERT_FALSE(r);
    EXPECT_EQ(r.error().message, "key: 7");
}

TEST(status, names_are_the_specifications) {
    EXPECT_STREQ(to_string(Status::kOk), "OK");
    EXPECT_STREQ(to_string(Status::kNoMem), "NOMEM");
    EXPECT_STREQ(to_string(Status(77)), "?");
}

}  // namespace
}  // namespace viommu
