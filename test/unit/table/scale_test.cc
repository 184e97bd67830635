// SPDX-License-Identifier: BSD-3-Clause
/// A guest's table at the size that is promised: 65,536 domains and 16 M mappings.
#include <gtest/gtest.h>

#include <chrono>

#include "viommu_table.hh"

namespace viommu::table {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint32_t kDomains = 65536;
constexpr uint64_t kMappings = uint64_t{16} << 20;

IovaRange page(uint64_t n) { return {{n * kPage}, {n * kPage + kPage - 1}}; }

double seconds_since(std::chrono::steady_clock::time_point begin) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// All is gone, and can be had again.
void expect_empty_after_reset(Table& table) {
    const auto begin = std::chrono::steady_clock::now();
    table.reset();
    ASSERT_TRUE(table.grace_over(table.start_grace()));
    const double seconds = seconds_since(begin);
    std::printf("reset: %.1f ms\n", seconds * 1e3);
    EXPECT_LT(seconds, 1.0);
    const auto usage = table.usage();
    EXPECT_EQ(usage.domains, 0u);
    EXPECT_EQ(usage.mappings, 0u);
    EXPECT_EQ(usage.nodes_used, 0u) << "nodes leaked";
    EXPECT_EQ(table.self_check(), "");
}

TEST(Scale, one_domain_holds_16_m_dense_mappings_in_9_bytes_each) {
    auto made = Table::create({.max_mappings = kMappings, .arena_bytes = uint64_t{144} << 20});
    ASSERT_TRUE(made) << made.error().message;
    Table& table = **made;
    ASSERT_TRUE(table.add_endpoint(1));
    ASSERT_EQ(table.attach(1, 1, false), Status::kOk);
    const auto begin = std::chrono::steady_clock::now();
    for (uint64_t i = 0; i < kMappings; ++i)  // no two of which continue one another
        ASSERT_EQ(table.map(1, page(i), {(kMappings - i) * kPage}, Access::kRead), Status::kOk);
    std::printf("MAP: %.0f ns each\n", seconds_since(begin) * 1e9 / kMappings);
    const auto usage = table.usage();
    EXPECT_EQ(usage.mappings, kMappings);
    EXPECT_LE(double(usage.nodes_used * (kNodeBytes + 16)) / kMappings, 9.0);
    EXPECT_EQ(table.map(1, page(kMappings), {0}, Access::kRead), Status::kNoMem);
    EXPECT_EQ(table.exhausted(), Quota::kMappings);
    EXPECT_EQ(table.self_check(), "");
    expect_empty_after_reset(table);
}

TEST(Scale, table_holds_65536_domains_and_resets_them_at_once) {
    auto made = Table::create({.max_endpoints = kDomains,
                               .max_domains = kDomains,
                               .arena_bytes = uint64_t{2} << 30,
                               .hugepages = Hugepages::kNever});
    ASSERT_TRUE(made) << made.error().message;
    Table& table = **made;
    for (uint32_t i = 0; i < kDomains; ++i) {
        ASSERT_TRUE(table.add_endpoint(i));
        ASSERT_EQ(table.attach(i, i, false), Status::kOk);
        // In some only: each such path takes 12 KiB of memory.
        if (i % 16 == 0) {
            ASSERT_EQ(table.map(i, page(i), {0}, Access::kRead), Status::kOk);
        }
    }
    EXPECT_EQ(table.usage().domains, kDomains);
    EXPECT_EQ(table.usage().mappings, kDomains / 16);
    EXPECT_EQ(table.self_check(), "");
    expect_empty_after_reset(table);
    ASSERT_EQ(table.attach(7, 7, false), Status::kOk);
    EXPECT_EQ(table.map(7, page(1), {0}, Access::kRead), Status::kOk);
    EXPECT_EQ(table.self_check(), "");
}

/// Hugepages of 2 MiB that nobody has taken.
unsigned free_hugepages() {
    unsigned n = 0;
    FILE* file = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "r");
    if (file == nullptr) return 0;
    if (fscanf(file, "%u", &n) != 1) n = 0;
    fclose(file);
    return n;
}

TEST(ArenaPages, never_and_small_arenas_have_normal_pages) {
    EXPECT_EQ(Arena::create({.hugepages = Hugepages::kNever})->page_bytes(), kPage);
    EXPECT_EQ(Arena::create({.arena_bytes = uint64_t{1} << 20})->page_bytes(), kPage);
}

TEST(ArenaPages, always_without_enough_hugepages_is_an_error_with_a_remedy) {
    const uint64_t bytes = (uint64_t{free_hugepages()} + 1000) << 21;
    const auto arena = Arena::create({.arena_bytes = bytes, .hugepages = Hugepages::kAlways});
    ASSERT_FALSE(arena);
    EXPECT_NE(arena.error().message.find("vm.nr_hugepages"), std::string::npos);
    EXPECT_EQ(Arena::create({.arena_bytes = bytes})->page_bytes(), kPage) << "auto does without";
}

TEST(ArenaPages, hugepages_are_used_rounded_up_and_mapped_read_only_by_readers) {
    if (free_hugepages() < 4) GTEST_SKIP() << "fewer than 4 free hugepages";
    constexpr uint64_t kBytes = (uint64_t{5} << 20) + 1;
    for (const auto pages : {Hugepages::kAuto, Hugepages::kAlways}) {
        const auto arena = Arena::create({.arena_bytes = kBytes, .hugepages = pages});
        ASSERT_TRUE(arena) << arena.error().message;
        EXPECT_EQ(arena->page_bytes(), uint64_t{2} << 20);
        EXPECT_EQ(arena->header().arena_bytes, uint64_t{6} << 20);
        const auto mapped = MappedArena::open(arena->fd());
        ASSERT_TRUE(mapped) << mapped.error().message;
        EXPECT_EQ(mapped->view().header->magic, kArenaMagic);
    }
}

}  // namespace
}  // namespace viommu::table
