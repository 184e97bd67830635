// SPDX-License-Identifier: BSD-3-Clause
/// How many words of the table a translation loads: at most one of each level, and of fewer levels
/// where the walk cache hits. lib/table and lib/xlate are compiled into this with an Atomic that
/// counts.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "viommu_xlate.hh"

// What the model test's Atom (test/model/atom.hh) does with an access: here it is counted.
namespace viommu::model {

uint64_t loads = 0;

bool running() noexcept { return true; }
uint64_t load(const void* at, size_t bytes) noexcept {
    ++loads;
    uint64_t value = 0;
    std::memcpy(&value, at, bytes);
    return value;
}
void store(void* at, size_t bytes, uint64_t value, std::memory_order) noexcept {
    std::memcpy(at, &value, bytes);
}
uint64_t add(void* at, size_t bytes, uint64_t n, std::memory_order order) noexcept {
    const uint64_t old = load(at, bytes);
    store(at, bytes, old + n, order);
    return old;
}
void full_fence() noexcept {}

}  // namespace viommu::model

namespace viommu {
namespace {

constexpr EndpointId kEndpoint = 8;
constexpr uint64_t kPage = 4096;
/// The default geometry: 48-bit input, 4 KiB granules.
constexpr uint64_t kLevels = 4;
/// Below what the walk cache remembers, the node of level 2 that leads to 512 GiB.
constexpr uint64_t kNear = 3;

struct Loads : testing::Test {
    void SetUp() override {
        ASSERT_TRUE(table->add_endpoint(kEndpoint));
        ASSERT_EQ(table->attach(kEndpoint, 1, false), Status::kOk);
    }
    /// One page whose leaf is not merged with its neighbours'.
    void map(uint64_t iova, uint64_t bytes = kPage) {
        ASSERT_EQ(table->map(1, {{iova}, {iova + bytes - 1}}, {gpa}, Access::kReadWrite),
                  Status::kOk);
        gpa += 2 * bytes;
    }
    uint64_t loads_of(xlate::Reader& reader, uint64_t iova, uint64_t bytes = 64) {
        model::loads = 0;
        const auto t = reader.translate({iova}, bytes, Access::kRead);
        EXPECT_TRUE(bool(t)) << std::hex << iova;
        EXPECT_EQ(t.bytes(), bytes);
        return model::loads;
    }

    std::unique_ptr<table::Table> table = std::move(*table::Table::create({}));
    xlate::FaultQueue faults;
    uint64_t gpa = uint64_t{1} << 32;
};

TEST_F(Loads, the_counter_counts) {
    map(0);
    auto reader = std::move(*xlate::Reader::create(*table, faults, kEndpoint));
    model::loads = 0;
    reader.enter();
    EXPECT_GE(model::loads, 2u);  // the generation, the route
    EXPECT_EQ(loads_of(reader, 0), kLevels);
    reader.leave();
}

TEST_F(Loads, cache_hit_loads_fewer_words_than_there_are_levels) {
    for (uint64_t i = 0; i < 512; ++i) map(i * kPage);
    auto reader = std::move(*xlate::Reader::create(*table, faults, kEndpoint));
    reader.enter();
    loads_of(reader, 17 * kPage);
    uint64_t most = 0;
    for (uint64_t i = 0; i < 512; ++i) most = std::max(most, loads_of(reader, i * kPage + 8));
    EXPECT_GE(most, 1u);
    EXPECT_LE(most, kNear);
    reader.leave();
}

TEST_F(Loads, random_walk_loads_at_most_one_word_of_each_level) {
    std::mt19937_64 rng(1);
    std::vector<uint64_t> iovas;
    for (uint64_t i = 0; i < 2000; ++i) {
        // One path in each: 36 bits of page number, spread.
        const uint64_t iova = (i * 0x9e3779b97f4a7c15u >> 28 << 12) & ((uint64_t{1} << 48) - 1);
        map(iova);
        iovas.push_back(iova);
    }
    auto reader = std::move(*xlate::Reader::create(*table, faults, kEndpoint));
    reader.enter();
    uint64_t total = 0;
    for (int i = 0; i < 20000; ++i) {
        const uint64_t n = loads_of(reader, iovas[rng() % iovas.size()] + rng() % 4032);
        EXPECT_LE(n, kLevels);
        total += n;
    }
    reader.leave();
    std::printf("%.3f words per translation\n", double(total) / 20000);
    EXPECT_GT(total, 20000u);
}

TEST_F(Loads, run_of_two_pages_loads_twice_as_many) {
    ASSERT_EQ(table->map(1, {{0x1000}, {0x2fff}}, {0x10000}, Access::kReadWrite), Status::kOk);
    auto reader = std::move(*xlate::Reader::create(*table, faults, kEndpoint));
    reader.enter();
    loads_of(reader, 0x1000);
    const uint64_t both = loads_of(reader, 0x1800, kPage);
    EXPECT_GE(both, 2u);
    EXPECT_LE(both, 2 * kNear);
    reader.leave();
}

}  // namespace
}  // namespace viommu
