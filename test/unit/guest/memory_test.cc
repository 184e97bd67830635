// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <set>

#include "viommu_guest.hh"

namespace viommu::guest {
namespace {

constexpr uint64_t kMiB = 1 << 20;

TEST(Memory, banks_are_found_by_gpa_and_not_across_their_ends) {
    const RegionLayout banks[] = {{Gpa{0x10000}, 0x4000}, {Gpa{0x14000}, 0x2000}};
    const auto memory = Memory::create(banks);
    ASSERT_TRUE(memory) << memory.error().message;
    const Memory& m = **memory;
    ASSERT_EQ(m.regions().size(), 2u);
    EXPECT_EQ(m.regions()[1].file_offset, 0x4000u);
    EXPECT_EQ(m.at(Gpa{0x10000}, 0x4000), m.regions()[0].data);
    EXPECT_EQ(m.at(Gpa{0x15fff}), m.regions()[1].data + 0x1fff);
    EXPECT_EQ(m.at(Gpa{0x13fff}, 2), nullptr) << "the banks are neighbours in GPA only";
    EXPECT_EQ(m.at(Gpa{0xffff}), nullptr);
    EXPECT_EQ(m.at(Gpa{0x16000}), nullptr);
    EXPECT_EQ(m.at(Gpa{0x10000}, UINT64_MAX), nullptr);
    EXPECT_EQ(m.uva(Gpa{0x14010})->value, reinterpret_cast<uintptr_t>(m.regions()[1].data) + 0x10);
}

TEST(Memory, impossible_banks_are_refused) {
    const auto refused = [](std::vector<RegionLayout> banks) { return !Memory::create(banks); };
    EXPECT_TRUE(refused({}));
    EXPECT_TRUE(refused({{Gpa{0}, 0}}));
    EXPECT_TRUE(refused({{Gpa{1}, 0x1000}}));
    EXPECT_TRUE(refused({{Gpa{0}, 0x1001}}));
    EXPECT_TRUE(refused({{Gpa{0}, 0x2000}, {Gpa{0x1000}, 0x1000}}));
    EXPECT_TRUE(refused({{Gpa{~uint64_t{0xfff}}, 0x2000}}));
}

TEST(Memory, allocated_pages_are_adjacent_zeroed_and_counted) {
    const auto memory = Memory::create(kMiB);
    Memory& m = **memory;
    EXPECT_EQ(m.free_pages(), 255u) << "page 0 is never given";
    const auto first = m.allocate(3);
    ASSERT_TRUE(first);
    EXPECT_NE(first->value, 0u);
    m.at(*first)[0] = std::byte{7};
    EXPECT_EQ(m.free_pages(), 252u);
    m.release(*first, 3);
    const auto all = m.allocate(255);
    ASSERT_TRUE(all) << all.error().message;
    EXPECT_EQ(*all, Gpa{kPageBytes});
    EXPECT_EQ(m.at(*first)[0], std::byte{0});
    EXPECT_FALSE(m.allocate(1));
}

TEST(Memory, a_run_does_not_cross_the_end_of_a_bank) {
    const RegionLayout banks[] = {{Gpa{0x100000}, 0x4000}, {Gpa{0x200000}, 0x4000}};
    const auto memory = Memory::create(banks);
    Memory& m = **memory;
    ASSERT_TRUE(m.allocate(3));
    EXPECT_EQ(*m.allocate(2), Gpa{0x200000}) << "one page is left before the end of the first bank";
    EXPECT_FALSE(m.allocate(3));
    EXPECT_EQ(m.free_pages(), 3u);
}

TEST(Memory, scattered_pages_are_distinct_and_never_adjacent) {
    const auto memory = Memory::create(kMiB);
    Memory& m = **memory;
    const auto pages = m.allocate_scattered(100);
    ASSERT_TRUE(pages) << pages.error().message;
    std::set<uint64_t> distinct;
    for (size_t i = 0; i < pages->size(); ++i) {
        distinct.insert((*pages)[i].value);
        if (i == 0) continue;
        EXPECT_NE((*pages)[i], (*pages)[i - 1] + kPageBytes);
        EXPECT_NE((*pages)[i] + kPageBytes, (*pages)[i - 1]);
    }
    EXPECT_EQ(distinct.size(), 100u);
    EXPECT_EQ(m.free_pages(), 155u);
}

TEST(Memory, scattered_pages_that_do_not_suffice_are_all_given_back) {
    const auto memory = Memory::create(16 * kPageBytes);
    Memory& m = **memory;
    EXPECT_FALSE(m.allocate_scattered(16));
    EXPECT_EQ(m.free_pages(), 15u);
}

TEST(DmaBlock, bytes_cross_pages_that_are_apart) {
    const auto memory = Memory::create(kMiB);
    const auto block = allocate_block(**memory, 3 * kPageBytes, Placement::kScattered);
    ASSERT_TRUE(block);
    std::vector<std::byte> pattern(2 * kPageBytes), copy(2 * kPageBytes);
    for (size_t i = 0; i < pattern.size(); ++i) pattern[i] = std::byte(i * 7 + i / 256);
    block->write(100, pattern);
    block->read(100, copy);
    EXPECT_EQ(copy, pattern);
    EXPECT_EQ((*memory)->at(block->pages[1])[0], pattern[kPageBytes - 100]);
    release_block(**memory, *block);
    EXPECT_EQ((*memory)->free_pages(), 255u);
}

TEST(OffsetDma, bus_addresses_are_gpas_plus_the_offset) {
    const auto memory = Memory::create(kMiB);
    OffsetDma dma(**memory, 0x1000'0000);
    const auto block = dma.allocate(5000);
    ASSERT_TRUE(block);
    EXPECT_EQ(block->pages.size(), 2u);
    EXPECT_EQ(block->bus.value, block->pages[0].value + 0x1000'0000);
    EXPECT_EQ(dma.map(Gpa{0x3000}, 10, Access::kRead)->value, 0x1000'3000u);
}

}  // namespace
}  // namespace viommu::guest
