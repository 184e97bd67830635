// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <numeric>

#include "page_space.hh"

namespace viommu::virtq::test {
namespace {

constexpr uint64_t kAt = 0x70000000;

std::vector<std::byte> pattern(size_t n, unsigned salt = 0) {
    std::vector<std::byte> v(n);
    for (size_t i = 0; i < n; ++i) v[i] = std::byte((i * 131 + (i >> 8) + salt) & 0xff);
    return v;
}

TEST(Chain, buffers_in_order_are_split_by_direction) {
    Chain c;
    c.begin({.id = 7});
    EXPECT_TRUE(c.append(0x1000, 10, false));
    EXPECT_TRUE(c.append(0x2000, 0, false));
    EXPECT_TRUE(c.append(0x3000, 5, true));
    EXPECT_TRUE(c.append(0x4000, 6, true));
    EXPECT_EQ(c.head(), 7);
    ASSERT_EQ(c.readable().size(), 1u);
    ASSERT_EQ(c.writable().size(), 2u);
    EXPECT_EQ(c.writable()[1].addr, 0x4000u);
    EXPECT_EQ(c.readable_bytes(), 10u);
    EXPECT_EQ(c.writable_bytes(), 11u);
    EXPECT_FALSE(c.append(0x5000, 1, false)) << "readable after writable";
    c.begin({.id = 8});
    EXPECT_TRUE(c.readable().empty());
    EXPECT_TRUE(c.append(0x5000, 1, false));
}

TEST(Chain, buffer_that_wraps_is_refused) {
    Chain c;
    c.begin({});
    EXPECT_TRUE(c.append(~uint64_t{0} - 15, 16, false));
    EXPECT_FALSE(c.append(~uint64_t{0} - 15, 17, false));
}

TEST(Chain, more_than_2_to_the_32_bytes_are_refused) {
    Chain c;
    c.begin({});
    EXPECT_TRUE(c.append(0, 0xffffffff, false));
    EXPECT_TRUE(c.append(0, 1, true));
    EXPECT_FALSE(c.append(0, 1, true));
}

TEST(Chain, more_segments_than_it_holds_are_refused) {
    Chain c;
    c.begin({});
    for (unsigned i = 0; i < Chain::kMinSegments; ++i) ASSERT_TRUE(c.append(i, 1, false));
    EXPECT_FALSE(c.append(0, 1, false));
    EXPECT_EQ(c.readable().size(), Chain::kMinSegments);
    c.reserve(1);
    EXPECT_TRUE(c.readable().empty());
    c.reserve(3000);
    for (unsigned i = 0; i < 3000; ++i) ASSERT_TRUE(c.append(i, 1, true));
    EXPECT_FALSE(c.append(0, 1, true));
    EXPECT_EQ(c.writable().size(), 3000u);
}

/// 24 bytes around a page boundary, cut into three segments at any two places.
TEST(Gather, chain_split_at_any_byte_gives_the_same_bytes) {
    PageSpace space(4);
    space.add(kAt, 2 * kPage, true);
    const uint64_t base = kAt + kPage - 11;
    const auto want = pattern(24);
    space.write(base, want.data(), want.size());
    for (uint32_t a = 0; a <= 24; ++a) {
        for (uint32_t b = a; b <= 24; ++b) {
            Chain c;
            c.begin({});
            c.append(base, a, false);
            c.append(base + a, b - a, false);
            c.append(base + b, 24 - b, false);
            std::vector<std::byte> got(24);
            const Copied copied = gather(space, c.readable(), got);
            ASSERT_EQ(copied.bytes, 24u);
            ASSERT_FALSE(copied.faulted);
            ASSERT_EQ(got, want) << a << " " << b;
        }
    }
}

TEST(Scatter, chain_split_at_any_byte_takes_the_same_bytes) {
    PageSpace space(4);
    space.add(kAt, 2 * kPage, true);
    const uint64_t base = kAt + kPage - 11;
    for (uint32_t a = 0; a <= 24; ++a) {
        for (uint32_t b = a; b <= 24; ++b) {
            Chain c;
            c.begin({});
            c.append(base, a, true);
            c.append(base + a, b - a, true);
            c.append(base + b, 24 - b, true);
            const auto want = pattern(24, a * 25 + b);
            const Copied copied = scatter(space, want, c.writable());
            ASSERT_EQ(copied.bytes, 24u);
            ASSERT_FALSE(copied.faulted);
            std::vector<std::byte> got(24);
            space.read(base, got.data(), got.size());
            ASSERT_EQ(got, want) << a << " " << b;
        }
    }
}

TEST(Gather, destination_smaller_than_chain_is_filled_and_no_more_is_resolved) {
    PageSpace space(4);
    space.add(kAt, kPage, false);
    const Segment s[] = {{kAt, 0xffffffff}};
    std::vector<std::byte> got(16);
    const Copied copied = gather(space, s, got);
    EXPECT_EQ(copied.bytes, 16u);
    EXPECT_FALSE(copied.faulted);
    EXPECT_EQ(space.longest, 16u);
}

TEST(Gather, chain_shorter_than_destination_is_no_fault) {
    PageSpace space(4);
    space.add(kAt, kPage, false);
    const Segment s[] = {{kAt, 3}, {kAt + 8, 4}};
    std::vector<std::byte> got(16);
    EXPECT_EQ(gather(space, s, got).bytes, 7u);
    EXPECT_FALSE(gather(space, s, got).faulted);
}

TEST(Gather, fault_in_the_middle_stops_there) {
    PageSpace space(4);
    space.add(kAt, kPage, false);
    const Segment s[] = {{kAt + kPage - 5, 10}, {kAt, 4}};
    std::vector<std::byte> got(14);
    const Copied copied = gather(space, s, got);
    EXPECT_EQ(copied.bytes, 5u);
    EXPECT_TRUE(copied.faulted);
}

TEST(Scatter, read_only_memory_faults_and_is_not_written) {
    PageSpace space(4);
    space.add(kAt, kPage, false, Access::kRead);
    const auto before = space.snapshot();
    const Segment s[] = {{kAt, 16}};
    const Copied copied = scatter(space, pattern(16, 1), s);
    EXPECT_EQ(copied.bytes, 0u);
    EXPECT_TRUE(copied.faulted);
    EXPECT_EQ(space.snapshot(), before);
}

TEST(Cursor, take_hands_out_every_byte_once_and_faults_once) {
    PageSpace space(4);
    space.add(kAt, 2 * kPage, true);
    const Segment s[] = {{kAt + kPage - 3, 6}, {kAt + 100, 1}, {kAt + 9 * kPage, 1}};
    Cursor<PageSpace, Access::kRead> cursor(space, s, 100);
    std::vector<std::byte*> bytes;
    for (auto piece = cursor.take(2); !piece.empty(); piece = cursor.take(2)) {
        ASSERT_LE(piece.size(), 2u);
        for (auto& b : piece) bytes.push_back(&b);
    }
    ASSERT_EQ(bytes.size(), 7u);
    for (unsigned i = 0; i < 6; ++i) EXPECT_EQ(bytes[i], space.host_at(kAt + kPage - 3 + i));
    EXPECT_EQ(bytes[6], space.host_at(kAt + 100));
    EXPECT_TRUE(cursor.faulted());
    const auto resolves = space.resolves;
    EXPECT_EQ(cursor.skip(1), 0u);
    EXPECT_EQ(space.resolves, resolves) << "a fault is found, and reported, once";
}

}  // namespace
}  // namespace viommu::virtq::test
